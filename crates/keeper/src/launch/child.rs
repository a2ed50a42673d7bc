//! The child's side of a launch: the stages in their order, from a copy of the keeper to the container's program. Every step either takes
//! effect or ends the child with a failure that names it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use keeper::frame;
use keeper::protocol::{ContainerPlan, Failure, Stage};
use kernel::cgroup::Hierarchies;
use kernel::mount::{self, Propagation};
use kernel::namespace::{self, Namespace};
use kernel::resolve::{self, Links};
use kernel::{Named, fds, process};
use rustix::io::Errno;

use super::{At, ChildFrame, ChildSays, credentials, devices, mounts, paths, program, rootfs};
use crate::mount_options::Source;
use crate::plan::{Prepared, Process};

/// What a child has from the keeper.
pub struct Inheritance<'a> {
    pub plan: &'a ContainerPlan,
    pub prepared: &'a Prepared,
    pub attached: &'a [OwnedFd],
    pub shm: Option<&'a OwnedFd>,
    pub hierarchies: &'a Hierarchies,
    pub cgroup: &'a Path,
    /// The directory its root is mounted on.
    pub place: &'a Path,
    pub last_capability: u32,
    /// stdin, stdout, stderr; none with a terminal.
    pub stdio: Option<&'a [OwnedFd; 3]>,
    /// Its end of the socket pair.
    pub status: &'a OwnedFd,
}

/// Runs the stages. Does not return.
pub fn run(inheritance: &Inheritance<'_>) -> ! {
    let failure = match stages(inheritance) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    fail(inheritance.status, failure)
}

