use serde_json::{Value, json};

use super::{Claim, Process, Question, claims, facts::Mount, look};
use crate::node_facts::NodeFacts;
use crate::reach::Probe;
use crate::security_context::{Capability, CapabilitySet};

fn of(spec: Value) -> Vec<Claim> {
    let pod = json!({ "metadata": { "namespace": "default", "name": "a" }, "spec": spec });
    claims(&serde_json::from_value(pod).unwrap(), &NodeFacts::default()).unwrap()
}

fn container(context: Value) -> Value {
    json!({ "containers": [{ "name": "c", "securityContext": context }] })
}

/// The ids of what is open, each once.
fn open(spec: Value) -> Vec<&'static str> {
    let mut open: Vec<_> = of(spec).iter().filter(|claim| claim.open).map(|claim| claim.id).collect();
    open.dedup();
    open
}

#[test]
fn what_a_pods_fields_leave_open() {
    let secure = json!({ "runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                         "seccompProfile": { "type": "RuntimeDefault" } });
    let with = |more: Value| {
        let mut context = secure.clone();
        context.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container(context)
    };
    let rows: Vec<(&str, Value, Vec<&str>)> = vec![
        ("nothing said", container(json!({})), vec!["capabilities", "root", "system-calls"]),
        ("restricted", container(secure.clone()), vec![]),
        ("a user, and setuid files", with(json!({ "allowPrivilegeEscalation": true })), vec!["root"]),
        (
            "a user, setuid files, and capabilities for them",
            container(json!({ "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } })),
            vec!["capabilities", "root"],
        ),
        (
            "capabilities that no process can hold",
            with(json!({ "capabilities": { "add": ["SYS_ADMIN"] } })),
            vec![],
        ),
        ("root, said by the pod", with(json!({ "runAsNonRoot": false, "runAsUser": 0 })), vec!["root"]),
        (
            "privileged",
            container(json!({ "privileged": true })),
            vec!["devices", "kernel-settings", "capabilities", "root", "system-calls"],
        ),
        (
            "the node's namespaces",
            json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true, "containers": [{ "name": "c", "securityContext": secure.clone() }] }),
            vec!["host-network", "host-pid", "host-ipc"],
        ),
        (
            "the node's files",
            json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/var/log" } }, { "name": "e", "emptyDir": {} }],
                    "containers": [{ "name": "c", "securityContext": secure.clone(),
                        "volumeMounts": [{ "name": "v", "mountPath": "/logs/" }, { "name": "e", "mountPath": "/e" }] }] }),
            vec!["host-path"],
        ),
        (
            "an init container ends before",
            json!({ "initContainers": [{ "name": "i", "securityContext": { "privileged": true } }],
            "containers": [{ "name": "c", "securityContext": secure.clone() }] }),
            vec![],
        ),
        (
            "a sidecar does not",
            json!({ "initContainers": [{ "name": "i", "restartPolicy": "Always", "securityContext": { "privileged": true } }],
            "containers": [{ "name": "c", "securityContext": secure.clone() }] }),
            vec!["devices", "kernel-settings", "capabilities", "root", "system-calls"],
        ),
    ];
    for (what, spec, expected) in rows {
        assert_eq!(open(spec), expected, "{what}");
    }
}

#[test]
fn every_edge_says_why_and_how_it_is_closed() {
    let specs = [
        container(json!({ "privileged": true })),
        container(json!({ "capabilities": { "add": ["NET_ADMIN", "SYS_TIME"] } })),
        json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true, "containers": [{ "name": "c" }] }),
    ];
    for claim in specs.into_iter().flat_map(of) {
        assert!(!claim.because.is_empty() && !claim.target.is_empty(), "{claim:?}");
        assert!(!claim.open || claim.remedy.is_some(), "{claim:?}");
    }
}

#[test]
fn a_pod_that_no_node_starts_has_no_answer() {
    let pod = json!({ "spec": { "containers": [{ "name": "c", "securityContext": { "runAsNonRoot": true, "runAsUser": 0 } }] } });
    let refused = claims(&serde_json::from_value(pod).unwrap(), &NodeFacts::default()).unwrap_err();
    assert!(refused.to_string().contains("non-root policy"), "{refused}");
}

const STATUS: &str = "Name:\tsleep\nUid:\t405\t406\t405\t405\nCapPrm:\t0000000000000000\nCapBnd:\t00000000a80425fb\n\
                      NoNewPrivs:\t1\nSeccomp:\t2\n";

