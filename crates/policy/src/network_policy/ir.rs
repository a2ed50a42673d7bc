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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

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

/// One step of a transaction. [`diff`] gives them in an order in which each step finds what it names, and which the
/// kernel accepts as one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// An empty set; its elements follow in an [`Change::AddElements`].
    AddSet {
        name: SetName,
        of: SetType,
    },
    /// None of them is there yet. Never empty.
    AddElements {
        set: SetName,
        elements: Vec<Element>,
    },
    /// All of them are there. Never empty, never for [`SetKind::Cidrs`].
    DeleteElements {
        set: SetName,
        elements: Vec<Element>,
    },
    /// A new chain with its rules; the emitter appends the drop.
    AddChain {
        name: ChainName,
        chain: Chain,
    },
    /// Flush the chain, then write these rules; map elements that point at it stay.
    ReplaceChain {
        name: ChainName,
        chain: Chain,
    },
    /// The addresses are there; an address whose chain changes is deleted here and added again below.
    DeleteVerdicts {
        direction: Direction,
        addresses: Vec<IpAddr>,
    },
    AddVerdicts {
        direction: Direction,
        verdicts: Vec<(IpAddr, ChainName)>,
    },
    /// Nothing points at it any more. Flush first: its rules hold references to sets.
    DeleteChain {
        name: ChainName,
    },
    /// Nothing uses it any more. Its elements go with it.
    DeleteSet {
        name: SetName,
    },
}

/// The steps from `old` to `new`, for one atomic transaction: new sets and elements, chains, verdicts, then what is
/// unused. Empty if there is no difference.
pub fn diff(old: &RuleSet, new: &RuleSet) -> Vec<Change> {
    let mut changes = Vec::new();
    let empty = BTreeSet::new();
    for (name, set) in &new.sets {
        let before = match old.sets.get(name) {
            Some(before) => &before.elements,
            None => {
                changes.push(Change::AddSet { name: name.clone(), of: set.of.clone() });
                &empty
            }
        };
        // Deleting before adding keeps a set small; the two never name the same element.
        let gone: Vec<Element> = before.difference(&set.elements).copied().collect();
        if !gone.is_empty() {
            changes.push(Change::DeleteElements { set: name.clone(), elements: gone });
        }
        let come: Vec<Element> = set.elements.difference(before).copied().collect();
        if !come.is_empty() {
            changes.push(Change::AddElements { set: name.clone(), elements: come });
        }
    }
    let (leading, leaves): (Vec<_>, Vec<_>) = new.chains.iter().partition(|(_, chain)| chain.leads_on());
    for (name, chain) in leaves.into_iter().chain(leading) {
        match old.chains.get(name) {
            None => changes.push(Change::AddChain { name: name.clone(), chain: chain.clone() }),
            Some(before) if before != chain => {
                changes.push(Change::ReplaceChain { name: name.clone(), chain: chain.clone() });
            }
            Some(_) => {}
        }
    }
    for direction in Direction::ALL {
        let (before, after) = (old.map(direction), new.map(direction));
        let gone: Vec<IpAddr> =
            before.iter().filter(|(a, c)| after.get(a) != Some(c)).map(|(a, _)| *a).collect();
        if !gone.is_empty() {
            changes.push(Change::DeleteVerdicts { direction, addresses: gone });
        }
        let come: Vec<(IpAddr, ChainName)> =
            after.iter().filter(|(a, c)| before.get(a) != Some(c)).map(|(a, c)| (*a, c.clone())).collect();
        if !come.is_empty() {
            changes.push(Change::AddVerdicts { direction, verdicts: come });
        }
    }
    let gone = old.chains.iter().filter(|(name, _)| !new.chains.contains_key(*name));
    let (leading, leaves): (Vec<_>, Vec<_>) = gone.partition(|(_, chain)| chain.leads_on());
    for (name, _) in leading.into_iter().chain(leaves) {
        changes.push(Change::DeleteChain { name: name.clone() });
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(name)) {
        changes.push(Change::DeleteSet { name: name.clone() });
    }
    changes
}

