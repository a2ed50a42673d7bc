//! A table as data: what is written, and what is read back, compared with `==`.
//!
//! Data is in the order the kernel keeps it: network order for addresses and ports, the machine's for interface indexes
//! and conntrack states.

use std::collections::BTreeMap;

use crate::route::Ip;

/// The families of tables; this program's own are all `inet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ip`: only to put rules beside those of others.
    Ip,
    /// `ip6`: likewise.
    Ip6,
    Inet,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        match self {
            Family::Ip => 2,
            Family::Ip6 => 10,
            Family::Inet => 1,
        }
    }
}

/// A table with all it holds. Rules have no handles here: two tables are equal if they do the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// `nft list` shows it; it can be given only when the table is made.
    pub comment: Option<String>,
    /// NFT_TABLE_F_: 1 is dormant, so that none of its chains is in force.
    pub flags: u32,
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub of: SetType,
    pub elements: Elements,
}

/// A key, and whether it is the (excluded) end of an interval, to its data.
pub type Elements = BTreeMap<(Vec<u8>, bool), Data>;

/// What `nft` calls `type`: without it a set cannot be listed or loaded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetType {
    /// More than one is a concatenation.
    pub key: Vec<DataType>,
    pub maps_to: MapsTo,
    pub interval: bool,
    /// Rules put elements in, which go by themselves (`flags dynamic,timeout`). They are not of the model: such a set
    /// has no elements here.
    pub learns: bool,
}

/// Elements a set that learns has room for.
pub(super) const LEARNS_AT_MOST: u32 = 65_535;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapsTo {
    Nothing,
    Verdict,
    Data(Vec<DataType>),
}

impl SetType {
    pub fn set(key: &[DataType]) -> SetType {
        SetType { key: key.to_vec(), maps_to: MapsTo::Nothing, interval: false, learns: false }
    }

    pub fn learns(key: &[DataType]) -> SetType {
        SetType { learns: true, ..SetType::set(key) }
    }

    pub fn intervals(key: DataType) -> SetType {
        SetType { interval: true, ..SetType::set(&[key]) }
    }

    pub fn verdict_map(key: &[DataType]) -> SetType {
        SetType { maps_to: MapsTo::Verdict, ..SetType::set(key) }
    }

    pub fn map(key: &[DataType], data: &[DataType]) -> SetType {
        SetType { maps_to: MapsTo::Data(data.to_vec()), ..SetType::set(key) }
    }
}

/// Data types as nft 1.0 numbers them (`enum datatypes`); a concatenation is six bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    Ipv4Addr,
    Ipv6Addr,
    InetProto,
    InetService,
    Mark,
    IfaceIndex,
    /// 16 bytes, filled up with zeros.
    IfaceName,
    /// Has no name in `nft`: see [`SetType`]'s encoding for the one concatenation it can be in.
    Integer,
    /// Of someone else.
    Other(u32),
}

impl DataType {
    /// `ipv4_addr` or `ipv6_addr`.
    pub const fn address<A: Ip>() -> DataType {
        if A::BITS == 32 { DataType::Ipv4Addr } else { DataType::Ipv6Addr }
    }

    pub(super) fn number(self) -> u32 {
        match self {
            DataType::Integer => 4,
            DataType::Ipv4Addr => 7,
            DataType::Ipv6Addr => 8,
            DataType::InetProto => 12,
            DataType::InetService => 13,
            DataType::Mark => 19,
            DataType::IfaceIndex => 20,
            DataType::IfaceName => 41,
            DataType::Other(n) => n,
        }
    }

    pub(super) fn from_number(number: u32) -> DataType {
        match number {
            4 => DataType::Integer,
            7 => DataType::Ipv4Addr,
            8 => DataType::Ipv6Addr,
            12 => DataType::InetProto,
            13 => DataType::InetService,
            19 => DataType::Mark,
            20 => DataType::IfaceIndex,
            41 => DataType::IfaceName,
            other => DataType::Other(other),
        }
    }

    pub(super) fn size(self) -> u32 {
        match self {
            DataType::Ipv6Addr | DataType::IfaceName => 16,
            DataType::InetProto => 1,
            DataType::InetService => 2,
            DataType::Ipv4Addr
            | DataType::Mark
            | DataType::IfaceIndex
            | DataType::Integer
            | DataType::Other(_) => 4,
        }
    }
}

