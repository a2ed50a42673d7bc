//! Seccomp profiles as OCI data: the runtime's default profile, written as a table of groups with the reason of each,
//! and profiles that the node's administrator wrote (Localhost).

use oci_spec::runtime::LinuxSeccomp;

use crate::{
    node_facts::{Arch, KernelVersion},
    security_context::CapabilitySet,
};

/// The default profile for a container with these capabilities (its bounding set).
pub fn runtime_default(arch: Arch, kernel: KernelVersion, capabilities: CapabilitySet) -> LinuxSeccomp {
    let _ = (arch, kernel, capabilities);
    todo!()
}

/// Why a profile on the node cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("seccomp profile is not valid JSON: {0}")]
    Json(String),
    #[error("seccomp profile: {field}: {problem}")]
    Field { field: String, problem: String },
}

/// Reads a profile in the format of Docker, containerd and CRI-O (`defaultAction`, `archMap`, `syscalls` with `includes` and
/// `excludes`) or of OCI (`architectures`).
pub fn localhost(
    json: &[u8],
    arch: Arch,
    kernel: KernelVersion,
    capabilities: CapabilitySet,
) -> Result<LinuxSeccomp, ProfileError> {
    let _ = (json, arch, kernel, capabilities);
    todo!()
}
