//! What the node agent and a keeper say to each other: the plans, the requests, the replies and the events, as data.
//! Nothing here does IO; the framing is in [`crate::frame`], a client in [`crate::client`].
//!
//! A connection is a unix stream socket. Each message is a frame: a `u32` (little endian) length, then that many bytes
//! of JSON ([`ToKeeper`] one way, [`FromKeeper`] the other). File descriptors travel by `SCM_RIGHTS` with the
//! first byte of their frame; the frame says how many there are. A reply carries the id of its request; events carry the id of
//! the `Subscribe` that asked for them. `Exec` is answered twice: `ExecStarted`, and later `ExecExited`, with the same id.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};

/// The largest frame either side accepts, in bytes. A plan with the RuntimeDefault profile is about 60 kB.
pub const MAX_FRAME: usize = 16 << 20;

/// The most file descriptors one frame carries (the kernel's `SCM_MAX_FD` is 253).
pub const MAX_FDS: usize = 200;

/// Nanoseconds since 1970 UTC, by `CLOCK_REALTIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub i64);

/// Whether a pod has a namespace of its own or lives in its node's (`hostNetwork`, `hostIPC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The keeper makes one for the pod; all its containers share it.
    Own,
    /// The namespace the keeper was started in: the node's.
    Node,
}

/// Which PID namespace the containers of a pod live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Each container is PID 1 of its own namespace: the default.
    PerContainer,
    /// One for the pod: `shareProcessNamespace`.
    Pod,
    /// The node's: `hostPID`.
    Node,
}

/// The pod a keeper keeps, by the words of its API object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// The namespaces, the cgroup and the directories a pod's containers share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxPlan {
    pub pod: PodRef,
    /// Set in the pod's own UTS namespace. `None` with `uts: Own` keeps the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    pub net: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts: NamespaceMode,
    pub pid: PidMode,
    /// The pod's cgroup below each hierarchy's mount, relative: `cofferdam-<id>/node-1/pod<uid>`. A container's is
    /// `<cgroup>/<container>_<attempt>`.
    pub cgroup: PathBuf,
    /// Limits of the pod as a whole (`None`: none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<LinuxResources>,
    /// Written below `/proc/sys` inside the pod's namespaces before anything runs: name (`net.ipv4.ip_forward`) → value.
    /// One that belongs to a namespace the pod does not own is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Size limit of the `/dev/shm` that the pod's containers share, in bytes. `None`: 64 MiB, as containerd does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// Where the keeper listens for further clients. An existing socket there is replaced.
    pub socket: PathBuf,
    /// A directory of this keeper's own (made with mode 0700 if missing): each container is recorded here as
    /// `containers/<container>_<attempt>.json` ([`ContainerState`], at its start and its exit), and containers' roots are mounted on it, in
    /// their own mount namespaces only.
    pub state_dir: PathBuf,
}

/// What a container's root is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay that the keeper mounts. `upper` and `work` are made (mode 0755, 0700) if missing; `lower` is top first.
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A directory that is the root as it stands.
    Path(PathBuf),
}

/// One container: what runs is the OCI `spec`; beside it stands what a `Spec` cannot say.
///
/// Of the `spec`: `root.path`, `linux.cgroupsPath` and the presence of namespaces with a path are not read (the sandbox and
/// `rootfs` decide); `root.readonly`, `process`, `mounts`, `hostname`, `linux.*` are. A mount whose `source` is `fd:N` is bound
/// from the N-th descriptor attached to the `Run` frame (an `O_PATH` descriptor will do).
/// What the keeper does not carry out (hooks, user namespaces, Intel RDT, …) it refuses by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub name: String,
    /// The restart count: together with `name` it identifies the container.
    pub attempt: u32,
    pub spec: Spec,
    pub rootfs: Rootfs,
    /// CRI log file; its directory is made if missing. `None`: output is read and thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<PathBuf>,
    /// A terminal as the container's stdin, stdout and stderr.
    #[serde(default)]
    pub tty: bool,
    /// Keep stdin open for `Attach`; else it is /dev/null.
    #[serde(default)]
    pub stdin: bool,
    /// Close stdin when the first attached client closes its end.
    #[serde(default)]
    pub stdin_once: bool,
    /// The termination message file on the host's side. The keeper only hands it back in [`ContainerState`]; the agent mounts it
    /// by a `Spec` mount and reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_log: Option<PathBuf>,
}

