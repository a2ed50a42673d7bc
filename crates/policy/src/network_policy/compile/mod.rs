//! Compiles policies into a node's rule set, one change at a time. The compiler keeps what it needs to know which sets,
//! chains and verdicts an event touches: a pod that joins costs its own memberships, a policy that changes costs the
//! pods it selects. After any history the rule set equals that of a compiler which was told the outcome at once.

mod chains;
mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use chains::Plan;

use super::cluster_policy::{ClusterPolicy, NodeRecord};
use super::interest::{Id, Interest};
use super::ir::{Chain, ChainName, Change, Direction, Element, Family, RuleSet, Set, SetName, SetType, Tier};
use super::model::{Namespaces, PodRecord, Policy};
use super::sets::SetKey;
use crate::selector::Labels;

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub enum Event {
    UpsertPod(PodRecord),
    /// By uid: a pod of the same name may be there already.
    RemovePod(String),
    UpsertNamespace(String, Labels),
    RemoveNamespace(String),
    UpsertPolicy(Policy),
    RemovePolicy {
        namespace: String,
        name: String,
    },
    UpsertClusterPolicy(ClusterPolicy),
    RemoveClusterPolicy(String),
    UpsertNode(NodeRecord),
    RemoveNode(String),
}

#[derive(Debug)]
struct SetState {
    key: SetKey,
    /// Chains whose rules look it up.
    users: usize,
    /// How many pods bring each element: two, for a moment, while an address goes from one to the next.
    members: BTreeMap<Element, usize>,
}

#[derive(Debug)]
struct ChainState {
    plan: Plan,
    /// Local pods that are sent here, and chains that lead here.
    users: usize,
    chain: Arc<Chain>,
    sets: BTreeSet<SetName>,
}

#[derive(Debug)]
struct PodState {
    record: PodRecord,
    memberships: BTreeSet<(SetName, Element)>,
    /// Names of the policies of its namespace that select it; only kept for local pods.
    selected_by: BTreeSet<String>,
    /// Names of the ClusterNetworkPolicies that select it; only kept for local pods.
    selected_by_cluster: BTreeSet<String>,
    egress: Option<ChainName>,
    ingress: Option<ChainName>,
}

/// What was there before the events of one call, for everything they touched.
#[derive(Debug, Default)]
struct Touched {
    sets: BTreeMap<SetName, Option<SetType>>,
    elements: BTreeMap<SetName, BTreeMap<Element, bool>>,
    chains: BTreeMap<ChainName, Option<Arc<Chain>>>,
    verdicts: BTreeMap<(Direction, IpAddr), Option<ChainName>>,
}

/// The state behind one node's rule set. Feed it every pod of the cluster (those of the node with `local`), every
/// namespace, node and policy.
#[derive(Debug)]
pub struct Compiler {
    families: Vec<Family>,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<String, PodState>,
    pods_by_namespace: BTreeMap<String, BTreeSet<String>>,
    policies: BTreeMap<String, BTreeMap<String, Policy>>,
    interest: Interest,
    cluster_policies: BTreeMap<String, ClusterPolicy>,
    nodes: BTreeMap<String, NodeRecord>,
    sets: BTreeMap<SetName, SetState>,
    chains: BTreeMap<ChainName, ChainState>,
    /// Who claims an address, oldest first: (created, uid). Only the youngest has it: when an address is given out
    /// again, its old pod may still be in the API for a moment, and its labels must not count for the new one.
    claims: BTreeMap<IpAddr, BTreeSet<(String, String)>>,
    egress: BTreeMap<IpAddr, ChainName>,
    ingress: BTreeMap<IpAddr, ChainName>,
    touched: Touched,
}

impl Compiler {
    /// `families`: those the cluster's pods have. A block of another family makes no rule, and stops nothing else.
    pub fn new(families: &[Family]) -> Compiler {
        Compiler {
            families: families.to_vec(),
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            pods_by_namespace: BTreeMap::new(),
            policies: BTreeMap::new(),
            interest: Interest::default(),
            cluster_policies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
            claims: BTreeMap::new(),
            egress: BTreeMap::new(),
            ingress: BTreeMap::new(),
            touched: Touched::default(),
        }
    }

