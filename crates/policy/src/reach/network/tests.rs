use serde_json::{Value, json};

use super::claims;
use crate::network_policy::Cluster;
use crate::network_policy::explain::World;
use crate::network_policy::ir::Cidr;
use crate::reach::Probe;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(namespace: &str, name: &str, ip: &str, node: &str, on_host: bool) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
            "spec": { "nodeName": node, "hostNetwork": on_host, "containers": [{ "name": "c", "ports": [{ "containerPort": 5432 }] }] },
            "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "hostIP": "10.88.0.2" } })
}

/// (id, target, open, where the packet goes) of what the pod with this index reaches.
fn of(policies: &[Value], index: usize) -> Vec<(&'static str, String, bool, String)> {
    let pods = [
        pod("a", "web", "10.244.1.2", "node-1", false),
        pod("a", "db", "10.244.2.2", "node-2", false),
        pod("b", "one", "10.244.1.3", "node-1", false),
        pod("b", "two", "10.244.2.3", "node-2", false),
        pod("b", "agent", "10.88.0.2", "node-1", true),
    ]
    .map(from);
    let node = |name: &str, ip: &str| {
        from(
            json!({ "metadata": { "name": name }, "status": { "addresses": [{ "type": "InternalIP", "address": ip }] } }),
        )
    };
    let nodes = [node("node-1", "10.88.0.2"), node("node-2", "10.88.0.3")];
    let namespaces = ["a", "b", "default"].map(|name| from(json!({ "metadata": { "name": name } })));
    let policies: Vec<_> = policies.iter().cloned().map(from).collect();
    let services = [from(json!({ "metadata": { "namespace": "default", "name": "kubernetes" },
        "spec": { "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{ "name": "https", "port": 443, "targetPort": 6443 }] } }))];
    let slices = [from(
        json!({ "metadata": { "namespace": "default", "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.88.0.1"], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": 6443, "protocol": "TCP" }] }),
    )];
    let world = World {
        cluster: Cluster {
            pods: &pods,
            namespaces: &namespaces,
            nodes: &nodes,
            policies: &policies,
            cluster_policies: &[],
        },
        services: &services,
        slices: &slices,
    };
    claims(&world, index, &[Cidr::parse("10.244.0.0/16").unwrap()])
        .into_iter()
        .map(|claim| {
            assert!(!claim.because.is_empty() && claim.remedy.is_some(), "{claim:?}");
            let Probe::Packet { to, port } = claim.probe else { panic!("no packet") };
            (claim.id, claim.target, claim.open, format!("{to} {port}"))
        })
        .collect()
}

fn row(id: &'static str, target: &str, open: bool, packet: &str) -> (&'static str, String, bool, String) {
    (id, target.to_owned(), open, packet.to_owned())
}

#[test]
fn without_policies_everything_is_reached() {
    let everything = [
        row(
            "api-server",
            "the API server, svc default/kubernetes TCP 443",
            true,
            "default/svc/kubernetes 443",
        ),
        row("pods", "a/db: all ports", true, "a/pod/db 5432/tcp"),
        row("pods", "b/one,two: all ports", true, "b/pod/one 5432/tcp"),
        row("nodes", "the network of its own node node-1: all ports", true, "node/node-1 443/tcp"),
        row("nodes", "the network of node-2: all ports", true, "node/node-2 443/tcp"),
        row(
            "metadata",
            "the metadata service of a cloud, 169.254.169.254: all ports",
            true,
            "169.254.169.254 80/tcp",
        ),
        row("outside", "the world outside of the cluster: all ports", true, "192.0.2.1 443/tcp"),
    ];
    assert_eq!(of(&[], 0), everything);
}

#[test]
fn what_policies_leave_is_said_with_its_ports() {
    let egress = json!({ "metadata": { "namespace": "a", "name": "web" }, "spec": {
        "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"],
        "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }], "ports": [{ "port": 5432 }] },
                   { "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }], "ports": [{ "port": 53, "protocol": "UDP" }] }] } });
    let rows = of(&[egress], 0);
    let expected = [
        row(
            "api-server",
            "the API server, svc default/kubernetes TCP 443",
            false,
            "default/svc/kubernetes 443",
        ),
        row("pods", "a/db: TCP 5432", true, "a/pod/db 5432/tcp"),
        row("pods", "b/one,two", false, "b/pod/one 5432/tcp"),
        row("nodes", "the network of node-2", false, "node/node-2 443/tcp"),
        row("metadata", "the metadata service of a cloud, 169.254.169.254", false, "169.254.169.254 80/tcp"),
        row("outside", "the world outside of the cluster", false, "192.0.2.1 443/tcp"),
        row(
            "outside",
            "203.0.113.0 to 203.0.113.255, outside of the cluster: UDP 53",
            true,
            "203.0.113.0 53/udp",
        ),
    ];
    for row in expected {
        assert!(rows.contains(&row), "{row:?} in {rows:#?}");
    }
}

#[test]
fn a_pod_on_its_nodes_network_reaches_what_its_node_does() {
    let deny = json!({ "metadata": { "namespace": "b", "name": "deny" }, "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] } });
    let rows = of(&[deny], 4);
    // The node reaches its own pods whatever policies say; for those elsewhere it is a stranger.
    assert!(rows.contains(&row("pods", "a/web,db: all ports", true, "a/pod/web 5432/tcp")), "{rows:#?}");
    assert!(rows.contains(&row("pods", "b/one,two", false, "b/pod/one 5432/tcp")), "{rows:#?}");
}
