//! Three oracles for network policy, on a table of policies: the naive evaluator over the API objects, the rule sets of
//! the nodes, and packets between all pairs of pods, TCP and UDP. Each row is reached as a difference from the one before.

mod net_common;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV4};

use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use net_common::*;
use node::net::{NamedPort, Protocol};
use policy::network_policy::{self, Compiler, Event, Flow, Layer4, PodRecord, Policy, ir};
use serde_json::json;
use testkit::net::{Probe, Transport};

const TCP: [u16; 3] = [80, 5432, 8080];
const UDP: [u16; 2] = [53, 5432];

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
        "policyTypes without Ingress leaves ingress alone",
        &[("foo", "{podSelector: {}, policyTypes: [Egress], ingress: [], egress: [{}]}")],
    ),
];

struct World {
    cluster: Cluster,
    pods: Vec<Pod>,
    objects: Vec<ApiPod>,
    namespaces: Vec<Namespace>,
    /// What each node's compiler says, fed with the same events.
    compilers: Vec<Compiler>,
}

impl World {
    fn new() -> World {
        let cluster = Cluster::new(2);
        let mut pods = Vec::new();
        let mut objects = Vec::new();
        for (node, namespace, name, labels, web) in PODS {
            let mut net = pod(namespace, name, labels);
            net.named_ports = vec![NamedPort { name: "web".into(), protocol: Protocol::Tcp, port: web }];
            let uid = net.uid.clone();
            let pod = cluster.nodes[node].pod(net);
            pod.netns.echo(&TCP, &UDP).unwrap();
            let labels: BTreeMap<_, _> = labels.iter().copied().collect();
            let object = json!({
                "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": labels},
                "spec": {"nodeName": node_name(node), "containers": [
                    {"name": "c", "ports": [{"name": "web", "containerPort": web}]}]},
                "status": {"phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}],
                    "hostIP": cluster.nodes[node].addresses.v4.node_ip},
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
        let compilers = cluster.nodes.iter().map(|_| Compiler::new(&[ir::Family::V4])).collect();
        let mut world = World { cluster, pods, objects, namespaces, compilers };
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

    /// What the rule sets of both nodes say.
    fn rule_sets_allow(&self, flow: &Flow) -> bool {
        // A node always reaches its own pods: that packet is not forwarded.
        let own_node = self.cluster.nodes.iter().any(|node| {
            IpAddr::V4(node.addresses.v4.node_ip) == flow.client
                && matches!(flow.server, IpAddr::V4(v4) if node.addresses.v4.pod_cidr.contains(v4))
        });
        own_node || self.compilers.iter().all(|compiler| compiler.rule_set().judge(flow))
    }

    /// Probes all pairs; says every disagreement.
    fn check(&self, row: &str, policies: &[NetworkPolicy]) -> Vec<String> {
        let objects = network_policy::Cluster {
            pods: &self.objects,
            namespaces: &self.namespaces,
            nodes: &[],
            policies,
            cluster_policies: &[],
        };
        let mut wrong = Vec::new();
        let nodes = self
            .cluster
            .nodes
            .iter()
            .map(|node| (&node.netns, node.addresses.v4.node_ip, "a node".to_string()));
        let pods = self
            .pods
            .iter()
            .map(|pod| (&pod.netns, pod.ip, format!("{}/{}", pod.net.namespace, pod.net.name)));
        let clients: Vec<_> = pods.chain(nodes).collect();
        let results: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = clients
                .iter()
                .map(|(netns, ip, _)| {
                    let probes: Vec<(Probe, bool)> = self
                        .pods
                        .iter()
                        .flat_map(|server| {
                            let tcp = TCP.map(|port| (server, port, Transport::Tcp, ir::Protocol::Tcp));
                            let udp = UDP.map(|port| (server, port, Transport::Udp, ir::Protocol::Udp));
                            tcp.into_iter().chain(udp)
                        })
                        .map(|(server, port, transport, protocol)| {
                            let flow = Flow {
                                client: IpAddr::V4(*ip),
                                server: IpAddr::V4(server.ip),
                                layer4: Layer4::Port(protocol, port),
                            };
                            let naive = network_policy::evaluate(&objects, &flow);
                            assert_eq!(
                                naive,
                                self.rule_sets_allow(&flow),
                                "{row}: {flow:?}: evaluator, rule sets"
                            );
                            (Probe { to: SocketAddrV4::new(server.ip, port), transport }, naive)
                        })
                        .collect();
                    scope.spawn(move || (netns.probe(&probes).unwrap(), probes))
                })
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for ((_, _, client), (answers, probes)) in clients.iter().zip(results) {
            for (answer, (probe, expected)) in answers.into_iter().zip(probes) {
                if answer != expected {
                    wrong.push(format!("{row}: {client} → {probe:?}: expected {expected}, seen {answer}"));
                }
            }
        }
        for node in &self.cluster.nodes {
            wrong.extend(node.net.verify().unwrap().into_iter().map(|line| format!("{row}: {line}")));
        }
        wrong
    }
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

#[test]
fn packets_rule_sets_and_evaluator_agree_for_all_pairs() {
    needs_root!("packets_rule_sets_and_evaluator_agree_for_all_pairs");
    let mut world = World::new();
    let mut before: Vec<NetworkPolicy> = Vec::new();
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
        let key = |policy: &NetworkPolicy| (policy.metadata.namespace.clone(), policy.metadata.name.clone());
        let mut events: Vec<Event> = before
            .iter()
            .filter(|old| policies.iter().all(|new| key(new) != key(old)))
            .map(|old| Event::RemovePolicy {
                namespace: old.metadata.namespace.clone().unwrap(),
                name: old.metadata.name.clone().unwrap(),
            })
            .collect();
        for object in &policies {
            let (parsed, error) = Policy::from_api(object);
            assert_eq!(error, None, "{row}");
            events.push(Event::UpsertPolicy(parsed));
        }
        world.apply(&events);
        wrong.extend(world.check(row, &policies));
        before = policies;
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
    world.apply(&[Event::UpsertPolicy(Policy::from_api(&object).0)]);
    let policies = [object];
    assert_eq!(world.check("before", &policies), [""; 0]);
    // A namespace changes sides, and a pod ceases to be selected.
    for (index, tenant) in [(2, "other"), (3, "manning")] {
        let labels: BTreeMap<String, String> = [("tenant".to_string(), tenant.to_string())].into();
        let name = NAMESPACES[index].0;
        world.namespaces[index].metadata.labels = Some(labels.clone());
        world.apply(&[Event::UpsertNamespace(name.to_string(), labels)]);
        assert_eq!(world.check(tenant, &policies), [""; 0]);
    }
    world.objects[4].metadata.labels = None;
    let record = PodRecord::from_api(&world.objects[4], "");
    world.apply(&[Event::UpsertPod(record)]);
    assert_eq!(world.check("a pod without its label", &policies), [""; 0]);
}
