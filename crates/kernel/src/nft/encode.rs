//! The model in netlink attributes.

use super::model::*;
use crate::netlink::Batch;

/// `enum nft_fib_result` and `enum nft_fib_flags`.
pub(super) const FIB_RESULT_OIF: u32 = 1;
pub(super) const FIB_SADDR: u32 = 1;
pub(super) const FIB_IIF: u32 = 8;

/// `table->udata`, `set->udata`: type, length, value, as libnftnl packs them.
fn user_data(records: &[(u8, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (kind, value) in records {
        data.push(*kind);
        data.push(value.len() as u8);
        data.extend_from_slice(value);
    }
    data
}

/// What `nft` shows as `comment "…"`, for tables, chains and rules alike (all number it 0).
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut value = text.as_bytes()[..text.len().min(127)].to_vec();
    value.push(0);
    user_data(&[(0, &value)])
}

pub(super) fn set_type(m: &mut Batch, of: &SetType) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    /// NFT_SET_TIMEOUT | NFT_SET_EVAL
    const LEARNS: u32 = 0x30;
    const BIG_ENDIAN: u32 = 2;
    const HOST_ENDIAN: u32 = 1;
    let order = |types: &[DataType]| match types {
        [DataType::IfaceIndex | DataType::IfaceName | DataType::Mark | DataType::Integer] => HOST_ENDIAN,
        [_] => BIG_ENDIAN,
        _ => 0,
    };
    let mut flags = if of.interval { INTERVAL } else { 0 };
    if of.maps_to != MapsTo::Nothing {
        flags |= MAP;
    }
    if of.learns {
        flags |= LEARNS;
    }
    m.attr_be32(3, flags);
    m.attr_be32(4, type_number(&of.key));
    m.attr_be32(5, type_size(&of.key));
    if of.learns {
        m.nest(9, |m| m.attr_be32(1, LEARNS_AT_MOST));
    }
    // How `nft` prints integers: it cannot know the byte order from the kernel.
    let key_order = order(&of.key).to_ne_bytes();
    match &of.maps_to {
        MapsTo::Nothing => m.attr(13, &user_data(&[(0, &key_order)])),
        MapsTo::Verdict => {
            m.attr_be32(6, 0xffff_ff00);
            m.attr_be32(7, 0);
            m.attr(13, &user_data(&[(0, &key_order), (1, &[0; 4]), (6, &[0; 4])]));
        }
        MapsTo::Data(types) => {
            m.attr_be32(6, type_number(types));
            m.attr_be32(7, type_size(types));
            let data_order = order(types).to_ne_bytes();
            let mut records: Vec<(u8, &[u8])> = vec![(0, &key_order), (1, &data_order)];
            if let Some((key, data)) = spelt(&of.key, types) {
                records.extend([(3, key), (4, data), (2, &[0; 4])]);
            }
            records.push((6, &[0; 4]));
            m.attr(13, &user_data(&records));
        }
    }
}

/// What `nft` prints as `typeof meta mark . numgen random mod 2 : ip daddr . th dport`: an integer's size is not in the
/// name of its type. As nft 1.0.6 writes it: expression 13 (a concatenation) of its parts, each with its own attributes.
fn spelt(key: &[DataType], data: &[DataType]) -> Option<(&'static [u8], &'static [u8])> {
    const MARK_AND_NUMBER: &[u8] = &[
        0, 4, 13, 0, 0, 0, 1, 44, //
        0, 14, 0, 4, 9, 0, 0, 0, 1, 6, 0, 4, 3, 0, 0, 0, // meta mark
        1, 26, 0, 4, 23, 0, 0, 0, 1, 18, 0, 4, 1, 0, 0, 0, 1, 4, 2, 0, 0, 0, 2, 4, 0, 0, 0, 0, // numgen
    ];
    const ADDRESS_AND_PORT: &[u8] = &[
        0, 4, 13, 0, 0, 0, 1, 44, //
        0, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 12, 0, 0, 0, 1, 4, 12, 0, 0, 0, // ip daddr
        1, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 11, 0, 0, 0, 1, 4, 2, 0, 0, 0, // th dport
    ];
    const ADDRESS6_AND_PORT: &[u8] = &[
        0, 4, 13, 0, 0, 0, 1, 44, //
        0, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 13, 0, 0, 0, 1, 4, 9, 0, 0, 0, // ip6 daddr
        1, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 11, 0, 0, 0, 1, 4, 2, 0, 0, 0, // th dport
    ];
    match (key, data) {
        ([DataType::Mark, DataType::Integer], [DataType::Ipv4Addr, DataType::InetService]) => {
            Some((MARK_AND_NUMBER, ADDRESS_AND_PORT))
        }
        ([DataType::Mark, DataType::Integer], [DataType::Ipv6Addr, DataType::InetService]) => {
            Some((MARK_AND_NUMBER, ADDRESS6_AND_PORT))
        }
        _ => None,
    }
}

