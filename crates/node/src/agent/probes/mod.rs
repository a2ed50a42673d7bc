//! Startup, readiness and liveness probes, and lifecycle hooks: one task per probe of a running container, each with its
//! own period, that tells the pod's worker when its verdict changes (kubelet `pkg/kubelet/prober`). All of them go out
//! from the node's network, which every policy lets through to the node's own pods.

mod grpc;
mod http;
mod once;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Container, Probe},
    jiff::Timestamp,
};
use keeper::protocol::ContainerId;
use tokio::{sync::mpsc, task::JoinHandle};

use self::once::{Outcome, once};
pub use self::once::{Target, hook};

/// The most of a probe's output that is looked at and shown, in bytes (kubelet `maxReadLength`, `maxRespBodyLength`).
const LONGEST_OUTPUT: usize = 10 << 10;

/// As what probes and hooks present themselves: the version of Kubernetes this node stands for.
const PROBE_AGENT: &str = "kube-probe/1.35";
const HOOK_AGENT: &str = "kube-lifecycle/1.35";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What a probe's task tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub container: ContainerId,
    pub kind: Kind,
    /// The thresholds have decided; None for a single try that only makes an event.
    pub verdict: Option<bool>,
    /// The event's reason and message, as kubelet words them.
    pub event: Option<(&'static str, String)>,
}

/// The tasks of one running container; they end when this is dropped.
pub struct Probes {
    tasks: Vec<(Kind, JoinHandle<()>)>,
}

impl Probes {
    /// A pod that is told to end is not asked any more whether it lives; whether it still serves is of use to the end.
    pub fn only_readiness(&mut self) {
        self.tasks.retain(|(kind, task)| {
            let stays = *kind == Kind::Readiness;
            if !stays {
                task.abort();
            }
            stays
        });
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }
}

/// Starts the startup probe alone if there is one and has not passed, else readiness and liveness probes. `since` is the
/// container's start, which initial delays count from.
pub fn start(
    container: &Container,
    started: bool,
    since: Timestamp,
    target: &Target,
    reports: &mpsc::Sender<Report>,
) -> Probes {
    let kinds: &[Kind] = match &container.startup_probe {
        Some(_) if !started => &[Kind::Startup],
        _ => &[Kind::Readiness, Kind::Liveness],
    };
    let tasks = kinds
        .iter()
        .filter_map(|kind| {
            let probe = kind.of(container)?.clone();
            Some((*kind, tokio::spawn(run(*kind, probe, since, target.clone(), reports.clone()))))
        })
        .collect();
    Probes { tasks }
}

/// A probe's numbers with Kubernetes' defaults where they are missing or zero.
struct Timing {
    delay: Duration,
    period: Duration,
    timeout: Duration,
}

impl Timing {
    fn of(probe: &Probe) -> Timing {
        let seconds = |value: Option<i32>, default: u64| {
            let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
            Duration::from_secs(value.unwrap_or(default))
        };
        Timing {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
        }
    }
}

/// How many results in a row decide, and what was decided.
struct Thresholds {
    success: i32,
    failure: i32,
    last: Option<bool>,
    run: i32,
    told: Option<bool>,
}

impl Thresholds {
    fn of(probe: &Probe) -> Thresholds {
        let count = |value: Option<i32>, default| value.filter(|value| *value > 0).unwrap_or(default);
        Thresholds {
            success: count(probe.success_threshold, 1),
            failure: count(probe.failure_threshold, 3),
            last: None,
            run: 0,
            told: None,
        }
    }

    /// Takes a result in; the verdict if it is new.
    fn count(&mut self, passed: bool) -> Option<bool> {
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        let decided = self.run >= if passed { self.success } else { self.failure };
        if !decided || self.told == Some(passed) {
            return None;
        }
        self.told = Some(passed);
        self.told
    }
}

async fn run(kind: Kind, probe: Probe, since: Timestamp, target: Target, reports: mpsc::Sender<Report>) {
    let timing = Timing::of(&probe);
    let ran = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    tokio::time::sleep(timing.delay.saturating_sub(ran)).await;
    let mut interval = tokio::time::interval(timing.period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut thresholds = Thresholds::of(&probe);
    loop {
        interval.tick().await;
        let outcome = once(&probe, &target, timing.timeout).await;
        let (passed, event) = told(kind, outcome);
        // A probe that could not be carried out says nothing about the container.
        let verdict = passed.and_then(|passed| thresholds.count(passed));
        if verdict.is_none() && event.is_none() {
            continue;
        }
        let report = Report { container: target.container.clone(), kind, verdict, event };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// Whether a try passed (None: it could not be carried out), and the event that tells of it.
fn told(kind: Kind, outcome: Outcome) -> (Option<bool>, Option<(&'static str, String)>) {
    let name = kind.name();
    match outcome {
        Outcome::Success => (Some(true), None),
        Outcome::Warning(text) => {
            (Some(true), Some(("ProbeWarning", format!("{name} probe warning: {text}"))))
        }
        Outcome::Failure(text) => (Some(false), Some(("Unhealthy", format!("{name} probe failed: {text}")))),
        Outcome::Errored(text) => {
            (None, Some(("Unhealthy", format!("{name} probe errored and resulted in unknown state: {text}"))))
        }
    }
}
