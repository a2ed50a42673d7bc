//! Which operation a worker begins next, when it looks again if nothing happens, and when what failed is tried again.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use policy::lifecycle::{self, Sandbox, Start};

use super::{
    super::{events::Kind, sandbox, start},
    Done, Worker,
    killing::Why,
};
use crate::images::Image;

/// An emptyDir on disk with a sizeLimit is measured this often, as kubelet's eviction manager does; nothing tells of its growth.
const MEASURE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// When something that failed is tried again: 10 s doubling to 5 min, as kubelet's image and sync back-off.
#[derive(Clone, Copy)]
pub(super) struct Retry {
    delay: SignedDuration,
    at: Timestamp,
}

impl Retry {
    const FIRST: SignedDuration = SignedDuration::from_secs(10);
    const LONGEST: SignedDuration = SignedDuration::from_secs(300);

    fn after(previous: Option<Retry>, now: Timestamp) -> Retry {
        let delay = previous.map_or(Self::FIRST, |retry| (retry.delay * 2).min(Self::LONGEST));
        Retry { delay, at: now + delay }
    }
}

/// What is retried.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Subtask {
    Sandbox,
    Volumes,
    Container(String),
    /// New files for what a running pod's volumes come from.
    Refresh,
}

impl Worker {
    /// Decides and begins what is next; returns when to look again if nothing happens.
    pub(super) async fn step(&mut self) -> Option<Timestamp> {
        if self.finished {
            self.remove_if_asked().await;
            return None;
        }
        let now = self.now();
        let decision = lifecycle::decide(&self.pod, &self.record, now);
        for (container, message) in &decision.back_off_events {
            self.event(Some(container), Kind::Warning, "BackOff", message);
        }
        for name in &decision.kill {
            self.kill(name, Why::Stop, now).await;
        }
        self.kill_overdue(now).await;
        if self.record.stop.is_some() && self.pulling {
            // An image that nothing will run need not be waited for.
            self.operation = None;
            self.pulling = false;
        }
        if self.operation.is_none() {
            if decision.finished || (self.record.stop.is_some() && self.running().next().is_none()) {
                self.take_down().await;
                return None;
            }
            if self.record.stop.is_none() {
                self.begin(&decision, now);
            }
        }
        let retries = self.retries.values().map(|retry| retry.at);
        let upkeep = [self.measure_at, self.tokens.renew_at()].into_iter().flatten();
        let times = retries.chain(self.killing.values().copied()).chain(decision.wake_at).chain(upkeep);
        next_wake(times, now)
    }

    fn due(&self, subtask: &Subtask, now: Timestamp) -> bool {
        self.retries.get(subtask).is_none_or(|retry| retry.at <= now)
    }

    pub(super) fn retry(&mut self, subtask: Subtask) {
        let retry = Retry::after(self.retries.get(&subtask).copied(), self.now());
        self.retries.insert(subtask, retry);
    }

    /// Begins the next operation that is due.
    fn begin(&mut self, decision: &lifecycle::Decision, now: Timestamp) {
        if decision.create_sandbox {
            if self.due(&Subtask::Sandbox, now) {
                let (ctx, pod, tokens) = (self.ctx.clone(), self.pod.clone(), self.tokens.clone());
                self.operation =
                    Some(Box::pin(
                        async move { Done::Sandbox(Box::new(sandbox::make(ctx, pod, tokens).await)) },
                    ));
            }
            return;
        }
        if self.record.sandbox != Sandbox::Ready {
            return;
        }
        if self.volumes.is_none() {
            if self.due(&Subtask::Volumes, now) {
                let (ctx, pod, tokens) = (self.ctx.clone(), self.pod.clone(), self.tokens.clone());
                self.operation =
                    Some(Box::pin(async move { Done::Volumes(sandbox::volumes(&ctx, &pod, &tokens).await) }));
            }
            return;
        }
        let Some(start) = decision
            .start
            .iter()
            .find(|start| self.due(&Subtask::Container(start.name.clone()), now))
            .cloned()
        else {
            return self.begin_upkeep(now);
        };
        match self.images.get(&start.name).cloned() {
            None => self.begin_image(start),
            Some(image) => self.begin_run(start, image),
        }
    }

    /// Keeps the volumes of a pod that runs: new files for what has changed, a measure of what is limited.
    fn begin_upkeep(&mut self, now: Timestamp) {
        let Some(volumes) = self.volumes.clone() else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let renews = self.tokens.renew_at().is_some_and(|at| at <= now);
        let stale = self.stale && self.due(&Subtask::Refresh, now);
        if stale || renews {
            self.stale = false;
            let tokens = self.tokens.clone();
            self.operation = Some(Box::pin(async move {
                Done::Refreshed(sandbox::refresh(&ctx, &pod, &volumes, &tokens).await)
            }));
        } else if self.measure_at.is_none_or(|at| at <= now) && has_limited_volume(&pod) {
            self.measure_at = Some(now + MEASURE_PERIOD);
            self.operation =
                Some(Box::pin(async move { Done::Measured(sandbox::measure(&pod, &volumes).await) }));
        }
    }

    fn begin_image(&mut self, start: Start) {
        let Some((_, container)) = self.container(&start.name) else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.pulling = true;
        self.operation = Some(Box::pin(async move {
            let result = start::image(&ctx, &pod, &container).await.map(Arc::new);
            Done::Image { container: start.name, result }
        }));
    }

    fn begin_run(&mut self, start: Start, image: Arc<Image>) {
        let (Some(link), Some(volumes)) = (self.link.clone(), self.volumes.clone()) else { return };
        let request = start::Request {
            ctx: self.ctx.clone(),
            pod: self.pod.clone(),
            link,
            volumes,
            image,
            pod_ips: self.record.pod_ips.clone(),
        };
        self.operation = Some(Box::pin(async move {
            let result = start::run(request, &start).await;
            Done::Run { start, result }
        }));
    }
}

/// The first of these times that is still to come. One that has passed waits for something that is under way (a token is
/// due while an image is pulled) or for nothing any more (the pod ends): the worker would turn without a pause for it.
fn next_wake(times: impl Iterator<Item = Timestamp>, now: Timestamp) -> Option<Timestamp> {
    times.filter(|at| *at > now).min()
}

fn has_limited_volume(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .into_iter()
        .filter_map(|volume| volume.empty_dir.as_ref())
        .any(|dir| dir.size_limit.is_some() && dir.medium.as_deref().unwrap_or_default().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdue_wakes_nobody() {
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        for (times, wake) in [
            (vec![], None),
            (vec![12, 11, 15], Some(11)),
            // A token was due at 3, and an image is still pulled.
            (vec![3, 15], Some(15)),
            (vec![3, 10], None),
        ] {
            assert_eq!(next_wake(times.iter().map(|time| at(*time)), at(10)), wake.map(at), "{times:?}");
        }
    }

    #[test]
    fn pauses_double_to_five_minutes() {
        let now = Timestamp::from_second(1000).expect("a time");
        let mut retry = None;
        let pauses = std::array::from_fn(|_| retry.insert(Retry::after(retry, now)).delay.as_secs());
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    }
}
