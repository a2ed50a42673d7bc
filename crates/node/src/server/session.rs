//! Carries the streams of a process to and from a client, whatever protocol the client speaks: bytes, the end of stdin,
//! the terminal's size one way; bytes and the closing Status the other way.

use std::{io, os::fd::OwnedFd};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use tokio::{io::unix::AsyncFd, sync::mpsc, task::JoinSet};

use super::{Backend, Body, ExecRequest, Query, Session, Streams, Target, Wants, bad_request, full, status};
use crate::images::register;

/// What comes from a client. The end of the queue says that it is gone.
#[derive(Debug)]
pub(super) enum Input {
    Stdin(Bytes),
    StdinEnd,
    /// Columns and rows.
    Resize(u16, u16),
}

/// What goes to a client; `Status` is the last.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    Status(Bytes),
}

const CHUNK: usize = 32 << 10;

/// Runs a session to its end: all output is sent, then the Status. Ends early when the client goes; the process then
/// loses its streams (a terminal hangs up), as with the kubelet.
pub(super) async fn pump(
    session: Result<Session, Box<Status>>,
    command: &[String],
    mut input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
) {
    let session = match session {
        Ok(session) => session,
        Err(error) => return finish(&output, &error).await,
    };
    let (writer, readers) = match open(session.streams) {
        Ok(open) => open,
        Err(error) => {
            let text = format!("error executing command in container: {error}");
            let error = status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text);
            return finish(&output, &error).await;
        }
    };
    let mut reading = JoinSet::new();
    for (descriptor, is_stderr) in readers {
        reading.spawn(read_all(descriptor, is_stderr, output.clone()));
    }
    let (stdin, chunks) = mpsc::channel(4);
    let mut writing = JoinSet::new();
    if let Some(writer) = writer {
        writing.spawn(write_all(writer, chunks));
    }
    let mut stdin = Some(stdin);
    let mut exit = session.exit;
    let mut code = None;
    loop {
        if exit.is_none() && reading.is_empty() {
            break;
        }
        tokio::select! {
            // The kubelet reports the exit after all output: so does this loop, which ends when both are in.
            ended = async { exit.as_mut()?.await.ok() }, if exit.is_some() => {
                code = Some(ended);
                exit = None;
            }
            Some(_) = reading.join_next(), if !reading.is_empty() => {}
            received = input.recv() => match received {
                None => return,
                Some(Input::Stdin(bytes)) => {
                    if let Some(sender) = &stdin
                        && sender.send(bytes).await.is_err()
                    {
                        // The process has closed its stdin; what comes now goes nowhere.
                        stdin = None;
                    }
                }
                Some(Input::StdinEnd) => stdin = None,
                Some(Input::Resize(columns, rows)) => {
                    if let Some(resize) = &session.resize {
                        resize(columns, rows);
                    }
                }
            },
        }
    }
    let result = match code {
        None | Some(Some(0)) => success(),
        Some(Some(code)) => non_zero(command, code),
        Some(None) => status(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "error executing command in container: its keeper is gone before it ended",
        ),
    };
    finish(&output, &result).await;
}

async fn finish(output: &mpsc::Sender<Output>, status: &Status) {
    let text = serde_json::to_vec(status).unwrap_or_default();
    // A client that is gone needs no status.
    output.send(Output::Status(text.into())).await.ok();
}

fn success() -> Box<Status> {
    Box::new(Status { status: Some("Success".to_owned()), ..Status::default() })
}

/// As the kubelet's `remotecommand.ServeExec`: clients take the exit code from the cause.
fn non_zero(command: &[String], code: i32) -> Box<Status> {
    Box::new(Status {
        status: Some("Failure".to_owned()),
        reason: Some("NonZeroExitCode".to_owned()),
        message: Some(format!(
            "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
            command.join(" ")
        )),
        details: Some(StatusDetails {
            causes: Some(vec![StatusCause {
                reason: Some("ExitCode".to_owned()),
                message: Some(code.to_string()),
                field: None,
            }]),
            ..StatusDetails::default()
        }),
        ..Status::default()
    })
}

