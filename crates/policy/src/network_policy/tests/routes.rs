//! Where packets come to that a node translates: host ports, node ports, external addresses, and whom each side sees.

use serde_json::json;

use super::tables::{cluster, from};
use super::*;

/// Three nodes; `db` on node-2 has host port 9000, and another for one address of its node; Services of each kind, with one
/// endpoint on node-1 and one on node-2.
fn world() -> Objects {
    let mut objects = cluster(vec![]);
    let node = |index: u32, zone: &str| -> Node {
        from(
            json!({ "metadata": { "name": format!("node-{index}"), "labels": { "topology.kubernetes.io/zone": zone } },
            "status": { "addresses": [{ "type": "InternalIP", "address": format!("10.88.0.{}", index + 1) }] } }),
        )
    };
    objects.nodes = vec![node(1, "a"), node(2, "b"), node(3, "c")];
    objects.pods[1].spec.as_mut().unwrap().containers[0].ports = Some(from::<Vec<_>>(json!([
        { "containerPort": 5432, "hostPort": 9000 },
        { "containerPort": 53, "hostPort": 9053, "protocol": "UDP", "hostIP": "10.88.0.3" },
        { "containerPort": 54, "hostPort": 9054, "hostIP": "10.88.0.77" },
    ])));
    let service = |name: &str, number: u32, spec: serde_json::Value, status: serde_json::Value| -> Service {
        let mut object = json!({ "metadata": { "namespace": "foo", "name": name }, "status": status,
            "spec": { "clusterIP": format!("10.96.0.{number}"), "ports": [{ "port": 80 }] } });
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        from(object)
    };
    let ports = |number: u32| json!([{ "port": 80, "nodePort": number }]);
    let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.5" }] } });
    objects.services = vec![
        service("plain", 1, json!({}), json!({})),
        service("node", 2, json!({ "type": "NodePort", "ports": ports(30002) }), json!({})),
        service(
            "local",
            3,
            json!({ "type": "NodePort", "externalTrafficPolicy": "Local", "ports": ports(30003) }),
            json!({}),
        ),
        service("inside", 4, json!({ "internalTrafficPolicy": "Local" }), json!({})),
        service("outside", 5, json!({ "externalIPs": ["203.0.113.9"] }), json!({})),
        service(
            "guarded",
            6,
            json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24"], "ports": ports(30006) }),
            balanced,
        ),
        service("near", 7, json!({ "trafficDistribution": "PreferClose" }), json!({})),
        service("empty", 8, json!({ "type": "NodePort", "ports": ports(30008) }), json!({})),
    ];
    let slice = |name: &str, hints: bool| -> EndpointSlice {
        let endpoint = |address: &str, node: &str, zone: &str| {
            let hints = if hints { json!({ "forZones": [{ "name": zone }] }) } else { json!(null) };
            json!({ "addresses": [address], "nodeName": node, "hints": hints })
        };
        from(
            json!({ "metadata": { "namespace": "foo", "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4", "ports": [{ "name": "", "port": 8080 }],
            "endpoints": [endpoint("10.244.1.13", "node-1", "a"), endpoint("10.244.2.14", "node-2", "b")] }),
        )
    };
    objects.slices =
        ["plain", "node", "local", "inside", "outside", "guarded"].map(|name| slice(name, false)).into();
    objects.slices.push(slice("near", true));
    objects
}

fn ask(objects: &Objects, source: &str, destination: &str, port: &str) -> Answer {
    let name = |word: &str| Name::parse(word, "foo").unwrap();
    explain(&objects.world(), &name(source), &name(destination), Some(&PortWord::parse(port).unwrap()))
        .unwrap_or_else(|error| panic!("{source} {destination} {port}: {error}"))
}

/// `10.244.1.13:8080 as 10.88.0.3`: where each connection comes to, and as whom if not as the client; behind it the address
/// that the client's own policies see, if that is another.
fn ends(answer: &Answer) -> Vec<String> {
    let each = answer.connections.iter().map(|one| {
        let Layer4::Port(_, port) = one.port else { panic!("{one:?}") };
        let seen_as = one.seen_as.iter().map(|seen| format!(" as {}", seen.address));
        let sent_to = one.sent_to.iter().map(|sent| format!(" ({} {})", sent.to.address, shown(&sent.port)));
        format!("{}:{port}{}", one.server.address, seen_as.chain(sent_to).collect::<String>())
    });
    each.collect()
}

fn translations(answer: &Answer) -> String {
    let node = |one: &Translation| one.node.as_ref().and_then(|node| node.name.clone()).unwrap_or_default();
    let each = answer.translations.iter().map(|one| format!("{one} {}", node(one)).trim().to_string());
    each.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_packet_is_followed_through_the_node_that_translates_it() {
    let objects = world();
    let (here, there) = ("10.244.1.13:8080", "10.244.2.14:8080");
    let rows: &[(&str, &str, &str, &str, &[&str])] = &[
        // Host ports: of every address of the node, of one, and of none that it has.
        (
            "external",
            "node/node-2",
            "9000",
            "hostPort of foo/db (10.88.0.3) node-2",
            &["10.244.2.12:5432 (10.88.0.3 TCP 9000)"],
        ),
        (
            "external",
            "10.88.0.3",
            "9053/udp",
            "hostPort of foo/db (10.88.0.3) node-2",
            &["10.244.2.12:53 (10.88.0.3 UDP 9053)"],
        ),
        ("external", "node/node-2", "9053", "", &["10.88.0.3:9053"]),
        ("external", "node/node-2", "9054", "", &["10.88.0.3:9054"]),
        ("external", "node/node-1", "9000", "", &["10.88.0.2:9000"]),
        (
            "web",
            "node/node-2",
            "9000",
            "hostPort of foo/db (10.88.0.3) node-2",
            &["10.244.2.12:5432 (10.88.0.3 TCP 9000)"],
        ),
        // Its own node translates it before anybody judges it.
        ("bar/other", "node/node-2", "9000", "hostPort of foo/db (10.88.0.3)", &["10.244.2.12:5432"]),
        ("node/node-2", "node/node-2", "9000", "hostPort of foo/db (10.88.0.3)", &["10.244.2.12:5432"]),
        ("bar/other", "10.88.0.77", "9054", "hostPort of foo/db (10.88.0.77)", &["10.244.2.12:54"]),
        // Node ports: on every node; who is led on to another node comes as the node.
        (
            "external",
            "node/node-2",
            "30002",
            "node port of Service foo/node (NodePort, 10.88.0.3) node-2",
            &[
                "10.244.1.13:8080 as 10.88.0.3 (10.88.0.3 TCP 30002)",
                "10.244.2.14:8080 (10.88.0.3 TCP 30002)",
            ],
        ),
        (
            "external",
            "node/node-3",
            "30002",
            "node port of Service foo/node (NodePort, 10.88.0.4) node-3",
            &[
                "10.244.1.13:8080 as 10.88.0.4 (10.88.0.4 TCP 30002)",
                "10.244.2.14:8080 as 10.88.0.4 (10.88.0.4 TCP 30002)",
            ],
        ),
        (
            "web",
            "node/node-1",
            "30002",
            "node port of Service foo/node (NodePort, 10.88.0.2)",
            &[here, there],
        ),
        (
            "web",
            "node/node-2",
            "30002",
            "node port of Service foo/node (NodePort, 10.88.0.3) node-2",
            &[
                "10.244.1.13:8080 as 10.88.0.3 (10.88.0.3 TCP 30002)",
                "10.244.2.14:8080 (10.88.0.3 TCP 30002)",
            ],
        ),
        // Under Local, from outside; pods of other nodes are outside too, the node and its pods are not.
        (
            "external",
            "node/node-2",
            "30003",
            "node port of Service foo/local (NodePort, 10.88.0.3) node-2",
            &["10.244.2.14:8080 (10.88.0.3 TCP 30003)"],
        ),
        (
            "external",
            "node/node-3",
            "30003",
            "node port of Service foo/local (NodePort, 10.88.0.4) node-3",
            &[],
        ),
        ("web", "node/node-3", "30003", "node port of Service foo/local (NodePort, 10.88.0.4) node-3", &[]),
        (
            "node/node-3",
            "node/node-3",
            "30003",
            "node port of Service foo/local (NodePort, 10.88.0.4)",
            &[here, there],
        ),
        ("web", "node/node-2", "30008", "node port of Service foo/empty (NodePort, 10.88.0.3) node-2", &[]),
        // Addresses.
        ("web", "svc/plain", "80", "Service foo/plain (ClusterIP, 10.96.0.1)", &[here, there]),
        ("external", "svc/plain", "80", "", &[]),
        ("web", "svc/inside", "80", "Service foo/inside (ClusterIP, 10.96.0.4)", &[here]),
        ("node/node-3", "svc/inside", "80", "Service foo/inside (ClusterIP, 10.96.0.4)", &[]),
        ("web", "203.0.113.9", "80", "Service foo/outside (ClusterIP, 203.0.113.9)", &[here, there]),
        (
            "198.51.100.7",
            "203.0.113.5",
            "80",
            "Service foo/guarded (LoadBalancer, 203.0.113.5) node-1; \
          Service foo/guarded (LoadBalancer, 203.0.113.5) node-2; Service foo/guarded (LoadBalancer, 203.0.113.5) node-3",
            &[
                "10.244.1.13:8080 (203.0.113.5 TCP 80)",
                "10.244.2.14:8080 as 10.88.0.2 (203.0.113.5 TCP 80)",
                "10.244.1.13:8080 as 10.88.0.3 (203.0.113.5 TCP 80)",
                "10.244.2.14:8080 (203.0.113.5 TCP 80)",
                "10.244.1.13:8080 as 10.88.0.4 (203.0.113.5 TCP 80)",
                "10.244.2.14:8080 as 10.88.0.4 (203.0.113.5 TCP 80)",
            ],
        ),
        ("web", "203.0.113.5", "80", "Service foo/guarded (LoadBalancer, 203.0.113.5)", &[]),
        ("web", "10.96.0.6", "80", "Service foo/guarded (LoadBalancer, 10.96.0.6)", &[here, there]),
        // Hints: node-3 is in a zone without endpoints.
        ("web", "svc/near", "80", "Service foo/near (ClusterIP, 10.96.0.7)", &[here]),
        ("bar/other", "svc/near", "80", "Service foo/near (ClusterIP, 10.96.0.7)", &[there]),
        ("node/node-3", "svc/near", "80", "Service foo/near (ClusterIP, 10.96.0.7)", &[here, there]),
    ];
    for (source, destination, port, by, expected) in rows {
        let answer = ask(&objects, source, destination, port);
        assert_eq!(translations(&answer), *by, "{source} {destination} {port}");
        assert_eq!(ends(&answer), *expected, "{source} {destination} {port}");
        if expected.is_empty() {
            assert_eq!(answer.verdict, Outcome::Unreachable, "{source} {destination} {port}");
        }
    }
}

#[test]
fn why_nobody_is_reached_is_said() {
    let objects = world();
    for (source, destination, port, words) in [
        (
            "external",
            "node/node-3",
            "30003",
            "externalTrafficPolicy Local: node-3 has no endpoint, and drops",
        ),
        (
            "node/node-3",
            "svc/inside",
            "80",
            "internalTrafficPolicy Local: only endpoints on the client's node count",
        ),
        ("web", "node/node-2", "30008", "a Service without ready endpoints refuses connections at once"),
        (
            "external",
            "203.0.113.5",
            "80",
            "192.0.2.1 is in none of its loadBalancerSourceRanges: node-1 drops it",
        ),
        (
            "web",
            "203.0.113.5",
            "80",
            "10.244.1.11 is in none of its loadBalancerSourceRanges: the client's node drops it",
        ),
        ("external", "svc/plain", "80", "a ClusterIP is not reached from outside of the cluster"),
        ("external", "10.96.0.2", "80", "a ClusterIP is not reached from outside of the cluster"),
    ] {
        let notes = ask(&objects, source, destination, port).notes;
        assert!(notes.iter().any(|note| note.contains(words)), "{source} {destination} {port}: {notes:?}");
    }
}

/// Only node-2 may come to the endpoint on node-1, and the web server may send to node-2's address and no other.
#[test]
fn each_side_judges_what_it_sees() {
    let mut objects = world();
    let policy = |subject: &str, spec: serde_json::Value| {
        let mut spec = spec;
        spec["podSelector"] = json!({ "matchLabels": { "app": subject } });
        super::tables::policy(if subject == "webserver" { "foo" } else { "shop" }, spec)
    };
    objects.policies = vec![
        policy(
            "shopping-cart",
            json!({ "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.88.0.3/32" } }] }] }),
        ),
        policy(
            "webserver",
            json!({ "policyTypes": ["Egress"], "egress": [
                { "to": [{ "ipBlock": { "cidr": "10.88.0.3/32" } }], "ports": [{ "port": 30002 }] }] }),
        ),
    ];
    let allowed = |source: &str, destination: &str| -> Vec<bool> {
        ask(&objects, source, destination, "30002").connections.iter().map(|one| one.allowed).collect()
    };
    assert_eq!(allowed("web", "node/node-2"), [true, true]);
    // Translated before egress is judged: what is asked then is the endpoint.
    assert_eq!(allowed("web", "node/node-1"), [false, false]);
    assert_eq!(allowed("external", "node/node-2"), [true, true]);
    assert_eq!(allowed("external", "node/node-3"), [false, true]);
}
