//! `cofferdam why --live`: watching for a packet, and sending it. What each holds in the kernel is held by its response,
//! and goes when the client closes it, or when [`LONGEST`] is over.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use super::{Backend, Body, read, status};
use crate::net::probe::{Asked, Packet, Seen, Watch};

const LONGEST: Duration = Duration::from_secs(20);
/// Of a request, in bytes.
const REQUEST: usize = 4096;

/// Ends the watch when it is dropped.
struct Stop(Arc<OwnedFd>);

impl Drop for Stop {
    fn drop(&mut self) {
        if let Err(errno) = rustix::io::write(&*self.0, &1u64.to_ne_bytes()) {
            eprintln!("end the watch for a packet: write to an eventfd: {errno}");
        }
    }
}

/// Answers when nothing is missed any more.
pub(super) async fn watch<B: Backend>(
    request: Request<Incoming>,
    backend: &B,
) -> Result<Response<Body>, Box<Status>> {
    let asked: Asked = read(request, REQUEST, "what to watch for").await?;
    if let Some(wrong) = asked.packet.wrong() {
        return Err(super::bad_request(wrong));
    }
    let watch = backend.watch(asked).await?;
    let failed = |error: io::Error| {
        let text = format!("watch for a packet: {error}");
        status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
    };
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?);
    let (sender, receiver) = mpsc::channel(64);
    let until = stop.clone();
    std::thread::Builder::new()
        .name("probe".into())
        .stack_size(256 << 10)
        .spawn(move || tell(watch, &until, &sender))
        .map_err(failed)?;
    let seen = stream::unfold((receiver, Stop(stop)), |(mut receiver, stop)| async move {
        let seen: Seen = receiver.recv().await?;
        let mut line = serde_json::to_vec(&seen).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, io::Error>(Frame::data(Bytes::from(line))), (receiver, stop)))
    });
    Ok(Response::new(StreamBody::new(seen).boxed()))
}

/// Until nobody listens any more.
fn tell(mut watch: Watch, stop: &OwnedFd, to: &mpsc::Sender<Seen>) {
    let until = Instant::now() + LONGEST;
    if to.blocking_send(Seen::Watching).is_err() {
        return;
    }
    loop {
        let seen = match watch.next(stop, until) {
            Ok(seen) if seen.is_empty() => return,
            Ok(seen) => seen,
            Err(error) => vec![Seen::Lost { why: error.to_string() }],
        };
        for seen in seen {
            let last = matches!(seen, Seen::Lost { .. });
            if to.blocking_send(seen).is_err() || last {
                return;
            }
        }
    }
}

/// Answers when the packet is sent.
pub(super) async fn send<B: Backend>(
    request: Request<Incoming>,
    backend: &B,
    pod: Option<(&str, &str)>,
) -> Result<Response<Body>, Box<Status>> {
    let packet: Packet = read(request, REQUEST, "the packet").await?;
    let held = backend.send(pod, packet).await?;
    let sent = stream::unfold((held, false), |(held, told)| async move {
        if told {
            tokio::time::sleep(LONGEST).await;
            return None;
        }
        Some((Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"\"sent\"\n"))), (held, true)))
    });
    Ok(Response::new(StreamBody::new(sent).boxed()))
}