/// What an element maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Nothing,
    Verdict(Verdict),
    Value(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Of someone else.
    Other(i32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// None: reached by jumps only.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
    /// What happens to a packet that comes to the end.
    pub drop: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Other(u32),
}

impl Hook {
    pub(super) fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
            Hook::Other(n) => n,
        }
    }

    pub(super) fn from_number(number: u32) -> Hook {
        match number {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            other => Hook::Other(other),
        }
    }
}

/// Expressions that are evaluated in order until one does not match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule(pub Vec<Expr>);

/// A register as user space numbers them: 1 to 4 have 16 bytes, 8 to 23 are their 4-byte parts (9 is the second part of 1).
pub type Register = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Meta {
        key: Meta,
        to: Register,
    },
    /// Bytes of a packet's header.
    Payload {
        base: Header,
        offset: u32,
        len: u32,
        to: Register,
    },
    Ct {
        key: Ct,
        to: Register,
    },
    Cmp {
        op: Op,
        from: Register,
        data: Vec<u8>,
    },
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// In a set; with `to`, in a map (0 for a verdict).
    Lookup {
        set: String,
        from: Register,
        to: Option<Register>,
        inverted: bool,
    },
    Immediate {
        to: Register,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Nat {
        /// NFPROTO_: 2 or 10. A packet of the other family passes by.
        family: u8,
        source: bool,
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    /// `meta mark set …`
    SetMark {
        from: Register,
    },
    /// `meta nftrace set …`: with 1, the kernel tells what becomes of the packet from here on.
    SetTrace {
        from: Register,
    },
    /// `update @set { … timeout … }`: puts the key into a set that learns, or lets it stay longer.
    Update {
        set: String,
        key: Register,
        milliseconds: u64,
    },
    /// `reject with icmp <code>`, or `icmpv6`, as the packet is; the codes differ.
    RejectIcmp {
        code: u8,
    },
    RejectTcpReset,
    Numgen {
        modulus: u32,
        random: bool,
        to: Register,
    },
    /// `fib daddr type` (an RTN_ number).
    FibDaddrType {
        to: Register,
    },
    /// `fib saddr . iif oif`: the link that leads back to the sender if it is the one the packet came by, else 0.
    FibReversePath {
        to: Register,
    },
    /// One this program does not write.
    Other(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Mark,
    Iif,
    Oif,
    IifName,
    OifName,
    NfProto,
    L4Proto,
    Other(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Link,
    Network,
    Transport,
    Other(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Original,
    Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    /// Bits: 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
    State,
    /// Bits of `enum ip_conntrack_status`.
    Status,
    SourceIp(Direction),
    SourceIp6(Direction),
    SourcePort(Direction),
    Other(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    Other(u32),
}

/// First and last addresses of blocks as elements of an interval set: start, and end one past the last address. Blocks
/// may touch, not overlap.
pub fn interval_elements<A: Ip>(blocks: impl IntoIterator<Item = (A, A)>) -> Elements {
    let mut ranges: Vec<(u128, u128)> =
        blocks.into_iter().map(|(first, last)| (first.number(), last.number())).collect();
    ranges.sort_unstable();
    let greatest = A::from_number(u128::MAX).number();
    let key = |number: u128| A::from_number(number).bytes();
    let mut elements = Elements::new();
    let mut open: Option<(u128, u128)> = None;
    let close = |range: Option<(u128, u128)>, elements: &mut Elements| {
        let Some((first, last)) = range else { return };
        elements.insert((key(first), false), Data::Nothing);
        // A block that reaches the last address has no end element.
        if last < greatest {
            elements.insert((key(last + 1), true), Data::Nothing);
        }
    };
    for (first, last) in ranges {
        match open {
            // Touching blocks are one interval: the kernel keeps no two elements at the same place for long.
            Some((_, end)) if end == greatest || first <= end + 1 => {
                open = open.map(|(start, end)| (start, end.max(last)));
            }
            _ => {
                close(open, &mut elements);
                open = Some((first, last));
            }
        }
    }
    close(open, &mut elements);
    // `nft` begins every interval set with what is not in it.
    if let Some(((first, false), _)) = elements.first_key_value()
        && first.iter().any(|byte| *byte != 0)
    {
        elements.insert((key(0), true), Data::Nothing);
    }
    elements
}
