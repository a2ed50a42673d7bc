//! Stage `Mounts`: the Spec's mounts in their order, each made detached, given its attributes, then moved onto a descriptor
//! resolved inside the root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use keeper::protocol::{Failure, Stage};
use kernel::cgroup::Hierarchies;
use kernel::mount::{self, MountAttributes, Parameter, Propagation, attr, magic};
use kernel::resolve::{self, Links};
use kernel::{CallError, Named};
use rustix::fs::{FileType, Mode, OFlags};

use super::At;
use crate::mount_options::{MountPlan, Source};

/// A mount whose source has been taken while the keeper's mount namespace was still ours.
pub struct Prepared<'a> {
    plan: &'a MountPlan,
    /// `None` for what is made inside the container's namespaces.
    tree: Option<OwnedFd>,
}

fn failed(plan: &MountPlan, what: impl std::fmt::Display) -> Failure {
    Failure { stage: Stage::Mounts, message: format!("{}: {what}", plan.destination.display()) }
}

/// Clones the sources of all bind mounts: afterwards their paths are looked up no more.
pub fn take_sources<'a>(
    plans: &'a [MountPlan],
    attached: &[OwnedFd],
    shm: Option<&OwnedFd>,
) -> Result<Vec<Prepared<'a>>, Failure> {
    let mut prepared = Vec::new();
    for plan in plans {
        let tree = match &plan.source {
            Source::Bind { path, recursive } => {
                let source = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .named("open", path.display())
                    .map_err(|error| failed(plan, error))?;
                Some(bind(plan, &source, *recursive, &path.display().to_string())?)
            }
            Source::Descriptor { index, recursive } => {
                let source = attached.get(*index).ok_or_else(|| failed(plan, "its descriptor is missing"))?;
                Some(bind(plan, source, *recursive, &format!("fd:{index}"))?)
            }
            // The pod's containers share one /dev/shm, as they share the IPC namespace.
            Source::New { fs_type, .. }
                if fs_type == "tmpfs" && plan.destination == Path::new("/dev/shm") =>
            {
                shm.map(|shm| mount::clone_tree(shm, false, "/dev/shm"))
                    .transpose()
                    .map_err(|e| failed(plan, e))?
            }
            Source::New { .. } | Source::Cgroup => None,
        };
        prepared.push(Prepared { plan, tree });
    }
    Ok(prepared)
}

fn bind(plan: &MountPlan, source: &OwnedFd, recursive: bool, name: &str) -> Result<OwnedFd, Failure> {
    may_cover(plan, source)?;
    if let Some((kind @ (Propagation::Shared | Propagation::Slave), _)) = plan.propagation {
        has_propagation(source, kind, name).map_err(|what| failed(plan, what))?;
    }
    mount::clone_tree(source, recursive, name).map_err(|error| failed(plan, error))
}

/// CVE-2019-16884 and its kin: over /proc nothing but a procfs may lie, and over /sys and below it only what is of its kind.
fn may_cover(plan: &MountPlan, source: &OwnedFd) -> Result<(), Failure> {
    let destination = &plan.destination;
    let kind = mount::file_system(source, "source").map_err(|error| failed(plan, error))?;
    if destination.starts_with("/proc") && !(destination == Path::new("/proc") && kind == magic::PROC) {
        return Err(failed(plan, "refused: a mount inside /proc (CVE-2019-16884)"));
    }
    let of_sys = [
        magic::SYSFS,
        magic::CGROUP,
        magic::CGROUP2,
        magic::DEBUGFS,
        magic::TRACEFS,
        magic::BPF,
        magic::SECURITYFS,
        magic::PSTORE,
        magic::EFIVARFS,
    ];
    // /sys/fs/cgroup itself is a tmpfs where version 1 is mounted.
    let cgroups = destination == Path::new("/sys/fs/cgroup") && kind == magic::TMPFS;
    if destination.starts_with("/sys") && !of_sys.contains(&kind) && !cgroups {
        return Err(failed(
            plan,
            "refused: a mount inside /sys of what is not a kernel file system (CVE-2019-16884)",
        ));
    }
    Ok(())
}

