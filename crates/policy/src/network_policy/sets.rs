//! From one rule of a policy to rules of the rule set, and what the sets they look up select.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::cluster_policy::NodeRecord;
use super::ir::{
    Action, ChainName, Cidr, Direction, Element, Family, PeerMatch, PortMatch, PortRange, Protocol, Rule,
    SetKind, SetName, SetType, Tier,
};
use super::model::{AllowRule, Namespaces, Peer, PodRecord, Port};
use crate::selector::{Labels, Selector};

/// What a set selects; its hash is its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum SetKey {
    Pods { family: Family, namespaces: Namespaces, pods: Selector },
    Nodes { family: Family, nodes: Selector },
    Cidrs { family: Family, blocks: Vec<Cidr> },
    NamedPort { family: Family, protocol: Protocol, name: String },
}

impl SetKey {
    pub fn set_type(&self) -> SetType {
        match self {
            SetKey::Pods { family, .. } => SetType { family: *family, kind: SetKind::Pods },
            SetKey::Nodes { family, .. } => SetType { family: *family, kind: SetKind::Nodes },
            SetKey::Cidrs { family, .. } => SetType { family: *family, kind: SetKind::Cidrs },
            SetKey::NamedPort { family, .. } => SetType { family: *family, kind: SetKind::NamedPort },
        }
    }

    pub fn name(&self) -> SetName {
        let prefix = match self {
            SetKey::Pods { .. } => "pods",
            SetKey::Nodes { .. } => "node",
            SetKey::Cidrs { .. } => "cidr",
            SetKey::NamedPort { .. } => "port",
        };
        SetName(format!("{prefix}-{}", hash(self)), self.set_type().family)
    }

    /// What a pod brings into this set; `labels` are those of its namespace, if that is known.
    pub fn elements_of<'a>(
        &'a self,
        pod: &'a PodRecord,
        labels: Option<&Labels>,
    ) -> impl Iterator<Item = Element> + use<'a> {
        let (family, port) = match self {
            SetKey::Pods { family, namespaces, pods } => {
                let inside = match namespaces {
                    Namespaces::Named(name) => *name == pod.namespace,
                    Namespaces::Matching(selector) => labels.is_some_and(|labels| selector.matches(labels)),
                };
                ((inside && pods.matches(&pod.labels)).then_some(*family), None)
            }
            SetKey::Nodes { .. } | SetKey::Cidrs { .. } => (None, None),
            SetKey::NamedPort { family, protocol, name } => {
                let port = pod.named_ports.iter().find(|((p, n), _)| p == protocol && n == name);
                (port.map(|_| *family), port.map(|(_, port)| *port))
            }
        };
        pod.addresses.iter().filter(move |address| family == Some(Family::of(address))).map(move |address| {
            match port {
                Some(port) => Element::Port(*address, port),
                None => Element::Address(*address),
            }
        })
    }
}

impl SetKey {
    /// What a node brings into this set.
    pub fn elements_of_node<'a>(&self, node: &'a NodeRecord) -> impl Iterator<Item = Element> + use<'a> {
        let family = match self {
            SetKey::Nodes { family, nodes } if nodes.matches(&node.labels) => Some(*family),
            _ => None,
        };
        let addresses = node.addresses.iter().filter(move |address| family == Some(Family::of(address)));
        addresses.map(|address| Element::Address(*address))
    }
}

pub(super) fn compile_rule(
    allow: &AllowRule,
    action: Action,
    family: Family,
    rules: &mut Vec<Rule>,
    keys: &mut BTreeMap<SetName, SetKey>,
) {
    let mut set = |key: SetKey| {
        let name = key.name();
        keys.insert(name.clone(), key);
        name
    };
    let mut peers = Vec::new();
    for peer in &allow.peers {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let key = SetKey::Pods { family, namespaces: namespaces.clone(), pods: pods.clone() };
                peers.push(PeerMatch::Pods(set(key)));
            }
            Peer::Nodes(nodes) => {
                peers.push(PeerMatch::Nodes(set(SetKey::Nodes { family, nodes: nodes.clone() })));
            }
            Peer::Blocks(blocks) if blocks.iter().any(|block| block.family() == family) => {
                peers
                    .push(PeerMatch::Cidrs(set(SetKey::Cidrs { family, blocks: of_family(blocks, family) })));
            }
            Peer::Blocks(_) => {}
        }
    }
    if allow.peers.is_empty() {
        peers.push(PeerMatch::Any);
    }
    // No peer of this family: the rule allows nobody, so its port sets are not wanted either.
    if peers.is_empty() {
        return;
    }
    let mut ports: Vec<PortMatch> = Vec::new();
    for protocol in Protocol::ALL {
        let mut ranges = Vec::new();
        for port in &allow.ports {
            match port {
                Port::Every(p) if *p == protocol => ranges.push(PortRange { first: 0, last: u16::MAX }),
                Port::Range(p, range) if *p == protocol => ranges.push(*range),
                Port::Named(p, name) if *p == protocol => {
                    let name = set(SetKey::NamedPort { family, protocol, name: name.clone() });
                    ports.push(PortMatch::Named(protocol, name));
                }
                Port::NamedAny(name) => {
                    let name = set(SetKey::NamedPort { family, protocol, name: name.clone() });
                    ports.push(PortMatch::Named(protocol, name));
                }
                Port::Every(_) | Port::Range(..) | Port::Named(..) => {}
            }
        }
        match join(ranges).as_slice() {
            [] => {}
            [PortRange { first: 0, last: u16::MAX }] => ports.push(PortMatch::Protocol(protocol)),
            ranges => ports.push(PortMatch::Ranges(protocol, ranges.to_vec())),
        }
    }
    if allow.ports.is_empty() {
        ports.push(PortMatch::Any);
    }
    for peer in &peers {
        rules.extend(ports.iter().map(|port| Rule { action, peer: peer.clone(), port: port.clone() }));
    }
}

/// A policy's networks may be of both families; a set holds one.
fn of_family(blocks: &[Cidr], family: Family) -> Vec<Cidr> {
    blocks.iter().filter(|block| block.family() == family).copied().collect()
}

/// Sorted, with what overlaps or touches joined: an nf_tables interval set takes no overlap.
fn join(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort();
    let mut joined: Vec<PortRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last)
            }
            _ => joined.push(range),
        }
    }
    joined
}

pub(super) fn chain_name(direction: Direction, namespace: &str, policies: &[String]) -> ChainName {
    let prefix = match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    ChainName(format!("{prefix}-{}", hash(&(namespace, policies))))
}

/// The chain of a tier's policies, in the order they are asked, with what comes after it.
pub(super) fn tier_chain_name(
    tier: Tier,
    direction: Direction,
    policies: &[String],
    next: Option<&ChainName>,
) -> ChainName {
    let tier = match tier {
        Tier::Admin => "admin",
        Tier::NetworkPolicy | Tier::Baseline => "baseline",
    };
    let direction = match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    ChainName(format!("{tier}-{direction}-{}", hash(&(policies, next))))
}

/// 128 bits of SHA-256 over the JSON text: who writes policies chooses what is hashed, and must not be able to find
/// two selectors with one name.
fn hash(key: &impl Serialize) -> String {
    let text = serde_json::to_vec(key).expect("names, selectors and numbers serialize");
    Sha256::digest(&text).iter().take(16).fold(String::with_capacity(32), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
