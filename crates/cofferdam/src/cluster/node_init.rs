//! A virtual node: its namespaces, its private directories, and its PID 1.
//!
//! The role runs in two steps. The first, in the machine's namespaces, opens what the node keeps of the machine's file
//! system, unshares, mounts the node's private directories and starts the second as PID 1 of the new PID namespace.
//! The second mounts /proc, waits until the node's link is there, starts the agent and from then on only reaps
//! and starts the agent again when it ends: pods hang on it, not on the agent.

use std::{
    fs::{self, File},
    io::{BufRead, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use kernel::namespace::Namespace;
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
    },
    process::{WaitOptions, wait},
};

use super::{
    layout::{Layout, make_dir},
    restarts::Restarts,
};

/// First step: prints the PID of the node's init, seen from here, on standard output and returns.
pub fn prepare(layout: &Layout, node: &str) -> Result<()> {
    let data = layout.node_data(node);
    for dir in ["var-lib/cofferdam/pods", "var-log/pods", "var-lib/kubelet"] {
        make_dir(&data.join(dir), 0o755)?;
    }
    make_dir(&layout.images(), 0o700)?;
    // Before anything is mounted over: the data directory may lie below /var/lib, /tmp or /run.
    let images = clone_tree(&layout.images())?;
    let run = clone_tree(&layout.node_run(node))?;
    let var_lib = clone_tree(&data.join("var-lib"))?;
    let var_log = clone_tree(&data.join("var-log"))?;
    let cgroups = clone_tree(Path::new("/sys/fs/cgroup"))?;
    let program = std::env::current_exe().context("find this program")?;
    let program = File::open(&program).with_context(|| format!("open {}", program.display()))?;
    let sockets = layout.node_sockets(node);
    let sockets = File::open(&sockets).with_context(|| format!("open {}", sockets.display()))?;
    let cluster = fs::metadata(layout.data()).context("look at the data directory")?;

    kernel::namespace::unshare(&[
        Namespace::Mount,
        Namespace::Net,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Pid,
    ])
    .context("make the node's namespaces")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("make the node's mounts private of the machine's (rslave /)")?;

    attach(&var_lib, Path::new("/var/lib"))?;
    attach(&var_log, Path::new("/var/log"))?;
    mount_new("tmpfs", "/tmp", &[("mode", "1777")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    mount_new("tmpfs", "/run", &[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    mount_new("tmpfs", "/dev/shm", &[("mode", "1777")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    fs::create_dir_all("/run/cofferdam").context("create /run/cofferdam")?;
    attach(&run, Path::new("/run/cofferdam"))?;
    make_dir(Path::new("/run/cofferdam/images"), 0o700)?;
    attach(&images, Path::new("/run/cofferdam/images"))?;
    mount_new("sysfs", "/sys", &[], MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    attach(&cgroups, Path::new("/sys/fs/cgroup"))?;
    hide(layout.data(), &cluster)?;
    // The node's own mounts reach its containers where a volume asks for propagation, and never the machine.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .context("share the node's mounts inside it (rshared /)")?;

    // The program by its open file: the node may hide the path it lies at.
    let child = Command::new(format!("/proc/self/fd/{}", inherited(&program)?))
        .arg0("cofferdam")
        .args(std::env::args_os().skip(1))
        .arg("--pid1")
        .current_dir("/")
        .stdout(sockets)
        .spawn()
        .context("start the node's init")?;
    println!("{}", child.id());
    std::io::stdout().flush().context("report the node's init")
}

/// Second step, as PID 1: never returns while the node lives.
pub fn run(layout: &Layout, node: &str) -> Result<()> {
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        bail!("a node's init is PID 1 of its namespace");
    }
    mount_new("proc", "/proc", &[], MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    rustix::system::sethostname(node.as_bytes()).context("set the node's host name")?;
    // Go ahead only when the node's link and node.json are there. If nobody says so, the one who would is dead.
    let mut word = String::new();
    std::io::stdin().lock().read_line(&mut word).context("wait for the node's link")?;
    if word.trim() != "go" {
        return Ok(());
    }
    let mut restarts = Restarts::new(Instant::now());
    loop {
        let mut agent = start_agent(layout, node)?;
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, _))) if pid.as_raw_nonzero().get() as u32 == agent.id() => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for the node's processes"),
            }
        }
        // Already reaped above; this only clears the handle.
        let status = agent.try_wait();
        eprintln!("the agent of {node} ended ({status:?}); starting it again");
        std::thread::sleep(restarts.ended(Instant::now()));
    }
}

fn start_agent(layout: &Layout, node: &str) -> Result<std::process::Child> {
    // It inherits the directory of the sockets as its standard output, as this process did.
    Command::new("/proc/self/exe")
        .arg0("cofferdam")
        .args(["internal", "agent", "--data-dir"])
        .arg(layout.data())
        .args(["--node", node])
        .stdin(Stdio::null())
        .spawn()
        .context("start the agent")
}

/// Covers the cluster's own directory, unless one of the node's hides it already: in it lie the administrator's socket and
/// kubeconfig, the keys and every node's files, which no hostPath may show. `cluster` is what the machine has there.
fn hide(data: &Path, cluster: &fs::Metadata) -> Result<()> {
    let here = match fs::metadata(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.context("look at the data directory within the node")?,
    };
    if (here.dev(), here.ino()) != (cluster.dev(), cluster.ino()) {
        return Ok(());
    }
    let target = data.to_str().context("a data directory whose path is no text")?;
    mount_new("tmpfs", target, &[("mode", "0000")], MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A detached copy of a directory's mounts, to be attached elsewhere.
fn clone_tree(path: &Path) -> Result<OwnedFd> {
    open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )
    .with_context(|| format!("open_tree {}", path.display()))
}

fn attach(tree: &OwnedFd, target: &Path) -> Result<()> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("move_mount to {}", target.display()))
}

fn mount_new(kind: &str, target: &str, options: &[(&str, &str)], flags: MountAttrFlags) -> Result<()> {
    let mount = || -> rustix::io::Result<()> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        fsconfig_create(context.as_fd())?;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    mount().with_context(|| format!("mount {kind} on {target}"))
}

/// The number of a copy of `file` that the next program inherits.
fn inherited(file: &File) -> Result<i32> {
    use std::os::fd::IntoRawFd;
    let copy = rustix::io::dup(file).context("dup")?;
    Ok(copy.into_raw_fd())
}
