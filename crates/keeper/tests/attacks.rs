//! The attack classes that a launcher of containers must withstand, each tried.

mod common;

use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use common::*;
use keeper::client::Client;
use keeper::protocol::*;
use serde_json::{Value, json};

fn mounts(spec: &mut Value) -> &mut Vec<Value> {
    spec["mounts"].as_array_mut().unwrap()
}

#[test]
fn the_launchers_program_is_never_in_reach() {
    // CVE-2019-5736: /proc/<pid>/exe of the launcher, seen from inside while processes are exec'd.
    if !can_run("the_launchers_program_is_never_in_reach") {
        return;
    }
    let mut pod = Pod::new();
    let script = "echo ready; while true; do for p in /proc/[0-9]*; do readlink $p/exe; ls -l $p/fd 2>/dev/null | grep -E 'keeper|socket|pidfd|cgroup'; (echo x > $p/exe) 2>/dev/null && echo written $p; done; done";
    let mut spec = spec(&["sh", "-c", script]);
    // As strong as a container can be without being privileged, and with the right to look at others.
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_DAC_READ_SEARCH"));
    }
    pod.run("c", spec).unwrap();
    while !pod.log("c").contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for _ in 0..30 {
        pod.exec(pod.exec_plan("c", &["true"])).unwrap();
    }
    let log = pod.log("c");
    let seen: std::collections::BTreeSet<&str> = log.lines().filter(|line| *line != "ready").collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["/bin/busybox"]);
}

#[test]
fn no_descriptor_leaks_into_a_container() {
    // CVE-2024-21626, first half.
    if !can_run("no_descriptor_leaks_into_a_container") {
        return;
    }
    let mut pod = Pod::new();
    let volume = path_fd(&pod.place.directory);
    let mut spec = spec(&["sh", "-c", "for f in /proc/$$/fd/*; do readlink $f; done; echo end; sleep 1000"]);
    mounts(&mut spec)
        .push(json!({"destination": "/vol", "type": "bind", "source": "fd:0", "options": ["bind", "ro"]}));
    let plan = pod.container("c", spec);
    pod.run_with(plan, &[volume.as_fd()]).unwrap();
    while !pod.log("c").contains("end") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let check = |text: &str| {
        let fds: Vec<&str> = text.lines().filter(|line| *line != "end").collect();
        assert_eq!(fds.len(), 3, "{text}");
        assert_eq!(fds[0], "/dev/null");
        assert!(fds[1..].iter().all(|fd| fd.starts_with("pipe:")), "{text}");
    };
    check(&pod.log("c"));
    let (_, out, _) =
        pod.exec(pod.exec_plan("c", &["sh", "-c", "for f in /proc/$$/fd/*; do readlink $f; done"])).unwrap();
    check(&out);
}

#[test]
fn no_working_directory_leads_out() {
    // CVE-2024-21626, second half: a directory by way of a descriptor of the launcher's.
    if !can_run("no_working_directory_leads_out") {
        return;
    }
    let mut pod = Pod::new();
    pod.run("c", spec(&["sleep", "1000"])).unwrap();
    for fd in 0..24 {
        let cwd = format!("/proc/self/fd/{fd}");
        let mut spec = spec(&["sh", "-c", "ls /proc/self/cwd/ ../../../../../etc/os-release"]);
        spec["process"]["cwd"] = json!(cwd);
        let failed = failure(pod.run(&format!("c{fd}"), spec).unwrap_err());
        assert_eq!(failed.stage, Stage::Exec, "{cwd}: {}", failed.message);
        let mut plan = pod.exec_plan("c", &["pwd"]);
        plan.cwd = Some(cwd.clone().into());
        let failed = failure(pod.exec(plan).unwrap_err());
        assert_eq!(failed.stage, Stage::Exec, "{cwd}: {}", failed.message);
    }
}

