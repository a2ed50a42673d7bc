//! What a rule set says of a flow, as the kernel would.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    Action, ChainName, Direction, Element, End, PeerMatch, PortMatch, Protocol, Rule, RuleSet, SetName,
};

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
