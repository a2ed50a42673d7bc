//! Finds a cluster's own processes by their command line, so that nothing has to be remembered about them: also
//! after everything was killed, the answer is what the kernel says.

use std::{fs, os::unix::ffi::OsStrExt, path::Path};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The hidden subcommands' roles, as they stand on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Supervisor,
    Control,
    NodeInit,
    Agent,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Supervisor => "supervisor",
            Role::Control => "control",
            Role::NodeInit => "node-init",
            Role::Agent => "agent",
        }
    }
}

/// A process of a cluster, seen from the machine's PID namespace.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub role: Role,
    /// The node's name, for a node's init and agent.
    pub node: Option<String>,
}

/// All processes of the cluster whose data directory is `data`: `… internal ROLE --data-dir DATA [--node NODE]`.
pub fn find(data: &Path) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end while we look: then it is not one of the cluster's any more.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if let Some(process) = parse(pid, &line, data) {
            found.push(process);
        }
    }
    Ok(found)
}

fn parse(pid: i32, line: &[u8], data: &Path) -> Option<Process> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let [_, b"internal", role, b"--data-dir", dir, rest @ ..] = words.as_slice() else { return None };
    if *dir != data.as_os_str().as_bytes() {
        return None;
    }
    let role = [Role::Supervisor, Role::Control, Role::NodeInit, Role::Agent]
        .into_iter()
        .find(|candidate| candidate.name().as_bytes() == *role)?;
    let node = match rest {
        [b"--node", node, ..] => Some(String::from_utf8_lossy(node).into_owned()),
        _ => None,
    };
    Some(Process { pid, role, node })
}

/// Kills the processes and waits until the kernel has ended each (and with a node's init all of the node's).
pub fn kill(processes: &[Process]) -> Result<()> {
    let mut handles = Vec::new();
    for process in processes {
        let Some(pid) = Pid::from_raw(process.pid) else { continue };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handles.push((process, handle)),
            Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("pidfd_open {}", process.pid)),
        }
    }
    for (process, handle) in &handles {
        match pidfd_send_signal(handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("kill {}", process.pid)),
        }
    }
    for (process, handle) in &handles {
        // A pidfd becomes readable when its process has ended.
        let mut ready = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
        let deadline = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        let ended = rustix::event::poll(&mut ready, Some(&deadline)).context("poll on a pidfd")?;
        anyhow::ensure!(
            ended == 1,
            "process {} ({}) did not end within 10 s",
            process.pid,
            process.role.name()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_data_directorys_roles_are_found() {
        let data = Path::new("/d");
        let line = |text: &str| text.replace(' ', "\0").into_bytes();
        let found = parse(7, &line("/bin/cofferdam internal node-init --data-dir /d --node node-2 "), data);
        assert!(
            matches!(found, Some(Process { pid: 7, role: Role::NodeInit, node: Some(node) }) if node == "node-2")
        );
        for other in [
            "cofferdam up --data-dir /d",
            "cofferdam internal control --data-dir /other",
            "cofferdam internal nothing --data-dir /d",
            "vi internal",
        ] {
            assert!(parse(7, &line(other), data).is_none(), "{other}");
        }
    }
}
