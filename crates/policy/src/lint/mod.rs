//! What commonly goes wrong with pods beside the Pod Security Standards: settings that the API server takes and that do not
//! do what their author means. Each lint is a file: what it looks for, why that is wrong, and what to write instead.

mod capability_names;
mod claim_without_fs_group;
mod fs_group_host_path;
mod host_network_dns;
mod no_network_policy;
mod non_root_as_root;
mod privileged_overrides;
mod read_only_root;

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

pub use no_network_policy::{NO_NETWORK_POLICY, unguarded};

use crate::pod_security::{FieldPath, PodView};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pod runs, and not as meant.
    Warning,
    /// A container does not start, or not work.
    Error,
}

/// A rule about one pod.
pub struct Lint {
    pub id: &'static str,
    pub severity: Severity,
    /// A sentence: what is wrong, in general.
    pub about: &'static str,
    /// A sentence: what to do.
    pub fix: &'static str,
    run: fn(&PodView<'_>) -> Vec<Finding>,
}

/// Where a pod breaks a rule, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub message: String,
    /// From the pod's root.
    pub path: FieldPath,
}

/// All rules about one pod, by identifier.
pub static LINTS: [Lint; 7] = [
    capability_names::LINT,
    claim_without_fs_group::LINT,
    fs_group_host_path::LINT,
    host_network_dns::LINT,
    non_root_as_root::LINT,
    privileged_overrides::LINT,
    read_only_root::LINT,
];

/// What is wrong with a pod, or a pod's template.
pub fn lint(metadata: &ObjectMeta, spec: &PodSpec) -> Vec<(&'static Lint, Finding)> {
    let pod = PodView { metadata, spec };
    LINTS.iter().flat_map(|lint| (lint.run)(&pod).into_iter().map(move |finding| (lint, finding))).collect()
}

#[cfg(test)]
mod tests;
