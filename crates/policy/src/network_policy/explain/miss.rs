//! Why a rule does not match, in words that say what to change.

use super::answer::PartyKind;
use super::judge::Asked;
use crate::network_policy::ir::{Layer4, PortRange};
use crate::network_policy::model::{Namespaces, Peer, Port};
use crate::selector::{Labels, Requirement, Selector};

/// The greater `near`, the less is missing.
pub(super) struct Miss {
    pub near: u8,
    pub why: String,
}

pub(super) fn peer_miss(asked: &Asked, peer: &Peer, words: Option<(Vec<String>, Vec<String>)>) -> Miss {
    let address = asked.peer.address;
    match peer {
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = &asked.peer_pod else {
                let why = match asked.peer.kind {
                    PartyKind::HostNetworkPod => format!(
                        "it selects pods, and a hostNetwork pod has its node's address ({address}): only an ipBlock matches that"
                    ),
                    PartyKind::Node => format!("it selects pods, and {address} is a node's address"),
                    _ => format!("it selects pods, and {address} is outside of the cluster"),
                };
                return Miss { near: 0, why };
            };
            let full = format!("{}/{}", pod.namespace, pod.name);
            let namespace = match namespaces {
                Namespaces::Named(name) if *name == pod.namespace => None,
                Namespaces::Named(name) => Some(format!(
                    "without a namespaceSelector it means pods of {name} only, and {full} is in {}",
                    pod.namespace
                )),
                Namespaces::Matching(selector) => match asked.peer_labels {
                    None => Some(format!("namespace {} is not known", pod.namespace)),
                    Some(labels) => lacks(selector, labels, &format!("namespace {}", pod.namespace)),
                },
            };
            let labels = lacks(pods, &pod.labels, &full);
            match (namespace, labels) {
                (Some(namespace), None) => Miss { near: 3, why: namespace },
                (None, Some(labels)) => Miss { near: 4, why: labels },
                (Some(namespace), Some(labels)) => Miss { near: 2, why: format!("{namespace}; {labels}") },
                (None, None) => Miss { near: 5, why: String::new() },
            }
        }
        Peer::Nodes(selector) => {
            let why = match asked.peer.kind {
                PartyKind::Node | PartyKind::HostNetworkPod => {
                    format!("no node with {selector} has {address}")
                }
                _ => format!("it selects nodes, and {address} is no node's address"),
            };
            Miss { near: 1, why }
        }
        Peer::Blocks(_) => {
            let (blocks, except) = words.unwrap_or_default();
            let inside = |text: &&String| {
                crate::network_policy::ir::Cidr::parse(text).is_ok_and(|cidr| cidr.contains(&address))
            };
            match (blocks.iter().find(inside), except.iter().find(inside)) {
                (Some(block), Some(except)) => {
                    Miss { near: 4, why: format!("{address} is in {block}, but excepted by {except}") }
                }
                _ => Miss { near: 1, why: format!("{address} is not in {}", blocks.join(", ")) },
            }
        }
    }
}

/// What is missing for `selector` to match; None: it matches.
fn lacks(selector: &Selector, labels: &Labels, whose: &str) -> Option<String> {
    let failing = selector.requirements().filter(|requirement| !requirement.matches(labels));
    let all: Vec<String> = failing
        .map(|requirement| match requirement {
            Requirement::In(key, _) | Requirement::Gt(key, _) | Requirement::Lt(key, _) => {
                match labels.get(key) {
                    None => format!("{whose} has no label {key} ({requirement} is asked)"),
                    Some(value) => format!("{whose} has {key}={value} ({requirement} is asked)"),
                }
            }
            Requirement::Exists(key) => format!("{whose} has no label {key}"),
            Requirement::NotIn(key, _) | Requirement::DoesNotExist(key) => {
                let value = labels.get(key).map(String::as_str).unwrap_or_default();
                format!("{whose} has {key}={value} ({requirement} is asked)")
            }
        })
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

pub(super) fn port_miss(asked: &Asked, ports: &[Port]) -> String {
    if matches!(asked.flow.layer4, Layer4::Other(_)) {
        return format!("it is for {}, and ICMP has no ports", ports_shown(ports));
    }
    let mut text = format!("it is for {}", ports_shown(ports));
    for port in ports {
        let (Port::Named(_, name) | Port::NamedAny(name)) = port else { continue };
        let Some(server) = &asked.server_pod else {
            text.push_str(&format!("; outside of the cluster nothing is called {name}"));
            continue;
        };
        let full = format!("{}/{}", server.namespace, server.name);
        match server.named_ports.iter().find(|((_, n), _)| n == name) {
            Some(((protocol, _), number)) => {
                text.push_str(&format!("; {name} is {} {number} of {full}", protocol.name()));
            }
            None => text.push_str(&format!("; {full} has no port called {name}")),
        }
    }
    text
}

pub(super) fn ports_shown(ports: &[Port]) -> String {
    let each = ports.iter().map(|port| match port {
        Port::Every(protocol) => format!("every {} port", protocol.name()),
        Port::Range(protocol, PortRange { first, last }) if first == last => {
            format!("{} {first}", protocol.name())
        }
        Port::Range(protocol, PortRange { first, last }) => format!("{} {first}-{last}", protocol.name()),
        Port::Named(protocol, name) => format!("{} {name}", protocol.name()),
        Port::NamedAny(name) => format!("port {name}"),
    });
    each.collect::<Vec<_>>().join(", ")
}
