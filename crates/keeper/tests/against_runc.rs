//! The same Spec run by runc and by the keeper: what the process sees of itself must be the same. runc is the oracle for OCI's
//! runtime specification as Kubernetes users know it.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::*;
use keeper::protocol::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// What the process prints of itself.
const PROBE: &str = r#"
grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
echo "cwd $(pwd)"
echo "umask $(umask)"
echo "host $(hostname)"
env | grep -vE '^(PWD|OLDPWD|SHLVL)=' | sort | sed 's/^/env /'
sed 's/^/limit /' /proc/self/limits
sed 's/^/mount /' /proc/self/mountinfo
for f in $(ls /dev); do echo "dev $f $(stat -c '%F %t:%T %a %u:%g' /dev/$f)"; done
for n in mnt pid ipc uts net cgroup user; do echo "ns $n $(readlink /proc/self/ns/$n)"; done
for f in /proc/self/fd/*; do echo "fd ${f##*/}"; done
echo "comm $(cat /proc/1/comm)"
touch /written 2>&1 | sed 's/^/write /'
touch /proc/sys/kernel/x 2>&1 | sed 's/^/write /'
cat /proc/kcore 2>&1 | head -c 100 | sed 's/^/kcore /'
ls /sys/firmware 2>&1 | sed 's/^/firmware /'
"#;

fn oracle(test: &str) -> bool {
    if !can_run(test) {
        return false;
    }
    if Command::new("runc").arg("--version").output().is_err() {
        skipped(test, "needs runc");
        return false;
    }
    true
}

/// A copy of the image, so that what one run writes the other does not see.
fn root(place: &Place, name: &str) -> std::path::PathBuf {
    let to = place.directory.join(name);
    let status = Command::new("cp").arg("-a").arg(place.image()).arg(&to).status().unwrap();
    assert!(status.success());
    to
}

fn run_runc(place: &Place, spec: &Value, id: &str) -> String {
    let bundle = place.directory.join(format!("bundle-{id}"));
    std::fs::create_dir_all(&bundle).unwrap();
    let mut spec = spec.clone();
    spec["root"]["path"] = json!(root(place, &format!("runc-{id}")));
    spec["hostname"] = json!("test-host");
    spec["linux"]["cgroupsPath"] = json!(format!("/{}-runc-{id}", place.name));
    std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let output = Command::new("runc")
        .arg("--root")
        .arg(place.directory.join("runc"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(format!("{}-{id}", place.name))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The facts of a probe's output: what to compare, under a name each.
fn facts(output: &str) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for line in output.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match first {
            "mount" => {
                let (before, after) = line.split_once(" - ").unwrap();
                let before: Vec<&str> = before.split(' ').collect();
                let point = before[5];
                let mut options: Vec<&str> = before[6].split(',').collect();
                options.sort_unstable();
                let propagation =
                    before[7..].iter().map(|field| field.split(':').next().unwrap()).collect::<Vec<_>>();
                let kind = after.split(' ').next().unwrap();
                // The masks' null device is the node's with us (CVE-2025-31133), the container's with runc.
                let kind = if kind == "devtmpfs" { "tmpfs" } else { kind };
                // A mask's own flags are ours to make stricter.
                if kind == "tmpfs" && (point.starts_with("/proc/") || point == "/sys/firmware") {
                    options.retain(|option| ["ro", "rw"].contains(option));
                }
                let count =
                    facts.keys().filter(|key: &&String| key.starts_with(&format!("mount {point} "))).count();
                facts.insert(format!("mount {point} {count}"), format!("{kind} {options:?} {propagation:?}"));
            }
            // Own or the test's: the number itself says nothing.
            "ns" => {
                let ours = std::fs::read_link(format!("/proc/self/ns/{}", rest[0])).unwrap();
                let own = ours != Path::new(rest[1]);
                facts.insert(format!("ns {}", rest[0]), format!("own {own}"));
            }
            "dev" | "limit" | "env" => {
                facts.insert(format!("{first} {}", rest[0]), rest[1..].join(" "));
            }
            "fd" => {
                facts.insert(format!("fd {}", rest[0]), String::new());
            }
            _ => {
                let entry = facts.entry(first.to_owned()).or_default();
                entry.push_str(&rest.join(" "));
            }
        }
    }
    // Sorted by the kernel for one, as given for the other.
    if let Some(groups) = facts.get_mut("Groups:") {
        let mut ids: Vec<u32> = groups.split(' ').filter_map(|id| id.parse().ok()).collect();
        ids.sort_unstable();
        *groups = format!("{ids:?}");
    }
    facts
}

/// Both runs' differences, one a line.
fn differences(pod: &mut Pod, name: &str, spec: &Value) -> Vec<String> {
    let theirs = run_runc(&pod.place, spec, name);
    let mut plan = pod.container(name, spec.clone());
    plan.rootfs = Rootfs::Path(root(&pod.place, &format!("keeper-{name}")));
    let ours = match pod.run_with(plan, &[]) {
        Ok(_) => {
            pod.wait(name);
            pod.log(name)
        }
        Err(error) => format!("failed {error}"),
    };
    let (theirs, ours) = (facts(&theirs), facts(&ours));
    assert!(theirs.len() > 20, "runc said only {theirs:?}");
    let names: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| format!("{name}: runc {:?}, keeper {:?}", theirs.get(name), ours.get(name)))
        .collect()
}

