//! Stage `Rootfs`: the container's root as a detached mount, made before the mount namespace is left, attached after.

use std::os::fd::OwnedFd;
use std::path::Path;

use keeper::protocol::{Failure, Rootfs, Stage};
use kernel::mount::{self, MountAttributes, Propagation};
use kernel::{CallError, Named};
use rustix::fs::{Mode, OFlags};

use super::At;

fn directory(path: &Path) -> Result<OwnedFd, CallError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .named("open", path.display())
}

fn made(path: &Path, mode: u32) -> Result<OwnedFd, CallError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => directory(path),
        Err(errno) => Err(CallError::new("mkdir", path.display().to_string(), errno)),
    }
}

/// Makes the root's mount, seen by nobody yet.
pub fn detached(rootfs: &Rootfs) -> Result<OwnedFd, Failure> {
    match rootfs {
        Rootfs::Overlay { lower, upper, work } => {
            if lower.is_empty() {
                return Err(crate::plan::refuse("rootfs: an overlay without lower directories"));
            }
            let lower =
                lower.iter().map(|path| directory(path)).collect::<Result<Vec<_>, _>>().at(Stage::Rootfs)?;
            // 0755 for the upper one: it shows as the mode of the container's `/`.
            let upper = made(upper, 0o755).at(Stage::Rootfs)?;
            let work = made(work, 0o700).at(Stage::Rootfs)?;
            mount::overlay(&lower, &upper, &work).at(Stage::Rootfs)
        }
        Rootfs::Path(path) => {
            let source = directory(path).at(Stage::Rootfs)?;
            let name = path.display().to_string();
            let tree = mount::clone_tree(&source, true, &name).at(Stage::Rootfs)?;
            let private = MountAttributes { propagation: Some(Propagation::Private), ..Default::default() };
            mount::set_attributes(&tree, true, private, &name).at(Stage::Rootfs)?;
            Ok(tree)
        }
    }
}

/// Attaches it over `place` in this process's own mount namespace.
pub fn attach(root: &OwnedFd, place: &Path) -> Result<(), Failure> {
    let onto = directory(place).at(Stage::Rootfs)?;
    mount::attach(root, onto, &format!("root over {}", place.display())).at(Stage::Rootfs)
}