fn type_number(types: &[DataType]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | part.number())
}

/// Each part of a concatenation fills whole registers of four bytes.
fn type_size(types: &[DataType]) -> u32 {
    match types {
        [one] => one.size(),
        parts => parts.iter().map(|part| part.size().next_multiple_of(4)).sum(),
    }
}

pub(super) fn element(m: &mut Batch, key: &[u8], interval_end: bool, data: Option<&Data>) {
    m.nest(1, |m| {
        if interval_end {
            m.attr_be32(3, 1);
        }
        m.nest(1, |m| m.attr(1, key));
        match data {
            None | Some(Data::Nothing) => {}
            Some(Data::Value(value)) => m.nest(2, |m| m.attr(1, value)),
            Some(Data::Verdict(verdict)) => m.nest(2, |m| m.nest(2, |m| put_verdict(m, verdict))),
        }
    });
}

fn put_verdict(m: &mut Batch, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
        Verdict::Other(code) => (*code, None),
    };
    m.attr_be32(1, code as u32);
    if let Some(chain) = chain {
        m.attr_str(2, chain);
    }
}

pub(super) fn base(m: &mut Batch, base: &Base) {
    m.nest(4, |m| {
        m.attr_be32(1, base.hook.number());
        m.attr_be32(2, base.priority as u32);
    });
    m.attr_be32(5, u32::from(!base.drop));
    m.attr_str(
        7,
        match base.kind {
            ChainKind::Filter | ChainKind::Other => "filter",
            ChainKind::Nat => "nat",
        },
    );
}

pub(super) fn rule(m: &mut Batch, rule: &Rule) {
    m.nest(4, |m| {
        for expr in &rule.0 {
            m.nest(1, |m| put_expr(m, expr));
        }
    });
}

fn named(m: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    m.attr_str(1, name);
    m.nest(2, fill);
}

