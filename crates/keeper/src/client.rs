//! Starting a keeper, and a blocking client for one: what tests and small tools use. The agent has its own async
//! client on the same [`crate::frame`] functions.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::frame::{self, Decoder, FrameError};
use crate::protocol::{Event, Failure, FromKeeper, Reply, Request, SandboxPlan, ToKeeper};

/// Why talking to a keeper failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("keeper {path}: {error}")]
    Spawn { path: String, error: std::io::Error },
    #[error("keeper socket {path}: {error}")]
    Connect { path: String, error: std::io::Error },
    #[error("keeper connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("keeper connection: {0}")]
    Frame(#[from] FrameError),
    #[error("the keeper closed the connection")]
    Closed,
    #[error("{0}")]
    Failed(Failure),
}

/// The keeper's program: a file, or a sealed memfd that holds it.
#[derive(Clone, Copy, Debug)]
pub enum Executable<'a> {
    Path(&'a Path),
    /// Close-on-exec is fine: the kernel opens it before it closes descriptors.
    Fd(BorrowedFd<'a>),
}

/// Starts a keeper. The stream is its first client's connection (the keeper has it as its stdin) and blocking;
/// nothing is asked yet: the first request must be `Sandbox`.
///
/// The keeper makes its own session and outlives the caller; the caller reaps it while it lives. It says on the caller's stderr why it ended
/// where that was not asked for.
///
/// # Errors
/// The socket pair's or the program's.
pub fn start(executable: Executable<'_>) -> Result<(Child, UnixStream), ClientError> {
    let path = match executable {
        Executable::Path(path) => path.to_path_buf(),
        Executable::Fd(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
    };
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(&path)
        .arg0("keeper")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| ClientError::Spawn { path: path.display().to_string(), error })?;
    Ok((child, ours))
}

/// [`start`], then sends the `Sandbox` request with id 0; its reply is yet to be read from the stream.
///
/// # Errors
/// As [`start`].
pub fn spawn(executable: Executable<'_>, plan: &SandboxPlan) -> Result<(Child, UnixStream), ClientError> {
    let (child, stream) = start(executable)?;
    let request = ToKeeper { id: 0, fds: 0, request: Request::Sandbox(Box::new(plan.clone())) };
    frame::send_all(&stream, &frame::encode(&request)?, &[])?;
    Ok((child, stream))
}

/// A blocking client.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    waiting: VecDeque<(FromKeeper, Vec<OwnedFd>)>,
    last_id: u64,
}

impl Client {
    /// Speaks on a connection that [`start`] or [`spawn`] returned.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::default(), waiting: VecDeque::new(), last_id: 0 }
    }

    /// Connects to a running keeper.
    ///
    /// # Errors
    /// When nobody listens there, or we may not connect.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        UnixStream::connect(socket)
            .map(Self::new)
            .map_err(|error| ClientError::Connect { path: socket.display().to_string(), error })
    }

    /// Sends a request and waits for its (first) reply. A `Failed` reply is an error.
    ///
    /// # Errors
    /// The connection's, or the keeper's answer.
    pub fn request(
        &mut self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(u64, Reply, Vec<OwnedFd>), ClientError> {
        self.last_id += 1;
        let id = self.last_id;
        let frame = frame::encode(&ToKeeper { id, fds: fds.len(), request })?;
        frame::send_all(self.stream.as_fd(), &frame, fds)?;
        let (reply, fds) = self.reply(id)?;
        Ok((id, reply, fds))
    }

    /// Waits for the next reply with this id.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn reply(&mut self, id: u64) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let (message, fds) =
            self.wait(|message| message.id == id && !matches!(message.reply, Reply::Event(_)))?;
        match message.reply {
            Reply::Failed(failure) => Err(ClientError::Failed(failure)),
            reply => Ok((reply, fds)),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The connection's.
    pub fn event(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Reply::Event(event) =
                self.wait(|message| matches!(message.reply, Reply::Event(_)))?.0.reply
            {
                return Ok(event);
            }
        }
    }

    fn wait(
        &mut self,
        wanted: impl Fn(&FromKeeper) -> bool,
    ) -> Result<(FromKeeper, Vec<OwnedFd>), ClientError> {
        if let Some(at) = self.waiting.iter().position(|(message, _)| wanted(message)) {
            return self.waiting.remove(at).ok_or(ClientError::Closed);
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            while let Some((message, fds)) = self.decoder.next_frame::<FromKeeper>()? {
                if wanted(&message) {
                    return Ok((message, fds));
                }
                self.waiting.push_back((message, fds));
            }
            let (read, fds) = frame::recv(&self.stream, &mut buffer)?;
            if read == 0 {
                return Err(ClientError::Closed);
            }
            self.decoder.push(&buffer[..read], fds);
        }
    }
}