#[test]
fn masks_hold_through_links_and_without_the_containers_null_device() {
    // CVE-2025-31133.
    if !can_run("masks_hold_through_links_and_without_the_containers_null_device") {
        return;
    }
    let mut pod = Pod::new();
    let image = pod.place.image();
    std::fs::write(image.join("etc/secret"), "secret").unwrap();
    std::fs::create_dir(image.join("hidden")).unwrap();
    std::fs::write(image.join("hidden/file"), "secret").unwrap();
    symlink("/etc/secret", image.join("masked")).unwrap();
    symlink("../../../etc/passwd", image.join("dev/null")).unwrap();
    let mut spec = spec(&[
        "sh",
        "-c",
        "cat /etc/secret /masked; stat -L -c '%t:%T' /masked; ls /hidden; touch /hidden/x; cat /proc/kcore | wc -c",
    ]);
    // Without a /dev of its own, the image's null device (a link) is all there is.
    mounts(&mut spec).retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    spec["linux"]["maskedPaths"] =
        json!(["/masked", "/hidden", "/proc/kcore", "/not/there", "/etc/passwd/not"]);
    let (_, log) = pod.output("c", spec);
    assert!(!log.contains("secret") && !log.lines().any(|line| line == "file"), "{log}");
    assert!(log.contains("1:3") && log.contains("Read-only file system"), "{log}");
}

#[test]
fn nothing_is_mounted_over_proc_or_sys() {
    // CVE-2019-16884, CVE-2019-19921, CVE-2023-27561.
    if !can_run("nothing_is_mounted_over_proc_or_sys") {
        return;
    }
    let mut pod = Pod::new();
    let image = pod.place.image();
    symlink("/proc/sys", image.join("to-proc")).unwrap();
    symlink("../../proc", image.join("dots")).unwrap();
    for (at, destination) in [
        "/proc",
        "/proc/self/attr",
        "/proc/sys/kernel",
        "/sys",
        "/sys/kernel",
        "/to-proc/kernel",
        "/dots/self",
        "/dots",
    ]
    .iter()
    .enumerate()
    {
        let mut spec = spec(&["true"]);
        let mount =
            json!({"destination": destination, "type": "bind", "source": "/etc", "options": ["rbind", "ro"]});
        mounts(&mut spec).push(mount);
        let failed = failure(pod.run(&format!("c{at}"), spec).unwrap_err());
        assert_eq!(failed.stage, Stage::Mounts, "{destination}: {}", failed.message);
        assert!(failed.message.contains("CVE-2019-16884"), "{destination}: {}", failed.message);
    }
    // The image's /proc is a link to a directory of the image's own.
    let other = Place::new();
    let image = other.image();
    std::fs::remove_dir(image.join("proc")).unwrap();
    std::fs::create_dir(image.join("fake")).unwrap();
    symlink("/fake", image.join("proc")).unwrap();
    let mut plan = pod.container("link", spec(&["true"]));
    plan.rootfs = Rootfs::Path(image);
    let failed = failure(pod.run_with(plan, &[]).unwrap_err());
    assert_eq!(failed.stage, Stage::Mounts, "{}", failed.message);
}

