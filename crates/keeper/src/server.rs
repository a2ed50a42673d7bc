//! The keeper's loop: one thread, one epoll. Children's ends, clients' requests and containers' output are events; each is handled
//! to its end before the next.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use keeper::protocol::{
    ContainerId, Event, Failure, KeeperState, Reply, Request, Stage, TerminalOf, TerminalSize, ToKeeper,
};
use kernel::process::{self, ChildStatus};
use kernel::{CallError, Named, fds};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Pid;

use crate::client_connection::{Connection, Gone};
use crate::container::{Container, Machine, exit_of};
use crate::launch::At;
use crate::logs::Written;
use crate::sandbox::Sandbox;

/// What a wake-up is about.
#[derive(Clone, Debug)]
enum Source {
    Signals,
    Listener,
    Client,
    Output(ContainerId, usize),
}

/// A process that a client runs in a container.
#[derive(Debug)]
struct Exec {
    client: u64,
    request: u64,
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    signals: OwnedFd,
    listener: Option<UnixListener>,
    sources: BTreeMap<u64, Source>,
    clients: BTreeMap<u64, Connection>,
    containers: BTreeMap<ContainerId, Container>,
    execs: BTreeMap<u64, Exec>,
    sandbox: Option<Sandbox>,
    machine: Machine,
    last_token: u64,
    last_exec: u64,
    /// Who asked for the end, if a client did.
    stopping: Option<Option<(u64, u64)>>,
    /// A sandbox that could not be made leaves this process half moved: it ends.
    broken: bool,
}

fn unknown(what: impl std::fmt::Display) -> Failure {
    Failure { stage: Stage::Request, message: format!("{what}: not found") }
}

