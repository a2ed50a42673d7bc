//! One container as the keeper holds it: its launch, its streams and log, its end, and the record of it on disk.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use keeper::protocol::{
    ContainerId, ContainerPhase, ContainerPlan, ContainerState, ExecPlan, Exit, Failure, PidMode, Stage,
    UnixNanos,
};
use kernel::cgroup::Cgroup;
use kernel::namespace::{self, Namespace};
use kernel::process::ChildStatus;
use kernel::{CallError, Named, process};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::clock;
use crate::launch::parent::{Launch, Launched};
use crate::launch::verify::Namespaces;
use crate::launch::{At, child, exec};
use crate::logs::{Lines, Log, Stream, Written};
use crate::plan::{self, Prepared, Process};
use crate::sandbox::Sandbox;

/// A stream the keeper reads for the log.
#[derive(Debug)]
pub struct Output {
    pub stream: Stream,
    /// `None` once it has ended.
    pub fd: Option<OwnedFd>,
    lines: Lines,
    /// Copies for attached clients.
    attached: Vec<OwnedFd>,
}

#[derive(Debug)]
pub struct Container {
    pub id: ContainerId,
    pub plan: ContainerPlan,
    process: Process,
    own_cgroup_namespace: bool,
    pub cgroup: Cgroup,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    started_at: UnixNanos,
    /// How its first process ended, until nothing of it is left.
    pub ending: Option<ChildStatus>,
    pub exit: Option<Exit>,
    pub outputs: Vec<Output>,
    /// The terminal's master, or the write end of stdin.
    pub terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    log: Log,
    record: PathBuf,
}

/// A pipe, both ends close-on-exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).named("pipe2", "").at(Stage::Log)
}

fn null() -> Result<OwnedFd, Failure> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .named("open", "/dev/null")
        .at(Stage::Log)
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Failure> {
    rustix::io::ioctl_fionbio(fd, true).named("ioctl", "FIONBIO").at(Stage::Log)
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone().named("fcntl", "F_DUPFD_CLOEXEC").at(Stage::Log)
}

/// Capabilities this machine cannot give: dropped from what has all of them (privileged: "all there are", as containerd reads it) and
/// told; asked for by name they are refused.
fn available(
    process: &mut Process,
    machine: kernel::credentials::CapSet,
    last: u32,
) -> Result<Option<String>, Failure> {
    let missing = process.capabilities.permitted.union(process.capabilities.bounding).minus(machine);
    if missing.0 == 0 {
        return Ok(None);
    }
    let names: Vec<&str> = (0..=63_u32)
        .filter(|number| missing.contains(*number))
        .filter_map(|number| kernel::credentials::CAPABILITY_NAMES.get(number as usize).copied())
        .collect();
    let names = names.join(", ");
    let all = u64::MAX >> (63 - last.min(63));
    if process.capabilities.permitted.0 & all != all {
        return Err(plan::refuse(format!("process.capabilities: this machine has no {names} to give")));
    }
    let sets = &mut process.capabilities;
    for set in [
        &mut sets.effective,
        &mut sets.permitted,
        &mut sets.inheritable,
        &mut sets.bounding,
        &mut sets.ambient,
    ] {
        *set = set.minus(missing);
    }
    Ok(Some(format!(
        "capabilities {names}: this machine has none to give, not even to a privileged container"
    )))
}

/// What the machine gives, found once at the start.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub capabilities: kernel::credentials::CapSet,
    pub last_capability: u32,
}

