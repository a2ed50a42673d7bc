//! No port of the node leads to a pod.
//!
//! Restricted fields, of every container:
//! - `ports[*].hostPort`: 0, absent

use crate::pod_security::{
    Change, Level, Violation,
    check::{Check, Found, Revision, plural},
    pod::PodView,
};

pub(super) const CHECK: Check = Check {
    id: "hostPorts",
    about: "A port of the node leads to the pod.",
    level: Level::Baseline,
    versions: &[Revision::since(0, v1_0)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_0(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    for container in pod.containers() {
        for (at, port) in container.ports.iter().enumerate() {
            if let Some(number) = port.host_port.filter(|number| *number != 0) {
                let path = container.path(&["ports"]).index(at).fields(&["hostPort"]);
                found.container(&container, path, Change::Remove);
                found.note("the node's port leads to the pod no longer: give it a Service");
                found.value(&number.to_string());
            }
        }
    }
    found.violation("hostPort", |found| {
        // Upstream sorts the numbers as words.
        let numbers: Vec<&str> = found.values.iter().map(String::as_str).collect();
        format!(
            "{} {} {} {}",
            found.containers(),
            plural(found.count(), "uses", "use"),
            plural(numbers.len(), "hostPort", "hostPorts"),
            numbers.join(", ")
        )
    })
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "hostPort";
        vec![
            Case::container("no port", .., json!({})),
            Case::container("a port of its own", .., json!({ "ports": [{ "containerPort": 80 }] })),
            Case::container("0 is none", .., json!({ "ports": [{ "containerPort": 80, "hostPort": 0 }] })),
            Case::container("one", .., json!({ "ports": [{ "containerPort": 1 }, { "containerPort": 80, "hostPort": 9000 }] })).refused(
                REASON,
                r#"container "a" uses hostPort 9000"#,
                &["ports[1].hostPort"],
            ),
            Case::pod(
                "several, sorted as words",
                ..,
                json!({ "spec": { "containers": [
                    { "name": "a", "ports": [{ "containerPort": 1, "hostPort": 9 }, { "containerPort": 2, "hostPort": 80 }] },
                    { "name": "b", "ports": [{ "containerPort": 3, "hostPort": 80 }, { "containerPort": 4, "hostPort": 1000 }] },
                ] } }),
            )
            .refused(
                REASON,
                r#"containers "a", "b" use hostPorts 1000, 80, 9"#,
                &[
                    "spec.containers[0].ports[0].hostPort",
                    "spec.containers[0].ports[1].hostPort",
                    "spec.containers[1].ports[0].hostPort",
                    "spec.containers[1].ports[1].hostPort",
                ],
            ),
        ]
    }
}
