//! A control process killed and started again in its directory: nothing is lost, nothing is refused.

mod common;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

const CHILD: &str = "COFFERDAM_TEST_CONTROL";

fn start(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_control_process_goes_on_where_it_was", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its sockets are bound before it says so; what connects then waits in the backlog.
    let ready =
        BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).any(|l| l == "bound");
    assert!(ready, "the control process did not start");
    child
}

fn curl(dir: &Path, arguments: &[&str], path: &str) -> Value {
    let out = Command::new("curl")
        .args(["-sS", "--max-time", "30", "-H", "content-type: application/json", "--unix-socket"])
        .arg(dir.join("run/control.sock"))
        .args(arguments)
        .arg(format!("http://c{path}"))
        .output()
        .unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn a_killed_control_process_goes_on_where_it_was() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let config = common::config(Path::new(&dir));
        println!("\nbound");
        panic!("{:?}", control::run_blocking(config));
    }
    if !common::has("curl", "a_killed_control_process_goes_on_where_it_was") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let services = "/api/v1/namespaces/default/services";
    let service = |address: &str| {
        json!({"metadata": {"generateName": "s-"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
            .to_string()
    };
    let mut child = start(dir);
    let made = curl(dir, &["-d", &service("10.96.0.77")], services);
    assert_eq!(made["spec"]["clusterIP"], "10.96.0.77", "{made}");
    child.kill().unwrap();
    child.wait().unwrap();

    let mut child = start(dir);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert_eq!(curl(dir, &[], &format!("{services}/{name}")), made);
    assert_eq!(curl(dir, &[], &format!("{services}/kubernetes"))["spec"]["clusterIP"], "10.96.0.1");
    let taken = curl(dir, &["-d", &service("10.96.0.77")], services);
    assert!(taken["message"].as_str().unwrap().contains("provided IP is already allocated"), "{taken}");
    child.kill().unwrap();
    child.wait().unwrap();
}
