//! How a container is asked to end, and made to: its hook, its signal, its grace period, SIGKILL (kubelet
//! `pkg/kubelet/kuberuntime`, killContainer).

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::Container,
    jiff::{SignedDuration, Timestamp},
};
use keeper::protocol::ContainerId;
use policy::{lifecycle::State, security_context::ContainerKind};

use super::{
    super::{events::Kind, probes, start},
    Worker, sleep_until,
};

/// The least time between a container's stop signal and SIGKILL when its hook used the grace period up (kubelet
/// `minimumGracePeriodInSeconds`).
const LEAST_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// Why a container is asked to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its pod ends, or it is of no more use.
    Stop,
    /// A startup or liveness probe has failed.
    Probe(probes::Kind),
}

impl Worker {
    /// Asks a container to end: its hook and its stop signal now, SIGKILL when the grace period is over.
    pub(super) async fn kill(&mut self, name: &str, why: Why, now: Timestamp) {
        if self.killing.contains_key(name) {
            return;
        }
        let Some(record) = self.record.containers.iter().find(|record| record.name == name) else { return };
        let (Some(link), State::Running { .. }) = (self.link.clone(), &record.state) else { return };
        let id = ContainerId { name: name.to_owned(), attempt: record.restarts };
        let found = self.container(name);
        let grace =
            found.as_ref().map_or_else(|| self.grace(), |(_, container)| self.grace_for(why, container));
        let message = self.killing_message(name, why, found.as_ref());
        self.event(Some(name), Kind::Normal, "Killing", &message);
        let container = found.map(|(_, container)| container);
        let hook = container.as_ref().and_then(|one| one.lifecycle.as_ref()?.pre_stop.clone());
        let deadline = now + grace;
        if grace == SignedDuration::ZERO {
            self.killing.insert(name.to_owned(), deadline);
            return; // `kill_overdue` comes next
        }
        // A hook that takes the whole grace period leaves the container this long after its signal, as kubelet does.
        let least = if hook.is_some() { LEAST_GRACE } else { SignedDuration::ZERO };
        self.killing.insert(name.to_owned(), deadline + least);
        let signal = start::stop_signal(container.clone(), self.images.get(name));
        let target = container.and_then(|one| self.target(&id, &one));
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        // Apart from this worker, which hears of the end, and kills by itself should the grace period be shortened.
        tokio::spawn(async move {
            let hooked = hook.is_some();
            if let (Some(hook), Some(target)) = (hook, target) {
                let limit = Duration::try_from(grace).unwrap_or_default();
                let failure = match tokio::time::timeout(limit, probes::hook(&hook, &target)).await {
                    Ok(result) => result.err(),
                    Err(_) => Some(format!("it did not end within the grace period of {}s", grace.as_secs())),
                };
                if let Some(error) = failure {
                    let message = format!("PreStopHook failed: {error}");
                    ctx.recorder.pod(&pod, Some(&id.name), Kind::Warning, "FailedPreStopHook", &message);
                }
            }
            if let Err(error) = link.signal(id.clone(), signal).await {
                // It may just have ended; if not, the grace period's end kills it.
                eprintln!("stop container {}: {error}", id.name);
            }
            if hooked {
                let end = deadline.max(Timestamp::now() + LEAST_GRACE);
                sleep_until(Some(end)).await;
                // It has ended long ago, or the worker has killed it: then there is nothing to kill.
                drop(link.kill(id).await);
            }
        });
    }

    /// The pod's grace period, or that of the probe that failed while nobody asked the pod to go.
    fn grace_for(&self, why: Why, container: &Container) -> SignedDuration {
        let of_probe = match why {
            Why::Probe(kind) if self.pod.metadata.deletion_timestamp.is_none() && !self.gone => {
                kind.of(container).and_then(|probe| probe.termination_grace_period_seconds)
            }
            _ => None,
        };
        of_probe.map_or_else(|| self.grace(), |seconds| SignedDuration::from_secs(seconds.max(0)))
    }

    fn killing_message(&self, name: &str, why: Why, found: Option<&(ContainerKind, Container)>) -> String {
        let Why::Probe(kind) = why else { return format!("Stopping container {name}") };
        let of_pod = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let comes_back = found.is_some_and(|(kind, container)| {
            *kind == ContainerKind::Sidecar || container.restart_policy.as_deref().or(of_pod) != Some("Never")
        });
        let what = kind.name().to_lowercase();
        let end = if comes_back { ", will be restarted" } else { "" };
        format!("Container {name} failed {what} probe{end}")
    }

    pub(super) async fn kill_overdue(&mut self, now: Timestamp) {
        let overdue: Vec<String> =
            self.killing.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in overdue {
            let Some(record) = self.record.containers.iter().find(|record| record.name == name) else {
                continue;
            };
            let id = ContainerId { name: name.clone(), attempt: record.restarts };
            if let Some(link) = &self.link
                && let Err(error) = link.kill(id).await
            {
                self.event(
                    Some(&name),
                    Kind::Warning,
                    "FailedKillPod",
                    &format!("error killing pod: {error}"),
                );
            }
            // Asked again should the kernel take its time.
            self.killing.insert(name, now + SignedDuration::from_secs(5));
        }
    }
}
