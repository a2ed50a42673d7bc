//! Which ends no policy tells apart.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::End;
use super::rows::{PeerKey, Policies};
use crate::network_policy::cluster_policy::NodeRecord;
use crate::network_policy::evaluate::Cluster;
use crate::network_policy::ir::{Cidr, Direction, Family, Protocol, Tier};
use crate::network_policy::model::{Namespaces, PodRecord};
use crate::selector::{Labels, Requirement, Selector};

/// Which policies judge an end in one direction: indices, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ChainKey {
    pub tiers: Vec<usize>,
    pub network: Vec<usize>,
}

type NamedPorts = BTreeMap<(Protocol, String), u16>;

#[derive(Debug, Default)]
pub(super) struct Classes {
    pub ends: Vec<End>,
    pub end_of_pod: Vec<Option<usize>>,
    pub end_of_node: Vec<Option<usize>>,
    /// By peer: the ends it means.
    pub members: Vec<Vec<usize>>,
    /// By direction: the distinct chains, and by end which it has.
    pub chains: [Vec<ChainKey>; 2],
    pub chain_of: [Vec<usize>; 2],
    /// The distinct named ports that rules ask for, the first of them none; and by end which it has.
    pub names: Vec<NamedPorts>,
    pub names_of: Vec<usize>,
}

impl Classes {
    pub fn isolated(&self, direction: Direction) -> Vec<bool> {
        let at = direction as usize;
        self.chain_of[at].iter().map(|chain| self.chains[at][*chain] != ChainKey::default()).collect()
    }
}

/// Pods alike in all that a policy can ask for.
struct Shape {
    namespace: usize,
    labels: Labels,
    names: usize,
    pods: Vec<usize>,
    /// Peers that mean it, ascending.
    peers: Vec<usize>,
    chains: [ChainKey; 2],
}

/// Shapes by what selectors ask for.
struct Index<'a> {
    shapes: &'a [Shape],
    by_namespace: Vec<Vec<usize>>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    by_namespace_and_label: HashMap<(usize, &'a str, &'a str), Vec<usize>>,
    all: Vec<usize>,
}

impl<'a> Index<'a> {
    fn new(shapes: &'a [Shape], namespaces: usize) -> Index<'a> {
        let mut index = Index {
            shapes,
            by_namespace: vec![Vec::new(); namespaces],
            by_label: HashMap::new(),
            by_namespace_and_label: HashMap::new(),
            all: (0..shapes.len()).collect(),
        };
        for (number, shape) in shapes.iter().enumerate() {
            index.by_namespace[shape.namespace].push(number);
            for (key, value) in &shape.labels {
                index.by_label.entry((key, value)).or_default().push(number);
                let of_namespace = (shape.namespace, key.as_str(), value.as_str());
                index.by_namespace_and_label.entry(of_namespace).or_default().push(number);
            }
        }
        index
    }

    /// The shapes of a namespace, or of all, that `selector` selects. Costs what it finds, where a label's value is asked.
    fn select(&self, namespace: Option<usize>, selector: &Selector) -> Vec<usize> {
        let values = selector.requirements().find_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((key, values)),
            _ => None,
        });
        let found: Cow<[usize]> = match (values, namespace) {
            (Some((key, values)), None) => {
                let lists = values.iter().filter_map(|v| self.by_label.get(&(key.as_str(), v.as_str())));
                Cow::Owned(lists.flatten().copied().collect())
            }
            (Some((key, values)), Some(namespace)) => {
                let lists = values
                    .iter()
                    .filter_map(|v| self.by_namespace_and_label.get(&(namespace, key.as_str(), v.as_str())));
                Cow::Owned(lists.flatten().copied().collect())
            }
            (None, Some(namespace)) => Cow::Borrowed(&self.by_namespace[namespace]),
            (None, None) => Cow::Borrowed(&self.all),
        };
        found.iter().copied().filter(|shape| selector.matches(&self.shapes[*shape].labels)).collect()
    }
}