/// Why a step cannot be taken; a kernel would refuse the whole transaction for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("set {0} is there already")]
    SetExists(SetName),
    #[error("no set {0}")]
    NoSet(SetName),
    #[error("set {0} is used by chain {1}")]
    SetUsed(SetName, ChainName),
    #[error("element {1:?} is in set {0} already")]
    ElementExists(SetName, Element),
    #[error("no element {1:?} in set {0}")]
    NoElement(SetName, Element),
    #[error("chain {0} is there already")]
    ChainExists(ChainName),
    #[error("no chain {0}")]
    NoChain(ChainName),
    #[error("chain {0} is used by the verdict of {1}")]
    ChainUsed(ChainName, IpAddr),
    #[error("chain {0} is where chain {1} leads to")]
    ChainLedTo(ChainName, ChainName),
    #[error("{1} has a verdict in the {0:?} map already")]
    VerdictExists(Direction, IpAddr),
    #[error("{1} has no verdict in the {0:?} map")]
    NoVerdict(Direction, IpAddr),
}

impl RuleSet {
    /// Takes one step, as strictly as the kernel does. What `node::net` keeps as its picture of the kernel.
    pub fn apply(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::AddSet { name, of } => {
                let set = Set { of: of.clone(), elements: BTreeSet::new() };
                if self.sets.insert(name.clone(), set).is_some() {
                    return Err(ApplyError::SetExists(name.clone()));
                }
            }
            Change::AddElements { set: name, elements } => {
                let set = self.sets.get_mut(name).ok_or_else(|| ApplyError::NoSet(name.clone()))?;
                for element in elements {
                    if !set.elements.insert(*element) {
                        return Err(ApplyError::ElementExists(name.clone(), *element));
                    }
                }
            }
            Change::DeleteElements { set: name, elements } => {
                let set = self.sets.get_mut(name).ok_or_else(|| ApplyError::NoSet(name.clone()))?;
                for element in elements {
                    if !set.elements.remove(element) {
                        return Err(ApplyError::NoElement(name.clone(), *element));
                    }
                }
            }
            Change::AddChain { name, chain } => {
                self.check_rules(chain)?;
                if self.chains.insert(name.clone(), chain.clone()).is_some() {
                    return Err(ApplyError::ChainExists(name.clone()));
                }
            }
            Change::ReplaceChain { name, chain } => {
                self.check_rules(chain)?;
                if self.chains.insert(name.clone(), chain.clone()).is_none() {
                    return Err(ApplyError::NoChain(name.clone()));
                }
            }
            Change::DeleteVerdicts { direction, addresses } => {
                for address in addresses {
                    if self.map_mut(*direction).remove(address).is_none() {
                        return Err(ApplyError::NoVerdict(*direction, *address));
                    }
                }
            }
            Change::AddVerdicts { direction, verdicts } => {
                for (address, chain) in verdicts {
                    if !self.chains.contains_key(chain) {
                        return Err(ApplyError::NoChain(chain.clone()));
                    }
                    if self.map_mut(*direction).insert(*address, chain.clone()).is_some() {
                        return Err(ApplyError::VerdictExists(*direction, *address));
                    }
                }
            }
            Change::DeleteChain { name } => {
                let user = Direction::ALL
                    .into_iter()
                    .flat_map(|direction| self.map(direction))
                    .find(|(_, chain)| *chain == name);
                if let Some((address, _)) = user {
                    return Err(ApplyError::ChainUsed(name.clone(), *address));
                }
                if let Some((from, _)) =
                    self.chains.iter().find(|(_, chain)| chain.end == End::Goto(name.clone()))
                {
                    return Err(ApplyError::ChainLedTo(name.clone(), from.clone()));
                }
                if self.chains.remove(name).is_none() {
                    return Err(ApplyError::NoChain(name.clone()));
                }
            }
            Change::DeleteSet { name } => {
                let user =
                    self.chains.iter().find(|(_, c)| c.rules.iter().any(|r| r.sets().any(|s| s == name)));
                if let Some((chain, _)) = user {
                    return Err(ApplyError::SetUsed(name.clone(), chain.clone()));
                }
                if self.sets.remove(name).is_none() {
                    return Err(ApplyError::NoSet(name.clone()));
                }
            }
        }
        Ok(())
    }

    fn check_rules(&self, chain: &Chain) -> Result<(), ApplyError> {
        for name in chain.rules.iter().flat_map(Rule::sets) {
            if !self.sets.contains_key(name) {
                return Err(ApplyError::NoSet(name.clone()));
            }
        }
        match &chain.end {
            End::Goto(next) if !self.chains.contains_key(next) => Err(ApplyError::NoChain(next.clone())),
            _ => Ok(()),
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

/// The layer above IP, with the server's port where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Layer4 {
    Port(Protocol, u16),
    /// An IANA protocol number without ports, such as ICMP (1).
    Other(u8),
}

/// A connection as conntrack knows it: `client` is the ct original source, `server` the ct reply source (after DNAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Flow {
    pub client: IpAddr,
    pub server: IpAddr,
    pub layer4: Layer4,
}

