//! The life of a pod as decisions: what to start now, what to wait for and until when, and the status to report. The
//! agent keeps a [`PodRecord`] of what it saw, and asks again at every event; time comes in as an argument.

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    jiff::{SignedDuration, Timestamp},
};

use crate::security_context::ContainerKind;

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
    /// Delay after the last exit; zero before the first restart.
    pub delay: SignedDuration,
    /// When the delay was last raised.
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

/// What to do now with the pod.
pub fn decide(pod: &Pod, record: &PodRecord, now: Timestamp) -> Decision {
    let _ = (pod, record, now);
    todo!()
}

/// To be called when a container exits, with the back-off from before: raises it.
pub fn after_exit(back_off: BackOff, exit: &Exit) -> BackOff {
    let _ = (back_off, exit);
    todo!()
}

/// The whole status to report.
pub fn status(pod: &Pod, record: &PodRecord, now: Timestamp) -> PodStatus {
    let _ = (pod, record, now);
    todo!()
}