/// Kubernetes' mountPropagation needs a source that propagates: its own words when it does not.
fn has_propagation(source: &OwnedFd, kind: Propagation, name: &str) -> Result<(), String> {
    use rustix::fs::{AtFlags, StatxFlags};
    const MNT_ID: u32 = 0x1000;
    let found = rustix::fs::statx(source, "", AtFlags::EMPTY_PATH, StatxFlags::from_bits_retain(MNT_ID))
        .map_err(|errno| CallError::new("statx", name, errno).to_string())?;
    let id = found.stx_mnt_id.to_string();
    let text =
        std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(&id)).unwrap_or_default();
    let fields = line.split(" - ").next().unwrap_or_default();
    let shared = fields.contains(" shared:");
    let slave = fields.contains(" master:");
    match kind {
        Propagation::Shared if !shared => Err(format!("path {name} is mounted but it is not a shared mount")),
        Propagation::Slave if !shared && !slave => {
            Err(format!("path {name} is mounted but it is not a shared or slave mount"))
        }
        _ => Ok(()),
    }
}

/// What carrying a mount out needs besides the plan.
pub struct Context<'a> {
    pub root: &'a OwnedFd,
    pub hierarchies: &'a Hierarchies,
    pub own_cgroup_namespace: bool,
    /// The cgroup, relative, for where the container has no cgroup namespace.
    pub cgroup: &'a Path,
}

/// Carries one mount out.
pub fn perform(prepared: Prepared<'_>, context: &Context<'_>) -> Result<(), Failure> {
    let Prepared { plan, tree } = prepared;
    match (&plan.source, tree) {
        (Source::Cgroup, _) => cgroup(plan, context),
        (Source::New { .. }, Some(tree)) | (Source::Bind { .. } | Source::Descriptor { .. }, Some(tree)) => {
            let is_directory = FileType::from_raw_mode(
                rustix::fs::fstat(&tree).named("fstat", "source").map_err(|e| failed(plan, e))?.st_mode,
            ) == FileType::Directory;
            set(plan, &tree)?;
            place(plan, &tree, is_directory, context)
        }
        (Source::New { fs_type, parameters }, None) => {
            let tree = mount::new_file_system(fs_type, parameters, plan.attributes.set)
                .map_err(|error| failed(plan, error))?;
            if let Some((kind, _)) = plan.propagation.filter(|(kind, _)| *kind != Propagation::Private) {
                let change = MountAttributes { propagation: Some(kind), ..Default::default() };
                mount::set_attributes(&tree, false, change, fs_type).map_err(|error| failed(plan, error))?;
            }
            if fs_type == "proc" {
                // A redirected write to "procfs" must not land elsewhere (CVE-2025-52881): ours is one by its type.
                let kind = mount::file_system(&tree, "proc").map_err(|error| failed(plan, error))?;
                if kind != magic::PROC {
                    return Err(failed(plan, "what was mounted is no procfs"));
                }
            }
            place(plan, &tree, true, context)
        }
        (Source::Bind { .. } | Source::Descriptor { .. }, None) => {
            Err(failed(plan, "its source was not taken"))
        }
    }
}

fn set(plan: &MountPlan, tree: &OwnedFd) -> Result<(), Failure> {
    let name = plan.destination.display().to_string();
    // Without a word on propagation what is mounted here stays here, and what the node mounts there does not show.
    let (kind, deep) = plan.propagation.unwrap_or((Propagation::Private, true));
    let kind = MountAttributes { propagation: Some(kind), ..Default::default() };
    mount::set_attributes(tree, deep, kind, &name)
        .and_then(|()| mount::set_attributes(tree, true, plan.recursive, &name))
        .and_then(|()| mount::set_attributes(tree, false, plan.attributes, &name))
        .map_err(|error| failed(plan, error))
}

fn place(plan: &MountPlan, tree: &OwnedFd, is_directory: bool, context: &Context<'_>) -> Result<(), Failure> {
    let onto = target(context.root, plan, is_directory)?;
    mount::attach(tree, onto, &plan.destination.display().to_string()).map_err(|error| failed(plan, error))
}

/// The descriptor to mount on, made if missing. For /proc and /sys no link may stand in the way (CVE-2019-19921); nothing else may end up in
/// a procfs or sysfs by a link of the image's.
fn target(root: &OwnedFd, plan: &MountPlan, is_directory: bool) -> Result<OwnedFd, Failure> {
    let destination = &plan.destination;
    let kernel_path = destination.starts_with("/proc") || destination.starts_with("/sys");
    let links = if kernel_path { Links::None } else { Links::InRoot };
    let made = if is_directory {
        resolve::make_directories(root, destination, 0o755, links)
    } else {
        resolve::make_file(root, destination, links)
    };
    let onto = made.map_err(|error| failed(plan, error))?;
    if !kernel_path {
        let kind = mount::file_system(&onto, "destination").map_err(|error| failed(plan, error))?;
        if kind == magic::PROC || kind == magic::SYSFS {
            return Err(failed(plan, "refused: it leads into a procfs or sysfs (CVE-2019-16884)"));
        }
    }
    Ok(onto)
}

