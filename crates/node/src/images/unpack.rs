//! Unpacks a layer into a directory of its own, in the form overlayfs stacks: whiteouts become character devices 0:0,
//! opaque directories get `trusted.overlay.opaque`.
//!
//! Nothing outside the directory can be reached: every parent is opened with `openat2`, beneath the directory and
//! through no symbolic link, and everything is created relative to that parent. What a layer may hold is a short list;
//! all else is an error that names the entry. Device nodes are refused: a container gets its devices from its
//! spec, and a node in an image would be a way around the device list where the cgroup's device filter is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::tar::{Archive, Entry, Kind, TarError};

/// What one layer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of the unpacked archive.
    pub bytes: u64,
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 30, entries: 1 << 20 }
    }
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("{0:?}: the path leads out of the image")]
    Escape(PathBuf),
    #[error("{0:?}: the path passes through a symbolic link of the same layer")]
    ThroughLink(PathBuf),
    #[error("{name:?}: hard link to the absolute path {target:?}")]
    AbsoluteLink { name: PathBuf, target: PathBuf },
    #[error("{name:?}: hard link to {target:?}, which is in no layer")]
    MissingTarget { name: PathBuf, target: PathBuf },
    #[error("{0:?}: device nodes in images are not accepted")]
    Device(PathBuf),
    #[error("{0:?}: appears twice, once as a directory and once as something else")]
    Twice(PathBuf),
    #[error("{name:?}: owner {id} is out of range")]
    Owner { name: PathBuf, id: u64 },
    #[error("{name:?}: extended attribute {attribute:?} is not accepted")]
    Attribute { name: PathBuf, attribute: String },
    #[error("more than {0} entries")]
    Entries(u64),
    #[error("{0:?}: a file is below it, but a lower layer has a symbolic link there")]
    BelowLink(PathBuf),
    #[error("{call} {path:?}: {error}")]
    System { call: &'static str, path: PathBuf, error: Errno },
    #[error("write {path:?}: {error}")]
    Write { path: PathBuf, error: io::Error },
}

fn failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> UnpackError {
    move |error| UnpackError::System { call, path: path.to_owned(), error }
}

/// What is known of a layer once it is unpacked.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// Bytes of the files.
    pub size: u64,
    pub files: u64,
    /// Directories that exist because entries are below them, without an entry of their own: their owner and mode
    /// are the lower layers'.
    pub implicit: BTreeSet<PathBuf>,
    /// Hard links whose target is in a lower layer: (name, target).
    pub links: Vec<(PathBuf, PathBuf)>,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Unpacks the archive that `reader` gives into the empty directory `root`.
pub(super) fn unpack(reader: impl Read, root: &OwnedFd, limits: Limits) -> Result<Unpacked, UnpackError> {
    let mut layer = Layer {
        root,
        parent: None,
        whiteouts: BTreeSet::new(),
        times: BTreeMap::new(),
        done: Unpacked::default(),
    };
    let mut archive = Archive::new(reader);
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::Entries(limits.entries));
        }
        layer.entry(&entry, &mut archive.content())?;
    }
    layer.set_directory_times()?;
    Ok(layer.done)
}

/// The path of an entry below the root: no `..`, no leading slash, no `.`.
pub(super) fn beneath(name: &Path) -> Result<PathBuf, UnpackError> {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir | Component::Prefix(_) => return Err(UnpackError::Escape(name.to_owned())),
        }
    }
    Ok(path)
}

/// Opens a directory of a layer, through no symbolic link and not out of it.
pub(super) fn open_beneath(root: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

struct Layer<'a> {
    root: &'a OwnedFd,
    /// The parent of the last entry: archives list directories in order.
    parent: Option<(PathBuf, OwnedFd)>,
    whiteouts: BTreeSet<PathBuf>,
    /// Creating a file changes its directory's time, so directories get theirs at the end.
    times: BTreeMap<PathBuf, (i64, u32)>,
    done: Unpacked,
}

