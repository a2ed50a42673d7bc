//! Stage `Devices`: the default devices and links of OCI's runtime specification, those the Spec adds, and the terminal as /dev/console.

use std::os::fd::OwnedFd;
use std::path::Path;

use keeper::protocol::{Failure, Stage};
use kernel::mount::{self, magic};
use kernel::resolve::{self, Links};
use kernel::{Named, fds};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::At;
use crate::plan::Device;

/// The devices every container has: config-linux.md, "Default Devices".
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links that programs expect: "Dev symbolic links" of the same document.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes all device nodes and links. `own_dev`: whether the Spec mounts a /dev of the container's own; with the node's bound in its
/// place nothing is made there.
pub fn make(root: &OwnedFd, devices: &[Device], own_dev: bool) -> Result<(), Failure> {
    if own_dev {
        for (name, major, minor) in DEFAULTS {
            let path = Path::new("/dev").join(name);
            if devices.iter().any(|device| device.path == path) {
                continue;
            }
            let kind = FileType::CharacterDevice;
            node(root, &Device { path, kind, major, minor, mode: 0o666, uid: 0, gid: 0 })?;
        }
        let dev = resolve::open(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY, Links::None)
            .at(Stage::Devices)?;
        for (target, name) in LINKS {
            match rustix::fs::symlinkat(target, &dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err(errno).named("symlinkat", format!("/dev/{name}")).at(Stage::Devices);
                }
            }
        }
    }
    devices.iter().try_for_each(|device| node(root, device))
}

fn node(root: &OwnedFd, device: &Device) -> Result<(), Failure> {
    let path = &device.path;
    let (parent, name) = resolve::parent_of(root, path, Links::InRoot).at(Stage::Devices)?;
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(&parent, &name, device.kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)
                .named("fstatat", path.display())
                .at(Stage::Devices)?;
            if FileType::from_raw_mode(found.st_mode) != device.kind || found.st_rdev != number {
                let message = format!("{}: something else is there", path.display());
                return Err(Failure { stage: Stage::Devices, message });
            }
            return Ok(());
        }
        // No right to make devices here: bind the node's own, after a look at what it is.
        Err(Errno::PERM) => return Err(Errno::PERM).named("mknodat", path.display()).at(Stage::Devices),
        Err(errno) => return Err(errno).named("mknodat", path.display()).at(Stage::Devices),
    }
    // mknod's mode was cut by the umask.
    let made =
        rustix::fs::openat(&parent, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .named("openat", path.display())
            .at(Stage::Devices)?;
    rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(device.mode), AtFlags::empty())
        .named("fchmodat", path.display())
        .at(Stage::Devices)?;
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(device.uid), rustix::fs::Gid::from_raw(device.gid));
        rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            .named("fchownat", path.display())
            .at(Stage::Devices)?;
    }
    Ok(())
}

/// Opens a new terminal of the container's own devpts: (master, slave).
pub fn terminal(root: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Failure> {
    let path = Path::new("/dev/pts/ptmx");
    let master = resolve::open(root, path, OFlags::RDWR | OFlags::NOCTTY, Links::None).at(Stage::Devices)?;
    if mount::file_system(&master, "/dev/pts/ptmx").at(Stage::Devices)? != magic::DEVPTS {
        let message = "/dev/pts/ptmx is not of a devpts (CVE-2025-52565)".into();
        return Err(Failure { stage: Stage::Devices, message });
    }
    let slave = fds::terminal_peer(&master).at(Stage::Devices)?;
    Ok((master, slave))
}

/// Makes the terminal /dev/console too, by descriptor: what the image has there is not followed.
pub fn console(root: &OwnedFd, slave: &OwnedFd) -> Result<(), Failure> {
    let path = Path::new("/dev/console");
    let onto = resolve::make_file(root, path, Links::None).at(Stage::Devices)?;
    let tree = mount::clone_tree(slave, false, "/dev/console").at(Stage::Devices)?;
    mount::attach(tree, onto, "/dev/console").at(Stage::Devices)
}