pub(super) fn classes(cluster: &Cluster, policies: &Policies, pod_range: Cidr) -> Classes {
    let blocks: Vec<(usize, &Vec<Cidr>)> = policies
        .peers
        .iter()
        .enumerate()
        .filter_map(|(number, key)| match key {
            PeerKey::Blocks(blocks) => Some((number, blocks)),
            PeerKey::Pods { .. } | PeerKey::Nodes(_) => None,
        })
        .collect();

    // Shapes.
    let mut namespaces: HashMap<String, usize> = HashMap::new();
    for name in cluster.namespaces.iter().filter_map(|n| n.metadata.name.clone()) {
        let next = namespaces.len();
        namespaces.entry(name).or_insert(next);
    }
    let mut classes = Classes { end_of_pod: vec![None; cluster.pods.len()], ..Classes::default() };
    let mut names: HashMap<NamedPorts, usize> = HashMap::from([(NamedPorts::new(), 0)]);
    let mut shapes: Vec<Shape> = Vec::new();
    {
        let records = records(cluster, pod_range.family());
        let in_blocks = in_blocks(&records, &blocks, pod_range);
        let mut known: HashMap<(usize, Labels, usize, Vec<usize>), usize> = HashMap::new();
        for ((pod, record, _), peers) in records.into_iter().zip(in_blocks) {
            let next = namespaces.len();
            let namespace = *namespaces.entry(record.namespace).or_insert(next);
            let mut named = record.named_ports;
            named.retain(|(_, name), _| policies.names.contains(name));
            let next = names.len();
            let named = *names.entry(named).or_insert(next);
            let key = (namespace, record.labels, named, peers);
            let shape = match known.get(&key) {
                Some(shape) => *shape,
                None => {
                    let (namespace, labels, names, peers) = key.clone();
                    let chains = Default::default();
                    shapes.push(Shape { namespace, labels, names, pods: Vec::new(), peers, chains });
                    known.insert(key, shapes.len() - 1);
                    shapes.len() - 1
                }
            };
            shapes[shape].pods.push(pod);
        }
    }
    let mut distinct: Vec<(usize, NamedPorts)> = names.into_iter().map(|(ports, at)| (at, ports)).collect();
    distinct.sort_by_key(|(at, _)| *at);
    classes.names = distinct.into_iter().map(|(_, ports)| ports).collect();

    select_all(cluster, policies, &namespaces, &mut shapes);

    // Classes of shapes, then nodes and the outside.
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); policies.peers.len()];
    let mut chain_numbers: [HashMap<ChainKey, usize>; 2] = Default::default();
    let mut number = |classes: &mut Classes, at: usize, key: &ChainKey| -> usize {
        if let Some(number) = chain_numbers[at].get(key) {
            return *number;
        }
        classes.chains[at].push(key.clone());
        chain_numbers[at].insert(key.clone(), classes.chains[at].len() - 1);
        classes.chains[at].len() - 1
    };
    let free = [0, 1].map(|at| number(&mut classes, at, &ChainKey::default()));
    let mut known: HashMap<([usize; 2], usize, Vec<usize>), usize> = HashMap::new();
    for shape in shapes {
        let chains = [0, 1].map(|at| number(&mut classes, at, &shape.chains[at]));
        let end = *known.entry((chains, shape.names, shape.peers.clone())).or_insert_with(|| {
            classes.push(End::Pods(Vec::new()), chains, shape.names, &shape.peers, &mut members)
        });
        for pod in &shape.pods {
            classes.end_of_pod[*pod] = Some(end);
        }
        if let End::Pods(pods) = &mut classes.ends[end] {
            pods.extend(shape.pods);
        }
    }
    classes.end_of_node = vec![None; cluster.nodes.len()];
    for (nodes, peers) in nodes(cluster, policies, pod_range.family()) {
        nodes.iter().for_each(|node| classes.end_of_node[*node] = Some(classes.ends.len()));
        classes.push(End::Nodes(nodes), free, 0, &peers, &mut members);
    }
    let outside = outside(&blocks, pod_range);
    let size = |ranges: &Vec<(IpAddr, IpAddr)>| -> u128 {
        ranges
            .iter()
            .map(|(first, last)| (number_of(*last) - number_of(*first)).saturating_add(1))
            .fold(0, u128::saturating_add)
    };
    let largest = outside.values().map(size).max();
    for (peers, ranges) in outside {
        let largest = Some(size(&ranges)) == largest;
        classes.push(End::Outside { ranges, largest }, free, 0, &peers, &mut members);
    }
    classes.members = members;
    classes
}

impl Classes {
    fn push(
        &mut self,
        end: End,
        chains: [usize; 2],
        names: usize,
        peers: &[usize],
        members: &mut [Vec<usize>],
    ) -> usize {
        let number = self.ends.len();
        self.ends.push(end);
        for at in [0, 1] {
            self.chain_of[at].push(chains[at]);
        }
        self.names_of.push(names);
        peers.iter().for_each(|peer| members[*peer].push(number));
        number
    }
}