impl Server {
    /// `first` is the connection the keeper was started with.
    pub fn new(first: OwnedFd, signals: OwnedFd, machine: Machine) -> Result<Self, CallError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).named("epoll_create1", "")?;
        let mut server = Self {
            epoll,
            signals,
            listener: None,
            sources: BTreeMap::new(),
            clients: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            sandbox: None,
            machine,
            last_token: 0,
            last_exec: 0,
            stopping: None,
            broken: false,
        };
        let token = server.token(Source::Signals);
        epoll::add(&server.epoll, &server.signals, EventData::new_u64(token), EventFlags::IN)
            .named("epoll_ctl", "signals")?;
        server.add_client(first)?;
        Ok(server)
    }

    fn token(&mut self, source: Source) -> u64 {
        self.last_token += 1;
        self.sources.insert(self.last_token, source);
        self.last_token
    }

    fn add_client(&mut self, socket: OwnedFd) -> Result<(), CallError> {
        rustix::io::ioctl_fionbio(&socket, true).named("ioctl", "FIONBIO")?;
        let token = self.token(Source::Client);
        epoll::add(&self.epoll, &socket, EventData::new_u64(token), EventFlags::IN)
            .named("epoll_ctl", "client")?;
        self.clients.insert(token, Connection::new(socket));
        Ok(())
    }

    /// Serves until the end is asked for, or there is nobody left to serve.
    pub fn run(&mut self) -> Result<(), CallError> {
        let mut events = Vec::with_capacity(16);
        loop {
            if self.is_done()? {
                return Ok(());
            }
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(CallError::new("epoll_wait", "", errno)),
            }
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                match self.sources.get(&token).cloned() {
                    Some(Source::Signals) => self.on_signals()?,
                    Some(Source::Listener) => self.on_connect()?,
                    Some(Source::Client) => self.on_client(token, flags)?,
                    Some(Source::Output(id, index)) => self.on_output(token, &id, index)?,
                    // Gone since the kernel told us.
                    None => {}
                }
            }
        }
    }

    /// Whether the loop ends here; does what is left to do then.
    fn is_done(&mut self) -> Result<bool, CallError> {
        if self.broken || (self.sandbox.is_none() && self.clients.is_empty()) {
            return Ok(true);
        }
        let Some(asked) = self.stopping else { return Ok(false) };
        if !self.execs.is_empty() || self.containers.values().any(Container::is_running) {
            return Ok(false);
        }
        let mut reply = Reply::Done;
        if let Some(sandbox) = &mut self.sandbox {
            if let Err(failure) = sandbox.remove() {
                reply = Reply::Failed(failure);
            }
            match rustix::fs::unlink(&sandbox.plan.socket) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => {
                    let path = sandbox.plan.socket.display().to_string();
                    reply = Reply::Failed(Failure {
                        stage: Stage::Sandbox,
                        message: CallError::new("unlink", path, errno).to_string(),
                    });
                }
            }
        }
        if let Some((client, id)) = asked {
            self.answer(client, id, reply, Vec::new())?;
        }
        Ok(true)
    }

    fn on_signals(&mut self) -> Result<(), CallError> {
        while let Some(signal) = process::read_signal(&self.signals)? {
            if signal != libc_sigchld() && self.stopping.is_none() {
                self.stop(None)?;
            }
        }
        while let Some((pid, status)) = process::reap_any()? {
            if !matches!(status, ChildStatus::Exited(_) | ChildStatus::Signaled(_)) {
                continue;
            }
            if let Some(container) = self.containers.values_mut().find(|c| c.pid == pid && c.ending.is_none())
            {
                container.ending = Some(status);
            } else if let Some(number) = self.execs.iter().find(|(_, exec)| exec.pid == pid).map(|(n, _)| *n)
                && let Some(exec) = self.execs.remove(&number)
            {
                let reply = Reply::ExecExited { exec: number, exit: exit_of(status, false) };
                self.answer(exec.client, exec.request, reply, Vec::new())?;
            }
        }
        self.conclude()
    }

    /// Concludes the containers whose first process has ended and of which nothing is left.
    fn conclude(&mut self) -> Result<(), CallError> {
        let ended: Vec<(ContainerId, ChildStatus)> = self
            .containers
            .values()
            .filter(|container| container.exit.is_none())
            .filter_map(|container| Some((container.id.clone(), container.ending?)))
            .collect();
        for (id, status) in ended {
            let Some(container) = self.containers.get_mut(&id) else { continue };
            let outcome = match container.is_over() {
                Ok(false) => continue,
                Ok(true) => container.conclude(status),
                Err(failure) => container.conclude(status).and(Err(failure)),
            };
            let (state, lost) = (container.state(), 0);
            self.sources.retain(|_, source| !matches!(source, Source::Output(of, _) if *of == id));
            if let Err(failure) = outcome {
                self.tell(&Event::LogTrouble { container: id, message: failure.to_string(), lost })?;
            }
            self.tell(&Event::Exited(state))?;
        }
        Ok(())
    }

    fn on_connect(&mut self) -> Result<(), CallError> {
        let Some(listener) = &self.listener else { return Ok(()) };
        match listener.accept() {
            Ok((stream, _)) => {
                let socket = OwnedFd::from(stream);
                if Connection::is_nodes_root(&socket).named("getsockopt", "SO_PEERCRED")? {
                    self.add_client(socket)?;
                }
                Ok(())
            }
            // It has gone again, or a descriptor is wanting: the next one is served.
            Err(_) => Ok(()),
        }
    }

    fn on_client(&mut self, token: u64, flags: EventFlags) -> Result<(), CallError> {
        let Some(client) = self.clients.get_mut(&token) else { return Ok(()) };
        if flags.contains(EventFlags::OUT)
            && let Err(gone) = client.flush()
        {
            return self.drop_client(token, &gone);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match client.receive() {
                Ok(requests) => {
                    for (request, fds) in requests {
                        self.handle(token, request, fds)?;
                    }
                }
                Err(gone) => return self.drop_client(token, &gone),
            }
        }
        self.watch_client(token)
    }

    /// Asks to be woken for writing only while something waits.
    fn watch_client(&self, token: u64) -> Result<(), CallError> {
        let Some(client) = self.clients.get(&token) else { return Ok(()) };
        let flags = if client.is_waiting() { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, &client.socket, EventData::new_u64(token), flags)
            .named("epoll_ctl", "client")
    }

    fn drop_client(&mut self, token: u64, _why: &Gone) -> Result<(), CallError> {
        self.sources.remove(&token);
        if let Some(client) = self.clients.remove(&token) {
            epoll::delete(&self.epoll, &client.socket).named("epoll_ctl", "client")?;
        }
        // The terminals it had are hung up: their programs hear SIGHUP.
        for exec in self.execs.values_mut().filter(|exec| exec.client == token) {
            exec.terminal = None;
        }
        Ok(())
    }

    fn answer(&mut self, client: u64, id: u64, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), CallError> {
        let Some(connection) = self.clients.get_mut(&client) else { return Ok(()) };
        match connection.send(id, reply, fds) {
            Ok(()) => self.watch_client(client),
            Err(gone) => self.drop_client(client, &gone),
        }
    }

    fn tell(&mut self, event: &Event) -> Result<(), CallError> {
        let subscribers: Vec<(u64, u64)> =
            self.clients.iter().filter_map(|(token, client)| Some((*token, client.subscription?))).collect();
        for (token, id) in subscribers {
            self.answer(token, id, Reply::Event(event.clone()), Vec::new())?;
        }
        Ok(())
    }

    fn on_output(&mut self, token: u64, id: &ContainerId, index: usize) -> Result<(), CallError> {
        let Some(container) = self.containers.get_mut(id) else {
            self.sources.remove(&token);
            return Ok(());
        };
        // Closing the descriptor takes it off the epoll.
        let (ended, told) = match container.pump(index, false) {
            Ok(pumped) => pumped,
            Err(failure) => (true, Written::Failing { message: failure.to_string(), lost: 0 }),
        };
        if ended {
            self.sources.remove(&token);
        }
        let event = match told {
            Written::Well | Written::StillFailing => return Ok(()),
            Written::Recovered { lost } => (String::from("the log can be written again"), lost),
            Written::Failing { message, lost } => (message, lost),
        };
        self.tell(&Event::LogTrouble { container: id.clone(), message: event.0, lost: event.1 })
    }

    fn stop(&mut self, asked: Option<(u64, u64)>) -> Result<(), CallError> {
        self.stopping = Some(asked);
        let mut failed = None;
        for container in self.containers.values().filter(|container| container.is_running()) {
            if let Err(failure) = container.kill() {
                failed = Some(failure);
            }
        }
        if let (Some(failure), Some((client, id))) = (failed, asked) {
            self.stopping = None;
            self.answer(client, id, Reply::Failed(failure), Vec::new())?;
        }
        Ok(())
    }

    fn handle(&mut self, client: u64, message: ToKeeper, fds: Vec<OwnedFd>) -> Result<(), CallError> {
        let id = message.id;
        let started = match message.request {
            Request::Sandbox(plan) => self.make_sandbox(*plan),
            Request::Stop => return self.stop(Some((client, id))),
            Request::Subscribe => {
                if let Some(connection) = self.clients.get_mut(&client) {
                    connection.subscription = Some(id);
                }
                Ok((Reply::Done, Vec::new()))
            }
            Request::State => Ok((Reply::State(self.state()), Vec::new())),
            Request::Run(plan) => match self.run_container(*plan, &fds) {
                Ok((reply, state)) => {
                    self.answer(client, id, reply, Vec::new())?;
                    return self.tell(&Event::Started(state));
                }
                Err(failure) => Err(failure),
            },
            Request::Exec(plan) => self.exec(client, id, &plan),
            Request::Signal { container, signal } => {
                self.running(&container).and_then(|container| container.signal(signal)).map(done)
            }
            Request::Kill { container } => {
                self.running(&container).and_then(|container| container.kill()).map(done)
            }
            Request::KillExec { exec } => match self.execs.get(&exec) {
                Some(found) => process::send_signal(&found.pidfd, 9).at(Stage::Request).map(done),
                None => Err(unknown(format!("exec {exec}"))),
            },
            Request::Resize { target, size } => self.resize(&target, size).map(done),
            Request::Attach { container } => self
                .running(&container)
                .and_then(|container| container.attach())
                .map(|fds| (Reply::Attached, fds)),
            Request::ReopenLog { container } => match self.containers.get_mut(&container) {
                Some(found) => found.reopen_log().map(done),
                None => Err(unknown(container)),
            },
            Request::Remove { container } => self.remove(&container).map(done),
        };
        let (reply, fds) = started.unwrap_or_else(|failure| (Reply::Failed(failure), Vec::new()));
        self.answer(client, id, reply, fds)
    }

    fn state(&self) -> KeeperState {
        KeeperState {
            keeper_pid: rustix::process::getpid().as_raw_nonzero().get(),
            sandbox: self.sandbox.as_ref().map(|sandbox| sandbox.plan.clone()),
            containers: self.containers.values().map(Container::state).collect(),
        }
    }

    fn make_sandbox(
        &mut self,
        plan: keeper::protocol::SandboxPlan,
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        let keeper_pid = rustix::process::getpid().as_raw_nonzero().get();
        if let Some(sandbox) = &self.sandbox {
            if sandbox.plan != plan {
                let message = "this keeper keeps another sandbox already".into();
                return Err(Failure { stage: Stage::Request, message });
            }
            return Ok((Reply::SandboxReady { keeper_pid, warnings: Vec::new() }, sandbox.descriptors()?));
        }
        let made = Sandbox::make(plan).and_then(|sandbox| {
            let listener = listen(&sandbox.plan.socket).at(Stage::Sandbox)?;
            Ok((sandbox.descriptors()?, sandbox, listener))
        });
        let (fds, sandbox, listener) = match made {
            Ok(made) => made,
            Err(failure) => {
                self.broken = true;
                return Err(failure);
            }
        };
        let token = self.token(Source::Listener);
        epoll::add(&self.epoll, &listener, EventData::new_u64(token), EventFlags::IN)
            .named("epoll_ctl", "listener")
            .at(Stage::Sandbox)?;
        self.listener = Some(listener);
        self.sandbox = Some(sandbox);
        Ok((Reply::SandboxReady { keeper_pid, warnings: Vec::new() }, fds))
    }

    fn run_container(
        &mut self,
        plan: keeper::protocol::ContainerPlan,
        attached: &[OwnedFd],
    ) -> Result<(Reply, keeper::protocol::ContainerState), Failure> {
        let request = |message: String| Failure { stage: Stage::Request, message };
        if self.stopping.is_some() {
            return Err(request("the keeper is stopping".into()));
        }
        let sandbox = self.sandbox.as_ref().ok_or_else(|| request("no sandbox yet".into()))?;
        let id = ContainerId { name: plan.name.clone(), attempt: plan.attempt };
        if self.containers.contains_key(&id) {
            return Err(request(format!("{id}: there is one already")));
        }
        let (container, mut warnings) = Container::launch(plan, sandbox, attached, self.machine)?;
        if let Err(error) = container.write_record() {
            warnings.push(format!("its state is not recorded: {error}"));
        }
        let state = container.state();
        for index in 0..container.outputs.len() {
            let token = self.token(Source::Output(id.clone(), index));
            if let Some(fd) = container.outputs.get(index).and_then(|output| output.fd.as_ref()) {
                epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)
                    .named("epoll_ctl", "output")
                    .at(Stage::Log)?;
            }
        }
        let reply = Reply::Started { pid: state.pid, started_at: state.started_at, warnings };
        self.containers.insert(id, container);
        Ok((reply, state))
    }

    fn exec(
        &mut self,
        client: u64,
        request: u64,
        plan: &keeper::protocol::ExecPlan,
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        let machine = self.machine;
        let no_sandbox = || Failure { stage: Stage::Request, message: "no sandbox yet".into() };
        let container = self
            .containers
            .get(&plan.container)
            .filter(|container| container.ending.is_none() && container.is_running())
            .ok_or_else(|| unknown(format!("running container {}", plan.container)))?;
        let sandbox = self.sandbox.as_ref().ok_or_else(no_sandbox)?;
        let (launched, fds) = container.exec(plan, sandbox, machine)?;
        self.last_exec += 1;
        let number = self.last_exec;
        let pid = launched.pid;
        let exec = Exec { client, request, pid, pidfd: launched.pidfd, terminal: launched.terminal };
        self.execs.insert(number, exec);
        Ok((Reply::ExecStarted { exec: number, pid: pid.as_raw_nonzero().get() }, fds))
    }

    fn running(&mut self, id: &ContainerId) -> Result<&mut Container, Failure> {
        match self.containers.get_mut(id) {
            Some(container) if container.is_running() => Ok(container),
            Some(_) => Err(Failure { stage: Stage::Request, message: format!("{id}: has exited") }),
            None => Err(unknown(id)),
        }
    }

    fn resize(&self, target: &TerminalOf, size: TerminalSize) -> Result<(), Failure> {
        let terminal = match target {
            TerminalOf::Container(id) => {
                self.containers.get(id).and_then(|container| container.terminal.as_ref())
            }
            TerminalOf::Exec(number) => self.execs.get(number).and_then(|exec| exec.terminal.as_ref()),
        };
        let terminal = terminal.ok_or_else(|| unknown("terminal"))?;
        fds::set_terminal_size(terminal, size.columns, size.rows).at(Stage::Request)
    }

    fn remove(&mut self, id: &ContainerId) -> Result<(), Failure> {
        match self.containers.get(id) {
            Some(container) if container.is_running() => {
                Err(Failure { stage: Stage::Request, message: format!("{id}: is running") })
            }
            Some(container) => {
                container.forget().at(Stage::Log)?;
                self.containers.remove(id);
                Ok(())
            }
            None => Err(unknown(id)),
        }
    }
}

fn done((): ()) -> (Reply, Vec<OwnedFd>) {
    (Reply::Done, Vec::new())
}

const fn libc_sigchld() -> i32 {
    rustix::process::Signal::CHILD.as_raw()
}

/// Listens on a path that only root may reach; replaces what a dead keeper left there.
fn listen(path: &std::path::Path) -> Result<UnixListener, CallError> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(CallError::new("unlink", path.display().to_string(), errno)),
    }
    let listener = UnixListener::bind(path).named("bind", path.display())?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600)).named("chmod", path.display())?;
    listener.set_nonblocking(true).named("ioctl", "FIONBIO")?;
    Ok(listener)
}
