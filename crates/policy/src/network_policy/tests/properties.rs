use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::network_policy::table::{End, Table};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const ADDRESSES: [&str; 8] = [
    "10.244.1.1",
    "10.244.1.2",
    "10.244.1.3",
    "10.244.1.4",
    "10.244.2.1",
    "10.244.2.2",
    "10.244.2.3",
    "10.244.2.4",
];
const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// The IPv6 address of who has that of IPv4.
fn twin(address: &str) -> String {
    let parts: Vec<&str> = address.split('.').collect();
    match parts[..] {
        ["10", "244", node, number] => format!("fd00:cf:244:{node}::{number}"),
        ["10", "88", _, number] => format!("fd00:cf:88::{number}"),
        _ => format!("2001:db8::{}", parts[3]),
    }
}

const PORTS: [u16; 5] = [1, 80, 81, 443, 65535];

fn labels() -> impl Strategy<Value = Value> {
    (prop::option::of(0..2u8), prop::option::of(0..2u8)).prop_map(|(x, y)| {
        let mut labels = serde_json::Map::new();
        x.map(|x| labels.insert("x".into(), json!(x.to_string())));
        y.map(|y| labels.insert("y".into(), json!(y.to_string())));
        Value::Object(labels)
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let expression =
        (prop::sample::select(vec!["x", "y"]), 0..4u8, 0..3u8).prop_map(|(key, operator, value)| {
            let operator = ["In", "NotIn", "Exists", "DoesNotExist"][operator as usize];
            let values: Vec<String> = match operator {
                "In" | "NotIn" if value == 2 => vec!["0".into(), "1".into()],
                "In" | "NotIn" => vec![value.to_string()],
                _ => vec![],
            };
            json!({ "key": key, "operator": operator, "values": values })
        });
    prop_oneof![
        2 => Just(json!({})),
        4 => labels().prop_map(|labels| json!({ "matchLabels": labels })),
        2 => (labels(), prop::collection::vec(expression, 0..3))
            .prop_map(|(labels, all)| json!({ "matchLabels": labels, "matchExpressions": all })),
    ]
}

fn pod() -> impl Strategy<Value = Pod> {
    let ports =
        prop::collection::vec((prop::sample::select(vec!["web", "dns"]), 0..3u8, 0..PORTS.len()), 0..3);
    (0..4u8, 0..3usize, labels(), 0..8usize, 0..12u8, ports, 0..3u8).prop_map(
        |(number, namespace, labels, address, kind, ports, created)| {
            let ports: Vec<Value> = ports
                .iter()
                .map(|(name, protocol, port)| {
                    let protocol = Protocol::ALL[*protocol as usize].name();
                    json!({ "name": name, "protocol": protocol, "containerPort": PORTS[*port] })
                })
                .collect();
            // A pod's address is of its node's range, so two pods that hold one address are on one node.
            let namespace = NAMESPACES[namespace];
            let host = format!("10.88.0.{}", address / 4 + 2);
            let mut status = json!({ "phase": if kind == 1 { "Failed" } else { "Running" }, "hostIP": host,
                                     "hostIPs": [{ "ip": host }, { "ip": twin(&host) }] });
            if kind != 2 {
                status["podIP"] = json!(ADDRESSES[address]);
                status["podIPs"] = json!([{ "ip": ADDRESSES[address] }, { "ip": twin(ADDRESSES[address]) }]);
            }
            serde_json::from_value(json!({
                "metadata": { "namespace": namespace, "name": format!("p{number}"), "labels": labels,
                              "uid": format!("{namespace}-p{number}"),
                              "creationTimestamp": format!("2026-01-0{}T00:00:00Z", created + 1) },
                "spec": { "nodeName": format!("node-{}", address / 4 + 1), "hostNetwork": kind == 0,
                          "containers": [{ "name": "c", "ports": ports }] },
                "status": status,
            }))
            .unwrap()
        },
    )
}

fn peer() -> impl Strategy<Value = Value> {
    let blocks = vec![
        "0.0.0.0/0",
        "10.244.0.0/16",
        "10.244.1.0/24",
        "10.244.1.2/32",
        "192.0.2.0/24",
        "::/0",
        "fd00::/8",
        "fd00:cf:244:1::/64",
        "fd00:cf:244:1::2/128",
        "2001:db8::/32",
    ];
    let block = prop::sample::select(blocks);
    prop_oneof![
        3 => selector().prop_map(|s| json!({ "podSelector": s })),
        2 => selector().prop_map(|s| json!({ "namespaceSelector": s })),
        2 => (selector(), selector()).prop_map(|(n, p)| json!({ "namespaceSelector": n, "podSelector": p })),
        2 => (block.clone(), prop::collection::vec(block, 0..3))
            .prop_map(|(cidr, except)| json!({ "ipBlock": { "cidr": cidr, "except": except } })),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = prop::sample::select(vec!["TCP", "UDP", "SCTP"]);
    prop_oneof![
        2 => Just(json!({})),
        2 => protocol.clone().prop_map(|p| json!({ "protocol": p })),
        4 => (protocol.clone(), 0..PORTS.len()).prop_map(|(p, port)| json!({ "protocol": p, "port": PORTS[port] })),
        2 => (protocol.clone(), 0..PORTS.len(), 0..PORTS.len()).prop_map(|(p, a, b)| {
            let (first, last) = (PORTS[a.min(b)], PORTS[a.max(b)]);
            json!({ "protocol": p, "port": first, "endPort": last })
        }),
        2 => (protocol, prop::sample::select(vec!["web", "dns"])).prop_map(|(p, name)| json!({ "protocol": p, "port": name })),
    ]
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rule = || (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..3));
    let types = prop::option::of(prop::sample::subsequence(vec!["Ingress", "Egress"], 0..=2));
    let rules = || prop::collection::vec(rule(), 0..3);
    (0..4u8, 0..3usize, selector(), types, rules(), rules()).prop_map(
        |(number, namespace, subject, types, ingress, egress)| {
            let with = |rules: Vec<(Vec<Value>, Vec<Value>)>, field: &str| -> Vec<Value> {
                rules.into_iter().map(|(peers, ports)| json!({ field: peers, "ports": ports })).collect()
            };
            serde_json::from_value(json!({
                "metadata": { "namespace": NAMESPACES[namespace], "name": format!("n{number}") },
                "spec": { "podSelector": subject, "policyTypes": types,
                          "ingress": with(ingress, "from"), "egress": with(egress, "to") },
            }))
            .unwrap()
        },
    )
}

fn namespace() -> impl Strategy<Value = Namespace> {
    (0..3usize, labels()).prop_map(|(name, labels)| {
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACES[name], "labels": labels } })).unwrap()
    })
}

