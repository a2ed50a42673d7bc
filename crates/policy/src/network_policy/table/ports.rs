//! Sets of ports: what one end may reach another on. Closed under union, intersection and difference, so that tiers can
//! be worked out exactly; interned, because a cluster has few distinct ones.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::network_policy::ir::{Layer4, Protocol};

/// Sorted ranges of one protocol's ports, both ends included, which neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Ranges(Vec<(u16, u16)>);

impl Ranges {
    pub fn all() -> Ranges {
        Ranges(vec![(0, u16::MAX)])
    }

    pub fn of(first: u16, last: u16) -> Ranges {
        Ranges(vec![(first, last)])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= port);
        after.checked_sub(1).is_some_and(|at| self.0[at].1 >= port)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0.iter().copied()
    }

    fn union(&self, other: &Ranges) -> Ranges {
        let mut all: Vec<(u16, u16)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut out: Vec<(u16, u16)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match out.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => out.push((first, last)),
            }
        }
        Ranges(out)
    }

    fn intersection(&self, other: &Ranges) -> Ranges {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut out = Vec::new();
        while let (Some(&&(a0, a1)), Some(&&(b0, b1))) = (a.peek(), b.peek()) {
            if a0.max(b0) <= a1.min(b1) {
                out.push((a0.max(b0), a1.min(b1)));
            }
            if a1 < b1 {
                a.next()
            } else {
                b.next()
            };
        }
        Ranges(out)
    }

    fn complement(&self) -> Ranges {
        let mut out = Vec::new();
        let mut next = 0u32;
        for (first, last) in self.iter() {
            if u32::from(first) > next {
                out.push((next as u16, first - 1));
            }
            next = u32::from(last) + 1;
        }
        if next <= u32::from(u16::MAX) {
            out.push((next as u16, u16::MAX));
        }
        Ranges(out)
    }
}

/// Ports of the protocols that have them, and whether all other protocols (ICMP) pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PortSet {
    pub tcp: Ranges,
    pub udp: Ranges,
    pub sctp: Ranges,
    pub other: bool,
}

impl PortSet {
    pub fn all() -> PortSet {
        PortSet { tcp: Ranges::all(), udp: Ranges::all(), sctp: Ranges::all(), other: true }
    }

    pub fn of(protocol: Protocol, ranges: Ranges) -> PortSet {
        let mut set = PortSet::default();
        *set.protocol_mut(protocol) = ranges;
        set
    }

    pub fn protocol(&self, protocol: Protocol) -> &Ranges {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Sctp => &self.sctp,
        }
    }

    fn protocol_mut(&mut self, protocol: Protocol) -> &mut Ranges {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Sctp => &mut self.sctp,
        }
    }

    pub fn contains(&self, layer4: Layer4) -> bool {
        match layer4 {
            Layer4::Port(protocol, port) => self.protocol(protocol).contains(port),
            Layer4::Other(_) => self.other,
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == PortSet::default()
    }

    pub fn union(&self, other: &PortSet) -> PortSet {
        PortSet {
            tcp: self.tcp.union(&other.tcp),
            udp: self.udp.union(&other.udp),
            sctp: self.sctp.union(&other.sctp),
            other: self.other || other.other,
        }
    }

    pub fn intersection(&self, other: &PortSet) -> PortSet {
        PortSet {
            tcp: self.tcp.intersection(&other.tcp),
            udp: self.udp.intersection(&other.udp),
            sctp: self.sctp.intersection(&other.sctp),
            other: self.other && other.other,
        }
    }

    pub fn minus(&self, other: &PortSet) -> PortSet {
        self.intersection(&PortSet {
            tcp: other.tcp.complement(),
            udp: other.udp.complement(),
            sctp: other.sctp.complement(),
            other: !other.other,
        })
    }
}

/// `all`, `none`, `TCP 80, 443; UDP 53; ICMP`, `all but TCP 22`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let without = PortSet::all().minus(self);
        if without.is_empty() {
            return f.write_str("all");
        }
        let (set, but) = match self.other && without.words() < self.words() {
            true => (&without, "all but "),
            false => (self, ""),
        };
        let mut parts = Vec::new();
        for protocol in Protocol::ALL {
            let ranges = set.protocol(protocol);
            if *ranges == Ranges::all() {
                parts.push(protocol.name().to_string());
            } else if !ranges.is_empty() {
                let each = ranges.iter().map(|(first, last)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                });
                parts.push(format!("{} {}", protocol.name(), each.collect::<Vec<_>>().join(",")));
            }
        }
        if set.other {
            parts.push("ICMP".to_string());
        }
        write!(f, "{but}{}", parts.join("; "))
    }
}

