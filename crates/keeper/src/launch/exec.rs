//! A further process in a running container: it joins every namespace and the cgroup of the container's first process and gets the
//! same credentials, filter and limits, unless the request names another user.

use std::os::fd::{AsRawFd, OwnedFd};

use keeper::protocol::{Failure, Stage};
use kernel::namespace::{self, Namespace};
use kernel::{Named, fds, process};
use rustix::fs::{Mode, OFlags};

use super::child::{become_program, control, keyring, say};
use super::{At, ChildSays, credentials, devices};
use crate::plan::Process;

/// What the child has from the keeper.
pub struct Inheritance<'a> {
    pub process: &'a Process,
    /// Of the container's first process.
    pub pidfd: &'a OwnedFd,
    pub own_cgroup_namespace: bool,
    pub size: Option<(u16, u16)>,
    pub stdio: Option<&'a [OwnedFd; 3]>,
    pub last_capability: u32,
    pub status: &'a OwnedFd,
}

/// The child's stages. Returns only a failure.
pub fn run(own: &Inheritance<'_>) -> Failure {
    match stages(own) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn stages(own: &Inheritance<'_>) -> Result<std::convert::Infallible, Failure> {
    let mut keep = vec![own.status.as_raw_fd(), own.pidfd.as_raw_fd()];
    keep.extend(own.stdio.into_iter().flatten().map(AsRawFd::as_raw_fd));
    fds::close_all_but(3, &keep).at(Stage::Namespaces)?;
    // Not dumpable before it can be seen from inside (CVE-2016-9962): inherited from the keeper, and said again.
    process::set_dumpable(false).at(Stage::Namespaces)?;
    process::reset_signals().at(Stage::Namespaces)?;
    rustix::process::setsid().named("setsid", "").at(Stage::Namespaces)?;
    keyring()?;
    // The node's /proc is needed for this, so before the mount namespace is left.
    for warning in credentials::limits(own.process)? {
        say(own.status, ChildSays::Warning(warning), None)?;
    }
    // In our cgroup before the namespace is joined: the keeper says when.
    let mut byte = [0];
    match rustix::io::read(own.status, &mut byte) {
        Ok(1) => {}
        Ok(_) => {
            return Err(Failure { stage: Stage::Cgroup, message: "the keeper gave the exec up".into() });
        }
        Err(errno) => return Err(errno).named("read", "keeper").at(Stage::Cgroup),
    }
    let mut kinds = vec![Namespace::Mount];
    if own.own_cgroup_namespace {
        kinds.push(Namespace::Cgroup);
    }
    namespace::enter(own.pidfd, &kinds).at(Stage::Namespaces)?;
    let terminal = if own.process.tty {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .named("open", "/")
            .at(Stage::Devices)?;
        let (master, slave) = devices::terminal(&root)?;
        if let Some((columns, rows)) = own.size {
            fds::set_terminal_size(&master, columns, rows).at(Stage::Devices)?;
        }
        say(own.status, ChildSays::Terminal, Some(&master))?;
        control(&slave)?;
        Some(slave)
    } else {
        None
    };
    let stdio: [&OwnedFd; 3] = match (&terminal, own.stdio) {
        (Some(slave), _) => [slave, slave, slave],
        (None, Some([stdin, stdout, stderr])) => [stdin, stdout, stderr],
        (None, None) => {
            return Err(Failure { stage: Stage::Exec, message: "neither terminal nor pipes".into() });
        }
    };
    become_program(own.process, own.process.env.clone(), stdio, own.last_capability)
}
