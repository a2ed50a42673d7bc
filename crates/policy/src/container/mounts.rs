//! A container's mounts: the kernel's file systems, the pod's files and the volumes, in an order in which each can be
//! made.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use oci_spec::runtime::Mount;

use super::{ContainerInput, Propagation, VolumeMount};
use crate::security_context::ConfigError;

/// All mounts, parents before children.
pub fn mounts(input: &ContainerInput<'_>) -> Result<Vec<Mount>, ConfigError> {
    let mut volumes = Vec::new();
    for volume in input.mounts {
        volumes.push(volume_mount(input, volume)?);
    }
    let taken: BTreeSet<PathBuf> = volumes.iter().map(|mount| mount.destination().clone()).collect();
    let mut all = kernel_mounts(input);
    all.extend(pod_files(input)?);
    // What the pod mounts itself takes the place of what we would have.
    all.retain(|mount| !taken.contains(mount.destination()));
    all.extend(volumes);
    all.sort_by_key(|mount| mount.destination().components().count());
    Ok(all)
}

/// What the root file system needs as `rootfsPropagation`, for mounts that propagate.
pub fn root_propagation(input: &ContainerInput<'_>) -> Option<&'static str> {
    let any = |wanted: Propagation| input.mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        Some("rshared")
    } else if any(Propagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

fn mount(destination: impl Into<PathBuf>, typ: &str, source: impl Into<PathBuf>, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(typ.to_owned()));
    mount.set_source(Some(source.into()));
    mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

fn kernel_mounts(input: &ContainerInput<'_>) -> Vec<Mount> {
    let privileged = input.effective.privileged.value;
    let sys = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        // Read-only closes v1's release_agent (CVE-2022-0492).
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]),
    ];
    mounts.push(if input.effective.namespaces.host_ipc {
        mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate", "rw"])
    } else if let Some(shm) = &input.files.shm {
        mount("/dev/shm", "bind", shm, &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"])
    } else {
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])
    });
    mounts
}

fn pod_files(input: &ContainerInput<'_>) -> Result<Vec<Mount>, ConfigError> {
    // As containerd: resolv.conf and hostname are part of the root that may be read-only; the kubelet's own files are not.
    let root = if input.effective.read_only_root.value { "ro" } else { "rw" };
    let files = &input.files;
    let termination = input.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let mut mounts = Vec::new();
    for (destination, source, mode) in [
        ("/etc/hosts", &files.hosts, "rw"),
        ("/etc/resolv.conf", &files.resolv_conf, root),
        ("/etc/hostname", &files.hostname, root),
        (termination, &files.termination_log, "rw"),
    ] {
        if let Some(source) = source {
            let destination = destination_path(input, Path::new(destination))?;
            mounts.push(mount(destination, "bind", source, &["rbind", "rprivate", mode]));
        }
    }
    Ok(mounts)
}

fn volume_mount(input: &ContainerInput<'_>, volume: &VolumeMount) -> Result<Mount, ConfigError> {
    let destination = destination_path(input, &volume.destination)?;
    if volume.propagation == Propagation::Bidirectional && !input.effective.privileged.value {
        return Err(ConfigError::config(format!(
            "container {}: volumeMounts.mountPropagation: Bidirectional mount propagation is available only to privileged containers",
            input.container.name
        )));
    }
    let mut options = vec!["rbind"];
    options.push(match volume.propagation {
        Propagation::None => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    });
    options.push(if volume.read_only { "ro" } else { "rw" });
    if volume.recursive_read_only {
        if !input.node.recursive_read_only {
            return Err(ConfigError::config(format!(
                "container {}: volumeMounts.recursiveReadOnly: volume {} cannot be mounted recursively read-only: node {} does not support it",
                input.container.name,
                destination.display(),
                input.node.name
            )));
        }
        options.push("rro");
    }
    if volume.nosuid_nodev && !input.effective.privileged.value {
        options.extend(["nosuid", "nodev"]);
    }
    Ok(mount(destination, "bind", volume.source.to_path(), &options))
}

/// The destination made absolute and free of `.` and `..`; over `/proc` nothing is mounted (CVE-2019-16884: a volume there
/// fakes what the runtime writes to), over `/sys` only by privileged containers.
fn destination_path(input: &ContainerInput<'_>, destination: &Path) -> Result<PathBuf, ConfigError> {
    let mut path = PathBuf::from("/");
    for component in destination.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let refused = path.starts_with("/proc")
        || path == Path::new("/")
        || (path.starts_with("/sys") && !input.effective.privileged.value);
    if refused {
        return Err(ConfigError::create(format!(
            "container {}: volumeMounts.mountPath: nothing may be mounted on {}",
            input.container.name,
            path.display()
        )));
    }
    Ok(path)
}
