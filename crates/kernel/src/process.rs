//! Making, waiting for and describing processes: a fork by `clone3` for single-threaded programs, exec, signals as a
//! descriptor, and the exec stop by which a new program is looked at before its first instruction.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{CallError, Named};

/// What a [`fork`] makes besides the process.
#[derive(Debug, Default)]
pub struct ForkArgs<'a> {
    /// `CLONE_NEW*` flags, see [`crate::namespace`].
    pub namespaces: u64,
    /// A cgroup v2 directory the child is born in (`CLONE_INTO_CGROUP`): no migration, no RCU grace period.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Both sides of a [`fork`].
#[derive(Debug)]
pub enum Fork {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks by `clone3`. The child goes on from here with a copy of everything.
///
/// # Errors
/// `EDEADLK` in a program with more than one thread (a lock another thread holds would stay locked in the child for
/// ever); else clone3's errno.
pub fn fork(args: &ForkArgs<'_>) -> Result<Fork, CallError> {
    // /proc/self/task has one directory a thread: its link count is 2 more than their number.
    let tasks = rustix::fs::stat("/proc/self/task").named("stat", "/proc/self/task")?;
    if tasks.st_nlink != 3 {
        return Err(CallError::new("clone3", "(more than one thread)", Errno::DEADLK));
    }
    let mut pidfd: libc::c_int = -1;
    let mut raw = CloneArgs {
        flags: args.namespaces | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `raw` is a valid clone_args of the size given and outlives the call; without CLONE_VM and with no new stack the
    // child has its own copy of this one. There is no other thread (checked above), so no lock is left held in it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(raw_pid) => match Pid::from_raw(raw_pid.max(0)) {
            Some(pid) => {
                // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that nobody else owns.
                Ok(Fork::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
            }
            None => Err(CallError::last("clone3", "")),
        },
        Err(_) => Err(CallError::last("clone3", "")),
    }
}

/// Ends the process at once: no destructors, no output flushed. For a child of [`fork`] that could not exec.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// Replaces the program. Returns only on failure.
#[must_use]
pub fn exec(path: &CString, argv: &[CString], envp: &[CString]) -> CallError {
    let pointers = |list: &[CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const libc::c_char>>()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: `path` and all elements are NUL-terminated strings that outlive the call; both arrays end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    CallError::last("execve", path.to_string_lossy())
}

/// All signal dispositions to default and the mask empty: what a container's program starts with. (Rust's runtime ignores
/// SIGPIPE, and ignored signals stay ignored across exec.)
///
/// # Errors
/// Never in practice; sigprocmask's errno.
pub fn reset_signals() -> Result<(), CallError> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL is a valid disposition. 32 and 33 are refused by the C library, which uses them for threads; nobody
        // set them here. So the result says nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is the empty set, and the old set is not asked for.
    let result = unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(CallError::last("sigprocmask", "")) }
}

/// Blocks `signals` in this thread and returns a descriptor that becomes readable when one is pending. Non-blocking, close-on-exec.
///
/// # Errors
/// sigprocmask's or signalfd's errno.
pub fn signal_fd(signals: &[i32]) -> Result<OwnedFd, CallError> {
    // SAFETY: an all-zero sigset_t is the empty set; sigaddset and sigprocmask get pointers to it that live through the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        for &signal in signals {
            if libc::sigaddset(&raw mut set, signal) != 0 {
                return Err(CallError::last("sigaddset", signal.to_string()));
            }
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(CallError::last("sigprocmask", ""));
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if fd < 0 {
            return Err(CallError::last("signalfd", ""));
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Takes one pending signal from a [`signal_fd`]; `None` when there is none.
///
/// # Errors
/// read's errno.
pub fn read_signal(fd: impl AsFd) -> Result<Option<i32>, CallError> {
    // A signalfd_siginfo is 128 bytes and begins with the signal's number.
    let mut info = [0_u8; 128];
    match rustix::io::read(fd, &mut info) {
        Ok(128) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
        Ok(_) => Err(CallError::new("read", "signalfd", Errno::IO)),
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(CallError::new("read", "signalfd", errno)),
    }
}

/// Sends any signal by number, real-time ones included, through a pidfd: never to a reused pid.
///
/// # Errors
/// `EINVAL` for a number out of range, `ESRCH` when the process has ended.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), CallError> {
    // SAFETY: the descriptor is valid for the call; a null siginfo is allowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(CallError::last("pidfd_send_signal", signal.to_string())) }
}

/// How a waited-for child changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildStatus {
    Exited(i32),
    Signaled(i32),
    /// Stopped under ptrace right after a successful exec.
    ExecStop,
    /// Stopped under ptrace by this signal, not yet delivered.
    SignalStop(i32),
    /// Any other ptrace stop.
    OtherStop,
}

impl ChildStatus {
    fn from_raw(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            return Self::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return Self::Signaled(libc::WTERMSIG(status));
        }
        match (libc::WSTOPSIG(status), status >> 16) {
            (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => Self::ExecStop,
            (signal, 0) => Self::SignalStop(signal),
            _ => Self::OtherStop,
        }
    }
}

