//! UDP connections that a change leaves behind. NAT is decided when a conntrack entry is made, and a client that keeps its
//! port and goes on sending keeps its entry: it would talk to an endpoint that is gone, or to nobody, for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use kernel::conntrack::Entry;
use policy::network_policy::ir::Protocol;

use super::{Guarded, ServicePort};

/// Where clients of a changed Service send to, and who may answer them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// None: the node's own addresses.
    address: Option<IpAddr>,
    port: u16,
    answering: BTreeSet<SocketAddr>,
    /// Who may send there; None: anybody.
    guarded: Option<Guarded>,
}

impl Stale {
    /// Whether that entry must go. `own`: an address of the node.
    pub fn is(&self, entry: &Entry, own: impl Fn(IpAddr) -> bool) -> bool {
        let (to, from) = (&entry.original, &entry.reply);
        let destination = to.destination;
        to.protocol == Protocol::Udp.number()
            && to.destination_port == self.port
            && self.address.map_or_else(|| own(destination), |address| address == destination)
            && (!self.answering.contains(&SocketAddr::new(from.source, from.source_port))
                || self.guarded.as_ref().is_some_and(|guarded| !guarded.admits(&to.source)))
    }
}

type Fronts = BTreeMap<(Option<IpAddr>, u16), Front>;

#[derive(Clone, Default)]
struct Front {
    answering: BTreeSet<SocketAddr>,
    guarded: Option<Guarded>,
}

/// What a change of one Service leaves behind: where somebody answers no more, where nobody did, and where others may send.
pub fn find(old: &[&ServicePort], new: &[&ServicePort]) -> Vec<Stale> {
    let (old, new) = (fronts(old), fronts(new));
    let none = Front::default();
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter_map(|key| {
        let (was, is) = (old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
        let left_behind = !was.answering.is_subset(&is.answering)
            || was.answering.is_empty() && !is.answering.is_empty()
            || is.guarded.is_some() && is.guarded != was.guarded;
        let Front { answering, guarded } = is.clone();
        left_behind.then_some(Stale { address: key.0, port: key.1, answering, guarded })
    });
    changed.collect()
}

fn fronts(ports: &[&ServicePort]) -> Fronts {
    let mut fronts = Fronts::new();
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        let outside = || port.outside.iter().chain(port.all.iter());
        fronts.entry((Some(port.cluster_ip), port.port)).or_default().answering.extend(port.inside.iter());
        for address in &port.external_ips {
            let front = fronts.entry((Some(*address), port.port)).or_default();
            front.answering.extend(outside());
            front.guarded = port.guarded.clone().filter(|guarded| guarded.addresses.contains(address));
        }
        if let Some(number) = port.node_port {
            fronts.entry((None, number)).or_default().answering.extend(outside());
        }
    }
    fronts
}

#[cfg(test)]
mod tests {
    use super::super::Backends;
    use super::*;

    #[test]
    fn entries_go_where_somebody_answers_no_more_or_nobody_did() {
        let port = |protocol, endpoints: &[&str]| {
            let all = Backends::of(endpoints.iter().map(|e| e.parse().unwrap()));
            ServicePort {
                protocol,
                port: 53,
                cluster_ip: [10, 96, 0, 7].into(),
                external_ips: BTreeSet::new(),
                guarded: None,
                node_port: Some(30053),
                affinity: None,
                inside: all.clone(),
                outside: all.clone(),
                all,
            }
        };
        let (a, b) = ("10.244.1.2:53", "10.244.1.3:53");
        let cases: [(&[&str], &[&str], bool); 5] = [
            (&[], &[a], true),
            (&[a], &[a, b], false),
            (&[a, b], &[b], true),
            (&[a], &[], true),
            (&[], &[], false),
        ];
        for (old, new, stale) in cases {
            let find = |protocol| find(&[&port(protocol, old)], &[&port(protocol, new)]);
            assert_eq!(find(Protocol::Udp).len(), if stale { 2 } else { 0 }, "{old:?} → {new:?}");
            assert!(find(Protocol::Tcp).is_empty(), "TCP ends by itself");
        }
        assert_eq!(find(&[&port(Protocol::Udp, &[a])], &[]).len(), 2, "the Service is gone");
        assert_eq!(find(&[], &[&port(Protocol::Udp, &[a])]).len(), 2, "it was not there");
    }
}
