//! A container's life as the keeper holds it: exits, signals, exec, attach, limits, restarts of whoever talks to it.

mod common;

use std::io::{Read, Write};
use std::path::Path;

use common::*;
use keeper::client::{Client, Executable};
use keeper::protocol::*;
use serde_json::json;

#[test]
fn exit_codes_and_signals_are_kept_until_removed() {
    if !can_run("exit_codes_and_signals_are_kept_until_removed") {
        return;
    }
    let mut pod = Pod::new();
    for (name, script, code, signal) in [
        ("zero", "exit 0", 0, None),
        ("some", "exit 42", 42, None),
        ("kill", "sh -c 'kill -9 $$'; exit $?", 137, None),
    ] {
        let (exit, log) = pod.output(name, spec(&["sh", "-c", script]));
        assert_eq!((exit.code, exit.signal), (code, signal), "{name}: {log}");
        let state = pod.client.request(Request::State, &[]).unwrap().1;
        let Reply::State(state) = state else { panic!("{state:?}") };
        let found = state.containers.iter().find(|c| c.container.name == name).unwrap();
        assert_eq!(found.phase, ContainerPhase::Exited(exit));
        let record = pod.plan.state_dir.join(format!("containers/{name}_0.json"));
        let read: ContainerState = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        assert_eq!(&read, found);
        pod.client.request(Request::Remove { container: pod.id(name) }, &[]).unwrap();
        assert!(!record.exists());
        assert!(pod.client.request(Request::Remove { container: pod.id(name) }, &[]).is_err());
    }
}

#[test]
fn signals_reach_the_first_process_and_kill_ends_all() {
    if !can_run("signals_reach_the_first_process_and_kill_ends_all") {
        return;
    }
    let mut pod = Pod::new();
    let script = "trap 'echo got; exit 3' TERM; echo ready; while true; do sleep 0.05; done";
    pod.run("term", spec(&["sh", "-c", script])).unwrap();
    while !pod.log("term").contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    pod.client.request(Request::Signal { container: pod.id("term"), signal: 15 }, &[]).unwrap();
    assert_eq!(pod.wait("term").code, 3);
    assert!(pod.log("term").contains("got"));
    // Killed with a child that ignores everything else.
    pod.run("all", spec(&["sh", "-c", "(trap '' TERM; sleep 1000) & sleep 1000"])).unwrap();
    pod.client.request(Request::Kill { container: pod.id("all") }, &[]).unwrap();
    let exit = pod.wait("all");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
}

