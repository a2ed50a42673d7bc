//! Unix sockets: which there are below a directory, and what answers behind them. Who is in a pod looks for a way out with this.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Failure, Outcome, say};

const PATIENCE: Duration = Duration::from_secs(2);

/// Without following links, and not into /proc, which has no end.
fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_socket() {
            found.push(entry.path());
        } else if kind.is_dir() && entry.file_name() != "proc" {
            find(&entry.path(), found);
        }
    }
}

/// One line: the first of the answer, or why there is none.
fn ask(socket: &Path, path: &str) -> String {
    let answer = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut first = [0; 64];
        let count = stream.read(&mut first)?;
        Ok(String::from_utf8_lossy(&first[..count]).lines().next().unwrap_or("hung up").to_owned())
    };
    answer().unwrap_or_else(|error| error.to_string())
}

pub fn sockets(args: &[String]) -> Outcome {
    let [path, places @ ..] = args else { return Err(Failure::Usage("a path to ask for, and directories")) };
    let mut found = Vec::new();
    for place in places {
        let place = Path::new(place);
        match fs::metadata(place) {
            Ok(metadata) if metadata.file_type().is_socket() => found.push(place.to_path_buf()),
            _ => find(place, &mut found),
        }
    }
    for socket in found {
        say(&format!("{}: {}", socket.display(), ask(&socket, path)))?;
    }
    Ok(0)
}
