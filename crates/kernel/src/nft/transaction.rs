//! A transaction on one table: everything in it takes effect at once, or nothing does.

use rustix::io::Errno;

use super::model::*;
use super::{encode, message_type};
use crate::netlink::message::{APPEND, CREATE};
use crate::netlink::{Batch, NetlinkError, Socket};

/// The kernel's own number, which is in no header of user space.
const ERESTART: Errno = Errno::from_raw_os_error(85);

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// A list of elements is one attribute, at most 64 kB; far under it, so that a single element always fits.
const LIST_LIMIT: usize = 60_000;

/// Why a transaction did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Someone else committed since the generation that was named: read back, then try again.
    #[error("the rule set is not of generation {0} any more")]
    Stale(u32),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Steps on one table, in order.
#[derive(Debug)]
pub struct Transaction {
    family: Family,
    table: String,
    batch: Batch,
    sets: u32,
}

impl Transaction {
    pub fn new(family: Family, table: &str) -> Transaction {
        let mut batch = Batch::new();
        batch.message(BATCH_BEGIN, 0, "begin a transaction", |m| {
            m.put(&[0, 0, 0, 10]);
            // NFNL_BATCH_GENID; 0 is any generation. It is written by `commit_at`.
            m.attr_be32(1, 0);
        });
        Transaction { family, table: table.to_string(), batch, sets: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.batch.len() == 1
    }

    /// Number of messages, and bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.batch.len() - 1, self.batch.size())
    }

    fn step(&mut self, message: u16, flags: u16, object: String, fill: impl FnOnce(&mut Batch)) {
        let header = [self.family.number(), 0, 0, 0];
        let table = &self.table;
        self.batch.message(message_type(message), flags, object, |m| {
            m.put(&header);
            m.attr_str(1, table);
            fill(m);
        });
    }

    /// Not an error if it is there. The comment takes effect only where it is not.
    pub fn add_table(&mut self, comment: Option<&str>) {
        let object = format!("add table {}", self.table);
        self.step(NEWTABLE, CREATE, object, |m| {
            m.attr_be32(2, 0);
            if let Some(comment) = comment {
                m.attr(6, &encode::comment(comment));
            }
        });
    }

    /// A table that nobody but the socket it is committed by may change, and that goes with that socket.
    pub fn add_owned_table(&mut self) {
        // NFT_TABLE_F_OWNER
        let object = format!("add table {}", self.table);
        self.step(NEWTABLE, CREATE, object, |m| m.attr_be32(2, 2));
    }

    pub fn delete_table(&mut self) {
        let object = format!("delete table {}", self.table);
        self.step(DELTABLE, 0, object, |_| {});
    }

    pub fn add_set(&mut self, name: &str, of: &SetType) {
        self.sets += 1;
        let id = self.sets;
        self.step(NEWSET, CREATE, format!("add set {name}"), |m| {
            m.attr_str(2, name);
            m.attr_be32(10, id);
            encode::set_type(m, of);
        });
    }

    /// Whose elements go with it. Nothing may use it any more.
    pub fn delete_set(&mut self, name: &str) {
        self.step(DELSET, 0, format!("delete set {name}"), |m| m.attr_str(2, name));
    }