impl Container {
    /// Launches it. On a failure nothing of it is left.
    pub fn launch(
        plan: ContainerPlan,
        sandbox: &Sandbox,
        attached: &[OwnedFd],
        machine: Machine,
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut prepared = plan::prepare(&plan, &sandbox.plan, attached.len())?;
        let missing = available(&mut prepared.process, machine.capabilities, machine.last_capability)?;
        let id = ContainerId { name: plan.name.clone(), attempt: plan.attempt };
        let log = Log::open(plan.log_path.as_deref()).at(Stage::Log)?;
        let path = sandbox.plan.cgroup.join(id.to_string());
        let cgroup = Cgroup::new(std::rc::Rc::clone(&sandbox.hierarchies), &path).at(Stage::Cgroup)?;
        let made = cgroup
            .create(&prepared.limits)
            .at(Stage::Cgroup)
            .and_then(|()| Self::start(plan, prepared, sandbox, attached, machine, id, log, cgroup.clone()));
        match made {
            Ok((container, mut warnings)) => {
                warnings.extend(missing);
                Ok((container, warnings))
            }
            Err(failure) => {
                // The failure says more than a cgroup that could not be removed.
                match cgroup.remove() {
                    Ok(()) => Err(failure),
                    Err(error) => {
                        Err(Failure { message: format!("{} (and {error})", failure.message), ..failure })
                    }
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the pieces of one launch, each made by its own step above")]
    fn start(
        plan: ContainerPlan,
        prepared: Prepared,
        sandbox: &Sandbox,
        attached: &[OwnedFd],
        machine: Machine,
        id: ContainerId,
        log: Log,
        cgroup: Cgroup,
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut outputs = Vec::new();
        let mut stdin = None;
        let stdio = if plan.tty {
            None
        } else {
            let input = if plan.stdin {
                let (read, write) = pipe()?;
                stdin = Some(write);
                read
            } else {
                null()?
            };
            let mut ends = Vec::new();
            for stream in [Stream::Stdout, Stream::Stderr] {
                let (read, write) = pipe()?;
                nonblocking(&read)?;
                outputs.push(Output {
                    stream,
                    fd: Some(read),
                    lines: Lines::default(),
                    attached: Vec::new(),
                });
                ends.push(write);
            }
            let [stdout, stderr] = <[OwnedFd; 2]>::try_from(ends)
                .map_err(|_| Failure { stage: Stage::Log, message: "two pipes".into() })?;
            Some([input, stdout, stderr])
        };
        let per_container = sandbox.plan.pid == PidMode::PerContainer;
        let mut own = vec![Namespace::Mount];
        let mut same = sandbox.shared().to_vec();
        if per_container {
            own.push(Namespace::Pid)
        } else {
            same.push(Namespace::Pid)
        }
        if prepared.own_cgroup_namespace {
            own.push(Namespace::Cgroup)
        } else {
            same.push(Namespace::Cgroup)
        }
        let launch = Launch {
            namespaces: if per_container { Namespace::Pid.flag() } else { 0 },
            cgroup: &cgroup,
            process: &prepared.process,
            expect: Namespaces { same: &same, own: &own },
            last_capability: machine.last_capability,
        };
        let launched = launch.perform(|status| {
            child::run(&child::Inheritance {
                plan: &plan,
                prepared: &prepared,
                attached,
                shm: sandbox.shm.as_ref(),
                hierarchies: &sandbox.hierarchies,
                cgroup: cgroup.path(),
                place: &sandbox.plan.state_dir,
                last_capability: machine.last_capability,
                stdio: stdio.as_ref(),
                status,
            })
        })?;
        drop(stdio);
        let Launched { pid, pidfd, terminal, warnings } = launched;
        if let Some(master) = &terminal {
            nonblocking(master)?;
            outputs.push(Output {
                stream: Stream::Stdout,
                fd: Some(duplicate(master)?),
                lines: Lines::default(),
                attached: Vec::new(),
            });
        }
        let record = sandbox.plan.state_dir.join("containers").join(format!("{id}.json"));
        let container = Self {
            id,
            plan,
            process: prepared.process,
            own_cgroup_namespace: prepared.own_cgroup_namespace,
            cgroup,
            pid,
            pidfd,
            started_at: clock::now(),
            ending: None,
            exit: None,
            outputs,
            terminal,
            stdin,
            log,
            record,
        };
        Ok((container, warnings))
    }

    pub fn state(&self) -> ContainerState {
        ContainerState {
            container: self.id.clone(),
            pid: self.pid.as_raw_nonzero().get(),
            started_at: self.started_at,
            phase: self.exit.map_or(ContainerPhase::Running, ContainerPhase::Exited),
            log_path: self.plan.log_path.clone(),
            termination_log: self.plan.termination_log.clone(),
            cgroup: self.cgroup.path().to_path_buf(),
            tty: self.plan.tty,
        }
    }

    /// Writes the state down, whole or not at all.
    pub fn write_record(&self) -> Result<(), CallError> {
        let path = &self.record;
        let json = serde_json::to_vec(&self.state())
            .map_err(|_| CallError::new("write", path.display().to_string(), Errno::INVAL))?;
        let new = path.with_extension("new");
        std::fs::write(&new, json).named("write", new.display())?;
        rustix::fs::rename(&new, path).named("rename", path.display())
    }

    /// Removes the record.
    pub fn forget(&self) -> Result<(), CallError> {
        match rustix::fs::unlink(&self.record) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(CallError::new("unlink", self.record.display().to_string(), errno)),
        }
    }

    pub fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    pub fn signal(&self, signal: i32) -> Result<(), Failure> {
        process::send_signal(&self.pidfd, signal).at(Stage::Request)
    }

    pub fn kill(&self) -> Result<(), Failure> {
        self.cgroup.kill().at(Stage::Cgroup)
    }

    /// Reads what a stream has, into the log and to attached clients. Returns whether it has ended, and what there is to tell of the log.
    pub fn pump(&mut self, index: usize, until_empty: bool) -> Result<(bool, Written), Failure> {
        let Some(output) = self.outputs.get_mut(index) else { return Ok((true, Written::Well)) };
        let mut told = Written::Well;
        let mut buffer = [0; 32 << 10];
        loop {
            let Some(fd) = &output.fd else { return Ok((true, told)) };
            let read = match rustix::io::read(fd, &mut buffer) {
                Ok(read) => read,
                Err(Errno::AGAIN) => return Ok((false, told)),
                Err(Errno::INTR) => continue,
                // A terminal whose last user has closed it.
                Err(Errno::IO) => 0,
                Err(errno) => return Err(errno).named("read", "container output").at(Stage::Log),
            };
            let mut lines = Vec::new();
            if read == 0 {
                output.lines.finish(output.stream, &mut lines);
                output.fd = None;
                output.attached.clear();
            } else {
                output.lines.push(output.stream, &buffer[..read], &mut lines);
                // A client that does not keep up is let go: it must not hold the container.
                output.attached.retain(
                    |client| matches!(rustix::io::write(client, &buffer[..read]), Ok(n) if n == read),
                );
            }
            if !lines.is_empty() {
                let outcome = self.log.write(&lines);
                if !matches!(outcome, Written::Well | Written::StillFailing) {
                    told = outcome;
                }
            }
            if !until_empty {
                return Ok((output.fd.is_none(), told));
            }
        }
    }

    /// Descriptors for a client: [stdin, stdout, stderr], or [stdin, stdout] of a terminal.
    pub fn attach(&mut self) -> Result<Vec<OwnedFd>, Failure> {
        let stdin = match (&self.terminal, &self.stdin) {
            (Some(master), _) if self.plan.stdin => duplicate(master)?,
            (None, Some(_)) if self.plan.stdin_once => match self.stdin.take() {
                Some(stdin) => stdin,
                None => pipe()?.1,
            },
            (None, Some(stdin)) => duplicate(stdin)?,
            _ => pipe()?.1,
        };
        let mut fds = vec![stdin];
        for output in &mut self.outputs {
            let (read, write) = pipe()?;
            nonblocking(&write)?;
            if output.fd.is_some() {
                // Room for a client's pause; a smaller pipe does too where the limit is lower.
                match rustix::pipe::fcntl_setpipe_size(&write, 1 << 20) {
                    Ok(_) | Err(Errno::PERM) => {}
                    Err(errno) => return Err(errno).named("fcntl", "F_SETPIPE_SZ").at(Stage::Log),
                }
                output.attached.push(write);
            }
            fds.push(read);
        }
        Ok(fds)
    }

    pub fn reopen_log(&mut self) -> Result<(), Failure> {
        self.log.reopen().at(Stage::Log)
    }

    /// Runs a further process. Returns it and the client's descriptors.
    pub fn exec(
        &self,
        plan: &ExecPlan,
        sandbox: &Sandbox,
        machine: Machine,
    ) -> Result<(Launched, Vec<OwnedFd>), Failure> {
        let process = self.exec_process(plan)?;
        let mut clients = Vec::new();
        let stdio = if plan.tty {
            None
        } else {
            let (read, write) = pipe()?;
            clients.push(write);
            let input = if plan.stdin { read } else { null()? };
            let (stdout, out) = pipe()?;
            let (stderr, err) = pipe()?;
            clients.extend([stdout, stderr]);
            Some([input, out, err])
        };
        let pid_namespace = sandbox.plan.pid == PidMode::PerContainer;
        let mut own = vec![Namespace::Mount];
        let mut same = sandbox.shared().to_vec();
        if pid_namespace {
            own.push(Namespace::Pid)
        } else {
            same.push(Namespace::Pid)
        }
        if self.own_cgroup_namespace {
            own.push(Namespace::Cgroup)
        } else {
            same.push(Namespace::Cgroup)
        }
        let launch = Launch {
            namespaces: 0,
            cgroup: &self.cgroup,
            process: &process,
            expect: Namespaces { same: &same, own: &own },
            last_capability: machine.last_capability,
        };
        let perform = || {
            launch.perform(|status| {
                exec::run(&exec::Inheritance {
                    process: &process,
                    pidfd: &self.pidfd,
                    own_cgroup_namespace: self.own_cgroup_namespace,
                    size: plan.terminal_size.map(|size| (size.columns, size.rows)),
                    stdio: stdio.as_ref(),
                    last_capability: machine.last_capability,
                    status,
                })
            })
        };
        let launched = if pid_namespace {
            // Our next children are born in the container's PID namespace; then back.
            let ours = namespace::open(None, Namespace::Pid).at(Stage::Namespaces)?;
            namespace::enter(&self.pidfd, &[Namespace::Pid]).at(Stage::Namespaces)?;
            let result = perform();
            namespace::join(&ours, Namespace::Pid).at(Stage::Namespaces)?;
            result?
        } else {
            perform()?
        };
        if let Some(master) = &launched.terminal {
            clients.push(duplicate(master)?);
        }
        Ok((launched, clients))
    }

    fn exec_process(&self, exec: &ExecPlan) -> Result<Process, Failure> {
        let mut process = self.process.clone();
        let text = |text: &String, field: &str| {
            std::ffi::CString::new(text.as_str())
                .map_err(|_| plan::refuse(format!("exec {field}: {text:?} holds a NUL")))
        };
        process.args = exec.argv.iter().map(|arg| text(arg, "argv")).collect::<Result<_, _>>()?;
        if process.args.is_empty() {
            return Err(plan::refuse("exec argv: empty"));
        }
        for entry in &exec.env {
            let name = entry.split('=').next().unwrap_or_default().len() + 1;
            let entry = text(entry, "env")?;
            process.env.retain(|had| had.as_bytes().get(..name) != entry.as_bytes().get(..name));
            process.env.push(entry);
        }
        if let Some(cwd) = &exec.cwd {
            if !cwd.is_absolute() {
                return Err(plan::refuse(format!("exec cwd {}: not absolute", cwd.display())));
            }
            process.cwd.clone_from(cwd);
        }
        if let Some(user) = &exec.user {
            process.uid = user.uid;
            process.gid = user.gid;
            process.groups = plan::with_group(user.groups.clone(), user.gid);
            plan::ids(process.uid, &process.groups)?;
        }
        process.tty = exec.tty;
        Ok(process)
    }

    /// Whether, its first process gone, nothing of it runs any more; kills what does.
    pub fn is_over(&self) -> Result<bool, Failure> {
        if self.cgroup.processes().at(Stage::Cgroup)?.is_empty() {
            return Ok(true);
        }
        self.kill()?;
        Ok(false)
    }

    /// Concludes it: the rest of its output is logged, its exit kept and recorded, its cgroup removed.
    pub fn conclude(&mut self, status: ChildStatus) -> Result<(), Failure> {
        let oom_killed = self.cgroup.oom_kills().at(Stage::Cgroup)? > 0;
        for index in 0..self.outputs.len() {
            let (ended, _) = self.pump(index, true)?;
            if !ended && let Some(output) = self.outputs.get_mut(index) {
                // Somebody outside holds the other end: what comes from there is not the container's.
                let mut lines = Vec::new();
                output.lines.finish(output.stream, &mut lines);
                output.fd = None;
                output.attached.clear();
                if self.log.write(&lines) != Written::Well {
                    continue;
                }
            }
        }
        self.terminal = None;
        self.stdin = None;
        self.exit = Some(exit_of(status, oom_killed));
        self.cgroup.remove().at(Stage::Cgroup)?;
        self.write_record().at(Stage::Log)
    }
}

/// An exit as Kubernetes shows it.
pub fn exit_of(status: ChildStatus, oom_killed: bool) -> Exit {
    let (code, signal) = match status {
        ChildStatus::Exited(code) => (code, None),
        ChildStatus::Signaled(signal) => (128 + signal, Some(signal)),
        // Not an end; never kept as one.
        _ => (255, None),
    };
    Exit { code, signal, oom_killed, finished_at: clock::now() }
}