fn put_expr(m: &mut Batch, expr: &Expr) {
    match expr {
        Expr::Meta { key, to } => named(m, "meta", |m| {
            m.attr_be32(
                2,
                match key {
                    Meta::Mark => 3,
                    Meta::Iif => 4,
                    Meta::Oif => 5,
                    Meta::IifName => 6,
                    Meta::OifName => 7,
                    Meta::NfProto => 15,
                    Meta::L4Proto => 16,
                    Meta::Other(n) => *n,
                },
            );
            m.attr_be32(1, *to);
        }),
        Expr::Payload { base, offset, len, to } => named(m, "payload", |m| {
            m.attr_be32(1, *to);
            m.attr_be32(
                2,
                match base {
                    Header::Link => 0,
                    Header::Network => 1,
                    Header::Transport => 2,
                    Header::Other(n) => *n,
                },
            );
            m.attr_be32(3, *offset);
            m.attr_be32(4, *len);
        }),
        Expr::Ct { key, to } => named(m, "ct", |m| {
            let (number, direction) = match key {
                Ct::State => (0, None),
                Ct::Status => (2, None),
                Ct::SourceIp(direction) => (19, Some(direction)),
                Ct::SourceIp6(direction) => (21, Some(direction)),
                Ct::SourcePort(direction) => (11, Some(direction)),
                Ct::Other(n) => (*n, None),
            };
            m.attr_be32(2, number);
            m.attr_be32(1, *to);
            if let Some(direction) = direction {
                m.attr(3, &[u8::from(*direction == Direction::Reply)]);
            }
        }),
        Expr::Cmp { op, from, data } => named(m, "cmp", |m| {
            m.attr_be32(1, *from);
            m.attr_be32(
                2,
                match op {
                    Op::Eq => 0,
                    Op::Neq => 1,
                    Op::Lt => 2,
                    Op::Lte => 3,
                    Op::Gt => 4,
                    Op::Gte => 5,
                    Op::Other(n) => *n,
                },
            );
            m.nest(3, |m| m.attr(1, data));
        }),
        Expr::Bitwise { from, to, mask, xor } => named(m, "bitwise", |m| {
            m.attr_be32(1, *from);
            m.attr_be32(2, *to);
            m.attr_be32(3, mask.len() as u32);
            m.nest(4, |m| m.attr(1, mask));
            m.nest(5, |m| m.attr(1, xor));
        }),
        Expr::Lookup { set, from, to, inverted } => named(m, "lookup", |m| {
            m.attr_str(1, set);
            m.attr_be32(2, *from);
            if let Some(to) = to {
                m.attr_be32(3, *to);
            }
            if *inverted {
                m.attr_be32(5, 1);
            }
        }),
        Expr::Immediate { to, data } => named(m, "immediate", |m| {
            m.attr_be32(1, *to);
            m.nest(2, |m| m.attr(1, data));
        }),
        Expr::Verdict(verdict) => named(m, "immediate", |m| {
            m.attr_be32(1, 0);
            m.nest(2, |m| m.nest(2, |m| put_verdict(m, verdict)));
        }),
        Expr::Nat { family, source, address, port } => named(m, "nat", |m| {
            m.attr_be32(1, u32::from(!*source));
            m.attr_be32(2, u32::from(*family));
            m.attr_be32(3, *address);
            if let Some(port) = port {
                m.attr_be32(5, *port);
            }
        }),
        Expr::Masquerade => named(m, "masq", |_| {}),
        Expr::SetMark { from } => named(m, "meta", |m| {
            m.attr_be32(2, 3);
            m.attr_be32(3, *from);
        }),
        Expr::SetTrace { from } => named(m, "meta", |m| {
            m.attr_be32(2, 12);
            m.attr_be32(3, *from);
        }),
        Expr::Update { set, key, milliseconds } => named(m, "dynset", |m| {
            m.attr_str(1, set);
            // NFT_DYNSET_OP_UPDATE
            m.attr_be32(3, 1);
            m.attr_be32(4, *key);
            m.attr(6, &milliseconds.to_be_bytes());
        }),
        Expr::RejectIcmp { code } => named(m, "reject", |m| {
            m.attr_be32(1, 0);
            m.attr(2, &[*code]);
        }),
        Expr::RejectTcpReset => named(m, "reject", |m| m.attr_be32(1, 1)),
        Expr::Numgen { modulus, random, to } => named(m, "numgen", |m| {
            m.attr_be32(1, *to);
            m.attr_be32(2, *modulus);
            m.attr_be32(3, u32::from(*random));
            m.attr_be32(4, 0);
        }),
        Expr::FibDaddrType { to } => named(m, "fib", |m| {
            m.attr_be32(1, *to);
            m.attr_be32(2, 3);
            m.attr_be32(3, 2);
        }),
        Expr::FibReversePath { to } => named(m, "fib", |m| {
            m.attr_be32(1, *to);
            m.attr_be32(2, FIB_RESULT_OIF);
            m.attr_be32(3, FIB_SADDR | FIB_IIF);
        }),
        // Read from someone else's table: never written.
        Expr::Other(name) => named(m, name, |_| {}),
    }
}
