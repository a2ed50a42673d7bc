//! A cluster's life as its user sees it: up, pods, parts killed, down.

mod common;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    process::Command,
    time::Duration,
};

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

#[test]
fn a_data_directory_that_the_control_process_cannot_enter_is_refused_at_once() {
    if skipped("a_data_directory_that_the_control_process_cannot_enter_is_refused_at_once", false) {
        return;
    }
    let above = tempfile::tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(above.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let cluster = Cluster { data: above.path().join("data") };
    let refused = cluster.run(&["up"]);
    let words = format!("cannot enter {0}, which has no x bit for it", above.path().display());
    assert!(!refused.status.success() && text(&refused).contains(&words), "{}", text(&refused));
    assert!(text(&refused).contains(&format!("chmod o+x {}", above.path().display())), "{}", text(&refused));
    assert!(!cluster.data.exists(), "nothing is half made");
}

#[test]
fn who_is_not_root_is_told_what_to_do_and_gets_a_kubeconfig_of_their_own() {
    if skipped("who_is_not_root_is_told_what_to_do_and_gets_a_kubeconfig_of_their_own", false) {
        return;
    }
    let cluster = Cluster::up(1);
    // The program may lie where only root can go.
    let copy = cluster.data.join("cofferdam");
    fs::copy(env!("CARGO_BIN_EXE_cofferdam"), &copy).expect("copy the program");
    let nobody = |arguments: &[&str]| {
        let output = Command::new(&copy)
            .arg("--data-dir")
            .arg(&cluster.data)
            .args(arguments)
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .expect("run cofferdam");
        text(&output)
    };
    for (command, words) in [
        (["up"].as_slice(), "run it as root (sudo cofferdam up)"),
        (&["get", "pods"], "the cluster's sockets are root's: run this as root, or use kubectl"),
        (&["image", "ls"], "the nodes' images are root's: run this as root"),
        (&["kubeconfig", "--user", "x"], "the cluster's keys are root's: run this as root"),
        (&["kubeconfig", "-o", "/x"], "the cluster's keys are root's: run this as root"),
        (&["status"], "node-1   Unknown"),
    ] {
        let said = nobody(command);
        assert!(said.contains(words), "{command:?}: {said}");
    }
    // As behind sudo: the file is the user's, and nobody else's.
    let file = cluster.data.join("mine.conf");
    let made = Command::new(env!("CARGO_BIN_EXE_cofferdam"))
        .arg("--data-dir")
        .arg(&cluster.data)
        .args(["kubeconfig", "-o"])
        .arg(&file)
        .envs([("SUDO_UID", "65534"), ("SUDO_GID", "65534")])
        .output()
        .expect("run cofferdam");
    assert!(made.status.success(), "{}", text(&made));
    let metadata = fs::metadata(&file).expect("the file");
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (65534, 65534, 0o600));
    let written = fs::read_to_string(&file).expect("read");
    assert_eq!(written, fs::read_to_string(cluster.data.join("kubeconfig")).expect("read"));
    for name in ["mine.conf", "cofferdam"] {
        fs::remove_file(cluster.data.join(name)).expect("remove");
    }
}

#[test]
fn a_plan_reads_nothing_but_manifests_and_makes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let plan = |text: &str| {
        let file = dir.path().join("pod.yaml");
        fs::write(&file, text).expect("write");
        let output = Command::new(env!("CARGO_BIN_EXE_cofferdam"))
            .arg("--data-dir")
            .arg(&data)
            .args(["plan", "-f"])
            .arg(&file)
            .output()
            .expect("run cofferdam");
        assert!(!data.exists(), "a plan makes no data directory");
        (output.status.code(), self::text(&output))
    };
    let pod = |container: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, image: x, {container}}}]}}}}"
        )
    };
    for (manifest, code, words) in [
        (String::new(), 1, "nothing to plan"),
        ("just a text".to_owned(), 1, "\"just a text\" is not an object with apiVersion and kind"),
        ("{apiVersion: v1, kind: Service}".to_owned(), 1, "not of a Service of v1"),
        (
            pod("ports: [{containerPort: \"x\"}]"),
            1,
            "Pod p: json: cannot unmarshal string into Go struct field",
        ),
        (pod("comand: [a]"), 0, "warning: Pod p: unknown field \"spec.containers[0].comand\""),
    ] {
        let (is, said) = plan(&manifest);
        assert_eq!(is, Some(code), "{manifest}: {said}");
        assert!(said.contains(words), "{manifest}: {said}");
    }
}

