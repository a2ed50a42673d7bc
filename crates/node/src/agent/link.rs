//! The connection to a pod's keeper: requests with their replies, descriptors both ways, and the keeper's events.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use keeper::protocol::{
    ContainerId, ContainerPlan, Event, ExecPlan, Exit, Failure, FromKeeper, KeeperState, MAX_FDS, MAX_FRAME,
    Reply, Request, SandboxPlan, TerminalOf, TerminalSize, ToKeeper, UnixNanos,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::Interest,
    net::UnixStream as Socket,
    sync::{mpsc, oneshot},
};

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Refused(#[from] Failure),
    #[error("the pod's keeper is gone")]
    Gone,
    #[error("the keeper's socket: {0}")]
    Io(#[from] io::Error),
    #[error("the keeper answered something else than was asked")]
    Unexpected,
}

/// A reply and the descriptors that came with it.
type Answer = Result<(Reply, Vec<OwnedFd>), LinkError>;

struct Call {
    request: Request,
    fds: Vec<OwnedFd>,
    reply: oneshot::Sender<Answer>,
    /// For `Exec`: how the process ended.
    exited: Option<oneshot::Sender<Exit>>,
}

/// A handle on the connection; cheap to clone. The connection closes with the last one.
#[derive(Clone)]
pub struct Link {
    calls: mpsc::Sender<Call>,
}

/// What a started container's request answered.
pub struct Started {
    pub pid: i32,
    pub started_at: UnixNanos,
    pub warnings: Vec<String>,
}

/// A process in a container, as `kubectl exec` made it.
pub struct Exec {
    pub number: u64,
    /// [stdin, stdout, stderr], or [terminal].
    pub fds: Vec<OwnedFd>,
    pub exited: oneshot::Receiver<Exit>,
}

impl Link {
    /// Speaks on `stream`. Events come on the returned queue once [`Link::subscribe`] was answered; the queue ends when
    /// the keeper is gone.
    pub fn open(stream: UnixStream) -> Result<(Link, mpsc::Receiver<Event>), LinkError> {
        stream.set_nonblocking(true)?;
        let socket = Socket::from_std(stream)?;
        let (calls, queue) = mpsc::channel(64);
        let (events, received) = mpsc::channel(256);
        tokio::spawn(async move {
            let mut connection = Connection::new(socket, events);
            if let Err(error) = connection.run(queue).await
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                eprintln!("the keeper's socket: {error}");
            }
        });
        Ok((Link { calls }, received))
    }

    pub async fn subscribe(&self) -> Result<(), LinkError> {
        self.done(Request::Subscribe).await
    }

    async fn call(&self, request: Request, fds: Vec<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>), LinkError> {
        self.call_with_exit(request, fds, None).await
    }

    async fn call_with_exit(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
        exited: Option<oneshot::Sender<Exit>>,
    ) -> Result<(Reply, Vec<OwnedFd>), LinkError> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request, fds, reply, exited }).await.map_err(|_| LinkError::Gone)?;
        match answer.await.map_err(|_| LinkError::Gone)?? {
            (Reply::Failed(failure), _) => Err(failure.into()),
            answer => Ok(answer),
        }
    }

    /// Makes the sandbox; the descriptors are the pod's network namespace and a route socket inside, if it has its own.
    pub async fn sandbox(&self, plan: SandboxPlan) -> Result<(Vec<String>, Vec<OwnedFd>), LinkError> {
        match self.call(Request::Sandbox(Box::new(plan)), Vec::new()).await? {
            (Reply::SandboxReady { warnings, .. }, fds) => Ok((warnings, fds)),
            _ => Err(LinkError::Unexpected),
        }
    }

    pub async fn run(&self, plan: ContainerPlan, fds: Vec<OwnedFd>) -> Result<Started, LinkError> {
        match self.call(Request::Run(Box::new(plan)), fds).await?.0 {
            Reply::Started { pid, started_at, warnings } => Ok(Started { pid, started_at, warnings }),
            _ => Err(LinkError::Unexpected),
        }
    }

    pub async fn exec(&self, plan: ExecPlan) -> Result<Exec, LinkError> {
        let (sender, exited) = oneshot::channel();
        match self.call_with_exit(Request::Exec(Box::new(plan)), Vec::new(), Some(sender)).await? {
            (Reply::ExecStarted { exec, .. }, fds) => Ok(Exec { number: exec, fds, exited }),
            _ => Err(LinkError::Unexpected),
        }
    }

    pub async fn attach(&self, container: ContainerId) -> Result<Vec<OwnedFd>, LinkError> {
        match self.call(Request::Attach { container }, Vec::new()).await? {
            (Reply::Attached, fds) => Ok(fds),
            _ => Err(LinkError::Unexpected),
        }
    }

    pub async fn state(&self) -> Result<KeeperState, LinkError> {
        match self.call(Request::State, Vec::new()).await?.0 {
            Reply::State(state) => Ok(state),
            _ => Err(LinkError::Unexpected),
        }
    }

    async fn done(&self, request: Request) -> Result<(), LinkError> {
        match self.call(request, Vec::new()).await?.0 {
            Reply::Done => Ok(()),
            _ => Err(LinkError::Unexpected),
        }
    }

    pub async fn signal(&self, container: ContainerId, signal: i32) -> Result<(), LinkError> {
        self.done(Request::Signal { container, signal }).await
    }
    pub async fn kill(&self, container: ContainerId) -> Result<(), LinkError> {
        self.done(Request::Kill { container }).await
    }
    pub async fn resize(&self, target: TerminalOf, size: TerminalSize) -> Result<(), LinkError> {
        self.done(Request::Resize { target, size }).await
    }
    pub async fn kill_exec(&self, exec: u64) -> Result<(), LinkError> {
        self.done(Request::KillExec { exec }).await
    }
    pub async fn remove(&self, container: ContainerId) -> Result<(), LinkError> {
        self.done(Request::Remove { container }).await
    }
    pub async fn stop(&self) -> Result<(), LinkError> {
        self.done(Request::Stop).await
    }
}

