//! Stage `Paths`: what is hidden and what is read-only. A path that is not there is no error; any other failure is: a mask that cannot be
//! laid must not be missing in silence.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use keeper::protocol::{Failure, Stage};
use kernel::mount::{self, MountAttributes, Parameter, Propagation, attr};
use kernel::resolve::{self, Links};
use kernel::{CallError, Named};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::At;

/// A detached mount of the node's null device: what masks files.
pub fn null_mount() -> Result<OwnedFd, Failure> {
    let null = mount::clone_tree(&null_device()?, false, "/dev/null").at(Stage::Paths)?;
    let change = MountAttributes {
        set: attr::NOSUID | attr::NOEXEC,
        clear: 0,
        propagation: Some(Propagation::Private),
    };
    mount::set_attributes(&null, false, change, "/dev/null").at(Stage::Paths)?;
    Ok(null)
}

/// The node's own null device, looked at (CVE-2025-31133: the container's /dev/null is the image's to choose).
fn null_device() -> Result<OwnedFd, Failure> {
    let path = "/dev/null";
    let null = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .named("open", path)
        .at(Stage::Paths)?;
    let found = rustix::fs::fstat(&null).named("fstat", path).at(Stage::Paths)?;
    let is_null = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == rustix::fs::makedev(1, 3);
    if is_null {
        Ok(null)
    } else {
        Err(Failure { stage: Stage::Paths, message: "/dev/null is not the null device".into() })
    }
}

fn find(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    match resolve::open(root, path, OFlags::PATH, Links::InRoot) {
        Ok(found) => Ok(Some(found)),
        Err(CallError { errno: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
        Err(error) => Err(error).at(Stage::Paths),
    }
}

/// Hides files under the null device and directories under an empty read-only tmpfs. `null` is a detached mount of the node's: laid over
/// the first file, and cloned from there for the others (a detached mount of another mount namespace cannot be cloned).
pub fn mask(root: &OwnedFd, paths: &[PathBuf], null: &OwnedFd) -> Result<(), Failure> {
    let mut null_is_laid = false;
    // One tmpfs serves all directories.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(onto) = find(root, path)? else { continue };
        let name = path.display().to_string();
        let found = rustix::fs::fstat(&onto).named("fstat", &name).at(Stage::Paths)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let fresh = |_: &OwnedFd| {
                let parameters = [
                    Parameter::Text("size".into(), "0".into()),
                    Parameter::Text("nr_inodes".into(), "1".into()),
                    Parameter::Text("mode".into(), "755".into()),
                ];
                mount::new_file_system(
                    "tmpfs",
                    &parameters,
                    attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
                )
            };
            let tree = match &empty {
                Some(first) => mount::clone_tree(first, false, &name).or_else(|_| fresh(&onto)),
                None => fresh(&onto),
            }
            .at(Stage::Paths)?;
            mount::attach(&tree, &onto, &name).at(Stage::Paths)?;
            empty.get_or_insert(tree);
        } else {
            if null_is_laid {
                let tree = mount::clone_tree(null, false, &name).at(Stage::Paths)?;
                mount::attach(&tree, &onto, &name).at(Stage::Paths)?;
            } else {
                mount::attach(null, &onto, &name).at(Stage::Paths)?;
                null_is_laid = true;
            }
        }
    }
    Ok(())
}

/// Makes paths and all mounted below them read-only.
pub fn readonly(root: &OwnedFd, paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        let Some(onto) = find(root, path)? else { continue };
        let name = path.display().to_string();
        let tree = mount::clone_tree(&onto, true, &name).at(Stage::Paths)?;
        let change = MountAttributes { set: attr::RDONLY, clear: 0, propagation: Some(Propagation::Private) };
        mount::set_attributes(&tree, true, change, &name).at(Stage::Paths)?;
        mount::attach(&tree, &onto, &name).at(Stage::Paths)?;
    }
    Ok(())
}
