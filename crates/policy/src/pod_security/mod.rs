//! Whether a pod keeps to a level of the Kubernetes Pod Security Standards at a version of it, and if not, why: the words
//! that upstream's admission plugin prints, the fields that offend, and what would have to be written instead.
//!
//! A check is a file in [`checks`] and a row of its table. Its rules may change from one version of the standard to the next;
//! each change is a [`check::Revision`]. Checks of `restricted` replace those of `baseline` that they name, so that nothing
//! is said twice. (Source of the rules, the identifiers and the words: `k8s.io/pod-security-admission/policy`.)

pub mod check;
mod checks;
mod pod;
pub mod remedy;
pub mod standard;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

pub use check::{Change, Check, Remedy, Setting, Violation};
pub use checks::CHECKS;
pub(crate) use pod::PodView;
pub use pod::{FieldPath, Segment};
pub use standard::{LabelError, Level, LevelVersion, Mode, Policy, Version};

/// The newest minor version of the standard that a check knows; `latest`, and whatever is newer, means this.
pub const NEWEST: u32 = 35;

/// What a pod violates, in the order in which upstream names it: by level, then by check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub violations: Vec<Violation>,
}

impl Verdict {
    pub fn allowed(&self) -> bool {
        self.violations.is_empty()
    }

    /// `privileged, hostPort`: for a summary over many pods.
    pub fn reasons(&self) -> String {
        let reasons: Vec<&str> = self.violations.iter().map(|violation| violation.reason).collect();
        reasons.join(", ")
    }

    /// `privileged (container "a" must not set securityContext.privileged=true), hostPort (…)`: for one pod.
    pub fn details(&self) -> String {
        let details: Vec<String> = self.violations.iter().map(Violation::to_string).collect();
        details.join(", ")
    }
}

/// Holds a pod, or a pod's template, against a level at a version.
pub fn evaluate(policy: LevelVersion, metadata: &ObjectMeta, spec: &PodSpec) -> Verdict {
    let pod = PodView { metadata, spec };
    Verdict { violations: applicable(policy).iter().filter_map(|check| check.run(&pod)).collect() }
}

/// A check at a version.
#[derive(Clone, Copy)]
struct Applicable {
    check: &'static Check,
    revision: &'static check::Revision,
}

impl Applicable {
    fn run(&self, pod: &PodView<'_>) -> Option<Violation> {
        let mut violation = (self.revision.run)(pod)?;
        violation.check = self.check.id;
        Some(violation)
    }
}

/// By minor version, then by level: the checks to run, in order.
static APPLICABLE: LazyLock<Vec<[Vec<Applicable>; 3]>> = LazyLock::new(|| {
    (0..=NEWEST).map(|minor| Level::ALL.map(|level| find_applicable(level, minor))).collect()
});

fn applicable(policy: LevelVersion) -> &'static [Applicable] {
    // Both indices are in range: `minor` is at most NEWEST, and a level is one of three.
    &APPLICABLE[policy.version.minor() as usize][policy.level as usize]
}

/// The checks of a level at a version, without those that a stricter one replaces.
fn find_applicable(level: Level, minor: u32) -> Vec<Applicable> {
    let all: Vec<Applicable> = CHECKS
        .iter()
        .filter(|check| check.level <= level)
        .filter_map(|check| Some(Applicable { check, revision: check.at(minor)? }))
        .collect();
    let is_replaced = |id: &str| all.iter().any(|one| one.revision.replaces.contains(&id));
    all.iter().filter(|one| !is_replaced(one.check.id)).copied().collect()
}

/// Where an object of this kind holds the pod that will be made of it: the path from the object's root, empty for a pod
/// itself. `None` for kinds that make no pods.
pub fn embedded_pod(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("", "PodTemplate") => Some(&["template"]),
        ("", "ReplicationController")
        | ("apps", "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}
