//! Three oracles for network policy, on a table of policies and on random ones: the naive evaluator over the API objects,
//! the rule sets of the nodes, and packets between all pairs of pods, TCP, UDP and SCTP, IPv4 and IPv6. Each set of
//! policies is reached as a difference from the one before.

mod net_common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kernel::conntrack;
use kernel::netlink::{Family, Socket};
use net_common::*;
use node::net::{NamedPort, Protocol};
use policy::network_policy::{self, Compiler, Event, Flow, Layer4, PodRecord, Policy, ir};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};
use testkit::wire::{Fate, Shot, Wire};

const PORTS: [(Protocol, u16); 7] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 5432),
    (Protocol::Tcp, 8080),
    (Protocol::Udp, 53),
    (Protocol::Udp, 5432),
    (Protocol::Sctp, 9899),
    (Protocol::Sctp, 5432),
];

/// (node, namespace, name, labels, port named `web`)
type PodRow = (usize, &'static str, &'static str, &'static [(&'static str, &'static str)], u16);

const PODS: [PodRow; 7] = [
    (0, "foo", "webserver", &[("app", "webserver"), ("tier", "front")], 80),
    (0, "foo", "database", &[("app", "database"), ("tier", "back")], 5432),
    (1, "foo", "webserver-2", &[("app", "webserver"), ("tier", "front"), ("canary", "yes")], 8080),
    (1, "foo", "other", &[], 80),
    (0, "shop", "shopping-cart", &[("app", "shopping-cart")], 80),
    (1, "tenant-a", "client", &[("app", "client")], 80),
    (0, "bar", "client", &[("app", "client")], 8080),
];

const NAMESPACES: [(&str, &[(&str, &str)]); 4] = [
    ("foo", &[("kubernetes.io/metadata.name", "foo")]),
    ("shop", &[("kubernetes.io/metadata.name", "shop")]),
    ("tenant-a", &[("tenant", "manning"), ("kubernetes.io/metadata.name", "tenant-a")]),
    ("bar", &[("tenant", "other")]),
];

/// A row: what it shows, and the policies of all namespaces (`namespace: spec`, YAML).
const ROWS: &[(&str, &[(&str, &str)])] = &[
    ("no policy", &[]),
    ("default deny", &[("foo", "{podSelector: {}}")]),
    ("default deny of egress", &[("foo", "{podSelector: {}, policyTypes: [Egress]}")]),
    ("default deny of both", &[("foo", "{podSelector: {}, policyTypes: [Ingress, Egress]}")]),
    ("an empty rule allows all", &[("foo", "{podSelector: {}, ingress: [{}], egress: [{}]}")]),
    (
        "podSelector and port",
        &[(
            "foo",
            "{podSelector: {matchLabels: {app: database}}, ingress: [{from: [{podSelector: {matchLabels: \
             {app: webserver}}}], ports: [{port: 5432}]}]}",
        )],
    ),
    (
        "the database rule beside a default deny",
        &[
            ("foo", "{podSelector: {}}"),
            (
                "foo",
                "{podSelector: {matchLabels: {app: database}}, ingress: [{from: [{podSelector: {matchLabels: \
                 {app: webserver}}}], ports: [{port: 5432}]}]}",
            ),
        ],
    ),
    (
        "namespaceSelector",
        &[(
            "shop",
            "{podSelector: {matchLabels: {app: shopping-cart}}, ingress: [{from: [{namespaceSelector: \
             {matchLabels: {tenant: manning}}}], ports: [{port: 80}]}]}",
        )],
    ),
    (
        "egress to the database only",
        &[(
            "foo",
            "{podSelector: {matchLabels: {app: webserver}}, policyTypes: [Egress], egress: [{to: [{podSelector: \
             {matchLabels: {app: database}}}], ports: [{port: 5432}]}]}",
        )],
    ),
    (
        "both selectors together",
        &[(
            "shop",
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {tenant: other}}, podSelector: \
             {matchLabels: {app: client}}}]}]}",
        )],
    ),
    (
        "both selectors apart",
        &[(
            "shop",
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {tenant: other}}}, {podSelector: \
             {matchLabels: {app: client}}}]}]}",
        )],
    ),
    (
        "every pod of every namespace, but nobody else",
        &[("foo", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}")],
    ),
    (
        "matchExpressions",
        &[(
            "foo",
            "{podSelector: {matchExpressions: [{key: tier, operator: In, values: [back, middle]}]}, ingress: \
             [{from: [{podSelector: {matchExpressions: [{key: canary, operator: DoesNotExist}, {key: app, operator: \
             Exists}]}}, {namespaceSelector: {matchExpressions: [{key: tenant, operator: NotIn, values: [manning]}]}}]}]}",
        )],
    ),
    (
        "ipBlock and except",
        &[(
            "foo",
            "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, \
             except: [10.244.2.0/24]}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.1.2/31, \
             10.88.0.0/16]}}]}]}",
        )],
    ),
    (
        "endPort",
        &[(
            "foo",
            "{podSelector: {}, ingress: [{ports: [{port: 79, endPort: 81}, {port: 5000, endPort: 5999, protocol: UDP}]}]}",
        )],
    ),
    ("a protocol without port", &[("foo", "{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}")]),
    ("a named port of ingress", &[("foo", "{podSelector: {}, ingress: [{ports: [{port: web}]}]}")]),
    (
        "a named port of egress is the server's",
        &[(
            "foo",
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}, {port: 53, protocol: UDP}]}]}",
        )],
    ),
    (
        "policies add up",
        &[
            ("foo", "{podSelector: {matchLabels: {app: database}}, ingress: [{ports: [{port: 80}]}]}"),
            (
                "foo",
                "{podSelector: {matchLabels: {tier: back}}, ingress: [{ports: [{port: 53, protocol: UDP}]}]}",
            ),
            (
                "foo",
                "{podSelector: {matchLabels: {app: webserver}}, policyTypes: [Egress], egress: [{to: [{podSelector: \
                 {}}]}]}",
            ),
        ],
    ),
    (
        "both ends must allow",
        &[
            (
                "bar",
                "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 80}]}]}",
            ),
            ("foo", "{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 5432}]}]}"),
        ],
    ),
    (
        "ipBlock and except of IPv6 says nothing of IPv4",
        &[(
            "foo",
            "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 'fd00:cf::/32', \
             except: ['fd00:cf:244:2::/64']}}]}], egress: [{to: [{ipBlock: {cidr: '::/0', except: \
             ['fd00:cf:244:1::2/127', 'fd00:cf:88::/64']}}]}]}",
        )],
    ),
    (
        "blocks of both families in one rule",
        &[(
            "foo",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.244.1.0/24}}, {ipBlock: {cidr: \
             'fd00:cf:244:2::/64'}}], ports: [{port: 80}, {port: 9899, protocol: SCTP}]}]}",
        )],
    ),
    (
        "several protocols on one port number",
        &[(
            "foo",
            "{podSelector: {}, ingress: [{ports: [{port: 5432}, {port: 5432, protocol: SCTP}]}, {from: [{podSelector: \
             {}}], ports: [{port: 5432, protocol: UDP}]}]}",
        )],
    ),
    (
        "SCTP by name, range and protocol",
        &[
            ("foo", "{podSelector: {}, ingress: [{ports: [{port: assoc, protocol: SCTP}]}]}"),
            (
                "foo",
                "{podSelector: {matchLabels: {app: database}}, ingress: [{ports: [{port: 5000, endPort: 6000, protocol: \
                 SCTP}]}]}",
            ),
            ("bar", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: SCTP}]}]}"),
        ],
    ),
    (
        "an empty list of peers is anyone",
        &[("foo", "{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}")],
    ),
    (
        "policyTypes by default: Ingress, and Egress where there are egress rules",
        &[
            ("bar", "{podSelector: {}}"),
            ("shop", "{podSelector: {}, egress: [{ports: [{port: 53, protocol: UDP}]}]}"),
        ],
    ),
    (
        "a policy of another namespace selects nobody here",
        &[("tenant-a", "{podSelector: {matchLabels: {app: webserver}}, policyTypes: [Ingress, Egress]}")],
    ),
    (
        "hostNetwork peers are blocks, not pods",
        &[("foo", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.88.0.0/24}}]}]}")],
    ),
    (
        "policyTypes without Ingress leaves ingress alone",
        &[("foo", "{podSelector: {}, policyTypes: [Egress], ingress: [], egress: [{}]}")],
    ),
];

