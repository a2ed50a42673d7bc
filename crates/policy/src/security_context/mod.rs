//! Who a container's processes are and what they may do: the pod's and the container's `securityContext`, the image's
//! configuration and the node's facts, resolved to one [`Effective`] value with the origin of every field.
//!
//! The container's field beats the pod's, the pod's beats the image's (the API reference of SecurityContext and
//! PodSecurityContext). What is asked for and cannot be given is a [`ConfigError`] that names the field.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use oci_spec::image::ImageConfiguration;
use serde::Serialize;

pub use self::{
    capabilities::{Capability, CapabilitySet},
    error::ConfigError,
};
use crate::node_facts::NodeFacts;

pub mod capabilities;
mod error;
mod resolve;
mod sysctls;
pub mod users;

#[cfg(test)]
mod tests;

/// Who decided a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Container,
    Pod,
    Image,
    Node,
    Default,
}

/// A value and who decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Field<T> {
    pub value: T,
    pub origin: Origin,
}

/// The image's user database, read from its root with bounded reads (CVE-2022-31030). `None`: the image has no such file.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserDatabase<'a> {
    pub passwd: Option<&'a [u8]>,
    pub group: Option<&'a [u8]>,
}

/// Which list of the pod a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerKind {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    App,
    Ephemeral,
}

/// The seccomp profile of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    Unconfined,
    RuntimeDefault,
    /// Absolute path of the profile on the node.
    Localhost(PathBuf),
}

/// `securityContext.procMount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ProcMount {
    /// Masked and read-only paths as container runtimes have them.
    Default,
    Unmasked,
}

/// The five sets of a process at its first instruction. Bounding and permitted as asked; inheritable and ambient always
/// empty (CVE-2022-29162).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    pub bounding: CapabilitySet,
    /// What a process of uid 0 has after exec; of another uid nothing: `effective` and `permitted` are empty then,
    /// because exec recomputes them from an empty ambient set.
    pub permitted: CapabilitySet,
    pub effective: CapabilitySet,
    pub inheritable: CapabilitySet,
    pub ambient: CapabilitySet,
}

/// Which namespaces of the node the pod is in, and how its containers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// One PID namespace for all containers of the pod.
    pub share_process: bool,
}

/// What a container's processes are and may do, each field with its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    pub kind: ContainerKind,
    pub uid: Field<u32>,
    pub gid: Field<u32>,
    /// For setgroups: sorted, without repeats, the primary gid included (CVE-2022-2989).
    pub supplementary_groups: Vec<Field<u32>>,
    pub run_as_non_root: Field<bool>,
    pub privileged: Field<bool>,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privs: Field<bool>,
    pub capabilities: Field<Capabilities>,
    pub read_only_root: Field<bool>,
    pub seccomp: Field<Seccomp>,
    /// `None`: no profile.
    pub apparmor_profile: Field<Option<String>>,
    pub proc_mount: Field<ProcMount>,
    /// The home directory of the user in the image's passwd, for `HOME` when neither image nor pod sets it.
    pub home: Option<String>,
    /// For volumes; not applied to hostPath.
    pub fs_group: Option<u32>,
    pub namespaces: Namespaces,
    pub sysctls: BTreeMap<String, String>,
}

/// What the pod's sandbox needs, apart from any container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodEffective {
    pub namespaces: Namespaces,
    pub sysctls: BTreeMap<String, String>,
    pub fs_group: Option<u32>,
    /// `fsGroupChangePolicy: OnRootMismatch`.
    pub fs_group_on_root_mismatch: bool,
    /// UTS host name: the node's for hostNetwork.
    pub hostname: String,
}

/// Resolves the pod's part alone, before any image is there. Fails on what the node cannot do at pod level.
pub fn resolve_pod(pod: &Pod, node: &NodeFacts) -> Result<PodEffective, ConfigError> {
    resolve::pod(pod, node)
}

/// Resolves one container of `pod`. For an ephemeral container pass [`ephemeral`] of it.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    kind: ContainerKind,
    image: &ImageConfiguration,
    users: &UserDatabase<'_>,
    node: &NodeFacts,
) -> Result<Effective, ConfigError> {
    resolve::container(pod, container, kind, image, users, node)
}

/// `name_namespace(uid)`: how the kubelet names a pod in its messages (`pkg/kubelet/util/format`).
pub fn pod_format(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// All containers of a pod in the order in which they may start: init containers, app containers, ephemeral ones.
pub fn containers(pod: &Pod) -> Vec<(ContainerKind, Container)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|c| {
        let sidecar = c.restart_policy.as_deref() == Some("Always");
        (if sidecar { ContainerKind::Sidecar } else { ContainerKind::Init }, c.clone())
    });
    let app = spec.containers.iter().map(|c| (ContainerKind::App, c.clone()));
    let ephemeral =
        spec.ephemeral_containers.iter().flatten().map(|c| (ContainerKind::Ephemeral, ephemeral(c)));
    init.chain(app).chain(ephemeral).collect()
}

/// An ephemeral container as a container: it has the same fields but `targetContainerName`.
pub fn ephemeral(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}