    /// Not an error where an element is there with the same data.
    pub fn add_elements<'a>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = (&'a [u8], bool, &'a Data)>,
    ) {
        self.elements(NEWSETELEM, CREATE, "add elements to", set, elements);
    }

    /// An error where one is not there.
    pub fn delete_elements<'a>(&mut self, set: &str, keys: impl IntoIterator<Item = (&'a [u8], bool)>) {
        let keys = keys.into_iter().map(|(key, end)| (key, end, &Data::Nothing));
        self.elements(DELSETELEM, 0, "delete elements of", set, keys);
    }

    fn elements<'a>(
        &mut self,
        message: u16,
        flags: u16,
        what: &str,
        set: &str,
        elements: impl IntoIterator<Item = (&'a [u8], bool, &'a Data)>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.step(message, flags, format!("{what} {set}"), |m| {
                m.attr_str(2, set);
                m.nest(3, |m| {
                    let start = m.size();
                    while m.size() - start < LIST_LIMIT {
                        let Some((key, end, data)) = elements.next() else { break };
                        encode::element(m, key, end, Some(data));
                    }
                });
            });
        }
    }

    /// Not an error if it is there and of the same kind; its rules stay.
    pub fn add_chain(&mut self, name: &str, base: Option<&Base>) {
        self.step(NEWCHAIN, CREATE, format!("add chain {name}"), |m| {
            m.attr_str(3, name);
            if let Some(base) = base {
                encode::base(m, base);
            }
        });
    }

    /// With its rules. Nothing may lead to it any more.
    pub fn delete_chain(&mut self, name: &str) {
        self.step(DELCHAIN, 0, format!("delete chain {name}"), |m| m.attr_str(3, name));
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.step(NEWRULE, CREATE | APPEND, format!("add a rule to chain {chain}"), |m| {
            m.attr_str(2, chain);
            encode::rule(m, rule);
        });
    }

    /// Puts a rule with a comment before all others (in a chain of someone else).
    pub fn insert_rule(&mut self, chain: &str, rule: &Rule, comment: &str) {
        self.step(NEWRULE, CREATE, format!("insert a rule into chain {chain}"), |m| {
            m.attr_str(2, chain);
            encode::rule(m, rule);
            m.attr(7, &encode::comment(comment));
        });
    }

    pub fn delete_rule(&mut self, chain: &str, handle: u64) {
        self.step(DELRULE, 0, format!("delete rule {handle} of chain {chain}"), |m| {
            m.attr_str(2, chain);
            m.attr(3, &handle.to_be_bytes());
        });
    }

    /// Removes all rules of a chain, which stays.
    pub fn flush_chain(&mut self, chain: &str) {
        self.step(DELRULE, 0, format!("flush chain {chain}"), |m| m.attr_str(2, chain));
    }

    /// Everything of a table that is not there yet.
    pub fn add_all(&mut self, table: &Table) {
        self.change(&Table::default(), table);
    }

    /// From `old` to `new`, which differ in elements, rules, and chains and sets that come and go. Returns false, and
    /// adds nothing, where a set's type, a chain's kind or the table's flags differ: replace the table whole then.
    pub fn change(&mut self, old: &Table, new: &Table) -> bool {
        let same_sets = new.sets.iter().all(|(n, set)| old.sets.get(n).is_none_or(|was| was.of == set.of));
        let same_chains =
            new.chains.iter().all(|(n, chain)| old.chains.get(n).is_none_or(|was| was.base == chain.base));
        if !same_sets || !same_chains || old.flags != new.flags {
            return false;
        }
        let none = Elements::new();
        let (verdicts, plain): (Vec<_>, Vec<_>) =
            new.sets.iter().partition(|(_, set)| set.of.maps_to == MapsTo::Verdict);
        let change_elements = |this: &mut Transaction, (name, set): (&String, &Set)| {
            let was = old.sets.get(name).map_or(&none, |was| &was.elements);
            let gone = was.iter().filter(|(key, data)| set.elements.get(*key) != Some(*data));
            this.delete_elements(name, gone.map(|((key, end), _)| (key.as_slice(), *end)));
            let come = set.elements.iter().filter(|(key, data)| was.get(*key) != Some(*data));
            this.add_elements(name, come.map(|((key, end), data)| (key.as_slice(), *end, data)));
        };
        for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            self.add_set(name, &set.of);
        }
        for entry in plain {
            change_elements(self, entry);
        }
        for (name, chain) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            self.add_chain(name, chain.base.as_ref());
        }
        for entry in verdicts {
            change_elements(self, entry);
        }
        for (name, chain) in &new.chains {
            match old.chains.get(name) {
                Some(was) if was.rules == chain.rules => continue,
                Some(was) if !was.rules.is_empty() => self.flush_chain(name),
                _ => {}
            }
            for rule in &chain.rules {
                self.add_rule(name, rule);
            }
        }
        // First all rules, then what they lead to.
        let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
        for name in &gone {
            if !old.chains[*name].rules.is_empty() {
                self.flush_chain(name);
            }
        }
        let gone_sets = || old.sets.iter().filter(|(name, _)| !new.sets.contains_key(*name));
        for (name, _) in gone_sets().filter(|(_, set)| set.of.maps_to == MapsTo::Verdict) {
            self.delete_set(name);
        }
        for name in gone {
            self.delete_chain(name);
        }
        for (name, _) in gone_sets().filter(|(_, set)| set.of.maps_to != MapsTo::Verdict) {
            self.delete_set(name);
        }
        true
    }

    /// Whatever the generation of the rule set is.
    pub fn commit(self, socket: &mut Socket) -> Result<(), CommitError> {
        self.commit_at(socket, 0)
    }

    /// Only if the rule set of this namespace is of that generation; then it is of the next.
    pub fn commit_at(mut self, socket: &mut Socket, generation: u32) -> Result<(), CommitError> {
        // Behind the message's header (16), the fixed part (4) and the attribute's header (4).
        self.batch.overwrite(24, &generation.to_be_bytes());
        self.batch.message(BATCH_END, 0, "end a transaction", |m| m.put(&[0, 0, 0, 10]));
        match socket.request(&self.batch) {
            Err(e) if e.errno() == Some(ERESTART) => Err(CommitError::Stale(generation)),
            result => Ok(result?),
        }
    }
}
