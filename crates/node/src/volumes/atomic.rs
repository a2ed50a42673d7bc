//! Files that change all at once, as the kubelet's atomic writer lays them out:
//!
//! ```text
//! ..2026_11_23_20_59_07.123456789/   the files
//! ..data -> ..2026_11_23_20_59_07.123456789
//! key    -> ..data/key
//! ```
//!
//! A new version is a new directory; renaming the `..data` link switches to it, so that a reader sees the old files or the
//! new ones, and never a mixture.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::jiff::Timestamp;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Uid},
    io::Errno,
};

use super::{
    CallError,
    ownership::{FsGroup, names, open_beneath, open_directory, walk},
    plan::{File, Files},
    remove,
};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the volume at `root` hold exactly `files`; true if anything changed. The clock only names the directory.
pub fn write(root: &Path, files: &Files, group: Option<FsGroup>, now: Timestamp) -> Result<bool, CallError> {
    let volume = open_directory(root)?;
    let error = |call: &'static str, on: &Path, errno: Errno| {
        CallError::new(call, root.join(on).display().to_string(), errno)
    };
    let old = match rustix::fs::readlinkat(&volume, DATA, Vec::new()) {
        Ok(target) => Some(OsStr::from_bytes(target.as_bytes()).to_owned()),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(error("readlinkat", Path::new(DATA), errno)),
    };
    let same = match &old {
        Some(old) => {
            read(&volume, root, Path::new(old))?.is_some_and(|there| there == expected(files, group))
        }
        None => false,
    };
    if same {
        // A crash between the switch and the links leaves these to make.
        link_names(&volume, root, files)?;
        return Ok(false);
    }
    let name = PathBuf::from(now.strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string());
    if let Some(fd) = existing(&volume, &name) {
        // The same nanosecond, or a clock that was set back: nothing refers to it.
        drop(fd);
        remove::tree(&volume, name.as_os_str(), root)?;
    }
    rustix::fs::mkdirat(&volume, &name, Mode::from_raw_mode(0o755))
        .map_err(|e| error("mkdirat", &name, e))?;
    let directory = open_beneath(&volume, &name, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|e| error("openat2", &name, e))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755)).map_err(|e| error("fchmod", &name, e))?;
    for (path, file) in files {
        write_file(&directory, &root.join(&name), path, file)?;
    }
    if let Some(group) = group {
        FsGroup { on_root_mismatch: false, ..group }.apply(&root.join(&name))?;
    }
    match rustix::fs::unlinkat(&volume, NEW_DATA, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(error("unlinkat", Path::new(NEW_DATA), errno)),
    }
    rustix::fs::symlinkat(&name, &volume, NEW_DATA)
        .map_err(|e| error("symlinkat", Path::new(NEW_DATA), e))?;
    rustix::fs::renameat(&volume, NEW_DATA, &volume, DATA)
        .map_err(|e| error("renameat", Path::new(DATA), e))?;
    link_names(&volume, root, files)?;
    clean(&volume, root, files, name.as_os_str())?;
    Ok(true)
}

fn existing(volume: &OwnedFd, name: &Path) -> Option<OwnedFd> {
    open_beneath(volume, name, OFlags::PATH).ok()
}

/// The files with the modes that the group makes of them.
fn expected(files: &Files, group: Option<FsGroup>) -> Files {
    let mode = |mode: u32| group.map_or(mode, |group| group.mode(mode, false));
    let plain = |path: &Path| -> PathBuf {
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
    };
    files.iter().map(|(path, file)| (plain(path), File { mode: mode(file.mode), ..file.clone() })).collect()
}

/// What a version holds; `None`: it is not there.
fn read(volume: &OwnedFd, root: &Path, version: &Path) -> Result<Option<Files>, CallError> {
    let Ok(directory) = open_beneath(volume, version, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Ok(None);
    };
    let name = root.join(version);
    let mut files = Files::new();
    walk(&directory, &name, |path, _, stat| {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let fd = open_beneath(&directory, path, OFlags::RDONLY)
            .map_err(|errno| CallError::new("openat2", name.join(path).display().to_string(), errno))?;
        let mut data = Vec::new();
        std::fs::File::from(fd)
            .read_to_end(&mut data)
            .map_err(|error| CallError::from_io("read", name.join(path).display().to_string(), &error))?;
        files.insert(path.to_owned(), File { data, mode: stat.st_mode & 0o777, uid: stat.st_uid });
        Ok(())
    })?;
    Ok(Some(files))
}

fn write_file(version: &OwnedFd, name: &Path, path: &Path, file: &File) -> Result<(), CallError> {
    let error = |call: &'static str, path: &Path, errno: Errno| {
        CallError::new(call, name.join(path).display().to_string(), errno)
    };
    let parents: Vec<&OsStr> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        })
        .collect();
    let Some((last, parents)) = parents.split_last() else { return Err(error("open", path, Errno::INVAL)) };
    let mut below = PathBuf::new();
    for parent in parents {
        below.push(parent);
        match rustix::fs::mkdirat(version, &below, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error("mkdirat", &below, errno)),
        }
    }
    let directory = open_beneath(version, &below, OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| error("openat2", &below, errno))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&directory, *last, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| error("openat", path, errno))?;
    let mut opened = std::fs::File::from(fd);
    opened
        .write_all(&file.data)
        .map_err(|e| CallError::from_io("write", name.join(path).display().to_string(), &e))?;
    if file.uid != 0 {
        rustix::fs::fchown(&opened, Some(Uid::from_raw(file.uid)), None)
            .map_err(|errno| error("fchown", path, errno))?;
    }
    // After the bytes, and past the umask.
    rustix::fs::fchmod(&opened, Mode::from_raw_mode(file.mode)).map_err(|errno| error("fchmod", path, errno))
}

fn first(path: &Path) -> Option<OsString> {
    path.components().find_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        _ => None,
    })
}

/// The names that users see: the first component of each path, a link through `..data`.
fn link_names(volume: &OwnedFd, root: &Path, files: &Files) -> Result<(), CallError> {
    for name in files.keys().filter_map(|path| first(path)).collect::<BTreeSet<_>>() {
        match rustix::fs::symlinkat(Path::new(DATA).join(&name), volume, &name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(CallError::new("symlinkat", root.join(&name).display().to_string(), errno));
            }
        }
    }
    Ok(())
}

/// Removes names that are no more, and every version but the current.
fn clean(volume: &OwnedFd, root: &Path, files: &Files, current: &OsStr) -> Result<(), CallError> {
    let wanted: BTreeSet<OsString> = files.keys().filter_map(|path| first(path)).collect();
    let there =
        names(volume).map_err(|errno| CallError::new("getdents64", root.display().to_string(), errno))?;
    for name in there {
        let own = name.as_bytes().starts_with(b"..");
        let keep = if own { name == DATA || name == current } else { wanted.contains(&name) };
        if !keep {
            remove::tree(volume, &name, root)?;
        }
    }
    Ok(())
}
