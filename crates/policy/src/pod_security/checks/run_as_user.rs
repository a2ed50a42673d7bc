//! No container is asked to run as root.
//!
//! Restricted fields, from 1.23 on; from 1.35 on not where `spec.hostUsers` is false, because root is nobody outside then:
//! - `spec.securityContext.runAsUser`, and that of every container: not 0, absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "runAsUser",
    about: "A container is asked to run as root.",
    level: Level::Restricted,
    versions: &[Revision::since(23, v1_23), Revision::since(35, v1_35)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_35(pod: &PodView<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { v1_23(pod) }
}

fn v1_23(pod: &PodView<'_>) -> Option<Violation> {
    const FIELDS: &[&str] = &["securityContext", "runAsUser"];
    const NOTE: &str = "the image's own user counts then: set runAsUser to one it can run as";
    let mut found = Found::default();
    if pod.security().is_some_and(|security| security.run_as_user == Some(0)) {
        found.pod(FieldPath::new(&["spec"]).fields(FIELDS), Change::Remove);
        found.note(NOTE);
    }
    for container in pod.containers() {
        if container.security.is_some_and(|security| security.run_as_user == Some(0)) {
            found.container(&container, container.path(FIELDS), Change::Remove);
            found.note(NOTE);
        }
    }
    found.violation("runAsUser=0", |found| {
        format!("{} must not set runAsUser=0", found.setters().join(" and "))
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "runAsUser=0";
        let has = |uid: i64| json!({ "securityContext": { "runAsUser": uid } });
        let in_namespace =
            || json!({ "spec": { "hostUsers": false, "securityContext": { "runAsUser": 0 } } });
        vec![
            Case::container("says nothing", 23.., json!({})),
            Case::container("somebody", 23.., has(405)),
            Case::container("root", 23.., has(0)).refused(
                REASON,
                r#"container "a" must not set runAsUser=0"#,
                &["securityContext.runAsUser"],
            ),
            Case::container("before 1.23", ..23, has(0)),
            Case::pod("root, for the pod", 23.., json!({ "spec": has(0) })).refused(
                REASON,
                "pod must not set runAsUser=0",
                &["spec.securityContext.runAsUser"],
            ),
            Case::pod(
                "all",
                23..,
                json!({ "spec": { "securityContext": { "runAsUser": 0 }, "containers": [
                    { "name": "a", "securityContext": { "runAsUser": 0 } }, { "name": "b", "securityContext": { "runAsUser": 0 } },
                ] } }),
            )
            .refused(
                REASON,
                r#"pod and containers "a", "b" must not set runAsUser=0"#,
                &[
                    "spec.securityContext.runAsUser",
                    "spec.containers[0].securityContext.runAsUser",
                    "spec.containers[1].securityContext.runAsUser",
                ],
            ),
            Case::pod("root of a user namespace", 35.., in_namespace()),
            Case::pod("root of a user namespace, not relaxed yet", 23..35, in_namespace()).refused(
                REASON,
                "pod must not set runAsUser=0",
                &["spec.securityContext.runAsUser"],
            ),
        ]
    }
}
