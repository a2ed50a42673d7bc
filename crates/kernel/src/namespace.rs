//! Namespaces: which kinds there are, leaving and joining them, and the descriptors and inodes by which they are known.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{CallError, Named};

/// A kind of namespace, by its `CLONE_NEW*` flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Namespace {
    Mount = 0x0002_0000,
    Cgroup = 0x0200_0000,
    Uts = 0x0400_0000,
    Ipc = 0x0800_0000,
    Pid = 0x2000_0000,
    Net = 0x4000_0000,
}

impl Namespace {
    /// All kinds, in the order an entering process joins them: mount last, for after it paths mean other files.
    pub const ALL: [Self; 6] = [Self::Cgroup, Self::Ipc, Self::Uts, Self::Net, Self::Pid, Self::Mount];

    /// The `CLONE_NEW*` flag.
    #[must_use]
    pub const fn flag(self) -> u64 {
        self as u64
    }

    /// The name below `/proc/<pid>/ns`.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Cgroup => "cgroup",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Net => "net",
        }
    }
}

/// Moves this process (for `Pid`: its children to come) into new namespaces.
///
/// # Errors
/// unshare's errno.
pub fn unshare(kinds: &[Namespace]) -> Result<(), CallError> {
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    // SAFETY: the flags are CLONE_NEW* only: no sharing of memory or descriptors between threads changes.
    let result = unsafe { libc::unshare(flags as libc::c_int) };
    if result == 0 { Ok(()) } else { Err(CallError::last("unshare", format!("{kinds:?}"))) }
}

/// Joins the namespaces of the process a pidfd names, all in one step (Linux 5.8). For `Pid` only children to come join.
///
/// # Errors
/// setns's errno.
pub fn enter(pidfd: impl AsFd, kinds: &[Namespace]) -> Result<(), CallError> {
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    setns(pidfd, flags, &format!("{kinds:?}"))
}

/// Joins one namespace by its descriptor.
///
/// # Errors
/// setns's errno; `EINVAL` when it is not of that kind.
pub fn join(fd: impl AsFd, kind: Namespace) -> Result<(), CallError> {
    setns(fd, kind.flag(), kind.file())
}

fn setns(fd: impl AsFd, flags: u64, on: &str) -> Result<(), CallError> {
    // SAFETY: the descriptor is valid for the call and the flags are CLONE_NEW* numbers.
    let result = unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags as libc::c_int) };
    if result == 0 { Ok(()) } else { Err(CallError::last("setns", on)) }
}

/// Opens a namespace of this process (`None`) or of another.
///
/// # Errors
/// open's errno.
pub fn open(pid: Option<rustix::process::Pid>, kind: Namespace) -> Result<OwnedFd, CallError> {
    let path = path(pid, kind);
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).named("open", path)
}

/// The inode number that identifies a namespace.
///
/// # Errors
/// stat's errno.
pub fn inode(pid: Option<rustix::process::Pid>, kind: Namespace) -> Result<u64, CallError> {
    let path = path(pid, kind);
    Ok(rustix::fs::stat(&path).named("stat", path)?.st_ino)
}

fn path(pid: Option<rustix::process::Pid>, kind: Namespace) -> String {
    match pid {
        None => format!("/proc/self/ns/{}", kind.file()),
        Some(pid) => format!("/proc/{}/ns/{}", pid.as_raw_nonzero(), kind.file()),
    }
}

/// Sets the host name of this process's UTS namespace.
///
/// # Errors
/// `EINVAL` beyond 64 bytes.
pub fn set_hostname(name: &str) -> Result<(), CallError> {
    rustix::system::sethostname(name.as_bytes()).named("sethostname", name)
}

/// Brings up the loopback device of this process's network namespace.
///
/// # Errors
/// The socket's or the ioctl's errno.
pub fn loopback_up() -> Result<(), CallError> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .named("socket", "AF_INET")?;
    // SAFETY: an all-zero ifreq is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq; `request` is one and lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(CallError::last("ioctl", "SIOCSIFFLAGS lo")) }
}

/// A NETLINK_ROUTE socket of this process's network namespace: it stays there wherever it is used.
///
/// # Errors
/// socket's errno.
pub fn route_socket() -> Result<OwnedFd, CallError> {
    rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .named("socket", "NETLINK_ROUTE")
}
