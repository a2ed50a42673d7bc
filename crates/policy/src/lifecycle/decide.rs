//! What to do next (kubelet `pkg/kubelet/kuberuntime`, computePodActions).

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::Timestamp,
};

use super::{
    ContainerRecord, Decision, PodRecord, Sandbox, Start, State, deadline, final_phase, restarts, stop,
};
use crate::security_context::{ContainerKind, containers, pod_format};

/// What to do now with the pod. To be asked again whenever anything happened, and at `wake_at`.
pub fn decide(pod: &Pod, record: &PodRecord, now: Timestamp) -> Decision {
    let containers = containers(pod);
    let mut decision = Decision::default();
    if stop(pod, record, now).is_some() || final_phase(pod, record).is_some() {
        end(&containers, record, &mut decision);
        return decision;
    }
    let mut next = Next { pod, record, now, decision };
    next.ephemeral(&containers);
    let initialized = next.init(&containers);
    match initialized {
        Init::Done => next.apps(&containers),
        Init::Waiting => {}
        Init::Failed => {
            let mut decision = Decision::default();
            end(&containers, record, &mut decision);
            return decision;
        }
    }
    let mut decision = next.decision;
    if initialized == Init::Done && apps_are_over(pod, &containers, record) {
        decision = Decision::default();
        end(&containers, record, &mut decision);
        return decision;
    }
    if record.sandbox != Sandbox::Ready {
        decision.create_sandbox = true;
    }
    if let Some(deadline) = deadline(pod, record) {
        wake(&mut decision, deadline);
    }
    decision
}

/// How far the init containers are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Init {
    Done,
    Waiting,
    /// One failed for good.
    Failed,
}

struct Next<'a> {
    pod: &'a Pod,
    record: &'a PodRecord,
    now: Timestamp,
    decision: Decision,
}

impl Next<'_> {
    fn ephemeral(&mut self, containers: &[(ContainerKind, Container)]) {
        for (kind, container) in containers {
            let waits = match self.record.container(&container.name) {
                None => true,
                Some(record) => matches!(record.state, State::Waiting(_)),
            };
            if *kind == ContainerKind::Ephemeral && waits {
                self.start(*kind, container);
            }
        }
    }

    /// Init containers run one after the other; a sidecar must have started before the next goes on.
    fn init(&mut self, containers: &[(ContainerKind, Container)]) -> Init {
        // Once an app container ran, the pod is initialized for good; only its sidecars are kept up.
        let initialized = containers.iter().any(|(kind, container)| {
            *kind == ContainerKind::App
                && self.record.container(&container.name).is_some_and(ContainerRecord::has_run)
        });
        let failed =
            containers.iter().any(|(kind, container)| match self.record.container(&container.name) {
                Some(ContainerRecord { state: State::Exited(exit), .. }) if *kind == ContainerKind::Init => {
                    exit.how.exit_code() != 0 && !restarts(self.pod, container, *kind, exit)
                }
                _ => false,
            });
        if failed && !initialized {
            return Init::Failed;
        }
        for (kind, container) in containers {
            let record = self.record.container(&container.name);
            match (kind, record.map(|record| &record.state)) {
                (ContainerKind::Sidecar, Some(State::Running { started: true, .. })) => {}
                (ContainerKind::Sidecar, state) => {
                    if !matches!(state, Some(State::Running { .. })) {
                        self.start(*kind, container);
                    }
                    // One that crashed after it had started holds nobody up.
                    if !initialized && !record.is_some_and(|record| record.has_run() && !record.is_running())
                    {
                        return Init::Waiting;
                    }
                }
                (ContainerKind::Init, _) if initialized => {}
                (ContainerKind::Init, Some(State::Exited(exit))) if exit.how.exit_code() == 0 => {}
                (ContainerKind::Init, Some(State::Running { .. })) => return Init::Waiting,
                (ContainerKind::Init, None | Some(State::Waiting(_) | State::Exited(_))) => {
                    self.start(*kind, container);
                    return Init::Waiting;
                }
                (ContainerKind::App | ContainerKind::Ephemeral, _) => {}
            }
        }
        Init::Done
    }

    fn apps(&mut self, containers: &[(ContainerKind, Container)]) {
        for (kind, container) in containers {
            if *kind != ContainerKind::App {
                continue;
            }
            match self.record.container(&container.name).map(|record| &record.state) {
                Some(State::Running { .. }) => {}
                Some(State::Exited(exit)) if !restarts(self.pod, container, *kind, exit) => {}
                None | Some(State::Waiting(_) | State::Exited(_)) => self.start(*kind, container),
            }
        }
    }

    /// Starts it, or waits for the end of its back-off.
    fn start(&mut self, kind: ContainerKind, container: &Container) {
        let record = self.record.container(&container.name);
        if let Some((record, until)) = record.and_then(|r| Some((r, r.back_off_until(self.now)?))) {
            wake(&mut self.decision, until);
            self.announce(record);
            return;
        }
        let attempt = record.map_or(0, |r| r.restarts + u32::from(r.last_exit().is_some()));
        self.decision.start.push(Start { name: container.name.clone(), kind, attempt });
    }

    /// The BackOff event: once per wait, which is when the reported status does not show the wait yet.
    fn announce(&mut self, record: &ContainerRecord) {
        let reported = &self.record.reported;
        let shown = [&reported.container_statuses, &reported.init_container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|status| status.name == record.name && status.restart_count == record.restarts as i32)
            .filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref())
            .any(|reason| reason == "CrashLoopBackOff");
        if !shown {
            let message = format!(
                "Back-off restarting failed container {} in pod {}",
                record.name,
                pod_format(self.pod)
            );
            self.decision.back_off_events.push((record.name.clone(), message));
        }
    }
}

fn wake(decision: &mut Decision, at: Timestamp) {
    decision.wake_at = Some(decision.wake_at.map_or(at, |earlier| earlier.min(at)));
}

fn apps_are_over(pod: &Pod, containers: &[(ContainerKind, Container)], record: &PodRecord) -> bool {
    containers.iter().filter(|(kind, _)| *kind == ContainerKind::App).all(|(kind, container)| {
        match record.container(&container.name).map(|record| &record.state) {
            Some(State::Exited(exit)) => !restarts(pod, container, *kind, exit),
            _ => false,
        }
    })
}

/// All that run are stopped: sidecars only after the others have ended, the last one first.
fn end(containers: &[(ContainerKind, Container)], record: &PodRecord, decision: &mut Decision) {
    let running = |wanted: &dyn Fn(ContainerKind) -> bool| -> Vec<String> {
        containers
            .iter()
            .filter(|(kind, container)| {
                wanted(*kind) && record.container(&container.name).is_some_and(ContainerRecord::is_running)
            })
            .map(|(_, container)| container.name.clone())
            .collect()
    };
    decision.kill = running(&|kind| kind != ContainerKind::Sidecar);
    if decision.kill.is_empty() {
        decision.kill =
            running(&|kind| kind == ContainerKind::Sidecar).into_iter().next_back().into_iter().collect();
    }
    decision.finished = decision.kill.is_empty();
}
