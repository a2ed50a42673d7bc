//! Network namespaces: making one, and doing something in another. A thread changes namespaces, not a process, so both
//! use a scratch thread and the caller's threads stay where they are.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A new network namespace with nothing but a `lo` that is down. It lives as long as the fd, or anything in it.
pub fn create() -> io::Result<OwnedFd> {
    scratch(|| {
        // SAFETY: CLONE_NEWNET changes the network namespace of this scratch thread only; no fd table or file system
        // state is unshared, so nothing that other threads rely on changes.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        current()
    })?
    .map_err(io::Error::from)
}

/// The network namespace of the calling thread.
pub fn current() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Runs `work` on a scratch thread inside of the namespace. Sockets it opens stay in that namespace.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    scratch(|| {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
    .unwrap_or(Err(Errno::AGAIN))
}

fn scratch<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).stack_size(256 << 10);
        let handle = thread.spawn_scoped(scope, work)?;
        handle.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// A sysctl that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{call} /proc/sys/{name}: {error}")]
pub struct SysctlError {
    pub call: &'static str,
    pub name: String,
    pub error: io::Error,
}

/// Reads a sysctl in the calling thread's network namespace; `name` with slashes: `net/ipv4/ip_forward`.
pub fn read_sysctl(name: &str) -> Result<String, SysctlError> {
    std::fs::read_to_string(format!("/proc/sys/{name}"))
        .map(|value| value.trim_end().to_string())
        .map_err(|error| SysctlError { call: "read", name: name.to_string(), error })
}

/// Writes a sysctl in the calling thread's network namespace.
pub fn write_sysctl(name: &str, value: &str) -> Result<(), SysctlError> {
    let write = || {
        let mut file = File::options().write(true).open(format!("/proc/sys/{name}"))?;
        file.write_all(value.as_bytes())
    };
    write().map_err(|error| SysctlError { call: "write", name: name.to_string(), error })
}
