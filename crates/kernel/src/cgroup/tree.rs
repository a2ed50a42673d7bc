//! Ends and removes a whole subtree of cgroups in every hierarchy, whatever is in it: what `down` does, and an agent after a
//! keeper's death. Nothing but the path has to be known.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{CgroupError, Hierarchies};
use crate::error::{CallError, Named};

/// How long a killed process may take to end.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// rmdir says EBUSY for a moment after the last process has ended (its exit is not through); nothing tells when it is.
const BUSY_TRIES: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Kills every process below `path` (relative to each hierarchy's mount), waits for their ends, and removes the cgroups.
/// Not an error if there are none.
///
/// # Errors
/// Of the call that failed, with the path.
pub fn kill_and_remove(path: &Path) -> Result<(), CgroupError> {
    if !path.is_relative() || path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(CgroupError::Path(path.to_path_buf()));
    }
    let found = Hierarchies::find()?;
    let mounts = found.v1.iter().map(|one| &one.mount).chain(found.v2.iter().map(|one| &one.mount));
    for mount in mounts {
        let mut dirs = Vec::new();
        walk(&mount.join(path), &mut dirs)?;
        for dir in &dirs {
            kill_all(dir)?;
        }
        for dir in &dirs {
            remove(dir)?;
        }
    }
    Ok(())
}

/// The directory and those below it, children before their parents.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), CallError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CallError::from_io("open", dir.display().to_string(), &error)),
    };
    for entry in entries {
        let entry = entry.named("readdir", dir.display())?;
        if entry.file_type().named("stat", entry.path().display())?.is_dir() {
            walk(&entry.path(), found)?;
        }
    }
    found.push(dir.to_path_buf());
    Ok(())
}

fn kill_all(dir: &Path) -> Result<(), CallError> {
    let file = dir.join("cgroup.procs");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        // A threaded or vanished cgroup has no list of its own.
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::Unsupported) =>
        {
            return Ok(());
        }
        Err(error) => return Err(CallError::from_io("read", file.display().to_string(), &error)),
    };
    for pid in text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => continue,
            Err(errno) => return Err(CallError::new("pidfd_open", pid.to_string(), errno)),
        };
        match pidfd_send_signal(&handle, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(CallError::new("pidfd_send_signal", pid.to_string(), errno)),
        }
        // A zombie is readable at once: whoever is its parent reaps it, and it holds no cgroup up.
        let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&PATIENCE))
            .map_err(|errno| CallError::new("poll", pid.to_string(), errno))?;
        if ended == 0 {
            return Err(CallError::new("kill", pid.to_string(), Errno::TIMEDOUT));
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<(), CallError> {
    for _ in 0..BUSY_TRIES {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => std::thread::sleep(BUSY_PAUSE),
            Err(error) => return Err(CallError::from_io("rmdir", dir.display().to_string(), &error)),
        }
    }
    Err(CallError::new("rmdir", dir.display().to_string(), Errno::BUSY))
}
