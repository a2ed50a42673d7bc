//! One client of the keeper: frames in, frames out, on a non-blocking socket with a bounded queue.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use keeper::frame::{self, Decoder, FrameError};
use keeper::protocol::{FromKeeper, Reply, ToKeeper};
use rustix::io::Errno;

/// The most bytes that may wait for a client; one that lets more wait is disconnected.
const MAX_WAITING: usize = 4 << 20;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    #[error("closed")]
    Closed,
    #[error("does not read")]
    TooSlow,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

#[derive(Debug)]
pub struct Connection {
    pub socket: OwnedFd,
    decoder: Decoder,
    queue: VecDeque<Outgoing>,
    waiting: usize,
    /// The id of its `Subscribe`.
    pub subscription: Option<u64>,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::default(), queue: VecDeque::new(), waiting: 0, subscription: None }
    }

    /// The requests that have come whole.
    pub fn receive(&mut self) -> Result<Vec<(ToKeeper, Vec<OwnedFd>)>, Gone> {
        let mut requests = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match frame::recv(&self.socket, &mut buffer) {
                Ok((0, _)) if requests.is_empty() => return Err(Gone::Closed),
                // What came before the end is still answered; the next wake-up says closed again.
                Ok((0, _)) => return Ok(requests),
                Ok((read, fds)) => self.decoder.push(&buffer[..read], fds),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(requests),
                Err(error) => return Err(error.into()),
            }
            while let Some(request) = self.decoder.next_frame()? {
                requests.push(request);
            }
        }
    }

    /// Queues a frame and sends what the socket takes.
    pub fn send(&mut self, id: u64, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), Gone> {
        let bytes = frame::encode(&FromKeeper { id, fds: fds.len(), reply })?;
        self.waiting += bytes.len();
        self.queue.push_back(Outgoing { bytes, sent: 0, fds });
        self.flush()?;
        if self.waiting > MAX_WAITING { Err(Gone::TooSlow) } else { Ok(()) }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while let Some(first) = self.queue.front_mut() {
            let fds: Vec<_> = first.fds.iter().map(AsFd::as_fd).collect();
            match frame::send(&self.socket, &first.bytes[first.sent..], &fds) {
                Ok(sent) => {
                    drop(fds);
                    first.fds.clear();
                    first.sent += sent;
                    self.waiting -= sent;
                    if first.sent == first.bytes.len() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether something waits for the socket to take it.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Only the node's own root speaks to a keeper: the kernel says who connected. That is uid 0 in the mount namespace of
    /// this process, the node's; a container has one of its own, also where a hostPath shows it this socket.
    pub fn is_nodes_root(socket: &OwnedFd) -> Result<bool, Errno> {
        let peer = rustix::net::sockopt::socket_peercred(socket)?;
        let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
        // One that cannot be looked at has gone, or is in no namespace below this one.
        let Ok(theirs) = mounts(&peer.pid.as_raw_nonzero().to_string()) else { return Ok(false) };
        Ok(peer.uid.is_root() && mounts("self").is_ok_and(|ours| ours == theirs))
    }
}