/// The cgroup file systems as the container sees them: on version 2 the one, else a tmpfs with a mount for each version 1 hierarchy. Always
/// without set-uid, devices and programs; read-only where the Spec says so (with CAP_SYS_ADMIN a writable version 1 hierarchy is
/// the machine: CVE-2022-0492).
fn cgroup(plan: &MountPlan, context: &Context<'_>) -> Result<(), Failure> {
    let attributes = plan.attributes.set | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let fs = |fs_type: &str, parameters: &[Parameter], attributes| {
        mount::new_file_system(fs_type, parameters, attributes).map_err(|error| failed(plan, error))
    };
    // A new mount of a hierarchy shows the part that the cgroup namespace begins with. Without an own namespace that is the
    // node's, so only the container's own subtree is bound.
    let hierarchy = |fs_type: &str, parameters: &[Parameter]| -> Result<OwnedFd, Failure> {
        let whole = fs(fs_type, parameters, attributes)?;
        if context.own_cgroup_namespace {
            return Ok(whole);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let part = rustix::fs::openat(&whole, context.cgroup, flags, Mode::empty())
            .named("openat", context.cgroup.display())
            .map_err(|error| failed(plan, error))?;
        mount::clone_tree(&part, false, "cgroup").map_err(|error| failed(plan, error))
    };
    if context.hierarchies.is_unified() {
        let tree = hierarchy("cgroup2", &[])?;
        return place(plan, &tree, true, context);
    }
    let top = fs("tmpfs", &[Parameter::Text("mode".into(), "755".into())], attributes & !attr::RDONLY)?;
    place(plan, &top, true, context)?;
    for known in &context.hierarchies.v1 {
        let Some(name) = known.mount.file_name().map(PathBuf::from) else { continue };
        let parameters: Vec<Parameter> = known
            .controllers
            .iter()
            .map(|controller| match controller.strip_prefix("name=") {
                Some(name) => Parameter::Text("name".into(), name.into()),
                None => Parameter::Flag(controller.clone()),
            })
            .chain(
                known
                    .controllers
                    .iter()
                    .any(|c| c.starts_with("name="))
                    .then(|| Parameter::Flag("none".into())),
            )
            .collect();
        let tree = hierarchy("cgroup", &parameters)?;
        rustix::fs::mkdirat(&top, &name, Mode::from_raw_mode(0o755))
            .named("mkdirat", name.display())
            .map_err(|error| failed(plan, error))?;
        let onto = resolve::open(&top, &name, OFlags::PATH | OFlags::DIRECTORY, Links::None)
            .map_err(|error| failed(plan, error))?;
        mount::attach(&tree, onto, &name.display().to_string()).map_err(|error| failed(plan, error))?;
        // `cpu,cpuacct` is also found as `cpu` and as `cpuacct`.
        for alias in known.controllers.iter().filter(|alias| Path::new(alias) != name && !alias.contains('='))
        {
            rustix::fs::symlinkat(&name, &top, alias.as_str())
                .named("symlinkat", alias)
                .map_err(|error| failed(plan, error))?;
        }
    }
    if plan.attributes.set & attr::RDONLY != 0 {
        let ro = MountAttributes { set: attr::RDONLY, ..Default::default() };
        mount::set_attributes(top.as_fd(), false, ro, "cgroup tmpfs").map_err(|error| failed(plan, error))?;
    }
    Ok(())
}

/// Changes the root's own attributes at the end, when nothing more is to be made in it.
pub fn finish_root(root: &OwnedFd, readonly: bool, propagation: Option<Propagation>) -> Result<(), Failure> {
    let set = if readonly { attr::RDONLY } else { 0 };
    mount::set_attributes(root, false, MountAttributes { set, clear: 0, propagation: None }, "/")
        .at(Stage::Mounts)?;
    let change = MountAttributes { propagation, ..Default::default() };
    mount::set_attributes(root, false, change, "/").at(Stage::Mounts)
}
