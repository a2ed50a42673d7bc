//! What a pod's keeper says of its containers, taken into the pod's record: after an agent's restart, at every event, and
//! when the keeper has died.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerStatus;
use keeper::protocol::{ContainerPhase, ContainerState, Event};
use policy::{
    lifecycle::{self, ContainerRecord, Exit, How, PodRecord, Sandbox, State},
    security_context::ContainerKind,
};

use super::{
    super::{events::Kind, recover::Survivor, sandbox, start},
    Worker, time,
};

impl Worker {
    /// An earlier agent's pod whose keeper lives.
    pub(super) fn take_over(&mut self, survivor: Survivor) {
        self.record.sandbox = Sandbox::Ready;
        self.record.pod_ips = survivor.pod_ips;
        self.link = Some(survivor.link);
        self.keeper_events = Some(survivor.events);
        self.volumes = Some(Arc::new(sandbox::pod_volumes(&self.ctx, &self.subject.uid)));
        // The earlier agent's tokens are in the files alone: nobody knows when they are to be replaced.
        self.stale |= !crate::volumes::tokens(&self.pod).is_empty();
        let mut states = survivor.state.containers;
        states.sort_by_key(|state| state.container.attempt);
        for state in states {
            self.adopt(&state);
        }
    }

    /// Brings the record of a container in line with what its keeper says.
    pub(super) fn adopt(&mut self, state: &ContainerState) {
        let id = &state.container;
        let known = self.record.containers.iter().position(|record| record.name == id.name);
        let index = match known {
            Some(index) => index,
            None => {
                let Some((kind, container)) = self.container(&id.name) else { return };
                let reported = reported_status(&self.record, &id.name);
                self.record.containers.push(ContainerRecord {
                    name: id.name.clone(),
                    kind,
                    state: State::Waiting(None),
                    last: None,
                    restarts: id.attempt,
                    back_off: Default::default(),
                    image: container.image.unwrap_or_default(),
                    image_id: reported.map(|status| status.image_id).unwrap_or_default(),
                    container_id: None,
                });
                self.record.containers.len() - 1
            }
        };
        let container_id = self.container_id(id);
        let (started, ready) = self.first_verdicts(&id.name, &container_id);
        let exit = match &state.phase {
            ContainerPhase::Running => None,
            ContainerPhase::Exited(exit) => {
                Some(exit_of(exit, state, container_id.clone(), self.final_message(state)))
            }
        };
        let record = &mut self.record.containers[index];
        if record.restarts > id.attempt {
            return;
        }
        // Told twice, by the start's answer and by the event: what was found since stays, its end above all (a short
        // run's end may be told before its start's answer is taken in).
        let same =
            record.restarts == id.attempt && record.container_id.as_deref() == Some(container_id.as_str());
        if same && exit.is_none() && !matches!(record.state, State::Waiting(_)) {
            return;
        }
        if id.attempt > record.restarts
            && let State::Exited(exit) = &record.state
        {
            record.last = Some(exit.clone());
        }
        record.restarts = id.attempt;
        record.container_id = Some(container_id);
        match exit {
            None => {
                let since = time(state.started_at);
                record.state = State::Running { since, started, ready };
                self.start_probes(id, since, started);
            }
            Some(exit) => {
                self.probes.remove(&id.name);
                // The next start asks for the image again: its policy may be Always.
                self.images.remove(&id.name);
                let record = &mut self.record.containers[index];
                if !matches!(&record.state, State::Exited(_)) || record.last.is_some() {
                    record.back_off = lifecycle::after_exit(record.back_off, &exit);
                }
                record.state = State::Exited(exit);
            }
        }
    }

    fn final_message(&self, state: &ContainerState) -> String {
        match self.container(&state.container.name) {
            Some((_, container)) => start::termination_message(&container, state),
            None => String::new(),
        }
    }

    /// Whether the container has started and is ready before a probe of this agent has told: as an earlier agent
    /// reported of the same run, else as it is without probes.
    fn first_verdicts(&self, name: &str, container_id: &str) -> (bool, bool) {
        let Some((_, container)) = self.container(name) else { return (true, true) };
        let reported = reported_status(&self.record, name)
            .filter(|status| status.container_id.as_deref() == Some(container_id));
        let before = |of: fn(&ContainerStatus) -> bool| reported.as_ref().is_some_and(of);
        let started = container.startup_probe.is_none() || before(|status| status.started == Some(true));
        let ready = container.readiness_probe.is_none() || before(|status| status.ready);
        (started, started && ready)
    }

    pub(super) async fn keeper_said(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Started(state)) | Some(Event::Exited(state)) => {
                let ended = matches!(state.phase, ContainerPhase::Exited(_));
                let newest = self.record.containers.iter().find(|record| record.name == state.container.name);
                let known_end = newest.is_some_and(|record| {
                    record.restarts == state.container.attempt && matches!(record.state, State::Exited(_))
                });
                if !known_end {
                    self.adopt(&state);
                }
                if ended {
                    self.killing.remove(&state.container.name);
                    start::clean_old(&self.ctx, &self.subject, self.link.as_ref(), &state.container).await;
                }
            }
            Some(Event::LogTrouble { container, message, .. }) => {
                self.event(Some(&container.name), Kind::Warning, "LogTrouble", &message);
            }
            None => self.keeper_gone(),
        }
    }

    /// The keeper died: what it kept is lost and killed, and the pod gets a new sandbox.
    fn keeper_gone(&mut self) {
        self.keeper_events = None;
        self.link = None;
        self.child.take().into_iter().for_each(sandbox::reap);
        if self.finished {
            return;
        }
        let now = self.now();
        self.event(
            None,
            Kind::Warning,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.",
        );
        if let Err(error) = sandbox::clear(&self.ctx, &self.subject) {
            self.event(None, Kind::Warning, "FailedKillPod", &format!("error killing pod: {error}"));
        }
        self.record.sandbox = Sandbox::None;
        self.record.pod_ips.clear();
        self.killing.clear();
        // A new sandbox is a new beginning: init containers prepare it again.
        self.record.containers.retain(|record| record.kind != ContainerKind::Init);
        for record in &mut self.record.containers {
            if let State::Running { since, .. } = record.state {
                let exit = Exit {
                    how: How::Unknown,
                    started_at: Some(since),
                    finished_at: now,
                    message: "The container could not be located when the pod was terminated".to_owned(),
                    container_id: record.container_id.clone(),
                };
                record.back_off = lifecycle::after_exit(record.back_off, &exit);
                record.state = State::Exited(exit);
            }
        }
    }
}

fn reported_status(record: &PodRecord, name: &str) -> Option<ContainerStatus> {
    let status = &record.reported;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name).cloned()
}

fn exit_of(
    exit: &keeper::protocol::Exit,
    state: &ContainerState,
    container_id: String,
    message: String,
) -> Exit {
    let how = match (exit.oom_killed, exit.signal) {
        (true, _) => How::OomKilled,
        (false, Some(signal)) => How::Signal(signal),
        (false, None) => How::Code(exit.code),
    };
    Exit {
        how,
        started_at: Some(time(state.started_at)),
        finished_at: time(exit.finished_at),
        message,
        container_id: Some(container_id),
    }
}