/// Names one run of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    pub name: String,
    pub attempt: u32,
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.name, self.attempt)
    }
}

/// Who an exec'd process is, where not who the container's process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecUser {
    pub uid: u32,
    pub gid: u32,
    /// All supplementary groups; the primary gid is added if it is not among them (CVE-2022-2989).
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// A further process in a running container (`kubectl exec`, exec probes).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecPlan {
    pub container: ContainerId,
    pub argv: Vec<String>,
    /// `NAME=value`, added to (and overriding) the container's own environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// `None`: the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// `None`: the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<ExecUser>,
    #[serde(default)]
    pub tty: bool,
    /// Without a tty: whether the client will write to stdin. If not, stdin is /dev/null and the reply has no stdin descriptor
    /// in use (it is a closed pipe's write end).
    #[serde(default)]
    pub stdin: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<TerminalSize>,
}

/// A frame from a client to a keeper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToKeeper {
    /// Chosen by the client; replies repeat it.
    pub id: u64,
    /// How many file descriptors come with the frame.
    #[serde(default)]
    pub fds: usize,
    pub request: Request,
}

/// What a client may ask. The first on a new keeper is `Sandbox`; all others then answer `Failed` with stage `Request` before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// → `SandboxReady`. Asked again with the same plan it answers the same (a restarted agent).
    Sandbox(Box<SandboxPlan>),
    /// → `Started` after the container's exec has succeeded and was verified, or `Failed`. Descriptors: the sources `fd:N`.
    Run(Box<ContainerPlan>),
    /// Sends a signal to the container's first process → `Done`.
    Signal { container: ContainerId, signal: i32 },
    /// SIGKILL to everything in the container → `Done`. The exit comes as an event.
    Kill { container: ContainerId },
    /// → `ExecStarted` with descriptors [stdin, stdout, stderr], or [terminal] with a tty; later `ExecExited` with the same id.
    /// Should the client's connection go, the process goes on; its exit is then recorded nowhere.
    Exec(Box<ExecPlan>),
    /// The terminal of a container, or of the exec whose `ExecStarted` had this number → `Done`.
    Resize { target: TerminalOf, size: TerminalSize },
    /// Kills an exec'd process → `Done`.
    KillExec { exec: u64 },
    /// → `Attached` with descriptors [stdin, stdout, stderr]; with a tty [stdin, stdout] (write only the first). Output begins
    /// with what the container writes from now on. stdin is a closed pipe where the container has none.
    Attach { container: ContainerId },
    /// → `State`.
    State,
    /// → `Done`, then `Event`s with this id until the connection ends. A client that does not read is disconnected.
    Subscribe,
    /// Opens the container's log file anew (after a rotation) → `Done`.
    ReopenLog { container: ContainerId },
    /// Forgets an exited container and its recorded exit → `Done`. A running one is an error.
    Remove { container: ContainerId },
    /// Kills everything, removes the pod's cgroups and the socket → `Done`, and the keeper exits 0.
    Stop,
}

/// Which terminal `Resize` means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalOf {
    Container(ContainerId),
    Exec(u64),
}

/// A frame from a keeper to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FromKeeper {
    /// The id of the request this answers, or of the `Subscribe` this event is for.
    pub id: u64,
    /// How many file descriptors come with the frame.
    #[serde(default)]
    pub fds: usize,
    pub reply: Reply,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one reply at a time, moved once")]