type Descriptor = AsyncFd<OwnedFd>;
/// Something to read, and whether it is stderr.
type Readable = (Descriptor, bool);

/// Where to write, and what to read.
fn open(streams: Streams) -> io::Result<(Option<Descriptor>, Vec<Readable>)> {
    match streams {
        Streams::Terminal(master) => {
            let writer = rustix::io::fcntl_dupfd_cloexec(&master, 0)?;
            Ok((Some(nonblocking(writer)?), vec![(nonblocking(master)?, false)]))
        }
        Streams::Pipes { stdin, stdout, stderr } => {
            let mut readers = Vec::new();
            for (descriptor, is_stderr) in [(stdout, false), (stderr, true)] {
                if let Some(descriptor) = descriptor {
                    readers.push((nonblocking(descriptor)?, is_stderr));
                }
            }
            Ok((stdin.map(nonblocking).transpose()?, readers))
        }
    }
}

fn nonblocking(descriptor: OwnedFd) -> io::Result<Descriptor> {
    fcntl_setfl(&descriptor, fcntl_getfl(&descriptor)? | OFlags::NONBLOCK)?;
    register(descriptor)
}

async fn read_all(descriptor: Descriptor, is_stderr: bool, output: mpsc::Sender<Output>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(CHUNK, 0);
        let Ok(mut ready) = descriptor.readable().await else { return };
        match ready.try_io(|descriptor| Ok(rustix::io::read(descriptor.get_ref(), &mut buffer[..])?)) {
            // EIO is how a terminal's master says that nobody has the terminal open any more.
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => {
                let bytes = buffer.split_to(count).freeze();
                let message = if is_stderr { Output::Stderr(bytes) } else { Output::Stdout(bytes) };
                if output.send(message).await.is_err() {
                    return;
                }
            }
            Err(_would_block) => {}
        }
    }
}

/// Writes what comes; the end of the queue closes the descriptor. So does a process that no longer reads.
async fn write_all(descriptor: Descriptor, mut chunks: mpsc::Receiver<Bytes>) {
    while let Some(mut bytes) = chunks.recv().await {
        while !bytes.is_empty() {
            let Ok(mut ready) = descriptor.writable().await else { return };
            match ready.try_io(|descriptor| Ok(rustix::io::write(descriptor.get_ref(), &bytes)?)) {
                Ok(Ok(count)) => drop(bytes.split_to(count)),
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}

/// `POST /run/…?cmd=`: the output of a command, stdout and stderr together, when it has ended.
pub(super) async fn run<B: Backend>(
    backend: &B,
    target: &Target,
    query: &Query,
) -> Result<Response<Body>, Box<Status>> {
    const MOST: usize = 16 << 20;
    let command: Vec<String> = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    if command.iter().all(String::is_empty) {
        return Err(bad_request("you must specify at least 1 command for the container"));
    }
    backend.running(target).await?;
    let streams = Wants { stdin: false, stdout: true, stderr: true, tty: false };
    let session = backend.exec(target, ExecRequest { command: command.clone(), streams }).await?;
    let (_client, input) = mpsc::channel(1);
    let (sender, mut output) = mpsc::channel(8);
    let mut text = BytesMut::new();
    let collect = async {
        let mut result = Status::default();
        while let Some(message) = output.recv().await {
            match message {
                Output::Stdout(bytes) | Output::Stderr(bytes) => {
                    text.extend_from_slice(
                        bytes.get(..bytes.len().min(MOST - text.len())).unwrap_or_default(),
                    );
                }
                Output::Status(bytes) => result = serde_json::from_slice(&bytes).unwrap_or_default(),
            }
        }
        result
    };
    let ((), result) = tokio::join!(pump(Ok(session), &command, input, sender), collect);
    if result.status.as_deref() == Some("Success") {
        Ok(Response::new(full(text.freeze())))
    } else {
        let text = result.message.unwrap_or_default();
        Err(status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text))
    }
}
