//! What this node can do, found once at the agent's start.

use std::{fs, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt, path::Path};

use policy::{
    node_facts::{Arch, CgroupMode, Device, DeviceKind, KernelVersion, NodeFacts},
    security_context::CapabilitySet,
};

use super::context::Config;

pub fn find(config: &Config) -> NodeFacts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let bounding = read("/proc/self/status")
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .map_or_else(CapabilitySet::all, CapabilitySet::from_bits);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let modules = read("/sys/kernel/security/lsm");
    NodeFacts {
        name: config.node.clone(),
        kernel: KernelVersion::parse(&release),
        arch: if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 },
        cgroup: cgroup_mode(),
        capabilities: bounding,
        seccomp: read("/proc/self/status").contains("Seccomp_filters:"),
        apparmor: modules.split(',').any(|name| name.trim() == "apparmor"),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        devices: devices(Path::new("/dev")),
        memory_capacity: memory,
        memory_allocatable: memory,
        cpu_allocatable_millis: cpus * 1000,
        ..NodeFacts::default()
    }
}

fn cgroup_mode() -> CgroupMode {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => CgroupMode::Hybrid,
        (true, false) => CgroupMode::V1,
        _ => CgroupMode::V2,
    }
}

/// The device nodes that a privileged container gets: all of /dev but terminals of others, shared memory and queues.
fn devices(dir: &Path) -> Vec<Device> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let name = entry.file_name();
            let others = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
            if !others.iter().any(|other| *other == name) {
                found.extend(devices(&path));
            }
            continue;
        }
        let kind = match (kind.is_block_device(), kind.is_char_device()) {
            (true, _) => DeviceKind::Block,
            (_, true) => DeviceKind::Char,
            _ => continue,
        };
        // The container has a console and a terminal multiplexer of its own.
        if path == Path::new("/dev/console") || path == Path::new("/dev/ptmx") {
            continue;
        }
        let number = metadata.rdev();
        found.push(Device {
            path,
            kind,
            major: i64::from(rustix::fs::major(number)),
            minor: i64::from(rustix::fs::minor(number)),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
    }
    found
}
