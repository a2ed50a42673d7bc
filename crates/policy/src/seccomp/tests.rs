//! The default profile and profiles from the node, looked at as data. That the kernel does what they say is tested where they
//! are installed.

use std::collections::BTreeSet;

use oci_spec::runtime::{Arch as OciArch, LinuxSeccomp, LinuxSeccompAction};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    node_facts::{Arch, KernelVersion},
    security_context::{Capability, CapabilitySet, capabilities},
};

const NEW: KernelVersion = KernelVersion { major: 6, minor: 12 };

fn default_caps() -> CapabilitySet {
    capabilities::DEFAULT.into_iter().collect()
}

fn with(names: &[&str]) -> CapabilitySet {
    names.iter().map(|name| Capability::parse(name).unwrap()).collect()
}

/// The rules for one call: action, error, arguments.
fn rules(profile: &LinuxSeccomp, name: &str) -> Vec<Value> {
    let calls = profile.syscalls().as_ref().unwrap();
    let of = calls.iter().filter(|call| call.names().iter().any(|known| known == name));
    of.map(|call| {
        let mut rule = serde_json::to_value(call).unwrap();
        rule.as_object_mut().unwrap().remove("names");
        rule
    })
    .collect()
}

fn allowed(profile: &LinuxSeccomp, name: &str) -> bool {
    rules(profile, name).contains(&json!({"action": "SCMP_ACT_ALLOW"}))
}

#[test]
fn what_is_not_named_fails_with_eperm() {
    let profile = runtime_default(Arch::X86_64, NEW, default_caps());
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
    assert_eq!(profile.default_errno_ret(), Some(1));
    for name in [
        "add_key",
        "keyctl",
        "request_key",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "kexec_load",
        "kexec_file_load",
        "swapon",
        "swapoff",
        "mount",
        "umount2",
        "move_mount",
        "open_tree",
        "fsopen",
        "pivot_root",
        "setns",
        "unshare",
        "reboot",
        "init_module",
        "finit_module",
        "delete_module",
        "bpf",
        "perf_event_open",
        "open_by_handle_at",
        "iopl",
        "ioperm",
        "settimeofday",
        "clock_settime",
        "syslog",
        "acct",
        "quotactl",
        "kcmp",
        "pidfd_getfd",
        "mbind",
        "set_mempolicy",
        "vhangup",
        "move_pages",
        "nfsservctl",
        "uselib",
    ] {
        assert!(rules(&profile, name).is_empty(), "{name}");
    }
    for name in
        ["read", "openat", "execve", "exit_group", "futex", "socketpair", "chroot", "ptrace", "arch_prctl"]
    {
        assert!(allowed(&profile, name), "{name}");
    }
}

#[test]
fn capabilities_open_the_calls_they_are_for() {
    for (capability, names) in [
        ("SYS_ADMIN", vec!["mount", "umount2", "setns", "unshare", "bpf", "clone", "clone3", "sethostname"]),
        ("SYS_PTRACE", vec!["kcmp", "pidfd_getfd", "process_madvise"]),
        ("SYS_TIME", vec!["clock_settime", "settimeofday"]),
        ("SYS_CHROOT", vec!["chroot"]),
        ("SYS_MODULE", vec!["init_module", "finit_module", "delete_module"]),
        ("SYSLOG", vec!["syslog"]),
        ("BPF", vec!["bpf"]),
        ("PERFMON", vec!["perf_event_open"]),
        ("DAC_READ_SEARCH", vec!["open_by_handle_at"]),
        ("SYS_BOOT", vec!["reboot"]),
        ("SYS_PACCT", vec!["acct"]),
        ("SYS_RAWIO", vec!["iopl", "ioperm"]),
        ("SYS_TTY_CONFIG", vec!["vhangup"]),
        ("SYS_NICE", vec!["mbind", "set_mempolicy"]),
    ] {
        let without = runtime_default(Arch::X86_64, NEW, CapabilitySet::EMPTY);
        let has = runtime_default(Arch::X86_64, NEW, with(&[capability]));
        for name in names {
            assert!(!allowed(&without, name), "{name} without {capability}");
            assert!(allowed(&has, name), "{name} with {capability}");
        }
    }
}

