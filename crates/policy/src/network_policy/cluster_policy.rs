//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`): the object as the API has it, and its parsed form.
//!
//! Source of the rules: the v1alpha2 types of the network-policy-api project. What an incompatible version of the
//! object might hold fails closed, as those types ask: an Accept rule that cannot be understood matches nothing, a
//! Deny or Pass rule becomes one that denies everything.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::cidr::subtract;
use super::ir::{Action, Cidr, Direction, PortRange, Protocol, Tier};
use super::model::{AllowRule, Namespaces, Peer, PolicyError, Port};
use crate::selector::{Labels, Selector};

/// The object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicy {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Spec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// 0 to 1000; the lower is asked first.
    pub priority: i32,
    pub subject: Subject,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ApiRule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ApiRule>,
}

/// Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamespacedPod {
    pub namespace_selector: LabelSelector,
    pub pod_selector: LabelSelector,
}

/// An entry of `ingress` (with `from`) or `egress` (with `to`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiRule {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ApiPeer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<ApiPeer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ApiProtocol>>,
}

impl ApiRule {
    pub fn peers(&self, direction: Direction) -> &[ApiPeer] {
        match direction {
            Direction::Ingress => &self.from,
            Direction::Egress => &self.to,
        }
    }
}

/// Exactly one field is set; the last three only in egress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiPeer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
}

/// Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiProtocol {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Ports>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<Ports>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<Ports>,
    /// A container port's name, of whatever protocol that port has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ports {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ApiPort>,
}

/// Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiPort {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<ApiRange>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiRange {
    pub start: i32,
    pub end: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub conditions: Vec<Condition>,
}

impl k8s_openapi::Resource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for ClusterNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A node as far as policies are concerned: peers by label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    pub name: String,
    pub labels: Labels,
    pub addresses: Vec<IpAddr>,
}

impl NodeRecord {
    /// Its addresses are those of `status.addresses`, as far as they are addresses.
    pub fn from_api(node: &k8s_openapi::api::core::v1::Node) -> NodeRecord {
        let all = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
        let mut addresses: Vec<IpAddr> = all.filter_map(|a| a.address.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        NodeRecord {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses,
        }
    }
}

/// A ClusterNetworkPolicy, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    pub name: String,
    /// Admin or Baseline.
    pub tier: Tier,
    pub priority: i32,
    pub namespaces: Selector,
    pub pods: Selector,
    pub ingress: Vec<TierRule>,
    pub egress: Vec<TierRule>,
}

/// One rule of a tier: what it matches, and what becomes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierRule {
    /// As its author named it; may be empty.
    pub name: String,
    pub action: Action,
    /// None: matches nothing (an Accept that could not be understood).
    pub matches: Option<AllowRule>,
}

impl ClusterPolicy {
    /// Never opens what it could not read: with an error comes a policy that fails closed.
    pub fn from_api(policy: &ClusterNetworkPolicy) -> (ClusterPolicy, Option<PolicyError>) {
        let mut errors = Vec::new();
        let spec = &policy.spec;
        let name = policy.metadata.name.clone().unwrap_or_default();
        let tier = match spec.tier.as_str() {
            "Admin" => Some(Tier::Admin),
            "Baseline" => Some(Tier::Baseline),
            _ => None,
        };
        let subject = parse_subject(&spec.subject);
        let mut rules = |direction| {
            let field = field_of(direction);
            let all = match direction {
                Direction::Ingress => &spec.ingress,
                Direction::Egress => &spec.egress,
            };
            let each = all.iter().enumerate();
            each.map(|(index, rule)| {
                let (rule, error) = parse_rule(&format!("spec.{field}[{index}]"), direction, rule);
                errors.extend(error);
                rule
            })
            .collect::<Vec<_>>()
        };
        let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
        match (tier, subject) {
            (Some(tier), Ok((namespaces, pods))) => {
                let policy =
                    ClusterPolicy { name, tier, priority: spec.priority, namespaces, pods, ingress, egress };
                (policy, errors.into_iter().next())
            }
            (tier, subject) => {
                let deny = || vec![deny_all(String::new())];
                let error = match (tier, &subject) {
                    (None, _) => value("spec.tier", format!("unknown tier {:?}", spec.tier)),
                    (Some(_), Err(error)) => error.clone(),
                    (Some(_), Ok(_)) => unreachable!("handled above"),
                };
                let (namespaces, pods) = subject.unwrap_or_default();
                let closed = ClusterPolicy {
                    name,
                    tier: Tier::Admin,
                    priority: spec.priority,
                    namespaces,
                    pods,
                    ingress: deny(),
                    egress: deny(),
                };
                (closed, Some(error))
            }
        }
    }

    pub fn rules(&self, direction: Direction) -> &[TierRule] {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// `labels` are those of the pod's namespace; a namespace that is not known is not selected.
    pub fn selects(&self, labels: Option<&Labels>, pod: &Labels) -> bool {
        labels.is_some_and(|labels| self.namespaces.matches(labels)) && self.pods.matches(pod)
    }
}

/// The field of `spec` that holds a direction's rules.
pub fn field_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn value(path: &str, why: impl Into<String>) -> PolicyError {
    PolicyError::Value { path: path.to_string(), why: why.into() }
}

fn selector(path: String, selector: &LabelSelector) -> Result<Selector, PolicyError> {
    Selector::parse(selector).map_err(|source| PolicyError::Selector { path, source })
}

fn parse_subject(subject: &Subject) -> Result<(Selector, Selector), PolicyError> {
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => {
            Ok((selector("spec.subject.namespaces".into(), namespaces)?, Selector::everything()))
        }
        (None, Some(pods)) => namespaced("spec.subject.pods", pods),
        _ => Err(value("spec.subject", "must set exactly one of namespaces and pods")),
    }
}

