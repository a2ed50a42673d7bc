//! Mounts by descriptor (the mount API of Linux 5.2 to 5.12): a mount is made or cloned detached, given its attributes while
//! nobody can see it, then moved onto an already resolved descriptor. No path is looked up twice, so none can be swapped
//! between (CVE-2021-30465, CVE-2023-27561).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::{CallError, Named};

/// `MOUNT_ATTR_*` bits as `mount_setattr` takes them.
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The mask of the three atime settings; must be cleared whole before one is set.
    pub const ATIME_MASK: u64 = 0x70;
    pub const RELATIME: u64 = 0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// How mounts made on one copy of a mount show on the others (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    const fn flag(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change of a mount's attributes: clear first, then set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: Option<Propagation>,
}

/// File system magic numbers, statfs(2).
pub mod magic {
    pub const PROC: i64 = 0x9fa0;
    pub const SYSFS: i64 = 0x6265_6572;
    pub const CGROUP: i64 = 0x0027_e0eb;
    pub const CGROUP2: i64 = 0x6367_7270;
    pub const DEVPTS: i64 = 0x1cd1;
    pub const TMPFS: i64 = 0x0102_1994;
    pub const DEBUGFS: i64 = 0x6462_6720;
    pub const TRACEFS: i64 = 0x7472_6163;
    pub const BPF: i64 = 0xcafe_4a11;
    pub const SECURITYFS: i64 = 0x7363_6673;
    pub const PSTORE: i64 = 0x6165_676c;
    pub const EFIVARFS: i64 = 0xde5e_81e4;
    pub const NSFS: i64 = 0x6e73_6673;
}

/// One parameter of a new file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    Flag(String),
    Text(String, String),
}

/// Makes a file system and a detached mount of it. `attributes` are `attr::*` bits.
///
/// # Errors
/// Of the call that failed, with the parameter and what the kernel's log of the context says.
pub fn new_file_system(
    fs_type: &str,
    parameters: &[Parameter],
    attributes: u64,
) -> Result<OwnedFd, CallError> {
    let context = rustix::mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC).named("fsopen", fs_type)?;
    let explained = |call, on: String, errno| {
        let log = context_log(&context);
        let on = if log.is_empty() { on } else { format!("{on} ({log})") };
        CallError::new(call, on, errno)
    };
    for parameter in parameters {
        match parameter {
            Parameter::Flag(key) => rustix::mount::fsconfig_set_flag(context.as_fd(), key.as_str())
                .map_err(|errno| explained("fsconfig", format!("{fs_type} {key}"), errno))?,
            Parameter::Text(key, value) => {
                rustix::mount::fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())
                    .map_err(|errno| explained("fsconfig", format!("{fs_type} {key}={value}"), errno))?;
            }
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())
        .map_err(|errno| explained("fsconfig", format!("{fs_type} create"), errno))?;
    let bits = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(u32::MAX));
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, bits)
        .map_err(|errno| explained("fsmount", fs_type.to_owned(), errno))
}

/// The messages a file system context has for us, on one line.
fn context_log(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 || text.len() > 4096 {
            break;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(String::from_utf8_lossy(&buffer[..length]).trim());
    }
    text
}

/// Makes a detached overlay mount of `lower` (top first) with `upper` and `work`.
///
/// Layers are passed one by one (`lowerdir+`, Linux 6.7); before that as one string, which fsconfig limits to 255
/// bytes: descriptors below /proc/self/fd keep about 14 layers within it.
///
/// # Errors
/// Of the call that failed; `E2BIG` for more layers than an older kernel takes.
pub fn overlay(lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd, CallError> {
    let link = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let rest =
        [Parameter::Text("upperdir".into(), link(upper)), Parameter::Text("workdir".into(), link(work))];
    let one_by_one: Vec<Parameter> =
        lower.iter().map(|fd| Parameter::Text("lowerdir+".into(), link(fd))).chain(rest.clone()).collect();
    match new_file_system("overlay", &one_by_one, 0) {
        Err(error) if error.errno == rustix::io::Errno::INVAL && error.on.contains("lowerdir+") => {
            let joined = lower.iter().map(link).collect::<Vec<_>>().join(":");
            if joined.len() > 255 {
                let layers = format!("overlay of {} layers (this kernel takes fewer)", lower.len());
                return Err(CallError::new("fsconfig", layers, rustix::io::Errno::TOOBIG));
            }
            let parameters: Vec<Parameter> =
                [Parameter::Text("lowerdir".into(), joined)].into_iter().chain(rest).collect();
            new_file_system("overlay", &parameters, 0)
        }
        other => other,
    }
}

/// A detached copy of the mount (recursively: and those below it) at an open descriptor: the start of a bind mount.
///
/// # Errors
/// `EINVAL` when the mount is of another mount namespace or unbindable.
pub fn clone_tree(at: impl AsFd, recursive: bool, name: &str) -> Result<OwnedFd, CallError> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(at.as_fd(), "", flags).named("open_tree", name)
}

/// Changes attributes of a mount (recursively: and of all below it), all or nothing.
///
/// # Errors
/// mount_setattr's errno.
pub fn set_attributes(
    mount: impl AsFd,
    recursive: bool,
    attributes: MountAttributes,
    name: &str,
) -> Result<(), CallError> {
    if attributes == MountAttributes::default() {
        return Ok(());
    }
    #[repr(C)]
    struct Raw {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let raw = Raw {
        set: attributes.set,
        clear: attributes.clear,
        propagation: attributes.propagation.map_or(0, Propagation::flag),
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated empty string, `raw` has mount_attr's layout and size and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<Raw>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(CallError::last("mount_setattr", name)) }
}

/// Attaches a detached mount onto an open descriptor.
///
/// # Errors
/// move_mount's errno; `ENOTDIR` when one is a directory and the other is not.
pub fn attach(mount: impl AsFd, onto: impl AsFd, name: &str) -> Result<(), CallError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", onto.as_fd(), "", flags).named("move_mount", name)
}

/// Changes the propagation of the whole tree this process sees.
///
/// # Errors
/// mount's errno.
pub fn propagate_root(propagation: Propagation) -> Result<(), CallError> {
    let root = rustix::fs::openat(
        CWD,
        "/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .named("open", "/")?;
    set_attributes(root, true, MountAttributes { propagation: Some(propagation), ..Default::default() }, "/")
}

/// Makes the mounted directory `new_root` this process's root and lets go of the old one. Leaves the working directory at `/`.
///
/// # Errors
/// Of the call that failed.
pub fn pivot_root(new_root: impl AsFd) -> Result<(), CallError> {
    rustix::process::fchdir(new_root).named("fchdir", "new root")?;
    // The old root is stacked below the new one at the same place, so no directory for it is needed: pivot_root(2).
    rustix::process::pivot_root(".", ".").named("pivot_root", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).named("umount2", "old root")?;
    rustix::process::chdir("/").named("chdir", "/")
}

/// Detaches a mount.
///
/// # Errors
/// umount2's errno.
pub fn detach(path: &Path) -> Result<(), CallError> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .named("umount2", path.display())
}

/// The magic number of the file system a descriptor is on, see [`magic`].
///
/// # Errors
/// fstatfs's errno.
pub fn file_system(fd: impl AsFd, name: &str) -> Result<i64, CallError> {
    // The kernel's magic numbers are 32 bits; where the field is signed, a high bit must not be extended.
    Ok(i64::from(rustix::fs::fstatfs(fd).named("fstatfs", name)?.f_type as u32))
}
