//! Every container has a seccomp filter.
//!
//! Restricted fields, from 1.19 on; from 1.25 on not for Windows pods:
//! - `spec.securityContext.seccompProfile.type`: RuntimeDefault, Localhost, absent
//! - `securityContext.seccompProfile.type` of every container: RuntimeDefault, Localhost; absent where the pod has one

use super::seccomp_profile_baseline::{self as baseline, FIELDS, SET_DEFAULT};
use crate::pod_security::{
    Level, Violation,
    check::{Check, Found, Revision},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "seccompProfile_restricted",
    about: "A container has no seccomp filter.",
    level: Level::Restricted,
    versions: &[
        Revision::since(19, v1_19).replacing(&[baseline::ID]),
        Revision::since(25, v1_25).replacing(&[baseline::ID]),
    ],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_25(pod: &PodView<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { v1_19(pod) }
}

fn v1_19(pod: &PodView<'_>) -> Option<Violation> {
    const REASON: &str = "seccompProfile";
    let explicit = baseline::explicit(pod);
    if !explicit.is_empty() {
        return explicit.violation(REASON, baseline::explicit_detail);
    }
    // What the pod has is allowed, if it has any.
    if pod.security().is_some_and(|security| security.seccomp_profile.is_some()) {
        return None;
    }
    let mut silent = Found::default();
    for container in pod.containers() {
        if container.security.is_none_or(|security| security.seccomp_profile.is_none()) {
            silent.name(&container);
            silent.field_alone(container.path(FIELDS));
        }
    }
    silent.remedy(FieldPath::new(&["spec"]).fields(FIELDS), SET_DEFAULT, None);
    silent.violation(REASON, |found| {
        format!(
            r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
            found.containers()
        )
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "seccompProfile";
        const SILENT: &str = r#"pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#;
        let has = |profile: &str| json!({ "securityContext": { "seccompProfile": { "type": profile } } });
        let windows = || json!({ "spec": { "os": { "name": "windows" }, "containers": [{ "name": "a" }] } });
        vec![
            Case::container("the runtime's", 19.., has("RuntimeDefault")),
            Case::container("the node's", 19.., has("Localhost")),
            Case::container("none", 19.., has("Unconfined")).refused(
                REASON,
                r#"container "a" must not set securityContext.seccompProfile.type to "Unconfined""#,
                &["securityContext.seccompProfile.type"],
            ),
            Case::container("before 1.19", ..19, has("Unconfined")),
            Case::pod("the runtime's, for the pod", 19.., json!({ "spec": has("RuntimeDefault") })),
            Case::pod("none, for the pod", 19.., json!({ "spec": has("Unconfined") })).refused(
                REASON,
                r#"pod must not set securityContext.seccompProfile.type to "Unconfined""#,
                &["spec.securityContext.seccompProfile.type"],
            ),
            Case::pod("says nothing", 19.., json!({ "spec": { "containers": [{ "name": "a" }] } })).refused(
                REASON,
                SILENT,
                &["spec.containers[0].securityContext.seccompProfile.type"],
            ),
            Case::pod(
                "one of each kind says nothing",
                19..,
                json!({ "spec": { "containers": [{ "name": "b" }], "initContainers": [{ "name": "a" }], "ephemeralContainers": [{ "name": "c" }] } }),
            )
            .refused(
                REASON,
                r#"pod or containers "a", "b", "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
                &[
                    "spec.initContainers[0].securityContext.seccompProfile.type",
                    "spec.containers[0].securityContext.seccompProfile.type",
                    "spec.ephemeralContainers[0].securityContext.seccompProfile.type",
                ],
            ),
            Case::pod("on Windows", 25.., windows()),
            Case::pod("on Windows, not exempted yet", 19..25, windows()).refused(
                REASON,
                SILENT,
                &["spec.containers[0].securityContext.seccompProfile.type"],
            ),
        ]
    }
}
