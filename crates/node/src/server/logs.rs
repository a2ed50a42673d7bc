//! Reads container logs in the CRI's format (`<RFC 3339 time> stdout|stderr P|F <text>`) the way the kubelet does
//! (`pkg/kubelet/kuberuntime/logs`): partial lines are joined, `tailLines` counts lines of the file, following waits
//! for inotify and ends with the container.

use std::{
    io::{self, SeekFrom},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, unix::AsyncFd},
    sync::mpsc,
};

use super::{Backend, Body, LogFiles, Query, Target, bad_request, status};
use crate::images::register;

/// Lines are at most 16 KiB as they are written; a longer one is damage, and is passed on in pieces.
const MAX_LINE: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// What of a log a client wants.
#[derive(Default, Debug)]
struct Options {
    follow: bool,
    tail: Option<u64>,
    since: Option<Timestamp>,
    timestamps: bool,
    limit: Option<u64>,
    /// `stdout` or `stderr` alone.
    stream: Option<&'static str>,
}

impl Options {
    fn parse(query: &Query) -> Result<Self, Box<Status>> {
        let number = |name: &str, least: i64| match query.get(name) {
            None => Ok(None),
            Some(text) => match text.parse::<i64>() {
                Ok(value) if value >= least => Ok(Some(value)),
                Ok(_) if least == 1 => {
                    Err(bad_request(format!("{name}: Invalid value: {text}: must be greater than 0")))
                }
                Ok(_) => Err(bad_request(format!(
                    "{name}: Invalid value: {text}: must be greater than or equal to 0"
                ))),
                Err(_) => Err(bad_request(format!("{name}: Invalid value: {text:?}: is no number"))),
            },
        };
        let seconds = number("sinceSeconds", 1)?;
        let time = query
            .get("sinceTime")
            .map(|text| {
                text.parse::<Timestamp>()
                    .map_err(|error| bad_request(format!("sinceTime: Invalid value: {text:?}: {error}")))
            })
            .transpose()?;
        if seconds.is_some() && time.is_some() {
            return Err(bad_request(
                "sinceTime: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        let since = match seconds {
            Some(seconds) => {
                let past = Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds));
                Some(past.unwrap_or(Timestamp::MIN))
            }
            None => time,
        };
        let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        Ok(Self {
            follow: query.flag("follow"),
            tail: unsigned(number("tailLines", 0)?),
            since,
            timestamps: query.flag("timestamps"),
            limit: unsigned(number("limitBytes", 1)?),
            stream: match query.get("stream") {
                None | Some("All") => None,
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                Some(other) => {
                    return Err(bad_request(format!(
                        "stream: Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\""
                    )));
                }
            },
        })
    }
}

