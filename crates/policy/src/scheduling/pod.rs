//! A pod as the scheduler sees it, parsed once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::resources;
use crate::selector::{Labels, Requirement, Selector};

/// Resource name → amount: thousandths of a core for `cpu`, whole units for all else.
pub type Amounts = BTreeMap<String, i64>;

/// A port on the node. No address means all of them (0.0.0.0 and ::).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub protocol: String,
    pub address: Option<IpAddr>,
    pub port: u16,
}

impl HostPort {
    /// As `HostPortInfo.CheckConflict` of kube-scheduler: same protocol and port, and the same address or one of them
    /// is all addresses.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInfo {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    /// Its node once it is bound.
    pub node: Option<String>,
    pub requests: Amounts,
    pub ports: BTreeSet<HostPort>,
    /// The uid of its controller.
    pub owner: Option<String>,
    pub priority: i32,
    pub never_preempts: bool,
    pub terminating: bool,
    /// Something it asks for that no node here can give, in words.
    pub refused: Option<String>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) node_selector: Selector,
    /// None: any node. Otherwise one of them must match.
    pub(super) required_nodes: Option<Vec<NodeTerm>>,
    pub(super) preferred_nodes: Vec<(i64, NodeTerm)>,
    pub(super) affinity: Vec<PodTerm>,
    pub(super) anti_affinity: Vec<PodTerm>,
    /// Negative weights for anti-affinity.
    pub(super) preferred_pods: Vec<(i64, PodTerm)>,
    pub(super) spread: Vec<Spread>,
}

/// One `nodeSelectorTerm`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NodeTerm {
    labels: Selector,
    /// On a map with the one key `metadata.name`.
    fields: Selector,
    /// A term without any expression matches no node.
    nothing: bool,
}

impl NodeTerm {
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        let fields = Labels::from([("metadata.name".to_string(), name.to_string())]);
        !self.nothing && self.labels.matches(labels) && self.fields.matches(&fields)
    }
}

/// One term of pod (anti-)affinity.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodTerm {
    pub topology_key: String,
    /// None: no pod at all.
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<Selector>,
}

impl PodTerm {
    /// `labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &PodInfo, labels: Option<&Labels>) -> bool {
        let inside = self.namespaces.contains(&pod.namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|s| labels.is_some_and(|labels| s.matches(labels)));
        inside && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

/// One topology spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    pub topology_key: String,
    pub max_skew: i64,
    pub min_domains: usize,
    /// DoNotSchedule; else it is a preference.
    pub required: bool,
    pub honours_node_affinity: bool,
    pub honours_taints: bool,
    selector: Option<Selector>,
}

impl Spread {
    pub fn counts(&self, namespace: &str, pod: &PodInfo) -> bool {
        pod.namespace == namespace
            && !pod.terminating
            && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

impl PodInfo {
    /// Reads a pod. A finished pod needs nothing any more: do not add it to a cluster.
    pub fn from_api(pod: &Pod) -> PodInfo {
        let meta = &pod.metadata;
        let mut info = PodInfo {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            terminating: meta.deletion_timestamp.is_some(),
            owner: meta
                .owner_references
                .iter()
                .flatten()
                .find(|o| o.controller == Some(true))
                .map(|o| o.uid.clone()),
            ..PodInfo::default()
        };
        if let Some(spec) = &pod.spec {
            info.read_spec(spec);
        }
        info
    }

    fn read_spec(&mut self, spec: &PodSpec) {
        self.node = spec.node_name.clone().filter(|name| !name.is_empty());
        self.priority = spec.priority.unwrap_or(0);
        self.never_preempts = spec.preemption_policy.as_deref() == Some("Never");
        self.requests = requests_of(spec);
        self.ports = ports_of(spec);
        self.tolerations = spec.tolerations.clone().unwrap_or_default();
        self.node_selector = spec.node_selector.as_ref().map(Selector::equal).unwrap_or_default();
        self.refused = refused(spec, &self.name);
        let constraints = spec.topology_spread_constraints.iter().flatten();
        self.spread = constraints.map(|constraint| self.spread_of(constraint)).collect();
        if let Some(affinity) = &spec.affinity {
            self.read_affinity(affinity);
        }
    }

    fn read_affinity(&mut self, affinity: &Affinity) {
        if let Some(node) = &affinity.node_affinity {
            self.required_nodes = node
                .required_during_scheduling_ignored_during_execution
                .as_ref()
                .map(|s| s.node_selector_terms.iter().map(|t| self.node_term(t)).collect());
            let preferred = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let preferred = preferred.map(|p| (i64::from(p.weight), self.node_term(&p.preference)));
            self.preferred_nodes = preferred.collect();
        }
        if let Some(pods) = &affinity.pod_affinity {
            let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
            self.affinity = required.map(|term| self.pod_term(term)).collect();
            for preferred in pods.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let term = self.pod_term(&preferred.pod_affinity_term);
                self.preferred_pods.push((i64::from(preferred.weight), term));
            }
        }
        if let Some(pods) = &affinity.pod_anti_affinity {
            let required = pods.required_during_scheduling_ignored_during_execution.iter().flatten();
            self.anti_affinity = required.map(|term| self.pod_term(term)).collect();
            for preferred in pods.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                let term = self.pod_term(&preferred.pod_affinity_term);
                self.preferred_pods.push((-i64::from(preferred.weight), term));
            }
        }
    }