/// What a verdict map says of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The pod is not isolated in this direction, or there is no such pod here.
    NotIsolated,
    /// This rule of this chain allows.
    Allowed { chain: ChainName, rule: usize },
    /// No rule of the last chain that was asked decides, and its end allows.
    AllowedAtEnd { chain: ChainName },
    /// This rule of this chain denies.
    Denied { chain: ChainName, rule: usize },
    /// No rule of this chain allows.
    Dropped { chain: ChainName },
}

impl Verdict {
    pub fn allows(&self) -> bool {
        !matches!(self, Verdict::Dropped { .. } | Verdict::Denied { .. })
    }
}

impl RuleSet {
    /// What the kernel does with a flow, said by this rule set alone. A pod always reaches itself: the packet stays in
    /// its namespace, or is hairpinned.
    pub fn judge(&self, flow: &Flow) -> bool {
        flow.client == flow.server || Direction::ALL.into_iter().all(|d| self.look_up(d, flow).allows())
    }

    /// The verdict of one map.
    pub fn look_up(&self, direction: Direction, flow: &Flow) -> Verdict {
        let (subject, peer) = match direction {
            Direction::Egress => (flow.client, flow.server),
            Direction::Ingress => (flow.server, flow.client),
        };
        let Some(name) = self.map(direction).get(&subject) else { return Verdict::NotIsolated };
        let mut name = name.clone();
        // A chain leads to a later tier, so this ends.
        loop {
            let Some(chain) = self.chains.get(&name) else { return Verdict::Dropped { chain: name } };
            let rule = chain.rules.iter().position(|rule| self.matches(rule, peer, flow));
            match rule.map(|rule| (rule, chain.rules[rule].action)) {
                Some((rule, Action::Allow)) => return Verdict::Allowed { chain: name, rule },
                Some((rule, Action::Deny)) => return Verdict::Denied { chain: name, rule },
                Some((_, Action::Pass)) | None => match &chain.end {
                    End::Drop => return Verdict::Dropped { chain: name },
                    End::Allow => return Verdict::AllowedAtEnd { chain: name },
                    End::Goto(next) => name = next.clone(),
                },
            }
        }
    }

    fn matches(&self, rule: &Rule, peer: IpAddr, flow: &Flow) -> bool {
        let peer_matches = match &rule.peer {
            PeerMatch::Any => true,
            PeerMatch::Pods(set) | PeerMatch::Nodes(set) => self.contains(set, &Element::Address(peer)),
            PeerMatch::Cidrs(set) => self.sets.get(set).is_some_and(|set| {
                set.elements.iter().any(|e| matches!(e, Element::Cidr(cidr) if cidr.contains(&peer)))
            }),
        };
        let port_matches = match (&rule.port, flow.layer4) {
            (PortMatch::Any, _) => true,
            (_, Layer4::Other(_)) => false,
            (PortMatch::Protocol(asked), Layer4::Port(protocol, _)) => *asked == protocol,
            (PortMatch::Ranges(asked, ranges), Layer4::Port(protocol, port)) => {
                *asked == protocol && ranges.iter().any(|r| (r.first..=r.last).contains(&port))
            }
            (PortMatch::Named(asked, set), Layer4::Port(protocol, port)) => {
                *asked == protocol && self.contains(set, &Element::Port(flow.server, port))
            }
        };
        peer_matches && port_matches
    }

    fn contains(&self, set: &SetName, element: &Element) -> bool {
        self.sets.get(set).is_some_and(|set| set.elements.contains(element))
    }
}
