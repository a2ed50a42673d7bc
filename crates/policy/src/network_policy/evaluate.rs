//! Answers "may this flow pass, and why?" from the API objects as they are, deliberately naively: no parsing ahead, no
//! sharing, no code in common with the compiler. It is the oracle for the rule set, and the basis of `why`.
//!
//! Source of the rules: the NetworkPolicy API reference and <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::cluster_policy::{ApiPeer, ApiProtocol, ClusterNetworkPolicy, NamespacedPod, Ports};
use super::ir::{Direction, Flow, Layer4, Protocol};

/// The objects of a cluster that say who may talk to whom.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    pub pods: &'a [Pod],
    pub namespaces: &'a [Namespace],
    pub nodes: &'a [Node],
    pub policies: &'a [NetworkPolicy],
    pub cluster_policies: &'a [ClusterNetworkPolicy],
}

/// Why a flow may pass or not, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub allowed: bool,
    /// The pods behind the addresses, as `namespace/name`; None for an address that is no pod's own.
    pub client: Option<String>,
    pub server: Option<String>,
    /// What the client's egress policies say.
    pub egress: Side,
    /// What the server's ingress policies say.
    pub ingress: Side,
}

/// What the policies of one end say of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Side {
    /// No pod of this cluster has this address for itself: nothing to ask here.
    NotAPod,
    /// A pod cannot be blocked from itself.
    Itself,
    /// The node a pod runs on always reaches it (probes).
    FromItsNode,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// These policies isolate it; at least one rule allows.
    Allowed { isolated_by: Vec<String>, by: Vec<RuleRef> },
    /// These policies isolate it, and no rule of theirs allows.
    Denied { isolated_by: Vec<String> },
    /// This rule of this ClusterNetworkPolicy decides, before NetworkPolicies (Admin) or in their absence (Baseline).
    Tier { policy: String, rule: usize, accepts: bool },
}

impl Side {
    pub fn allows(&self) -> bool {
        !matches!(self, Side::Denied { .. } | Side::Tier { accepts: false, .. })
    }
}

/// Where in a policy the allowing words stand: `spec.<direction>[rule].from|to[peer]` and `.ports[port]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// `namespace/name`
    pub policy: String,
    pub rule: usize,
    /// None: the rule names no peer, so everyone is meant.
    pub peer: Option<usize>,
    /// None: the rule names no port, so all are meant.
    pub port: Option<usize>,
}

/// May it pass?
pub fn evaluate(cluster: &Cluster, flow: &Flow) -> bool {
    reasons(cluster, flow).allowed
}

/// May it pass, and which rules say so?
pub fn reasons(cluster: &Cluster, flow: &Flow) -> Explanation {
    let client = cluster.pod_at(flow.client);
    let server = cluster.pod_at(flow.server);
    let (egress, ingress) = if flow.client == flow.server {
        (Side::Itself, Side::Itself)
    } else {
        let egress = match client {
            None => Side::NotAPod,
            Some(pod) => cluster.side(Direction::Egress, pod, flow),
        };
        let ingress = match server {
            None => Side::NotAPod,
            Some(pod) if client.is_none() && is_node_of(pod, flow.client) => Side::FromItsNode,
            Some(pod) => cluster.side(Direction::Ingress, pod, flow),
        };
        (egress, ingress)
    };
    let name =
        |pod: &Pod| format!("{}/{}", namespace_of(pod), pod.metadata.name.as_deref().unwrap_or_default());
    Explanation {
        allowed: egress.allows() && ingress.allows(),
        client: client.map(name),
        server: server.map(name),
        egress,
        ingress,
    }
}

