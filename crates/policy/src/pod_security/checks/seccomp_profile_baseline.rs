//! A container's seccomp filter is not switched off.
//!
//! Restricted fields, until 1.18 annotations:
//! - `metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]`,
//!   `metadata.annotations[container.seccomp.security.alpha.kubernetes.io/*]`: runtime/default, docker/default, localhost/*,
//!   absent
//!
//! From 1.19 on:
//! - `spec.securityContext.seccompProfile.type`, and that of every container: RuntimeDefault, Localhost, absent

use crate::pod_security::{
    Change, Level, Setting, Violation,
    check::{Check, Found, Revision, plural},
    pod::{FieldPath, PodView},
};

pub(super) const ID: &str = "seccompProfile_baseline";

pub(super) const CHECK: Check = Check {
    id: ID,
    about: "A container's seccomp filter is switched off.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0), Revision::since(19, v1_19)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

pub(super) const FIELDS: &[&str] = &["securityContext", "seccompProfile", "type"];
pub(super) const SET_DEFAULT: Change = Change::Set(Setting::Text("RuntimeDefault"));

pub(super) fn is_allowed(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

fn is_allowed_annotation(profile: &str) -> bool {
    matches!(profile, "runtime/default" | "docker/default") || profile.starts_with("localhost/")
}

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    let keys = pod.containers().map(|container| format!("{CONTAINER}{}", container.name));
    for key in keys.chain([POD.to_owned()]) {
        let value = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(&key));
        if let Some(value) = value.filter(|value| !is_allowed_annotation(value)) {
            found.field(FieldPath::new(&["metadata", "annotations"]).key(&key), Change::Remove, None);
            found.value(&format!("{key}={value:?}"));
        }
    }
    found.violation("seccompProfile", |found| {
        let values: Vec<&str> = found.values.iter().map(String::as_str).collect();
        format!("forbidden {} {}", plural(values.len(), "annotation", "annotations"), values.join(", "))
    })
}

fn v1_19(pod: &PodView<'_>) -> Option<Violation> {
    explicit(pod).violation("seccompProfile", explicit_detail)
}

/// Those who set a profile that is not allowed.
pub(super) fn explicit<'a>(pod: &PodView<'a>) -> Found<'a> {
    let mut found = Found::default();
    if let Some(profile) = pod.security().and_then(|security| security.seccomp_profile.as_ref())
        && !is_allowed(&profile.type_)
    {
        found.pod(FieldPath::new(&["spec"]).fields(FIELDS), SET_DEFAULT);
        found.value(&profile.type_);
    }
    for container in pod.containers() {
        if let Some(profile) = container.security.and_then(|security| security.seccomp_profile.as_ref())
            && !is_allowed(&profile.type_)
        {
            found.container(&container, container.path(FIELDS), SET_DEFAULT);
            found.value(&profile.type_);
        }
    }
    found
}

pub(super) fn explicit_detail(found: &Found<'_>) -> String {
    format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        found.setters().join(" and "),
        found.quoted_values()
    )
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "seccompProfile";
        let has = |profile: &str| json!({ "securityContext": { "seccompProfile": { "type": profile } } });
        let annotated = |key: &str, profile: &str| json!({ "metadata": { "annotations": { key: profile } }, "spec": { "containers": [{ "name": "a" }] } });
        const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
        const A: &str = "container.seccomp.security.alpha.kubernetes.io/a";
        vec![
            Case::container("says nothing", .., json!({})),
            Case::container("the runtime's", 19.., has("RuntimeDefault")),
            Case::container("the node's", 19.., has("Localhost")),
            Case::container("none", 19.., has("Unconfined")).refused(
                REASON,
                r#"container "a" must not set securityContext.seccompProfile.type to "Unconfined""#,
                &["securityContext.seccompProfile.type"],
            ),
            Case::container("none, before the field was", ..19, has("Unconfined")),
            Case::pod("the runtime's, for the pod", 19.., json!({ "spec": has("RuntimeDefault") })),
            Case::pod(
                "none, for all",
                19..,
                json!({ "spec": {
                    "securityContext": { "seccompProfile": { "type": "Unconfined" } },
                    "containers": [
                        { "name": "a", "securityContext": { "seccompProfile": { "type": "Unconfined" } } },
                        { "name": "b", "securityContext": { "seccompProfile": { "type": "Other" } } },
                    ],
                } }),
            )
            .refused(
                REASON,
                r#"pod and containers "a", "b" must not set securityContext.seccompProfile.type to "Other", "Unconfined""#,
                &[
                    "spec.securityContext.seccompProfile.type",
                    "spec.containers[0].securityContext.seccompProfile.type",
                    "spec.containers[1].securityContext.seccompProfile.type",
                ],
            ),
            Case::pod("annotation of the runtime's", ..19, annotated(POD, "runtime/default")),
            Case::pod("annotation of docker's", ..19, annotated(A, "docker/default")),
            Case::pod("annotation of the node's", ..19, annotated(A, "localhost/x")),
            Case::pod("annotation of another container", ..19, annotated("container.seccomp.security.alpha.kubernetes.io/z", "unconfined")),
            Case::pod("annotations count no longer", 19.., annotated(A, "unconfined")),
            Case::pod("annotation of none", ..19, annotated(POD, "unconfined")).refused(
                REASON,
                r#"forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined""#,
                &["metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]"],
            ),
            Case::pod(
                "annotations of none",
                ..19,
                json!({ "metadata": { "annotations": { POD: "", A: "unconfined" } }, "spec": { "ephemeralContainers": [{ "name": "a" }] } }),
            )
            .refused(
                REASON,
                r#"forbidden annotations container.seccomp.security.alpha.kubernetes.io/a="unconfined", seccomp.security.alpha.kubernetes.io/pod="""#,
                &[
                    "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]",
                    "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
                ],
            ),
        ]
    }
}