fn namespaced(path: &str, pod: &NamespacedPod) -> Result<(Selector, Selector), PolicyError> {
    Ok((
        selector(format!("{path}.namespaceSelector"), &pod.namespace_selector)?,
        selector(format!("{path}.podSelector"), &pod.pod_selector)?,
    ))
}

/// Matches everybody on every port.
fn deny_all(name: String) -> TierRule {
    TierRule { name, action: Action::Deny, matches: Some(AllowRule::default()) }
}

fn parse_rule(path: &str, direction: Direction, rule: &ApiRule) -> (TierRule, Option<PolicyError>) {
    let action = match rule.action.as_str() {
        "Accept" => Some(Action::Allow),
        "Deny" => Some(Action::Deny),
        "Pass" => Some(Action::Pass),
        _ => None,
    };
    let matches = parse_matches(path, direction, rule);
    match (action, matches) {
        (Some(action), Ok(matches)) => {
            (TierRule { name: rule.name.clone(), action, matches: Some(matches) }, None)
        }
        (Some(Action::Allow), Err(error)) => {
            (TierRule { name: rule.name.clone(), action: Action::Allow, matches: None }, Some(error))
        }
        (Some(_), Err(error)) => (deny_all(rule.name.clone()), Some(error)),
        (None, _) => {
            let error = value(&format!("{path}.action"), format!("unknown action {:?}", rule.action));
            (deny_all(rule.name.clone()), Some(error))
        }
    }
}

fn parse_matches(path: &str, direction: Direction, rule: &ApiRule) -> Result<AllowRule, PolicyError> {
    let field = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let peers = rule.peers(direction);
    if peers.is_empty() {
        return Err(value(&format!("{path}.{field}"), "must have at least one peer"));
    }
    let mut parsed = AllowRule::default();
    for (index, peer) in peers.iter().enumerate() {
        parsed.peers.push(parse_peer(&format!("{path}.{field}[{index}]"), direction, peer)?);
    }
    for (index, protocol) in rule.protocols.iter().flatten().enumerate() {
        parsed.ports.push(parse_protocol(&format!("{path}.protocols[{index}]"), protocol)?);
    }
    if rule.protocols.as_ref().is_some_and(Vec::is_empty) {
        return Err(value(&format!("{path}.protocols"), "must have at least one entry"));
    }
    Ok(parsed)
}

fn parse_peer(path: &str, direction: Direction, peer: &ApiPeer) -> Result<Peer, PolicyError> {
    if peer.domain_names.is_some() {
        return Err(value(&format!("{path}.domainNames"), "domain names are not supported"));
    }
    let only_out = |field: &str| match direction {
        Direction::Egress => Ok(()),
        Direction::Ingress => Err(value(&format!("{path}.{field}"), "may only be set in egress")),
    };
    match (&peer.namespaces, &peer.pods, &peer.nodes, &peer.networks) {
        (Some(namespaces), None, None, None) => {
            let namespaces = Namespaces::Matching(selector(format!("{path}.namespaces"), namespaces)?);
            Ok(Peer::Pods { namespaces, pods: Selector::everything() })
        }
        (None, Some(pods), None, None) => {
            let (namespaces, pods) = namespaced(&format!("{path}.pods"), pods)?;
            Ok(Peer::Pods { namespaces: Namespaces::Matching(namespaces), pods })
        }
        (None, None, Some(nodes), None) => {
            only_out("nodes")?;
            Ok(Peer::Nodes(selector(format!("{path}.nodes"), nodes)?))
        }
        (None, None, None, Some(networks)) => {
            only_out("networks")?;
            let mut blocks: Vec<Cidr> = Vec::new();
            for (index, text) in networks.iter().enumerate() {
                let block = Cidr::parse(text).map_err(|source| PolicyError::Cidr {
                    path: format!("{path}.networks[{index}]"),
                    source,
                })?;
                // Disjoint, whatever was written.
                let new = subtract(block, &blocks);
                blocks.extend(new);
            }
            blocks.sort();
            Ok(Peer::Blocks(blocks))
        }
        _ => Err(value(path, "must set exactly one of namespaces, pods, nodes and networks")),
    }
}

fn parse_protocol(path: &str, protocol: &ApiProtocol) -> Result<Port, PolicyError> {
    let one = match (&protocol.tcp, &protocol.udp, &protocol.sctp, &protocol.destination_named_port) {
        (Some(ports), None, None, None) => (Protocol::Tcp, "tcp", ports),
        (None, Some(ports), None, None) => (Protocol::Udp, "udp", ports),
        (None, None, Some(ports), None) => (Protocol::Sctp, "sctp", ports),
        (None, None, None, Some(name)) if !name.is_empty() => return Ok(Port::NamedAny(name.clone())),
        _ => return Err(value(path, "must set exactly one of tcp, udp, sctp and destinationNamedPort")),
    };
    let (protocol, word, ports) = one;
    let path = format!("{path}.{word}.destinationPort");
    let number = |field: &str, number: i32| match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            Err(value(&format!("{path}.{field}"), format!("{number} must be between 1 and 65535, inclusive")))
        }
    };
    let Some(port) = &ports.destination_port else { return Ok(Port::Every(protocol)) };
    match (port.number, &port.range) {
        (Some(one), None) => {
            let one = number("number", one)?;
            Ok(Port::Range(protocol, PortRange { first: one, last: one }))
        }
        (None, Some(range)) => {
            let (first, last) = (number("range.start", range.start)?, number("range.end", range.end)?);
            if first >= last {
                return Err(value(&format!("{path}.range"), "Start port must be less than End port"));
            }
            Ok(Port::Range(protocol, PortRange { first, last }))
        }
        _ => Err(value(&path, "must set exactly one of number and range")),
    }
}
