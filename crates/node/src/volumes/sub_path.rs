//! subPath: a part of a volume, found by the kernel without leaving the volume, and handed on as a descriptor, so that what was
//! checked is what is mounted (CVE-2017-1002101, CVE-2021-25741).

use std::{
    os::fd::OwnedFd,
    path::{Component, Path},
};

use policy::env::expand;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::CallError;

/// `subPathExpr` expanded; a variable that is unset or empty would mount another part, so it is an error.
pub fn expanded(expression: &str, env: &[(String, String)]) -> Result<String, String> {
    let missing = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let path = expand(expression, |name| {
        let value = env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        if value.as_deref().is_none_or(str::is_empty) {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    if missing.is_empty() { Ok(path) } else { Err(format!("missing value for {}", missing.join(", "))) }
}

/// What Kubernetes says to a path that cannot be inside.
pub fn check(path: &str) -> Result<(), String> {
    if Path::new(path).is_absolute() {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(())
}

/// An `O_PATH` descriptor of the part of `volume` at `path`; directories that are missing are made with the volume's own
/// mode. Links are followed inside the volume only; one that leads out gives EXDEV.
pub fn open(volume: &Path, path: &str) -> Result<OwnedFd, CallError> {
    let on = |relative: &Path| volume.join(relative).display().to_string();
    // The volume's own path is the agent's, or the node's for hostPath.
    let root = rustix::fs::openat(CWD, volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| CallError::new("open", volume.display().to_string(), errno))?;
    let relative: std::path::PathBuf =
        Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if relative.as_os_str().is_empty() {
        return Ok(root);
    }
    // Made by someone else between looking and making: look again, a bounded number of times.
    for _ in 0..16 {
        match open_beneath(&root, &relative) {
            Err(Errno::NOENT) => {
                make(&root, &relative).map_err(|(call, errno)| CallError::new(call, on(&relative), errno))?
            }
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(CallError::new("openat2", on(&relative), errno)),
            Ok(fd) => return Ok(fd),
        }
    }
    Err(CallError::new("openat2", on(&relative), Errno::AGAIN))
}

fn open_beneath(root: &OwnedFd, relative: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Makes the missing directories, each in the descriptor of its parent.
fn make(root: &OwnedFd, relative: &Path) -> Result<(), (&'static str, Errno)> {
    let stat = rustix::fs::fstat(root).map_err(|errno| ("fstat", errno))?;
    // Sticky is the tmpfs root's own; setgid hands the volume's group on.
    let mode = Mode::from_raw_mode(stat.st_mode & 0o2777);
    let mut below = std::path::PathBuf::new();
    for part in relative.components() {
        let parent = if below.as_os_str().is_empty() { Path::new(".") } else { below.as_path() };
        let parent = open_beneath(root, parent).map_err(|errno| ("openat2", errno))?;
        match rustix::fs::mkdirat(&parent, part.as_os_str(), mode) {
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, part.as_os_str(), flags, Mode::empty())
                    .map_err(|errno| ("openat", errno))?;
                // Past the umask.
                rustix::fs::fchmod(&made, mode).map_err(|errno| ("fchmod", errno))?;
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(("mkdirat", errno)),
        }
        below.push(part);
    }
    Ok(())
}
