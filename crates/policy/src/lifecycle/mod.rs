//! The life of a pod as decisions: what to start now, what to wait for and until when, and the status to report. The
//! agent keeps a [`PodRecord`] of what it saw, and asks again at every event; time comes in as an argument.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodStatus},
    jiff::{SignedDuration, Timestamp},
};

pub use self::{decide::decide, status::status};
use crate::security_context::ContainerKind;

mod conditions;
mod decide;
mod status;

#[cfg(test)]
mod tests;

/// What the agent has seen of a pod. Containers that are not there yet have no entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRecord {
    /// When the agent first saw the pod: `status.startTime`.
    pub started_at: Option<Timestamp>,
    pub sandbox: Sandbox,
    pub containers: Vec<ContainerRecord>,
    pub host_ips: Vec<String>,
    /// Primary first; empty while the pod has none.
    pub pod_ips: Vec<String>,
    /// The pod is being killed or was refused: nothing starts any more.
    pub stop: Option<Stop>,
    /// The status that was last reported: transition times are kept from it.
    pub reported: PodStatus,
}

/// The pod's namespaces, network and keeper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    #[default]
    None,
    Ready,
    /// Making it failed; the message is for the event and the containers' waiting state.
    Failed(String),
}

/// Why nothing of the pod may start any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The pod has a deletion timestamp.
    Deleted,
    /// Not admitted, evicted, or its deadline passed: phase Failed with this reason and message.
    Failed { reason: String, message: String },
}

/// One container of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerRecord {
    pub name: String,
    pub kind: ContainerKind,
    pub state: State,
    /// The attempt before: `lastState`.
    pub last: Option<Exit>,
    /// How often it was started again; the attempt number of the running one.
    pub restarts: u32,
    pub back_off: BackOff,
    /// Reference and digest, for the status.
    pub image: String,
    pub image_id: String,
    /// `cofferdam://<id>` of the running or last attempt.
    pub container_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Waiting for something: `reason` is shown (`ImagePullBackOff`, `CreateContainerConfigError`, ...). `None`: not tried.
    Waiting(Option<(String, String)>),
    Running {
        since: Timestamp,
        /// The startup probe passed or there is none.
        started: bool,
        /// The readiness probe passed or there is none.
        ready: bool,
    },
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub how: How,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// The termination message, or the error of a start.
    pub message: String,
    pub container_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Code(i32),
    /// Exit code 128 + signal.
    Signal(i32),
    /// Killed by the kernel for its memory: exit code 137.
    OomKilled,
    /// The runtime could not start it: exit code 128, reason `StartError`.
    StartError,
    /// The runtime could not run its command (not found: 127, not executable: 126): reason `ContainerCannotRun`.
    CannotRun(i32),
    /// It is gone and nobody knows how: exit code 137, reason `ContainerStatusUnknown`.
    Unknown,
}

/// Restart back-off of one container: 10 s doubling to 5 min, forgotten after 10 min of running well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackOff {
    /// Delay from the last exit to the next start; zero for the first restart.
    pub delay: SignedDuration,
    /// When the container last exited; `None`: never.
    pub updated: Option<Timestamp>,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Make the sandbox first.
    pub create_sandbox: bool,
    /// Containers to start now, in order.
    pub start: Vec<Start>,
    /// Nothing to do before this, unless something happens.
    pub wake_at: Option<Timestamp>,
    /// Events to record for containers that wait in back-off: container, reason `BackOff`, message.
    pub back_off_events: Vec<(String, String)>,
    /// Running containers to stop, in order: sidecars after the app containers are done, or all when `stop` is set.
    pub kill: Vec<String>,
    /// Everything has ended and nothing will start: the sandbox can go.
    pub finished: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub name: String,
    pub kind: ContainerKind,
    /// 0 for the first; the number in the log file's name.
    pub attempt: u32,
}

/// The first delay, after the second exit in a row.
const INITIAL_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// The kubelet's MaxContainerBackOff.
const MAX_DELAY: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts anew: twice the largest delay, as upstream's `flowcontrol.Backoff`.
const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// To be called when a container exits, with the back-off from before: raises it. The first restart is at once, then
/// after 10 s, 20 s, … 300 s.
pub fn after_exit(back_off: BackOff, exit: &Exit) -> BackOff {
    let ran = exit.started_at.map(|started| exit.finished_at.duration_since(started));
    let ran_well = ran.is_some_and(|ran| ran > RESET_AFTER);
    let delay = match back_off.updated {
        None => SignedDuration::ZERO,
        Some(_) if ran_well => SignedDuration::ZERO,
        Some(_) => (back_off.delay * 2).clamp(INITIAL_DELAY, MAX_DELAY),
    };
    BackOff { delay, updated: Some(exit.finished_at) }
}

impl How {
    /// `state.terminated.exitCode`.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) | Self::CannotRun(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::OomKilled | Self::Unknown => 137,
            Self::StartError => 128,
        }
    }

    /// `state.terminated.reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Code(0) => "Completed",
            Self::Code(_) | Self::Signal(_) => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::CannotRun(_) => "ContainerCannotRun",
            Self::Unknown => "ContainerStatusUnknown",
        }
    }
}

impl PodRecord {
    fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|record| record.name == name)
    }
}

impl ContainerRecord {
    fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// The end that the next start comes after.
    fn last_exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            State::Waiting(_) => self.last.as_ref(),
            State::Running { .. } => None,
        }
    }

    /// When it may start again; `None`: at once.
    fn back_off_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.last_exit()?.finished_at.checked_add(self.back_off.delay).ok()?;
        (until > now).then_some(until)
    }

    /// Its process was started at least once.
    fn has_run(&self) -> bool {
        !matches!(self.state, State::Waiting(_)) || self.last.is_some()
    }
}

/// Why nothing may start any more: what the agent recorded, or the pod's deadline, or a phase that is final.
fn stop(pod: &Pod, record: &PodRecord, now: Timestamp) -> Option<Stop> {
    if let Some(stop) = &record.stop {
        return Some(stop.clone());
    }
    let deadline = deadline(pod, record)?;
    (deadline <= now).then(|| Stop::Failed {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

/// `activeDeadlineSeconds` after the start.
fn deadline(pod: &Pod, record: &PodRecord) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    record.started_at?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// A pod that has succeeded or failed never runs again.
fn final_phase<'a>(pod: &'a Pod, record: &'a PodRecord) -> Option<&'a str> {
    let of_object = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let phase = record.reported.phase.as_deref().or(of_object)?;
    matches!(phase, "Succeeded" | "Failed").then_some(phase)
}

/// Whether a container that ended starts again: sidecars always; an init container until it succeeds, unless the pod never
/// restarts; an app container by its own rules and policy, else by the pod's; an ephemeral one never.
fn restarts(pod: &Pod, container: &Container, kind: ContainerKind, exit: &Exit) -> bool {
    let code = exit.how.exit_code();
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    match kind {
        ContainerKind::Sidecar => return true,
        ContainerKind::Ephemeral => return false,
        ContainerKind::Init | ContainerKind::App => {}
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        let matches = if codes.operator == "NotIn" { !listed } else { listed };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    let policy = container.restart_policy.as_deref().unwrap_or(of_pod);
    match (policy, kind) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, ContainerKind::Init) => code != 0,
        _ => true,
    }
}