impl<'a> Cluster<'a> {
    /// The pod that has this address for itself. Finished pods have none any more; hostNetwork pods use their node's.
    fn pod_at(&self, address: IpAddr) -> Option<&'a Pod> {
        let holds = |pod: &&Pod| {
            let on_host = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
            let status = pod.status.as_ref();
            let phase = status.and_then(|s| s.phase.as_deref());
            let ips = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
            let mut all = ips.chain(status.and_then(|s| s.pod_ip.as_deref()));
            !on_host
                && phase != Some("Succeeded")
                && phase != Some("Failed")
                && all.any(|ip| ip.parse() == Ok(address))
        };
        // For a moment two may hold it: the younger runs.
        self.pods.iter().filter(holds).max_by_key(|pod| {
            let created =
                pod.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
            (created, pod.metadata.uid.clone())
        })
    }

    fn side(&self, direction: Direction, subject: &Pod, flow: &Flow) -> Side {
        let peer = match direction {
            Direction::Egress => flow.server,
            Direction::Ingress => flow.client,
        };
        if let Some(decided) = self.tier("Admin", direction, subject, peer, flow) {
            return decided;
        }
        let mut isolated_by = Vec::new();
        let mut by = Vec::new();
        for policy in self.policies {
            let name =
                format!("{}/{}", in_namespace(policy), policy.metadata.name.as_deref().unwrap_or_default());
            let Some(spec) = &policy.spec else { continue };
            let selected = in_namespace(policy) == namespace_of(subject)
                && selects(
                    spec.pod_selector.as_ref().unwrap_or(&LabelSelector::default()),
                    labels_of(subject),
                );
            if !selected || !isolates(policy, direction) {
                continue;
            }
            isolated_by.push(name.clone());
            let rules: Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> = match direction {
                Direction::Ingress => spec
                    .ingress
                    .iter()
                    .flatten()
                    .map(|r| (r.from.as_deref().unwrap_or_default(), r.ports.as_deref().unwrap_or_default()))
                    .collect(),
                Direction::Egress => spec
                    .egress
                    .iter()
                    .flatten()
                    .map(|r| (r.to.as_deref().unwrap_or_default(), r.ports.as_deref().unwrap_or_default()))
                    .collect(),
            };
            for (rule, (peers, ports)) in rules.into_iter().enumerate() {
                let which_peer = first(peers, |p| self.peer_matches(p, in_namespace(policy), peer));
                let which_port = first(ports, |p| self.port_matches(p, flow));
                if let (Some(peer), Some(port)) = (which_peer, which_port) {
                    by.push(RuleRef { policy: name.clone(), rule, peer, port });
                }
            }
        }
        match (isolated_by.is_empty(), by.is_empty()) {
            (true, _) => self.tier("Baseline", direction, subject, peer, flow).unwrap_or(Side::NotIsolated),
            (false, false) => Side::Allowed { isolated_by, by },
            (false, true) => Side::Denied { isolated_by },
        }
    }

    /// What the ClusterNetworkPolicies of a tier say; None: nothing, so the next tier is asked.
    fn tier(
        &self,
        tier: &str,
        direction: Direction,
        subject: &Pod,
        peer: IpAddr,
        flow: &Flow,
    ) -> Option<Side> {
        let mut policies: Vec<&ClusterNetworkPolicy> =
            self.cluster_policies.iter().filter(|p| p.spec.tier == tier).collect();
        policies.sort_by_key(|p| (p.spec.priority, p.metadata.name.clone()));
        for policy in policies {
            let spec = &policy.spec;
            let selected = match (&spec.subject.namespaces, &spec.subject.pods) {
                (Some(namespaces), _) => self.namespace_has(subject, namespaces),
                (None, Some(pods)) => self.is_among(subject, pods),
                (None, None) => true,
            };
            if !selected {
                continue;
            }
            let rules = match direction {
                Direction::Ingress => &spec.ingress,
                Direction::Egress => &spec.egress,
            };
            for (index, rule) in rules.iter().enumerate() {
                let peer_matches = rule.peers(direction).iter().any(|p| self.cluster_peer_matches(p, peer));
                let port_matches = match &rule.protocols {
                    None => true,
                    Some(protocols) => protocols.iter().any(|p| self.protocol_matches(p, flow)),
                };
                if !peer_matches || !port_matches {
                    continue;
                }
                let policy = policy.metadata.name.clone().unwrap_or_default();
                return match rule.action.as_str() {
                    "Pass" => None,
                    action => Some(Side::Tier { policy, rule: index, accepts: action == "Accept" }),
                };
            }
        }
        None
    }

    fn namespace_has(&self, pod: &Pod, selector: &LabelSelector) -> bool {
        let none = BTreeMap::new();
        let namespace =
            self.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(namespace_of(pod)));
        namespace.is_some_and(|n| selects(selector, n.metadata.labels.as_ref().unwrap_or(&none)))
    }

    fn is_among(&self, pod: &Pod, pods: &NamespacedPod) -> bool {
        self.namespace_has(pod, &pods.namespace_selector) && selects(&pods.pod_selector, labels_of(pod))
    }

    fn cluster_peer_matches(&self, peer: &ApiPeer, address: IpAddr) -> bool {
        let pod = self.pod_at(address);
        let none = BTreeMap::new();
        let node_matches = |selector: &LabelSelector| {
            self.nodes.iter().any(|node| {
                let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
                let mut addresses = addresses.map(|a| a.address.parse::<IpAddr>());
                selects(selector, node.metadata.labels.as_ref().unwrap_or(&none))
                    && addresses.any(|a| a == Ok(address))
            })
        };
        peer.namespaces.as_ref().is_some_and(|s| pod.is_some_and(|pod| self.namespace_has(pod, s)))
            || peer.pods.as_ref().is_some_and(|s| pod.is_some_and(|pod| self.is_among(pod, s)))
            || peer.nodes.as_ref().is_some_and(node_matches)
            || peer
                .networks
                .iter()
                .flatten()
                .any(|cidr| in_block(&IPBlock { cidr: cidr.clone(), except: None }, address))
    }

    fn protocol_matches(&self, asked: &ApiProtocol, flow: &Flow) -> bool {
        let Layer4::Port(protocol, number) = flow.layer4 else { return false };
        let in_ports = |ports: &Ports| match &ports.destination_port {
            None => true,
            Some(port) => {
                port.number == Some(i32::from(number))
                    || port.range.as_ref().is_some_and(|r| (r.start..=r.end).contains(&i32::from(number)))
            }
        };
        let ports = match protocol {
            Protocol::Tcp => &asked.tcp,
            Protocol::Udp => &asked.udp,
            Protocol::Sctp => &asked.sctp,
        };
        ports.as_ref().is_some_and(in_ports)
            || asked
                .destination_named_port
                .as_ref()
                .is_some_and(|name| self.is_named(name, protocol.name(), number, flow))
    }

    /// Whether the server's containers call that port so; the first container that uses the name wins.
    fn is_named(&self, name: &str, protocol: &str, number: u16, flow: &Flow) -> bool {
        let Some(spec) = self.pod_at(flow.server).and_then(|pod| pod.spec.as_ref()) else { return false };
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
        let found = ports
            .find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
        found.is_some_and(|p| p.container_port == i32::from(number))
    }

    fn peer_matches(&self, peer: &NetworkPolicyPeer, policy_namespace: &str, address: IpAddr) -> bool {
        if let Some(block) = &peer.ip_block {
            return in_block(block, address);
        }
        let Some(pod) = self.pod_at(address) else { return false };
        let namespace_matches = match &peer.namespace_selector {
            None => namespace_of(pod) == policy_namespace,
            Some(selector) => self.namespace_has(pod, selector),
        };
        let pod_matches = match (&peer.pod_selector, &peer.namespace_selector) {
            (None, None) => false,
            (None, Some(_)) => true,
            (Some(selector), _) => selects(selector, labels_of(pod)),
        };
        namespace_matches && pod_matches
    }

    fn port_matches(&self, port: &NetworkPolicyPort, flow: &Flow) -> bool {
        let Layer4::Port(protocol, number) = flow.layer4 else { return false };
        let asked = port.protocol.as_deref().unwrap_or("TCP");
        if asked != protocol.name() {
            return false;
        }
        match &port.port {
            None => true,
            Some(IntOrString::Int(first)) => {
                (*first..=port.end_port.unwrap_or(*first)).contains(&i32::from(number))
            }
            Some(IntOrString::String(name)) => self.is_named(name, asked, number, flow),
        }
    }
}