impl Layer<'_> {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        let path = beneath(&entry.name)?;
        if matches!(entry.kind, Kind::CharacterDevice | Kind::BlockDevice) {
            return Err(UnpackError::Device(path));
        }
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let parent = path.parent().map(Path::to_owned).unwrap_or_default();
        self.enter(&parent, &path)?;
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&parent, &name);
        }
        let directory = entry.kind == Kind::Directory;
        let opaque = self.make_room(&path, &name, directory)?;
        let at = self.parent()?;
        match entry.kind {
            Kind::Directory => {
                match fs::mkdirat(at, &name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed("mkdirat", &path)(error)),
                }
                let dir = open_beneath(at, Path::new(&name), OFlags::RDONLY | OFlags::DIRECTORY)
                    .map_err(failed("openat2", &path))?;
                set_metadata(&dir, entry, &path)?;
                if opaque {
                    set_opaque(&dir, &path)?;
                }
                self.done.implicit.remove(&path);
                self.times.insert(path, entry.mtime);
            }
            Kind::File => {
                let file = fs::openat(
                    at,
                    &name,
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::from_raw_mode(0o600),
                )
                .map_err(failed("openat", &path))?;
                let mut file = std::fs::File::from(file);
                self.done.size += copy(content, &mut file, &path)?;
                self.done.files += 1;
                let file = OwnedFd::from(file);
                set_metadata(&file, entry, &path)?;
                fs::futimens(&file, &times(entry.mtime)).map_err(failed("futimens", &path))?;
            }
            Kind::Symlink => {
                fs::symlinkat(&entry.link, at, &name).map_err(failed("symlinkat", &path))?;
                let (uid, gid) = owner(entry, &path)?;
                fs::chownat(at, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("fchownat", &path))?;
                fs::utimensat(at, &name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("utimensat", &path))?;
            }
            Kind::HardLink => self.hard_link(entry, &path, &name)?,
            Kind::Fifo => {
                fs::mknodat(at, &name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(failed("mknodat", &path))?;
                let (uid, gid) = owner(entry, &path)?;
                fs::chownat(at, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("fchownat", &path))?;
                // The parent is ours alone and the name was just made: chmod cannot be led elsewhere.
                fs::chmodat(at, &name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                    .map_err(failed("fchmodat", &path))?;
            }
            Kind::CharacterDevice | Kind::BlockDevice => return Err(UnpackError::Device(path)),
        }
        Ok(())
    }

    fn parent(&self) -> Result<&OwnedFd, UnpackError> {
        Ok(self.parent.as_ref().map_or(self.root, |(_, dir)| dir))
    }

    /// Makes `parent` the directory that entries are created in, and creates what is missing of it.
    fn enter(&mut self, parent: &Path, entry: &Path) -> Result<(), UnpackError> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == parent) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match open_beneath(self.root, parent, flags) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.create_parents(parent)?;
                open_beneath(self.root, parent, flags).map_err(|error| match error {
                    Errno::LOOP => UnpackError::ThroughLink(entry.to_owned()),
                    other => failed("openat2", parent)(other),
                })?
            }
            // O_DIRECTORY on a link that is the last component gives ELOOP here too, for no link may be followed.
            Err(Errno::LOOP) => return Err(UnpackError::ThroughLink(entry.to_owned())),
            Err(error) => return Err(failed("openat2", parent)(error)),
        };
        self.parent = Some((parent.to_owned(), dir));
        Ok(())
    }

    fn create_parents(&mut self, path: &Path) -> Result<(), UnpackError> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(self.root, 0).map_err(failed("fcntl", path))?;
        let mut below = PathBuf::new();
        for name in path {
            below.push(name);
            let mut opaque = false;
            if self.whiteouts.remove(&below) {
                fs::unlinkat(&at, name, AtFlags::empty()).map_err(failed("unlinkat", &below))?;
                opaque = true;
            }
            match fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    self.done.implicit.insert(below.clone());
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("mkdirat", &below)(error)),
            }
            at = open_beneath(&at, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| {
                match error {
                    Errno::LOOP => UnpackError::ThroughLink(path.to_owned()),
                    Errno::NOTDIR => UnpackError::Twice(below.clone()),
                    other => failed("openat2", &below)(other),
                }
            })?;
            if opaque {
                // Nothing of the lower layers shows here, so neither does their metadata.
                self.done.implicit.remove(&below);
                set_opaque(&at, &below)?;
            }
        }
        Ok(())
    }

    /// The entry `./` sets owner and mode of the image's root.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let path = PathBuf::from("/");
        if entry.kind != Kind::Directory {
            return Err(UnpackError::Twice(path));
        }
        set_metadata(self.root, entry, &path)?;
        self.times.insert(PathBuf::new(), entry.mtime);
        Ok(())
    }

    /// Removes what an earlier entry left where a new one goes: the last wins. Says whether the new one, a directory,
    /// replaces what lower layers have there.
    fn make_room(&mut self, path: &Path, name: &OsStr, directory: bool) -> Result<bool, UnpackError> {
        if self.whiteouts.remove(path) {
            let at = self.parent()?;
            fs::unlinkat(at, name, AtFlags::empty()).map_err(failed("unlinkat", path))?;
            return Ok(directory);
        }
        let at = self.parent()?;
        match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("fstatat", path)(error)),
            Ok(stat) => match (FileType::from_raw_mode(stat.st_mode) == FileType::Directory, directory) {
                (true, true) => {}
                (false, false) => {
                    fs::unlinkat(at, name, AtFlags::empty()).map_err(failed("unlinkat", path))?;
                }
                _ => return Err(UnpackError::Twice(path.to_owned())),
            },
        }
        Ok(false)
    }

    fn whiteout(&mut self, parent: &Path, name: &OsStr) -> Result<(), UnpackError> {
        if name.as_bytes() == OPAQUE {
            let at = self.parent()?;
            set_opaque(at, parent)?;
            self.done.implicit.remove(parent);
            return Ok(());
        }
        let hidden = OsStr::from_bytes(name.as_bytes().get(WHITEOUT.len()..).unwrap_or_default());
        // Metadata of aufs (`.wh..wh.plnk` and the like): not part of the image.
        if hidden.as_bytes().starts_with(WHITEOUT) {
            return Ok(());
        }
        let path = parent.join(hidden);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(UnpackError::Escape(parent.join(name)));
        }
        let at = self.parent()?;
        match fs::statat(at, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // What the layer itself has there stays, and hides the lower layers' instead.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let dir = open_beneath(at, Path::new(hidden), OFlags::RDONLY | OFlags::DIRECTORY)
                    .map_err(failed("openat2", &path))?;
                set_opaque(&dir, &path)?;
                self.done.implicit.remove(&path);
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                fs::mknodat(at, hidden, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))
                    .map_err(failed("mknodat", &path))?;
                self.whiteouts.insert(path);
            }
            Err(error) => return Err(failed("fstatat", &path)(error)),
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, path: &Path, name: &OsString) -> Result<(), UnpackError> {
        if entry.link.is_absolute() {
            return Err(UnpackError::AbsoluteLink { name: path.to_owned(), target: entry.link.clone() });
        }
        let target = beneath(&entry.link)?;
        let Some(target_name) = target.file_name() else {
            return Err(UnpackError::MissingTarget { name: path.to_owned(), target });
        };
        let target_parent = target.parent().unwrap_or(Path::new(""));
        let dir = match open_beneath(self.root, target_parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(dir) if !self.whiteouts.contains(&target) => dir,
            Ok(_) => return Err(UnpackError::MissingTarget { name: path.to_owned(), target }),
            Err(Errno::NOENT) => {
                self.done.links.push((path.to_owned(), target));
                return Ok(());
            }
            Err(Errno::LOOP) => return Err(UnpackError::ThroughLink(target)),
            Err(error) => return Err(failed("openat2", &target)(error)),
        };
        match fs::linkat(&dir, target_name, self.parent()?, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => {
                self.done.links.push((path.to_owned(), target));
                Ok(())
            }
            Err(error) => Err(failed("linkat", path)(error)),
        }
    }

    fn set_directory_times(&self) -> Result<(), UnpackError> {
        for (path, mtime) in &self.times {
            match open_beneath(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(dir) => fs::futimens(&dir, &times(*mtime)).map_err(failed("futimens", path))?,
                Err(error) => return Err(failed("openat2", path)(error)),
            }
        }
        Ok(())
    }
}