#[test]
fn a_command_whose_reader_goes_away_ends_quietly() {
    let dir = tempfile::tempdir().expect("a directory");
    let manifest = dir.path().join("pods.yaml");
    let pod = |number: u32| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{number}}}, spec: {{containers: [{{name: c, image: x}}]}}}}\n---\n"
        )
    };
    // More than a pipe holds.
    fs::write(&manifest, (0..1000).map(pod).collect::<String>()).expect("write");
    let file = manifest.to_str().expect("a path");
    for command in [
        ["check", "-f", file].as_slice(),
        &["netpol", "table", "-f", file],
        &["plan", "-f", file],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output =
            Command::new(env!("CARGO_BIN_EXE_cofferdam")).args(command).stdout(writer).output().expect("run");
        assert_eq!((output.status.code(), text(&output).as_str()), (Some(141), ""), "{command:?}");
    }
}

#[test]
fn the_administrators_pod_security_is_kept_with_the_cluster() {
    if skipped("the_administrators_pod_security_is_kept_with_the_cluster", false) {
        return;
    }
    let cluster = Cluster::empty();
    let file = cluster.data.with_extension("yaml");
    let head = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n";
    let up = |text: &str| {
        fs::write(&file, format!("{head}{text}")).expect("write");
        cluster.run(&["up", "--pod-security-config", file.to_str().expect("a path")])
    };
    let wrong = text(&up("defaults: {enforce: strict}\n"));
    assert!(wrong.contains("defaults.enforce: Invalid value: \"strict\": must be one of"), "{wrong}");
    assert!(!cluster.data.join("cluster.json").exists(), "nothing is half made");
    let output = up("defaults: {enforce: baseline}\n");
    assert!(output.status.success(), "{}", text(&output));
    // Again with the same, and after the control process was started anew.
    let output = up("defaults: {enforce: baseline}\n");
    assert!(output.status.success(), "{}", text(&output));
    let other = text(&up("defaults: {enforce: restricted}\n"));
    assert!(other.contains("runs with another Pod Security configuration"), "{other}");
    let manifest = cluster.data.with_extension("pod.yaml");
    fs::write(&manifest, "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostPID: true, containers: [{name: c, image: x}]}}").expect("write");
    let refused = || text(&cluster.run(&["apply", "-f", manifest.to_str().expect("a path")]));
    let words =
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert!(refused().contains(words), "{}", refused());
    assert!(cluster.run(&["down", "--keep-data"]).status.success());
    let output = cluster.run(&["up"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(refused().contains(words), "{}", refused());
    for file in [file, manifest] {
        fs::remove_file(file).expect("remove");
    }
}

#[test]
fn a_cluster_has_the_ranges_it_was_asked_to_have() {
    if skipped("a_cluster_has_the_ranges_it_was_asked_to_have", false) {
        return;
    }
    let cluster = Cluster::empty();
    let wrong = cluster.run(&["up", "--pod-cidr", "10.96.0.0/12"]);
    assert!(
        text(&wrong).contains("--pod-cidr 10.96.0.0/12 and --service-cidr 10.96.0.0/16 overlap"),
        "{}",
        text(&wrong)
    );
    assert!(!cluster.data.join("cluster.json").exists(), "nothing is half made");
    let ranges =
        ["--pod-cidr", "172.30.0.0/16", "--service-cidr", "172.31.64.0/20", "--node-cidr", "192.168.99.0/24"];
    let up = cluster.run(&[&["up", "--nodes", "2"], ranges.as_slice()].concat());
    assert!(up.status.success(), "{}", text(&up));
    let other = cluster.run(&["up", "--nodes", "2", "--node-cidr", "192.168.98.0/24"]);
    assert!(
        text(&other).contains("the cluster has --node-cidr 192.168.99.0/24, not 192.168.98.0/24"),
        "{}",
        text(&other)
    );
    cluster.ok(&["up", "--nodes", "2"]);
    let path = cluster.data.join("tool.tar");
    fs::write(&path, node::images::tool_image()).expect("write an image");
    cluster.ok(&["image", "load", path.to_str().expect("a path")]);
    let pod = |name: &str, node: &str, args: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{nodeName: {node}, \
             terminationGracePeriodSeconds: 0, containers: [{{name: c, image: cofferdam/tool, args: {args}}}]}}}}"
        )
    };
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: server}, ports: [{port: 80}]}}";
    let manifest =
        [pod("server", "node-2", "[serve, '80']"), pod("client", "node-1", "[sleep, '600']"), service.into()];
    cluster.apply(&manifest.join("\n---\n"));
    let server = wait_for(&cluster, "server", "Running");
    let client = wait_for(&cluster, "client", "Running");
    assert_eq!(server["status"]["podIP"], "172.30.2.2");
    assert_eq!(client["status"]["hostIP"], "192.168.99.2");
    let service: serde_json::Value =
        serde_json::from_str(&cluster.ok(&["get", "service", "s", "-o", "json"])).expect("JSON");
    let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let block: std::net::Ipv4Addr = address.parse().expect("an address");
    assert_eq!(block.to_bits() >> 12, std::net::Ipv4Addr::new(172, 31, 64, 0).to_bits() >> 12, "{address}");
    for _ in 0..100 {
        // The endpoint is known to the client's node in a moment.
        if cluster.run(&["exec", "client", "--", "connect", &address, "80"]).status.success() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the Service {address} does not answer{}", cluster.logs());
}