fn cluster_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let pods =
        || (selector(), selector()).prop_map(|(n, p)| json!({ "namespaceSelector": n, "podSelector": p }));
    let subject = || {
        prop_oneof![
            selector().prop_map(|s| json!({ "namespaces": s })),
            pods().prop_map(|p| json!({ "pods": p })),
        ]
    };
    let networks = prop::sample::subsequence(
        vec![
            "0.0.0.0/0",
            "10.244.1.0/24",
            "10.244.1.2/32",
            "192.0.2.0/24",
            "10.88.0.3/32",
            "fd00::/8",
            "fd00:cf:244:1::/64",
            "fd00:cf:88::3/128",
        ],
        1..3,
    );
    let outside = prop_oneof![
        networks.prop_map(|n| json!({ "networks": n })),
        selector().prop_map(|s| json!({ "nodes": s })),
    ];
    let port = (0..PORTS.len(), 0..PORTS.len()).prop_map(|(a, b)| match a.cmp(&b) {
        std::cmp::Ordering::Equal => json!({ "destinationPort": { "number": PORTS[a] } }),
        _ => json!({ "destinationPort": { "range": { "start": PORTS[a.min(b)], "end": PORTS[a.max(b)] } } }),
    });
    let protocol = prop_oneof![
        3 => (prop::sample::select(vec!["tcp", "udp", "sctp"]), port).prop_map(|(p, port)| json!({ p: port })),
        1 => prop::sample::select(vec!["web", "dns"]).prop_map(|n| json!({ "destinationNamedPort": n })),
    ];
    let protocols = prop::option::of(prop::collection::vec(protocol, 1..3));
    let action = prop::sample::select(vec!["Accept", "Deny", "Pass"]);
    let ingress = (action.clone(), prop::collection::vec(subject(), 1..3), protocols.clone()).prop_map(
        |(action, from, protocols)| json!({ "action": action, "from": from, "protocols": protocols }),
    );
    let peer = prop_oneof![subject(), outside];
    let egress = (action, prop::collection::vec(peer, 1..3), protocols)
        .prop_map(|(action, to, protocols)| json!({ "action": action, "to": to, "protocols": protocols }));
    let rules = (prop::collection::vec(ingress, 0..3), prop::collection::vec(egress, 0..3));
    (0..4u8, any::<bool>(), 0..3i32, subject(), rules).prop_map(|(number, admin, priority, subject, rules)| {
        serde_json::from_value(json!({
            "metadata": { "name": format!("c{number}") },
            "spec": { "tier": if admin { "Admin" } else { "Baseline" }, "priority": priority, "subject": subject,
                      "ingress": rules.0, "egress": rules.1 },
        }))
        .unwrap()
    })
}

