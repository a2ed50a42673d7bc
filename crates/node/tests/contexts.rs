//! Security contexts in the kernel: what `policy` resolves, run by runc as the Spec says, is what /proc/self/status shows.
//! runc is the oracle here; that a keeper does the same is tested with the keeper. Needs root and runc.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use k8s_openapi::api::core::v1::Pod;
use oci_spec::image::ImageConfiguration;
use policy::{
    container::{ContainerInput, NamespacePaths, PodFiles, spec},
    node_facts::{CgroupMode, KernelVersion, NodeFacts},
    security_context::{CapabilitySet, Effective, Seccomp, UserDatabase, containers, resolve, resolve_pod},
};
use serde_json::{Value, json};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\naudio:x:29:app\n";

/// False, and says why, where the test cannot run.
fn can_run(test: &str) -> bool {
    let runc = Command::new("runc").arg("--version").output().is_ok_and(|output| output.status.success());
    let lacks = if !rustix::process::geteuid().is_root() {
        "root"
    } else if !runc {
        "runc"
    } else if !Path::new("/bin/busybox").exists() {
        "/bin/busybox"
    } else {
        return true;
    };
    testkit::skipped(test, format_args!("needs {lacks}"));
    false
}

fn facts() -> NodeFacts {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = u64::from_str_radix(field(&status, "CapBnd"), 16).unwrap();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    NodeFacts {
        kernel: KernelVersion::parse(&release),
        cgroup: CgroupMode::Hybrid,
        capabilities: CapabilitySet::from_bits(bounding),
        // Without CAP_SYS_RESOURCE nobody goes below where he is.
        min_oom_score_adj: fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap(),
        ..NodeFacts::default()
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim()
}

struct Bundle(PathBuf, String);

impl Bundle {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("cofferdam-context-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(dir.join("rootfs/bin")).unwrap();
        fs::create_dir_all(dir.join("rootfs/tmp")).unwrap();
        fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).unwrap();
        symlink("busybox", dir.join("rootfs/bin/sh")).unwrap();
        Self(dir, name)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A container that has ended is removed already; what is left of a failed one goes here.
        let deleted = Command::new("runc").args(["delete", "--force", &self.1]).output();
        let removed = fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            assert!(deleted.is_ok() && removed.is_ok());
        }
    }
}

/// Resolves, makes the Spec, runs it: the effective context, and what the command printed, with its errors.
fn run(pod_context: Value, context: Value, user: &str, command: &[&str]) -> (Effective, String) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "default", "uid": "u"},
        "spec": {"securityContext": pod_context,
            "containers": [{"name": "c", "command": command, "securityContext": context}]}
    }))
    .unwrap();
    let image: ImageConfiguration = serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "config": {"User": user},
        "rootfs": {"type": "layers", "diff_ids": []}
    }))
    .unwrap();
    let node = facts();
    let users = UserDatabase { passwd: Some(PASSWD), group: Some(GROUP) };
    let (kind, container) = containers(&pod).remove(0);
    let effective = resolve(&pod, &container, kind, &image, &users, &node).unwrap();
    let pod_effective = resolve_pod(&pod, &node).unwrap();
    let bundle = Bundle::new();
    let cgroups = Path::new("/").join(&bundle.1);
    let spec = spec(&ContainerInput {
        pod: &pod,
        container: &container,
        kind,
        effective: &effective,
        image: &image,
        env: &[],
        mounts: &[],
        hostname: &pod_effective.hostname,
        cgroups_path: &cgroups,
        namespaces: NamespacePaths::default(),
        root: Path::new("rootfs"),
        files: PodFiles::default(),
        seccomp_profile: None,
        node: &node,
    })
    .unwrap();
    fs::write(bundle.0.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let output =
        Command::new("runc").args(["run", "--bundle"]).arg(&bundle.0).arg(&bundle.1).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (effective, text)
}

