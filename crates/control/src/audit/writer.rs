//! The file: entries are written in bunches, and a file that is full makes room for a new one. It is reached by a descriptor of
//! its directory, because the process may not walk there.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::Receiver,
};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::Entry;

pub const NAME: &str = "audit.log";
/// Full files are named by the time at which they were.
const OLD: &str = "audit-";

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file; a line that would make it longer goes to the next.
    pub size: u64,
    /// Full files beside the one that is written.
    pub old: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { size: 32 << 20, old: 4 }
    }
}

pub struct Writer {
    directory: OwnedFd,
    limits: Limits,
    file: File,
    length: u64,
    /// Said already that it cannot write.
    failing: bool,
}

/// As much as is written at once, in bytes.
const BUNCH: usize = 256 << 10;

impl Writer {
    pub fn open(directory: OwnedFd, limits: Limits) -> io::Result<Writer> {
        let (file, length) = open(&directory)?;
        Ok(Writer { directory, limits, file, length, failing: false })
    }

    /// Until every sender is gone.
    pub fn run(&mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            let mut bunch = first.line();
            while bunch.len() < BUNCH
                && let Ok(next) = entries.try_recv()
            {
                bunch.extend(next.line());
            }
            match self.write(&bunch) {
                Ok(()) => self.failing = false,
                // Once, not for every request: the log itself says when it went on.
                Err(error) if !self.failing => {
                    self.failing = true;
                    eprintln!("the audit log cannot be written: {error}");
                }
                Err(_) => {}
            }
        }
    }

    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if self.length > 0 && self.length + length > self.limits.size {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.length += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%9f").to_string();
        rustix::fs::renameat(&self.directory, NAME, &self.directory, format!("{OLD}{now}.log"))?;
        (self.file, self.length) = open(&self.directory)?;
        let mut old = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(OLD) {
                old.push(name);
            }
        }
        // Their names are in the order of their times.
        old.sort_unstable();
        let surplus = old.len().saturating_sub(self.limits.old);
        for name in &old[..surplus] {
            rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

fn open(directory: &impl AsFd) -> io::Result<(File, u64)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, NAME, flags, Mode::from_raw_mode(0o600))?);
    let length = file.metadata()?.len();
    Ok((file, length))
}
