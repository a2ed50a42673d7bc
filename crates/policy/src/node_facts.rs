//! What a node's kernel can do and how the node is set up, found once when its agent starts. The decisions take it as
//! data, so that the same pod can be planned for another machine, and so that what a node cannot do is refused by name.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::security_context::CapabilitySet;

/// Everything the decisions need to know of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeFacts {
    /// `spec.nodeName` of the pods here; also the host name of hostNetwork pods.
    pub name: String,
    pub kernel: KernelVersion,
    pub arch: Arch,
    pub cgroup: CgroupMode,
    /// What the node's own bounding set holds: no container can get more, whatever it asks for.
    pub capabilities: CapabilitySet,
    /// seccomp filters work (`CONFIG_SECCOMP_FILTER`).
    pub seccomp: bool,
    /// kubelet's `--seccomp-default`: the profile of containers that name none.
    pub seccomp_default: bool,
    /// Directory that `localhostProfile` is relative to (kubelet: `/var/lib/kubelet/seccomp`).
    pub seccomp_root: PathBuf,
    pub apparmor: bool,
    pub selinux: bool,
    /// `hostUsers: false` can be given.
    pub user_namespaces: bool,
    /// `mount_setattr` with `AT_RECURSIVE` works (Linux 5.12): recursiveReadOnly mounts.
    pub recursive_read_only: bool,
    /// All device nodes of the node, for privileged containers.
    pub devices: Vec<Device>,
    /// Bytes of memory of the node (its capacity): the Burstable oom_score_adj is relative to it.
    pub memory_capacity: u64,
    /// Thousandths of a CPU of the node (its allocatable): resourceFieldRef `limits.cpu` without a limit.
    pub cpu_allocatable_millis: u64,
    /// Bytes of memory a pod can have (allocatable): resourceFieldRef `limits.memory` without a limit.
    pub memory_allocatable: u64,
    /// kubelet's `--allowed-unsafe-sysctls`: names, or prefixes ending in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// kubelet's `--pod-max-pids`; `None`: no limit.
    pub pod_pids_limit: Option<i64>,
    /// The node's own addresses, primary first.
    pub host_ips: Vec<String>,
    /// The cgroup has a file to limit swap (`memory.memsw.limit_in_bytes`, `memory.swap.max`).
    pub swap_controller: bool,
    /// The lowest `oom_score_adj` the node can give: without CAP_SYS_RESOURCE it is the agent's own. A lower wish is raised to
    /// it, as containerd's `restrict_oom_score_adj` does.
    pub min_oom_score_adj: i32,
}

/// `major.minor` of `uname -r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelVersion {
    pub major: u32,
    pub minor: u32,
}

/// Machine architectures that profiles and device lists know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    X86_64,
    Aarch64,
}

/// Which cgroup hierarchies carry the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    V1,
    V2,
    /// Controllers on v1, and an empty v2 hierarchy for killing and process tracking.
    Hybrid,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path under `/dev`.
    pub path: PathBuf,
    pub kind: DeviceKind,
    pub major: i64,
    pub minor: i64,
    /// Permission bits, without the file type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    Block,
    Char,
}

impl KernelVersion {
    /// Reads the first two numbers of a release such as `6.18.3-cloud`; what is missing counts as 0.
    pub fn parse(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        Self { major: numbers.next().unwrap_or(0), minor: numbers.next().unwrap_or(0) }
    }
}

impl Default for NodeFacts {
    /// A node with a current kernel, nothing missing and no device of its own: what `cofferdam plan` assumes when it is
    /// not told of a node.
    fn default() -> Self {
        Self {
            name: "node-1".to_owned(),
            kernel: KernelVersion { major: 6, minor: 12 },
            arch: if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 },
            cgroup: CgroupMode::V2,
            capabilities: CapabilitySet::all(),
            seccomp: true,
            seccomp_default: false,
            seccomp_root: PathBuf::from("/var/lib/kubelet/seccomp"),
            apparmor: false,
            selinux: false,
            user_namespaces: false,
            recursive_read_only: true,
            devices: Vec::new(),
            memory_capacity: 8 << 30,
            cpu_allocatable_millis: 2000,
            memory_allocatable: 8 << 30,
            allowed_unsafe_sysctls: Vec::new(),
            pod_pids_limit: None,
            host_ips: Vec::new(),
            swap_controller: false,
            min_oom_score_adj: -1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        for (release, major, minor) in
            [("6.18.3-cloud", 6, 18), ("5.15", 5, 15), ("4", 4, 0), ("", 0, 0), ("6.1.0-13-amd64", 6, 1)]
        {
            assert_eq!(KernelVersion::parse(release), KernelVersion { major, minor }, "{release}");
        }
    }
}
