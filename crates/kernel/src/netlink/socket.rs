//! The socket: requests, dumps and events.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::attributes::attributes;
use super::message::Batch;
use super::{NetlinkError, message};

const HEADER: usize = 16;
const MSG_ERROR: u16 = 2;
const MSG_DONE: u16 = 3;
const MSG_OVERRUN: u16 = 4;
const FLAG_DUMP_INTR: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;

const SOL_SOCKET: i32 = 1;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const SO_ATTACH_FILTER: i32 = 26;
const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// Which part of the kernel is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Route,
    Netfilter,
}

/// What a socket may listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// RTNLGRP_LINK.
    Links,
    /// NFNLGRP_NFTABLES.
    Nftables,
    /// NFNLGRP_NFTRACE.
    NftTrace,
}

/// A blocking netlink socket. It acts in the network namespace it was opened in, whoever holds it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    send_limit: usize,
}

/// A message from the kernel: its type and its payload behind the header.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub kind: u16,
    pub payload: &'a [u8],
}

impl Socket {
    /// In this thread's network namespace.
    pub fn open(family: Family) -> Result<Socket, NetlinkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
                .map_err(|errno| NetlinkError::Call { call: "socket", errno })?;
        Socket::from_fd(fd)
    }

    /// In the network namespace of that fd: a scratch thread enters it, so that the caller's thread stays where it is.
    pub fn open_in(netns: BorrowedFd<'_>, family: Family) -> Result<Socket, NetlinkError> {
        crate::route::netns::run_in(netns, || Socket::open(family)).map_err(NetlinkError::Setns)?
    }

    /// Takes over a netlink socket opened elsewhere (in a pod's namespace, by its keeper).
    pub fn from_fd(fd: OwnedFd) -> Result<Socket, NetlinkError> {
        let socket = Socket { fd, buffer: vec![0; 64 << 10], send_limit: 128 << 10 };
        socket.set_option("setsockopt(NETLINK_EXT_ACK)", SOL_NETLINK, NETLINK_EXT_ACK, 1)?;
        socket.set_option("setsockopt(NETLINK_CAP_ACK)", SOL_NETLINK, NETLINK_CAP_ACK, 1)?;
        Ok(socket)
    }

    /// Another NETLINK_ROUTE socket in the same network namespace, wherever the calling thread is.
    pub fn sibling(&self) -> Result<Socket, NetlinkError> {
        const SIOCGSKNS: std::ffi::c_ulong = 0x894c;
        // SAFETY: SIOCGSKNS takes no argument and returns a new descriptor or -1.
        let fd = unsafe { ioctl(self.fd.as_raw_fd(), SIOCGSKNS) };
        if fd < 0 {
            return Err(NetlinkError::Call { call: "ioctl(SIOCGSKNS)", errno: last_errno() });
        }
        // SAFETY: the descriptor was just made for this process, and nothing else owns it.
        let netns = unsafe { OwnedFd::from_raw_fd(fd) };
        Socket::open_in(netns.as_fd(), Family::Route)
    }

    /// Waits until something can be read; false if nothing came in that time.
    pub fn wait(&self, patience: Duration) -> Result<bool, NetlinkError> {
        let timeout =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(NetlinkError::Call { call: "poll", errno }),
        }
    }

    /// Asks the kernel to refuse a dump whose filter it does not understand, and so to filter.
    pub fn strict(&self) -> Result<(), NetlinkError> {
        self.set_option("setsockopt(NETLINK_GET_STRICT_CHK)", SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    }

    /// Sends all messages at once and reads the answers. The first refusal is the error.
    pub fn request(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.send(batch)?;
        let mut first = None;
        loop {
            let (len, _) = match self.receive(RecvFlags::DONTWAIT) {
                Ok(received) => received,
                Err(Errno::AGAIN) => break,
                Err(Errno::NOBUFS) => return Err(NetlinkError::Overrun("request")),
                Err(errno) => return Err(NetlinkError::Call { call: "recv", errno }),
            };
            for message in messages(&self.buffer[..len]) {
                if message.kind != MSG_ERROR {
                    continue;
                }
                let (errno, words) = message.error().ok_or(NetlinkError::Malformed("request"))?;
                let Some(errno) = errno else { continue };
                if first.is_none() {
                    let object = batch.object(message.sequence).unwrap_or("a request").to_string();
                    first = Some(NetlinkError::Refused { object, errno, words });
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Sends one message and gives every message of the answer to `take`, until the kernel says that was all. A
    /// request without the dump flag has one message of answer.
    pub fn dump(
        &mut self,
        what: &'static str,
        batch: &Batch,
        mut take: impl FnMut(Event<'_>),
    ) -> Result<(), NetlinkError> {
        debug_assert_eq!(batch.len(), 1);
        self.send(batch)?;
        let dumping = batch.bytes()[6..8] != [0, 0]
            && u16::from_ne_bytes([batch.bytes()[6], batch.bytes()[7]]) & message::DUMP == message::DUMP;
        let mut interrupted = false;
        loop {
            // A dump's next part is made when the last is read, so this waits for nothing but the kernel's work.
            let (len, size) = match self.receive(RecvFlags::TRUNC) {
                Ok(received) => received,
                Err(Errno::NOBUFS) => return Err(NetlinkError::Overrun(what)),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(NetlinkError::Call { call: "recv", errno }),
            };
            if size > len {
                return Err(NetlinkError::Malformed(what));
            }
            for message in messages(&self.buffer[..len]) {
                interrupted |= message.flags & FLAG_DUMP_INTR != 0;
                match message.kind {
                    MSG_DONE => {
                        // A dump may end in an error of its own.
                        let code =
                            message.payload.get(..4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                        return match code {
                            Some(code) if code < 0 => Err(NetlinkError::Refused {
                                object: what.to_string(),
                                errno: Errno::from_raw_os_error(-code),
                                words: None,
                            }),
                            _ if interrupted => Err(NetlinkError::Interrupted(what)),
                            _ => Ok(()),
                        };
                    }
                    MSG_ERROR => {
                        return match message.error() {
                            Some((Some(errno), words)) => {
                                Err(NetlinkError::Refused { object: what.to_string(), errno, words })
                            }
                            Some((None, _)) => Ok(()),
                            None => Err(NetlinkError::Malformed(what)),
                        };
                    }
                    MSG_OVERRUN => return Err(NetlinkError::Overrun(what)),
                    kind => {
                        take(Event { kind, payload: message.payload });
                        if !dumping {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// From now on events of that group are queued.
    pub fn join(&self, group: Group) -> Result<(), NetlinkError> {
        // A broadcast is not sent to the port that caused it, and the kernel itself is port 0, as a socket that was
        // never bound.
        rustix::net::bind(&self.fd, &netlink::SocketAddrNetlink::new(0, 0))
            .map_err(|errno| NetlinkError::Call { call: "bind", errno })?;
        let number = match group {
            Group::Links => 1,
            Group::Nftables => 7,
            Group::NftTrace => 9,
        };
        self.set_option("setsockopt(NETLINK_ADD_MEMBERSHIP)", SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, number)
    }

    /// Drops, in the kernel, every packet of events whose first message has another type. Message types that the
    /// kernel sends in packets of their own only (NFT_MSG_NEWGEN).
    pub fn only(&self, kind: u16) -> Result<(), NetlinkError> {
        #[repr(C)]
        struct Instruction {
            code: u16,
            jt: u8,
            jf: u8,
            k: u32,
        }
        #[repr(C)]
        struct Program {
            len: u16,
            filter: *const Instruction,
        }
        // nlmsg_type is at offset 4 in the machine's byte order; the filter machine loads in network order.
        let wanted = u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
        let instructions = [
            Instruction { code: 0x28, jt: 0, jf: 0, k: 4 },
            Instruction { code: 0x15, jt: 0, jf: 1, k: wanted },
            Instruction { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
            Instruction { code: 0x06, jt: 0, jf: 0, k: 0 },
        ];
        let program = Program { len: instructions.len() as u16, filter: instructions.as_ptr() };
        // SAFETY: the kernel reads one `sock_fprog` whose pointer and length describe the live array above.
        unsafe { set_option(self.fd.as_fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program) }
            .map_err(|errno| NetlinkError::Call { call: "setsockopt(SO_ATTACH_FILTER)", errno })
    }

    /// Room for events, in bytes. Without CAP_NET_ADMIN an error.
    pub fn set_receive_buffer(&self, bytes: i32) -> Result<(), NetlinkError> {
        self.set_option("setsockopt(SO_RCVBUFFORCE)", SOL_SOCKET, SO_RCVBUFFORCE, bytes)
    }

    /// Gives all queued events to `take` without waiting. False if some were lost: read the state anew.
    pub fn drain(&mut self, mut take: impl FnMut(Event<'_>)) -> Result<bool, NetlinkError> {
        let mut complete = true;
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    for message in messages(&self.buffer[..len]) {
                        take(Event { kind: message.kind, payload: message.payload });
                    }
                }
                Err(Errno::NOBUFS) => complete = false,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(complete),
                Err(errno) => return Err(NetlinkError::Call { call: "recv", errno }),
            }
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        // A batch is one packet, and a packet fits the send buffer or is refused with EMSGSIZE.
        let needed = batch.bytes().len() + 4096;
        if needed > self.send_limit {
            self.set_option(
                "setsockopt(SO_SNDBUFFORCE)",
                SOL_SOCKET,
                SO_SNDBUFFORCE,
                i32::try_from(needed)
                    .map_err(|_| NetlinkError::Call { call: "send", errno: Errno::MSGSIZE })?,
            )?;
            self.send_limit = needed;
        }
        let sent =
            rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, batch.bytes(), SendFlags::empty()))
                .map_err(|errno| NetlinkError::Call { call: "send", errno })?;
        if sent == batch.bytes().len() {
            Ok(())
        } else {
            Err(NetlinkError::Call { call: "send", errno: Errno::MSGSIZE })
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<(usize, usize), Errno> {
        rustix::net::recv(&self.fd, &mut self.buffer[..], flags)
    }

    fn set_option(&self, call: &'static str, level: i32, name: i32, value: i32) -> Result<(), NetlinkError> {
        // SAFETY: every option used here takes an int.
        unsafe { set_option(self.fd.as_fd(), level, name, &value) }
            .map_err(|errno| NetlinkError::Call { call, errno })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

unsafe extern "C" {
    fn setsockopt(fd: i32, level: i32, name: i32, value: *const std::ffi::c_void, len: u32) -> i32;
    fn ioctl(fd: i32, request: std::ffi::c_ulong, ...) -> i32;
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// # Safety
/// `T` is the type that the option takes, without padding that matters, and what it points at is alive.
unsafe fn set_option<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> Result<(), Errno> {
    let size = std::mem::size_of::<T>() as u32;
    // SAFETY: pointer and length describe a live value; the fd is open for the length of the call.
    let result = unsafe { setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), size) };
    if result == 0 {
        return Ok(());
    }
    Err(last_errno())
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Message<'_> {
    /// Of an acknowledgement: errno (None is success) and the kernel's words.
    fn error(&self) -> Option<(Option<Errno>, Option<String>)> {
        let code: [u8; 4] = self.payload.get(..4)?.try_into().ok()?;
        let code = i32::from_ne_bytes(code);
        let errno = (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()));
        let mut words = None;
        if self.flags & FLAG_ACK_TLVS != 0 {
            let original: [u8; 4] = self.payload.get(4..8)?.try_into().ok()?;
            let echoed = if self.flags & FLAG_CAPPED != 0 {
                HEADER
            } else {
                (u32::from_ne_bytes(original) as usize).next_multiple_of(4)
            };
            words = attributes(self.payload.get(4 + echoed..)?).str(1).map(str::to_string);
        }
        Some((errno, words))
    }
}

/// The messages in one packet.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = word(0) as usize;
        let message =
            Message { kind: half(4), flags: half(6), sequence: word(8), payload: bytes.get(HEADER..len)? };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
