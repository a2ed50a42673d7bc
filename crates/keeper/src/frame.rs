//! Frames on a unix stream socket, with file descriptors: encoding, decoding, and one `sendmsg` or `recvmsg` each.
//! Works on blocking and non-blocking sockets alike, so a blocking test, the keeper's event loop and an async agent share it.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::protocol::{FromKeeper, MAX_FDS, MAX_FRAME, ToKeeper};

/// A peer that does not speak the protocol. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes, more than the {MAX_FRAME} allowed")]
    TooLong(usize),
    #[error("a frame with {0} file descriptors, more than the {MAX_FDS} allowed")]
    TooManyFds(usize),
    #[error("a frame says it has {said} file descriptors, {came} came")]
    MissingFds { said: usize, came: usize },
    #[error("a frame's JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A message that says how many file descriptors come with it.
pub trait Frame: Serialize + DeserializeOwned {
    fn fds(&self) -> usize;
}

impl Frame for ToKeeper {
    fn fds(&self) -> usize {
        self.fds
    }
}

impl Frame for FromKeeper {
    fn fds(&self) -> usize {
        self.fds
    }
}

/// The bytes of one frame, length included.
///
/// # Errors
/// When the message does not fit a frame.
pub fn encode<T: Frame>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    if message.fds() > MAX_FDS {
        return Err(FrameError::TooManyFds(message.fds()));
    }
    // MAX_FRAME fits a u32.
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

/// Puts what [`recv`] returned together to frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// Adds received bytes and descriptors.
    pub fn push(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// The next whole frame and its descriptors; `None` until one is complete.
    ///
    /// # Errors
    /// When the bytes are no frame of type `T`.
    pub fn next_frame<T: Frame>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>, FrameError> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(json) = self.bytes.get(4..4 + length) else {
            // Descriptors come with a frame's first byte, so no more than one frame's may be waiting.
            if self.fds.len() > MAX_FDS {
                return Err(FrameError::TooManyFds(self.fds.len()));
            }
            return Ok(None);
        };
        let message: T = serde_json::from_slice(json)?;
        if message.fds() > self.fds.len() {
            return Err(FrameError::MissingFds { said: message.fds(), came: self.fds.len() });
        }
        let fds = self.fds.drain(..message.fds()).collect();
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(4096);
        }
        Ok(Some((message, fds)))
    }
}

/// One `sendmsg`: `fds` travel with the first byte of `bytes`. Returns how many bytes were taken; the rest is sent without
/// descriptors.
///
/// # Errors
/// The call's errno (`WouldBlock` on a full non-blocking socket: nothing was sent then).
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(std::io::Error::other("more file descriptors than one message carries"));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends a whole frame on a blocking socket.
///
/// # Errors
/// The call's errno.
pub fn send_all(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let mut sent = send(&socket, bytes, fds)?;
    while sent < bytes.len() {
        sent += send(&socket, &bytes[sent..], &[])?;
    }
    Ok(())
}

/// One `recvmsg` into `buffer`. Returns the bytes received (0: the peer closed) and the descriptors, close-on-exec.
///
/// # Errors
/// The call's errno.
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            fds.extend(rights);
        }
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Reply, Request};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_frame_cut_anywhere_is_put_together_again() {
        let sent = ToKeeper { id: 7, fds: 0, request: Request::State };
        let mut bytes = encode(&sent).unwrap();
        bytes.extend(encode(&ToKeeper { id: 8, fds: 0, request: Request::Subscribe }).unwrap());
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part, Vec::new());
                while let Some((message, _)) = decoder.next_frame::<ToKeeper>().unwrap() {
                    seen.push(message.id);
                }
            }
            assert_eq!(seen, [7, 8], "cut at {cut}");
        }
    }

    #[test]
    fn descriptors_arrive_with_their_own_frame() {
        let (left, right) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for (id, fds) in [(1, 0), (2, 2), (3, 1)] {
            let frame = encode(&FromKeeper { id, fds, reply: Reply::Done }).unwrap();
            send_all(&left, &frame, &vec![null.as_fd(); fds]).unwrap();
        }
        drop(left);
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let (n, fds) = recv(&right, &mut buffer).unwrap();
            if n == 0 {
                break;
            }
            decoder.push(&buffer[..n], fds);
            while let Some((message, fds)) = decoder.next_frame::<FromKeeper>().unwrap() {
                seen.push((message.id, fds.len()));
            }
        }
        assert_eq!(seen, [(1, 0), (2, 2), (3, 1)]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut long = Decoder::default();
        long.push(&u32::MAX.to_le_bytes(), Vec::new());
        assert!(matches!(long.next_frame::<ToKeeper>(), Err(FrameError::TooLong(_))));
        let mut junk = Decoder::default();
        junk.push(&[2, 0, 0, 0, b'{', b'x'], Vec::new());
        assert!(matches!(junk.next_frame::<ToKeeper>(), Err(FrameError::Json(_))));
        let mut lying = Decoder::default();
        lying.push(&encode(&ToKeeper { id: 1, fds: 1, request: Request::State }).unwrap(), Vec::new());
        assert!(matches!(lying.next_frame::<ToKeeper>(), Err(FrameError::MissingFds { said: 1, came: 0 })));
    }
}
