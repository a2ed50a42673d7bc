//! Policies and rules that match nobody.

use k8s_openapi::api::core::v1::Pod;

use super::super::ir::{Direction, Protocol};
use super::super::model::{Namespaces, Peer, Port};
use super::{Known, Lint, labels, namespace, on_host_network, peers_field};
use crate::selector::Selector;

/// What the API server would refuse; a node isolates its pods and allows nothing.
pub(super) const NOT_UNDERSTOOD: Lint = Lint {
    id: "not-understood",
    fix: "Correct the field: until then the policy isolates its pods and allows nothing.",
    run: |_, policy| match &policy.error {
        Some(error) => {
            let (path, why) = error.split_once(": ").unwrap_or(("spec", error));
            vec![(path.to_owned(), why.to_owned())]
        }
        None => Vec::new(),
    },
};

pub(super) const SELECTS_NO_POD: Lint = Lint {
    id: "selects-no-pod",
    fix: "Correct the labels or the namespace: a policy guards pods of its own namespace only.",
    run: |known, policy| {
        if !policy.pods.is_empty() {
            return Vec::new();
        }
        let (subject, own) = (&policy.parsed.subject, &policy.parsed.namespace);
        let elsewhere = found_in(known, subject, own);
        let message = match known.pods.iter().any(|pod| namespace(pod) == own) {
            false if elsewhere.is_empty() => format!("namespace {own} has no pods"),
            _ => format!("selects no pod of namespace {own} ({subject}){elsewhere}"),
        };
        vec![("spec.podSelector".to_owned(), message)]
    },
};

pub(super) const HOST_NETWORK_ONLY: Lint = Lint {
    id: "host-network-only",
    fix: "Guard such pods on their node, or give them a network of their own.",
    run: |_, policy| match policy.pods.iter().all(|pod| on_host_network(pod)) && !policy.pods.is_empty() {
        true => vec![(
            "spec.podSelector".to_owned(),
            "selects only pods on their node's network, which no policy guards".to_owned(),
        )],
        false => Vec::new(),
    },
};

pub(super) const PEER_MATCHES_NOBODY: Lint = Lint {
    id: "peer-matches-nobody",
    fix: "Correct the labels; a podSelector without a namespaceSelector means pods of the policy's own namespace.",
    run: |known, policy| {
        let mut found = Vec::new();
        for (direction, path, rule) in policy.rules() {
            for (index, peer) in rule.peers.iter().enumerate() {
                let message = match peer {
                    Peer::Pods { .. } if known.pods.iter().any(|pod| is_peer(known, peer, pod)) => continue,
                    Peer::Pods { .. } if known.pods.iter().any(|pod| is_selected(known, peer, pod)) => {
                        "matches only pods on their node's network, which no podSelector means".to_owned()
                    }
                    Peer::Pods { namespaces: Namespaces::Named(own), pods } => {
                        format!("matches no pod of namespace {own} ({pods}){}", found_in(known, pods, own))
                    }
                    Peer::Pods { namespaces: Namespaces::Matching(which), pods } => {
                        let some = known.namespaces.values().any(|labels| which.matches(labels));
                        match some {
                            true => format!("matches no pod ({pods}) of the namespaces with {which}"),
                            false => format!("matches no namespace ({which})"),
                        }
                    }
                    Peer::Blocks(blocks) if blocks.is_empty() => {
                        "except leaves nothing of the block".to_owned()
                    }
                    Peer::Blocks(_) | Peer::Nodes(_) => continue,
                };
                found.push((format!("{path}.{}[{index}]", peers_field(direction)), message));
            }
        }
        found
    },
};

pub(super) const NAMED_PORT_NOWHERE: Lint = Lint {
    id: "named-port-nowhere",
    fix: "Name the port in the server's container (ports[].name, of that protocol), or give its number.",
    run: |known, policy| {
        let mut found = Vec::new();
        for (direction, path, rule) in policy.rules() {
            for (index, port) in rule.ports.iter().enumerate() {
                let Port::Named(protocol, name) = port else { continue };
                let (servers, who): (Vec<&Pod>, _) = match direction {
                    Direction::Ingress => (policy.pods.clone(), "selected pod"),
                    Direction::Egress => {
                        let is_server = |pod: &&Pod| {
                            rule.peers.is_empty() || rule.peers.iter().any(|peer| is_peer(known, peer, pod))
                        };
                        (known.pods.iter().filter(is_server).collect(), "pod it leads to")
                    }
                };
                // Where nobody is there at all, another finding says so.
                if !servers.is_empty() && !servers.iter().any(|pod| has_port(pod, *protocol, name)) {
                    let message = format!("no {who} has a {} port named {name}", protocol.name());
                    found.push((format!("{path}.ports[{index}]"), message));
                }
            }
        }
        found
    },
};

fn has_port(pod: &Pod, protocol: Protocol, name: &str) -> bool {
    super::super::PodRecord::from_api(pod, "").named_ports.contains_key(&(protocol, name.to_owned()))
}

/// Blocks hold addresses, which pods change: they count for none.
fn is_peer(known: &Known<'_>, peer: &Peer, pod: &Pod) -> bool {
    !on_host_network(pod) && is_selected(known, peer, pod)
}

/// Whether the labels are those that the peer asks for.
fn is_selected(known: &Known<'_>, peer: &Peer, pod: &Pod) -> bool {
    let Peer::Pods { namespaces, pods } = peer else { return false };
    let there = match namespaces {
        Namespaces::Named(name) => namespace(pod) == name,
        Namespaces::Matching(which) => {
            known.namespaces.get(namespace(pod)).is_some_and(|labels| which.matches(labels))
        }
    };
    there && pods.matches(&labels(pod))
}

/// Where else a selector finds pods: `; namespace shop has such pods`, or nothing.
fn found_in(known: &Known<'_>, pods: &Selector, not: &str) -> String {
    let elsewhere = known.pods.iter().find(|pod| namespace(pod) != not && pods.matches(&labels(pod)));
    match elsewhere {
        Some(pod) if *pods != Selector::everything() => {
            format!("; namespace {} has such pods", namespace(pod))
        }
        _ => String::new(),
    }
}
