//! The status to report (kubelet `pkg/kubelet/kubelet_pods.go`, getPhase and convertToAPIContainerStatuses).

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{ContainerRecord, Exit, PodRecord, State, Stop, conditions, final_phase, restarts, stop};
use crate::{
    resources,
    security_context::{ContainerKind, containers, pod_format},
};

/// The whole status to report. Conditions of others (readiness gates, DisruptionTarget) are kept.
pub fn status(pod: &Pod, record: &PodRecord, now: Timestamp) -> PodStatus {
    let containers = containers(pod);
    let of = |wanted: fn(ContainerKind) -> bool| -> Option<Vec<ContainerStatus>> {
        let statuses: Vec<ContainerStatus> = containers
            .iter()
            .filter(|(kind, _)| wanted(*kind))
            .map(|(kind, container)| container_status(pod, record, *kind, container, now))
            .collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    let init = of(|kind| matches!(kind, ContainerKind::Init | ContainerKind::Sidecar));
    let app = of(|kind| kind == ContainerKind::App);
    let ephemeral = of(|kind| kind == ContainerKind::Ephemeral);

    let before = pod.status.clone().unwrap_or_default();
    let stop = stop(pod, record, now);
    let any_runs = record.containers.iter().any(ContainerRecord::is_running);
    let seen = phase(pod, record, &containers, init.as_deref(), app.as_deref(), stop.is_some());
    let (phase, reason, message) = match (final_phase(pod, record), &stop) {
        (Some(phase), _) => {
            let reported = if record.reported.phase.is_some() { &record.reported } else { &before };
            (phase, reported.reason.clone(), reported.message.clone())
        }
        // A pod is not over while a process of it runs: its volumes and addresses are still used.
        (None, Some(Stop::Failed { reason, message })) if !any_runs => {
            ("Failed", Some(reason.clone()), Some(message.clone()))
        }
        (None, _) if any_runs && matches!(seen, "Succeeded" | "Failed") => ("Running", None, None),
        (None, _) => (seen, None, None),
    };
    let addresses = |list: &[String]| list.first().cloned();
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        qos_class: Some(resources::qos_class(pod).as_str().to_owned()),
        start_time: record.started_at.map(Time),
        host_ip: addresses(&record.host_ips),
        host_ips: (!record.host_ips.is_empty())
            .then(|| record.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: addresses(&record.pod_ips),
        pod_ips: (!record.pod_ips.is_empty())
            .then(|| record.pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        init_container_statuses: init,
        container_statuses: app,
        ephemeral_container_statuses: ephemeral,
        nominated_node_name: before.nominated_node_name.clone(),
        resource_claim_statuses: before.resource_claim_statuses.clone(),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::conditions(pod, record, &containers, &status, now));
    status
}

fn container_status(
    pod: &Pod,
    record: &PodRecord,
    kind: ContainerKind,
    container: &Container,
    now: Timestamp,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let Some(seen) = record.container(&container.name) else {
        status.state = Some(waiting(initial_reason(pod, kind), None));
        status.last_state = Some(ContainerState::default());
        return status;
    };
    status.restart_count = i32::try_from(seen.restarts).unwrap_or(i32::MAX);
    if !seen.image.is_empty() {
        status.image = seen.image.clone();
    }
    status.image_id = seen.image_id.clone();
    status.container_id = seen.container_id.clone();
    let mut last = seen.last.as_ref();
    status.state = Some(match &seen.state {
        State::Waiting(None) => waiting(initial_reason(pod, kind), None),
        State::Waiting(Some((reason, message))) => {
            waiting(reason, Some(message.clone()).filter(|message| !message.is_empty()))
        }
        State::Running { since, started, ready } => {
            status.started = Some(*started);
            status.ready = *ready && kind != ContainerKind::Init && kind != ContainerKind::Ephemeral;
            ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
                ..ContainerState::default()
            }
        }
        State::Exited(exit) => {
            let comes_back = stop(pod, record, now).is_none()
                && final_phase(pod, record).is_none()
                && restarts(pod, container, kind, exit);
            match seen.back_off_until(now).filter(|_| comes_back) {
                Some(_) => {
                    last = Some(exit);
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}",
                        go_duration(seen.back_off.delay.as_secs()),
                        container.name,
                        pod_format(pod)
                    );
                    waiting("CrashLoopBackOff", Some(message))
                }
                None => {
                    // An init container that succeeded is ready: that is what Initialized counts.
                    status.ready = kind == ContainerKind::Init && exit.how.exit_code() == 0;
                    terminated(exit)
                }
            }
        }
    });
    status.last_state = Some(last.map(terminated).unwrap_or_default());
    status
}

