//! What a rule set is compiled from: pods and policies, parsed once at the border. A policy that cannot be parsed
//! (the API server refuses such) isolates all it might select and allows nothing: it fails closed, with its error.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::cidr::{CidrError, subtract};
use super::ir::{Cidr, Direction, PortRange, Protocol};
use crate::selector::{Labels, Selector, SelectorError};

/// A pod as far as its network is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRecord {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    /// Runs on the node the rule set is for: only then it gets verdicts.
    pub local: bool,
    /// None for a pod that is neither subject nor peer: hostNetwork (its address is its node's), or finished (its
    /// address may be another's by now). A terminating pod still has its address, and is still guarded.
    pub addresses: Vec<IpAddr>,
    /// (protocol, name) → port. A name that two containers use counts for the first, as Kubernetes resolves it.
    pub named_ports: BTreeMap<(Protocol, String), u16>,
    /// Orders pods that hold one address for a moment: the younger is the one that runs.
    pub created: String,
}

impl PodRecord {
    /// `node` is the name of the node the rule set is for. Addresses come from the status; an agent that knows them
    /// before they are written there sets them with [`PodRecord::with_addresses`].
    pub fn from_api(pod: &Pod, node: &str) -> PodRecord {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let own_network = !spec.and_then(|s| s.host_network).unwrap_or(false);
        let addresses = if own_network && !matches!(phase, "Succeeded" | "Failed") {
            let primary = status.and_then(|s| s.pod_ip.as_deref());
            let all = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
            let mut parsed: Vec<IpAddr> =
                primary.into_iter().chain(all).filter_map(|ip| ip.parse().ok()).collect();
            parsed.sort();
            parsed.dedup();
            parsed
        } else {
            Vec::new()
        };
        let mut named_ports = BTreeMap::new();
        // Sidecars (init containers that stay) may name ports too; containers come first.
        let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default().iter();
        let sidecars = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten();
        for container in containers.chain(sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always")))
        {
            for (key, port) in named_ports_of(container) {
                named_ports.entry(key).or_insert(port);
            }
        }
        PodRecord {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            local: spec.and_then(|s| s.node_name.as_deref()) == Some(node),
            addresses,
            named_ports,
            created: meta.creation_timestamp.as_ref().map(|t| t.0.to_string()).unwrap_or_default(),
        }
    }

    /// The addresses the node gave this pod, before its status shows them: rules are committed before the pod's link
    /// comes up.
    pub fn with_addresses(mut self, addresses: Vec<IpAddr>) -> PodRecord {
        self.addresses = addresses;
        self
    }
}

fn named_ports_of(container: &Container) -> impl Iterator<Item = ((Protocol, String), u16)> {
    container.ports.iter().flatten().filter_map(|port| {
        let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some(((protocol, port.name.clone()?), u16::try_from(port.container_port).ok()?))
    })
}

/// A NetworkPolicy, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub namespace: String,
    pub name: String,
    pub subject: Selector,
    /// None: it does not isolate in this direction. An empty list: it isolates and allows nothing.
    pub egress: Option<Vec<AllowRule>>,
    pub ingress: Option<Vec<AllowRule>>,
}

/// One entry of `ingress` or `egress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowRule {
    /// Empty: anyone.
    pub peers: Vec<Peer>,
    /// Empty: every port and protocol.
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Pods {
        namespaces: Namespaces,
        pods: Selector,
    },
    /// Disjoint, `except` already cut out. May be empty: nobody.
    Blocks(Vec<Cidr>),
    /// The addresses of the nodes with such labels (ClusterNetworkPolicies only).
    Nodes(Selector),
}

/// Which namespaces a peer's pods are in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Namespaces {
    /// The policy's own: no namespaceSelector.
    Named(String),
    /// Those whose labels match. A namespace that is not known (yet) never matches.
    Matching(Selector),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    Every(Protocol),
    Range(Protocol, PortRange),
    /// Where the server has a container port of this name and protocol.
    Named(Protocol, String),
    /// Where the server has a container port of this name, of any protocol (ClusterNetworkPolicies only).
    NamedAny(String),
}

/// What in a policy cannot be understood; the path is the API's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("{path}: {source}")]
    Selector { path: String, source: SelectorError },
    #[error("{path}: {source}")]
    Cidr { path: String, source: CidrError },
    #[error("{path}: {why}")]
    Value { path: String, why: String },
}

impl Policy {
    /// Never fails to isolate: with an error comes a policy that isolates in every direction, all that its podSelector
    /// selects (all pods of the namespace if that is what cannot be parsed), and allows nothing.
    pub fn from_api(policy: &NetworkPolicy) -> (Policy, Option<PolicyError>) {
        let namespace = policy.metadata.namespace.clone().unwrap_or_default();
        let name = policy.metadata.name.clone().unwrap_or_default();
        let selector =
            policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref()).cloned().unwrap_or_default();
        let subject = Selector::parse(&selector);
        let rules = parse_rules(policy, &namespace);
        match (subject, rules) {
            (Ok(subject), Ok((egress, ingress))) => {
                (Policy { namespace, name, subject, egress, ingress }, None)
            }
            (subject, rules) => {
                let error = match (&subject, rules) {
                    (Err(source), _) => {
                        PolicyError::Selector { path: "spec.podSelector".into(), source: source.clone() }
                    }
                    (_, Err(error)) => error,
                    (Ok(_), Ok(_)) => unreachable!("handled above"),
                };
                let subject = subject.unwrap_or_default();
                let closed = Policy { namespace, name, subject, egress: Some(vec![]), ingress: Some(vec![]) };
                (closed, Some(error))
            }
        }
    }

    /// None if it does not isolate in this direction.
    pub fn rules(&self, direction: Direction) -> Option<&[AllowRule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }
}

