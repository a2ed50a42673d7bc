//! A container's log in CRI's format: `<time> <stream> <F|P> <line>`. A line longer than 16 KiB is written in parts (`P`), as is one
//! that the stream's end cuts. A log that cannot be written does not stop the container: what is lost is counted and told.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use kernel::{CallError, Named};

use crate::clock;

/// Which of the container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The longest piece of one line: containerd's `max_container_log_line_size`.
pub const MAX_LINE: usize = 16 << 10;

/// Cuts a stream's bytes into log lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
}

impl Lines {
    /// Appends to `out` what `bytes` complete.
    pub fn push(&mut self, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        let time = clock::rfc3339(clock::now());
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LINE - self.pending.len();
            match rest.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.line(&time, stream, "F", &rest[..end], out);
                    rest = &rest[end + 1..];
                }
                None if rest.len() > room => {
                    self.line(&time, stream, "P", &rest[..room], out);
                    rest = &rest[room..];
                }
                None => {
                    self.pending.extend_from_slice(rest);
                    return;
                }
            }
        }
    }

    /// The stream has ended: what is pending is a part of a line that never ended.
    pub fn finish(&mut self, stream: Stream, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.line(&clock::rfc3339(clock::now()), stream, "P", &[], out);
        }
    }

    fn line(&mut self, time: &str, stream: Stream, tag: &str, end: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(time.as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(stream.word().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(tag.as_bytes());
        out.extend_from_slice(b" ");
        out.append(&mut self.pending);
        out.extend_from_slice(end);
        out.push(b'\n');
    }
}

/// How writing went.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    Well,
    /// It works again after a failure; so many bytes were lost meanwhile.
    Recovered {
        lost: u64,
    },
    /// It has just begun to fail.
    Failing {
        message: String,
        lost: u64,
    },
    /// It fails still.
    StillFailing,
}

/// An open log file, or none.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    lost: u64,
    failing: bool,
}

impl Log {
    /// Opens it for appending, making its directory.
    pub fn open(path: Option<&Path>) -> Result<Self, CallError> {
        let file = path.map(open).transpose()?;
        Ok(Self { path: path.map(Path::to_path_buf), file, lost: 0, failing: false })
    }

    /// Opens the path anew, after a rotation. The old file is kept when that fails.
    pub fn reopen(&mut self) -> Result<(), CallError> {
        if let Some(path) = &self.path {
            self.file = Some(open(path)?);
        }
        Ok(())
    }

    /// Appends whole lines.
    pub fn write(&mut self, lines: &[u8]) -> Written {
        let Some(file) = &mut self.file else { return Written::Well };
        match file.write_all(lines) {
            Ok(()) if self.failing => {
                self.failing = false;
                Written::Recovered { lost: self.lost }
            }
            Ok(()) => Written::Well,
            Err(error) => {
                self.lost += lines.len() as u64;
                if std::mem::replace(&mut self.failing, true) {
                    return Written::StillFailing;
                }
                let path = self.path.as_deref().unwrap_or(Path::new("")).display();
                Written::Failing { message: format!("write {path}: {error}"), lost: self.lost }
            }
        }
    }
}

fn open(path: &Path) -> Result<File, CallError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).named("mkdir", directory.display())?;
    }
    // 0640 as kubelet's logs: readable by root and its group.
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path).named("open", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines without their times.
    fn cut(parts: &[&[u8]]) -> Vec<(String, usize)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        parts.iter().for_each(|part| lines.push(Stream::Stdout, part, &mut out));
        lines.finish(Stream::Stdout, &mut out);
        let text = String::from_utf8(out).unwrap();
        let parse = |line: &str| {
            let mut fields = line.splitn(4, ' ').skip(1);
            assert_eq!(fields.next(), Some("stdout"));
            (fields.next().unwrap().to_owned(), fields.next().unwrap().len())
        };
        text.lines().map(parse).collect()
    }

    fn rows(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
        expected.iter().map(|(tag, length)| ((*tag).to_owned(), *length)).collect()
    }

    #[test]
    fn lines_are_cut_as_cri_says() {
        assert_eq!(cut(&[b"one\ntwo\n"]), rows(&[("F", 3), ("F", 3)]));
        assert_eq!(cut(&[b"o", b"ne\n\n"]), rows(&[("F", 3), ("F", 0)]));
        assert_eq!(cut(&[b"cut"]), rows(&[("P", 3)]));
        let long = vec![b'x'; MAX_LINE];
        assert_eq!(cut(&[&long, b"\n"]), rows(&[("F", MAX_LINE)]));
        assert_eq!(cut(&[&long, b"yz\n"]), rows(&[("P", MAX_LINE), ("F", 2)]));
        let twice = vec![b'x'; 2 * MAX_LINE + 5];
        assert_eq!(cut(&[&twice, b"\n"]), rows(&[("P", MAX_LINE), ("P", MAX_LINE), ("F", 5)]));
    }

    #[test]
    fn a_full_disk_is_told_once_and_its_end_too() {
        let mut log = Log::open(Some(Path::new("/dev/full"))).unwrap();
        assert!(matches!(log.write(b"line\n"), Written::Failing { lost: 5, .. }));
        assert_eq!(log.write(b"line\n"), Written::StillFailing);
        log.path = Some("/dev/null".into());
        log.reopen().unwrap();
        assert_eq!(log.write(b"line\n"), Written::Recovered { lost: 10 });
        assert_eq!(log.write(b"line\n"), Written::Well);
    }
}