pub enum Reply {
    /// With `net: Own`, descriptors [network namespace, a NETLINK_ROUTE socket opened inside it]; else none. `lo` is up.
    SandboxReady {
        keeper_pid: i32,
        warnings: Vec<String>,
    },
    /// The container's first process runs what the plan says, as the plan says. `warnings` names what the machine would not
    /// give (e.g. a lower oom_score_adj without CAP_SYS_RESOURCE).
    Started {
        pid: i32,
        started_at: UnixNanos,
        warnings: Vec<String>,
    },
    /// Descriptors as `Exec` says. `exec` names this exec in `Resize` and `KillExec`.
    ExecStarted {
        exec: u64,
        pid: i32,
    },
    ExecExited {
        exec: u64,
        exit: Exit,
    },
    /// Descriptors as `Attach` says.
    Attached,
    State(KeeperState),
    Done,
    Event(Event),
    /// Nothing of the request has taken effect.
    Failed(Failure),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub stage: Stage,
    /// For people: names the system call, the path or field, and the errno. For stage `Exec` worded as containerd and runc do:
    /// `exec: "foo": executable file not found in $PATH`.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.stage {
            // runc's words for these need no prefix.
            Stage::Exec => f.write_str(&self.message),
            stage => write!(f, "{}: {}", stage.word(), self.message),
        }
    }
}

impl std::error::Error for Failure {}

/// The ordered stages of a launch; a failure names the one it happened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The request itself: unknown container, wrong order, a name already taken.
    Request,
    /// The plan asks for something the keeper does not do, or contradicts itself; the message names the field.
    Plan,
    Sandbox,
    Cgroup,
    Namespaces,
    Rootfs,
    Mounts,
    Devices,
    Paths,
    Credentials,
    Seccomp,
    /// The program: not found, not executable, wrong format; the working directory. Kubernetes: StartError, exit code 128.
    Exec,
    /// What the kernel says of the process after its exec differs from the plan; it was killed.
    Verify,
    Log,
}

impl Stage {
    /// The stage as it stands in messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Plan => "plan",
            Self::Sandbox => "sandbox",
            Self::Cgroup => "cgroup",
            Self::Namespaces => "namespaces",
            Self::Rootfs => "root file system",
            Self::Mounts => "mounts",
            Self::Devices => "devices",
            Self::Paths => "masked and read-only paths",
            Self::Credentials => "credentials",
            Self::Seccomp => "seccomp",
            Self::Exec => "exec",
            Self::Verify => "verification after exec",
            Self::Log => "log",
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, or 128 + signal as Kubernetes shows it.
    pub code: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The memory cgroup's OOM killer killed something of this container: reason `OOMKilled`.
    pub oom_killed: bool,
    pub finished_at: UnixNanos,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerPhase {
    Running,
    Exited(Exit),
}

/// One container as its keeper knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub container: ContainerId,
    /// In the keeper's PID namespace: the node's.
    pub pid: i32,
    pub started_at: UnixNanos,
    pub phase: ContainerPhase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_path: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_log: Option<PathBuf>,
    /// The container's cgroup, relative to each hierarchy's mount.
    pub cgroup: PathBuf,
    pub tty: bool,
}

/// Everything a restarted agent needs to take a pod over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeeperState {
    pub keeper_pid: i32,
    /// `None`: no `Sandbox` yet.
    pub sandbox: Option<SandboxPlan>,
    /// Ordered by name and attempt. Exited ones stay until `Remove`.
    pub containers: Vec<ContainerState>,
}

/// What subscribers hear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Started(ContainerState),
    /// `phase` is `Exited`. All of the container's output is in its log, and nothing of it runs any more.
    Exited(ContainerState),
    /// The log of a container could not be written: `lost` bytes are gone so far. Sent at the first failure and when writing works again.
    /// Also when something of a container's end could not be cleaned up (`message` says what).
    LogTrouble {
        container: ContainerId,
        message: String,
        lost: u64,
    },
}