#[test]
fn clone_makes_no_namespaces_and_clone3_is_not_there() {
    let profile = runtime_default(Arch::X86_64, NEW, default_caps());
    assert_eq!(rules(&profile, "clone3"), [json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 38})]);
    assert_eq!(
        rules(&profile, "clone"),
        [json!({"action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0x7e02_0000u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]})]
    );
    let admin = runtime_default(Arch::X86_64, NEW, with(&["SYS_ADMIN"]));
    assert_eq!(rules(&admin, "clone3"), [json!({"action": "SCMP_ACT_ALLOW"})]);
    assert_eq!(rules(&admin, "clone"), [json!({"action": "SCMP_ACT_ALLOW"})]);
}

#[test]
fn arguments_are_restricted_where_only_they_tell() {
    let profile = runtime_default(Arch::X86_64, NEW, CapabilitySet::all());
    assert_eq!(
        rules(&profile, "socket"),
        [json!({"action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]})]
    );
    let values: Vec<u64> = rules(&profile, "personality")
        .iter()
        .map(|rule| rule["args"][0]["value"].as_u64().unwrap())
        .collect();
    assert_eq!(values, [0, 8, 0x20000, 0x20008, 0xffff_ffff]);
}

#[test]
fn ptrace_waits_for_a_kernel_that_filters_after_it() {
    let caps = default_caps();
    for (kernel, expected) in [((4, 7), false), ((4, 8), true), ((5, 0), true)] {
        let kernel = KernelVersion { major: kernel.0, minor: kernel.1 };
        assert_eq!(allowed(&runtime_default(Arch::X86_64, kernel, caps), "ptrace"), expected, "{kernel:?}");
    }
}

#[test]
fn every_entry_point_of_the_architecture_is_guarded() {
    let archs = |arch: Arch| runtime_default(arch, NEW, default_caps()).architectures().clone().unwrap();
    assert_eq!(archs(Arch::X86_64), [OciArch::ScmpArchX86_64, OciArch::ScmpArchX86, OciArch::ScmpArchX32]);
    assert_eq!(archs(Arch::Aarch64), [OciArch::ScmpArchAarch64]);
    let arm = runtime_default(Arch::Aarch64, NEW, default_caps());
    assert!(allowed(&arm, "sync_file_range2") && !allowed(&arm, "arch_prctl"));
}

#[test]
fn the_groups_are_well_kept() {
    let mut always = BTreeSet::new();
    for group in groups::GROUPS {
        assert!(group.reason.len() >= 10, "a reason that says something: {:?}", group.calls);
        assert!(!group.calls.is_empty());
        assert!(
            group.calls.windows(2).all(|pair| pair[0] < pair[1]),
            "sorted, none twice: {:?}",
            group.calls
        );
        if group.when == groups::When::Always && group.rule == groups::Rule::Allow {
            for call in group.calls {
                assert!(always.insert(*call), "{call} is in two groups");
            }
        }
    }
    assert!(always.len() > 300);
}

fn read(profile: Value) -> Result<LinuxSeccomp, String> {
    let bytes = serde_json::to_vec(&profile).unwrap();
    localhost(&bytes, Arch::X86_64, NEW, default_caps()).map_err(|error| error.to_string())
}

#[test]
fn profiles_of_both_formats_are_read() {
    let oci = read(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
             "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}]}]
    }))
    .unwrap();
    assert_eq!(oci.default_errno_ret(), Some(13));
    assert_eq!(oci.architectures().as_ref().unwrap().len(), 3);
    assert!(allowed(&oci, "write"));
    assert_eq!(rules(&oci, "socket")[0]["errnoRet"], json!(97));

    let docker = read(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "comment": "c"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_KILL"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}}
        ]
    }))
    .unwrap();
    assert_eq!(docker.default_errno_ret(), Some(38));
    assert_eq!(docker.architectures().as_ref().unwrap().len(), 3);
    for (name, expected) in [
        ("read", true),
        ("mount", false),
        ("chroot", true),
        ("clone", true),
        ("kill", false),
        ("ptrace", true),
        ("cacheflush", false),
    ] {
        assert_eq!(allowed(&docker, name), expected, "{name}");
    }
}

#[test]
fn the_native_architecture_is_always_guarded() {
    let profile =
        read(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_AARCH64"]})).unwrap();
    assert_eq!(
        profile.architectures().as_ref().unwrap(),
        &[OciArch::ScmpArchX86_64, OciArch::ScmpArchAarch64]
    );
}

#[test]
fn profiles_that_say_what_we_do_not_know_are_refused_with_the_place() {
    let action = |call: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]});
    for (profile, message) in [
        (json!({}), "missing field `defaultAction`"),
        (
            json!({"defaultAction": "SCMP_ACT_DANCE"}),
            "the profile's defaultAction: unknown action \"SCMP_ACT_DANCE\"",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}), "unknown field `sycalls`"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "notifications are not supported"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}), "the profile's listenerPath"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["PDP11"]}),
            "unknown architecture \"PDP11\"",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"]}), "unknown flag \"FAST\""),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}), "5000 is no error number"),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}), "unknown error \"EWHAT\""),
        (
            action(json!({"names": [], "action": "SCMP_ACT_ALLOW"})),
            "syscalls[0].names: a system call has no name",
        ),
        (action(json!({"names": ["read"], "action": "X"})), "syscalls[0].action: unknown action \"X\""),
        (
            action(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "syscalls[0].args: index 6",
        ),
        (
            action(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_IS"}]})),
            "syscalls[0].args: unknown operator \"SCMP_CMP_IS\"",
        ),
        (
            action(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_FLY"]}})),
            "syscalls[0].caps: unknown capability \"CAP_FLY\"",
        ),
    ] {
        let error = read(profile.clone()).expect_err(message);
        assert!(error.contains(message), "{profile}: {error}");
    }
}

proptest! {
    #[test]
    fn reading_a_profile_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = localhost(&bytes, Arch::X86_64, NEW, CapabilitySet::EMPTY);
    }
}