fn probe() -> Value {
    spec(&["sh", "-c", PROBE])
}

fn same(test: &str, changes: &[Change]) {
    if !oracle(test) {
        return;
    }
    let mut pod = Pod::new();
    for (at, (what, change)) in changes.iter().enumerate() {
        let mut spec = probe();
        change(&mut spec);
        // The primary group is among the groups with us whatever the Spec says (CVE-2022-2989).
        let found = differences(&mut pod, &format!("c{at}"), &spec);
        assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    }
}

#[test]
fn a_default_container_is_as_runc_makes_it() {
    same(
        "a_default_container_is_as_runc_makes_it",
        &[("default", |spec| {
            spec["process"]["user"]["additionalGids"] = json!([0]);
        })],
    );
}

#[test]
fn users_groups_limits_and_directories_are_as_runc_makes_them() {
    same(
        "users_groups_limits_and_directories_are_as_runc_makes_them",
        &[
            ("a user with groups", |spec| {
                spec["process"]["user"] =
                    json!({"uid": 1000, "gid": 1000, "additionalGids": [1000, 2000, 65534]});
            }),
            ("no new privileges, no capabilities", |spec| {
                spec["process"]["user"] = json!({"uid": 65534, "gid": 65534, "additionalGids": [65534]});
                spec["process"]["noNewPrivileges"] = json!(true);
                spec["process"]["capabilities"] = json!({});
            }),
            ("limits, umask, directory", |spec| {
                spec["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [0], "umask": 63});
                spec["process"]["cwd"] = json!("/made/here");
                spec["process"]["rlimits"] = json!([
                    {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                ]);
            }),
            ("read-only root", |spec| {
                spec["process"]["user"]["additionalGids"] = json!([0]);
                spec["root"]["readonly"] = json!(true);
            }),
        ],
    );
}

#[test]
fn mounts_devices_and_filters_are_as_runc_makes_them() {
    same(
        "mounts_devices_and_filters_are_as_runc_makes_them",
        &[
            ("bind mounts and tmpfs", |spec| {
                spec["process"]["user"]["additionalGids"] = json!([0]);
                let mounts = spec["mounts"].as_array_mut().unwrap();
                mounts.extend([
                json!({"destination": "/data/ro", "type": "bind", "source": "/etc", "options": ["rbind", "rprivate", "ro"]}),
                json!({"destination": "/etc/hostname", "type": "bind", "source": "/etc/hostname", "options": ["bind", "rprivate", "rw", "nosuid", "nodev", "noexec"]}),
                json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1777", "noatime"]}),
            ]);
            }),
            ("devices", |spec| {
                spec["process"]["user"]["additionalGids"] = json!([0]);
                spec["linux"]["devices"] = json!([
                    {"path": "/dev/loop-control", "type": "c", "major": 10, "minor": 237, "fileMode": 432, "uid": 0, "gid": 6},
                    {"path": "/dev/disk0", "type": "b", "major": 7, "minor": 0, "fileMode": 384, "uid": 5, "gid": 6},
                ]);
            }),
            ("a filter", |spec| {
                spec["process"]["user"]["additionalGids"] = json!([0]);
                spec["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                    "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
                });
            }),
            ("no cgroup namespace, nothing masked, all of sysfs", |spec| {
                spec["process"]["user"]["additionalGids"] = json!([0]);
                spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "cgroup");
                spec["linux"]["maskedPaths"] = json!([]);
                spec["linux"]["readonlyPaths"] = json!([]);
                spec["mounts"][5]["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
            }),
        ],
    );
}

/// A random security context, as the Spec that would be made of it.
fn contexts() -> impl Strategy<Value = Value> {
    let capabilities = prop::sample::subsequence(&DEFAULT_CAPABILITIES[..], 0..=14);
    let id = prop_oneof![Just(0_u32), 1_u32..70_000, Just(2_147_483_647)];
    let groups = prop::collection::btree_set(0_u32..100_000, 0..5);
    let errno = prop_oneof![Just(1), Just(38)];
    (id.clone(), id, groups, capabilities, any::<[bool; 4]>(), 0_u32..512, errno).prop_map(
        |(uid, gid, mut groups, capabilities, [nnp, readonly, filter, ambient], umask, errno)| {
            groups.insert(gid);
            let mut spec = probe();
            spec["process"]["user"] = json!({"uid": uid, "gid": gid, "additionalGids": groups, "umask": umask});
            spec["process"]["noNewPrivileges"] = json!(nnp);
            spec["root"]["readonly"] = json!(readonly);
            spec["process"]["capabilities"] =
                json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
            if ambient {
                spec["process"]["capabilities"]["inheritable"] = json!(capabilities);
                spec["process"]["capabilities"]["ambient"] = json!(capabilities);
            }
            if filter {
                spec["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{"names": ["mount", "unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}],
                });
            }
            spec
        },
    )
}

#[test]
fn random_security_contexts_are_as_runc_makes_them() {
    if !oracle("random_security_contexts_are_as_runc_makes_them") {
        return;
    }
    let pod = std::cell::RefCell::new((Pod::new(), 0));
    let config = Config { cases: 24, max_shrink_iters: 8, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&contexts(), |spec| {
            let (pod, count) = &mut *pod.borrow_mut();
            *count += 1;
            let found = differences(pod, &format!("r{count}"), &spec);
            prop_assert!(found.is_empty(), "{}", found.join("\n"));
            Ok(())
        })
        .unwrap();
}
