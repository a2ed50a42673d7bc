//! Which chains a pod is sent to, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{ChainState, Compiler, PodState};
use crate::network_policy::cluster_policy::ClusterPolicy;
use crate::network_policy::ir::{Action, Chain, ChainName, Direction, End, SetName, Tier};
use crate::network_policy::model::PodRecord;
use crate::network_policy::sets::{SetKey, chain_name, compile_rule, tier_chain_name};

/// Which policies a chain is made of, and which chain it leads to.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub name: ChainName,
    pub direction: Direction,
    pub tier: Tier,
    /// Of the NetworkPolicies; empty for the other tiers.
    pub namespace: String,
    /// In the order in which they are asked.
    pub policies: Vec<String>,
    pub next: Option<Box<Plan>>,
}

impl Compiler {
    /// Names of the ClusterNetworkPolicies that select a local pod.
    pub(super) fn cluster_policies_of(&self, record: &PodRecord) -> BTreeSet<String> {
        if !record.local {
            return BTreeSet::new();
        }
        let labels = self.namespaces.get(&record.namespace);
        let selecting = self.cluster_policies.values().filter(|p| p.selects(labels, &record.labels));
        selecting.map(|policy| policy.name.clone()).collect()
    }

    /// The chain a pod is sent to: the Admin tier's, which leads to the NetworkPolicies' or to the Baseline tier's.
    fn plan(&self, pod: &PodState, direction: Direction) -> Option<Plan> {
        if pod.record.addresses.is_empty() {
            return None;
        }
        let namespace = pod.record.namespace.clone();
        let known = self.policies.get(&namespace);
        let policies: Vec<String> = pod
            .selected_by
            .iter()
            .filter(|name| known.and_then(|k| k.get(*name)).is_some_and(|p| p.rules(direction).is_some()))
            .cloned()
            .collect();
        let tier = |tier: Tier, next: Option<Plan>| {
            let selecting = pod.selected_by_cluster.iter().filter_map(|name| self.cluster_policies.get(name));
            let mut selecting: Vec<&ClusterPolicy> =
                selecting.filter(|p| p.tier == tier && !p.rules(direction).is_empty()).collect();
            if selecting.is_empty() {
                return next;
            }
            selecting.sort_by_key(|policy| (policy.priority, &policy.name));
            let policies: Vec<String> = selecting.into_iter().map(|policy| policy.name.clone()).collect();
            let name = tier_chain_name(tier, direction, &policies, next.as_ref().map(|next| &next.name));
            let (namespace, next) = (String::new(), next.map(Box::new));
            Some(Plan { name, direction, tier, namespace, policies, next })
        };
        let behind = match policies.is_empty() {
            true => tier(Tier::Baseline, None),
            false => {
                let name = chain_name(direction, &namespace, &policies);
                Some(Plan { name, direction, tier: Tier::NetworkPolicy, namespace, policies, next: None })
            }
        };
        tier(Tier::Admin, behind)
    }

    /// Sends a pod to the chains that the policies which select it ask for.
    pub(super) fn refresh_chains(&mut self, uid: &str) {
        for direction in Direction::ALL {
            let Some(pod) = self.pods.get(uid) else { return };
            let old = pod.chain(direction).clone();
            let plan = self.plan(pod, direction);
            let new = plan.as_ref().map(|plan| plan.name.clone());
            if old == new {
                continue;
            }
            if let Some(plan) = plan {
                self.acquire_chain(plan);
            }
            let Some(pod) = self.pods.get_mut(uid) else { return };
            *pod.chain_mut(direction) = new;
            let addresses = pod.record.addresses.clone();
            self.refresh_verdicts(&addresses);
            if let Some(name) = &old {
                self.release_chain(name);
            }
        }
    }

    fn acquire_chain(&mut self, plan: Plan) {
        if let Some(state) = self.chains.get_mut(&plan.name) {
            state.users += 1;
            return;
        }
        if let Some(next) = &plan.next {
            self.acquire_chain((**next).clone());
        }
        let (chain, keys) = self.compile_chain(&plan);
        self.touched.chains.entry(plan.name.clone()).or_insert(None);
        let sets = keys.keys().cloned().collect();
        for (set, key) in keys {
            self.acquire_set(set, key);
        }
        let chain = Arc::new(chain);
        self.chains.insert(plan.name.clone(), ChainState { plan, users: 1, chain, sets });
    }

    pub(super) fn release_chain(&mut self, name: &ChainName) {
        let Some(state) = self.chains.get_mut(name) else { return };
        state.users -= 1;
        if state.users > 0 {
            return;
        }
        if let Some(state) = self.chains.remove(name) {
            self.touched.chains.entry(name.clone()).or_insert(Some(state.chain));
            for set in &state.sets {
                self.release_set(set);
            }
            if let Some(next) = &state.plan.next {
                self.release_chain(&next.name);
            }
        }
    }

    pub(super) fn recompile(&mut self, name: &ChainName) {
        let Some(state) = self.chains.get(name) else { return };
        let (before, old_sets) = (state.chain.clone(), state.sets.clone());
        let (chain, keys) = self.compile_chain(&state.plan);
        if chain == *before {
            return;
        }
        let sets: BTreeSet<SetName> = keys.keys().cloned().collect();
        for (set, key) in keys {
            self.acquire_set(set, key);
        }
        for set in &old_sets {
            self.release_set(set);
        }
        self.touched.chains.entry(name.clone()).or_insert(Some(before));
        if let Some(state) = self.chains.get_mut(name) {
            state.chain = Arc::new(chain);
            state.sets = sets;
        }
    }

    fn compile_chain(&self, plan: &Plan) -> (Chain, BTreeMap<SetName, SetKey>) {
        let mut keys = BTreeMap::new();
        let mut rules = Vec::new();
        let (direction, tier) = (plan.direction, plan.tier);
        let end = match tier {
            Tier::NetworkPolicy => {
                let known = self.policies.get(&plan.namespace);
                let selecting = plan.policies.iter().filter_map(|name| known?.get(name));
                for allow in selecting.flat_map(|policy| policy.rules(direction).unwrap_or_default()) {
                    for family in &self.families {
                        compile_rule(allow, Action::Allow, *family, &mut rules, &mut keys);
                    }
                }
                // All allow, so their order means nothing.
                rules.sort();
                rules.dedup();
                End::Drop
            }
            Tier::Admin | Tier::Baseline => {
                let selecting = plan.policies.iter().filter_map(|name| self.cluster_policies.get(name));
                for rule in selecting.flat_map(|policy| policy.rules(direction)) {
                    // What matches nothing is no rule.
                    for (allow, family) in
                        rule.matches.iter().flat_map(|m| self.families.iter().map(move |f| (m, f)))
                    {
                        compile_rule(allow, rule.action, *family, &mut rules, &mut keys);
                    }
                }
                plan.next.as_ref().map_or(End::Allow, |next| End::Goto(next.name.clone()))
            }
        };
        (Chain { direction, tier, rules, end }, keys)
    }
}
