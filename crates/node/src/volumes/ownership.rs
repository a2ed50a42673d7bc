//! fsGroup: a volume's files belong to the group, which may read and write them; directories hand the group on
//! (`pkg/volume/volume_linux.go`). No link is followed: each file is opened once, looked at and changed by descriptor.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::CallError;

/// How a volume is given to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsGroup {
    pub gid: u32,
    /// The containers cannot write it: the group gets read only.
    pub read_only: bool,
    /// Nothing is changed where the root already fits.
    pub on_root_mismatch: bool,
}

impl FsGroup {
    /// What a file's mode becomes.
    pub fn mode(&self, mode: u32, directory: bool) -> u32 {
        let bits = if self.read_only { 0o440 } else { 0o660 };
        mode | bits | if directory { 0o2110 } else { 0 }
    }

    /// The root is the group's already, and permits what it should.
    fn fits(&self, stat: &Stat) -> bool {
        stat.st_gid == self.gid && self.mode(stat.st_mode & 0o7777, true) == stat.st_mode & 0o7777
    }

    /// Gives `root` and all below it to the group, the root last: a run that was cut short is repeated.
    pub fn apply(&self, root: &Path) -> Result<(), CallError> {
        let fd = open_directory(root)?;
        if self.on_root_mismatch && self.fits(&stat(&fd, root)?) {
            return Ok(());
        }
        let mut directories = vec![PathBuf::new()];
        walk(&fd, root, |relative, entry, stat| {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push(relative.to_owned());
                return Ok(());
            }
            self.change(entry, stat, &root.join(relative))
        })?;
        for relative in directories.iter().rev() {
            let path = root.join(relative);
            let directory = match open_beneath(&fd, relative, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(directory) => directory,
                // Removed meanwhile by a container that shares it.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(CallError::new("openat2", path.display().to_string(), errno)),
            };
            let stat = stat(&directory, &path)?;
            self.change(&directory, &stat, &path)?;
        }
        Ok(())
    }

    /// One file, by a descriptor of exactly it. A link itself changes its group, and never its target's mode.
    fn change(&self, fd: &OwnedFd, stat: &Stat, path: &Path) -> Result<(), CallError> {
        let on = || path.display().to_string();
        if stat.st_gid != self.gid {
            rustix::fs::chownat(
                fd,
                "",
                None,
                Some(Gid::from_raw(self.gid)),
                AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|errno| CallError::new("fchownat", on(), errno))?;
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Ok(());
        }
        let mode = self.mode(stat.st_mode & 0o7777, kind == FileType::Directory);
        // chown may have cleared bits, so the mode is set even where it looks right already.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::chmodat(CWD, &link, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|errno| CallError::new("chmod", on(), errno))
    }
}

/// Opens a directory whose last component is no link.
pub fn open_directory(path: &Path) -> Result<OwnedFd, CallError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| CallError::new("open", path.display().to_string(), errno))
}

/// Opens below a directory; through no link and onto no other mount.
pub fn open_beneath(root: impl AsFd, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, relative, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

pub fn stat(fd: impl AsFd, path: &Path) -> Result<Stat, CallError> {
    rustix::fs::fstat(fd).map_err(|errno| CallError::new("fstat", path.display().to_string(), errno))
}

/// Visits all below a directory with an `O_PATH` descriptor of each, directories before what is in them. What vanishes
/// meanwhile is left out, as are other mounts.
pub fn walk(
    root: &OwnedFd,
    name: &Path,
    mut visit: impl FnMut(&Path, &OwnedFd, &Stat) -> Result<(), CallError>,
) -> Result<(), CallError> {
    let error = |call: &'static str, path: &Path, errno: Errno| {
        CallError::new(call, name.join(path).display().to_string(), errno)
    };
    let mut queue = vec![PathBuf::new()];
    while let Some(relative) = queue.pop() {
        let directory = match open_beneath(root, &relative, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
            Err(errno) => return Err(error("openat2", &relative, errno)),
        };
        for entry in names(&directory).map_err(|errno| error("getdents64", &relative, errno))? {
            let path = relative.join(&entry);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&directory, &entry, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(error("openat", &path, errno)),
            };
            let stat = stat(&fd, &name.join(&path))?;
            visit(&path, &fd, &stat)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                queue.push(path);
            }
        }
    }
    Ok(())
}

/// The names in a directory, without `.` and `..`.
pub fn names(directory: impl AsFd) -> Result<Vec<std::ffi::OsString>, Errno> {
    use std::os::unix::ffi::OsStringExt;
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Bytes on disk of all below a directory; a file with several names counts once.
pub fn usage(root: &Path) -> Result<u64, CallError> {
    let fd = open_directory(root)?;
    let mut seen = BTreeSet::new();
    let mut total = stat(&fd, root)?.st_blocks as u64 * 512;
    walk(&fd, root, |_, _, stat| {
        if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) {
            total += stat.st_blocks as u64 * 512;
        }
        Ok(())
    })?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    fn shape(path: &Path) -> (u32, u32) {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.mode() & 0o7777, metadata.gid())
    }

    #[test]
    fn modes_gain_what_the_group_needs() {
        let writable = FsGroup { gid: 1, read_only: false, on_root_mismatch: false };
        let read_only = FsGroup { read_only: true, ..writable };
        for (mode, directory, rw, ro) in [
            (0o600, false, 0o660, 0o640),
            (0o4755, false, 0o4775, 0o4755),
            (0o000, false, 0o660, 0o440),
            (0o755, true, 0o2775, 0o2755),
            (0o700, true, 0o2770, 0o2750),
        ] {
            assert_eq!(
                (writable.mode(mode, directory), read_only.mode(mode, directory)),
                (rw, ro),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_tree_is_given_to_the_group_and_nothing_outside_it() {
        if !testkit::is_root("a_tree_is_given_to_the_group_and_nothing_outside_it") {
            return;
        }
        let dir = std::env::temp_dir().join(format!("cofferdam-ownership-{}", std::process::id()));
        let root = dir.join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        let outside = dir.join("outside");
        fs::write(&outside, "x").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink(&dir, root.join("a/up")).unwrap();

        let group = FsGroup { gid: 2000, read_only: false, on_root_mismatch: true };
        group.apply(&root).unwrap();
        assert_eq!(shape(&root), (0o2775, 2000));
        assert_eq!(shape(&root.join("a/b")), (0o2775, 2000));
        assert_eq!(shape(&root.join("a/b/file")), (0o660, 2000));
        assert_eq!(shape(&root.join("link")).1, 2000, "the link itself");
        assert_eq!(shape(&outside), (0o600, 0), "never what it leads to");
        assert_ne!(shape(&dir).1, 2000);

        // The root fits: OnRootMismatch leaves the rest, Always does it again.
        fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        group.apply(&root).unwrap();
        assert_eq!(shape(&root.join("a/b/file")).0, 0o600);
        FsGroup { on_root_mismatch: false, ..group }.apply(&root).unwrap();
        assert_eq!(shape(&root.join("a/b/file")).0, 0o660);
        // Another group is a mismatch.
        FsGroup { gid: 2001, ..group }.apply(&root).unwrap();
        assert_eq!(shape(&root.join("a/b/file")), (0o660, 2001));
        fs::remove_dir_all(&dir).unwrap();
    }
}
