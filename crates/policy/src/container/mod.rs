//! The OCI runtime `Spec` of one container: everything its pod, its image and its node say, as data that `cofferdam
//! plan` prints and a keeper (or runc) carries out.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::image::ImageConfiguration;
use serde::Serialize;

pub use self::{
    cgroup::{container_resources, pod_resources},
    spec::spec,
};
use crate::{
    node_facts::NodeFacts,
    security_context::{ContainerKind, Effective},
};

mod cgroup;
mod mounts;
mod process;
mod spec;

#[cfg(test)]
mod tests;

/// All that decides a container's Spec.
#[derive(Clone, Debug)]
pub struct ContainerInput<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub kind: ContainerKind,
    pub effective: &'a Effective,
    pub image: &'a ImageConfiguration,
    /// From [`crate::env::resolve`], services included.
    pub env: &'a [(String, String)],
    /// The container's volume mounts, in the order of its `volumeMounts`.
    pub mounts: &'a [VolumeMount],
    /// The UTS host name of the pod: `PodEffective::hostname`.
    pub hostname: &'a str,
    /// As OCI `linux.cgroupsPath`: absolute, relative to each hierarchy's mount point.
    pub cgroups_path: &'a Path,
    pub namespaces: NamespacePaths,
    /// The root file system's mount point, OCI `root.path`.
    pub root: &'a Path,
    pub files: PodFiles,
    /// Bytes of the profile that `Effective::seccomp` names, if it is Localhost.
    pub seccomp_profile: Option<&'a [u8]>,
    pub node: &'a NodeFacts,
}

/// Paths of the pod's shared namespaces. `None`: the runtime makes one, or (a keeper) uses its pod's. Host namespaces do not
/// stand here: `Effective::namespaces` says which those are, and the Spec has no entry for them.
#[derive(Clone, Debug, Default)]
pub struct NamespacePaths {
    pub network: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    /// The pod's, for shareProcessNamespace, or the target container's, for an ephemeral container.
    pub pid: Option<PathBuf>,
}

/// Files that the agent writes for the pod and mounts into each container. `None`: not mounted.
#[derive(Clone, Debug, Default)]
pub struct PodFiles {
    pub hosts: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    /// The container's own; mounted on `terminationMessagePath`.
    pub termination_log: Option<PathBuf>,
    /// The pod's shared memory directory (a tmpfs); without it each container mounts one of its own. With hostIPC
    /// `/dev/shm` of the node is mounted.
    pub shm: Option<PathBuf>,
}

/// One prepared volume at its destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeMount {
    pub source: MountSource,
    /// Absolute path in the container.
    pub destination: PathBuf,
    pub read_only: bool,
    /// Submounts too (`recursiveReadOnly`).
    pub recursive_read_only: bool,
    pub propagation: Propagation,
    /// No setuid programs and no device nodes: every volume but hostPath.
    pub nosuid_nodev: bool,
}

/// Where a bind mount comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    Path(PathBuf),
    /// Index in the list of descriptors that goes to the keeper with the plan: a subPath, resolved once (CVE-2017-1002101,
    /// CVE-2021-25741). In the Spec its source is `fd:<index>`.
    Descriptor(usize),
}

/// `volumeMounts[].mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

impl MountSource {
    /// As it stands in `mounts[].source` of the Spec.
    pub fn to_path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Descriptor(index) => PathBuf::from(format!("fd:{index}")),
        }
    }
}
