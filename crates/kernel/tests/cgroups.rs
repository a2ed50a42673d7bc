//! Cgroups of each version by itself, on whatever this machine has of them: limits hold, a kill reaches all, nothing is left.

use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use kernel::cgroup::{Cgroup, DeviceKind, DeviceRule, Hierarchies, Limits};
use rustix::process::Pid;
use testkit::{is_root, skipped};

/// This machine's hierarchies, if we may change them.
fn hierarchies(test: &str) -> Option<Hierarchies> {
    if !is_root(test) {
        return None;
    }
    match Hierarchies::find() {
        Ok(found) => Some(found),
        Err(error) => {
            skipped(test, error);
            None
        }
    }
}

fn only_v2(test: &str) -> Option<Hierarchies> {
    let found = hierarchies(test)?;
    if found.v2.is_none() {
        skipped(test, "no cgroup version 2 hierarchy");
        return None;
    }
    Some(Hierarchies { v1: Vec::new(), v2: found.v2 })
}

fn only_v1(test: &str) -> Option<Hierarchies> {
    let found = hierarchies(test)?;
    if found.v1.is_empty() {
        skipped(test, "no cgroup version 1 hierarchy");
        return None;
    }
    Some(Hierarchies { v1: found.v1, v2: None })
}

fn name(of: &str) -> String {
    format!("cfd-kernel-{of}-{}", std::process::id())
}

/// Only the null device.
fn null_only() -> Limits {
    let rule = DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    };
    let null = DeviceRule { allow: true, kind: DeviceKind::Char, major: Some(1), minor: Some(3), ..rule };
    Limits { devices: Some(vec![rule, null]), ..Limits::default() }
}

fn devices_are_limited(test: &str, hierarchies: Hierarchies) {
    let cgroup = Cgroup::new(Rc::new(hierarchies), Path::new(&name(test))).unwrap();
    cgroup.create(&null_only()).unwrap();
    // It waits until it has been moved.
    let mut child = Command::new("sh")
        .args(["-c", "read x; head -c 1 /dev/null && echo null; head -c 1 /dev/zero && echo zero"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    cgroup.add(Pid::from_child(&child), false).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    cgroup.remove().unwrap();
    assert_eq!(out, "null\n", "{err}");
    assert!(err.contains("Operation not permitted"), "{err}");
}

#[test]
fn devices_are_limited_by_a_program_on_version_2() {
    const TEST: &str = "devices_are_limited_by_a_program_on_version_2";
    if let Some(hierarchies) = only_v2(TEST) {
        devices_are_limited("dev2", hierarchies);
    }
}

#[test]
fn devices_are_limited_by_the_controller_on_version_1() {
    const TEST: &str = "devices_are_limited_by_the_controller_on_version_1";
    if let Some(hierarchies) = only_v1(TEST) {
        devices_are_limited("dev1", hierarchies);
    }
}

fn a_kill_reaches_all(test: &str, hierarchies: Hierarchies) {
    let cgroup = Cgroup::new(Rc::new(hierarchies), Path::new(&name(test)).join("below").as_path()).unwrap();
    cgroup.create(&Limits::default()).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "trap '' TERM INT; read x; sleep 1000 & setsid sleep 1000 & wait"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    cgroup.add(Pid::from_child(&child), false).unwrap();
    // It forks once it is inside.
    drop(child.stdin.take());
    for _ in 0..2000 {
        if cgroup.processes().unwrap().len() > 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(cgroup.remove().is_err(), "a cgroup with processes is not removed");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..2000 {
        if cgroup.processes().unwrap().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let top = Cgroup::new(Rc::new(Hierarchies::find().unwrap()), Path::new(&name(test))).unwrap();
    for _ in 0..200 {
        if top.remove().is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    top.remove().unwrap();
}

#[test]
fn a_kill_reaches_all_of_version_2() {
    if let Some(hierarchies) = only_v2("a_kill_reaches_all_of_version_2") {
        a_kill_reaches_all("kill2", hierarchies);
    }
}

#[test]
fn a_kill_reaches_all_of_version_1() {
    if let Some(hierarchies) = only_v1("a_kill_reaches_all_of_version_1") {
        a_kill_reaches_all("kill1", hierarchies);
    }
}

#[test]
fn a_limit_without_its_controller_is_an_error() {
    let Some(hierarchies) = only_v2("a_limit_without_its_controller_is_an_error") else { return };
    if hierarchies.v2.as_ref().is_some_and(|v2| v2.controllers.iter().any(|name| name == "memory")) {
        skipped("a_limit_without_its_controller_is_an_error", "version 2 has the memory controller here");
        return;
    }
    let cgroup = Cgroup::new(Rc::new(hierarchies), Path::new(&name("none"))).unwrap();
    let limits = Limits { memory: Some(1 << 20), ..Limits::default() };
    let error = cgroup.create(&limits).unwrap_err();
    cgroup.remove().unwrap();
    assert_eq!(error.to_string(), "memory limit: this machine has no memory cgroup controller");
}

#[test]
fn limits_are_read_back_from_the_files() {
    let Some(hierarchies) = only_v1("limits_are_read_back_from_the_files") else { return };
    let of = |controller: &str| {
        let found = hierarchies.v1.iter().find(|h| h.controllers.iter().any(|name| name == controller));
        found.map(|h| h.mount.join(name("limits")))
    };
    let (Some(cpu), Some(memory), Some(pids)) = (of("cpu"), of("memory"), of("pids")) else {
        skipped("limits_are_read_back_from_the_files", "a controller is missing");
        return;
    };
    let cgroup = Cgroup::new(Rc::new(hierarchies.clone()), Path::new(&name("limits"))).unwrap();
    cgroup
        .create(&Limits {
            cpu_shares: Some(512),
            cpu_quota: Some(20_000),
            cpu_period: Some(50_000),
            memory: Some(64 << 20),
            pids: Some(33),
            ..Limits::default()
        })
        .unwrap();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let seen = [
        read(cpu.join("cpu.shares")),
        read(cpu.join("cpu.cfs_quota_us")),
        read(cpu.join("cpu.cfs_period_us")),
        read(memory.join("memory.limit_in_bytes")),
        read(pids.join("pids.max")),
    ];
    cgroup.remove().unwrap();
    assert_eq!(seen, ["512", "20000", "50000", "67108864", "33"]);
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
}
