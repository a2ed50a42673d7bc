//! Where a node has SELinux, a pod keeps a type made for containers, and neither user nor role of its choice.
//!
//! Restricted fields, of the pod's securityContext and of every container's:
//! - `seLinuxOptions.type`: container_t, container_init_t, container_kvm_t, from 1.31 on container_engine_t; empty, absent
//! - `seLinuxOptions.user`, `seLinuxOptions.role`: empty, absent

use k8s_openapi::api::core::v1::SELinuxOptions;

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision, plural},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "seLinuxOptions",
    about: "A container chooses an SELinux user, role or type that is not made for containers.",
    level: Level::Baseline,
    versions: &[
        Revision::since(0, |pod| check(pod, &["container_t", "container_init_t", "container_kvm_t"])),
        Revision::since(31, |pod| {
            check(pod, &["container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
        }),
    ],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn check(pod: &PodView<'_>, types: &[&str]) -> Option<Violation> {
    const FIELDS: &[&str] = &["securityContext", "seLinuxOptions"];
    let mut found = Found::default();
    let (mut sets_user, mut sets_role) = (false, false);
    if let Some(options) = pod.security().and_then(|security| security.se_linux_options.as_ref()) {
        for (field, value) in offending(options, types) {
            found.pod(FieldPath::new(&["spec"]).fields(FIELDS).fields(&[field]), Change::Remove);
            match field {
                "user" => sets_user = true,
                "role" => sets_role = true,
                _ => found.value(value),
            }
        }
    }
    for container in pod.containers() {
        let options = container.security.and_then(|security| security.se_linux_options.as_ref());
        for (field, value) in options.into_iter().flat_map(|options| offending(options, types)) {
            found.container(&container, container.path(FIELDS).fields(&[field]), Change::Remove);
            match field {
                "user" => sets_user = true,
                "role" => sets_role = true,
                _ => found.value(value),
            }
        }
    }
    found.violation("seLinuxOptions", |found| {
        let mut what = Vec::new();
        if !found.values.is_empty() {
            what.push(format!("{} {}", plural(found.values.len(), "type", "types"), found.quoted_values()));
        }
        what.extend(sets_user.then(|| "user may not be set".to_owned()));
        what.extend(sets_role.then(|| "role may not be set".to_owned()));
        format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            found.setters().join(" and "),
            what.join("; ")
        )
    })
}

/// The fields that are not allowed, with their values.
fn offending<'a>(options: &'a SELinuxOptions, types: &[&str]) -> Vec<(&'static str, &'a str)> {
    let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default();
    let (kind, user, role) = (text(&options.type_), text(&options.user), text(&options.role));
    [
        ("type", kind, !kind.is_empty() && !types.contains(&kind)),
        ("user", user, !user.is_empty()),
        ("role", role, !role.is_empty()),
    ]
    .into_iter()
    .filter_map(|(field, value, offends)| offends.then_some((field, value)))
    .collect()
}

#[cfg(test)]
mod fixtures {
    use serde_json::{Value, json};

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "seLinuxOptions";
        let has = |options: Value| json!({ "securityContext": { "seLinuxOptions": options } });
        vec![
            Case::container("says nothing", .., json!({})),
            Case::container("empty", .., has(json!({ "type": "", "user": "", "role": "" }))),
            Case::container("a level", .., has(json!({ "level": "s0:c1" }))),
            Case::container("a container's type", .., has(json!({ "type": "container_t" }))),
            Case::container("an init system's type", .., has(json!({ "type": "container_init_t" }))),
            Case::container("a virtual machine's type", .., has(json!({ "type": "container_kvm_t" }))),
            Case::container("an engine's type", 31.., has(json!({ "type": "container_engine_t" }))),
            Case::container("an engine's type, before", ..31, has(json!({ "type": "container_engine_t" }))).refused(
                REASON,
                r#"container "a" set forbidden securityContext.seLinuxOptions: type "container_engine_t""#,
                &["securityContext.seLinuxOptions.type"],
            ),
            Case::container("any type", .., has(json!({ "type": "spc_t" }))).refused(
                REASON,
                r#"container "a" set forbidden securityContext.seLinuxOptions: type "spc_t""#,
                &["securityContext.seLinuxOptions.type"],
            ),
            Case::container("a user", .., has(json!({ "user": "u" }))).refused(
                REASON,
                r#"container "a" set forbidden securityContext.seLinuxOptions: user may not be set"#,
                &["securityContext.seLinuxOptions.user"],
            ),
            Case::container("a role", .., has(json!({ "role": "r" }))).refused(
                REASON,
                r#"container "a" set forbidden securityContext.seLinuxOptions: role may not be set"#,
                &["securityContext.seLinuxOptions.role"],
            ),
            Case::pod("a container's type, for the pod", .., json!({ "spec": has(json!({ "type": "container_t" })) })),
            Case::pod(
                "all",
                ..,
                json!({ "spec": {
                    "securityContext": { "seLinuxOptions": { "type": "y", "user": "u" } },
                    "containers": [
                        { "name": "a", "securityContext": { "seLinuxOptions": { "type": "x", "role": "r" } } },
                        { "name": "b", "securityContext": { "seLinuxOptions": { "type": "x" } } },
                    ],
                } }),
            )
            .refused(
                REASON,
                r#"pod and containers "a", "b" set forbidden securityContext.seLinuxOptions: types "x", "y"; user may not be set; role may not be set"#,
                &[
                    "spec.securityContext.seLinuxOptions.type",
                    "spec.securityContext.seLinuxOptions.user",
                    "spec.containers[0].securityContext.seLinuxOptions.type",
                    "spec.containers[0].securityContext.seLinuxOptions.role",
                    "spec.containers[1].securityContext.seLinuxOptions.type",
                ],
            ),
        ]
    }
}
