//! `cofferdam why --live`: what it says of the kernel, on a cluster with both families, and that nothing of it stays behind.

mod common;

use std::fs;
use std::os::fd::AsFd;

use common::{Cluster, skipped, text};
use kernel::netlink::{Family, Socket};
use kernel::nft::{self, Base, Chain, ChainKind, Expr, Hook, Rule, Table, Transaction, Verdict};
use serde_json::Value;

const OBJECTS: &str = r#"
{apiVersion: v1, kind: Pod, metadata: {name: server, labels: {app: server}}, spec: {nodeName: node-2, containers: [{name: c, image: cofferdam/tool, args: [serve, "80", --udp, "53"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: near, labels: {app: server}}, spec: {nodeName: node-1, containers: [{name: c, image: cofferdam/tool, args: [serve, "80"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: client, labels: {app: client}}, spec: {nodeName: node-1, containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, labels: {app: other}}, spec: {nodeName: node-1, containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bound, labels: {app: bound}}, spec: {nodeName: node-1, containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {nodeName: node-1, hostNetwork: true, containers: [{name: c, image: cofferdam/tool, args: [sleep, "600"]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: server}, spec: {podSelector: {matchLabels: {app: server}}, ingress: [
  {from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80, endPort: 81}, {protocol: UDP, port: 53}, {protocol: UDP, port: 54}, {protocol: SCTP, port: 7}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: bound}, spec: {podSelector: {matchLabels: {app: bound}}, policyTypes: [Egress]}}
---
{apiVersion: v1, kind: Service, metadata: {name: server}, spec: {selector: {app: server}, ports: [{port: 8080, targetPort: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: nobody}, spec: {selector: {app: nobody}, type: NodePort, ports: [{port: 80, nodePort: 30093}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ported, labels: {app: ported}}, spec: {nodeName: node-1, containers: [{name: c, image: cofferdam/tool, args: [serve, "80"], ports: [{containerPort: 80, hostPort: 9000}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: ported}, spec: {podSelector: {matchLabels: {app: ported}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: ported}, spec: {selector: {app: ported}, type: NodePort, ports: [{port: 80, nodePort: 30090}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: local}, spec: {selector: {app: other}, type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30091}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: open}, spec: {selector: {app: other}, type: NodePort, ipFamilyPolicy: PreferDualStack, externalIPs: [203.0.113.9], ports: [{port: 80, nodePort: 30092}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: balanced}, spec: {selector: {app: other}, type: LoadBalancer, loadBalancerSourceRanges: [198.51.100.0/24], ports: [{port: 80}]}}
"#;

/// (source, destination, port, exit code, the kernel's word, words of the reason)
const CASES: &[(&str, &str, &str, i32, &str, &str)] = &[
    ("client", "server", "80", 0, "passes", "10.244.2.2:80 on node-2, which accepts"),
    ("client", "server", "81", 0, "refused", "where nobody listens"),
    ("client", "server", "53/udp", 0, "passes", "10.244.2.2:53 on node-2"),
    ("client", "server", "54/udp", 0, "refused", "where nobody listens"),
    ("client", "server", "7/sctp", 0, "", "10.244.2.2:7 on node-2"),
    ("client", "near", "80", 0, "passes", "on node-1, which accepts"),
    ("client", "server", "82", 1, "dropped", "node-2, table inet cofferdam, chain ingress-"),
    ("client", "server", "icmp", 1, "dropped", "node-2, table inet cofferdam, chain ingress-"),
    ("client", "other", "icmp", 0, "passes", "on node-1, which accepts"),
    ("other", "server", "80", 1, "dropped", "its last rule"),
    ("other", "server", "53/udp", 1, "dropped", "its last rule"),
    ("other", "server", "7/sctp", 1, "dropped", "its last rule"),
    ("other", "near", "80", 1, "dropped", "node-1, table inet cofferdam, chain ingress-"),
    ("bound", "client", "80", 1, "dropped", "node-1, table inet cofferdam, chain egress-"),
    ("bound", "external", "443", 1, "dropped", "chain egress-"),
    ("bound", "svc/server", "8080", 1, "dropped", "chain egress-"),
    ("client", "svc/server", "8080", 0, "passes", "which accepts"),
    ("other", "svc/server", "8080", 1, "dropped", "chain ingress-"),
    ("client", "svc/nobody", "80", 1, "refused", "node-1, table inet cofferdam, chain refuse"),
    // An empty datagram, which a name server takes and says nothing to.
    ("client", "kube-system/svc/kube-dns", "53/udp", 0, "passes", "which does not answer"),
    ("client", "fd00:cf:244:2::2", "80", 0, "passes", "[fd00:cf:244:2::2]:80 on node-2, which accepts"),
    ("client", "fd00:cf:244:2::2", "54/udp", 0, "refused", "where nobody listens"),
    ("client", "fd00:cf:244:2::2", "icmp", 1, "dropped", "chain ingress-"),
    ("other", "fd00:cf:244:2::2", "80", 1, "dropped", "chain ingress-"),
    ("client", "external", "443", 0, "passes", "it left node-1 for the world"),
    ("client", "2001:db8::1", "53/udp", 0, "passes", "it left node-1 for the world"),
    ("external", "client", "80", 0, "refused", "where nobody listens"),
    ("external", "server", "80", 1, "dropped", "chain ingress-"),
    ("2001:db8::1", "client", "80", 0, "refused", "where nobody listens"),
    ("node/node-2", "server", "80", 0, "passes", "which accepts"),
    ("node/node-1", "server", "80", 1, "dropped", "node-2"),
    ("host", "near", "80", 0, "passes", "which accepts"),
    ("client", "node/node-2", "9", 0, "refused", "10.88.0.3:9 on node-2, where nobody listens"),
    ("bound", "node/node-1", "9", 1, "dropped", "chain egress-"),
    ("server", "server", "80", 2, "not probed", "never leaves its own network"),
    // A host port, from its own node, from another, from outside; and where the port is nobody's.
    ("client", "node/node-1", "9000", 0, "passes", ":80 on node-1, which accepts"),
    ("server", "node/node-1", "9000", 1, "dropped", "node-1, table inet cofferdam, chain ingress-"),
    ("external", "node/node-1", "9000", 1, "dropped", "node-1, table inet cofferdam, chain ingress-"),
    ("client", "node/node-2", "9000", 0, "refused", "10.88.0.3:9000 on node-2, where nobody listens"),
    // A node port: node-2 stands in for who comes through it to a pod of node-1.
    ("client", "node/node-1", "30090", 0, "passes", ":80 on node-1, which accepts"),
    ("client", "node/node-2", "30090", 1, "dropped", "node-1, table inet cofferdam, chain ingress-"),
    ("external", "node/node-1", "30090", 1, "dropped", "node-1, table inet cofferdam, chain ingress-"),
    ("external", "node/node-2", "30092", 0, "refused", ":80 on node-1, where nobody listens"),
    ("external", "svc/open", "80", 0, "refused", ":80 on node-1, where nobody listens"),
    ("2001:db8::1", "fd00:cf:88::3", "30092", 0, "refused", "]:80 on node-1, where nobody listens"),
    ("client", "fd00:cf:88::3", "30092", 0, "refused", "]:80 on node-1, where nobody listens"),
    ("external", "node/node-2", "30093", 1, "refused", "node-2, table inet cofferdam, chain refuse"),
    // externalTrafficPolicy Local.
    ("external", "node/node-1", "30091", 0, "refused", ":80 on node-1, where nobody listens"),
    ("external", "node/node-2", "30091", 1, "dropped", "node-2, table inet cofferdam, chain input"),
    ("client", "node/node-2", "30091", 1, "dropped", "node-2, table inet cofferdam, chain input"),
    // Addresses that lead to some node.
    ("external", "203.0.113.9", "80", 0, "refused", ":80 on node-1, where nobody listens"),
    ("client", "203.0.113.9", "80", 0, "refused", ":80 on node-1, where nobody listens"),
    ("198.51.100.7", "203.0.113.5", "80", 0, "refused", ":80 on node-1, where nobody listens"),
    (
        "external",
        "203.0.113.5",
        "80",
        1,
        "dropped",
        "node-1, table inet cofferdam, chain sources, its last rule",
    ),
    (
        "client",
        "203.0.113.5",
        "80",
        1,
        "dropped",
        "node-1, table inet cofferdam, chain sources, its last rule",
    ),
    ("external", "svc/server", "8080", 1, "", ""),
];

fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = cluster.run(arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

fn wait_for_pods(cluster: &Cluster) {
    for _ in 0..600 {
        let pods = json(cluster, &["get", "pods", "-A", "-o", "json"]);
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        // Those of the manifest, and the name server.
        if pods.len() >= 8 && pods.iter().all(ready) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("not all pods are ready{}", cluster.logs());
}

/// As a balancer's controller does.
fn give_balancer(cluster: &Cluster) {
    let body = r#"{"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}]}}}"#;
    let request = http::Request::patch("/api/v1/namespaces/default/services/balanced/status")
        .header("content-type", "application/merge-patch+json")
        .body(body.as_bytes().to_vec())
        .expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let socket = cluster.data.join("run/control.sock");
    let patched = runtime.block_on(async { node::client::unix(socket).request::<Value>(request).await });
    let patched = patched.expect("a status");
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.5");
}

/// In the network of a node.
fn in_node<T: Send>(cluster: &Cluster, node: &str, work: impl FnOnce() -> T + Send) -> T {
    let of_node = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|word| word == node)
    };
    let pid = cluster.pids("agent").into_iter().find(of_node).expect("the node's agent");
    let netns = fs::File::open(format!("/proc/{pid}/ns/net")).expect("the node's network");
    kernel::route::netns::run_in(netns.as_fd(), work).expect("enter the node's network")
}

/// A table of somebody else's that drops all that is forwarded.
fn foreign_table(there: bool) {
    let mut socket = Socket::open(Family::Netfilter).expect("a socket");
    let mut transaction = Transaction::new(nft::Family::Inet, "foreign");
    if there {
        let base = Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 10, drop: false });
        let rules = vec![Rule(vec![Expr::Verdict(Verdict::Drop)])];
        let mut table = Table::default();
        table.chains.insert("dark".into(), Chain { base, rules });
        transaction.add_table(None);
        transaction.add_all(&table);
    } else {
        transaction.delete_table();
    }
    transaction.commit(&mut socket).expect("a transaction");
}

#[test]
fn the_kernel_is_asked_with_one_packet_and_held_against_the_answer() {
    const NAME: &str = "the_kernel_is_asked_with_one_packet_and_held_against_the_answer";
    if skipped(NAME, false) {
        return;
    }
    if !fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        eprintln!("SKIPPED {NAME}: this kernel has no IPv6");
        return;
    }
    let cluster = Cluster::empty();
    let up = cluster.run(&["up", "--nodes", "2", "--ip-family", "dual"]);
    assert!(up.status.success(), "{}{}", text(&up), cluster.logs());
    cluster.load("tool", &node::images::tool_image());
    cluster.apply(OBJECTS);
    wait_for_pods(&cluster);
    give_balancer(&cluster);

    let mut wrong = Vec::new();
    for (source, destination, port, code, kernel, words) in CASES {
        let output = cluster.run(&["why", source, destination, port, "--live"]);
        let printed = text(&output);
        // One for each node, where any may take the packet. Nobody is asked where nobody is reached.
        let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("  kernel: ")).collect();
        let fits = |line: &&str| {
            line.starts_with(&format!("  kernel: {kernel}"))
                && (*code == 2 || line.contains(" — agrees: "))
                && (line.contains(words) || lines.len() > 1)
        };
        let told = match words.is_empty() {
            true => lines.is_empty(),
            false => lines.iter().all(fits) && lines.iter().any(|line| line.contains(words)),
        };
        if output.status.code() != Some(*code) || !told {
            wrong.push(format!(
                "{source} {destination} {port}: {code} {kernel} {words:?}, and it says\n{printed}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}{}", wrong.join("\n"), cluster.logs());

    let all = ["why", "other", "server", "80", "--live", "-o", "json"];
    let answer = json(&cluster, &all);
    assert_eq!(answer["verdict"], "denied");
    let live = &answer["live"][0];
    assert_eq!((&live["kernel"], &live["agrees"]), (&Value::from("dropped"), &Value::from(true)), "{live}");
    assert_eq!(
        (&live["stopped"]["node"], &live["stopped"]["rule"]["number"]),
        (&Value::from("node-2"), &live["stopped"]["rule"]["of"])
    );
    let chain = live["stopped"]["chain"].as_str().expect("a chain");
    let named = answer["connections"][0]["ingress"]["elements"].as_array().expect("elements");
    assert!(
        named.iter().any(|element| element["chain"] == chain),
        "the chain that the answer names: {answer}"
    );

    // Somebody else's rules count too, and are named.
    in_node(&cluster, "node-2", || foreign_table(true));
    let output = cluster.run(&["why", "client", "server", "80", "--live"]);
    in_node(&cluster, "node-2", || foreign_table(false));
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(3), "{printed}");
    let disagrees =
        "\n  kernel: dropped — DISAGREES: node-2, table inet foreign, chain dark, its last rule (1)\n";
    assert!(printed.contains(disagrees), "{printed}");
    assert!(printed.starts_with("ALLOWED: "), "{printed}");

    // Nothing of it stays, and no node takes it for somebody else's doing.
    for node in ["node-1", "node-2"] {
        let tables = in_node(&cluster, node, || {
            nft::tables(&mut Socket::open(Family::Netfilter).expect("a socket"), nft::Family::Inet)
        });
        let names: Vec<String> = tables.expect("tables").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cofferdam"], "{node}");
    }
    let events = json(&cluster, &["get", "events", "-A", "-o", "json"]);
    let repaired =
        events["items"].as_array().into_iter().flatten().filter(|e| e["reason"] == "PacketFilterRepaired");
    assert_eq!(repaired.count(), 0, "{events}");
}