fn node() -> impl Strategy<Value = Node> {
    (1..3u8, labels()).prop_map(|(number, labels)| {
        let address = format!("10.88.0.{}", number + 1);
        let addresses = json!([{ "type": "InternalIP", "address": address },
                               { "type": "InternalIP", "address": twin(&address) },
                               { "type": "Hostname", "address": format!("node-{number}") }]);
        serde_json::from_value(json!({
            "metadata": { "name": format!("node-{number}"), "labels": labels }, "status": { "addresses": addresses },
        }))
        .unwrap()
    })
}

/// Something that a watch brings.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Step {
    Pod(Pod),
    NoPod(usize),
    Namespace(Namespace),
    NoNamespace(usize),
    Policy(NetworkPolicy),
    NoPolicy(usize),
    ClusterPolicy(ClusterNetworkPolicy),
    NoClusterPolicy(usize),
    Node(Node),
    NoNode(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => pod().prop_map(Step::Pod),
        2 => any::<usize>().prop_map(Step::NoPod),
        4 => namespace().prop_map(Step::Namespace),
        1 => any::<usize>().prop_map(Step::NoNamespace),
        6 => policy().prop_map(Step::Policy),
        2 => any::<usize>().prop_map(Step::NoPolicy),
        4 => cluster_policy().prop_map(Step::ClusterPolicy),
        2 => any::<usize>().prop_map(Step::NoClusterPolicy),
        2 => node().prop_map(Step::Node),
        1 => any::<usize>().prop_map(Step::NoNode),
    ]
}

fn put<T>(list: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) {
    match list.iter_mut().find(|other| same(other, &item)) {
        Some(other) => *other = item,
        None => list.push(item),
    }
}