#[test]
fn mount_destinations_stay_in_the_root() {
    // CVE-2021-30465: links of the image's in a destination.
    if !can_run("mount_destinations_stay_in_the_root") {
        return;
    }
    let mut pod = Pod::new();
    let outside = pod.place.directory.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let image = pod.place.image();
    symlink(&outside, image.join("absolute")).unwrap();
    symlink("../../../../../../..", image.join("up")).unwrap();
    let up = format!("/up{}/sub", outside.display());
    let mut spec = spec(&["sh", "-c", "cat /proc/self/mountinfo | grep -c /sub"]);
    for destination in ["/absolute/sub", &up] {
        mounts(&mut spec).push(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
    }
    // Both lead into the root: the first to a directory that is not there, which is an error; nothing is made outside.
    let failed = failure(pod.run("c", spec.clone()).unwrap_err());
    assert_eq!(failed.stage, Stage::Mounts, "{}", failed.message);
    mounts(&mut spec).remove(6);
    let (exit, log) = pod.output("d", spec);
    assert_eq!((exit.code, log.trim()), (0, "1"));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn the_console_is_the_containers_own_terminal() {
    // CVE-2025-52565.
    if !can_run("the_console_is_the_containers_own_terminal") {
        return;
    }
    let mut pod = Pod::new();
    let image = pod.place.image();
    std::fs::write(image.join("etc/target"), "untouched").unwrap();
    symlink("/etc/target", image.join("dev/console")).unwrap();
    let mut with_dev =
        spec(&["sh", "-c", "[ $(stat -c %t:%T /dev/console) = $(stat -c %t:%T $(tty)) ] && echo same"]);
    with_dev["process"]["terminal"] = json!(true);
    let mut plan = pod.container("c", with_dev.clone());
    plan.tty = true;
    pod.run_with(plan, &[]).unwrap();
    assert_eq!(pod.wait("c").code, 0);
    assert!(pod.log("c").contains("same"), "{}", pod.log("c"));
    // With the image's /dev the link is there: refused, not followed.
    mounts(&mut with_dev).retain(|mount| mount["destination"] != "/dev");
    let mut plan = pod.container("d", with_dev);
    plan.tty = true;
    let failed = failure(pod.run_with(plan, &[]).unwrap_err());
    assert_eq!(failed.stage, Stage::Devices, "{}", failed.message);
}

#[test]
fn proc_is_a_procfs_of_the_containers_own() {
    // CVE-2025-52881.
    if !can_run("proc_is_a_procfs_of_the_containers_own") {
        return;
    }
    let mut pod = Pod::new();
    let (_, log) = pod.output(
        "c",
        spec(&[
            "sh",
            "-c",
            "stat -f -c %t /proc; ls -d /proc/[0-9]* | wc -l; echo x > /proc/sys/kernel/hostname; echo $?",
        ]),
    );
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "9fa0");
    assert!(lines[1].parse::<u32>().unwrap() <= 3, "{log}");
    assert!(log.contains("Read-only file system"), "{log}");
}

#[test]
fn capabilities_are_not_inheritable() {
    // CVE-2022-29162, CVE-2025-27612.
    if !can_run("capabilities_are_not_inheritable") {
        return;
    }
    let mut pod = Pod::new();
    let (_, log) = pod.output("c", spec(&["grep", "CapInh", "/proc/self/status"]));
    assert_eq!(log, "CapInh:\t0000000000000000\n");
    let mut wrong = spec(&["true"]);
    wrong["process"]["capabilities"]["inheritable"] = json!(["CAP_NET_RAW"]);
    let failed = failure(pod.run("d", wrong).unwrap_err());
    assert_eq!(failed.stage, Stage::Plan);
    assert!(failed.message.contains("inheritable"), "{}", failed.message);
}

#[test]
fn groups_are_explicit_and_ids_in_range() {
    // CVE-2022-2989, CVE-2023-25173, CVE-2024-40635.
    if !can_run("groups_are_explicit_and_ids_in_range") {
        return;
    }
    let mut pod = Pod::new();
    let mut plain = spec(&["id", "-G"]);
    plain["process"]["user"] = json!({"uid": 1000, "gid": 2000});
    assert_eq!(pod.output("c", plain).1, "2000\n");
    for (at, user) in [
        json!({"uid": 4_294_967_295_u32, "gid": 0}),
        json!({"uid": 0, "gid": 4_294_967_295_u32}),
        json!({"uid": 0, "gid": 0, "additionalGids": [4_294_967_295_u32]}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wrong = spec(&["id", "-u"]);
        wrong["process"]["user"] = user.clone();
        let failed = failure(pod.run(&format!("d{at}"), wrong).unwrap_err());
        assert_eq!(failed.stage, Stage::Plan, "{user}: {}", failed.message);
    }
}

#[test]
fn a_huge_passwd_file_costs_nothing() {
    // CVE-2022-31030.
    if !can_run("a_huge_passwd_file_costs_nothing") {
        return;
    }
    let mut pod = Pod::new();
    let image = pod.place.image();
    let passwd = std::fs::OpenOptions::new().write(true).open(image.join("etc/passwd")).unwrap();
    passwd.set_len(64 << 30).unwrap();
    let mut spec = spec(&["sh", "-c", "echo $HOME"]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    assert_eq!(pod.output("c", spec).1, "/home/user\n");
    std::fs::remove_file(image.join("etc/passwd")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        image.join("etc/passwd"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    assert_eq!(pod.output("d", common::spec(&["sh", "-c", "echo $HOME"])).1, "/\n");
}

#[test]
fn cgroups_are_seen_read_only_and_only_the_containers() {
    // CVE-2022-0492.
    if !can_run("cgroups_are_seen_read_only_and_only_the_containers") {
        return;
    }
    let mut pod = Pod::new();
    let script = "find /sys/fs/cgroup -name release_agent; for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo 1 > $f; mkdir $(dirname $f)/x; done 2>&1 | grep -v 'Read-only'; find /sys/fs/cgroup -name 'cfd-test*'; ls /sys/fs/cgroup | wc -l";
    let mut spec = spec(&["sh", "-c", script]);
    mounts(&mut spec).push(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    }));
    let find = pod.place.image().join("bin/find");
    let _exists = symlink("busybox", find);
    let _exists = symlink("busybox", pod.place.image().join("bin/dirname"));
    let (_, log) = pod.output("c", spec.clone());
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.trim().parse::<u32>().unwrap() > 0, "{log}");
    // Without a cgroup namespace no more is seen.
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
    assert_eq!(pod.output("d", spec).1, log);
}

#[test]
fn no_terminal_of_the_launchers_is_in_reach() {
    // TIOCSTI: a session without a controlling terminal, or with one of its own.
    if !can_run("no_terminal_of_the_launchers_is_in_reach") {
        return;
    }
    let mut pod = Pod::new();
    let (_, log) =
        pod.output("c", spec(&["sh", "-c", "(: < /dev/tty) 2>&1; cut -d' ' -f6,7 /proc/self/stat"]));
    assert!(log.contains("No such device or address"), "{log}");
    assert!(log.ends_with("1 0\n"), "session 1, no terminal: {log}");
}

#[test]
fn keys_of_the_launcher_are_out_of_reach() {
    if !can_run("keys_of_the_launcher_are_out_of_reach") {
        return;
    }
    let mut pod = Pod::new();
    let mut spec = spec(&["sh", "-c", "cat /proc/keys | grep -c keyring:_ses"]);
    spec["linux"]["maskedPaths"] = json!([]);
    spec["process"]["user"] = json!({"uid": 54321, "gid": 54321});
    let (_, log) = pod.output("c", spec);
    // Of all session keyrings only its own, new and empty one may be in view.
    assert!(["0", "1"].contains(&log.trim()), "{log}");
}

#[test]
fn the_control_socket_is_no_abstract_one() {
    // CVE-2020-15257.
    if !can_run("the_control_socket_is_no_abstract_one") {
        return;
    }
    let mut pod = Pod::new();
    let (_, log) = pod.output("c", spec(&["sh", "-c", "cat /proc/net/unix"]));
    assert!(!log.contains('@'), "{log}");
    let path = &pod.plan.socket;
    let mode = rustix::fs::stat(path).unwrap().st_mode & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(rustix::fs::stat(&pod.plan.state_dir).unwrap().st_mode & 0o777, 0o700);
}

#[test]
fn a_set_uid_program_raises_nothing_under_no_new_privs() {
    if !can_run("a_set_uid_program_raises_nothing_under_no_new_privs") {
        return;
    }
    let mut pod = Pod::new();
    let image = pod.place.image();
    let program = image.join("set-uid/cat");
    std::fs::create_dir(image.join("set-uid")).unwrap();
    // Not busybox, which gives the rights back by itself.
    std::fs::copy("/bin/cat", &program).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    for (name, forbid, uid) in [("may", false, "0"), ("not", true, "1000")] {
        let mut spec = spec(&["/set-uid/cat", "/proc/self/status"]);
        for directory in ["/lib", "/lib64", "/usr"] {
            let options = ["rbind", "ro", "nosuid"];
            mounts(&mut spec).push(
                json!({"destination": directory, "type": "bind", "source": directory, "options": options}),
            );
        }
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        spec["process"]["noNewPrivileges"] = json!(forbid);
        let (_, log) = pod.output(name, spec);
        let effective = log
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1));
        assert_eq!(effective, Some(uid), "{log}");
    }
}

