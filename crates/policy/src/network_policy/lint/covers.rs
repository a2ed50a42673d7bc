//! Rules that allow nothing new, because another rule for the same pods allows all of it. Judged by what is written, not
//! by who is there: it stays true whichever pods come and go.

use super::super::ir::{Cidr, Direction};
use super::super::model::{AllowRule, Peer, Port};
use super::{Known, field};
use crate::selector::Selector;

/// Of the policy with that index: the rules that others make idle, with the one that does.
pub(super) fn shadowed(known: &Known<'_>, index: usize) -> Vec<(String, String)> {
    let policy = &known.policies[index];
    let mut found = Vec::new();
    for direction in Direction::ALL {
        for (at, rule) in policy.parsed.rules(direction).unwrap_or_default().iter().enumerate() {
            let by = known.policies.iter().enumerate().find_map(|(other_index, other)| {
                let same = other_index == index;
                let wide = other.parsed.subject == Selector::everything();
                if other.error.is_some()
                    || other.parsed.namespace != policy.parsed.namespace
                    || !(wide || other.parsed.subject == policy.parsed.subject)
                {
                    return None;
                }
                let rules = other.parsed.rules(direction).unwrap_or_default().iter().enumerate();
                // Of two equal rules the later one is idle.
                let is_earlier = |other_at: usize| (other_index, other_at) < (index, at);
                let mut wider = rules.filter(|(other_at, other_rule)| {
                    let itself = same && *other_at == at;
                    let equal =
                        covers(rule, other_rule) && (same || other.parsed.subject == policy.parsed.subject);
                    !itself && covers(other_rule, rule) && (!equal || is_earlier(*other_at))
                });
                let (other_at, _) = wider.next()?;
                let path = format!("spec.{}[{other_at}]", field(direction));
                Some(if same { path } else { format!("NetworkPolicy {}, {path}", other.parsed.name) })
            });
            if let Some(by) = by {
                let message = format!("allows nothing that is not allowed already by {by}");
                found.push((format!("spec.{}[{at}]", field(direction)), message));
            }
        }
    }
    found
}

/// Whether all that `narrow` allows is allowed by `wide`.
fn covers(wide: &AllowRule, narrow: &AllowRule) -> bool {
    let peers = wide.peers.is_empty()
        || !narrow.peers.is_empty()
            && narrow.peers.iter().all(|peer| wide.peers.iter().any(|other| peer_covers(other, peer)));
    let ports = wide.ports.is_empty()
        || !narrow.ports.is_empty()
            && narrow.ports.iter().all(|port| wide.ports.iter().any(|other| port_covers(other, port)));
    peers && ports
}

fn peer_covers(wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (Peer::Blocks(wide), Peer::Blocks(narrow)) => {
            narrow.iter().all(|block| wide.iter().any(|other| holds(other, block)))
        }
        (
            Peer::Pods { namespaces: wide_in, pods: wide },
            Peer::Pods { namespaces: narrow_in, pods: narrow },
        ) => wide_in == narrow_in && (wide == narrow || *wide == Selector::everything()),
        (wide, narrow) => wide == narrow,
    }
}

/// Whether every address of `inner` is in `outer`.
pub(super) fn holds(outer: &Cidr, inner: &Cidr) -> bool {
    outer.prefix <= inner.prefix && outer.contains(&inner.network)
}

fn port_covers(wide: &Port, narrow: &Port) -> bool {
    match (wide, narrow) {
        (Port::Every(wide), Port::Every(narrow) | Port::Range(narrow, _) | Port::Named(narrow, _)) => {
            wide == narrow
        }
        (Port::Range(wide, range), Port::Range(narrow, ports)) => {
            wide == narrow && range.first <= ports.first && ports.last <= range.last
        }
        (wide, narrow) => wide == narrow,
    }
}
