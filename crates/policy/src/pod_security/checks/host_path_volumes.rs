//! No file of the node is in a pod.
//!
//! Restricted fields:
//! - `spec.volumes[*].hostPath`: absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision, plural, quoted},
    pod::{FieldPath, PodView},
};

pub(super) const ID: &str = "hostPathVolumes";

pub(super) const CHECK: Check = Check {
    id: ID,
    about: "A volume is a directory of the node.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

/// What people can write instead of a hostPath.
pub(super) const INSTEAD: &str =
    "use an emptyDir, a persistentVolumeClaim, a configMap or a projected volume, as the data asks for";

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    let mut names = Vec::new();
    for (at, volume) in pod.volumes().iter().enumerate() {
        if volume.host_path.is_some() {
            let path = FieldPath::new(&["spec", "volumes"]).index(at).fields(&["hostPath"]);
            found.field(path, Change::ByHand, Some(INSTEAD));
            names.push(&volume.name);
        }
    }
    found.violation("hostPath volumes", |_| {
        format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(&names))
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "hostPath volumes";
        vec![
            Case::pod("no volume", .., json!({ "spec": {} })),
            Case::pod("another", .., json!({ "spec": { "volumes": [{ "name": "a", "emptyDir": {} }] } })),
            Case::pod("one", .., json!({ "spec": { "volumes": [{ "name": "a", "hostPath": { "path": "/" } }] } })).refused(
                REASON,
                r#"volume "a""#,
                &["spec.volumes[0].hostPath"],
            ),
            Case::pod(
                "two of three",
                ..,
                json!({ "spec": { "volumes": [
                    { "name": "b", "hostPath": { "path": "/b" } }, { "name": "c", "emptyDir": {} }, { "name": "a", "hostPath": { "path": "/a" } },
                ] } }),
            )
            .refused(
                REASON,
                r#"volumes "b", "a""#,
                &["spec.volumes[0].hostPath", "spec.volumes[2].hostPath"],
            ),
        ]
    }
}
