//! What the kernel shows of the pod's containers, read from the machine. Their files are theirs to make: they are opened within
//! the container's root, and nothing is waited for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use policy::reach::node::facts::Process;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};

use crate::cluster::layout::Layout;
use crate::cluster::processes::{Role, find};
use crate::demo::observe;

/// What every container has in `/dev`.
const USUAL_DEVICES: [&str; 8] = ["console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"];

/// More than any token has.
const TOKEN_BYTES: u64 = 64 << 10;

/// The first process of each container; of one that cannot be looked at, why.
pub struct Processes(BTreeMap<String, Result<Process, String>>);

impl Processes {
    pub fn of(layout: &Layout, pod: &Pod) -> Processes {
        let status = pod.status.clone().unwrap_or_default();
        let lists =
            [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
        let containers = lists.into_iter().flatten().flatten();
        let each = containers.map(|container| {
            let process = read(layout, pod, &container).map_err(|error| format!("{error:#}"));
            (container.name, process)
        });
        Processes(each.collect())
    }

    /// # Errors
    /// Why nothing can be seen of it.
    pub fn get(&self, container: &str) -> Result<&Process, String> {
        match self.0.get(container) {
            Some(Ok(process)) => Ok(process),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("container {container} has not been started")),
        }
    }

    /// The file at `path` in the container, if there is a regular one.
    ///
    /// # Errors
    /// A container that does not run; a file that cannot be read.
    pub fn token(&self, container: &str, path: &str) -> Result<Option<String>, String> {
        let process = self.get(container)?;
        let failed = |error: std::io::Error| format!("read {path} of container {container}: {error}");
        let file = match within(process.pid, path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Ok(None);
        }
        let mut token = String::new();
        file.take(TOKEN_BYTES).read_to_string(&mut token).map_err(failed)?;
        Ok(Some(token.trim().to_owned()))
    }
}

fn read(layout: &Layout, pod: &Pod, container: &ContainerStatus) -> Result<Process> {
    if container.state.as_ref().is_none_or(|state| state.running.is_none()) {
        bail!("container {} does not run", container.name);
    }
    let node = super::node_of(pod).context("it is on no node")?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let attempt = u32::try_from(container.restart_count).unwrap_or(0);
    let pid = observe::first_process(&layout.read()?.id, node, uid, &container.name, attempt)?;
    let agent = find(layout.data())?
        .into_iter()
        .find(|process| process.role == Role::Agent && process.node.as_deref() == Some(node))
        .with_context(|| format!("the agent of {node} does not run"))?;
    let of = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let mut process = Process { pid, ..Process::default() };
    process.read_status(&of("status")?)?;
    process.read_uid_map(&of("uid_map")?);
    process.read_mounts(&of("mountinfo")?)?;
    for kind in ["net", "pid", "ipc"] {
        let name = |pid| Ok::<_, anyhow::Error>(observe::namespace(pid, kind)?.display().to_string());
        process.namespaces.insert(kind.to_owned(), (name(pid)?, name(agent.pid)?));
    }
    process.devices = devices(pid)?;
    Ok(process)
}

/// The character and block devices in the container's `/dev` beside the usual ones.
fn devices(pid: i32) -> Result<Vec<String>> {
    let dev = match within(pid, "/dev", OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(dev) => dev,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("open /dev of the container"),
    };
    let mut devices = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dev).context("read /dev of the container")? {
        let entry = entry.context("read /dev of the container")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_device = matches!(entry.file_type(), FileType::BlockDevice | FileType::CharacterDevice);
        if is_device && !USUAL_DEVICES.contains(&name.as_str()) {
            devices.push(name);
        }
    }
    devices.sort_unstable();
    Ok(devices)
}

/// Opens a path as the container's processes see it; no link leads out of their root.
fn within(pid: i32, path: &str, flags: OFlags) -> std::io::Result<File> {
    let root = File::open(Path::new("/proc").join(pid.to_string()).join("root"))?;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?
        .into())
}