#[test]
fn a_filter_forbids_with_its_own_errno() {
    if !can_run("a_filter_forbids_with_its_own_errno") {
        return;
    }
    let mut pod = Pod::new();
    for (name, forbid) in [("caps", false), ("nnp", true)] {
        let mut spec = spec(&["sh", "-c", "mkdir /x; chmod 700 /etc; grep Seccomp: /proc/self/status"]);
        spec["process"]["noNewPrivileges"] = json!(forbid);
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122},
            ],
        });
        let (_, log) = pod.output(name, spec);
        for words in ["/x': Function not implemented", "/etc: Disk quota exceeded", "Seccomp:\t2"] {
            assert!(log.contains(words), "{words} in {log}");
        }
    }
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    if !can_run("what_is_not_carried_out_is_refused_by_name") {
        return;
    }
    let mut pod = Pod::new();
    let changes: [Change; 11] = [
        ("hooks", |s| s["hooks"] = json!({"prestart": [{"path": "/bin/true"}]})),
        ("uidMappings", |s| s["linux"]["uidMappings"] = json!([{"hostID": 1, "containerID": 0, "size": 1}])),
        ("apparmorProfile", |s| s["process"]["apparmorProfile"] = json!("x")),
        ("selinuxLabel", |s| s["process"]["selinuxLabel"] = json!("x")),
        ("user", |s| s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}))),
        ("listenerPath", |s| {
            s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"})
        }),
        ("no_such_call", |s| {
            s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]});
        }),
        ("ext4", |s| mounts(s).push(json!({"destination": "/x", "type": "ext4", "source": "/dev/x"}))),
        ("vm.swappiness", |s| s["linux"]["sysctl"] = json!({"vm.swappiness": "1"})),
        ("hugepageLimits", |s| {
            s["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 1}])
        }),
        ("hostname", |s| s["hostname"] = json!("other")),
    ];
    for (at, (word, change)) in changes.into_iter().enumerate() {
        let mut spec = spec(&["true"]);
        change(&mut spec);
        let failed = failure(pod.run(&format!("c{at}"), spec).unwrap_err());
        assert_eq!(failed.stage, Stage::Plan, "{word}: {}", failed.message);
        assert!(failed.message.contains(word), "{word}: {}", failed.message);
    }
}

#[test]
fn the_keeper_speaks_to_its_node_alone() {
    // This program again, in another mount namespace maybe: it asks, and says what came of it.
    if let Some(socket) = std::env::var_os("KEEPER_SOCKET") {
        let state = Client::connect(std::path::Path::new(&socket)).unwrap().request(Request::State, &[]);
        println!("answered: {}", state.is_ok());
        return;
    }
    // A pod that runs as root with a hostPath of the node's /var/lib has the sockets of all keepers before it.
    if !can_run("the_keeper_speaks_to_its_node_alone") {
        return;
    }
    let pod = Pod::new();
    let ask = |through: &[&str]| {
        let output = std::process::Command::new(through[0])
            .args(&through[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_keeper_speaks_to_its_node_alone", "--nocapture"])
            .env("KEEPER_SOCKET", &pod.plan.socket)
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(ask(&["env"]).unwrap().contains("answered: true"));
    match ask(&["unshare", "--mount"]) {
        Ok(said) => assert!(said.contains("answered: false"), "{said}"),
        Err(_) => skipped("the_keeper_speaks_to_its_node_alone", "needs unshare"),
    }
}
