//! The keeper's side of a launch: it forks the child straight into its cgroup, traces it to its exec, verifies it there and lets it go.
//! Whatever fails, no process of the launch is left.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use keeper::frame::{self, Decoder};
use keeper::protocol::{Failure, Stage};
use kernel::cgroup::Cgroup;
use kernel::process::{self, ChildStatus, Fork, ForkArgs};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::Pid;

use super::verify::{self, Namespaces};
use super::{At, ChildFrame, ChildSays};
use crate::plan::Process;

/// The longest a child may take to its exec. Mounts of a slow disk take seconds at worst; a child stuck for longer is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that runs what its plan says.
#[derive(Debug)]
pub struct Launched {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    pub warnings: Vec<String>,
}

/// What the parent does with the child.
pub struct Launch<'a> {
    pub namespaces: u64,
    pub cgroup: &'a Cgroup,
    pub process: &'a Process,
    pub expect: Namespaces<'a>,
    pub last_capability: u32,
}

impl Launch<'_> {
    /// Forks; `child` is run in the child with its end of the socket pair and never returns.
    pub fn perform(&self, child: impl FnOnce(&OwnedFd) -> Failure) -> Result<Launched, Failure> {
        let (ours, theirs) = UnixStream::pair().at(Stage::Namespaces)?;
        let theirs = OwnedFd::from(theirs);
        let birthplace = self.cgroup.birthplace().at(Stage::Cgroup)?;
        let args = ForkArgs { namespaces: self.namespaces, cgroup: birthplace.as_ref().map(AsFd::as_fd) };
        let (pid, pidfd) = match process::fork(&args).at(Stage::Namespaces)? {
            Fork::Child => {
                drop(ours);
                let failure = child(&theirs);
                super::child::fail(&theirs, failure)
            }
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop(theirs);
        match self.accompany(pid, ours, birthplace.is_some()) {
            Ok((terminal, warnings)) => Ok(Launched { pid, pidfd, terminal, warnings }),
            Err(failure) => {
                end(pid, &pidfd)?;
                Err(failure)
            }
        }
    }

    fn accompany(
        &self,
        pid: Pid,
        status: UnixStream,
        born: bool,
    ) -> Result<(Option<OwnedFd>, Vec<String>), Failure> {
        process::trace_exec(pid).at(Stage::Exec)?;
        self.cgroup.add(pid, born).at(Stage::Cgroup)?;
        // A child that has failed already is not there to read it; what it says comes next.
        match rustix::io::write(&status, &[1]) {
            Ok(_) | Err(Errno::PIPE) => {}
            Err(errno) => return Err(errno).at(Stage::Cgroup),
        }
        let (terminal, warnings) = listen(&status)?;
        loop {
            match process::wait_for(pid).at(Stage::Exec)? {
                ChildStatus::ExecStop => break,
                ChildStatus::SignalStop(signal) => process::trace_continue(pid, signal).at(Stage::Exec)?,
                ChildStatus::OtherStop => process::trace_continue(pid, 0).at(Stage::Exec)?,
                ChildStatus::Exited(code) => {
                    return Err(gone(format!("the child exited with {code} before its exec")));
                }
                ChildStatus::Signaled(signal) => {
                    return Err(gone(format!("the child was killed by signal {signal} before its exec")));
                }
            }
        }
        verify::verify(pid, self.process, &self.expect, self.last_capability)?;
        process::trace_detach(pid).at(Stage::Exec)?;
        Ok((terminal, warnings))
    }
}

fn gone(message: String) -> Failure {
    Failure { stage: Stage::Exec, message }
}

/// Hears the child out, until the exec (or its end) closes the socket.
fn listen(status: &UnixStream) -> Result<(Option<OwnedFd>, Vec<String>), Failure> {
    let (mut terminal, mut warnings, mut decoder) = (None, Vec::new(), Decoder::default());
    let mut buffer = [0; 4096];
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match rustix::event::poll(&mut [PollFd::new(status, PollFlags::IN)], Some(&patience)) {
            Ok(0) => return Err(gone(format!("no exec within {} s", PATIENCE.as_secs()))),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).at(Stage::Exec),
        }
        let (read, fds) = frame::recv(status, &mut buffer).at(Stage::Exec)?;
        if read == 0 {
            return Ok((terminal, warnings));
        }
        decoder.push(&buffer[..read], fds);
        while let Some((frame, fds)) = decoder.next_frame::<ChildFrame>().at(Stage::Exec)? {
            match frame.says {
                ChildSays::Terminal => terminal = fds.into_iter().next(),
                ChildSays::Warning(warning) => warnings.push(warning),
                ChildSays::Failed(failure) => return Err(failure),
            }
        }
    }
}

/// Kills and reaps a child that is not to be.
fn end(pid: Pid, pidfd: &OwnedFd) -> Result<(), Failure> {
    match process::send_signal(pidfd, 9) {
        Err(error) if error.errno != Errno::SRCH => return Err(error).at(Stage::Exec),
        _ => {}
    }
    loop {
        match process::wait_for(pid) {
            // Reaped above, where its end was seen.
            Err(error) if error.errno == Errno::CHILD => return Ok(()),
            Err(error) => return Err(error).at(Stage::Exec),
            Ok(ChildStatus::Exited(_) | ChildStatus::Signaled(_)) => return Ok(()),
            Ok(_) => {}
        }
    }
}
