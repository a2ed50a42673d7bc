//! Paths inside a root that somebody else controls: `openat2` with RESOLVE_IN_ROOT and without magic links, so that no symbolic link,
//! `..` or race leads out; directories are made on resolved descriptors (CVE-2024-45310), never by path.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{CallError, Named};

/// How far a lookup may follow symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Followed, staying in the root.
    InRoot,
    /// None anywhere in the path: it is what it says.
    None,
}

/// Opens `path` (absolute or not) inside `root`. `O_CLOEXEC` is added.
///
/// # Errors
/// openat2's errno; `ELOOP` where a link is not allowed.
pub fn open(root: impl AsFd, path: &Path, flags: OFlags, links: Links) -> Result<OwnedFd, CallError> {
    open_raw(root, path, flags, links).named("openat2", path.display())
}

fn open_raw(root: impl AsFd, path: &Path, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
    let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::None {
        how |= ResolveFlags::NO_SYMLINKS;
    }
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // A rename or mount raced with `..`: the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens the directory `path` inside `root` (`O_PATH`), making what is missing with `mode`.
///
/// # Errors
/// Of the call that failed; `ENOTDIR` for another kind of file in the way.
pub fn make_directories(root: impl AsFd, path: &Path, mode: u32, links: Links) -> Result<OwnedFd, CallError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    // The common case: all is there.
    match open_raw(&root, path, flags, links) {
        Err(Errno::NOENT) => {}
        other => return other.named("openat2", path.display()),
    }
    let mut so_far = std::path::PathBuf::from("/");
    let mut parent = open(&root, &so_far, flags, links)?;
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            Component::ParentDir => {
                return Err(CallError::new("mkdirat", path.display().to_string(), Errno::INVAL));
            }
            Component::Normal(name) => {
                so_far.push(name);
                parent = match open_raw(&root, &so_far, flags, links) {
                    Err(Errno::NOENT) => {
                        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(errno) => {
                                return Err(CallError::new("mkdirat", so_far.display().to_string(), errno));
                            }
                        }
                        open(&root, &so_far, flags, links)?
                    }
                    other => other.named("openat2", so_far.display())?,
                };
            }
        }
    }
    Ok(parent)
}

/// Opens the file `path` inside `root` (`O_PATH`) whatever its kind, making an empty regular one (and directories above it) if missing.
///
/// # Errors
/// Of the call that failed.
pub fn make_file(root: impl AsFd, path: &Path, links: Links) -> Result<OwnedFd, CallError> {
    match open_raw(&root, path, OFlags::PATH, links) {
        Err(Errno::NOENT) => {}
        other => return other.named("openat2", path.display()),
    }
    let (parent, name) = parent_of(root, path, links)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(CallError::new("openat", path.display().to_string(), errno)),
    }
    rustix::fs::openat(&parent, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .named("openat", path.display())
}

/// The directory that holds the last component of `path`, made if missing (mode 0755), and that component.
///
/// # Errors
/// `EINVAL` when the path has no last component; else of the call that failed.
pub fn parent_of(
    root: impl AsFd,
    path: &Path,
    links: Links,
) -> Result<(OwnedFd, std::ffi::OsString), CallError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(CallError::new("openat2", path.display().to_string(), Errno::INVAL));
    };
    Ok((make_directories(root, parent, 0o755, links)?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let dir = std::env::temp_dir().join(format!("cofferdam-resolve-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let fd = rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn links_lead_nowhere_outside_the_root() {
        let (dir, fd) = root("links");
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        std::fs::write(dir.join("etc/passwd"), "inside").unwrap();
        for (name, target) in [("absolute", "/etc/passwd"), ("dots", "../../../../../../etc/passwd")] {
            symlink(target, dir.join(name)).unwrap();
            let opened = open(&fd, Path::new(name), OFlags::RDONLY, Links::InRoot).unwrap();
            let text = std::io::read_to_string(std::fs::File::from(opened)).unwrap();
            assert_eq!(text, "inside", "{name}");
            assert_eq!(
                open(&fd, Path::new(name), OFlags::RDONLY, Links::None).unwrap_err().errno,
                Errno::LOOP
            );
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn directories_are_made_inside_the_root_through_links() {
        let (dir, fd) = root("mkdir");
        std::fs::create_dir_all(dir.join("real")).unwrap();
        symlink("/real", dir.join("link")).unwrap();
        make_directories(&fd, Path::new("/link/a/b"), 0o755, Links::InRoot).unwrap();
        assert!(dir.join("real/a/b").is_dir());
        make_file(&fd, Path::new("/link/c/file"), Links::InRoot).unwrap();
        assert!(dir.join("real/c/file").is_file());
        symlink("/nowhere", dir.join("dangling")).unwrap();
        assert_eq!(
            make_directories(&fd, Path::new("/dangling/x"), 0o755, Links::InRoot).unwrap_err().errno,
            Errno::NOENT
        );
        assert_eq!(
            make_directories(&fd, Path::new("new/../x"), 0o755, Links::InRoot).unwrap_err().errno,
            Errno::INVAL
        );
        std::fs::remove_dir_all(dir).unwrap();
    }
}
