//! What becomes of a worker's operations and probes: the record, the events, and when a failure is tried again.

use k8s_openapi::{api::core::v1::Container, jiff::Timestamp};
use keeper::protocol::ContainerId;
use policy::{
    lifecycle::{self, Exit, How, Sandbox, Start, State, Stop},
    security_context::ContainerKind,
};

use super::{
    super::{
        events::Kind,
        probes,
        sandbox::{self, SandboxError},
        start::{self, StartError},
    },
    Done, Worker,
    begin::Subtask,
    killing::Why,
};

impl Worker {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Sandbox(result) => match *result {
                Ok(made) => self.sandbox_made(made),
                Err(error) => self.sandbox_failed(error),
            },
            Done::Volumes(Ok(volumes)) => {
                self.retries.remove(&Subtask::Volumes);
                self.volumes = Some(volumes);
            }
            Done::Volumes(Err(message)) => {
                self.event(None, Kind::Warning, "FailedMount", &message);
                self.retry(Subtask::Volumes);
            }
            Done::Image { container, result: Ok(image) } => {
                self.pulling = false;
                self.retries.remove(&Subtask::Container(container.clone()));
                if let Some(record) = self.record_mut(&container) {
                    record.image_id = image.image_id().to_owned();
                }
                self.images.insert(container, image);
            }
            Done::Image { container, result: Err(error) } => {
                self.pulling = false;
                self.image_failed(&container, &error);
            }
            Done::Run { start, result } => self.run_done(&start, result),
            Done::Measured(Ok(None)) => {}
            Done::Refreshed(Ok(())) => drop(self.retries.remove(&Subtask::Refresh)),
            Done::Refreshed(Err(message)) => {
                self.event(None, Kind::Warning, "FailedMount", &message);
                self.stale = true;
                self.retry(Subtask::Refresh);
            }
            Done::Measured(Err(message)) => {
                self.event(None, Kind::Warning, "FailedMount", &message);
            }
            Done::Measured(Ok(Some(message))) => {
                self.event(None, Kind::Warning, "Evicted", &message);
                self.stop(Stop::Failed { reason: "Evicted".to_owned(), message });
            }
        }
    }

    fn sandbox_made(&mut self, made: sandbox::Made) {
        self.retries.remove(&Subtask::Sandbox);
        for warning in &made.warnings {
            self.event(None, Kind::Warning, "SandboxWarning", warning);
        }
        self.record.sandbox = Sandbox::Ready;
        self.record.pod_ips = made.pod_ips;
        self.effective = Some(made.effective);
        self.link = Some(made.link);
        self.child = Some(made.child);
        self.keeper_events = Some(made.events);
        match made.volumes {
            Ok(volumes) => self.volumes = Some(volumes),
            Err(message) => {
                self.event(None, Kind::Warning, "FailedMount", &message);
                self.retry(Subtask::Volumes);
            }
        }
    }

    fn sandbox_failed(&mut self, error: SandboxError) {
        match error {
            SandboxError::Rejected(refusal) if refusal.rejects_pod => {
                self.event(None, Kind::Warning, refusal.reason, &refusal.message);
                self.stop(Stop::Failed { reason: refusal.reason.to_owned(), message: refusal.message });
            }
            error => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.event(None, Kind::Warning, "FailedCreatePodSandBox", &message);
                self.record.sandbox = Sandbox::Failed(message);
                self.retry(Subtask::Sandbox);
            }
        }
    }

    fn image_failed(&mut self, container: &str, error: &crate::images::EnsureError) {
        let (reason, message) = (error.reason(), error.to_string());
        let image = self.container(container).and_then(|(_, container)| container.image).unwrap_or_default();
        if reason == "ErrImagePull" {
            let text = format!("Failed to pull image \"{image}\": {message}");
            self.event(Some(container), Kind::Warning, "Failed", &text);
            self.event(Some(container), Kind::Warning, "Failed", "Error: ErrImagePull");
            self.event(
                Some(container),
                Kind::Normal,
                "BackOff",
                &format!("Back-off pulling image \"{image}\""),
            );
            self.event(Some(container), Kind::Warning, "Failed", "Error: ImagePullBackOff");
            let waiting = format!("Back-off pulling image \"{image}\": ErrImagePull: {message}");
            self.waits(container, "ImagePullBackOff", &waiting);
        } else {
            self.event(Some(container), Kind::Warning, "Failed", &format!("Error: {reason}"));
            self.event(Some(container), Kind::Warning, reason, &message);
            self.waits(container, reason, &message);
        }
        self.retry(Subtask::Container(container.to_owned()));
    }

    fn run_done(&mut self, start: &Start, result: Result<start::Running, StartError>) {
        let now = self.now();
        let id = ContainerId { name: start.name.clone(), attempt: start.attempt };
        match result {
            Ok(running) => {
                self.retries.remove(&Subtask::Container(start.name.clone()));
                for (reason, message) in &running.events {
                    self.event(Some(&start.name), Kind::Warning, reason, message);
                }
                // Its keeper's own event may have come first, and may even say that it has ended.
                self.adopt(&running.state);
                self.with_image(start, &running.image_id);
            }
            Err(StartError::Refused(error)) if error.rejects_pod => {
                self.stop(Stop::Failed { reason: error.reason.to_owned(), message: error.message });
            }
            Err(StartError::Refused(error)) => {
                self.event(Some(&start.name), Kind::Warning, "Failed", &format!("Error: {}", error.message));
                self.waits(&start.name, error.reason, &error.message);
                self.retry(Subtask::Container(start.name.clone()));
            }
            Err(error) => {
                let message = error.to_string();
                self.event(Some(&start.name), Kind::Warning, "Failed", &format!("Error: {message}"));
                let container_id = self.container_id(&id);
                self.images.remove(&start.name);
                self.waits(&start.name, "RunContainerError", &message);
                let exit = Exit {
                    how: How::StartError,
                    started_at: None,
                    finished_at: now,
                    message,
                    container_id: Some(container_id.clone()),
                };
                if let Some(record) = self.record_mut(&start.name) {
                    record.restarts = start.attempt;
                    record.container_id = Some(container_id);
                    record.back_off = lifecycle::after_exit(record.back_off, &exit);
                    record.state = State::Exited(exit);
                }
            }
        }
    }

    fn with_image(&mut self, start: &Start, image_id: &str) {
        if let Some(record) = self.record_mut(&start.name) {
            record.image_id = image_id.to_owned();
        }
    }

    /// What probes and hooks of a container look at.
    pub(super) fn target(&self, id: &ContainerId, container: &Container) -> Option<probes::Target> {
        let ip = self.record.pod_ips.first().and_then(|ip| ip.parse().ok())?;
        Some(probes::Target::new(id, container, ip, Some(self.link.clone()?)))
    }

    pub(super) fn start_probes(&mut self, id: &ContainerId, since: Timestamp, started: bool) {
        let Some((kind, container)) = self.container(&id.name) else { return };
        let probed = matches!(kind, ContainerKind::App | ContainerKind::Sidecar);
        let any = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
        if !probed || any.into_iter().all(Option::is_none) {
            return;
        }
        let Some(target) = self.target(id, &container) else { return };
        let mut probes = probes::start(&container, started, since, &target, &self.reports.0);
        if self.record.stop.is_some() {
            probes.only_readiness();
        }
        self.probes.insert(id.name.clone(), probes);
    }

    pub(super) async fn probed(&mut self, report: probes::Report) {
        let name = report.container.name.clone();
        let Some(record) = self.record_mut(&name) else { return };
        let State::Running { since, started, ready } = record.state else { return };
        if record.restarts != report.container.attempt {
            return;
        }
        if let Some((reason, message)) = &report.event {
            self.event(Some(&name), Kind::Warning, reason, message);
        }
        let Some(record) = self.record_mut(&name) else { return };
        match (report.kind, report.verdict) {
            (_, None) | (probes::Kind::Liveness, Some(true)) => {}
            (probes::Kind::Readiness, Some(ready)) => record.state = State::Running { since, started, ready },
            (probes::Kind::Startup, Some(true)) => {
                let ready =
                    ready || self.container(&name).is_some_and(|(_, one)| one.readiness_probe.is_none());
                if let Some(record) = self.record_mut(&name) {
                    record.state = State::Running { since, started: true, ready };
                }
                self.start_probes(&report.container, since, true);
            }
            // Nobody restarts a container of a pod that ends.
            (_, Some(false)) if self.record.stop.is_some() => {}
            (kind, Some(false)) => {
                self.probes.remove(&name);
                let now = self.now();
                self.kill(&name, Why::Probe(kind), now).await;
            }
        }
    }
}
