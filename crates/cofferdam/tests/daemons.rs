//! DaemonSets on real nodes, driven by kubectl.

mod common;

use common::{Cluster, skipped, text};

const OBJECTS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      hostNetwork: true
      containers: [{name: c, image: cofferdam/tool, command: [/bin/tool, sleep, infinity]}]
"#;

#[test]
fn a_daemon_set_runs_on_every_node_and_rolls_out_and_back() {
    if skipped("a_daemon_set_runs_on_every_node_and_rolls_out_and_back", true) {
        return;
    }
    let cluster = Cluster::with_images(3);
    cluster.apply(OBJECTS);
    let rolled_out = || {
        let said = cluster.kubectl_ok(&["rollout", "status", "ds/agent", "--timeout=60s"]);
        assert!(said.contains("successfully rolled out"), "{said}");
    };
    rolled_out();
    let nodes = || {
        let nodes = "jsonpath={.items[*].spec.nodeName}";
        let line = cluster.kubectl_ok(&["get", "pods", "-l", "app=agent", "-o", nodes]);
        let mut nodes: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        nodes.sort();
        nodes
    };
    assert_eq!(nodes(), ["node-1", "node-2", "node-3"]);
    let table = cluster.kubectl_ok(&["get", "ds"]);
    let row: Vec<&str> = table.lines().last().expect("a row").split_whitespace().collect();
    assert_eq!(row[..7], ["agent", "3", "3", "3", "3", "3", "<none>"], "{table}");

    cluster.kubectl_ok(&["set", "env", "ds/agent", "COLOR=blue"]);
    rolled_out();
    let env = |pod: &str| text(&cluster.kubectl(&["exec", pod, "--", "/bin/tool", "env"]));
    assert!(env("ds/agent").contains("COLOR=blue\n"), "{}", env("ds/agent"));
    let history = cluster.kubectl_ok(&["rollout", "history", "ds/agent"]);
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    cluster.kubectl_ok(&["rollout", "undo", "ds/agent"]);
    rolled_out();
    assert!(!env("ds/agent").contains("COLOR"), "{}", env("ds/agent"));
    cluster.kubectl_ok(&["rollout", "restart", "ds/agent"]);
    rolled_out();
    assert_eq!(nodes(), ["node-1", "node-2", "node-3"]);
    let described = cluster.kubectl_ok(&["describe", "ds", "agent"]);
    assert!(described.contains("Desired Number of Nodes Scheduled: 3"), "{described}");
    assert!(described.contains("SuccessfulCreate"), "{described}");
    // A drain leaves it where it is.
    let drained = cluster.kubectl_ok(&["drain", "node-2", "--ignore-daemonsets", "--timeout=30s"]);
    assert!(drained.contains("node-2 drained") || drained.contains("node/node-2 drained"), "{drained}");
    assert_eq!(nodes(), ["node-1", "node-2", "node-3"]);
    cluster.kubectl_ok(&["delete", "ds", "agent", "--timeout=30s"]);
    let output = cluster.kubectl(&["wait", "--for=delete", "pod", "-l", "app=agent", "--timeout=30s"]);
    assert!(output.status.success() || text(&output).contains("no matching resources"), "{}", text(&output));
}
