//! No process gains rights by exec, as by a set-user-ID file.
//!
//! Restricted fields, of every container:
//! - `securityContext.allowPrivilegeEscalation`: false (1.8, when the field came); from 1.25 on not for Windows pods

use crate::pod_security::{
    Change, Level, Setting, Violation,
    check::{Check, Found, Revision},
    pod::PodView,
};

pub(super) const CHECK: Check = Check {
    id: "allowPrivilegeEscalation",
    about: "A process can gain rights by exec, as by a set-user-ID file.",
    level: Level::Restricted,
    versions: &[Revision::since(8, v1_8), Revision::since(25, v1_25)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_25(pod: &PodView<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { v1_8(pod) }
}

fn v1_8(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    for container in pod.containers() {
        if container.security.and_then(|security| security.allow_privilege_escalation) != Some(false) {
            let path = container.path(&["securityContext", "allowPrivilegeEscalation"]);
            found.container(&container, path, Change::Set(Setting::Bool(false)));
        }
    }
    found.violation("allowPrivilegeEscalation != false", |found| {
        format!("{} must set securityContext.allowPrivilegeEscalation=false", found.containers())
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "allowPrivilegeEscalation != false";
        const DETAIL: &str = r#"container "a" must set securityContext.allowPrivilegeEscalation=false"#;
        const FIELD: &[&str] = &["securityContext.allowPrivilegeEscalation"];
        let said = |value: bool| json!({ "securityContext": { "allowPrivilegeEscalation": value } });
        let windows = || json!({ "spec": { "os": { "name": "windows" }, "containers": [{ "name": "a" }] } });
        vec![
            Case::container("false", 8.., said(false)),
            Case::container("true", 8.., said(true)).refused(REASON, DETAIL, FIELD),
            Case::container("says nothing", 8.., json!({})).refused(REASON, DETAIL, FIELD),
            Case::container("an empty context", 8.., json!({ "securityContext": {} }))
                .refused(REASON, DETAIL, FIELD),
            Case::container("before the field was", ..8, said(true)),
            Case::pod("on Windows", 25.., windows()),
            Case::pod("on Windows, not exempted yet", 8..25, windows()).refused(
                REASON,
                DETAIL,
                &["spec.containers[0].securityContext.allowPrivilegeEscalation"],
            ),
            Case::pod("on Linux", 25.., json!({ "spec": { "os": { "name": "linux" }, "containers": [{ "name": "a" }] } }))
                .refused(REASON, DETAIL, &["spec.containers[0].securityContext.allowPrivilegeEscalation"]),
            Case::pod(
                "two of three",
                8..,
                json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b", "securityContext": { "allowPrivilegeEscalation": false } }, { "name": "c" }] } }),
            )
            .refused(
                REASON,
                r#"containers "a", "c" must set securityContext.allowPrivilegeEscalation=false"#,
                &[
                    "spec.containers[0].securityContext.allowPrivilegeEscalation",
                    "spec.containers[2].securityContext.allowPrivilegeEscalation",
                ],
            ),
        ]
    }
}