/// Whole seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: i64) -> String {
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

fn initial_reason(pod: &Pod, kind: ContainerKind) -> &'static str {
    let has_init =
        pod.spec.as_ref().and_then(|s| s.init_containers.as_ref()).is_some_and(|list| !list.is_empty());
    if has_init && kind != ContainerKind::Ephemeral { "PodInitializing" } else { "ContainerCreating" }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn terminated(exit: &Exit) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: exit.container_id.clone(),
            exit_code: exit.how.exit_code(),
            reason: Some(exit.how.reason().to_owned()),
            message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
            started_at: exit.started_at.map(Time),
            finished_at: Some(Time(exit.finished_at)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

#[derive(Default)]
struct Counts {
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

/// kubelet `getPhase`.
fn phase(
    pod: &Pod,
    record: &PodRecord,
    containers: &[(ContainerKind, Container)],
    init: Option<&[ContainerStatus]>,
    app: Option<&[ContainerStatus]>,
    terminal: bool,
) -> &'static str {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let kind_of = |name: &str| containers.iter().find(|(_, c)| c.name == name).map(|(kind, _)| *kind);
    let (mut pending_init, mut pending_sidecars, mut failed_init) = (0, 0, 0);
    let mut counts = Counts::default();
    for status in init.into_iter().flatten() {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        let sidecar = kind_of(&status.name) == Some(ContainerKind::Sidecar);
        if sidecar {
            if state.running.is_some() {
                pending_sidecars += usize::from(status.started != Some(true));
                counts.running += 1;
            } else if state.terminated.is_none() && last.is_none() {
                pending_sidecars += 1;
                counts.waiting += 1;
            }
        } else if let Some(terminated) = &state.terminated {
            failed_init += usize::from(terminated.exit_code != 0);
        } else if let (None, Some(last)) = (&state.running, last) {
            failed_init += usize::from(last.exit_code != 0);
        } else {
            pending_init += 1;
        }
    }
    let mut initialized = false;
    for status in app.into_iter().flatten() {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        initialized |= record.container(&status.name).is_some_and(ContainerRecord::has_run);
        if state.running.is_some() {
            counts.running += 1;
        } else if let Some(terminated) = &state.terminated {
            counts.stopped += 1;
            counts.succeeded += usize::from(terminated.exit_code == 0);
        } else if state.waiting.is_some() {
            if last.is_some() { counts.stopped += 1 } else { counts.waiting += 1 }
        } else {
            counts.unknown += 1;
        }
    }
    // After a start of an app container the init containers are history.
    if initialized {
        (pending_init, pending_sidecars, failed_init) = (0, 0, 0);
    }
    if failed_init > 0 && policy == "Never" {
        return "Failed";
    }
    let over = |never_restarts: bool| match counts.stopped == counts.succeeded {
        true => Some("Succeeded"),
        false if never_restarts => Some("Failed"),
        false => None,
    };
    if terminal && counts.running == 0 && counts.stopped > 0 {
        return over(true).unwrap_or("Failed");
    }
    if pending_init > 0 || failed_init > 0 || pending_sidecars > 0 || counts.waiting > 0 {
        return "Pending";
    }
    match counts {
        Counts { running: 1.., unknown: 0, .. } => "Running",
        Counts { running: 0, stopped: 1.., unknown: 0, .. } => {
            // A container's own restart policy may bring it back or keep it down, whatever the pod's says.
            let comes_back =
                containers.iter().filter(|(kind, _)| *kind == ContainerKind::App).any(|(kind, c)| {
                    let exit = record.container(&c.name).and_then(ContainerRecord::last_exit);
                    exit.is_some_and(|exit| restarts(pod, c, *kind, exit))
                });
            if comes_back { "Running" } else { over(true).unwrap_or("Failed") }
        }
        _ => "Pending",
    }
}
