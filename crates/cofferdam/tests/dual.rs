//! A cluster with both families as its user sees it.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use common::{Cluster, skipped, text};
use serde_json::Value;

fn object(cluster: &Cluster, arguments: &[&str]) -> Value {
    serde_json::from_str(&cluster.ok(&[arguments, &["-o", "json"]].concat())).expect("JSON")
}

/// What `up` may change of the machine's IPv6.
fn machine_ipv6() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        for name in ["forwarding", "accept_ra"] {
            let path = entry.path().join(name);
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap_or_default()));
        }
    }
    // Other tests' links come and go meanwhile.
    found.retain(|(path, _)| !path.contains("/cfd-"));
    found.sort();
    found
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: { name: both }
spec: { ipFamilyPolicy: RequireDualStack, selector: { app: server }, ports: [{ name: http, port: 8080, targetPort: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: six }
spec: { ipFamilies: [IPv6], type: NodePort, selector: { app: server }, ports: [{ port: 8080, targetPort: 80, nodePort: 31849 }] }
---
apiVersion: v1
kind: Service
metadata: { name: bare }
spec: { clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: { app: server }, ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: balanced }
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 31850
  ipFamilyPolicy: PreferDualStack
  selector: { app: server }
  ports: [{ port: 80 }]
";

/// Runs a command in the pod `client` until it prints this: a watch's news needs its moment.
fn until(cluster: &Cluster, command: &[&str], expected: impl Fn(&str) -> bool) {
    let mut last = String::new();
    for _ in 0..300 {
        let output = cluster.run(&[&["exec", "client", "--", "/bin/tool"], command].concat());
        last = text(&output);
        if expected(&last) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{command:?}: {last}{}", cluster.logs());
}

/// Services of the pod `server`, seen from the pod `client` on the other node.
fn services(cluster: &Cluster) {
    cluster.apply(SERVICES);
    let spec = |namespace: &str, name: &str| {
        object(cluster, &["get", "service", name, "-n", namespace])["spec"].clone()
    };
    let ips = |spec: &Value| -> Vec<String> {
        let list = spec["clusterIPs"].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let both = spec("default", "both");
    let addresses = ips(&both);
    assert_eq!(both["ipFamilies"], serde_json::json!(["IPv4", "IPv6"]));
    assert!(addresses[0].starts_with("10.96.") && addresses[1].starts_with("fd00:cf:96::"), "{addresses:?}");
    let six = ips(&spec("default", "six"));
    assert!(six.len() == 1 && six[0].starts_with("fd00:cf:96::"), "{six:?}");
    let kubernetes = spec("default", "kubernetes");
    assert_eq!(
        (ips(&kubernetes), &kubernetes["ipFamilyPolicy"]),
        (vec!["10.96.0.1".into()], &"SingleStack".into())
    );
    let dns = spec("kube-system", "kube-dns");
    assert_eq!(ips(&dns), ["10.96.0.10", "fd00:cf:96::a"]);

    let connected = |text: &str| text.contains("hostname: server");
    let node_port = [("fd00:cf:88::2", "31849"), ("fd00:cf:88::3", "31849")];
    let cluster_ips = addresses.iter().chain(&six).map(|ip| (ip.as_str(), "8080"));
    for (ip, port) in cluster_ips.chain(node_port) {
        until(cluster, &["connect", ip, port, "--get", "/"], connected);
    }
    // The machine's 127.0.0.1 leads to the Service that has IPv6 alone, too.
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 31849))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let answered = (0..100).any(|_| {
        let answered = asked().is_ok_and(|text| connected(&text));
        if !answered {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        answered
    });
    assert!(answered, "127.0.0.1:31849: {:?}{}", asked(), cluster.logs());
    for server in ["10.96.0.10", "fd00:cf:96::a"] {
        for (kind, address) in [("A", &addresses[0]), ("AAAA", &addresses[1])] {
            let expected = format!("both.default.svc.cluster.local {kind} {address}");
            let command = ["resolve", "both.default.svc.cluster.local", kind, "--server", server];
            until(cluster, &command, |text| text.trim() == expected);
        }
    }
    // A pod knows both addresses, so whichever it may reach will do.
    let listed = cluster.ok(&["exec", "client", "--", "/bin/tool", "cat", "/etc/resolv.conf"]);
    let servers: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("nameserver ")).collect();
    assert_eq!(servers, ["10.96.0.10", "fd00:cf:96::a"]);
    for (family, one_address) in [("::/0", "AAAA"), ("0.0.0.0/0", "A")] {
        cluster.apply(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: one-family}}, spec: {{podSelector: {{}}, \
             policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: '{family}'}}}}]}}]}}}}"
        ));
        let barred = servers[usize::from(family != "::/0")];
        until(cluster, &["resolve", "both", "A", "--server", barred], |text| !text.contains("both.default"));
        let address = &addresses[usize::from(one_address == "AAAA")];
        let expected = format!("both.default.svc.cluster.local {one_address} {address}");
        until(cluster, &["resolve", "both", one_address], |text| text.trim() == expected);
    }
    cluster.ok(&["delete", "networkpolicy", "one-family"]);
    for (kind, address) in [("A", "10.244.2.2"), ("AAAA", "fd00:cf:244:2::2")] {
        until(cluster, &["resolve", "bare", kind], |text| {
            text.trim().ends_with(&format!(" {kind} {address}"))
        });
    }

    // Balancers are told which node has an endpoint.
    for (host, count) in [("10.88.0.2", 0), ("10.88.0.3", 1), ("fd00:cf:88::2", 0), ("fd00:cf:88::3", 1)] {
        let body = serde_json::json!({
            "service": {"namespace": "default", "name": "balanced"}, "localEndpoints": count, "serviceProxyHealthy": true,
        });
        until(cluster, &["connect", host, "31850", "--get", "/"], |text| text.contains(&body.to_string()));
    }

    let slices = || -> Vec<String> {
        let list = object(cluster, &["get", "endpointslices", "-l", "kubernetes.io/service-name=both"]);
        let items = list["items"].as_array().into_iter().flatten();
        items
            .map(|slice| {
                format!(
                    "{} {}",
                    slice["addressType"].as_str().unwrap_or(""),
                    slice["endpoints"][0]["addresses"][0]
                )
            })
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    assert_eq!(slices(), ["IPv4 \"10.244.2.2\"", "IPv6 \"fd00:cf:244:2::2\""]);
    cluster.apply(&SERVICES.replace("RequireDualStack", "SingleStack"));
    let single = spec("default", "both");
    assert_eq!(
        (ips(&single), &single["ipFamilies"]),
        (vec![addresses[0].clone()], &serde_json::json!(["IPv4"]))
    );
    for _ in 0..100 {
        if slices().len() == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(slices(), ["IPv4 \"10.244.2.2\""]);
    // By the first packet: a client's second one goes after a second.
    let connect = ["connect", &addresses[1], "8080", "--timeout", "500"];
    until(cluster, &connect, |text| text.contains("refused"));
}

#[test]
fn pods_of_a_dual_cluster_have_both_families_and_reach_each_other_across_nodes() {
    const NAME: &str = "pods_of_a_dual_cluster_have_both_families_and_reach_each_other_across_nodes";
    if skipped(NAME, false) {
        return;
    }
    if !fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        testkit::skipped(NAME, "this kernel has no IPv6");
        return;
    }
    let before = machine_ipv6();
    let cluster = Cluster::empty();
    let up = cluster.run(&["up", "--nodes", "2", "--ip-family", "dual"]);
    assert!(up.status.success(), "{}{}", text(&up), cluster.logs());
    let other = cluster.run(&["up", "--nodes", "2", "--ip-family", "ipv4"]);
    assert!(text(&other).contains("the cluster has --ip-family dual, not ipv4"), "{}", text(&other));
    cluster.ok(&["up", "--nodes", "2"]);
    let path = cluster.data.join("tool.tar");
    fs::write(&path, node::images::tool_image()).expect("write an image");
    cluster.ok(&["image", "load", path.to_str().expect("a path")]);
    let pod = |name: &str, node: &str, args: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{nodeName: {node}, \
             terminationGracePeriodSeconds: 0, containers: [{{name: c, image: cofferdam/tool, args: {args}, env: [{{name: \
             IPS, valueFrom: {{fieldRef: {{fieldPath: status.podIPs}}}}}}]}}]}}}}"
        )
    };
    let pods =
        [pod("server", "node-2", "[serve, '80', --udp, '53']"), pod("client", "node-1", "[sleep, '600']")];
    cluster.apply(&pods.join("\n---\n"));
    let running = |name: &str| {
        for _ in 0..600 {
            let pod = object(&cluster, &["get", "pod", name]);
            if pod["status"]["phase"] == "Running" {
                return pod;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{name} does not run{}", cluster.logs());
    };
    let (server, client) = (running("server"), running("client"));
    let status = &server["status"];
    assert_eq!(status["podIP"], "10.244.2.2");
    assert_eq!(status["podIPs"], serde_json::json!([{ "ip": "10.244.2.2" }, { "ip": "fd00:cf:244:2::2" }]));
    assert_eq!(status["hostIPs"], serde_json::json!([{ "ip": "10.88.0.3" }, { "ip": "fd00:cf:88::3" }]));
    let node = object(&cluster, &["get", "node", "node-2"]);
    assert_eq!(node["spec"]["podCIDRs"], serde_json::json!(["10.244.2.0/24", "fd00:cf:244:2::/64"]));
    let internal: Vec<&str> = node["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str())
        .collect();
    assert_eq!(internal, ["10.88.0.3", "fd00:cf:88::3"]);

    for ip in ["10.244.2.2", "fd00:cf:244:2::2"] {
        for arguments in [&["connect", ip, "80"][..], &["connect", ip, "53", "--udp"]] {
            let output = cluster.run(&[&["exec", "client", "--"], arguments].concat());
            assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        }
    }
    services(&cluster);
    let hosts = cluster.ok(&["exec", "client", "--", "cat", "/etc/hosts"]);
    for ip in [&client["status"]["podIPs"][0]["ip"], &client["status"]["podIPs"][1]["ip"]] {
        let line = format!("{}\tclient", ip.as_str().expect("an address"));
        assert!(hosts.contains(&line), "{line:?} is not in\n{hosts}");
    }
    cluster.ok(&["down"]);
    assert_eq!(machine_ipv6(), before, "the machine's IPv6 is as it was");
}
