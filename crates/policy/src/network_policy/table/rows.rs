//! Policies as rules over numbered peers and port sets, and per distinct chain the ports towards every end.

use std::collections::{BTreeMap, HashMap};

use super::ends::{ChainKey, Classes};
use super::ports::{ALL, Id, Interner, NONE, PortSet, Ranges};
use crate::network_policy::cluster_policy::ClusterPolicy;
use crate::network_policy::evaluate::Cluster;
use crate::network_policy::ir::{Action, Cidr, Direction, Protocol, Tier};
use crate::network_policy::model::{AllowRule, Namespaces, Peer, Policy, Port};
use crate::selector::Selector;

/// Who a rule means, each distinct one once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    Pods { namespaces: Namespaces, pods: Selector },
    Blocks(Vec<Cidr>),
    Nodes(Selector),
}

#[derive(Debug)]
pub(super) struct Rule {
    pub action: Action,
    /// None: anyone.
    pub peers: Option<Vec<usize>>,
    /// What does not depend on the server.
    pub fixed: Id,
    /// Names of ports, for the protocol or for any.
    pub named: Vec<(Option<Protocol>, String)>,
}

/// One policy's rules in both directions; None where it does not isolate (or has no rules, in a tier).
#[derive(Debug)]
pub(super) struct Parsed<P> {
    pub policy: P,
    pub rules: [Option<Vec<Rule>>; 2],
}

#[derive(Debug)]
pub(super) struct Policies {
    pub network: Vec<Parsed<Policy>>,
    /// In the order in which they are asked.
    pub cluster: Vec<Parsed<ClusterPolicy>>,
    pub peers: Vec<PeerKey>,
    /// Every port name that a rule asks for.
    pub names: std::collections::BTreeSet<String>,
}

impl Policies {
    pub fn new(cluster: &Cluster, interner: &mut Interner) -> Policies {
        let mut numbers: HashMap<PeerKey, usize> = HashMap::new();
        let mut names = std::collections::BTreeSet::new();
        let mut rule = |allow: &AllowRule, action: Action| {
            let mut number = |peer: &Peer| {
                let key = match peer {
                    Peer::Pods { namespaces, pods } => {
                        PeerKey::Pods { namespaces: namespaces.clone(), pods: pods.clone() }
                    }
                    Peer::Blocks(blocks) => PeerKey::Blocks(blocks.clone()),
                    Peer::Nodes(nodes) => PeerKey::Nodes(nodes.clone()),
                };
                let next = numbers.len();
                *numbers.entry(key).or_insert(next)
            };
            let peers =
                (!allow.peers.is_empty()).then(|| allow.peers.iter().map(&mut number).collect::<Vec<_>>());
            let mut fixed = if allow.ports.is_empty() { PortSet::all() } else { PortSet::default() };
            let mut named = Vec::new();
            for port in &allow.ports {
                match port {
                    Port::Every(protocol) => fixed = fixed.union(&PortSet::of(*protocol, Ranges::all())),
                    Port::Range(protocol, range) => {
                        fixed = fixed.union(&PortSet::of(*protocol, Ranges::of(range.first, range.last)));
                    }
                    Port::Named(protocol, name) => named.push((Some(*protocol), name.clone())),
                    Port::NamedAny(name) => named.push((None, name.clone())),
                }
            }
            names.extend(named.iter().map(|(_, name)| name.clone()));
            Rule { action, peers, fixed: interner.id(fixed), named }
        };
        let network = cluster
            .policies
            .iter()
            .map(|object| {
                let (policy, _) = Policy::from_api(object);
                let rules = Direction::ALL.map(|direction| {
                    let rules = policy.rules(direction)?;
                    Some(rules.iter().map(|allow| rule(allow, Action::Allow)).collect())
                });
                Parsed { policy, rules }
            })
            .collect();
        let mut tiers: Vec<ClusterPolicy> =
            cluster.cluster_policies.iter().map(|object| ClusterPolicy::from_api(object).0).collect();
        tiers.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        let tiers = tiers
            .into_iter()
            .map(|policy| {
                let rules = Direction::ALL.map(|direction| {
                    let rules = policy.rules(direction);
                    let each = rules.iter().filter_map(|r| Some((r.matches.as_ref()?, r.action)));
                    let parsed: Vec<Rule> = each.map(|(allow, action)| rule(allow, action)).collect();
                    (!rules.is_empty()).then_some(parsed)
                });
                Parsed { policy, rules }
            })
            .collect();
        let mut peers: Vec<(usize, PeerKey)> =
            numbers.into_iter().map(|(key, number)| (number, key)).collect();
        peers.sort_by_key(|(number, _)| *number);
        let peers = peers.into_iter().map(|(_, key)| key).collect();
        Policies { network, cluster: tiers, peers, names }
    }
}

type Rows = ([Vec<usize>; 2], [Vec<Vec<Id>>; 2]);

/// Per direction: by end the number of its row, and the rows.
pub(super) fn rows(policies: &Policies, classes: &Classes, interner: &mut Interner) -> Rows {
    let mut worker = Worker { policies, classes, interner, named: HashMap::new() };
    let mut row_of = [Vec::new(), Vec::new()];
    let mut rows = [Vec::new(), Vec::new()];
    for direction in Direction::ALL {
        let at = direction as usize;
        let mut known: HashMap<(usize, usize), usize> = HashMap::new();
        for end in 0..classes.ends.len() {
            // In ingress a named port is the subject's own.
            let names = match direction {
                Direction::Egress => 0,
                Direction::Ingress => classes.names_of[end],
            };
            let key = (classes.chain_of[at][end], names);
            let row = match known.get(&key) {
                Some(row) => *row,
                None => {
                    rows[at].push(worker.row(direction, &classes.chains[at][key.0], names));
                    known.insert(key, rows[at].len() - 1);
                    rows[at].len() - 1
                }
            };
            row_of[at].push(row);
        }
    }
    (row_of, rows)
}

