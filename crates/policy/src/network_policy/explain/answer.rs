//! The answer, as data: what `-o json` prints and what people's text is written from.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::network_policy::ir::{Direction, Layer4, Tier};

/// What is known of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    pub kind: PartyKind,
    /// `namespace/name` of a pod, the name of a node; none for an address outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub address: IpAddr,
    /// The node it is on, or is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PartyKind {
    Pod,
    /// Has its node's network and address.
    HostNetworkPod,
    Node,
    Outside,
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.kind, &self.name) {
            (PartyKind::Node, Some(name)) => write!(f, "node {name} ({})", self.address),
            (PartyKind::HostNetworkPod, Some(name)) => {
                write!(f, "{name} (hostNetwork, {}", self.address)?;
                self.node.iter().try_for_each(|node| write!(f, " of {node}"))?;
                f.write_str(")")
            }
            (_, Some(name)) => {
                write!(f, "{name} ({}", self.address)?;
                self.node.iter().try_for_each(|node| write!(f, " on {node}"))?;
                f.write_str(")")
            }
            (_, None) => write!(f, "{} (outside)", self.address),
        }
    }
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub verdict: Outcome,
    /// One line for people.
    pub summary: String,
    pub source: Party,
    /// Who translates what was asked: Services, and pods' host ports; empty where the destination is an end itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<Translation>,
    /// What is really connected to: one, or one per endpoint, or one per port where no port was asked for.
    pub connections: Vec<Connection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Allowed,
    Denied,
    /// Some of the connections.
    Partly,
    /// Nobody is there to be reached: a Service without endpoints, or one that is not reached from there or not by this source.
    Unreachable,
}

/// What becomes of packets that are for an address, where that is not whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Translation {
    pub by: TranslatedBy,
    /// `namespace/name` of the Service, or of the pod whose host port it is.
    pub name: String,
    /// Of a Service.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub of_type: Option<String>,
    /// None: headless, its name leads to the endpoints themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The node that does it, where packets come to it from elsewhere; none: the client's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Party>,
    /// `TCP 80 (http) → 10.244.1.2:8080, 10.244.2.2:8080`, a line per port.
    pub ports: Vec<String>,
    /// The same, for programs.
    pub targets: Vec<Targets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TranslatedBy {
    /// At its own address, one of `externalIPs`, or a load balancer's.
    Service,
    NodePort,
    HostPort,
}

impl std::fmt::Display for Translation {
    /// `Service foo/db (ClusterIP, 10.96.0.9)`, `hostPort of foo/web (10.88.0.2)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.by {
            TranslatedBy::Service => "Service ",
            TranslatedBy::NodePort => "node port of Service ",
            TranslatedBy::HostPort => "hostPort of ",
        })?;
        let address = self.address.map_or("headless".to_string(), |address| address.to_string());
        match &self.of_type {
            Some(of_type) => write!(f, "{} ({of_type}, {address})", self.name),
            None => write!(f, "{} ({address})", self.name),
        }
    }
}

/// One of a translation's ports, and the endpoints that a connection to it may come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Targets {
    #[serde(serialize_with = "layer4")]
    pub port: Layer4,
    /// Each with the port that its pod is asked on; 0 where the protocol has none.
    pub endpoints: Vec<SocketAddr>,
}

/// One connection as conntrack knows it: after DNAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub allowed: bool,
    pub client: Party,
    pub server: Party,
    #[serde(serialize_with = "layer4")]
    pub port: Layer4,
    /// What the client's policies see, where another node translates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_to: Option<SentTo>,
    /// Whom the server's policies see, where a node on the way hides the client behind itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<Party>,
    /// Which of the answer's translations leads to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub translation: Option<usize>,
    pub egress: Judgement,
    pub ingress: Judgement,
}

/// Where a packet is for until it is translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SentTo {
    pub to: Party,
    #[serde(serialize_with = "layer4")]
    pub port: Layer4,
}

fn layer4<S: serde::Serializer>(layer4: &Layer4, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&shown(layer4))
}

/// `TCP 80`, `ICMP`.
pub fn shown(layer4: &Layer4) -> String {
    match layer4 {
        Layer4::Port(protocol, port) => format!("{} {port}", protocol.name()),
        Layer4::Other(1 | 58) => "ICMP".to_string(),
        Layer4::Other(number) => format!("protocol {number}"),
    }
}

/// What one end's policies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    #[serde(serialize_with = "direction")]
    pub direction: Direction,
    pub allowed: bool,
    pub reason: Reason,
    /// The reason in words.
    pub because: String,
    /// Every policy that selects this end in this direction, in the order in which they are asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyReport>,
    /// What in the rule set of the end's node decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<LiveElement>,
    /// The node whose rule set that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

fn direction<S: serde::Serializer>(direction: &Direction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(crate::network_policy::cluster_policy::field_of(*direction))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Reason {
    /// This end is outside of the cluster: no policy is about it.
    Outside,
    /// This end has its node's network: no policy is about it.
    NodeNetwork,
    /// A pod cannot be kept from itself.
    Itself,
    /// The node a pod runs on always reaches it.
    FromItsNode,
    /// No policy selects the pod in this direction.
    NoPolicy,
    /// A rule decides.
    Rule(RuleAt),
    /// NetworkPolicies isolate the pod, and none of their rules allows.
    NoRule,
    /// Policies of a tier select the pod, but none of their rules matches, and nothing isolates it.
    NoTierRule,
}

/// The words that decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleAt {
    pub policy: String,
    #[serde(serialize_with = "tier")]
    pub tier: Tier,
    /// Accept, Deny or Pass; a NetworkPolicy only accepts.
    pub action: &'static str,
    /// `spec.ingress[0]`
    pub rule: String,
    /// The rule's own name, of a ClusterNetworkPolicy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `spec.ingress[0].from[1]`; none: the rule names no peer, so anyone is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `spec.ingress[0].ports[0]`; none: the rule names no port, so every one is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

fn tier<S: serde::Serializer>(tier: &Tier, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(tier_name(*tier))
}

pub fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "Admin",
        Tier::NetworkPolicy => "NetworkPolicy",
        Tier::Baseline => "Baseline",
    }
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// `namespace/name`, or the name of a ClusterNetworkPolicy.
    pub policy: String,
    #[serde(serialize_with = "tier")]
    pub tier: Tier,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    pub says: Says,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Says {
    /// This rule matches.
    Matches(RuleAt),
    /// No rule does; the nearest, and why not.
    Misses { nearest: String, why: String },
    /// It has no rule in this direction: nobody is let through.
    NoRules,
    /// An earlier policy has decided.
    NotAsked,
}

/// Something in the table `inet cofferdam` of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum LiveElement {
    /// An element of a verdict map.
    Verdict { map: String, element: String, chain: String },
    /// The chain goes on in another.
    Goto { chain: String, to: String },
    /// An element of a set that the deciding rule looks up.
    Element { chain: String, set: String, element: String },
    /// The deciding rule looks up no set.
    Rule { chain: String, rule: String },
    /// The last rule of the chain.
    End { chain: String, rule: String },
}

impl std::fmt::Display for LiveElement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LiveElement::Verdict { map, element, chain } => write!(f, "map {map}: {element} → chain {chain}"),
            LiveElement::Goto { chain, to } => write!(f, "chain {chain} → chain {to}"),
            LiveElement::Element { set, element, .. } => write!(f, "set {set}: {element}"),
            LiveElement::Rule { chain, rule } => write!(f, "chain {chain}: {rule}"),
            LiveElement::End { chain, rule } => write!(f, "chain {chain}: {rule}, its last rule"),
        }
    }
}