#[test]
fn a_sandbox_that_cannot_be_taken_over_is_ended_made_anew_and_said() {
    if skipped("a_sandbox_that_cannot_be_taken_over_is_ended_made_anew_and_said", false) {
        return;
    }
    let cluster = Cluster::with_images(1);
    cluster.apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: busybox, command: [sleep, '600']}]}}");
    let before = wait_for(&cluster, "p", "Running");
    let uid = before["metadata"]["uid"].as_str().expect("a uid");
    // Whoever answers there now is no keeper: it hangs up.
    let socket = cluster.data.join("nodes/node-1/var-lib/cofferdam/pods").join(uid).join("keeper.sock");
    fs::remove_file(&socket).expect("remove the socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("listen");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    cluster.kill("agent");
    let mut last = serde_json::Value::Null;
    for _ in 0..400 {
        let list = cluster.run(&["get", "events", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap_or_default();
        let said =
            list["items"].as_array().into_iter().flatten().any(|event| {
                event["reason"] == "SandboxNotTakenOver" && event["involvedObject"]["name"] == "p"
            });
        let pod = cluster.run(&["get", "pod", "p", "-o", "json"]);
        last = serde_json::from_slice(&pod.stdout).unwrap_or_default();
        let anew =
            last["status"]["phase"] == "Running" && last["status"]["podIP"] != before["status"]["podIP"];
        if said && anew {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing was said, or the pod does not run anew: {}{}", last["status"], cluster.logs());
}

#[test]
fn up_in_the_foreground_stays_until_a_signal_and_ends_in_order() {
    if skipped("up_in_the_foreground_stays_until_a_signal_and_ends_in_order", false) {
        return;
    }
    use rustix::process::{Pid, Signal, kill_process};
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };
    let cluster = Cluster::empty();
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "Ctrl-C")] {
        let mut up = Command::new(env!("CARGO_BIN_EXE_cofferdam"))
            .arg("--data-dir")
            .arg(&cluster.data)
            .args(["up", "--foreground"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run cofferdam");
        let mut lines = BufReader::new(up.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("a line").expect("a line");
        assert!(first.contains("Ready"), "{first}");
        let id = id(&cluster);
        assert!(cluster.run(&["status"]).status.success(), "{name}: it runs");
        assert_eq!(up.try_wait().expect("wait"), None, "{name}: it stays");
        let pid = Pid::from_raw(i32::try_from(up.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("kill");
        assert!(up.wait().expect("wait").success(), "{name}{}", cluster.logs());
        assert_eq!(traces(&id), Default::default(), "{name}");
        for role in ["supervisor", "control", "agent", "node-init"] {
            assert!(cluster.pids(role).is_empty(), "{name}: {role} is still there");
        }
        // Objects and images stay for the next start; the second round has the same cluster.
        assert!(cluster.data.join("cluster.json").exists(), "{name}");
    }
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
fn up_applies_the_manifests_it_is_given() {
    if skipped("up_applies_the_manifests_it_is_given", false) {
        return;
    }
    let cluster = Cluster::empty();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/chapter");
    let absent = cluster.run(&["up", "-f", "/nonexistent.yaml"]);
    assert!(!absent.status.success() && text(&absent).contains("/nonexistent.yaml"), "{}", text(&absent));
    assert!(cluster.pids("supervisor").is_empty(), "a manifest that cannot be read starts no cluster");
    cluster.ok(&["up", "-f", examples]);
    for (namespace, policy) in [("foo", "default-deny"), ("shop", "shopping-cart")] {
        cluster.ok(&["get", "networkpolicy", policy, "-n", namespace]);
    }
    // The images of the chapter without a registry.
    let loaded = cluster.ok(&["image", "load", "--tool"]);
    assert!(loaded.contains("docker.io/library/nginx:latest"), "{loaded}");
    wait_for(&cluster, "secure-pod", "Running");
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

#[test]
fn what_needs_root_says_so_in_one_line() {
    if skipped("what_needs_root_says_so_in_one_line", false) {
        return;
    }
    // The program lies where nobody else may look: a copy for everybody.
    let directory =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = directory.path().join("cofferdam");
    fs::copy(env!("CARGO_BIN_EXE_cofferdam"), &program).unwrap();
    for command in ["up", "demo"] {
        let data = directory.path().join("data");
        let output = Command::new(&program)
            .uid(65534)
            .gid(65534)
            .arg("--data-dir")
            .arg(&data)
            .arg(command)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let want = format!(
            "cofferdam: `cofferdam {command}` makes namespaces and links: run it as root (sudo cofferdam {command})\n"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), want);
        assert!(!data.exists());
    }
}
