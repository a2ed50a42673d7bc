//! A privileged container has nearly every right of its node.
//!
//! Restricted fields, of every container:
//! - `securityContext.privileged`: false, absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::PodView,
};

pub(super) const CHECK: Check = Check {
    id: "privileged",
    about: "A container has nearly every right of its node.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    for container in pod.containers() {
        if container.security.is_some_and(|security| security.privileged == Some(true)) {
            let path = container.path(&["securityContext", "privileged"]);
            found.container(&container, path, Change::Remove);
        }
    }
    found.violation("privileged", |found| {
        format!("{} must not set securityContext.privileged=true", found.containers())
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        vec![
            Case::container("says nothing", .., json!({})),
            Case::container("false", .., json!({ "securityContext": { "privileged": false } })),
            Case::container("true", .., json!({ "securityContext": { "privileged": true } })).refused(
                "privileged",
                r#"container "a" must not set securityContext.privileged=true"#,
                &["securityContext.privileged"],
            ),
            Case::pod(
                "containers of every kind",
                ..,
                json!({ "spec": {
                    "containers": [{ "name": "b", "securityContext": { "privileged": true } }, { "name": "c" }],
                    "initContainers": [{ "name": "a", "securityContext": { "privileged": true } }],
                    "ephemeralContainers": [{ "name": "d", "securityContext": { "privileged": true } }],
                } }),
            )
            .refused(
                "privileged",
                r#"containers "a", "b", "d" must not set securityContext.privileged=true"#,
                &[
                    "spec.initContainers[0].securityContext.privileged",
                    "spec.containers[0].securityContext.privileged",
                    "spec.ephemeralContainers[0].securityContext.privileged",
                ],
            ),
        ]
    }
}