    /// Takes any number of events; gives the steps of one transaction, in the order of [`super::ir::diff`].
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Change> {
        // Only the last event of each object counts, so kinds may change places. In this order a first batch compiles
        // each chain once, when its first pod comes.
        let mut events: Vec<Event> = events.into_iter().collect();
        events.sort_by_key(|event| match event {
            Event::UpsertNamespace(..) | Event::RemoveNamespace(_) => 0,
            Event::UpsertNode(_) | Event::RemoveNode(_) => 0,
            Event::UpsertPolicy(_) | Event::RemovePolicy { .. } => 1,
            Event::UpsertClusterPolicy(_) | Event::RemoveClusterPolicy(_) => 1,
            Event::UpsertPod(_) | Event::RemovePod(_) => 2,
        });
        for event in events {
            match event {
                Event::UpsertPod(pod) => self.put_pod(pod),
                Event::RemovePod(uid) => self.drop_pod(&uid),
                Event::UpsertNamespace(name, labels) => self.put_namespace(name, Some(labels)),
                Event::RemoveNamespace(name) => self.put_namespace(name, None),
                Event::UpsertPolicy(policy) => {
                    let (namespace, name) = (policy.namespace.clone(), policy.name.clone());
                    self.put_policy(namespace, name, Some(policy));
                }
                Event::RemovePolicy { namespace, name } => self.put_policy(namespace, name, None),
                Event::UpsertClusterPolicy(policy) => {
                    self.put_cluster_policy(policy.name.clone(), Some(policy));
                }
                Event::RemoveClusterPolicy(name) => self.put_cluster_policy(name, None),
                Event::UpsertNode(node) => self.put_node(node.name.clone(), Some(node)),
                Event::RemoveNode(name) => self.put_node(name, None),
            }
        }
        self.changes()
    }

    pub fn upsert_pod(&mut self, pod: PodRecord) -> Vec<Change> {
        self.apply([Event::UpsertPod(pod)])
    }

    pub fn remove_pod(&mut self, uid: &str) -> Vec<Change> {
        self.apply([Event::RemovePod(uid.to_string())])
    }

    pub fn upsert_namespace(&mut self, name: &str, labels: Labels) -> Vec<Change> {
        self.apply([Event::UpsertNamespace(name.to_string(), labels)])
    }

    pub fn remove_namespace(&mut self, name: &str) -> Vec<Change> {
        self.apply([Event::RemoveNamespace(name.to_string())])
    }

    pub fn upsert_policy(&mut self, policy: Policy) -> Vec<Change> {
        self.apply([Event::UpsertPolicy(policy)])
    }

    pub fn remove_policy(&mut self, namespace: &str, name: &str) -> Vec<Change> {
        self.apply([Event::RemovePolicy { namespace: namespace.to_string(), name: name.to_string() }])
    }

    /// The whole rule set as it stands.
    pub fn rule_set(&self) -> RuleSet {
        RuleSet {
            sets: self.sets.iter().map(|(name, state)| (name.clone(), state.to_set())).collect(),
            chains: self.chains.iter().map(|(name, state)| (name.clone(), (*state.chain).clone())).collect(),
            egress: self.egress.clone(),
            ingress: self.ingress.clone(),
        }
    }

    /// The policies behind a chain, for people who read the rule set: namespace (empty for ClusterNetworkPolicies) and
    /// names.
    pub fn policies_of(&self, chain: &ChainName) -> Option<(&str, &[String])> {
        let plan = self.chains.get(chain).map(|state| &state.plan)?;
        Some((plan.namespace.as_str(), plan.policies.as_slice()))
    }

    /// The uid of a pod that is known, with its record.
    pub fn pod(&self, uid: &str) -> Option<&PodRecord> {
        self.pods.get(uid).map(|pod| &pod.record)
    }

    /// The pods that are selected by a policy which means `pod` as a peer, or by the name of one of its ports; some of
    /// them more than once. The nodes they are on must know its address before it is used.
    pub fn interested_in(&self, pod: &PodRecord) -> impl Iterator<Item = &PodRecord> {
        let policies = self.interest.in_pod(pod, self.namespaces.get(&pod.namespace));
        policies.into_iter().flat_map(|id| -> Vec<&PodRecord> {
            match id {
                Id::NetworkPolicy { namespace, name } => {
                    let policy = self.policies.get(namespace).and_then(|policies| policies.get(name));
                    let uids = self.pods_by_namespace.get(namespace).into_iter().flatten();
                    let records = uids.filter_map(|uid| self.pods.get(uid)).map(|pod| &pod.record);
                    let selects = |pod: &&PodRecord| policy.is_some_and(|p| p.subject.matches(&pod.labels));
                    records.filter(selects).collect()
                }
                Id::ClusterNetworkPolicy(name) => {
                    let policy = self.cluster_policies.get(name);
                    let records = self.pods.values().map(|pod| &pod.record);
                    let selects = |pod: &&PodRecord| {
                        let labels = self.namespaces.get(&pod.namespace);
                        policy.is_some_and(|policy| policy.selects(labels, &pod.labels))
                    };
                    records.filter(selects).collect()
                }
            }
        })
    }