#[test]
fn what_cannot_start_says_why_in_the_known_words() {
    if !can_run("what_cannot_start_says_why_in_the_known_words") {
        return;
    }
    let mut pod = Pod::new();
    std::fs::write(pod.place.image().join("junk"), "no program").unwrap();
    std::fs::set_permissions(
        pod.place.image().join("junk"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for (at, (args, cwd, message)) in [
        (vec!["nothing-here"], "/", r#"exec: "nothing-here": executable file not found in $PATH"#),
        (vec!["/nothing"], "/", r#"exec: "/nothing": stat /nothing: no such file or directory"#),
        (vec!["/etc/passwd"], "/", r#"exec: "/etc/passwd": permission denied"#),
        (vec!["/junk"], "/", "exec /junk: exec format error"),
        (
            vec!["true"],
            "/etc/passwd/x",
            r#"chdir to cwd ("/etc/passwd/x") set in config.json failed: not a directory"#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = spec(&args);
        spec["process"]["cwd"] = json!(cwd);
        let failed = failure(pod.run(&format!("c{at}"), spec).unwrap_err());
        assert_eq!((failed.stage, failed.message.as_str()), (Stage::Exec, message));
    }
    // Nothing of them is left: no cgroup but the pod's own, no state.
    let Reply::State(state) = pod.client.request(Request::State, &[]).unwrap().1 else { panic!() };
    assert!(state.containers.is_empty());
    for hierarchy in ["unified", "memory", "."] {
        let directory = Path::new("/sys/fs/cgroup").join(hierarchy).join(&pod.plan.cgroup);
        if directory.exists() {
            let left: Vec<_> = std::fs::read_dir(&directory)
                .unwrap()
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.file_type().unwrap().is_dir())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

#[test]
fn exec_is_the_containers_own_in_every_respect() {
    if !can_run("exec_is_the_containers_own_in_every_respect") {
        return;
    }
    let mut pod = Pod::new();
    let mut spec = spec(&[
        "sh",
        "-c",
        "grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp:)' /proc/self/status; for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; echo end; sleep 1000",
    ]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [3000]});
    spec["process"]["noNewPrivileges"] = json!(true);
    spec["process"]["env"].as_array_mut().unwrap().push(json!("FOO=container"));
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    pod.run("c", spec).unwrap();
    while !pod.log("c").contains("end") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let script = "grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp:)' /proc/self/status; for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; echo end";
    let (exit, out, err) = pod.exec(pod.exec_plan("c", &["sh", "-c", script])).unwrap();
    assert_eq!((exit.code, err.as_str()), (0, ""));
    assert_eq!(out, pod.log("c"));
    assert!(
        out.contains("Uid:\t1000") && out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"),
        "{out}"
    );
    // Its own words for directory, environment and user.
    let mut plan =
        pod.exec_plan("c", &["sh", "-c", "pwd; echo $FOO $BAR; id -u; id -G; mkdir /tmp/x; exit 9"]);
    plan.cwd = Some("/tmp".into());
    plan.env = vec!["FOO=exec".into(), "BAR=more".into()];
    plan.user = Some(ExecUser { uid: 65534, gid: 65533, groups: vec![7] });
    let (exit, out, err) = pod.exec(plan).unwrap();
    assert_eq!(out, "/tmp\nexec more\n65534\n65533 7\n");
    assert!(err.contains("Function not implemented"), "{err}");
    assert_eq!(exit.code, 9);
    let failed = failure(pod.exec(pod.exec_plan("c", &["nothing"])).unwrap_err());
    assert_eq!(failed.message, r#"exec: "nothing": executable file not found in $PATH"#);
    // Processes exec'd into the container end with it.
    let (id, _, fds) = {
        let plan = pod.exec_plan("c", &["sleep", "1000"]);
        pod.client.request(Request::Exec(Box::new(plan)), &[]).unwrap()
    };
    pod.client.request(Request::Kill { container: pod.id("c") }, &[]).unwrap();
    let (Reply::ExecExited { exit, .. }, _) = pod.client.reply(id).unwrap() else { panic!() };
    assert_eq!(exit.signal, Some(9));
    drop(fds);
    assert_eq!(pod.wait("c").signal, Some(9));
}

#[test]
fn a_terminal_is_the_programs_own() {
    if !can_run("a_terminal_is_the_programs_own") {
        return;
    }
    let mut pod = Pod::new();
    let script = "tty; stat -c '%t' /dev/console; stty size; read line; echo got $line; stty size";
    let mut spec = spec(&["sh", "-c", script]);
    spec["process"]["terminal"] = json!(true);
    spec["process"]["consoleSize"] = json!({"width": 90, "height": 33});
    let mut plan = pod.container("tty", spec);
    (plan.tty, plan.stdin) = (true, true);
    pod.run_with(plan, &[]).unwrap();
    while !pod.log("tty").contains("33 90") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let size = TerminalSize { columns: 111, rows: 22 };
    pod.client.request(Request::Resize { target: TerminalOf::Container(pod.id("tty")), size }, &[]).unwrap();
    let (_, reply, fds) = pod.client.request(Request::Attach { container: pod.id("tty") }, &[]).unwrap();
    assert_eq!((reply, fds.len()), (Reply::Attached, 2));
    let mut fds = fds.into_iter().map(std::fs::File::from);
    fds.next().unwrap().write_all(b"hello\n").unwrap();
    let mut seen = String::new();
    fds.next().unwrap().read_to_string(&mut seen).unwrap();
    assert!(seen.contains("got hello") && seen.contains("22 111"), "{seen}");
    assert_eq!(pod.wait("tty").code, 0);
    let log = pod.log("tty");
    assert!(log.contains("/dev/pts/0") && log.contains("88"), "{log}");
}

#[test]
fn exec_with_a_terminal_resizes_and_hangs_up() {
    if !can_run("exec_with_a_terminal_resizes_and_hangs_up") {
        return;
    }
    let mut pod = Pod::new();
    pod.run("c", spec(&["sleep", "1000"])).unwrap();
    let mut plan = pod.exec_plan("c", &["sh", "-c", "tty; stty size; read x; stty size; exit 5"]);
    plan.tty = true;
    plan.terminal_size = Some(TerminalSize { columns: 70, rows: 20 });
    let (id, reply, fds) = pod.client.request(Request::Exec(Box::new(plan.clone())), &[]).unwrap();
    let Reply::ExecStarted { exec, .. } = reply else { panic!("{reply:?}") };
    let size = TerminalSize { columns: 71, rows: 21 };
    let mut terminal = std::fs::File::from(fds.into_iter().next().unwrap());
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    let mut until = |seen: &mut String, words: &str, terminal: &mut std::fs::File| {
        while !seen.contains(words) {
            let n = terminal.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    };
    until(&mut seen, "20 70", &mut terminal);
    pod.client.request(Request::Resize { target: TerminalOf::Exec(exec), size }, &[]).unwrap();
    terminal.write_all(b"\n").unwrap();
    until(&mut seen, "21 71", &mut terminal);
    let (Reply::ExecExited { exit, .. }, _) = pod.client.reply(id).unwrap() else { panic!() };
    assert_eq!(exit.code, 5);
    // A client that goes hangs its terminals up.
    let mut other = Client::connect(&pod.plan.socket).unwrap();
    plan.argv = vec![
        "sh".into(),
        "-c".into(),
        "trap 'echo hung > /hung; exit' HUP; while true; do sleep 0.05; done".into(),
    ];
    let (_, reply, fds) = other.request(Request::Exec(Box::new(plan)), &[]).unwrap();
    assert!(matches!(reply, Reply::ExecStarted { .. }));
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop((other, fds));
    let hung = pod.place.directory.join("c/upper/hung");
    for _ in 0..200 {
        if hung.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(hung.exists());
}

#[test]
fn stdin_is_kept_for_who_attaches_and_closed_once() {
    if !can_run("stdin_is_kept_for_who_attaches_and_closed_once") {
        return;
    }
    let mut pod = Pod::new();
    let mut plan = pod.container("c", spec(&["sh", "-c", "cat; echo end >&2"]));
    (plan.stdin, plan.stdin_once) = (true, true);
    pod.run_with(plan, &[]).unwrap();
    let (_, _, fds) = pod.client.request(Request::Attach { container: pod.id("c") }, &[]).unwrap();
    let mut fds = fds.into_iter().map(std::fs::File::from);
    let mut stdin = fds.next().unwrap();
    stdin.write_all(b"through\n").unwrap();
    drop(stdin);
    let read = |mut file: std::fs::File| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(read(fds.next().unwrap()), "through\n");
    assert_eq!(read(fds.next().unwrap()), "end\n");
    assert_eq!(pod.wait("c").code, 0);
    assert!(pod.log("c").contains("through"));
}

#[test]
fn the_oom_killer_is_told_from_other_kills() {
    if !can_run("the_oom_killer_is_told_from_other_kills") {
        return;
    }
    let mut pod = Pod::new();
    let mut spec = spec(&["sh", "-c", "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"]);
    spec["linux"]["resources"]["memory"] = json!({"limit": 32 << 20, "swap": 32 << 20});
    spec["linux"]["resources"]["pids"] = json!({"limit": 20});
    let (exit, log) = pod.output("oom", spec);
    assert_eq!((exit.code, exit.oom_killed), (137, true), "{log}");
}

#[test]
fn limits_are_set_in_the_cgroup_and_devices_refused() {
    if !can_run("limits_are_set_in_the_cgroup_and_devices_refused") {
        return;
    }
    let mut pod = Pod::new();
    let script = "cat /proc/self/cgroup; mknod /tmp/mem c 1 1 && dd if=/tmp/mem of=/tmp/x bs=1 count=1; echo zero > /dev/null && echo null works; i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done";
    let mut spec = spec(&["sh", "-c", script]);
    spec["linux"]["resources"]["pids"] = json!({"limit": 8});
    spec["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 50000, "period": 100000});
    spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    let (_, log) = pod.output("c", spec);
    assert!(log.contains("null works"), "{log}");
    assert!(
        log.contains("/tmp/mem': Operation not permitted")
            || log.contains("mknod: /tmp/mem: Operation not permitted"),
        "{log}"
    );
    assert!(log.contains("fork: Resource temporarily unavailable"), "{log}");
    // The cgroup namespace begins at the container's own cgroup.
    assert!(log.lines().filter(|line| line.contains(":")).take(3).all(|line| line.ends_with(":/")), "{log}");
}

#[test]
fn containers_of_a_pod_share_its_namespaces_and_memory() {
    if !can_run("containers_of_a_pod_share_its_namespaces_and_memory") {
        return;
    }
    let mut pod = Pod::with(|plan| {
        plan.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
        plan.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    })
    .unwrap();
    assert_eq!(pod.ready_fds.len(), 2);
    let script = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; ip addr show lo | grep -c LOOPBACK,UP";
    let (_, one) = pod.output("one", spec(&["sh", "-c", &format!("{script}; echo shared > /dev/shm/file")]));
    let (_, two) = pod.output("two", spec(&["sh", "-c", &format!("{script}; cat /dev/shm/file")]));
    let (one, two): (Vec<_>, Vec<_>) = (one.lines().collect(), two.lines().collect());
    assert_eq!(one[..3], two[..3]);
    assert_eq!(one[5..], ["7", "1", "1"]);
    assert!(one[3] != two[3] || one[4] != two[4], "{one:?} {two:?}");
    assert_eq!(two.last(), Some(&"shared"));
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(own.to_str(), Some(one[0]));
}

#[test]
fn a_sysctl_of_the_whole_machine_is_refused() {
    if !can_run("a_sysctl_of_the_whole_machine_is_refused") {
        return;
    }
    for (name, host) in [("kernel.panic", false), ("vm.swappiness", false), ("net.ipv4.ip_forward", true)] {
        let made = Pod::with(|plan| {
            plan.sysctls.insert(name.into(), "1".into());
            if host {
                plan.net = NamespaceMode::Node;
            }
        });
        let Err(error) = made else { panic!("{name} was set") };
        let failed = failure(error);
        assert_eq!(failed.stage, Stage::Plan);
        assert!(failed.message.contains(name), "{}", failed.message);
    }
}

#[test]
fn the_nodes_namespaces_are_shared_where_asked() {
    if !can_run("the_nodes_namespaces_are_shared_where_asked") {
        return;
    }
    let mut pod = Pod::with(|plan| {
        (plan.net, plan.ipc, plan.uts) = (NamespaceMode::Node, NamespaceMode::Node, NamespaceMode::Node);
        (plan.pid, plan.hostname) = (PidMode::Node, None);
    })
    .unwrap();
    assert!(pod.ready_fds.is_empty());
    let mut spec = spec(&[
        "sh",
        "-c",
        "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; (sleep 1000 &) ; exit 4",
    ]);
    spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "cgroup"}]);
    let (exit, log) = pod.output("c", spec);
    assert_eq!(exit.code, 4);
    let own: Vec<String> = ["net", "ipc", "uts", "pid"]
        .iter()
        .map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string())
        .collect();
    assert_eq!(log.lines().take(4).collect::<Vec<_>>(), own);
    // The orphan is gone with the container: its cgroup could be removed (the pod's end checks that).
}

#[test]
fn a_log_is_opened_anew_when_asked() {
    if !can_run("a_log_is_opened_anew_when_asked") {
        return;
    }
    let mut pod = Pod::new();
    pod.run(
        "c",
        spec(&["sh", "-c", "trap 'echo after; exit' USR1; echo before; while true; do sleep 0.02; done"]),
    )
    .unwrap();
    while !pod.log("c").contains("before") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let log = pod.place.directory.join("c.log");
    std::fs::rename(&log, log.with_extension("1")).unwrap();
    pod.client.request(Request::ReopenLog { container: pod.id("c") }, &[]).unwrap();
    pod.client.request(Request::Signal { container: pod.id("c"), signal: 10 }, &[]).unwrap();
    pod.wait("c");
    assert_eq!(pod.log("c"), "after\n");
}

#[test]
fn a_full_log_disk_stops_nobody_and_is_told() {
    if !can_run("a_full_log_disk_stops_nobody_and_is_told") {
        return;
    }
    let mut pod = Pod::new();
    let mut plan = pod.container("c", spec(&["sh", "-c", "echo lost; sleep 0.1; echo lost; exit 6"]));
    plan.log_path = Some("/dev/full".into());
    pod.run_with(plan, &[]).unwrap();
    loop {
        match pod.client.event().unwrap() {
            Event::LogTrouble { message, lost, .. } => {
                assert!(message.contains("No space left") && lost > 0, "{message}");
                break;
            }
            Event::Exited(state) => panic!("nothing was told: {state:?}"),
            Event::Started(_) => {}
        }
    }
    assert_eq!(pod.wait("c").code, 6);
}

/// Not a test of its own: what `a_keeper_outlives_who_started_it` runs in a process that it kills.
#[test]
fn helper_that_is_killed() {
    let Ok(plan) = std::env::var("COFFERDAM_TEST_SANDBOX") else { return };
    let plan: SandboxPlan = serde_json::from_str(&plan).unwrap();
    let (_child, stream) = keeper::client::spawn(Executable::Path(Path::new(KEEPER)), &plan).unwrap();
    let mut client = Client::new(stream);
    client.reply(0).unwrap();
    let container = std::env::var("COFFERDAM_TEST_CONTAINER").unwrap();
    let container: ContainerPlan = serde_json::from_str(&container).unwrap();
    client.request(Request::Run(Box::new(container)), &[]).unwrap();
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[test]
fn a_keeper_outlives_who_started_it() {
    if !can_run("a_keeper_outlives_who_started_it") {
        return;
    }
    let place = Place::new();
    let plan = sandbox_plan(&place);
    let container = ContainerPlan {
        name: "c".into(),
        attempt: 3,
        spec: serde_json::from_value(spec(&[
            "sh",
            "-c",
            "trap 'echo late; exit 8' USR1; echo early; while true; do sleep 0.02; done",
        ]))
        .unwrap(),
        rootfs: place.overlay("c"),
        log_path: Some(place.directory.join("c.log")),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_log: None,
    };
    let mut helper = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_is_killed", "--nocapture"])
        .env("COFFERDAM_TEST_SANDBOX", serde_json::to_string(&plan).unwrap())
        .env("COFFERDAM_TEST_CONTAINER", serde_json::to_string(&container).unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let record = plan.state_dir.join("containers/c_3.json");
    for _ in 0..500 {
        if record.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    helper.kill().unwrap();
    helper.wait().unwrap();

    let mut client = Client::connect(&plan.socket).unwrap();
    client.request(Request::Subscribe, &[]).unwrap();
    let Reply::State(state) = client.request(Request::State, &[]).unwrap().1 else { panic!() };
    assert_eq!(state.sandbox.as_ref(), Some(&plan));
    assert_eq!(state.containers[0].phase, ContainerPhase::Running);
    // The same sandbox asked for again is the same; the descriptors come again.
    let (_, reply, fds) = client.request(Request::Sandbox(Box::new(plan.clone())), &[]).unwrap();
    assert!(matches!(reply, Reply::SandboxReady { keeper_pid, .. } if keeper_pid == state.keeper_pid));
    assert_eq!(fds.len(), 2);
    let log = place.directory.join("c.log");
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("early") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let id = ContainerId { name: "c".into(), attempt: 3 };
    client.request(Request::Signal { container: id, signal: 10 }, &[]).unwrap();
    let Event::Exited(ended) = client.event().unwrap() else { panic!() };
    assert!(matches!(ended.phase, ContainerPhase::Exited(Exit { code: 8, .. })), "{ended:?}");
    assert!(std::fs::read_to_string(&log).unwrap().ends_with("late\n"));
    let Reply::Done = client.request(Request::Stop, &[]).unwrap().1 else { panic!() };
    assert!(client.request(Request::State, &[]).is_err());
    assert!(!plan.socket.exists());
}

#[test]
fn a_crashed_keeper_leaves_what_it_knew() {
    if !can_run("a_crashed_keeper_leaves_what_it_knew") {
        return;
    }
    let mut pod = Pod::new();
    pod.output("done", spec(&["sh", "-c", "exit 11"]));
    pod.run("alive", spec(&["sleep", "1000"])).unwrap();
    let mut child = pod.child.take().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let read = |name: &str| -> ContainerState {
        let path = pod.plan.state_dir.join(format!("containers/{name}_0.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    assert!(matches!(read("done").phase, ContainerPhase::Exited(Exit { code: 11, .. })));
    let alive = read("alive");
    assert_eq!(alive.phase, ContainerPhase::Running);
    // The rest of this test's pod is cleaned up by what the record says, as an agent would.
    let pid = rustix::process::Pid::from_raw(alive.pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut poll, None).unwrap();
    let hierarchies = std::rc::Rc::new(kernel::cgroup::Hierarchies::find().unwrap());
    let cgroup = kernel::cgroup::Cgroup::new(hierarchies, &pod.plan.cgroup).unwrap();
    for _ in 0..100 {
        if cgroup.remove().is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let place = std::mem::replace(&mut pod.place, Place::new());
    drop(place);
    // Its end would ask a keeper that is not there to stop.
    std::fs::remove_dir(&pod.place.directory).unwrap();
    std::mem::forget(pod);
}
