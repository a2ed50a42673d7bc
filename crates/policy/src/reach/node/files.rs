//! hostPath volumes: the node's files.

use k8s_openapi::api::core::v1::VolumeMount;

use super::{Claim, Process, Question, Sight, Subject, facts::Mount};

/// File systems that are made for the container, or are the kernel's own.
const MADE_FOR_IT: [&str; 9] =
    ["overlay", "tmpfs", "proc", "sysfs", "devpts", "devtmpfs", "mqueue", "cgroup", "cgroup2"];

pub(super) fn claims(subject: &Subject<'_>) -> Vec<Claim> {
    let volumes = || subject.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let host_path = |mount: &VolumeMount| {
        let volume = volumes().find(|volume| volume.name == mount.name)?;
        Some(volume.host_path.as_ref()?.path.clone())
    };
    let mounts = subject.container.volume_mounts.iter().flatten();
    let mounts: Vec<_> = mounts.filter_map(|mount| Some((mount, host_path(mount)?))).collect();
    let mut claims: Vec<Claim> = mounts
        .iter()
        .map(|(mount, path)| {
            let writable = !mount.read_only.unwrap_or(false);
            let within = mount.sub_path.as_deref().map(|sub| format!("/{sub}")).unwrap_or_default();
            let how = if writable { "to read and write" } else { "to read" };
            let question = Question::NodePath { path: clean(&mount.mount_path), writable };
            Claim {
                target: format!("{path}{within} of the node, {how}"),
                because: format!("hostPath volume {}, mounted at {}", mount.name, mount.mount_path),
                remedy: Some("take an emptyDir, a configMap or a projected volume in place of the hostPath; if it must be, readOnly: true"),
                ..subject.claim("host-path", question, true)
            }
        })
        .collect();
    let known = mounts.iter().map(|(mount, _)| clean(&mount.mount_path)).collect::<Vec<_>>();
    let (target, because) = match known.as_slice() {
        [] => ("the node's files", "no hostPath volume is mounted"),
        _ => ("other files of the node", "no other hostPath volume is mounted"),
    };
    claims.push(Claim {
        target: target.into(),
        because: because.into(),
        ..subject.claim("host-path", Question::OtherPaths(known), false)
    });
    claims
}

/// As the kernel says it: without a slash at the end.
fn clean(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

/// Whether a mount shows files that are not the pod's own: those lie in the node's directory of it.
fn is_the_nodes(mount: &Mount) -> bool {
    !MADE_FOR_IT.contains(&mount.file_system.as_str()) && !mount.root.contains("/cofferdam/pods/")
}

pub(super) fn look(path: &str, writable: bool, process: &Process) -> Sight {
    let Some(mount) = process.mount_at(path) else {
        return Sight { is_there: false, witness: format!("nothing is mounted at {path}") };
    };
    let how = if mount.writable { "rw" } else { "ro" };
    Sight {
        is_there: mount.writable == writable,
        witness: format!("mounted at {path}: {} of {}, {how}", mount.root, mount.file_system),
    }
}

pub(super) fn look_for_others(known: &[String], process: &Process) -> Sight {
    let is_known = |mount: &Mount| {
        known.iter().any(|path| {
            mount.point == *path || mount.point.starts_with(&format!("{}/", path.trim_end_matches('/')))
        })
    };
    let other = process.mounts.iter().find(|mount| is_the_nodes(mount) && !is_known(mount));
    let witness = match other {
        Some(mount) => format!("mounted at {}: {} of {}", mount.point, mount.root, mount.file_system),
        None => format!("{} mounts, each the container's own", process.mounts.len()),
    };
    Sight { is_there: other.is_some(), witness }
}
