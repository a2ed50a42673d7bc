//! The Spec, put together.

use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, Root, Spec,
};

use super::{ContainerInput, cgroup::container_resources, mounts, process};
use crate::{
    node_facts::{Device, DeviceKind},
    seccomp,
    security_context::{ConfigError, ProcMount, Seccomp},
};

/// Kubernetes' defaults (`pkg/securitycontext`): what of /proc and /sys tells or does too much.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The Spec of one container. Errors: no command, a working directory that is not absolute, a mount over `/proc` or
/// `/sys`, a profile that cannot be read, block volumes and device claims.
pub fn spec(input: &ContainerInput<'_>) -> Result<Spec, ConfigError> {
    let container = input.container;
    let refused = |field: &str| {
        Err(ConfigError::config(format!("container {}: {field} is not supported", container.name)))
    };
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return refused("volumeDevices");
    }
    let claims = container.resources.as_ref().and_then(|r| r.claims.as_ref());
    if claims.is_some_and(|claims| !claims.is_empty()) {
        return refused("resources.claims");
    }

    let mut root = Root::default();
    root.set_path(input.root.to_owned());
    root.set_readonly(Some(input.effective.read_only_root.value));

    let mut spec = Spec::default();
    spec.set_version("1.0.2".to_owned());
    spec.set_root(Some(root));
    spec.set_process(Some(process::process(input)?));
    spec.set_mounts(Some(mounts::mounts(input)?));
    // In the node's UTS namespace the name is the node's, and not the container's to set.
    let own_uts = !input.effective.namespaces.host_network;
    spec.set_hostname(own_uts.then(|| input.hostname.to_owned()));
    spec.set_linux(Some(linux(input)?));
    Ok(spec)
}

fn linux(input: &ContainerInput<'_>) -> Result<Linux, ConfigError> {
    let effective = input.effective;
    let privileged = effective.privileged.value;
    let masked = !privileged && effective.proc_mount.value == ProcMount::Default;
    let paths = |list: &[&str]| -> Option<Vec<String>> {
        Some(if masked { list.iter().map(|path| (*path).to_owned()).collect() } else { Vec::new() })
    };
    let mut linux = Linux::default();
    linux.set_resources(Some(container_resources(input.container, privileged, input.node)));
    linux.set_cgroups_path(Some(input.cgroups_path.to_owned()));
    linux.set_namespaces(Some(namespaces(input)));
    linux.set_devices(privileged.then(|| input.node.devices.iter().map(device).collect()));
    linux.set_seccomp(seccomp_profile(input)?);
    linux.set_rootfs_propagation(mounts::root_propagation(input).map(str::to_owned));
    linux.set_masked_paths(paths(&MASKED_PATHS));
    linux.set_readonly_paths(paths(&READONLY_PATHS));
    Ok(linux)
}

/// One entry per namespace that is not the node's.
fn namespaces(input: &ContainerInput<'_>) -> Vec<LinuxNamespace> {
    let shares = input.effective.namespaces;
    let entry = |typ: LinuxNamespaceType, path: Option<&PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ);
        namespace.set_path(path.cloned());
        namespace
    };
    let paths = &input.namespaces;
    let mut namespaces = vec![entry(LinuxNamespaceType::Mount, None)];
    if !shares.host_pid {
        namespaces.push(entry(LinuxNamespaceType::Pid, paths.pid.as_ref()));
    }
    if !shares.host_ipc {
        namespaces.push(entry(LinuxNamespaceType::Ipc, paths.ipc.as_ref()));
    }
    if !shares.host_network {
        // A pod on its node's network has its node's name too.
        namespaces.push(entry(LinuxNamespaceType::Network, paths.network.as_ref()));
        namespaces.push(entry(LinuxNamespaceType::Uts, paths.uts.as_ref()));
    }
    if !input.effective.privileged.value {
        namespaces.push(entry(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

fn device(device: &Device) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(device.path.clone());
    node.set_typ(match device.kind {
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Char => LinuxDeviceType::C,
    });
    node.set_major(device.major);
    node.set_minor(device.minor);
    node.set_file_mode(Some(device.mode));
    node.set_uid(Some(device.uid));
    node.set_gid(Some(device.gid));
    node
}

fn seccomp_profile(input: &ContainerInput<'_>) -> Result<Option<LinuxSeccomp>, ConfigError> {
    let (arch, kernel) = (input.node.arch, input.node.kernel);
    let capabilities = input.effective.capabilities.value.bounding;
    match &input.effective.seccomp.value {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => Ok(Some(seccomp::runtime_default(arch, kernel, capabilities))),
        Seccomp::Localhost(path) => {
            let path = path.display();
            let json = input.seccomp_profile.ok_or_else(|| {
                ConfigError::create(format!(
                    "cannot load seccomp profile \"{path}\": open {path}: no such file or directory"
                ))
            })?;
            let profile = seccomp::localhost(json, arch, kernel, capabilities).map_err(|error| {
                ConfigError::create(format!("cannot load seccomp profile \"{path}\": {error}"))
            })?;
            Ok(Some(profile))
        }
    }
}
