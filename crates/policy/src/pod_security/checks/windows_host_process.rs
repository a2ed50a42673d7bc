//! A Windows container is not a process of its node.
//!
//! Restricted fields:
//! - `spec.securityContext.windowsOptions.hostProcess`, and that of every container: false, absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "windowsHostProcess",
    about: "A Windows container is a process of its node.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    const FIELDS: &[&str] = &["securityContext", "windowsOptions", "hostProcess"];
    let mut found = Found::default();
    let options = pod.security().and_then(|security| security.windows_options.as_ref());
    if options.is_some_and(|options| options.host_process == Some(true)) {
        found.pod(FieldPath::new(&["spec"]).fields(FIELDS), Change::Remove);
    }
    for container in pod.containers() {
        let options = container.security.and_then(|security| security.windows_options.as_ref());
        if options.is_some_and(|options| options.host_process == Some(true)) {
            found.container(&container, container.path(FIELDS), Change::Remove);
        }
    }
    found.violation("hostProcess", |found| {
        format!(
            "{} must not set securityContext.windowsOptions.hostProcess=true",
            found.setters().join(" and ")
        )
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "hostProcess";
        let has = |value: bool| json!({ "securityContext": { "windowsOptions": { "hostProcess": value } } });
        vec![
            Case::container("says nothing", .., json!({ "securityContext": { "windowsOptions": {} } })),
            Case::container("false", .., has(false)),
            Case::container("true", .., has(true)).refused(
                REASON,
                r#"container "a" must not set securityContext.windowsOptions.hostProcess=true"#,
                &["securityContext.windowsOptions.hostProcess"],
            ),
            Case::pod("false, for the pod", .., json!({ "spec": has(false) })),
            Case::pod("true, for the pod", .., json!({ "spec": has(true) })).refused(
                REASON,
                "pod must not set securityContext.windowsOptions.hostProcess=true",
                &["spec.securityContext.windowsOptions.hostProcess"],
            ),
            Case::pod(
                "all",
                ..,
                json!({ "spec": {
                    "securityContext": { "windowsOptions": { "hostProcess": true } },
                    "containers": [
                        { "name": "a", "securityContext": { "windowsOptions": { "hostProcess": true } } },
                        { "name": "b", "securityContext": { "windowsOptions": { "hostProcess": true } } },
                    ],
                } }),
            )
            .refused(
                REASON,
                r#"pod and containers "a", "b" must not set securityContext.windowsOptions.hostProcess=true"#,
                &[
                    "spec.securityContext.windowsOptions.hostProcess",
                    "spec.containers[0].securityContext.windowsOptions.hostProcess",
                    "spec.containers[1].securityContext.windowsOptions.hostProcess",
                ],
            ),
        ]
    }
}
