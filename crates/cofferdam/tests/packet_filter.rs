//! The node's packet filter under attack: what a privileged pod on the node's network does to it is seen, said, and mended,
//! and the policies hold again.

mod common;

use std::{process::Output, time::Duration};

use common::{Cluster, skipped, text};
use serde_json::Value;

fn until<T>(cluster: &Cluster, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not within 30 s{}", cluster.logs());
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

fn get(cluster: &Cluster, arguments: &[&str]) -> Value {
    json(&cluster.run(&[&["get"], arguments, &["-o", "json"]].concat()))
}

fn running(cluster: &Cluster, pod: &str) -> Value {
    until(cluster, pod, || {
        let pod = get(cluster, &["pod", pod]);
        (pod["status"]["phase"] == "Running").then_some(pod)
    })
}

/// The messages of events with that reason on that kind of object.
fn events(cluster: &Cluster, kind: &str, reason: &str) -> Vec<String> {
    let list = get(cluster, &["events"]);
    let of = |event: &&Value| event["involvedObject"]["kind"] == kind && event["reason"] == reason;
    let items = list["items"].as_array().into_iter().flatten();
    items.filter(of).filter_map(|event| event["message"].as_str().map(str::to_owned)).collect()
}

fn condition(cluster: &Cluster) -> Value {
    let node = get(cluster, &["node", "node-1"]);
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|one| one["type"] == "NetworkPolicyProgrammed").unwrap_or_default()
}

/// How many packets a pod has received by its eth0.
fn received(cluster: &Cluster, pod: &str) -> u64 {
    let table = cluster.ok(&["exec", pod, "--", "cat", "/proc/net/dev"]);
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("eth0:")).expect("eth0");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a counter")
}

const PODS: &str = r#"
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny}, spec: {podSelector: {matchLabels: {app: quiet}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: quiet, labels: {app: quiet}}, spec: {containers: [{name: c, image: cofferdam/tool, args: [serve, "80"]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: peer}, spec: {containers: [{name: c, image: cofferdam/tool, args: [knock, "7777", 10.244.1.0]}]}}
"#;

fn privileged(name: &str, args: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{hostNetwork: true, restartPolicy: Never, \
         terminationGracePeriodSeconds: 1, containers: [{{name: c, image: cofferdam/tool, args: {args}, \
         securityContext: {{privileged: true}}}}]}}}}"
    )
}

#[test]
fn a_privileged_pod_that_flushes_the_rule_set_is_seen_and_the_policies_hold_again() {
    if skipped("a_privileged_pod_that_flushes_the_rule_set_is_seen_and_the_policies_hold_again", false) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply(PODS);
    running(&cluster, "peer");
    let quiet = running(&cluster, "quiet")["status"]["podIP"].as_str().expect("an address").to_owned();
    assert_eq!(received(&cluster, "quiet"), 0, "the policy holds before");

    cluster.apply(&privileged("vandal", "[flush]"));
    let said = until(&cluster, "the event on the node", || {
        events(&cluster, "Node", "PacketFilterRepaired").into_iter().next()
    });
    assert!(said.starts_with("tool changed the node's packet filter; it was written again"), "{said}");
    let passed = received(&cluster, "quiet");
    // The peer knocks some hundred times a second, and goes on.
    let connect = cluster.run(&["exec", "peer", "--", "connect", &quiet, "80", "--timeout", "300"]);
    assert_eq!(connect.status.code(), Some(2), "{}", text(&connect));
    assert_eq!(received(&cluster, "quiet"), passed, "the policy holds again");
    eprintln!("{passed} packets passed while the rule set was gone");
    let held =
        until(&cluster, "the condition", || Some(condition(&cluster)).filter(|one| one["status"] == "True"));
    assert_eq!(held["reason"], "NetworkPolicyProgrammed");
}

#[test]
fn what_the_kernel_refuses_is_said_on_node_and_policy_until_it_is_in_force() {
    if skipped("what_the_kernel_refuses_is_said_on_node_and_policy_until_it_is_in_force", false) {
        return;
    }
    let cluster = Cluster::with_images(1);
    let at_first = until(&cluster, "the first condition", || {
        Some(condition(&cluster)).filter(|one| one["status"] == "True")
    });
    assert!(
        at_first["message"].as_str().is_some_and(|message| message.starts_with("0 network policies")),
        "{at_first}"
    );
    // A table with an owner: the kernel lets nobody else change it.
    cluster.apply(&privileged("squatter", "[seize, cofferdam]"));
    until(&cluster, "the condition", || Some(condition(&cluster)).filter(|one| one["status"] == "False"));
    assert!(!events(&cluster, "Node", "PacketFilterBroken").is_empty());
    cluster.apply(PODS);
    let said = until(&cluster, "the event on the policy", || {
        events(&cluster, "NetworkPolicy", "NetworkPolicyNotProgrammed").into_iter().next()
    });
    assert!(said.starts_with("the packet filter of node-1 could not be programmed: "), "{said}");
    let status = cluster.ok(&["status"]);
    assert!(status.contains("NOT IN FORCE") && status.contains("node-1: the packet filter"), "{status}");

    cluster.ok(&["delete", "pod", "squatter"]);
    until(&cluster, "the condition", || Some(condition(&cluster)).filter(|one| one["status"] == "True"));
    until(&cluster, "cofferdam status", || {
        let status = json(&cluster.run(&["status", "-o", "json"]));
        (status["nodes"][0]["networkPolicies"]["state"] == "current").then_some(())
    });
    let quiet = running(&cluster, "quiet")["status"]["podIP"].as_str().expect("an address").to_owned();
    running(&cluster, "peer");
    let connect = cluster.run(&["exec", "peer", "--", "connect", &quiet, "80", "--timeout", "300"]);
    assert_eq!(connect.status.code(), Some(2), "{}", text(&connect));
}