    // Pods

    fn put_pod(&mut self, record: PodRecord) {
        let uid = record.uid.clone();
        if self.pods.get(&uid).is_some_and(|pod| pod.record == record) {
            return;
        }
        // The old chains are let go only when the new ones are held, or sets that stay would be built again.
        let old = self.take_pod(&uid);
        let selected_by = match record.local {
            true => self
                .policies
                .get(&record.namespace)
                .into_iter()
                .flatten()
                .filter(|(_, policy)| policy.subject.matches(&record.labels))
                .map(|(name, _)| name.clone())
                .collect(),
            false => BTreeSet::new(),
        };
        let selected_by_cluster = self.cluster_policies_of(&record);
        for address in &record.addresses {
            self.claims.entry(*address).or_default().insert((record.created.clone(), uid.clone()));
        }
        self.pods_by_namespace.entry(record.namespace.clone()).or_default().insert(uid.clone());
        let addresses = record.addresses.clone();
        let memberships = BTreeSet::new();
        let state =
            PodState { record, memberships, selected_by, selected_by_cluster, egress: None, ingress: None };
        self.pods.insert(uid.clone(), state);
        self.refresh_memberships(&uid);
        self.refresh_claimants(&addresses, &uid);
        self.refresh_chains(&uid);
        if let Some(old) = old {
            self.let_go(&old);
        }
        self.refresh_verdicts(&addresses);
    }

    fn drop_pod(&mut self, uid: &str) {
        if let Some(old) = self.take_pod(uid) {
            self.let_go(&old);
        }
    }

