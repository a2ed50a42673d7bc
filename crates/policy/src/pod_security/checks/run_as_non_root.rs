//! A node refuses to start a container as root.
//!
//! Restricted fields; from 1.35 on not where `spec.hostUsers` is false, because root is nobody outside then:
//! - `spec.securityContext.runAsNonRoot`: true, absent
//! - `securityContext.runAsNonRoot` of every container: true; absent where the pod's is true

use crate::pod_security::{
    Change, Level, Setting, Violation,
    check::{Check, Found, Revision},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "runAsNonRoot",
    about: "A container may run as root.",
    level: Level::Restricted,
    versions: &[Revision::since(0, v1_0), Revision::since(35, v1_35)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_35(pod: &PodView<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { v1_0(pod) }
}

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    const FIELDS: &[&str] = &["securityContext", "runAsNonRoot"];
    const NOTE: &str = "an image whose user is root does not start then: set runAsUser to one it can run as";
    let set_true = Change::Set(Setting::Bool(true));
    let pod_path = || FieldPath::new(&["spec"]).fields(FIELDS);
    let of_pod = pod.security().and_then(|security| security.run_as_non_root);

    let (mut saying_no, mut silent) = (Found::default(), Found::default());
    if of_pod == Some(false) {
        saying_no.pod(pod_path(), set_true);
        saying_no.note(NOTE);
    }
    for container in pod.containers() {
        match (container.security.and_then(|security| security.run_as_non_root), of_pod) {
            (Some(true), _) | (None, Some(true)) => {}
            (Some(false), _) => {
                saying_no.container(&container, container.path(FIELDS), set_true);
                saying_no.note(NOTE);
            }
            (None, _) => {
                silent.name(&container);
                silent.field_alone(container.path(FIELDS));
            }
        }
    }
    // Upstream says the explicit no, and nothing of the silent ones beside it.
    let no = saying_no.violation(REASON, |found| {
        format!("{} must not set securityContext.runAsNonRoot=false", found.setters().join(" and "))
    });
    if no.is_some() {
        return no;
    }
    silent.remedy(pod_path(), set_true, Some(NOTE));
    silent.violation(REASON, |found| {
        format!("pod or {} must set securityContext.runAsNonRoot=true", found.containers())
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "runAsNonRoot != true";
        const SILENT: &str = r#"pod or container "a" must set securityContext.runAsNonRoot=true"#;
        let has = |value: bool| json!({ "securityContext": { "runAsNonRoot": value } });
        let in_namespace = || json!({ "spec": { "hostUsers": false, "containers": [{ "name": "a" }] } });
        vec![
            Case::container("true", .., has(true)),
            Case::container("false", .., has(false)).refused(
                REASON,
                r#"container "a" must not set securityContext.runAsNonRoot=false"#,
                &["securityContext.runAsNonRoot"],
            ),
            Case::pod("true, for the pod", .., json!({ "spec": has(true) })),
            Case::pod("false, for the pod", .., json!({ "spec": has(false) })).refused(
                REASON,
                "pod must not set securityContext.runAsNonRoot=false",
                &["spec.securityContext.runAsNonRoot"],
            ),
            Case::pod("says nothing", .., json!({ "spec": { "containers": [{ "name": "a" }] } })).refused(
                REASON,
                SILENT,
                &["spec.containers[0].securityContext.runAsNonRoot"],
            ),
            Case::pod(
                "two of each kind say nothing",
                ..,
                json!({ "spec": { "containers": [{ "name": "b" }], "initContainers": [{ "name": "a" }], "ephemeralContainers": [{ "name": "c" }] } }),
            )
            .refused(
                REASON,
                r#"pod or containers "a", "b", "c" must set securityContext.runAsNonRoot=true"#,
                &[
                    "spec.initContainers[0].securityContext.runAsNonRoot",
                    "spec.containers[0].securityContext.runAsNonRoot",
                    "spec.ephemeralContainers[0].securityContext.runAsNonRoot",
                ],
            ),
            Case::pod(
                "an explicit no is said before a silence",
                ..,
                json!({ "spec": { "securityContext": { "runAsNonRoot": false }, "containers": [
                    { "name": "a" }, { "name": "b", "securityContext": { "runAsNonRoot": false } }, { "name": "c", "securityContext": { "runAsNonRoot": true } },
                ] } }),
            )
            .refused(
                REASON,
                r#"pod and container "b" must not set securityContext.runAsNonRoot=false"#,
                &["spec.securityContext.runAsNonRoot", "spec.containers[1].securityContext.runAsNonRoot"],
            ),
            Case::pod("in a user namespace", 35.., in_namespace()),
            Case::pod("in a user namespace, not relaxed yet", ..35, in_namespace()).refused(
                REASON,
                SILENT,
                &["spec.containers[0].securityContext.runAsNonRoot"],
            ),
            Case::pod("with the node's users", 35.., json!({ "spec": { "hostUsers": true, "containers": [{ "name": "a" }] } }))
                .refused(REASON, SILENT, &["spec.containers[0].securityContext.runAsNonRoot"]),
        ]
    }
}
