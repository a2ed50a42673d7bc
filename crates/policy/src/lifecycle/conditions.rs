//! The kubelet's conditions of a pod (`pkg/kubelet/status/generate.go`).

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{ContainerRecord, PodRecord, Sandbox};
use crate::security_context::ContainerKind;

/// The types that this program owns; others are kept as they are.
const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const TRUE: Self = Self { holds: true, reason: None, message: None };

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

/// All conditions for a status whose phase and containers are filled in already.
pub fn conditions(
    pod: &Pod,
    record: &PodRecord,
    containers: &[(ContainerKind, Container)],
    status: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let before = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let reported = record.reported.conditions.as_deref().unwrap_or_default();
    let known = |name: &str| {
        let same = |condition: &&PodCondition| condition.type_ == name;
        reported.iter().find(same).or_else(|| before.iter().find(same))
    };
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let sandbox = record.sandbox == Sandbox::Ready && (host_network || !record.pod_ips.is_empty());
    let containers_ready = containers_ready(containers, status);
    let ready = ready(pod, before, &containers_ready);
    let verdicts = [
        Verdict { holds: sandbox, reason: None, message: None },
        initialized(record, containers, status),
        ready,
        containers_ready,
        Verdict::TRUE,
    ];
    let mut conditions: Vec<PodCondition> = OWN
        .into_iter()
        .zip(verdicts)
        .map(|(name, verdict)| {
            let value = if verdict.holds { "True" } else { "False" };
            let since = known(name)
                .filter(|condition| condition.status == value)
                .and_then(|condition| condition.last_transition_time.clone())
                .unwrap_or(Time(now));
            PodCondition {
                type_: name.to_owned(),
                status: value.to_owned(),
                reason: verdict.reason.map(str::to_owned),
                message: verdict.message,
                last_transition_time: Some(since),
                observed_generation: pod.metadata.generation,
                ..PodCondition::default()
            }
        })
        .collect();
    conditions.extend(before.iter().filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned());
    conditions
}

fn find<'a>(statuses: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().flatten().find(|status| status.name == name)
}

fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn initialized(record: &PodRecord, containers: &[(ContainerKind, Container)], status: &PodStatus) -> Verdict {
    let any_app_started = containers.iter().any(|(kind, container)| {
        *kind == ContainerKind::App && record.container(&container.name).is_some_and(ContainerRecord::has_run)
    });
    if status.phase.as_deref() == Some("Succeeded") {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    if any_app_started {
        return Verdict::TRUE;
    }
    let incomplete: Vec<&str> = containers
        .iter()
        .filter(|(kind, container)| {
            let status = find(&status.init_container_statuses, &container.name);
            match kind {
                ContainerKind::Init => !status.is_some_and(|status| status.ready),
                ContainerKind::Sidecar => status.is_none_or(|status| status.started != Some(true)),
                ContainerKind::App | ContainerKind::Ephemeral => false,
            }
        })
        .map(|(_, container)| container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return Verdict::TRUE;
    }
    Verdict::no(
        "ContainersNotInitialized",
        Some(format!("containers with incomplete status: {}", list(&incomplete))),
    )
}

fn containers_ready(containers: &[(ContainerKind, Container)], status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::no("PodCompleted", None),
        Some("Failed") => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let unready: Vec<&str> = containers
        .iter()
        .filter(|(kind, container)| {
            let statuses = match kind {
                ContainerKind::Sidecar => &status.init_container_statuses,
                ContainerKind::App => &status.container_statuses,
                ContainerKind::Init | ContainerKind::Ephemeral => return false,
            };
            !find(statuses, &container.name).is_some_and(|status| status.ready)
        })
        .map(|(_, container)| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Verdict::TRUE;
    }
    Verdict::no("ContainersNotReady", Some(format!("containers with unready status: {}", list(&unready))))
}

fn ready(pod: &Pod, before: &[PodCondition], containers_ready: &Verdict) -> Verdict {
    if !containers_ready.holds {
        return Verdict {
            holds: false,
            reason: containers_ready.reason,
            message: containers_ready.message.clone(),
        };
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let mut messages = Vec::new();
    for gate in gates {
        let name = &gate.condition_type;
        match before.iter().find(|condition| condition.type_ == *name) {
            None => messages
                .push(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
            Some(condition) if condition.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        return Verdict::TRUE;
    }
    Verdict::no("ReadinessGatesNotReady", Some(messages.join(", ")))
}