#[test]
fn the_kernel_shows_what_was_resolved() {
    if !can_run("the_kernel_shows_what_was_resolved") {
        return;
    }
    let runtime_default = json!({"type": "RuntimeDefault"});
    let cases = [
        (json!({}), json!({}), ""),
        (json!({}), json!({}), "app"),
        (json!({}), json!({}), "1000:7"),
        // 06 of the chapter
        (
            json!({}),
            json!({"runAsUser": 405, "runAsGroup": 100, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
            "",
        ),
        (json!({}), json!({"privileged": true}), ""),
        (json!({}), json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}}), ""),
        (json!({}), json!({"runAsUser": 5, "capabilities": {"add": ["NET_ADMIN"]}}), ""),
        (json!({"fsGroup": 555, "supplementalGroups": [666, 777]}), json!({"runAsUser": 1111}), ""),
        (
            json!({"supplementalGroups": [2000], "supplementalGroupsPolicy": "Strict"}),
            json!({"runAsUser": 1000}),
            "",
        ),
        (json!({"seccompProfile": runtime_default, "runAsUser": 3, "runAsGroup": 4}), json!({}), ""),
        (
            json!({"runAsUser": 3}),
            json!({"seccompProfile": runtime_default, "allowPrivilegeEscalation": false}),
            "",
        ),
    ];
    // At once: most of a run is waiting for the kernel.
    std::thread::scope(|scope| {
        for (at_pod, at_container, user) in cases {
            scope.spawn(move || shows_what_was_resolved(&at_pod, &at_container, user));
        }
    });
}

fn shows_what_was_resolved(at_pod: &Value, at_container: &Value, user: &str) {
    let (effective, status) =
        run(at_pod.clone(), at_container.clone(), user, &["/bin/busybox", "cat", "/proc/self/status"]);
    let case = format!("{at_pod} {at_container} {user}");
    let sets = effective.capabilities.value;
    let hex = |set: CapabilitySet| format!("{:016x}", set.bits());
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
    let mut groups: Vec<u32> =
        field(&status, "Groups").split_whitespace().map(|group| group.parse().unwrap()).collect();
    groups.sort_unstable();
    let expected: Vec<u32> = effective.supplementary_groups.iter().map(|group| group.value).collect();
    assert_eq!(groups, expected, "Groups: {case}");
    for (name, expected) in BTreeMap::from([
        ("Uid", four(effective.uid.value)),
        ("Gid", four(effective.gid.value)),
        ("NoNewPrivs", u8::from(effective.no_new_privs.value).to_string()),
        ("Seccomp", if effective.seccomp.value == Seccomp::Unconfined { "0" } else { "2" }.to_owned()),
        ("CapBnd", hex(sets.bounding)),
        ("CapPrm", hex(sets.permitted)),
        ("CapEff", hex(sets.effective)),
        ("CapInh", hex(sets.inheritable)),
        ("CapAmb", hex(sets.ambient)),
    ]) {
        assert_eq!(field(&status, name), expected, "{name}: {case}");
    }
}

#[test]
fn the_default_profile_refuses_what_a_user_namespace_would_open() {
    if !can_run("the_default_profile_refuses_what_a_user_namespace_would_open") {
        return;
    }
    let command = ["/bin/busybox", "unshare", "-U", "/bin/busybox", "echo", "made"];
    let (_, text) = run(json!({}), json!({}), "", &command);
    if !text.contains("made") {
        let test = "the_default_profile_refuses_what_a_user_namespace_would_open";
        testkit::skipped(test, format_args!("no user namespaces: {text}"));
        return;
    }
    let (_, text) = run(json!({"seccompProfile": {"type": "RuntimeDefault"}}), json!({}), "", &command);
    assert!(text.contains("Operation not permitted") && !text.contains("made"), "{text}");
    // A shell with pipes, files and children needs nothing that is left out.
    let script = "cd /tmp && echo a b | busybox tr ' ' '\\n' | busybox sort -r > f && busybox chmod 600 f && busybox cat f";
    let context = json!({"type": "RuntimeDefault"});
    let (_, text) = run(
        json!({"seccompProfile": context}),
        json!({}),
        "",
        &["/bin/sh", "-c", &script.replace("busybox", "/bin/busybox")],
    );
    assert_eq!(text, "b\na\n");
}

#[test]
fn a_read_only_root_refuses_writes() {
    if !can_run("a_read_only_root_refuses_writes") {
        return;
    }
    let command = ["/bin/busybox", "touch", "/tmp/x"];
    let (_, text) = run(json!({}), json!({"readOnlyRootFilesystem": true}), "", &command);
    assert!(text.contains("Read-only file system"), "{text}");
    let (_, text) = run(json!({}), json!({}), "", &command);
    assert_eq!(text, "");
}