const MOUNTS: &str = "\
148 158 0:67 / / rw,relatime - overlay none rw,lowerdir+=/proc/self/fd/3
149 148 254:0 /var/log /logs\\040here ro,relatime shared:5 master:1 - ext4 /dev/vda rw,discard
150 148 254:0 /var/lib/cofferdam/pods/1/volumes/kubernetes.io~empty-dir/e /e rw,nosuid - ext4 /dev/vda rw
223 148 0:69 / /proc rw,nosuid - proc proc rw
240 223 0:69 /sys /proc/sys ro,nosuid - proc proc rw
225 148 0:71 / /sys ro,nosuid - sysfs sysfs rw";

fn process() -> Process {
    let mut process = Process { pid: 7, ..Process::default() };
    process.read_status(STATUS).unwrap();
    process.read_uid_map("         0          0 4294967295\n");
    process.read_mounts(MOUNTS).unwrap();
    process.namespaces.insert("net".into(), ("net:[1]".into(), "net:[2]".into()));
    process.namespaces.insert("pid".into(), ("pid:[3]".into(), "pid:[3]".into()));
    process
}

#[test]
fn the_texts_of_proc_are_read_as_the_kernel_writes_them() {
    let process = process();
    assert_eq!(
        (process.uid, process.no_new_privs, process.seccomp, process.root_is),
        (406, true, 2, Some(0))
    );
    assert_eq!((process.permitted.bits(), process.bounding.bits()), (0, 0xa804_25fb));
    let logs = Mount {
        root: "/var/log".into(),
        point: "/logs here".into(),
        writable: false,
        file_system: "ext4".into(),
    };
    assert_eq!(process.mount_at("/logs here"), Some(&logs));
    let mut other = process.clone();
    other.read_uid_map("0 100000 65536\n");
    assert_eq!(other.root_is, Some(100_000));
    assert!(other.read_status("Uid:\t0\t0\t0\t0\n").is_err() && other.read_mounts("nonsense").is_err());
}

#[test]
fn the_kernel_is_taken_at_its_word() {
    let closed = process();
    let open = Process {
        uid: 0,
        no_new_privs: false,
        seccomp: 0,
        permitted: CapabilitySet::all(),
        bounding: CapabilitySet::all(),
        devices: vec!["vda".into()],
        mounts: vec![Mount {
            point: "/proc".into(),
            writable: true,
            file_system: "proc".into(),
            root: "/".into(),
        }],
        ..closed.clone()
    };
    let any_of = || vec![Capability::SYS_ADMIN, Capability::NET_RAW];
    let path = |path: &str, writable| Question::NodePath { path: path.into(), writable };
    let rows = [
        (Question::Devices, false, true),
        (Question::Settings, false, true),
        (Question::Namespace("net"), false, false),
        (Question::Namespace("pid"), true, true),
        (Question::SystemCalls, false, true),
        (Question::Root { may_be_root: false }, false, true),
        (Question::Root { may_be_root: true }, true, true),
        (Question::Capabilities { any_of: any_of(), may_be_root: false }, false, true),
        // The present image's user is another one's choice.
        (Question::Capabilities { any_of: any_of(), may_be_root: true }, true, true),
        (path("/logs here", false), true, false),
        (path("/logs here", true), false, false),
        (Question::OtherPaths(vec![]), true, false),
        (Question::OtherPaths(vec!["/logs here".into()]), false, false),
    ];
    for (question, of_closed, of_open) in rows {
        assert_eq!(look(&question, &closed).is_there, of_closed, "{question:?}");
        assert_eq!(look(&question, &open).is_there, of_open, "{question:?}");
    }
}

#[test]
fn what_is_open_is_asked_of_the_container_that_leaves_it_open() {
    let spec = json!({ "containers": [{ "name": "a", "securityContext": { "runAsUser": 1, "allowPrivilegeEscalation": false } },
                                      { "name": "b", "securityContext": { "privileged": true } }] });
    let devices: Vec<_> = of(spec).into_iter().filter(|claim| claim.id == "devices").collect();
    let asked: Vec<_> = devices
        .iter()
        .map(|claim| match &claim.probe {
            Probe::Kernel { container, .. } => (container.as_str(), claim.open),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [("a", false), ("b", true)]);
}
