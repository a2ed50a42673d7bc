//! Edges to the node: what a container of the pod has of it. Each is a file: what the pod's fields leave open, how the kernel
//! shows it, and what closes it.

mod capabilities;
mod devices;
pub mod facts;
mod files;
mod namespaces;
mod root;
mod settings;
mod system_calls;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::image::{Config, ImageConfiguration};

use super::{Area, Claim, Probe, Sight};
use crate::node_facts::NodeFacts;
use crate::security_context::{
    Capability, ConfigError, ContainerKind, Effective, UserDatabase, containers, resolve,
};
use facts::Process;

/// A container as an attacker's image would run in it.
struct Subject<'a> {
    pod: &'a Pod,
    container: &'a Container,
    effective: &'a Effective,
}

impl Subject<'_> {
    /// Whether a process of the attacker's image can be root: the image says so, or a setuid file in it.
    fn may_be_root(&self) -> bool {
        self.effective.uid.value == 0 || !self.effective.no_new_privs.value
    }

    fn claim(&self, id: &'static str, question: Question, open: bool) -> Claim {
        let probe = Probe::Kernel { container: self.container.name.clone(), question };
        let (target, because) = Default::default();
        Claim { id, area: Area::Node, target, open, because, remedy: None, probe }
    }
}

/// What the kernel is asked of a container's first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Are there devices beside those that every container has?
    Devices,
    /// Can the kernel's settings be written?
    Settings,
    /// Is it in the node's namespace of this kind?
    Namespace(&'static str),
    /// Is the node's file or directory there at this path, and can it be written?
    NodePath { path: String, writable: bool },
    /// Is anything of the node's files there beside these paths?
    OtherPaths(Vec<String>),
    /// Can a process of an attacker's image hold one of these? `may_be_root` as in what the pod says.
    Capabilities { any_of: Vec<Capability>, may_be_root: bool },
    /// Can a process be root of the node's kernel?
    Root { may_be_root: bool },
    /// Does no filter stand before the system calls?
    SystemCalls,
}

/// The kernel's answer.
pub fn look(question: &Question, process: &Process) -> Sight {
    match question {
        Question::Devices => devices::look(process),
        Question::Settings => settings::look(process),
        Question::Namespace(kind) => namespaces::look(kind, process),
        Question::NodePath { path, writable } => files::look(path, *writable, process),
        Question::OtherPaths(known) => files::look_for_others(known, process),
        Question::Capabilities { any_of, may_be_root } => capabilities::look(any_of, *may_be_root, process),
        Question::Root { may_be_root } => root::look(*may_be_root, process),
        Question::SystemCalls => system_calls::look(process),
    }
}

/// What the pod's fields leave open, container by container; what the whole pod shares, once.
///
/// # Errors
/// A pod that no node would start, in the words of its status.
pub fn claims(pod: &Pod, node: &NodeFacts) -> Result<Vec<Claim>, ConfigError> {
    let mut claims = Vec::new();
    let mut is_first = true;
    for (kind, container) in containers(pod) {
        // It has ended before the others begin.
        if kind == ContainerKind::Init {
            continue;
        }
        let effective = effective(pod, &container, kind, node)?;
        let subject = Subject { pod, container: &container, effective: &effective };
        if std::mem::take(&mut is_first) {
            claims.extend(namespaces::claims(&subject));
        }
        let own = [devices::claims, settings::claims, files::claims, capabilities::claims, root::claims];
        claims.extend(own.into_iter().flat_map(|claims| claims(&subject)));
        claims.extend(system_calls::claims(&subject));
    }
    Ok(claims)
}

/// What the attacker's image would be given: it says root, unless that would not be started.
fn effective(
    pod: &Pod,
    container: &Container,
    kind: ContainerKind,
    node: &NodeFacts,
) -> Result<Effective, ConfigError> {
    let of_user = |user: &str| {
        let mut config = Config::default();
        config.set_user(Some(user.to_owned()));
        let mut image = ImageConfiguration::default();
        image.set_config(Some(config));
        resolve(pod, container, kind, &image, &UserDatabase::default(), node)
    };
    of_user("0").or_else(|_| of_user("65534"))
}
