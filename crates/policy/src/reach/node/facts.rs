//! What the kernel shows of a process, read from the texts of `/proc/PID` (`proc_pid_status(5)`, `proc_pid_mountinfo(5)`).

use std::collections::BTreeMap;

use crate::security_context::CapabilitySet;

/// A container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Effective.
    pub uid: u32,
    pub permitted: CapabilitySet,
    pub bounding: CapabilitySet,
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 a filter.
    pub seccomp: u8,
    /// What uid 0 of its user namespace is outside.
    pub root_is: Option<u32>,
    /// By kind: the process's and the node's, as `/proc/PID/ns` names them.
    pub namespaces: BTreeMap<String, (String, String)>,
    pub mounts: Vec<Mount>,
    /// Devices in its `/dev` beside those that every container has.
    pub devices: Vec<String>,
}

/// A line of mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted.
    pub root: String,
    pub point: String,
    pub writable: bool,
    pub file_system: String,
}

/// What a text lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {0} in what /proc says of the process")]
pub struct Missing(&'static str);

impl Process {
    /// Takes in `/proc/PID/status`.
    ///
    /// # Errors
    /// A line that is not there, or not as the kernel writes it.
    pub fn read_status(&mut self, text: &str) -> Result<(), Missing> {
        let field = |name: &'static str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).ok_or(Missing(name))
        };
        let set = |name: &'static str| {
            let bits = u64::from_str_radix(field(name)?, 16).map_err(|_| Missing(name))?;
            Ok(CapabilitySet::from_bits(bits))
        };
        let number = |name: &'static str, at: usize| -> Result<u32, Missing> {
            let word = field(name)?.split_whitespace().nth(at).ok_or(Missing(name))?;
            word.parse().map_err(|_| Missing(name))
        };
        self.uid = number("Uid", 1)?;
        self.permitted = set("CapPrm")?;
        self.bounding = set("CapBnd")?;
        self.no_new_privs = number("NoNewPrivs", 0)? != 0;
        self.seccomp = number("Seccomp", 0)?.try_into().map_err(|_| Missing("Seccomp"))?;
        Ok(())
    }

    /// Takes in `/proc/PID/uid_map`.
    pub fn read_uid_map(&mut self, text: &str) {
        self.root_is = text.lines().find_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse::<u32>().ok());
            match (words.next()??, words.next()??) {
                (0, outside) => Some(outside),
                _ => None,
            }
        });
    }

    /// Takes in `/proc/PID/mountinfo`.
    ///
    /// # Errors
    /// A line that is not as the kernel writes it.
    pub fn read_mounts(&mut self, text: &str) -> Result<(), Missing> {
        self.mounts =
            text.lines().map(|line| mount(line).ok_or(Missing("mountinfo"))).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What is mounted at a path, if anything.
    pub fn mount_at(&self, path: &str) -> Option<&Mount> {
        // The last one covers the others.
        self.mounts.iter().rev().find(|mount| mount.point == path)
    }
}

fn mount(line: &str) -> Option<Mount> {
    let (of_mount, of_file_system) = line.split_once(" - ")?;
    let mut words = of_mount.split(' ').skip(3);
    let (root, point, options) = (words.next()?, words.next()?, words.next()?);
    let file_system = of_file_system.split(' ').next()?;
    Some(Mount {
        root: unescaped(root),
        point: unescaped(point),
        writable: options.split(',').any(|option| option == "rw"),
        file_system: file_system.to_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescaped(word: &str) -> String {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            (*first == b'\\').then(|| after.get(..3)).flatten().and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
