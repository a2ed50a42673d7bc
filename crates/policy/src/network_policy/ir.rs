//! The rule set: what `node::net` writes into nf_tables, as data.
//!
//! Every packet is judged by its conntrack tuple, so a rule set holds through DNAT and on established flows:
//!
//! * the verdict map `egress` is looked up by the **ct original source** (the client, when it is a local pod),
//! * the verdict map `ingress` by the **ct reply source** (the server after DNAT, when it is a local pod).
//!
//! A pod without an element in a map is not isolated in that direction. A chain is a list of rules; the first that
//! matches decides: allow (`return`), deny (`drop`) or pass (on to the next tier). Behind its last rule a chain drops,
//! allows, or goes on to the next tier's chain. In a rule of an egress chain the peer is the ct reply source, in one of
//! an ingress chain it is the ct original source; ports are always the server's: `ct reply proto-src`, behind
//! `meta l4proto`.
//!
//! A pod that only NetworkPolicies select has one chain, in which every rule allows and whose end drops. One that
//! ClusterNetworkPolicies select has the Admin tier's chain before it; where no NetworkPolicy isolates it, the Baseline
//! tier's chain takes its place.
//!
//! What is not in here, because it needs no policy: `@own`, `@ready`, `related`, `invalid`, and that a pod always
//! reaches itself (the hairpin through a Service: ct original source = ct reply source). See [`RuleSet::judge`].
//!
//! Sets are named by a hash of what they select, so that policies share them and a restart finds them again.

mod changes;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

pub use changes::{ApplyError, Change, diff};
pub use judge::{Flow, Layer4, Verdict};

/// The name of a set: `pods-`, `cidr-` or `port-` and 32 hexadecimal digits. At most 37 bytes; nf_tables allows 255.
/// Beside it the family of the set's addresses, which is in what is hashed: a rule that looks the set up matches no
/// packet of the other family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(pub String, pub Family);

/// The text alone.
impl Serialize for SetName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The name of a chain: `egress-` or `ingress-` and 32 hexadecimal digits. At most 40 bytes; nf_tables allows 127.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChainName(pub String);

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way a policy isolates a pod; it also says which of the two verdict maps is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Egress, Direction::Ingress];
}

/// Who is asked first, second and last. A pod that a NetworkPolicy isolates never reaches the Baseline tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Tier {
    Admin,
    NetworkPolicy,
    Baseline,
}

/// What becomes of the flows that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Action {
    Allow,
    Deny,
    /// No further rule of this tier is asked; the next tier decides.
    Pass,
}

/// What becomes of the flows that no rule of a chain matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum End {
    Drop,
    Allow,
    /// The next tier's chain decides; a Pass leads there too.
    Goto(ChainName),
}

/// The protocols that have ports a NetworkPolicy can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The IANA protocol number, as `meta l4proto` has it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }

    /// None for a protocol the API does not know.
    pub fn parse(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// The address family of a set. A pod of a v4-only cluster has no IPv6 at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: &IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// An address block with no host bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Cidr {
    pub network: IpAddr,
    pub prefix: u8,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SetKind {
    /// A hash set of pod addresses: `type ipv4_addr`.
    Pods,
    /// A hash set of node addresses, of the same type.
    Nodes,
    /// An interval set of disjoint blocks: `type ipv4_addr; flags interval`. Its name is the hash of its blocks, so
    /// its elements never change: it is made and removed whole.
    Cidrs,
    /// A hash set of (pod address, port): where a container port of that name and protocol is, for every pod that has
    /// one. Matched on `ct reply saddr . ct reply proto-src`, in both directions, since a named port is the server's.
    NamedPort,
}

/// A set's type; its elements are beside it in [`Set`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetType {
    pub family: Family,
    pub kind: SetKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Element {
    Address(IpAddr),
    Cidr(Cidr),
    Port(IpAddr, u16),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Set {
    pub of: SetType,
    pub elements: BTreeSet<Element>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PeerMatch {
    /// Anyone, inside or outside the cluster, in either family.
    Any,
    /// A set of kind [`SetKind::Pods`].
    Pods(SetName),
    /// A set of kind [`SetKind::Nodes`].
    Nodes(SetName),
    /// A set of kind [`SetKind::Cidrs`].
    Cidrs(SetName),
}

/// The server's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PortMatch {
    /// Every protocol, also those without ports (ICMP).
    Any,
    /// Every port of this protocol.
    Protocol(Protocol),
    /// At least one range; sorted, disjoint, not adjacent.
    Ranges(Protocol, Vec<PortRange>),
    /// A set of kind [`SetKind::NamedPort`].
    Named(Protocol, SetName),
}

/// Both parts match: its action is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rule {
    pub action: Action,
    pub peer: PeerMatch,
    pub port: PortMatch,
}

/// The rules for one distinct set of selecting policies of one tier in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    pub direction: Direction,
    pub tier: Tier,
    pub rules: Vec<Rule>,
    pub end: End,
}

impl Chain {
    /// Only the Admin tier's chains lead to others: they come last, and go first.
    pub fn leads_on(&self) -> bool {
        matches!(self.end, End::Goto(_))
    }
}

/// All that network policies ask of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleSet {
    pub sets: BTreeMap<SetName, Set>,
    pub chains: BTreeMap<ChainName, Chain>,
    /// Local pod address → chain, looked up by ct original source.
    pub egress: BTreeMap<IpAddr, ChainName>,
    /// Local pod address → chain, looked up by ct reply source.
    pub ingress: BTreeMap<IpAddr, ChainName>,
}

impl RuleSet {
    pub fn map(&self, direction: Direction) -> &BTreeMap<IpAddr, ChainName> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    pub fn map_mut(&mut self, direction: Direction) -> &mut BTreeMap<IpAddr, ChainName> {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}

impl Rule {
    /// The sets this rule looks up.
    pub fn sets(&self) -> impl Iterator<Item = &SetName> {
        let peer = match &self.peer {
            PeerMatch::Any => None,
            PeerMatch::Pods(set) | PeerMatch::Nodes(set) | PeerMatch::Cidrs(set) => Some(set),
        };
        let port = match &self.port {
            PortMatch::Any | PortMatch::Protocol(_) | PortMatch::Ranges(..) => None,
            PortMatch::Named(_, set) => Some(set),
        };
        peer.into_iter().chain(port)
    }
}