/// The pods that have a network of their own, with their address of the family. Where two hold one address, the younger.
fn records(cluster: &Cluster, family: Family) -> Vec<(usize, PodRecord, Option<IpAddr>)> {
    let mut records: Vec<(usize, PodRecord, Option<IpAddr>)> = Vec::new();
    let mut holder: HashMap<IpAddr, usize> = HashMap::new();
    for (index, pod) in cluster.pods.iter().enumerate() {
        let status = pod.status.as_ref();
        let finished = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        if finished || pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false) {
            continue;
        }
        let record = PodRecord::from_api(pod, "");
        let address = record.addresses.iter().find(|address| Family::of(address) == family).copied();
        if let Some(address) = address {
            match holder.get(&address).copied() {
                Some(at)
                    if (&records[at].1.created, &records[at].1.uid) >= (&record.created, &record.uid) =>
                {
                    continue;
                }
                Some(at) => {
                    records[at] = (index, record, Some(address));
                    continue;
                }
                None => drop(holder.insert(address, records.len())),
            }
        }
        records.push((index, record, address));
    }
    records
}

/// By pod: the peers whose blocks hold its address.
fn in_blocks(
    records: &[(usize, PodRecord, Option<IpAddr>)],
    blocks: &[(usize, &Vec<Cidr>)],
    pod_range: Cidr,
) -> Vec<Vec<usize>> {
    let mut sorted: Vec<(IpAddr, usize)> =
        records.iter().enumerate().filter_map(|(at, (.., address))| Some(((*address)?, at))).collect();
    sorted.sort_unstable();
    let mut peers = vec![Vec::new(); records.len()];
    for (peer, blocks) in blocks {
        for block in blocks.iter() {
            let (first, last) = block.range();
            let start = sorted.partition_point(|(address, _)| *address < first);
            let end = sorted.partition_point(|(address, _)| *address <= last);
            sorted[start..end].iter().for_each(|(_, at)| peers[*at].push(*peer));
        }
        let holds_all = blocks.iter().any(|b| b.prefix <= pod_range.prefix && b.contains(&pod_range.network));
        if holds_all {
            let without = records.iter().enumerate().filter(|(_, (.., address))| address.is_none());
            without.for_each(|(at, _)| peers[at].push(*peer));
        }
    }
    peers
}

/// Which peers mean each shape, and which policies select it.
fn select_all(
    cluster: &Cluster,
    policies: &Policies,
    namespaces: &HashMap<String, usize>,
    shapes: &mut [Shape],
) {
    static NONE: Labels = Labels::new();
    let index = Index::new(shapes, namespaces.len());
    // Namespaces that are known, by selector; an unknown one is matched by none.
    let mut matching: HashMap<Selector, Vec<usize>> = HashMap::new();
    let mut select_namespaces = |selector: &Selector| -> Vec<usize> {
        let found = matching.entry(selector.clone()).or_insert_with(|| {
            let known = cluster
                .namespaces
                .iter()
                .filter(|n| selector.matches(n.metadata.labels.as_ref().unwrap_or(&NONE)));
            known.filter_map(|n| namespaces.get(n.metadata.name.as_deref()?).copied()).collect()
        });
        found.clone()
    };
    let mut found: Vec<(usize, Vec<usize>)> = Vec::new();
    for (peer, key) in policies.peers.iter().enumerate() {
        let chosen = match key {
            PeerKey::Pods { namespaces: Namespaces::Named(name), pods } => match namespaces.get(name) {
                Some(namespace) => index.select(Some(*namespace), pods),
                None => Vec::new(),
            },
            PeerKey::Pods { namespaces: Namespaces::Matching(selector), pods } => {
                let chosen = select_namespaces(selector);
                chosen.iter().flat_map(|namespace| index.select(Some(*namespace), pods)).collect()
            }
            PeerKey::Blocks(_) | PeerKey::Nodes(_) => continue,
        };
        found.push((peer, chosen));
    }
    let mut network: Vec<(usize, Vec<usize>)> = Vec::new();
    for (number, parsed) in policies.network.iter().enumerate() {
        if let Some(namespace) = namespaces.get(&parsed.policy.namespace) {
            network.push((number, index.select(Some(*namespace), &parsed.policy.subject)));
        }
    }
    let mut tiers: Vec<(usize, Vec<usize>)> = Vec::new();
    for (number, parsed) in policies.cluster.iter().enumerate() {
        let chosen = select_namespaces(&parsed.policy.namespaces);
        let all = chosen.iter().flat_map(|namespace| index.select(Some(*namespace), &parsed.policy.pods));
        tiers.push((number, all.collect()));
    }
    for (peer, chosen) in found {
        chosen.iter().for_each(|shape| shapes[*shape].peers.push(peer));
    }
    for direction in Direction::ALL {
        let at = direction as usize;
        for (number, chosen) in &network {
            if policies.network[*number].rules[at].is_some() {
                chosen.iter().for_each(|shape| shapes[*shape].chains[at].network.push(*number));
            }
        }
        for (number, chosen) in &tiers {
            let parsed = &policies.cluster[*number];
            if parsed.rules[at].is_none() {
                continue;
            }
            for shape in chosen {
                let chain = &mut shapes[*shape].chains[at];
                // Behind a NetworkPolicy the Baseline tier is never asked.
                if parsed.policy.tier == Tier::Admin || chain.network.is_empty() {
                    chain.tiers.push(*number);
                }
            }
        }
    }
    for shape in shapes {
        shape.peers.sort_unstable();
        shape.peers.dedup();
    }
}