struct World {
    cluster: Cluster,
    pods: Vec<Pod>,
    objects: Vec<ApiPod>,
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
    /// What each node's compiler says, fed with the same events.
    compilers: Vec<Compiler>,
    /// The pods in their order, then the nodes.
    wire: Wire,
    /// Of the fabric and the nodes.
    conntracks: Vec<Socket>,
    /// Each round of packets has a source port of its own: no round sees another's connections.
    round: u16,
}

impl World {
    fn new() -> World {
        let cluster = Cluster::dual(2);
        let mut pods = Vec::new();
        let mut objects = Vec::new();
        for (node, namespace, name, labels, web) in PODS {
            let mut net = pod(namespace, name, labels);
            let named = |name: &str, protocol, port| NamedPort { name: name.into(), protocol, port };
            net.named_ports = vec![named("web", Protocol::Tcp, web), named("assoc", Protocol::Sctp, 9899)];
            let uid = net.uid.clone();
            let pod = cluster.nodes[node].pod(net);
            let ips = |all: Vec<IpAddr>| all.into_iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
            let object = json!({
                "metadata": {"name": name, "namespace": namespace, "uid": uid,
                             "labels": labels.iter().copied().collect::<BTreeMap<_, _>>()},
                "spec": {"nodeName": node_name(node),
                         "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": web},
                                         {"name": "assoc", "containerPort": 9899, "protocol": "SCTP"}]}]},
                "status": {"phase": "Running", "podIP": pod.ip, "podIPs": ips(pod.ips()),
                           "hostIP": cluster.nodes[node].addresses.v4.node_ip,
                           "hostIPs": ips(cluster.nodes[node].ips())},
            });
            objects.push(serde_json::from_value(object).unwrap());
            pods.push(pod);
        }
        let namespaces = NAMESPACES
            .iter()
            .map(|(name, labels)| {
                let labels: BTreeMap<_, _> = labels.iter().copied().collect();
                serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
            })
            .collect();
        let families = [ir::Family::V4, ir::Family::V6];
        let compilers = cluster.nodes.iter().map(|_| Compiler::new(&families)).collect();
        let nodes = [&cluster.nodes[0], &cluster.nodes[1]];
        let ends: Vec<_> = pods.iter().map(|p| &p.netns).chain(nodes.map(|node| &node.netns)).collect();
        let wire = Wire::new(&ends, nodes.map(|node| (&node.netns, node.addresses.v4.node_ip))).unwrap();
        let conntracks = [cluster.fabric.netns(), nodes[0].netns.fd.as_fd(), nodes[1].netns.fd.as_fd()]
            .map(|netns| Socket::open_in(netns, Family::Netfilter).unwrap());
        let mut world = World {
            cluster,
            pods,
            objects,
            namespaces,
            policies: Vec::new(),
            compilers,
            wire,
            conntracks: conntracks.into(),
            round: 0,
        };
        let mut events: Vec<Event> =
            NAMESPACES.iter().map(|(name, labels)| namespace(name, labels)).collect();
        events.extend(world.objects.iter().map(|pod| Event::UpsertPod(PodRecord::from_api(pod, ""))));
        world.apply(&events);
        world
    }

    fn apply(&mut self, events: &[Event]) {
        for (index, compiler) in self.compilers.iter_mut().enumerate() {
            let localized = |event: &Event| match event {
                Event::UpsertPod(record) => {
                    let object =
                        self.objects.iter().find(|o| o.metadata.uid.as_deref() == Some(&record.uid)).unwrap();
                    Event::UpsertPod(PodRecord::from_api(object, &node_name(index)))
                }
                other => other.clone(),
            };
            let events: Vec<Event> = events.iter().map(localized).collect();
            compiler.apply(events.clone());
            self.cluster.nodes[index].net.apply(events).unwrap();
        }
    }

    /// These policies instead of those before, in one transaction.
    fn set_policies(&mut self, policies: &[NetworkPolicy]) {
        let key = |policy: &NetworkPolicy| (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        let gone = self.policies.iter().filter(|old| policies.iter().all(|new| key(new) != key(old)));
        let mut events: Vec<Event> = gone
            .map(|old| Event::RemovePolicy {
                namespace: old.metadata.namespace.clone().unwrap(),
                name: old.metadata.name.clone().unwrap(),
            })
            .collect();
        for object in policies {
            let (parsed, error) = Policy::from_api(object);
            assert_eq!(error, None, "{object:?}");
            events.push(Event::UpsertPolicy(parsed));
        }
        self.apply(&events);
        self.policies = policies.to_vec();
    }

    /// The addresses of an end, IPv4 first.
    fn ips(&self, end: usize) -> Vec<IpAddr> {
        match self.pods.get(end) {
            Some(pod) => pod.ips(),
            None => self.cluster.nodes[end - self.pods.len()].ips(),
        }
    }

    fn name(&self, end: usize) -> String {
        match self.pods.get(end) {
            Some(pod) => format!("{}/{}", pod.net.namespace, pod.net.name),
            None => node_name(end - self.pods.len()),
        }
    }

    /// One connection from every pod and node to every port of every pod, in both families.
    fn all_pairs(&mut self) -> Vec<(Shot, Flow)> {
        self.round += 1;
        let mut all = Vec::new();
        for client in 0..self.pods.len() + self.cluster.nodes.len() {
            for server in 0..self.pods.len() {
                for (from, to) in self.ips(client).into_iter().zip(self.ips(server)) {
                    for (protocol, port) in PORTS {
                        let layer4 = Layer4::Port(protocol, port);
                        let shot = Shot {
                            client,
                            from: SocketAddr::new(from, 20_000 + self.round),
                            server,
                            to: SocketAddr::new(to, port),
                            protocol: protocol.number(),
                        };
                        all.push((shot, Flow { client: from, server: to, layer4 }));
                    }
                }
            }
        }
        all
    }

    /// Holds the evaluator, the rule sets and packets against each other, for all pairs; says every disagreement.
    fn check(&mut self) -> Vec<String> {
        for socket in &mut self.conntracks {
            conntrack::flush(socket).unwrap();
        }
        let all = self.all_pairs();
        let objects = network_policy::Cluster {
            pods: &self.objects,
            namespaces: &self.namespaces,
            nodes: &[],
            policies: &self.policies,
            cluster_policies: &[],
        };
        let rule_sets: Vec<_> = self.compilers.iter().map(Compiler::rule_set).collect();
        // A node always reaches its own pods: that packet is not forwarded.
        let from_own_node = |shot: &Shot| {
            let node = shot.client.checked_sub(self.pods.len());
            node.is_some_and(|node| PODS[shot.server].0 == node)
        };
        let shots: Vec<Shot> = all.iter().map(|(shot, _)| *shot).collect();
        let fates = self.wire.fire(&shots).unwrap();
        let mut wrong = Vec::new();
        for ((shot, flow), fate) in all.iter().zip(fates) {
            let naive = network_policy::evaluate(&objects, flow);
            let rules = from_own_node(shot) || rule_sets.iter().all(|rules| rules.judge(flow));
            let expected = if naive { Fate::Answered } else { Fate::Lost };
            if naive != rules || fate != expected {
                wrong.push(format!(
                    "{} {} → {} {} by protocol {}: the evaluator says {naive}, the rule sets {rules}, the packets {fate:?}",
                    self.name(shot.client),
                    shot.from,
                    self.name(shot.server),
                    shot.to,
                    shot.protocol
                ));
            }
        }
        wrong
    }

    /// What the kernel holds is what is wanted.
    fn verify(&self) -> Vec<String> {
        self.cluster.nodes.iter().flat_map(|node| node.net.verify().unwrap()).collect()
    }
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

#[test]
fn packets_rule_sets_and_evaluator_agree_for_all_pairs() {
    needs_root!("packets_rule_sets_and_evaluator_agree_for_all_pairs");
    let mut world = World::new();
    let mut wrong = Vec::new();
    for (row, specs) in ROWS {
        let policies: Vec<NetworkPolicy> = specs
            .iter()
            .enumerate()
            .map(|(index, (namespace, spec))| {
                let yaml = format!("{{metadata: {{name: p{index}, namespace: {namespace}}}, spec: {spec}}}");
                serde_yaml::from_str(&yaml).unwrap()
            })
            .collect();
        world.set_policies(&policies);
        wrong.extend(world.check().into_iter().map(|line| format!("{row}: {line}")));
        wrong.extend(world.verify().into_iter().map(|line| format!("{row}: {line}")));
    }
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn relabelling_takes_effect_at_once() {
    needs_root!("relabelling_takes_effect_at_once");
    let mut world = World::new();
    let object: NetworkPolicy = serde_yaml::from_str(
        "{metadata: {name: p, namespace: shop}, spec: {podSelector: {matchLabels: {app: shopping-cart}}, ingress: \
         [{from: [{namespaceSelector: {matchLabels: {tenant: manning}}}]}]}}",
    )
    .unwrap();
    world.set_policies(&[object]);
    assert_eq!(world.check(), [""; 0]);
    // A namespace changes sides, and a pod ceases to be selected.
    for (index, tenant) in [(2, "other"), (3, "manning")] {
        let labels: BTreeMap<String, String> = [("tenant".to_string(), tenant.to_string())].into();
        let name = NAMESPACES[index].0;
        world.namespaces[index].metadata.labels = Some(labels.clone());
        world.apply(&[Event::UpsertNamespace(name.to_string(), labels)]);
        assert_eq!(world.check(), [""; 0], "{tenant}");
    }
    world.objects[4].metadata.labels = None;
    let record = PodRecord::from_api(&world.objects[4], "");
    world.apply(&[Event::UpsertPod(record)]);
    assert_eq!(world.check(), [""; 0], "a pod without its label");
}

/// A selector over the labels that are there, and one that is not.
fn selector() -> impl Strategy<Value = Value> {
    let pair = prop::sample::select(vec![
        ("app", "webserver"),
        ("app", "database"),
        ("app", "client"),
        ("tier", "front"),
        ("tenant", "manning"),
        ("tenant", "other"),
        ("nobody", "has"),
    ]);
    let operator = prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    let expression = (pair.clone(), operator).prop_map(|((key, value), operator)| match operator {
        "In" | "NotIn" => json!({"key": key, "operator": operator, "values": [value]}),
        _ => json!({"key": key, "operator": operator}),
    });
    prop_oneof![
        3 => Just(json!({})),
        4 => pair.prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
        2 => prop::collection::vec(expression, 1..3).prop_map(|all| json!({"matchExpressions": all})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    // Exceptions lie inside of their block, as the API server wants it.
    let v4 = (
        prop::sample::select(vec!["0.0.0.0/0", "10.0.0.0/8"]),
        prop::sample::subsequence(
            vec!["10.244.1.0/24", "10.244.2.2/32", "10.88.0.0/24", "10.244.1.2/31"],
            0..3,
        ),
    );
    let v6 = (
        prop::sample::select(vec!["::/0", "fd00::/8"]),
        prop::sample::subsequence(
            vec!["fd00:cf:244:1::/64", "fd00:cf:244:2::2/128", "fd00:cf:88::/64", "fd00:cf:244:1::2/127"],
            0..3,
        ),
    );
    let block = |(cidr, except): (&str, Vec<&str>)| json!({"ipBlock": {"cidr": cidr, "except": except}});
    prop_oneof![
        3 => selector().prop_map(|s| json!({"podSelector": s})),
        2 => selector().prop_map(|s| json!({"namespaceSelector": s})),
        2 => (selector(), selector()).prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
        1 => v4.prop_map(block),
        1 => v6.prop_map(block),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let one = || prop::sample::select(PORTS.to_vec());
    prop_oneof![
        1 => one().prop_map(|(protocol, _)| json!({"protocol": protocol.name()})),
        4 => one().prop_map(|(protocol, port)| json!({"protocol": protocol.name(), "port": port})),
        2 => (one(), 0..6000u16)
            .prop_map(|((protocol, port), more)| json!({"protocol": protocol.name(), "port": port, "endPort": port + more})),
        1 => Just(json!({"port": "web"})),
        1 => Just(json!({"protocol": "SCTP", "port": "assoc"})),
    ]
}

fn policies() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    let rule = |peers: &'static str| {
        (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..3))
            .prop_map(move |(from, ports)| json!({peers: from, "ports": ports}))
    };
    let namespace = prop::sample::select(NAMESPACES.map(|(name, _)| name).to_vec());
    let types = prop::option::of(prop::sample::subsequence(vec!["Ingress", "Egress"], 1..=2));
    let ingress = prop::collection::vec(rule("from"), 0..3);
    let egress = prop::collection::vec(rule("to"), 0..3);
    let one = (namespace, selector(), types, ingress, egress);
    prop::collection::vec(one, 1..5).prop_map(|all| {
        let object = |(index, (namespace, subject, types, ingress, egress))| {
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{index}"), "namespace": namespace},
                "spec": {"podSelector": subject, "policyTypes": types, "ingress": ingress, "egress": egress},
            }))
            .unwrap()
        };
        all.into_iter().enumerate().map(object).collect()
    })
}

#[test]
fn packets_rule_sets_and_evaluator_agree_on_random_policies() {
    needs_root!("packets_rule_sets_and_evaluator_agree_on_random_policies");
    let world = RefCell::new(World::new());
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let result = runner.run(&policies(), |policies| {
        let mut world = world.borrow_mut();
        world.set_policies(&policies);
        let mut wrong = world.check();
        if world.round.is_multiple_of(25) {
            wrong.extend(world.verify());
        }
        if wrong.is_empty() { Ok(()) } else { Err(TestCaseError::fail(wrong.join("\n"))) }
    });
    if let Err(TestError::Fail(why, minimal)) = &result {
        let documents: Vec<String> =
            minimal.iter().map(|policy| serde_yaml::to_string(policy).unwrap()).collect();
        panic!("the least policies that show it:\n{}\n{why}", documents.join("---\n"));
    }
    result.unwrap();
}