impl PortSet {
    /// How much it takes to say it.
    fn words(&self) -> usize {
        Protocol::ALL.iter().map(|p| self.protocol(*p).0.len()).sum::<usize>() + usize::from(self.other)
    }
}

/// The number of a set in an [`Interner`].
pub(super) type Id = u32;
pub(super) const NONE: Id = 0;
pub(super) const ALL: Id = 1;

/// Each distinct set once; operations are done once for each pair.
#[derive(Debug)]
pub(super) struct Interner {
    sets: Vec<PortSet>,
    ids: HashMap<PortSet, Id>,
    done: HashMap<(Operation, Id, Id), Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Union,
    Intersection,
    Minus,
}

impl Interner {
    pub fn new() -> Interner {
        let mut interner = Interner { sets: Vec::new(), ids: HashMap::new(), done: HashMap::new() };
        interner.id(PortSet::default());
        interner.id(PortSet::all());
        interner
    }

    pub fn id(&mut self, set: PortSet) -> Id {
        if let Some(id) = self.ids.get(&set) {
            return *id;
        }
        let id = self.sets.len() as Id;
        self.sets.push(set.clone());
        self.ids.insert(set, id);
        id
    }

    pub fn sets(&self) -> &[PortSet] {
        &self.sets
    }

    pub fn into_sets(self) -> Vec<PortSet> {
        self.sets
    }

    pub fn union(&mut self, a: Id, b: Id) -> Id {
        match (a, b) {
            (NONE, other) | (other, NONE) => other,
            (ALL, _) | (_, ALL) => ALL,
            _ if a == b => a,
            _ => self.operation(Operation::Union, a.min(b), a.max(b)),
        }
    }

    pub fn intersection(&mut self, a: Id, b: Id) -> Id {
        match (a, b) {
            (ALL, other) | (other, ALL) => other,
            (NONE, _) | (_, NONE) => NONE,
            _ if a == b => a,
            _ => self.operation(Operation::Intersection, a.min(b), a.max(b)),
        }
    }

    pub fn minus(&mut self, a: Id, b: Id) -> Id {
        match (a, b) {
            (other, NONE) => other,
            (NONE, _) | (_, ALL) => NONE,
            _ if a == b => NONE,
            _ => self.operation(Operation::Minus, a, b),
        }
    }

    fn operation(&mut self, operation: Operation, a: Id, b: Id) -> Id {
        if let Some(id) = self.done.get(&(operation, a, b)) {
            return *id;
        }
        let (left, right) = (&self.sets[a as usize], &self.sets[b as usize]);
        let set = match operation {
            Operation::Union => left.union(right),
            Operation::Intersection => left.intersection(right),
            Operation::Minus => left.minus(right),
        };
        let id = self.id(set);
        self.done.insert((operation, a, b), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_said_in_few_words() {
        let tcp = |first, last| PortSet::of(Protocol::Tcp, Ranges::of(first, last));
        let table = [
            (PortSet::default(), "none"),
            (PortSet::all(), "all"),
            (tcp(80, 80), "TCP 80"),
            (tcp(80, 80).union(&tcp(81, 90)).union(&tcp(443, 443)), "TCP 80-90,443"),
            (tcp(0, 65535).union(&PortSet::of(Protocol::Udp, Ranges::of(53, 53))), "TCP; UDP 53"),
            (PortSet::all().minus(&tcp(22, 22)), "all but TCP 22"),
            (PortSet::all().minus(&PortSet { other: true, ..PortSet::default() }), "TCP; UDP; SCTP"),
        ];
        for (set, words) in table {
            assert_eq!(set.to_string(), words);
        }
    }

    #[test]
    fn operations_are_those_of_sets() {
        // Of every pair of small sets, at every port that matters.
        let edges = [(0, 0), (0, 5), (3, 9), (6, 9), (9, 65535), (65535, 65535), (0, 65535)];
        let sets: Vec<PortSet> = edges
            .iter()
            .flat_map(|a| edges.iter().map(|b| Ranges::of(a.0, a.1).union(&Ranges::of(b.0, b.1))))
            .map(|ranges| PortSet { tcp: ranges, other: true, ..PortSet::default() })
            .chain([PortSet::default(), PortSet::all()])
            .collect();
        for (a, b) in sets.iter().flat_map(|a| sets.iter().map(move |b| (a, b))) {
            let (union, both, minus) = (a.union(b), a.intersection(b), a.minus(b));
            for port in [0, 1, 2, 3, 5, 6, 8, 9, 10, 65534, 65535] {
                let (x, y) = (a.tcp.contains(port), b.tcp.contains(port));
                assert_eq!(union.tcp.contains(port), x || y);
                assert_eq!(both.tcp.contains(port), x && y);
                assert_eq!(minus.tcp.contains(port), x && !y);
            }
            assert_eq!(minus.other, a.other && !b.other);
        }
    }
}