/// `GET /containerLogs/…`.
pub(super) async fn respond<B: Backend>(
    backend: &B,
    target: &Target,
    query: &Query,
) -> Result<Response<Body>, Box<Status>> {
    let options = Options::parse(query)?;
    let files = backend.logs(target, query.flag("previous")).await?;
    let failed = |error: io::Error| {
        let text = format!("failed to try resolving symlinks in path {:?}: {error}", files.path);
        status(http::StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
    };
    // Watched before it is read: what is written in between is seen.
    let watch = if options.follow { Some(Watch::new(&files.path).map_err(failed)?) } else { None };
    let file = File::open(&files.path).await.map_err(failed)?;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(8);
    tokio::spawn(async move {
        let mut out = Output { sender, left: options.limit.unwrap_or(u64::MAX) };
        match copy(file, files, watch, &options, &mut out).await {
            Ok(()) => {}
            // The client learns of it by a broken body. One that has gone needs nothing.
            Err(error) => drop(out.sender.send(Err(error)).await),
        }
    });
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?.map(Frame::data), receiver))
    });
    let mut response = Response::new(StreamBody::new(chunks).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Where the text goes; `left` is what `limitBytes` allows yet.
struct Output {
    sender: mpsc::Sender<io::Result<Bytes>>,
    left: u64,
}

impl Output {
    /// False when nobody wants more.
    async fn write(&mut self, mut text: Bytes) -> bool {
        if text.is_empty() {
            return true;
        }
        text.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= text.len() as u64;
        self.sender.send(Ok(text)).await.is_ok() && self.left > 0
    }
}

async fn copy(
    mut file: File,
    mut files: LogFiles,
    mut watch: Option<Watch>,
    options: &Options,
    out: &mut Output,
) -> io::Result<()> {
    if let Some(lines) = options.tail {
        let start = tail_start(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let mut reader = Lines { buffer: BytesMut::new(), fresh: true };
    loop {
        // Asked before reading: what was written before the container ended is read after that.
        let ended = *files.ended.borrow_and_update() || files.ended.has_changed().is_err();
        loop {
            let count = file.read_buf(reader.room()).await?;
            let text = reader.take(options);
            if !out.write(text).await {
                return Ok(());
            }
            if count == 0 {
                break;
            }
        }
        let Some(watch) = &mut watch else { return Ok(()) };
        if watch.rotated {
            // All of the old file was read; the new one begins.
            match File::open(&files.path).await {
                Ok(new) => {
                    watch.rotated = false;
                    let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
                    if id(new.metadata().await?) != id(file.metadata().await?) {
                        file = new;
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if ended {
            return Ok(());
        }
        tokio::select! {
            seen = watch.changed() => seen?,
            // An error says that the container's record is gone: the same as its end.
            _ = files.ended.changed() => {}
            () = out.sender.closed() => return Ok(()),
        }
    }
}

/// Where the last `lines` lines begin, read from the end.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let mut at = end;
    let mut buffer = vec![0; CHUNK];
    while at > 0 {
        let start = at.saturating_sub(CHUNK as u64);
        let count = usize::try_from(at - start).unwrap_or(CHUNK);
        file.seek(SeekFrom::Start(start)).await?;
        let chunk = buffer.get_mut(..count).unwrap_or_default();
        file.read_exact(chunk).await?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            let after = start + index as u64 + 1;
            // The newline that closes the file begins no line.
            if *byte == b'\n' && after != end {
                found += 1;
                if found == lines {
                    return Ok(after);
                }
            }
        }
        at = start;
    }
    Ok(0)
}

/// Cuts what was read into lines.
struct Lines {
    buffer: BytesMut,
    /// The next line begins one of the container's lines, rather than continuing a partial one.
    fresh: bool,
}

impl Lines {
    fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(CHUNK);
        &mut self.buffer
    }

    /// The text of all whole lines read so far.
    fn take(&mut self, options: &Options) -> Bytes {
        let mut text = BytesMut::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            let line = line.get(..end).unwrap_or_default();
            match parse(line) {
                Some(entry) => self.entry(&entry, options, &mut text),
                // Not ours to hide: the kubelet logs it and goes on, a user of this program sees it.
                None => {
                    text.extend_from_slice(line);
                    text.extend_from_slice(b"\n");
                }
            }
        }
        if self.buffer.len() > MAX_LINE {
            text.extend_from_slice(&self.buffer.split());
        }
        text.freeze()
    }

    fn entry(&mut self, entry: &Entry<'_>, options: &Options, text: &mut BytesMut) {
        if options.stream.is_some_and(|stream| stream != entry.stream) {
            return;
        }
        if let Some(since) = options.since
            && entry.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if options.timestamps && self.fresh {
            text.extend_from_slice(entry.time.as_bytes());
            text.extend_from_slice(b" ");
        }
        text.extend_from_slice(entry.text);
        if !entry.partial {
            text.extend_from_slice(b"\n");
        }
        self.fresh = !entry.partial;
    }
}

struct Entry<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(fields.next()?).ok();
    let (time, stream, tags) = (word()?, word()?, word()?);
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    // Tags are separated by colons; the first says whether the line is whole.
    let partial = match tags.split(':').next() {
        Some("P") => true,
        Some("F") => false,
        _ => return None,
    };
    Some(Entry { time, stream, partial, text: fields.next().unwrap_or_default() })
}

/// Tells when the log grows or is rotated.
struct Watch {
    inotify: AsyncFd<OwnedFd>,
    name: Vec<u8>,
    rotated: bool,
}

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        // The link in /var/log/pods may be followed by people; the file is watched where it is.
        let path = path.canonicalize()?;
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file name"));
        };
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&inotify, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        Ok(Self { inotify: register(inotify)?, name: name.as_bytes().to_vec(), rotated: false })
    }

    async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(ready.get_inner(), &mut buffer);
            let mut seen = false;
            loop {
                match reader.next() {
                    Ok(event) => {
                        // Without a name: the queue overflowed, and anything may have happened.
                        if event.file_name().is_none_or(|name| name.to_bytes() == self.name) {
                            seen = true;
                            self.rotated |= !event.events().contains(inotify::ReadFlags::MODIFY);
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}
