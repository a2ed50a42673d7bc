//! Reading back, and events. Never on the way of a change: a list of a large table takes milliseconds.

use super::model::*;
use super::{decode, message_type};
use crate::netlink::message::DUMP;
use crate::netlink::{Attributes, Batch, Event, NetlinkError, Socket, attributes};

const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETSET: u16 = 10;
const GETSETELEM: u16 = 13;
const NEWGEN: u16 = 15;
const GETGEN: u16 = 16;

/// Someone committed a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub id: u32,
    /// The name of the process, as the kernel knows it.
    pub by: String,
}

/// The type of [`Generation`] events, for [`Socket::only`].
pub const GENERATION_EVENT: u16 = message_type(NEWGEN);

impl Generation {
    /// None for other events.
    pub fn parse(event: Event<'_>) -> Option<Generation> {
        if event.kind != GENERATION_EVENT {
            return None;
        }
        let attrs = attributes(event.payload.get(4..)?);
        Some(Generation { id: attrs.be32(1)?, by: attrs.str(3).unwrap_or_default().to_string() })
    }
}

/// The generation of this namespace's rule set: it grows by one with every transaction, whoever commits it.
pub fn generation(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(message_type(GETGEN), 0, "read the generation", |m| m.put(&[0; 4]));
    let mut generation = None;
    socket.dump("read the generation", &batch, |event| {
        generation = Generation::parse(event);
    })?;
    generation.map(|g| g.id).ok_or(NetlinkError::Malformed("read the generation"))
}

fn list(
    socket: &mut Socket,
    what: &'static str,
    message: u16,
    flags: u16,
    family: u8,
    fill: impl FnOnce(&mut Batch),
    mut take: impl FnMut(u8, Attributes<'_>),
) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(message_type(message), flags, what, |m| {
        m.put(&[family, 0, 0, 0]);
        fill(m);
    });
    socket.dump(what, &batch, |event| {
        if let (Some(family), Some(rest)) = (event.payload.first(), event.payload.get(4..)) {
            take(*family, attributes(rest));
        }
    })
}

/// Names of the tables of a family, with their comments.
pub fn tables(socket: &mut Socket, family: Family) -> Result<Vec<(String, Option<String>)>, NetlinkError> {
    let mut names = Vec::new();
    list_tables(socket, family, |name, table| names.push((name.to_string(), table.comment)))?;
    Ok(names)
}

fn list_tables(
    socket: &mut Socket,
    family: Family,
    mut take: impl FnMut(&str, Table),
) -> Result<(), NetlinkError> {
    list(
        socket,
        "list tables",
        GETTABLE,
        DUMP,
        family.number(),
        |_| {},
        |of, attrs| {
            if let Some(name) = attrs.str(1).filter(|_| of == family.number()) {
                let comment = attrs.get(6).and_then(decode::comment);
                take(name, Table { comment, flags: attrs.be32(2).unwrap_or(0), ..Table::default() });
            }
        },
    )
}

/// A base chain of anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    pub table: String,
    pub name: String,
    pub base: Base,
}

/// All base chains of a family.
pub fn base_chains(socket: &mut Socket, family: Family) -> Result<Vec<ForeignChain>, NetlinkError> {
    let mut chains = Vec::new();
    list(
        socket,
        "list chains",
        GETCHAIN,
        DUMP,
        family.number(),
        |_| {},
        |of, attrs| {
            if of == family.number() {
                chains.extend(base_chain(&attrs));
            }
        },
    )?;
    Ok(chains)
}

fn base_chain(attrs: &Attributes<'_>) -> Option<ForeignChain> {
    Some(ForeignChain {
        table: attrs.str(1)?.to_string(),
        name: attrs.str(3)?.to_string(),
        base: decode::base(attrs)?,
    })
}

/// Handles of the rules of a chain that bear that comment.
pub fn rules_with_comment(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: &str,
    comment: &str,
) -> Result<Vec<u64>, NetlinkError> {
    rules_where(socket, family, table, chain, |attrs| {
        attrs.get(7).and_then(decode::comment).as_deref() == Some(comment)
    })
}

/// Handles of the rules of a chain, in order.
pub fn rule_handles(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: &str,
) -> Result<Vec<u64>, NetlinkError> {
    rules_where(socket, family, table, chain, |_| true)
}

fn rules_where(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: &str,
    wanted: impl Fn(&Attributes<'_>) -> bool,
) -> Result<Vec<u64>, NetlinkError> {
    let mut handles = Vec::new();
    let filter = |m: &mut Batch| {
        m.attr_str(1, table);
        m.attr_str(2, chain);
    };
    list(socket, "list rules", GETRULE, DUMP, family.number(), filter, |_, attrs| {
        if attrs.str(1) == Some(table) && attrs.str(2) == Some(chain) && wanted(&attrs) {
            handles.extend(attrs.be64(3));
        }
    })?;
    Ok(handles)
}

/// A table with everything in it; None if there is none.
pub fn table(socket: &mut Socket, family: Family, name: &str) -> Result<Option<Table>, NetlinkError> {
    let number = family.number();
    let mut found = None;
    list_tables(socket, family, |other, table| {
        if other == name {
            found = Some(table);
        }
    })?;
    let Some(mut table) = found else { return Ok(None) };
    let in_table = |m: &mut Batch| m.attr_str(1, name);
    list(
        socket,
        "list chains",
        GETCHAIN,
        DUMP,
        number,
        |_| {},
        |of, attrs| {
            if of == number
                && attrs.str(1) == Some(name)
                && let Some(chain) = attrs.str(3)
            {
                let base = decode::base(&attrs);
                table.chains.insert(chain.to_string(), Chain { base, rules: Vec::new() });
            }
        },
    )?;
    list(socket, "list rules", GETRULE, DUMP, number, in_table, |of, attrs| {
        if of == number
            && attrs.str(1) == Some(name)
            && let Some(chain) = attrs.str(2).and_then(|chain| table.chains.get_mut(chain))
        {
            chain.rules.push(decode::rule(&attrs));
        }
    })?;
    list(socket, "list sets", GETSET, DUMP, number, in_table, |of, attrs| {
        if of == number
            && attrs.str(1) == Some(name)
            && let (Some(set), Some(of)) = (attrs.str(2), decode::set_type(&attrs))
        {
            table.sets.insert(set.to_string(), Set { of, elements: Elements::new() });
        }
    })?;
    for (set, state) in table.sets.iter_mut().filter(|(_, state)| !state.of.learns) {
        let filter = |m: &mut Batch| {
            m.attr_str(1, name);
            m.attr_str(2, set);
        };
        list(socket, "list elements", GETSETELEM, DUMP, number, filter, |_, attrs| {
            state
                .elements
                .extend(attrs.nested(3).filter_map(|(_, payload)| decode::element(&attributes(payload))));
        })?;
    }
    Ok(Some(table))
}