    /// Takes a pod out of everything but its chains.
    fn take_pod(&mut self, uid: &str) -> Option<PodState> {
        let old = self.pods.remove(uid)?;
        for (set, element) in &old.memberships {
            self.count_element(set, *element, false);
        }
        if let Some(uids) = self.pods_by_namespace.get_mut(&old.record.namespace) {
            uids.remove(uid);
            if uids.is_empty() {
                self.pods_by_namespace.remove(&old.record.namespace);
            }
        }
        let claim = (old.record.created.clone(), uid.to_string());
        for address in &old.record.addresses {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(&claim);
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        Some(old)
    }

    fn let_go(&mut self, old: &PodState) {
        self.refresh_claimants(&old.record.addresses, &old.record.uid);
        self.refresh_verdicts(&old.record.addresses);
        for chain in [&old.egress, &old.ingress].into_iter().flatten() {
            self.release_chain(chain);
        }
    }

    /// Pods other than `but` that claim one of these addresses: which of them has it may have changed.
    fn refresh_claimants(&mut self, addresses: &[IpAddr], but: &str) {
        let claims = addresses.iter().filter_map(|address| self.claims.get(address)).flatten();
        let others: BTreeSet<String> = claims.map(|(_, uid)| uid.clone()).filter(|uid| uid != but).collect();
        for uid in others {
            self.refresh_memberships(&uid);
        }
    }

    fn has_address(&self, uid: &str, element: &Element) -> bool {
        let (Element::Address(address) | Element::Port(address, _)) = element else { return false };
        let youngest = self.claims.get(address).and_then(|claims| claims.last());
        youngest.is_some_and(|(_, holder)| holder == uid)
    }

    fn refresh_memberships(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid) else { return };
        let labels = self.namespaces.get(&pod.record.namespace);
        let memberships: BTreeSet<(SetName, Element)> = self
            .sets
            .iter()
            .flat_map(|(name, set)| set.key.elements_of(&pod.record, labels).map(move |e| (name.clone(), e)))
            .filter(|(_, element)| self.has_address(uid, element))
            .collect();
        let before = pod.memberships.clone();
        for (set, element) in memberships.difference(&before) {
            self.count_element(set, *element, true);
        }
        for (set, element) in before.difference(&memberships) {
            self.count_element(set, *element, false);
        }
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.memberships = memberships;
        }
    }

    fn refresh_verdicts(&mut self, addresses: &[IpAddr]) {
        for address in addresses.iter().filter(|a| self.families.contains(&Family::of(a))) {
            // The youngest pod that claims the address is the one that has it.
            let holder = self.claims.get(address).and_then(|claims| claims.last());
            let holder = holder.and_then(|(_, uid)| self.pods.get(uid));
            for direction in Direction::ALL {
                let chain = holder.and_then(|pod| pod.chain(direction).clone());
                let map = match direction {
                    Direction::Egress => &mut self.egress,
                    Direction::Ingress => &mut self.ingress,
                };
                let before = match &chain {
                    Some(chain) => map.insert(*address, chain.clone()),
                    None => map.remove(address),
                };
                if before != chain {
                    self.touched.verdicts.entry((direction, *address)).or_insert(before);
                }
            }
        }
    }

    // Namespaces

    fn put_namespace(&mut self, name: String, labels: Option<Labels>) {
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.clone(), labels),
            None => self.namespaces.remove(&name),
        };
        for uid in self.pods_by_namespace.get(&name).cloned().unwrap_or_default() {
            self.refresh_memberships(&uid);
            let Some(pod) = self.pods.get(&uid) else { continue };
            let selected_by = self.cluster_policies_of(&pod.record);
            if pod.selected_by_cluster == selected_by {
                continue;
            }
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.selected_by_cluster = selected_by;
            }
            self.refresh_chains(&uid);
        }
    }

    // Nodes

    fn put_node(&mut self, name: String, node: Option<NodeRecord>) {
        let before = self.nodes.get(&name).cloned();
        if before == node {
            return;
        }
        let sets: Vec<SetName> = self.sets.keys().cloned().collect();
        for set in sets {
            let Some(state) = self.sets.get(&set) else { continue };
            let of = |node: &Option<NodeRecord>| -> Vec<Element> {
                node.iter().flat_map(|node| state.key.elements_of_node(node)).collect()
            };
            let (come, gone) = (of(&node), of(&before));
            come.into_iter().for_each(|element| self.count_element(&set, element, true));
            gone.into_iter().for_each(|element| self.count_element(&set, element, false));
        }
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
    }

    // Policies

    fn put_cluster_policy(&mut self, name: String, policy: Option<ClusterPolicy>) {
        if self.cluster_policies.get(&name) == policy.as_ref() {
            return;
        }
        let rules = policy.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
        let rules = rules.filter_map(|rule| rule.matches.as_ref());
        self.interest.put(Id::ClusterNetworkPolicy(name.clone()), rules, &self.families);
        let replaces = match policy {
            Some(policy) => self.cluster_policies.insert(name.clone(), policy),
            None => self.cluster_policies.remove(&name),
        };
        // As below; a chain whose order changes is another one.
        if replaces.is_some() {
            let chains = self.chains.iter();
            let chains = chains.filter(|(_, chain)| {
                chain.plan.tier != Tier::NetworkPolicy && chain.plan.policies.contains(&name)
            });
            for chain in chains.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.recompile(&chain);
            }
        }
        let local: Vec<String> =
            self.pods.iter().filter(|(_, pod)| pod.record.local).map(|(uid, _)| uid.clone()).collect();
        for uid in local {
            let Some(pod) = self.pods.get(&uid) else { continue };
            let was = pod.selected_by_cluster.contains(&name);
            let labels = self.namespaces.get(&pod.record.namespace);
            let now = self.cluster_policies.get(&name);
            let is = now.is_some_and(|policy| policy.selects(labels, &pod.record.labels));
            if let Some(pod) = self.pods.get_mut(&uid) {
                match is {
                    true => pod.selected_by_cluster.insert(name.clone()),
                    false => pod.selected_by_cluster.remove(&name),
                };
            }
            if was || is {
                self.refresh_chains(&uid);
            }
        }
    }

    fn put_policy(&mut self, namespace: String, name: String, policy: Option<Policy>) {
        let known = self.policies.entry(namespace.clone()).or_default();
        if known.get(&name) == policy.as_ref() {
            if known.is_empty() {
                self.policies.remove(&namespace);
            }
            return;
        }
        let id = Id::NetworkPolicy { namespace: namespace.clone(), name: name.clone() };
        let rules = policy.iter().flat_map(|policy| {
            Direction::ALL.into_iter().flat_map(|direction| policy.rules(direction).unwrap_or_default())
        });
        self.interest.put(id, rules, &self.families);
        let subject = policy.as_ref().map(|policy| policy.subject.clone());
        match policy {
            Some(policy) => known.insert(name.clone(), policy),
            None => known.remove(&name),
        };
        if known.is_empty() {
            self.policies.remove(&namespace);
        }
        // Chains that have this policy and go on having it: new rules, same verdicts. A chain in which it no longer
        // belongs loses all its pods below, and goes.
        let chains: Vec<ChainName> = self
            .chains
            .iter()
            .filter(|(_, ChainState { plan, .. })| {
                plan.tier == Tier::NetworkPolicy
                    && plan.namespace == namespace
                    && plan.policies.contains(&name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for chain in chains {
            self.recompile(&chain);
        }
        for uid in self.pods_by_namespace.get(&namespace).cloned().unwrap_or_default() {
            let Some(pod) = self.pods.get_mut(&uid).filter(|pod| pod.record.local) else { continue };
            let was = pod.selected_by.contains(&name);
            let is = subject.as_ref().is_some_and(|subject| subject.matches(&pod.record.labels));
            match is {
                true => pod.selected_by.insert(name.clone()),
                false => pod.selected_by.remove(&name),
            };
            if was || is {
                self.refresh_chains(&uid);
            }
        }
    }

    // Sets

    fn acquire_set(&mut self, name: SetName, key: SetKey) {
        if let Some(state) = self.sets.get_mut(&name) {
            state.users += 1;
            return;
        }
        self.touched.sets.entry(name.clone()).or_insert(None);
        let mut elements: Vec<(Option<String>, Element)> = Vec::new();
        match &key {
            SetKey::Nodes { .. } => {
                let all = self.nodes.values().flat_map(|node| key.elements_of_node(node));
                elements.extend(all.map(|element| (None, element)));
            }
            SetKey::Cidrs { blocks, .. } => elements.extend(blocks.iter().map(|b| (None, Element::Cidr(*b)))),
            SetKey::Pods { namespaces: Namespaces::Named(namespace), .. } => {
                for uid in self.pods_by_namespace.get(namespace).into_iter().flatten() {
                    let Some(pod) = self.pods.get(uid) else { continue };
                    elements.extend(key.elements_of(&pod.record, None).map(|e| (Some(uid.clone()), e)));
                }
            }
            SetKey::Pods { .. } | SetKey::NamedPort { .. } => {
                for (uid, pod) in &self.pods {
                    let labels = self.namespaces.get(&pod.record.namespace);
                    elements.extend(key.elements_of(&pod.record, labels).map(|e| (Some(uid.clone()), e)));
                }
            }
        }
        elements.retain(|(uid, element)| uid.as_ref().is_none_or(|uid| self.has_address(uid, element)));
        self.sets.insert(name.clone(), SetState { key, users: 1, members: BTreeMap::new() });
        for (uid, element) in elements {
            self.count_element(&name, element, true);
            if let Some(pod) = uid.and_then(|uid| self.pods.get_mut(&uid)) {
                pod.memberships.insert((name.clone(), element));
            }
        }
    }

    fn release_set(&mut self, name: &SetName) {
        let Some(state) = self.sets.get_mut(name) else { return };
        state.users -= 1;
        if state.users > 0 {
            return;
        }
        if let Some(state) = self.sets.remove(name) {
            self.touched.sets.entry(name.clone()).or_insert(Some(state.key.set_type()));
            let touched = self.touched.elements.entry(name.clone()).or_default();
            for element in state.members.keys() {
                touched.entry(*element).or_insert(true);
            }
            for pod in self.pods.values_mut() {
                pod.memberships.retain(|(set, _)| set != name);
            }
        }
    }

    fn count_element(&mut self, name: &SetName, element: Element, more: bool) {
        let Some(set) = self.sets.get_mut(name) else { return };
        let count = set.members.entry(element).or_insert(0);
        let before = *count > 0;
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let after = *count > 0;
        if !after {
            set.members.remove(&element);
        }
        if before != after {
            self.touched.elements.entry(name.clone()).or_default().entry(element).or_insert(before);
        }
    }
}

impl PodState {
    fn chain(&self, direction: Direction) -> &Option<ChainName> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    fn chain_mut(&mut self, direction: Direction) -> &mut Option<ChainName> {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}

impl SetState {
    fn to_set(&self) -> Set {
        Set { of: self.key.set_type(), elements: self.members.keys().copied().collect() }
    }
}