impl Objects {
    /// Takes the step; gives what a node's compiler is told of it.
    fn take(&mut self, step: Step, node: &str) -> Option<Event> {
        fn pick<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
            (!list.is_empty()).then(|| list.remove(index % list.len()))
        }
        Some(match step {
            Step::Pod(pod) => {
                let event = Event::UpsertPod(PodRecord::from_api(&pod, node));
                put(&mut self.pods, pod, |a, b| a.metadata.uid == b.metadata.uid);
                event
            }
            Step::NoPod(index) => Event::RemovePod(pick(&mut self.pods, index)?.metadata.uid.unwrap()),
            Step::Namespace(namespace) => {
                let meta = namespace.metadata.clone();
                put(&mut self.namespaces, namespace, |a, b| a.metadata.name == b.metadata.name);
                Event::UpsertNamespace(meta.name.unwrap(), meta.labels.unwrap_or_default())
            }
            Step::NoNamespace(index) => {
                Event::RemoveNamespace(pick(&mut self.namespaces, index)?.metadata.name.unwrap())
            }
            Step::Policy(policy) => {
                let event = Event::UpsertPolicy(Policy::from_api(&policy).0);
                let key = |p: &NetworkPolicy| (p.metadata.namespace.clone(), p.metadata.name.clone());
                put(&mut self.policies, policy, |a, b| key(a) == key(b));
                event
            }
            Step::NoPolicy(index) => {
                let meta = pick(&mut self.policies, index)?.metadata;
                Event::RemovePolicy { namespace: meta.namespace.unwrap(), name: meta.name.unwrap() }
            }
            Step::ClusterPolicy(policy) => {
                let (parsed, error) = ClusterPolicy::from_api(&policy);
                assert_eq!(error, None);
                put(&mut self.cluster_policies, policy, |a, b| a.metadata.name == b.metadata.name);
                Event::UpsertClusterPolicy(parsed)
            }
            Step::NoClusterPolicy(index) => {
                Event::RemoveClusterPolicy(pick(&mut self.cluster_policies, index)?.metadata.name.unwrap())
            }
            Step::Node(node) => {
                let event = Event::UpsertNode(NodeRecord::from_api(&node));
                put(&mut self.nodes, node, |a, b| a.metadata.name == b.metadata.name);
                event
            }
            Step::NoNode(index) => Event::RemoveNode(pick(&mut self.nodes, index)?.metadata.name.unwrap()),
        })
    }
}

fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let ends = ADDRESSES
        .into_iter()
        .chain(["192.0.2.7", "10.244.9.9", "10.88.0.2", "10.88.0.3"])
        .map(|address| [ip(address), ip(&twin(address))])
        .collect::<Vec<_>>();
    let layer4 = prop_oneof![
        9 => (0..3usize, 0..PORTS.len()).prop_map(|(p, port)| Layer4::Port(Protocol::ALL[p], PORTS[port])),
        1 => Just(Layer4::Other(1)),
    ];
    let flow = (prop::sample::select(ends.clone()), prop::sample::select(ends), layer4, 0..2usize)
        .prop_map(|(client, server, layer4, of)| Flow { client: client[of], server: server[of], layer4 });
    prop::collection::vec(flow, 40)
}

/// The end of a table that has this address.
fn end_at(objects: &Objects, table: &Table, address: IpAddr) -> Option<usize> {
    let has = |pod: &Pod| PodRecord::from_api(pod, "").addresses.contains(&address);
    let pods = objects.pods.iter().enumerate().filter(|(_, pod)| has(pod));
    if let Some(end) = pods.filter_map(|(index, _)| table.end_of_pod(index)).next() {
        return Some(end);
    }
    let node = objects.nodes.iter().position(|n| NodeRecord::from_api(n).addresses.contains(&address));
    table.ends().iter().position(|end| match (end, node) {
        (End::Nodes(nodes), Some(node)) => nodes.contains(&node),
        (End::Outside { ranges, .. }, None) => {
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&address))
        }
        _ => false,
    })
}

