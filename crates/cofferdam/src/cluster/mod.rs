//! A cluster on one machine: its files, its processes, how it starts and how it ends.

pub mod down;
pub mod layout;
pub mod listener;
pub mod node_init;
pub mod processes;
pub mod ranges;
pub mod ranges_v6;
pub mod reach;
mod restarts;
pub mod roles;
pub mod supervisor;
pub mod up;

/// Waits for a descriptor to become readable (a pidfd, an inotify queue) in the runtime.
#[expect(
    deprecated,
    reason = "what it is deprecated for, a type that lies about its descriptor, an OwnedFd cannot do"
)]
fn readable(fd: std::os::fd::OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}