/// Waits for a change of one child, ptrace stops included.
///
/// # Errors
/// waitpid's errno.
pub fn wait_for(pid: Pid) -> Result<ChildStatus, CallError> {
    wait(pid.as_raw_nonzero().get(), libc::__WALL)?
        .map(|(_, status)| status)
        .ok_or_else(|| CallError::new("waitpid", pid.to_string(), Errno::CHILD))
}

/// The next child that has changed, without waiting; `None` when there is none (or no child).
///
/// # Errors
/// waitpid's errno but ECHILD.
pub fn reap_any() -> Result<Option<(Pid, ChildStatus)>, CallError> {
    match wait(-1, libc::__WALL | libc::WNOHANG) {
        Err(CallError { errno: Errno::CHILD, .. }) => Ok(None),
        other => other,
    }
}

fn wait(pid: i32, options: i32) -> Result<Option<(Pid, ChildStatus)>, CallError> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the result.
        let found = unsafe { libc::waitpid(pid, &raw mut status, options) };
        match Pid::from_raw(found.max(0)) {
            Some(found) => return Ok(Some((found, ChildStatus::from_raw(status)))),
            None if found == 0 => return Ok(None),
            None => {
                let error = CallError::last("waitpid", pid.to_string());
                if error.errno != Errno::INTR {
                    return Err(error);
                }
            }
        }
    }
}

/// Attaches to a child without stopping it: it will stop after its exec ([`ChildStatus::ExecStop`]), and be killed should we end.
///
/// # Errors
/// ptrace's errno.
pub fn trace_exec(pid: Pid) -> Result<(), CallError> {
    let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
    ptrace("PTRACE_SEIZE", libc::PTRACE_SEIZE, pid, options as usize)
}

/// Lets a stopped tracee go on, delivering `signal` (0: none).
///
/// # Errors
/// ptrace's errno.
pub fn trace_continue(pid: Pid, signal: i32) -> Result<(), CallError> {
    ptrace("PTRACE_CONT", libc::PTRACE_CONT, pid, signal as usize)
}

/// Lets a stopped tracee go on untraced.
///
/// # Errors
/// ptrace's errno.
pub fn trace_detach(pid: Pid) -> Result<(), CallError> {
    ptrace("PTRACE_DETACH", libc::PTRACE_DETACH, pid, 0)
}

#[cfg(target_env = "gnu")]
type PtraceRequest = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type PtraceRequest = libc::c_int;

fn ptrace(name: &'static str, request: PtraceRequest, pid: Pid, data: usize) -> Result<(), CallError> {
    // SAFETY: none of the requests used here reads or writes our memory; `data` is a number for all of them.
    let result = unsafe {
        libc::ptrace(request, pid.as_raw_nonzero().get(), std::ptr::null_mut::<libc::c_void>(), data)
    };
    if result == 0 { Ok(()) } else { Err(CallError::last(name, pid.to_string())) }
}

/// `PR_SET_DUMPABLE`: not dumpable means no ptrace, no core and a root-owned `/proc/<pid>` (CVE-2016-9962).
///
/// # Errors
/// prctl's errno.
pub fn set_dumpable(dumpable: bool) -> Result<(), CallError> {
    prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, u64::from(dumpable))
}

/// Orphans among our descendants become our children.
///
/// # Errors
/// prctl's errno.
pub fn set_subreaper() -> Result<(), CallError> {
    prctl("PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// No exec gives more rights from now on; cannot be undone.
///
/// # Errors
/// prctl's errno.
pub fn set_no_new_privs() -> Result<(), CallError> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// The signal this process gets when its parent thread ends.
///
/// # Errors
/// prctl's errno.
pub fn set_parent_death_signal(signal: i32) -> Result<(), CallError> {
    prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, signal as u64)
}

pub(crate) fn prctl(name: &'static str, option: i32, value: u64) -> Result<(), CallError> {
    // SAFETY: the options used in this crate take numbers, no pointers; unused arguments are 0 as prctl(2) asks.
    let result = unsafe { libc::prctl(option, value, 0_u64, 0_u64, 0_u64) };
    if result == 0 { Ok(()) } else { Err(CallError::last(name, value.to_string())) }
}

/// A resource limit by the kernel's number (`RLIMIT_*`), `u64::MAX` meaning none, on this process.
///
/// # Errors
/// `EPERM` raising a hard limit without CAP_SYS_RESOURCE.
pub fn set_rlimit(resource: u32, name: &str, soft: u64, hard: u64) -> Result<(), CallError> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for the call; the old limit is not asked for.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null::<libc::rlimit64>())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(CallError::last("prlimit", format!("{name} soft {soft} hard {hard}")))
    }
}

/// Joins a new, empty session keyring: the old one's keys are out of reach.
///
/// # Errors
/// keyctl's errno; `ENOSYS` on a kernel without keyrings, where there is nothing to leave.
pub fn new_session_keyring() -> Result<(), CallError> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if result >= 0 { Ok(()) } else { Err(CallError::last("keyctl", "KEYCTL_JOIN_SESSION_KEYRING")) }
}