/// The elements that an answer names are in the rule set, and lead to what the rule set itself says.
fn judged_alike(rules: &RuleSet, judgement: &Judgement, flow: &Flow) -> Result<(), String> {
    let subject = match judgement.direction {
        Direction::Egress => flow.client,
        Direction::Ingress => flow.server,
    };
    let has = |chain: &String| rules.chains.contains_key(&ir::ChainName(chain.clone()));
    let mut decides = None;
    for element in &judgement.elements {
        let there = match element {
            LiveElement::Verdict { element, chain, .. } => {
                decides = Some(chain);
                let found = rules.map(judgement.direction).get(&subject).map(|c| &c.0);
                element == &subject.to_string() && found == Some(chain)
            }
            LiveElement::Goto { chain, to } => {
                decides = Some(to);
                rules.chains[&ir::ChainName(chain.clone())].end == ir::End::Goto(ir::ChainName(to.clone()))
            }
            LiveElement::Element { chain, set, element } => {
                let shown = |e: &ir::Element| match e {
                    ir::Element::Address(address) => address.to_string(),
                    ir::Element::Cidr(cidr) => cidr.to_string(),
                    ir::Element::Port(address, port) => format!("{address} . {port}"),
                };
                let set = rules.sets.iter().find(|(name, _)| name.0 == *set).map(|(_, set)| set);
                has(chain) && set.is_some_and(|set| set.elements.iter().any(|e| shown(e) == *element))
            }
            LiveElement::Rule { chain, .. } | LiveElement::End { chain, .. } => has(chain),
        };
        if !there {
            return Err(format!("{element} is not there"));
        }
    }
    let exempt = matches!(judgement.reason, Reason::FromItsNode | Reason::Itself);
    let verdict = if exempt { ir::Verdict::NotIsolated } else { rules.look_up(judgement.direction, flow) };
    let chain = match &verdict {
        ir::Verdict::NotIsolated => None,
        ir::Verdict::Allowed { chain, .. } | ir::Verdict::AllowedAtEnd { chain } => Some(&chain.0),
        ir::Verdict::Denied { chain, .. } | ir::Verdict::Dropped { chain } => Some(&chain.0),
    };
    match chain == decides {
        true => Ok(()),
        false => Err(format!("{verdict:?} is by another chain than {decides:?}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_rule_sets_of_the_nodes_say_what_the_naive_evaluator_says(
        steps in prop::collection::vec(step(), 1..40), flows in flows(),
    ) {
        let mut objects = Objects::default();
        for step in steps {
            objects.take(step, "");
        }
        let nodes = [objects.rule_set_of("node-1", &BOTH), objects.rule_set_of("node-2", &BOTH)];
        let tables = ["10.244.0.0/16", "fd00:cf:244::/56"]
            .map(|range| Table::new(&objects.cluster(), ir::Cidr::parse(range).unwrap()));
        for flow in &flows {
            let explanation = reasons(&objects.cluster(), flow);
            // What a node sends to its own pods passes no chain.
            if explanation.ingress != Side::FromItsNode {
                let judged = nodes.iter().all(|rules| rules.judge(flow));
                prop_assert_eq!(judged, explanation.allowed, "{:?}: {:#?}", flow, explanation);
            }
            let table = &tables[usize::from(flow.client.is_ipv6())];
            let ends = [flow.client, flow.server].map(|address| end_at(&objects, table, address));
            if let [Some(from), Some(to)] = ends
                && flow.client != flow.server
                && explanation.ingress != Side::FromItsNode
            {
                let ports = table.ports(from, to);
                prop_assert_eq!(ports.contains(flow.layer4), explanation.allowed, "{:?} {}: {:#?}", flow, ports, table);
            }
            let answer = explain_flow(&objects.world(), flow);
            prop_assert_eq!(answer.allowed, explanation.allowed, "{:?}: {:#?} {:#?}", flow, explanation, answer);
            prop_assert_eq!(answer.egress.allowed, explanation.egress.allows());
            let live = |judgement: &Judgement, number: usize| judged_alike(&nodes[number], judgement, flow);
            for (judgement, party) in [(&answer.egress, &answer.client), (&answer.ingress, &answer.server)] {
                if let Some(node) = party.node.as_deref().and_then(|name| name.strip_prefix("node-")) {
                    prop_assert_eq!(live(judgement, node.parse::<usize>().unwrap() - 1), Ok(()), "{:#?}", judgement);
                }
            }
        }
    }

    #[test]
    fn a_history_and_its_outcome_give_the_same_rule_set(
        steps in prop::collection::vec((step(), any::<bool>()), 1..60),
    ) {
        let mut objects = Objects::default();
        let mut compiler = Compiler::new(&BOTH);
        let mut kernel = RuleSet::default();
        let mut batch = Vec::new();
        for (step, commit) in steps {
            batch.extend(objects.take(step, "node-1"));
            if !commit {
                continue;
            }
            let before = kernel.clone();
            let changes = compiler.apply(batch.drain(..));
            for change in &changes {
                prop_assert_eq!(kernel.apply(change), Ok(()), "{:#?}", &changes);
            }
            prop_assert_eq!(&kernel, &objects.rule_set_of("node-1", &BOTH));
            prop_assert_eq!(&changes, &diff(&before, &kernel), "the least there is to do, in order");
        }
    }
}