struct Worker<'a> {
    policies: &'a Policies,
    classes: &'a Classes,
    interner: &'a mut Interner,
    /// (rule, named ports of the server) → ports. Rules by address: they do not move while this lives.
    named: HashMap<(*const Rule, usize), Id>,
}

impl Worker<'_> {
    fn row(&mut self, direction: Direction, chain: &ChainKey, names: usize) -> Vec<Id> {
        let many = self.classes.ends.len();
        let policies = self.policies;
        let at = direction as usize;
        let tier = |tier: Tier| {
            let of = chain.tiers.iter().map(|index| &policies.cluster[*index]);
            of.filter(move |parsed| parsed.policy.tier == tier)
                .flat_map(move |parsed| parsed.rules[at].iter().flatten())
                .collect::<Vec<&Rule>>()
        };
        let (admin, baseline) = (tier(Tier::Admin), tier(Tier::Baseline));
        let behind = match chain.network.is_empty() {
            false => {
                let selecting = chain.network.iter().map(|index| &policies.network[*index]);
                let rules: Vec<&Rule> =
                    selecting.flat_map(|parsed| parsed.rules[at].iter().flatten()).collect();
                self.any_of(direction, &rules, names)
            }
            true if baseline.is_empty() => vec![ALL; many],
            true => {
                let (mut allowed, next) = self.in_order(direction, &baseline, names);
                for (allowed, next) in allowed.iter_mut().zip(next) {
                    *allowed = self.interner.union(*allowed, next);
                }
                allowed
            }
        };
        if admin.is_empty() {
            return behind;
        }
        let (mut allowed, next) = self.in_order(direction, &admin, names);
        for (allowed, (next, behind)) in allowed.iter_mut().zip(next.into_iter().zip(behind)) {
            let later = self.interner.intersection(next, behind);
            *allowed = self.interner.union(*allowed, later);
        }
        allowed
    }

    /// NetworkPolicies: what any rule allows.
    fn any_of(&mut self, direction: Direction, rules: &[&Rule], names: usize) -> Vec<Id> {
        let mut row = vec![NONE; self.classes.ends.len()];
        // Rules for the same peer are one: their ports joined.
        let mut by_peer: BTreeMap<Option<usize>, Vec<&Rule>> = BTreeMap::new();
        for rule in rules {
            match &rule.peers {
                None => by_peer.entry(None).or_default().push(rule),
                Some(peers) => {
                    peers.iter().for_each(|peer| by_peer.entry(Some(*peer)).or_default().push(rule))
                }
            }
        }
        for (peer, rules) in by_peer {
            let plain = rules.iter().all(|rule| rule.named.is_empty());
            let joined = rules.iter().fold(NONE, |ports, rule| self.interner.union(ports, rule.fixed));
            let mut add = |this: &mut Self, end: usize| {
                let ports = match plain {
                    true => joined,
                    false => {
                        let names =
                            if direction == Direction::Egress { this.classes.names_of[end] } else { names };
                        rules.iter().fold(NONE, |ports, rule| {
                            let more = this.ports(rule, names);
                            this.interner.union(ports, more)
                        })
                    }
                };
                row[end] = this.interner.union(row[end], ports);
            };
            match peer {
                None => (0..self.classes.ends.len()).for_each(|end| add(self, end)),
                Some(peer) => self.classes.members[peer].iter().for_each(|end| add(self, *end)),
            }
        }
        row
    }

    /// A tier: the first rule that matches decides. What is accepted, and what the next tier is asked for.
    fn in_order(&mut self, direction: Direction, rules: &[&Rule], names: usize) -> (Vec<Id>, Vec<Id>) {
        let many = self.classes.ends.len();
        let (mut left, mut accepted, mut passed) = (vec![ALL; many], vec![NONE; many], vec![NONE; many]);
        for rule in rules {
            let mut take = |this: &mut Self, end: usize| {
                let names = if direction == Direction::Egress { this.classes.names_of[end] } else { names };
                let ports = this.ports(rule, names);
                let matched = this.interner.intersection(left[end], ports);
                left[end] = this.interner.minus(left[end], matched);
                match rule.action {
                    Action::Allow => accepted[end] = this.interner.union(accepted[end], matched),
                    Action::Pass => passed[end] = this.interner.union(passed[end], matched),
                    Action::Deny => {}
                }
            };
            match &rule.peers {
                None => (0..many).for_each(|end| take(self, end)),
                // An end that two peers hold is empty-handed the second time.
                Some(peers) => peers
                    .iter()
                    .flat_map(|peer| self.classes.members[*peer].iter())
                    .for_each(|end| take(self, *end)),
            }
        }
        for (passed, left) in passed.iter_mut().zip(left) {
            *passed = self.interner.union(*passed, left);
        }
        (accepted, passed)
    }

    fn ports(&mut self, rule: &Rule, names: usize) -> Id {
        if rule.named.is_empty() {
            return rule.fixed;
        }
        if let Some(id) = self.named.get(&(std::ptr::from_ref(rule), names)) {
            return *id;
        }
        let mut set = PortSet::default();
        for (asked, name) in &rule.named {
            for ((protocol, known), port) in &self.classes.names[names] {
                if known == name && asked.is_none_or(|asked| asked == *protocol) {
                    set = set.union(&PortSet::of(*protocol, Ranges::of(*port, *port)));
                }
            }
        }
        let named = self.interner.id(set);
        let id = self.interner.union(rule.fixed, named);
        self.named.insert((std::ptr::from_ref(rule), names), id);
        id
    }
}
