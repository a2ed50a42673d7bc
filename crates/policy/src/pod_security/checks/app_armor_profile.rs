//! Where a node has AppArmor, its default profile confines every container; it is not switched off.
//!
//! Restricted fields:
//! - `spec.securityContext.appArmorProfile.type`, and that of every container: RuntimeDefault, Localhost, absent
//! - `metadata.annotations[container.apparmor.security.beta.kubernetes.io/*]`: runtime/default, localhost/*, empty, absent

use crate::pod_security::{
    Change, Level, Setting, Violation,
    check::{Check, Found, Revision, plural, quoted},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "appArmorProfile",
    about: "AppArmor's default profile is switched off.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

fn is_allowed(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

fn is_allowed_annotation(profile: &str) -> bool {
    matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/")
}

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    const FIELDS: &[&str] = &["securityContext", "appArmorProfile", "type"];
    let mut found = Found::default();
    let set_default = Change::Set(Setting::Text("RuntimeDefault"));
    if let Some(profile) = pod.security().and_then(|security| security.app_armor_profile.as_ref())
        && !is_allowed(&profile.type_)
    {
        found.pod(FieldPath::new(&["spec"]).fields(FIELDS), set_default);
        found.value(&profile.type_);
    }
    for container in pod.containers() {
        if let Some(profile) = container.security.and_then(|security| security.app_armor_profile.as_ref())
            && !is_allowed(&profile.type_)
        {
            found.container(&container, container.path(FIELDS), set_default);
            found.value(&profile.type_);
        }
    }
    let annotations: Vec<(&str, &str)> = pod
        .annotations()
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !is_allowed_annotation(value))
        .collect();
    for (key, _) in &annotations {
        found.field(FieldPath::new(&["metadata", "annotations"]).key(key), Change::Remove, None);
    }

    let count = found.values.len() + annotations.len();
    let reason = plural(count, "forbidden AppArmor profile", "forbidden AppArmor profiles");
    found.violation(reason, |found| {
        let mut setters = found.setters();
        if !annotations.is_empty() {
            setters.push(plural(annotations.len(), "annotation", "annotations").to_owned());
        }
        let annotations = annotations.iter().map(|(key, value)| format!("{key}={value:?}"));
        let values = found.values.iter().cloned().chain(annotations);
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(values))
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::{Value, json};

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "forbidden AppArmor profile";
        let field = |profile: &str| json!({ "securityContext": { "appArmorProfile": { "type": profile } } });
        let annotated = |profile: &str| -> Value {
            json!({ "metadata": { "annotations": { "container.apparmor.security.beta.kubernetes.io/a": profile } } })
        };
        vec![
            Case::container("says nothing", .., json!({})),
            Case::container("the runtime's", .., field("RuntimeDefault")),
            Case::container("the node's", .., field("Localhost")),
            Case::container("none", .., field("Unconfined")).refused(
                REASON,
                r#"container "a" must not set AppArmor profile type to "Unconfined""#,
                &["securityContext.appArmorProfile.type"],
            ),
            Case::pod("none, for the pod", .., json!({ "spec": field("Unconfined") })).refused(
                REASON,
                r#"pod must not set AppArmor profile type to "Unconfined""#,
                &["spec.securityContext.appArmorProfile.type"],
            ),
            Case::pod("the runtime's, for the pod", .., json!({ "spec": field("RuntimeDefault") })),
            Case::pod("annotation of the runtime's", .., annotated("runtime/default")),
            Case::pod("annotation of the node's", .., annotated("localhost/mine")),
            Case::pod("annotation without value", .., annotated("")),
            Case::pod("annotation of none", .., annotated("unconfined")).refused(
                REASON,
                r#"annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/a="unconfined"""#,
                &["metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]"],
            ),
            Case::pod(
                "everybody",
                ..,
                json!({
                    "metadata": { "annotations": {
                        "container.apparmor.security.beta.kubernetes.io/b": "unconfined",
                        "container.apparmor.security.beta.kubernetes.io/a": "bogus",
                    } },
                    "spec": {
                        "securityContext": { "appArmorProfile": { "type": "Unconfined" } },
                        "containers": [{ "name": "a", "securityContext": { "appArmorProfile": { "type": "Unconfined" } } }],
                    },
                }),
            )
            .refused(
                "forbidden AppArmor profiles",
                r#"pod and container "a" and annotations must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="bogus"", "container.apparmor.security.beta.kubernetes.io/b="unconfined"""#,
                &[
                    "spec.securityContext.appArmorProfile.type",
                    "spec.containers[0].securityContext.appArmorProfile.type",
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]",
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/b]",
                ],
            ),
        ]
    }
}