fn copy(content: &mut impl Read, file: &mut std::fs::File, path: &Path) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = content.read(&mut buffer).map_err(TarError::Io)?;
        if count == 0 {
            return Ok(total);
        }
        file.write_all(&buffer[..count])
            .map_err(|error| UnpackError::Write { path: path.to_owned(), error })?;
        total += count as u64;
    }
}

fn set_opaque(dir: &OwnedFd, path: &Path) -> Result<(), UnpackError> {
    fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty()).map_err(failed("fsetxattr", path))
}

/// Owner, then mode (a change of owner clears the setuid bits), then attributes (it clears capabilities too).
fn set_metadata(file: &OwnedFd, entry: &Entry, path: &Path) -> Result<(), UnpackError> {
    let (uid, gid) = owner(entry, path)?;
    fs::fchown(file, Some(uid), Some(gid)).map_err(failed("fchown", path))?;
    fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(failed("fchmod", path))?;
    for (name, value) in &entry.xattrs {
        match name.as_str() {
            name if name == "security.capability" || name.starts_with("user.") => {
                fs::fsetxattr(file, name, value, XattrFlags::empty()).map_err(failed("fsetxattr", path))?;
            }
            // These mean something to the kernel's own layering or to its trust: no image has any business there.
            name if name.starts_with("trusted.") => {
                return Err(UnpackError::Attribute { name: path.to_owned(), attribute: name.to_owned() });
            }
            // Labels of the machine that built the image (security.selinux, system.posix_acl_*, com.apple.*).
            _ => {}
        }
    }
    Ok(())
}

fn owner(entry: &Entry, path: &Path) -> Result<(Uid, Gid), UnpackError> {
    // The last one means "unchanged" to chown (CVE-2024-40635 was an id that wrapped around).
    let id = |id: u64| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(UnpackError::Owner { name: path.to_owned(), id }),
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