struct Pending {
    reply: Option<oneshot::Sender<Answer>>,
    exited: Option<oneshot::Sender<Exit>>,
}

struct Connection {
    socket: Socket,
    events: mpsc::Sender<Event>,
    pending: HashMap<u64, Pending>,
    next: u64,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Connection {
    fn new(socket: Socket, events: mpsc::Sender<Event>) -> Connection {
        Connection {
            socket,
            events,
            pending: HashMap::new(),
            next: 1,
            input: Vec::new(),
            fds: VecDeque::new(),
        }
    }

    async fn run(&mut self, mut calls: mpsc::Receiver<Call>) -> io::Result<()> {
        loop {
            tokio::select! {
                call = calls.recv() => match call {
                    Some(call) => self.send(call).await?,
                    None => return Ok(()),
                },
                received = receive(&self.socket) => {
                    let (bytes, fds) = received?;
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.input.extend_from_slice(&bytes);
                    self.fds.extend(fds);
                    while let Some(frame) = self.next_frame()? {
                        self.deliver(frame).await?;
                    }
                }
            }
        }
    }

    async fn send(&mut self, call: Call) -> io::Result<()> {
        let id = self.next;
        self.next += 1;
        let frame = ToKeeper { id, fds: call.fds.len(), request: call.request };
        let body = serde_json::to_vec(&frame)?;
        if body.len() > MAX_FRAME || call.fds.len() > MAX_FDS {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the plan is too large for the keeper");
            // A caller who went away does not want the answer.
            drop(call.reply.send(Err(error.into())));
            return Ok(());
        }
        let mut bytes = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        self.pending.insert(id, Pending { reply: Some(call.reply), exited: call.exited });
        let mut rest = bytes.as_slice();
        let mut fds = call.fds;
        while !rest.is_empty() {
            self.socket.writable().await?;
            match self.socket.try_io(Interest::WRITABLE, || send(&self.socket, rest, &fds)) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    fds.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn next_frame(&mut self) -> io::Result<Option<FromKeeper>> {
        let Some((length, rest)) = self.input.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = serde_json::from_slice(body)?;
        self.input.drain(..4 + length);
        Ok(Some(frame))
    }

    async fn deliver(&mut self, frame: FromKeeper) -> io::Result<()> {
        if frame.fds > self.fds.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame without its descriptors"));
        }
        let fds = self.fds.drain(..frame.fds).collect();
        match frame.reply {
            Reply::Event(event) => {
                // The pod's worker is gone: so will this connection be.
                if self.events.send(event).await.is_err() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Reply::ExecExited { exit, .. } => {
                let waiting = self.pending.remove(&frame.id).and_then(|pending| pending.exited);
                if let Some(Err(exit)) = waiting.map(|waiting| waiting.send(exit)) {
                    eprintln!("nobody waits for an exec any more, which ended with {}", exit.code);
                }
            }
            reply => {
                let waits = matches!(reply, Reply::ExecStarted { .. });
                if let Some(pending) = self.pending.get_mut(&frame.id)
                    && let Some(sender) = pending.reply.take()
                {
                    drop(sender.send(Ok((reply, fds))));
                }
                if !waits {
                    self.pending.remove(&frame.id);
                }
            }
        }
        Ok(())
    }
}

fn send(socket: &Socket, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

async fn receive(socket: &Socket) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    loop {
        socket.readable().await?;
        let received = socket.try_io(Interest::READABLE, || {
            let mut bytes = vec![0; 64 << 10];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let message =
                recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            bytes.truncate(message.bytes);
            let mut fds = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            Ok((bytes, fds))
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}