/// Reports a failure and ends. Under a filter already installed only `write` may be allowed, or not even that: the
/// status then stands for it.
pub fn fail(status: &OwnedFd, failure: Failure) -> ! {
    let frame = ChildFrame { fds: 0, says: ChildSays::Failed(failure) };
    if let Ok(bytes) = frame::encode(&frame) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match rustix::io::write(status, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
    process::exit_now(128)
}

/// Says something that is no failure.
pub fn say(status: &OwnedFd, says: ChildSays, fd: Option<&OwnedFd>) -> Result<(), Failure> {
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    let bytes = frame::encode(&ChildFrame { fds: fds.len(), says }).at(Stage::Request)?;
    frame::send_all(status, &bytes, &fds).at(Stage::Request)
}

/// Waits until the parent has put us into our cgroups.
fn wait_for_parent(status: &OwnedFd) -> Result<(), Failure> {
    let mut byte = [0];
    loop {
        match rustix::io::read(status, &mut byte) {
            Ok(1) => return Ok(()),
            Ok(_) => {
                let message = "the keeper gave the launch up".into();
                return Err(Failure { stage: Stage::Cgroup, message });
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).named("read", "keeper").at(Stage::Cgroup),
        }
    }
}

fn stages(own: &Inheritance<'_>) -> Result<std::convert::Infallible, Failure> {
    let prepared = own.prepared;
    // Only what this child needs stays open.
    let mut keep: Vec<i32> = own.attached.iter().map(AsRawFd::as_raw_fd).collect();
    keep.push(own.status.as_raw_fd());
    keep.extend(own.shm.iter().map(|fd| fd.as_raw_fd()));
    keep.extend(own.stdio.into_iter().flatten().map(AsRawFd::as_raw_fd));
    fds::close_all_but(3, &keep).at(Stage::Namespaces)?;
    process::reset_signals().at(Stage::Namespaces)?;
    // A session without a terminal: nothing can be typed into the keeper's (TIOCSTI); a keyring without keys.
    rustix::process::setsid().named("setsid", "").at(Stage::Namespaces)?;
    keyring()?;

    // While paths still mean the node's files.
    let root = rootfs::detached(&own.plan.rootfs)?;
    let sources = mounts::take_sources(&prepared.mounts, own.attached, own.shm)?;
    let null = paths::null_mount()?;

    namespace::unshare(&[Namespace::Mount]).at(Stage::Namespaces)?;
    // What is mounted from now on stays here; pivot_root wants it so, too.
    mount::propagate_root(Propagation::Slave).at(Stage::Namespaces)?;
    rootfs::attach(&root, own.place)?;

    // The keeper moves us into our cgroups meanwhile, which may take 9 ms (an RCU grace period); only what depends on it waits.
    let mut joined = false;
    let join = |joined: &mut bool| -> Result<(), Failure> {
        if !*joined {
            wait_for_parent(own.status)?;
            if prepared.own_cgroup_namespace {
                namespace::unshare(&[Namespace::Cgroup]).at(Stage::Namespaces)?;
            }
            *joined = true;
        }
        Ok(())
    };
    let context = mounts::Context {
        root: &root,
        hierarchies: own.hierarchies,
        own_cgroup_namespace: prepared.own_cgroup_namespace,
        cgroup: own.cgroup,
    };
    let mut own_dev = false;
    for (source, plan) in sources.into_iter().zip(&prepared.mounts) {
        let cgroup2 = matches!(&plan.source, Source::New { fs_type, .. } if fs_type == "cgroup2");
        if cgroup2 || plan.source == Source::Cgroup {
            join(&mut joined)?;
        }
        if plan.destination == Path::new("/dev") {
            own_dev = matches!(plan.source, Source::New { .. });
        }
        mounts::perform(source, &context)?;
    }
    devices::make(&root, &prepared.devices, own_dev)?;
    let terminal = if prepared.process.tty { Some(terminal(own, &root)?) } else { None };
    for (name, value) in &prepared.sysctls {
        let path = crate::plan::sysctl_path(name);
        std::fs::write(&path, value).named("write", path.display()).at(Stage::Sandbox)?;
    }
    for warning in credentials::limits(&prepared.process)? {
        say(own.status, ChildSays::Warning(warning), None)?;
    }
    // runc makes a working directory that the image lacks. One that cannot be made fails at chdir, with its message.
    if let Err(error) = resolve::make_directories(&root, &prepared.process.cwd, 0o755, Links::InRoot)
        && error.errno != Errno::ROFS
    {
        return Err(program::cwd_failed(&prepared.process.cwd, error.errno));
    }
    paths::readonly(&root, &prepared.readonly)?;
    paths::mask(&root, &prepared.masked, &null)?;
    mount::pivot_root(&root).at(Stage::Rootfs)?;
    mounts::finish_root(&root, prepared.root_readonly, prepared.root_propagation)?;
    join(&mut joined)?;

    let stdio: [&OwnedFd; 3] = match (&terminal, own.stdio) {
        (Some(slave), _) => [slave, slave, slave],
        (None, Some([stdin, stdout, stderr])) => [stdin, stdout, stderr],
        (None, None) => {
            return Err(Failure { stage: Stage::Log, message: "neither terminal nor pipes".into() });
        }
    };
    become_program(&prepared.process, prepared.process.env.clone(), stdio, own.last_capability)
}

/// A terminal of the container's own, as its controlling one and as /dev/console; the master goes to the keeper.
fn terminal(own: &Inheritance<'_>, root: &OwnedFd) -> Result<OwnedFd, Failure> {
    let (master, slave) = devices::terminal(root)?;
    if let Some((columns, rows)) = own.prepared.console {
        fds::set_terminal_size(&master, columns, rows).at(Stage::Devices)?;
    }
    devices::console(root, &slave)?;
    say(own.status, ChildSays::Terminal, Some(&master))?;
    control(&slave)?;
    Ok(slave)
}

/// Makes it this session's controlling terminal.
pub fn control(slave: &OwnedFd) -> Result<(), Failure> {
    rustix::process::ioctl_tiocsctty(slave).named("ioctl", "TIOCSCTTY").at(Stage::Devices)
}

/// A session keyring without the keeper's keys.
pub fn keyring() -> Result<(), Failure> {
    match process::new_session_keyring() {
        // A kernel without keyrings has none to leave.
        Err(error) if error.errno == Errno::NOSYS => Ok(()),
        other => other.at(Stage::Credentials),
    }
}

/// The last stages, which a container's first process and an exec'd one share: directory, standard streams, credentials, filter, exec.
pub fn become_program(
    plan: &Process,
    env: Vec<CString>,
    stdio: [&OwnedFd; 3],
    last_capability: u32,
) -> Result<std::convert::Infallible, Failure> {
    // As root first, for a directory only root may enter; else once more as the user, on whose file system root may be nobody.
    let entered = program::enter(&plan.cwd);
    if let Err(errno) = entered
        && !matches!(errno, Errno::ACCESS | Errno::PERM)
    {
        return Err(program::cwd_failed(&plan.cwd, errno));
    }
    for (fd, target) in stdio.into_iter().zip(0..) {
        // So that the program may open /dev/stdout anew: pipes and terminals are its own; /dev/null is everybody's.
        let mode = rustix::fs::fstat(fd).named("fstat", target).at(Stage::Credentials)?;
        let null = mode.st_rdev == rustix::fs::makedev(1, 3);
        if !null {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(plan.uid)), None)
                .named("fchown", format!("standard stream {target}"))
                .at(Stage::Credentials)?;
        }
        fds::place_stdio(fd, target).at(Stage::Credentials)?;
    }
    credentials::become_user(plan, last_capability)?;
    if entered.is_err() {
        program::enter(&plan.cwd).map_err(|errno| program::cwd_failed(&plan.cwd, errno))?;
    }
    let env = program::with_home(env, plan.uid);
    let path = program::find(&plan.args[0], &env)?;
    // Whatever is open besides the standard streams ends with the exec (CVE-2024-21626).
    fds::close_on_exec_from(3).at(Stage::Exec)?;
    credentials::filter(plan)?;
    let error = process::exec(&path, &plan.args, &env);
    Err(program::exec_failed(&path, error.errno))
}
