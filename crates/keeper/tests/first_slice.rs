//! One container at a time: what runs, what it says, how it ends.

mod common;

use common::*;

#[test]
fn a_container_runs_logs_and_exits() {
    if !can_run("a_container_runs_logs_and_exits") {
        return;
    }
    let mut pod = Pod::new();
    let script = "echo out; echo err >&2; id -u; hostname; printf cut; exit 7";
    let (exit, log) = pod.output("c", spec(&["sh", "-c", script]));
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false), "{log}");
    for line in ["out", "err", "0", "test-host", "cut"] {
        assert!(log.lines().any(|seen| seen == line), "{line} in {log}");
    }
    let raw = pod.raw_log("c");
    let tags: Vec<&str> = raw.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert!(tags.contains(&"stdout") && tags.contains(&"stderr"), "{raw}");
    assert!(raw.lines().any(|line| line.ends_with(" stdout P cut")), "{raw}");
}
