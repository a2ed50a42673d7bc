//! What container runtimes hide in /proc stays hidden.
//!
//! Restricted fields, of every container:
//! - `securityContext.procMount`: Default, absent; from 1.35 on anything where `spec.hostUsers` is false, because what
//!   is unmasked then is nobody's but the pod's

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::PodView,
};

pub(super) const ID: &str = "procMount";

pub(super) const CHECK: Check = Check {
    id: ID,
    about: "A container sees what runtimes hide in /proc.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0), Revision::since(35, v1_35)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_35(pod: &PodView<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { v1_0(pod) }
}

pub(super) fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    for container in pod.containers() {
        let kind = container.security.and_then(|security| security.proc_mount.as_deref());
        if let Some(kind) = kind.filter(|kind| *kind != "Default") {
            let path = container.path(&["securityContext", "procMount"]);
            found.container(&container, path, Change::Remove);
            found.value(kind);
        }
    }
    found.violation("procMount", |found| {
        format!("{} must not set securityContext.procMount to {}", found.containers(), found.quoted_values())
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "procMount";
        const DETAIL: &str = r#"container "a" must not set securityContext.procMount to "Unmasked""#;
        let has = |kind: &str| json!({ "securityContext": { "procMount": kind } });
        let in_namespace = || json!({ "spec": { "hostUsers": false, "containers": [{ "name": "a", "securityContext": { "procMount": "Unmasked" } }] } });
        vec![
            Case::container("says nothing", .., json!({})),
            Case::container("the default", .., has("Default")),
            Case::container("unmasked", .., has("Unmasked")).refused(
                REASON,
                DETAIL,
                &["securityContext.procMount"],
            ),
            Case::pod("unmasked in a user namespace", 35.., in_namespace()),
            Case::pod("unmasked in a user namespace, not relaxed yet", ..35, in_namespace()).refused(
                REASON,
                DETAIL,
                &["spec.containers[0].securityContext.procMount"],
            ),
            Case::pod(
                "unmasked with the node's users",
                35..,
                json!({ "spec": { "hostUsers": true, "containers": [
                    { "name": "a", "securityContext": { "procMount": "Unmasked" } }, { "name": "b", "securityContext": { "procMount": "Other" } },
                ] } }),
            )
            .refused(
                REASON,
                r#"containers "a", "b" must not set securityContext.procMount to "Other", "Unmasked""#,
                &["spec.containers[0].securityContext.procMount", "spec.containers[1].securityContext.procMount"],
            ),
        ]
    }
}