type BothDirections = (Option<Vec<AllowRule>>, Option<Vec<AllowRule>>);

fn parse_rules(policy: &NetworkPolicy, namespace: &str) -> Result<BothDirections, PolicyError> {
    let Some(spec) = &policy.spec else { return Ok((None, Some(Vec::new()))) };
    let ingress = spec.ingress.as_deref().unwrap_or_default();
    let egress = spec.egress.as_deref().unwrap_or_default();
    // The API server's default, repeated here for objects that did not pass it: Ingress always, Egress if there are
    // egress rules.
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let (is_ingress, is_egress) = if types.is_empty() {
        (true, !egress.is_empty())
    } else {
        for (index, word) in types.iter().enumerate() {
            if word != "Ingress" && word != "Egress" {
                let path = format!("spec.policyTypes[{index}]");
                return Err(PolicyError::Value { path, why: format!("unknown policy type {word:?}") });
            }
        }
        (types.iter().any(|t| t == "Ingress"), types.iter().any(|t| t == "Egress"))
    };
    let mut parsed_ingress = Vec::new();
    for (index, rule) in ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        let (peers, ports) = (rule.from.as_deref(), rule.ports.as_deref());
        parsed_ingress.push(parse_rule(&path, "from", peers, ports, namespace)?);
    }
    let mut parsed_egress = Vec::new();
    for (index, rule) in egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        let (peers, ports) = (rule.to.as_deref(), rule.ports.as_deref());
        parsed_egress.push(parse_rule(&path, "to", peers, ports, namespace)?);
    }
    Ok((is_egress.then_some(parsed_egress), is_ingress.then_some(parsed_ingress)))
}

fn parse_rule(
    path: &str,
    field: &str,
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
    namespace: &str,
) -> Result<AllowRule, PolicyError> {
    let mut rule = AllowRule::default();
    for (index, peer) in peers.unwrap_or_default().iter().enumerate() {
        rule.peers.push(parse_peer(&format!("{path}.{field}[{index}]"), peer, namespace)?);
    }
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        rule.ports.push(parse_port(&format!("{path}.ports[{index}]"), port)?);
    }
    Ok(rule)
}

fn parse_peer(path: &str, peer: &NetworkPolicyPeer, namespace: &str) -> Result<Peer, PolicyError> {
    if let Some(block) = &peer.ip_block {
        if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            let why = "may not specify both ipBlock and another peer".to_string();
            return Err(PolicyError::Value { path: path.to_string(), why });
        }
        let parse = |text: &str, field: String| {
            Cidr::parse(text)
                .map_err(|source| PolicyError::Cidr { path: format!("{path}.ipBlock.{field}"), source })
        };
        let whole = parse(&block.cidr, "cidr".into())?;
        let mut except = Vec::new();
        for (index, text) in block.except.iter().flatten().enumerate() {
            except.push(parse(text, format!("except[{index}]"))?);
        }
        return Ok(Peer::Blocks(subtract(whole, &except)));
    }
    let selector = |field: &str, selector| {
        Selector::parse(selector)
            .map_err(|source| PolicyError::Selector { path: format!("{path}.{field}"), source })
    };
    let pods = peer.pod_selector.as_ref().map(|s| selector("podSelector", s)).transpose()?;
    let namespaces =
        peer.namespace_selector.as_ref().map(|s| selector("namespaceSelector", s)).transpose()?;
    match (namespaces, pods) {
        (None, None) => {
            Err(PolicyError::Value { path: path.to_string(), why: "must specify a peer".to_string() })
        }
        (None, Some(pods)) => Ok(Peer::Pods { namespaces: Namespaces::Named(namespace.to_string()), pods }),
        // No podSelector: every pod of those namespaces.
        (Some(matching), pods) => {
            Ok(Peer::Pods { namespaces: Namespaces::Matching(matching), pods: pods.unwrap_or_default() })
        }
    }
}

fn parse_port(path: &str, port: &NetworkPolicyPort) -> Result<Port, PolicyError> {
    let bad = |field: &str, why: String| PolicyError::Value { path: format!("{path}.{field}"), why };
    let word = port.protocol.as_deref().unwrap_or("TCP");
    let protocol =
        Protocol::parse(word).ok_or_else(|| bad("protocol", format!("unknown protocol {word:?}")))?;
    let number = |field: &str, value: i32| match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(bad(field, format!("{value} must be between 1 and 65535, inclusive"))),
    };
    match (&port.port, port.end_port) {
        (None, None) => Ok(Port::Every(protocol)),
        (None, Some(_)) => Err(bad("endPort", "may not be specified when `port` is not specified".into())),
        (Some(IntOrString::String(_)), Some(_)) => {
            Err(bad("endPort", "may not be specified when `port` is non-numeric".into()))
        }
        (Some(IntOrString::String(name)), None) => Ok(Port::Named(protocol, name.clone())),
        (Some(IntOrString::Int(first)), last) => {
            let first = number("port", *first)?;
            let last = last.map(|last| number("endPort", last)).transpose()?.unwrap_or(first);
            if last < first {
                return Err(bad("endPort", "must be greater than or equal to `port`".into()));
            }
            Ok(Port::Range(protocol, PortRange { first, last }))
        }
    }
}