/// `Some(None)`: the list is empty, which means anything. `Some(Some(i))`: entry i matches. None: none does.
fn first<T>(list: &[T], matches: impl Fn(&T) -> bool) -> Option<Option<usize>> {
    if list.is_empty() { Some(None) } else { list.iter().position(matches).map(Some) }
}

fn isolates(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    match (spec.policy_types.as_deref().unwrap_or_default(), direction) {
        ([], Direction::Ingress) => true,
        ([], Direction::Egress) => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        (types, Direction::Ingress) => types.iter().any(|t| t == "Ingress"),
        (types, Direction::Egress) => types.iter().any(|t| t == "Egress"),
    }
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let all_equal = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let all_expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let among = |v: &String| expression.values.iter().flatten().any(|w| w == v);
        match expression.operator.as_str() {
            "In" => value.is_some_and(among),
            "NotIn" => !value.is_some_and(among),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    all_equal && all_expressions
}

fn in_block(block: &IPBlock, address: IpAddr) -> bool {
    let inside = |text: &str| {
        let Some((network, prefix)) = text.split_once('/') else { return false };
        let (Ok(network), Ok(prefix)) = (network.parse::<IpAddr>(), prefix.parse::<usize>()) else {
            return false;
        };
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().iter().map(|b| format!("{b:08b}")).collect::<String>(),
            IpAddr::V6(v6) => v6.octets().iter().map(|b| format!("{b:08b}")).collect::<String>(),
        };
        let (network, address) = (bits(network), bits(address));
        network.len() == address.len() && network.get(..prefix) == address.get(..prefix)
    };
    inside(&block.cidr) && !block.except.iter().flatten().any(|except| inside(except))
}

fn is_node_of(pod: &Pod, address: IpAddr) -> bool {
    let status = pod.status.as_ref();
    let primary = status.and_then(|s| s.host_ip.as_deref());
    let all = status.and_then(|s| s.host_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    primary.into_iter().chain(all).any(|ip| ip.parse() == Ok(address))
}

fn namespace_of(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn in_namespace(policy: &NetworkPolicy) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or_default()
}

fn labels_of(pod: &Pod) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}
