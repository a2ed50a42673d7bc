//! A pod has namespaces of its own.
//!
//! Restricted fields:
//! - `spec.hostNetwork`, `spec.hostPID`, `spec.hostIPC`: false, absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision},
    pod::{FieldPath, PodView},
};

pub(super) const CHECK: Check = Check {
    id: "hostNamespaces",
    about: "The pod shares the network, the processes or the IPC of its node.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    let shared = [
        ("hostNetwork", pod.spec.host_network, "the pod has an address of its own then, not the node's"),
        ("hostPID", pod.spec.host_pid, "the pod sees its own processes then, not the node's"),
        ("hostIPC", pod.spec.host_ipc, "the pod has its own System V IPC then, not the node's"),
    ];
    let shared = shared.into_iter().filter(|(_, value, _)| *value == Some(true));
    let mut names = Vec::new();
    for (name, _, note) in shared {
        found.field(FieldPath::new(&["spec", name]), Change::Remove, Some(note));
        names.push(format!("{name}=true"));
    }
    found.violation("host namespaces", |_| names.join(", "))
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "host namespaces";
        vec![
            Case::pod("says nothing", .., json!({ "spec": {} })),
            Case::pod(
                "false",
                ..,
                json!({ "spec": { "hostNetwork": false, "hostPID": false, "hostIPC": false } }),
            ),
            Case::pod("the network", .., json!({ "spec": { "hostNetwork": true } })).refused(
                REASON,
                "hostNetwork=true",
                &["spec.hostNetwork"],
            ),
            Case::pod("the processes", .., json!({ "spec": { "hostPID": true } })).refused(
                REASON,
                "hostPID=true",
                &["spec.hostPID"],
            ),
            Case::pod(
                "all",
                ..,
                json!({ "spec": { "hostIPC": true, "hostPID": true, "hostNetwork": true } }),
            )
            .refused(
                REASON,
                "hostNetwork=true, hostPID=true, hostIPC=true",
                &["spec.hostNetwork", "spec.hostPID", "spec.hostIPC"],
            ),
        ]
    }
}
