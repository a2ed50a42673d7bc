//! Probes and hooks go to the pod itself: the node sends them, and with a `host` it would send them anywhere it can reach.
//!
//! Restricted fields, of every container, from 1.34 on:
//! - `livenessProbe`, `readinessProbe`, `startupProbe`, `lifecycle.postStart`, `lifecycle.preStop`: their `httpGet.host` and
//!   `tcpSocket.host` empty, absent

use k8s_openapi::api::core::v1::{HTTPGetAction, TCPSocketAction};

use crate::pod_security::{
    Change, FieldPath, Level, Violation,
    check::{Check, Found, Revision, plural},
    pod::PodView,
};

pub(super) const CHECK: Check = Check {
    id: "hostProbesAndHostLifecycle",
    about: "A probe or hook makes the node connect to another host than the pod.",
    level: Level::Baseline,
    versions: &[Revision::since(34, v1_34)],
    #[cfg(test)]
    fixtures: fixtures::all,
};

fn v1_34(pod: &PodView<'_>) -> Option<Violation> {
    let mut found = Found::default();
    for container in pod.containers() {
        let probes = container.probes.iter().filter_map(|(name, probe)| {
            let probe = probe.as_ref()?;
            Some((container.path(&[name]), probe.http_get.as_ref(), probe.tcp_socket.as_ref()))
        });
        let hooks = container.lifecycle.map(|lifecycle| {
            [("postStart", lifecycle.post_start.as_ref()), ("preStop", lifecycle.pre_stop.as_ref())]
        });
        let hooks = hooks.into_iter().flatten().filter_map(|(name, hook)| {
            let hook = hook?;
            Some((container.path(&["lifecycle", name]), hook.http_get.as_ref(), hook.tcp_socket.as_ref()))
        });
        for (path, http, tcp) in probes.chain(hooks) {
            for (action, host) in hosts(http, tcp) {
                let path: FieldPath = path.clone().fields(&[action, "host"]);
                found.container(&container, path, Change::Remove);
                found.note("the pod's own address is asked then");
                found.value(host);
            }
        }
    }
    found.sort_containers();
    found.violation("probe or lifecycle host", |found| {
        format!(
            "{} {} {} {}",
            found.containers(),
            plural(found.count(), "uses", "use"),
            plural(found.values.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
            found.quoted_values()
        )
    })
}

/// The hosts of an action, empty ones left out.
fn hosts<'a>(
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let http = http.and_then(|action| action.host.as_deref()).map(|host| ("httpGet", host));
    let tcp = tcp.and_then(|action| action.host.as_deref()).map(|host| ("tcpSocket", host));
    http.into_iter().chain(tcp).filter(|(_, host)| !host.is_empty())
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use crate::pod_security::fixture::Case;

    pub fn all() -> Vec<Case> {
        const REASON: &str = "probe or lifecycle host";
        const DETAIL: &str = r#"container "a" uses probe or lifecycle host "10.0.0.1""#;
        let http = |host: &str| json!({ "httpGet": { "port": 80, "host": host } });
        let tcp = |host: &str| json!({ "tcpSocket": { "port": 80, "host": host } });
        vec![
            Case::container("no probe", 34.., json!({})),
            Case::container("without host", 34.., json!({ "livenessProbe": { "httpGet": { "port": 80 } }, "lifecycle": {} })),
            Case::container("an empty host", 34.., json!({ "readinessProbe": http(""), "lifecycle": { "preStop": tcp("") } })),
            Case::container("liveness", 34.., json!({ "livenessProbe": http("10.0.0.1") })).refused(
                REASON,
                DETAIL,
                &["livenessProbe.httpGet.host"],
            ),
            Case::container("readiness", 34.., json!({ "readinessProbe": tcp("10.0.0.1") })).refused(
                REASON,
                DETAIL,
                &["readinessProbe.tcpSocket.host"],
            ),
            Case::container("startup", 34.., json!({ "startupProbe": http("10.0.0.1") })).refused(
                REASON,
                DETAIL,
                &["startupProbe.httpGet.host"],
            ),
            Case::container("after the start", 34.., json!({ "lifecycle": { "postStart": http("10.0.0.1") } })).refused(
                REASON,
                DETAIL,
                &["lifecycle.postStart.httpGet.host"],
            ),
            Case::container("before the end", 34.., json!({ "lifecycle": { "preStop": tcp("10.0.0.1") } })).refused(
                REASON,
                DETAIL,
                &["lifecycle.preStop.tcpSocket.host"],
            ),
            Case::container("before 1.34", ..34, json!({ "livenessProbe": http("10.0.0.1") })),
            Case::pod(
                "several, by name",
                34..,
                json!({ "spec": { "containers": [
                    { "name": "b", "livenessProbe": http("y"), "readinessProbe": http("x") }, { "name": "a", "startupProbe": tcp("x") },
                ] } }),
            )
            .refused(
                REASON,
                r#"containers "a", "b" use probe or lifecycle hosts "x", "y""#,
                &[
                    "spec.containers[0].livenessProbe.httpGet.host",
                    "spec.containers[0].readinessProbe.httpGet.host",
                    "spec.containers[1].startupProbe.tcpSocket.host",
                ],
            ),
        ]
    }
}
