//! A cluster's life as its user sees it: up, pods, parts killed, down.

mod common;

use std::{fs, time::Duration};

use common::{Cluster, skipped, text, traces};

fn id(cluster: &Cluster) -> String {
    let file = fs::read_to_string(cluster.data.join("cluster.json")).expect("cluster.json");
    let value: serde_json::Value = serde_json::from_str(&file).expect("JSON");
    value["id"].as_str().expect("an id").to_owned()
}

fn forwarding() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read ip_forward")
}

#[test]
fn down_leaves_nothing_behind_also_after_everything_was_killed() {
    if skipped("down_leaves_nothing_behind_also_after_everything_was_killed", false) {
        return;
    }
    let cluster = Cluster::with_images(2);
    let id = id(&cluster);
    cluster.apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: busybox, command: [sleep, '600']}]}}");
    wait_for(&cluster, "p", "Running");
    assert!(!traces(&id).is_empty(), "a running cluster has a link and cgroups");
    for role in ["supervisor", "control", "agent", "node-init"] {
        cluster.kill(role);
    }
    let output = cluster.run(&["down"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(traces(&id), Default::default());
    for role in ["supervisor", "control", "agent", "node-init"] {
        assert!(cluster.pids(role).is_empty(), "{role} is still there");
    }
    assert!(!cluster.data.exists(), "the data directory is still there");
}

/// Waits for a pod's phase by what a user would run.
fn wait_for(cluster: &Cluster, pod: &str, phase: &str) -> serde_json::Value {
    let mut last = String::new();
    for _ in 0..200 {
        let output = cluster.run(&["get", "pod", pod, "-o", "json"]);
        last = text(&output);
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&output.stdout)
            && value["status"]["phase"] == phase
        {
            return value;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("pod {pod} is not {phase}: {last}{}", cluster.logs());
}

#[test]
fn pods_outlive_control_and_agent_and_are_taken_over() {
    if skipped("pods_outlive_control_and_agent_and_are_taken_over", false) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sleep, '600']}]}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sleep, '3']}]}}",
    );
    wait_for(&cluster, "p", "Running");
    wait_for(&cluster, "q", "Running");
    let (agent, control) = (cluster.pids("agent"), cluster.pids("control"));
    cluster.kill("control");
    cluster.kill("agent");
    for _ in 0..100 {
        let (now_agent, now_control) = (cluster.pids("agent"), cluster.pids("control"));
        if !now_agent.is_empty() && now_agent != agent && !now_control.is_empty() && now_control != control {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = wait_for(&cluster, "q", "Succeeded");
    assert_eq!(ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    let alive = wait_for(&cluster, "p", "Running");
    assert_eq!(
        alive["status"]["containerStatuses"][0]["restartCount"], 0,
        "the container was not started again"
    );
    cluster.ok(&["delete", "pod", "p", "--now"]);
}

#[test]
fn two_clusters_run_side_by_side() {
    if skipped("two_clusters_run_side_by_side", false) {
        return;
    }
    let before = forwarding();
    let (one, two) = (Cluster::up(1), Cluster::up(1));
    let ids = (id(&one), id(&two));
    assert_ne!(ids.0, ids.1);
    assert!(one.ok(&["get", "nodes"]).contains("Ready"));
    one.ok(&["down"]);
    assert!(two.ok(&["get", "nodes"]).contains("Ready"), "the other cluster is still there");
    two.ok(&["down"]);
    assert_eq!(traces(&ids.0), Default::default());
    assert_eq!(traces(&ids.1), Default::default());
    assert_eq!(forwarding(), before);
}

#[test]
fn the_demo_agrees_in_every_row() {
    if skipped("the_demo_agrees_in_every_row", false) {
        return;
    }
    let cluster = Cluster::empty();
    let output = cluster.run(&["demo", "-o", "json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("the demo failed: {}", text(&output)));
    for row in &rows {
        assert_eq!(row["agrees"], true, "{row}");
    }
    assert!(rows.len() >= 20, "only {} rows", rows.len());
    assert!(output.status.success());
}
