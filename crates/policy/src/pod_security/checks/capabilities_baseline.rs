//! No capability is added beyond those that container runtimes give by default; NET_RAW is not among them.
//!
//! Restricted fields, of every container:
//! - `securityContext.capabilities.add`: those of [`ALLOWED`], absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::PodView,
};

pub(super) const ID: &str = "capabilities_baseline";

pub(super) const CHECK: Check = Check {
    id: ID,
    about: "A capability is added that container runtimes do not give by default.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

const ALLOWED: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    for container in pod.containers() {
        let capabilities = container.security.and_then(|security| security.capabilities.as_ref());
        let added = capabilities.and_then(|capabilities| capabilities.add.as_deref()).unwrap_or_default();
        for (at, capability) in added.iter().enumerate() {
            if !ALLOWED.contains(&capability.as_str()) {
                let path = container.path(&["securityContext", "capabilities", "add"]).index(at);
                found.container(&container, path, Change::Remove);
                found.value(capability);
            }
        }
    }
    found.violation("non-default capabilities", |found| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            found.containers(),
            found.quoted_values()
        )
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use super::ALLOWED;
    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        let added = |names: &[&str]| json!({ "securityContext": { "capabilities": { "add": names } } });
        vec![
            Case::container("says nothing", .., json!({})),
            Case::container("drops", .., json!({ "securityContext": { "capabilities": { "drop": ["ALL"] } } })),
            Case::container("the default ones", .., added(&ALLOWED)),
            Case::container("NET_RAW", .., added(&["NET_RAW"])).refused(
                "non-default capabilities",
                r#"container "a" must not include "NET_RAW" in securityContext.capabilities.add"#,
                &["securityContext.capabilities.add[0]"],
            ),
            Case::container("some of several", .., added(&["KILL", "SYS_ADMIN", "CHOWN", "ALL"])).refused(
                "non-default capabilities",
                r#"container "a" must not include "ALL", "SYS_ADMIN" in securityContext.capabilities.add"#,
                &["securityContext.capabilities.add[1]", "securityContext.capabilities.add[3]"],
            ),
            Case::container("the kernel's names are others", .., added(&["CAP_CHOWN"])).refused(
                "non-default capabilities",
                r#"container "a" must not include "CAP_CHOWN" in securityContext.capabilities.add"#,
                &["securityContext.capabilities.add[0]"],
            ),
            Case::pod(
                "two containers",
                ..,
                json!({ "spec": { "containers": [
                    { "name": "a", "securityContext": { "capabilities": { "add": ["NET_RAW"] } } },
                    { "name": "b", "securityContext": { "capabilities": { "add": ["BPF", "NET_RAW"] } } },
                ] } }),
            )
            .refused(
                "non-default capabilities",
                r#"containers "a", "b" must not include "BPF", "NET_RAW" in securityContext.capabilities.add"#,
                &[
                    "spec.containers[0].securityContext.capabilities.add[0]",
                    "spec.containers[1].securityContext.capabilities.add[0]",
                    "spec.containers[1].securityContext.capabilities.add[1]",
                ],
            ),
        ]
    }
}
