//! What only version 1 needs: inherited cpusets, the devices controller, and killing by the freezer.

use std::path::Path;

use rustix::process::{Pid, Signal};

use super::{CgroupError, DeviceKind, DeviceRule, Hierarchies, V1Hierarchy, make, write};
use crate::error::{CallError, Named};

/// The controllers that may stand among a mount's options.
pub(super) const CONTROLLERS: [&str; 13] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

pub(super) fn create(hierarchy: &V1Hierarchy, path: &Path) -> Result<(), CgroupError> {
    let cpuset = hierarchy.controllers.iter().any(|controller| controller == "cpuset");
    make(&hierarchy.mount, path, |directory| if cpuset { inherit_cpuset(directory) } else { Ok(()) })
}

/// A new cpuset is empty and takes no process until it has processors and memory nodes: the parent's.
fn inherit_cpuset(directory: &Path) -> Result<(), CgroupError> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let from = parent.join(file);
        let value = std::fs::read_to_string(&from).named("read", from.display())?;
        write(directory, file, value.trim())?;
    }
    Ok(())
}

pub(super) fn limit_devices(directory: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    write(directory, "devices.deny", "a")?;
    for rule in rules {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        write(directory, file, &line(*rule))?;
    }
    Ok(())
}

fn line(rule: DeviceRule) -> String {
    let kind = match rule.kind {
        // `a` is a rule of its own: the kernel ignores what stands behind it.
        DeviceKind::All => return "a".into(),
        DeviceKind::Block => 'b',
        DeviceKind::Char => 'c',
    };
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    let access: String = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')]
        .into_iter()
        .filter_map(|(has, letter)| has.then_some(letter))
        .collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// Kills all while they are frozen, so that none can fork away.
pub(super) fn kill(hierarchies: &Hierarchies, path: &Path, first: &[Pid]) -> Result<(), CgroupError> {
    let freezer =
        hierarchies.v1_of("freezer").map(|hierarchy| hierarchy.mount.join(path)).filter(|d| d.exists());
    let mut pids = first.to_vec();
    if let Some(directory) = &freezer {
        write(directory, "freezer.state", "FROZEN")?;
        pids.clear();
        super::collect(directory, &mut pids)?;
    }
    for pid in &pids {
        match rustix::process::kill_process(*pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(CallError::new("kill", pid.to_string(), errno).into()),
        }
    }
    match &freezer {
        Some(directory) => write(directory, "freezer.state", "THAWED"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_are_written_as_the_kernel_reads_them() {
        let rule = DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(1),
            minor: None,
            read: true,
            write: false,
            mknod: true,
        };
        assert_eq!(line(rule), "c 1:* rm");
        assert_eq!(line(DeviceRule { kind: DeviceKind::All, ..rule }), "a");
    }
}
