//! Every capability is dropped, and at most NET_BIND_SERVICE added again.
//!
//! Restricted fields, of every container, from 1.22 on; from 1.25 on not for Windows pods:
//! - `securityContext.capabilities.drop`: has ALL
//! - `securityContext.capabilities.add`: NET_BIND_SERVICE, absent

use super::capabilities_baseline;
use crate::pod_security::{
    Change, Level, Setting, Violation,
    check::{Check, Found, Revision},
    pod::PodView,
};

pub(super) const CHECK: Check = Check {
    id: "capabilities_restricted",
    about: "Not every capability is dropped, or one other than NET_BIND_SERVICE is added.",
    level: Level::Restricted,
    versions: &[
        Revision::since(22, v1_22).replacing(&[capabilities_baseline::ID]),
        Revision::since(25, v1_25).replacing(&[capabilities_baseline::ID]),
    ],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_25(pod: &PodView<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { v1_22(pod) }
}

fn v1_22(pod: &PodView<'_>) -> Option<Violation> {
    let (mut keeping, mut adding) = (Found::default(), Found::default());
    for container in pod.containers() {
        let capabilities = container.security.and_then(|security| security.capabilities.as_ref());
        let dropped = capabilities.and_then(|capabilities| capabilities.drop.as_deref()).unwrap_or_default();
        if !dropped.iter().any(|name| name == "ALL") {
            let path = container.path(&["securityContext", "capabilities", "drop"]);
            keeping.container(&container, path, Change::Set(Setting::List("ALL")));
        }
        let added = capabilities.and_then(|capabilities| capabilities.add.as_deref()).unwrap_or_default();
        for (at, name) in added.iter().enumerate().filter(|(_, name)| *name != "NET_BIND_SERVICE") {
            let path = container.path(&["securityContext", "capabilities", "add"]).index(at);
            adding.container(&container, path, Change::Remove);
            adding.value(name);
        }
    }
    let reason = "unrestricted capabilities";
    let keeping = keeping.violation(reason, |found| {
        format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, found.containers())
    });
    let adding = adding.violation(reason, |found| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            found.containers(),
            found.quoted_values()
        )
    });
    match (keeping, adding) {
        (Some(keeping), Some(adding)) => Some(Violation {
            detail: format!("{}; {}", keeping.detail, adding.detail),
            fields: [keeping.fields, adding.fields].concat(),
            remedies: [keeping.remedies, adding.remedies].concat(),
            ..keeping
        }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod fixtures {
    use serde_json::{Value, json};

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "unrestricted capabilities";
        const MISSING: &str = r#"container "a" must set securityContext.capabilities.drop=["ALL"]"#;
        let has = |capabilities: Value| json!({ "securityContext": { "capabilities": capabilities } });
        let windows = || json!({ "spec": { "os": { "name": "windows" }, "containers": [{ "name": "a" }] } });
        vec![
            Case::container("drops all", 22.., has(json!({ "drop": ["ALL"] }))),
            Case::container("drops all among others", 22.., has(json!({ "drop": ["NET_RAW", "ALL"] }))),
            Case::container("adds one", 22.., has(json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }))),
            Case::container("says nothing", 22.., json!({})).refused(
                REASON,
                MISSING,
                &["securityContext.capabilities.drop"],
            ),
            Case::container("names are in capitals", 22.., has(json!({ "drop": ["all"] }))).refused(
                REASON,
                MISSING,
                &["securityContext.capabilities.drop"],
            ),
            Case::container("adds more", 22.., has(json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN", "BPF"] })))
                .refused(
                    REASON,
                    r#"container "a" must not include "BPF", "CHOWN" in securityContext.capabilities.add"#,
                    &["securityContext.capabilities.add[1]", "securityContext.capabilities.add[2]"],
                ),
            Case::container("both", 22.., has(json!({ "add": ["CHOWN"] }))).refused(
                REASON,
                r#"container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "CHOWN" in securityContext.capabilities.add"#,
                &["securityContext.capabilities.drop", "securityContext.capabilities.add[0]"],
            ),
            Case::container("before 1.22", ..22, json!({})),
            Case::pod("on Windows", 25.., windows()),
            Case::pod("on Windows, not exempted yet", 22..25, windows()).refused(
                REASON,
                MISSING,
                &["spec.containers[0].securityContext.capabilities.drop"],
            ),
            Case::pod("two containers", 22.., json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } }))
                .refused(
                    REASON,
                    r#"containers "a", "b" must set securityContext.capabilities.drop=["ALL"]"#,
                    &[
                        "spec.containers[0].securityContext.capabilities.drop",
                        "spec.containers[1].securityContext.capabilities.drop",
                    ],
                ),
        ]
    }
}
