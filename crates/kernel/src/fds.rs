//! Descriptors: closing what must not leak into a container (CVE-2024-21626), sealed memory files to run programs from
//! (CVE-2019-5736), and terminals.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{CallError, Named};

/// Closes every descriptor from `first` on but those in `keep`.
///
/// # Errors
/// close_range's errno.
pub fn close_all_but(first: i32, keep: &[i32]) -> Result<(), CallError> {
    let mut keep: Vec<i32> = keep.iter().copied().filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut from = first;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1, 0)?;
        }
        from = fd + 1;
    }
    close_range(from, i32::MAX, 0)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// close_range's errno.
pub fn close_on_exec_from(first: i32) -> Result<(), CallError> {
    close_range(first, i32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int)
}

fn close_range(first: i32, last: i32, flags: i32) -> Result<(), CallError> {
    // SAFETY: takes three numbers. Callers own what they close: this is for a process about to exec, or at its start.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(CallError::last("close_range", format!("{first}..={last}"))) }
}

/// Puts `fd` at 0, 1 or 2, without close-on-exec.
///
/// # Errors
/// dup2's errno; `EINVAL` for another target.
pub fn place_stdio(fd: impl AsFd, target: i32) -> Result<(), CallError> {
    match target {
        0 => rustix::stdio::dup2_stdin(fd),
        1 => rustix::stdio::dup2_stdout(fd),
        2 => rustix::stdio::dup2_stderr(fd),
        _ => Err(Errno::INVAL),
    }
    .named("dup2", target)
}

/// A memory file holding `content` that nobody can change any more: what a container could write through
/// `/proc/<pid>/exe` is no program anybody else runs.
///
/// # Errors
/// Of the call that failed.
pub fn sealed_file(name: &str, content: &[u8]) -> Result<OwnedFd, CallError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC (Linux 6.3) says the file is meant to be run; older kernels refuse the flag.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::from_bits_retain(0x10)) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }
    .named("memfd_create", name)?;
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(&fd, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError::new("write", name, errno)),
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&fd, seals).named("fcntl", format!("F_ADD_SEALS {name}"))?;
    Ok(fd)
}

/// The slave side of a terminal, opened without a path: no devpts another can swap (CVE-2025-52565).
///
/// # Errors
/// ioctl's errno.
pub fn terminal_peer(master: impl AsFd) -> Result<OwnedFd, CallError> {
    use rustix::pty::OpenptFlags;
    rustix::pty::unlockpt(&master).named("ioctl", "TIOCSPTLCK")?;
    rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .named("ioctl", "TIOCGPTPEER")
}

/// Sets a terminal's size.
///
/// # Errors
/// ioctl's errno.
pub fn set_terminal_size(terminal: impl AsFd, columns: u16, rows: u16) -> Result<(), CallError> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).named("ioctl", "TIOCSWINSZ")
}

/// Whether a descriptor number is open: for checks that nothing leaked.
#[must_use]
pub fn is_open(fd: i32) -> bool {
    std::path::Path::new(&format!("/proc/self/fd/{fd}")).symlink_metadata().is_ok()
}

/// Takes ownership of the descriptor this process was started with at `number` (0, 1 or 2), leaving `/dev/null` there.
///
/// # Errors
/// Of the call that failed.
pub fn take_stdio(number: i32) -> Result<OwnedFd, CallError> {
    let taken = match number {
        0 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3),
        1 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3),
        2 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3),
        _ => Err(Errno::INVAL),
    }
    .named("fcntl", format!("F_DUPFD {number}"))?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .named("open", "/dev/null")?;
    debug_assert!(null.as_raw_fd() > 2);
    place_stdio(null, number)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_cannot_be_written() {
        let fd = sealed_file("test", b"content").unwrap();
        assert_eq!(rustix::io::write(&fd, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 0), Err(Errno::PERM));
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        let again = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(rustix::io::write(&again, b"x"), Err(Errno::PERM));
    }
}