/// Nodes that no policy tells apart, with the peers that mean them.
fn nodes(cluster: &Cluster, policies: &Policies, family: Family) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut by_peers: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let record = NodeRecord::from_api(node);
        let address = record.addresses.iter().find(|address| Family::of(address) == family);
        let holds = |block: &Cidr| match address {
            Some(address) => block.contains(address),
            None => block.prefix == 0 && block.family() == family,
        };
        let means = |key: &PeerKey| match key {
            PeerKey::Pods { .. } => false,
            PeerKey::Blocks(blocks) => blocks.iter().any(holds),
            PeerKey::Nodes(selector) => selector.matches(&record.labels),
        };
        let peers = policies.peers.iter().enumerate().filter(|(_, key)| means(key)).map(|(at, _)| at);
        by_peers.entry(peers.collect()).or_default().push(index);
    }
    by_peers.into_iter().map(|(peers, nodes)| (nodes, peers)).collect()
}

/// The addresses of the pods' family outside of their range, by the peers whose blocks hold them.
fn outside(blocks: &[(usize, &Vec<Cidr>)], pod_range: Cidr) -> BTreeMap<Vec<usize>, Vec<(IpAddr, IpAddr)>> {
    let family = pod_range.family();
    let last_of_all = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    // By first address: which peer's block begins or ends (just before) there.
    let mut starts: BTreeMap<u128, Vec<(usize, bool)>> = BTreeMap::from([(0, Vec::new())]);
    let of_family = blocks.iter().flat_map(|(peer, all)| all.iter().map(move |block| (*peer, block)));
    for (peer, block) in of_family.filter(|(_, block)| block.family() == family) {
        let (first, last) = block.range();
        starts.entry(number_of(first)).or_default().push((peer, true));
        if number_of(last) < last_of_all {
            starts.entry(number_of(last) + 1).or_default().push((peer, false));
        }
    }
    let (first, last) = pod_range.range();
    starts.entry(number_of(first)).or_default();
    if number_of(last) < last_of_all {
        starts.entry(number_of(last) + 1).or_default();
    }
    let bounds: Vec<u128> = starts.keys().copied().collect();
    let mut parts: BTreeMap<Vec<usize>, Vec<(IpAddr, IpAddr)>> = BTreeMap::new();
    let mut active: BTreeSet<usize> = BTreeSet::new();
    for (at, (first, changes)) in starts.iter().enumerate() {
        // Blocks of one peer may touch: what ends there goes before what begins there.
        for (peer, _) in changes.iter().filter(|(_, begins)| !begins) {
            active.remove(peer);
        }
        active.extend(changes.iter().filter(|(_, begins)| *begins).map(|(peer, _)| *peer));
        let last = bounds.get(at + 1).map_or(last_of_all, |next| next - 1);
        let (first, last) = (address_of(family, *first), address_of(family, last));
        if pod_range.contains(&first) {
            continue;
        }
        let ranges = parts.entry(active.iter().copied().collect()).or_default();
        match ranges.last_mut() {
            Some(before) if number_of(before.1).checked_add(1) == Some(number_of(first)) => before.1 = last,
            _ => ranges.push((first, last)),
        }
    }
    parts
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address_of(family: Family, number: u128) -> IpAddr {
    match family {
        // Only numbers of 32 bits get here.
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::from_bits(number as u32)),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::from_bits(number)),
    }
}