    fn node_term(&self, term: &NodeSelectorTerm) -> NodeTerm {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let mut parsed =
            NodeTerm { nothing: expressions.is_empty() && fields.is_empty(), ..NodeTerm::default() };
        for (list, selector) in [(expressions, &mut parsed.labels), (fields, &mut parsed.fields)] {
            for e in list {
                match Requirement::parse(&e.key, &e.operator, e.values.as_deref().unwrap_or_default()) {
                    Ok(requirement) => *selector = std::mem::take(selector).and(requirement),
                    // The API server lets no such term in; if one comes, it matches nothing.
                    Err(_) => parsed.nothing = true,
                }
            }
        }
        parsed
    }

    fn pod_term(&self, term: &PodAffinityTerm) -> PodTerm {
        let mut selector = term.label_selector.as_ref().and_then(|s| Selector::parse(s).ok());
        let keys = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        for (list, matching) in
            [(keys(&term.match_label_keys), true), (keys(&term.mismatch_label_keys), false)]
        {
            for key in list {
                let Some(value) = self.labels.get(&key) else { continue };
                let values = BTreeSet::from([value.clone()]);
                let requirement =
                    if matching { Requirement::In(key, values) } else { Requirement::NotIn(key, values) };
                selector = selector.map(|s| s.and(requirement));
            }
        }
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(self.namespace.clone());
        }
        PodTerm {
            topology_key: term.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().and_then(|s| Selector::parse(s).ok()),
        }
    }

    fn spread_of(&self, constraint: &TopologySpreadConstraint) -> Spread {
        let parse = |s: &LabelSelector| Selector::parse(s).ok();
        let mut selector = constraint.label_selector.as_ref().and_then(parse);
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = self.labels.get(key) {
                let requirement = Requirement::In(key.clone(), BTreeSet::from([value.clone()]));
                selector = selector.map(|s| s.and(requirement));
            }
        }
        Spread {
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            required: constraint.when_unsatisfiable == "DoNotSchedule",
            honours_node_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honours_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            selector,
        }
    }

    /// As `ToleratesTaint`: an empty key with Exists tolerates all, an empty effect every effect.
    pub(super) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations.iter().any(|t| {
            let effect_matches = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == effect);
            let asked = t.key.as_deref().unwrap_or_default();
            let key_matches = asked.is_empty() || asked == key;
            let number = |text: &str| text.parse::<i64>().ok();
            let asked_value = t.value.as_deref().unwrap_or_default();
            let value_matches = match t.operator.as_deref().unwrap_or("Equal") {
                "Exists" => true,
                "Equal" | "" => !asked.is_empty() && asked_value == value,
                "Lt" => number(value).zip(number(asked_value)).is_some_and(|(has, than)| has < than),
                "Gt" => number(value).zip(number(asked_value)).is_some_and(|(has, than)| has > than),
                _ => false,
            };
            effect_matches && key_matches && value_matches
        })
    }
}

/// What the pod asks of a node: its containers together, or its largest init container with the sidecars before it,
/// whichever is more, and the overhead (KEP-753). Pod level requests win where they are set (KEP-2837).
fn requests_of(spec: &PodSpec) -> Amounts {
    let mut total = Amounts::new();
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &container_requests(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let mut own = container_requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut peak, &own);
    }
    raise(&mut total, &peak);
    if let Some(pod_level) = &spec.resources {
        let container = Container { resources: Some(pod_level.clone()), ..Container::default() };
        total.extend(container_requests(&container));
    }
    for name in spec.overhead.iter().flat_map(|overhead| overhead.keys()) {
        let amount = amount(name, resources::quantity(spec.overhead.as_ref(), name));
        *total.entry(name.clone()).or_default() += amount;
    }
    total
}

fn container_requests(container: &Container) -> Amounts {
    let Some(of) = &container.resources else { return Amounts::new() };
    let names = of.requests.iter().chain(of.limits.iter()).flat_map(|list| list.keys());
    names.map(|name| (name.clone(), amount(name, resources::request(container, name)))).collect()
}

pub(super) fn amount(name: &str, quantity: resources::Quantity) -> i64 {
    if name == "cpu" { quantity.milli_value() } else { quantity.value() }
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(total: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let most = total.entry(name.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

/// Containers and sidecars; other init containers bind no host port the scheduler reserves (`GetHostPorts`).
fn ports_of(spec: &PodSpec) -> BTreeSet<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = u16::try_from(port.host_port?).ok().filter(|number| *number > 0)?;
            let address = port.host_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_string()),
                address: address.filter(|address| !address.is_unspecified()),
                port: number,
            })
        })
        .collect()
}

/// What no node here has: there are no persistent volumes and no devices to claim.
fn refused(spec: &PodSpec, pod: &str) -> Option<String> {
    for volume in spec.volumes.iter().flatten() {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(format!("persistentvolumeclaim \"{}\" not found", claim.claim_name));
        }
        if volume.ephemeral.is_some() {
            let claim = format!("{pod}-{}", volume.name);
            return Some(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{claim}\""
            ));
        }
    }
    let claims = spec.resource_claims.as_deref().unwrap_or_default();
    claims.first().map(|claim| format!("resourceclaim \"{}\" not found", claim.name))
}
