//! A cluster with both families as its user sees it.

mod common;

use std::fs;

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
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: {node}, \
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
    let hosts = cluster.ok(&["exec", "client", "--", "cat", "/etc/hosts"]);
    for ip in [&client["status"]["podIPs"][0]["ip"], &client["status"]["podIPs"][1]["ip"]] {
        let line = format!("{}\tclient", ip.as_str().expect("an address"));
        assert!(hosts.contains(&line), "{line:?} is not in\n{hosts}");
    }
    cluster.ok(&["down"]);
    assert_eq!(machine_ipv6(), before, "the machine's IPv6 is as it was");
}
