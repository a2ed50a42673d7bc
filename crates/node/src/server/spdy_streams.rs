//! Exec, attach and port forwarding over SPDY: which stream carries what is said by its headers
//! (`k8s.io/kubelet/pkg/cri/streaming`, protocols `v4.channel.k8s.io` and `portforward.k8s.io`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    Backend, Body, Session, Wants, bad_request, full,
    session::{Input, Output, pump},
    spdy::{self, Event, Frame},
    websocket::has_word,
};

/// How long a client has to open the streams it announced: the kubelet's `defaultStreamCreationTimeout`.
const CREATION: Duration = Duration::from_secs(30);
/// How long a client gets to close after everything was sent.
const CLOSING: Duration = Duration::from_secs(10);
const EXEC_PROTOCOL: &str = "v4.channel.k8s.io";
const FORWARD_PROTOCOL: &str = "portforward.k8s.io";
const VERSION: &str = "x-stream-protocol-version";
const CHUNK: usize = 32 << 10;
/// Connections of one client at a time.
const MAX_FORWARDS: usize = 256;

pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    has_word(headers, header::CONNECTION, "upgrade") && has_word(headers, header::UPGRADE, "spdy/3.1")
}

fn switch(headers: &HeaderMap, protocol: &'static str) -> Result<Response<Body>, Box<Status>> {
    let offered: Vec<&str> =
        headers.get_all(VERSION).iter().filter_map(|value| value.to_str().ok()).collect();
    let known = offered.iter().flat_map(|list| list.split(',')).any(|offer| offer.trim() == protocol);
    if !known {
        return Err(bad_request(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{protocol}]"
        )));
    }
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(VERSION, HeaderValue::from_static(protocol));
    Ok(response)
}

/// Exec or attach.
pub(super) fn upgrade(
    mut request: Request<Incoming>,
    wants: Wants,
    command: Vec<String>,
    open: impl Future<Output = Result<Session, Box<Status>>> + Send + 'static,
) -> Result<Response<Body>, Box<Status>> {
    let response = switch(request.headers(), EXEC_PROTOCOL)?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        carry(TokioIo::new(upgraded), wants, &command, open).await;
    });
    Ok(response)
}

/// Which stream is what.
#[derive(Default)]
struct Ids {
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    error: Option<u32>,
    resize: Option<u32>,
}

impl Ids {
    fn complete(&self, wants: Wants) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == wants.stdin
            && self.stdout.is_some() == wants.stdout
            && self.stderr.is_some() == wants.stderr
            && self.resize.is_some() == wants.tty
    }
}

async fn carry(
    transport: impl AsyncRead + AsyncWrite + Send + 'static,
    wants: Wants,
    command: &[String],
    open: impl Future<Output = Result<Session, Box<Status>>>,
) {
    let (mut events, frames) = spdy::start(transport);
    let mut ids = Ids::default();
    let opened = tokio::time::timeout(CREATION, open_streams(&mut events, &frames, wants, &mut ids)).await;
    if !matches!(opened, Ok(true)) {
        return;
    }
    let (input_sender, input) = mpsc::channel(8);
    let (output, output_receiver) = mpsc::channel(8);
    let session = open.await;
    let receiving = receive(&mut events, &ids, input_sender);
    tokio::pin!(receiving);
    let work =
        async { tokio::join!(pump(session, command, input, output), send(&frames, &ids, output_receiver)) };
    tokio::pin!(work);
    tokio::select! {
        _ = &mut work => {}
        () = &mut receiving => {
            // The client is gone; the session notices by the end of its input.
            work.await;
            return;
        }
    }
    // The client closes when it has read everything.
    tokio::time::timeout(CLOSING, receiving).await.ok();
}

/// False when the client went, or opened what it should not.
async fn open_streams(
    events: &mut mpsc::Receiver<Event>,
    frames: &mpsc::Sender<Frame>,
    wants: Wants,
    ids: &mut Ids,
) -> bool {
    while !ids.complete(wants) {
        // Data before all streams are there would be lost: clients wait for the replies.
        let Some(event) = events.recv().await else { return false };
        let Event::Open { stream, headers } = event else { continue };
        let place = match headers.get("streamtype").map(String::as_str) {
            Some("stdin") if wants.stdin => &mut ids.stdin,
            Some("stdout") if wants.stdout => &mut ids.stdout,
            Some("stderr") if wants.stderr => &mut ids.stderr,
            Some("resize") if wants.tty => &mut ids.resize,
            Some("error") => &mut ids.error,
            _ => {
                if frames.send(Frame::Reset { stream }).await.is_err() {
                    return false;
                }
                continue;
            }
        };
        *place = Some(stream);
        if frames.send(Frame::Reply { stream }).await.is_err() {
            return false;
        }
    }
    true
}

/// client-go's `remotecommand.TerminalSize`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn receive(events: &mut mpsc::Receiver<Event>, ids: &Ids, input: mpsc::Sender<Input>) {
    let mut input = Some(input);
    let mut sizes = BytesMut::new();
    while let Some(event) = events.recv().await {
        let mut inputs = Vec::new();
        match event {
            Event::Data { stream, bytes } if Some(stream) == ids.stdin => inputs.push(Input::Stdin(bytes)),
            Event::End { stream } if Some(stream) == ids.stdin => inputs.push(Input::StdinEnd),
            Event::Data { stream, bytes } if Some(stream) == ids.resize => {
                // JSON documents, a line each.
                sizes.extend_from_slice(&bytes);
                while let Some(end) = sizes.iter().position(|byte| *byte == b'\n') {
                    if let Ok(size) = serde_json::from_slice::<Size>(&sizes.split_to(end + 1)) {
                        inputs.push(Input::Resize(size.width, size.height));
                    }
                }
                if sizes.len() > CHUNK {
                    return;
                }
            }
            _ => {}
        }
        for event in inputs {
            if let Some(sender) = &input
                && sender.send(event).await.is_err()
            {
                // The session is over; the rest is read and dropped until the client has closed.
                input = None;
            }
        }
    }
}

async fn send(frames: &mpsc::Sender<Frame>, ids: &Ids, mut output: mpsc::Receiver<Output>) {
    while let Some(event) = output.recv().await {
        let (stream, bytes) = match event {
            Output::Stdout(bytes) => (ids.stdout, bytes),
            Output::Stderr(bytes) => (ids.stderr, bytes),
            Output::Status(bytes) => (ids.error, bytes),
        };
        if let Some(stream) = stream
            && frames.send(Frame::Data { stream, bytes }).await.is_err()
        {
            return;
        }
    }
    // The client reads each to its end.
    for stream in [ids.stdout, ids.stderr, ids.error].into_iter().flatten() {
        if frames.send(Frame::End { stream }).await.is_err() {
            return;
        }
    }
}

/// `kubectl port-forward`, over SPDY as such.
pub(super) fn forward<B: Backend>(
    mut request: Request<Incoming>,
    backend: Arc<B>,
    namespace: String,
    pod: String,
) -> Result<Response<Body>, Box<Status>> {
    let response = switch(request.headers(), FORWARD_PROTOCOL)?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        forward_on(TokioIo::new(upgraded), backend, namespace, pod).await;
    });
    Ok(response)
}

/// A connection in the making: a pair of streams with the same request id.
#[derive(Default)]
struct Pair {
    port: Option<u16>,
    error: Option<u32>,
    data: Option<u32>,
}

/// Serves pairs of streams until the client goes.
pub(super) async fn forward_on<B: Backend>(
    transport: impl AsyncRead + AsyncWrite + Send + 'static,
    backend: Arc<B>,
    namespace: String,
    pod: String,
) {
    let (mut events, frames) = spdy::start(transport);
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    // What the client sends, by data stream. A queue that is full holds the whole connection, as in spdystream.
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Open { stream, headers } => {
                let answer = match accept(&mut pairs, stream, &headers) {
                    Some(_) if open.len() < MAX_FORWARDS => Frame::Reply { stream },
                    _ => Frame::Reset { stream },
                };
                if frames.send(answer).await.is_err() {
                    return;
                }
                let id = headers.get("requestid").cloned().unwrap_or_default();
                if let Some(Pair { port: Some(port), error: Some(error), data: Some(data) }) = pairs.get(&id)
                {
                    let (sender, receiver) = mpsc::channel(8);
                    open.insert(*data, sender);
                    tokio::spawn(connect(
                        Arc::clone(&backend),
                        (namespace.clone(), pod.clone(), *port),
                        (*error, *data),
                        frames.clone(),
                        receiver,
                    ));
                    pairs.remove(&id);
                }
                open.retain(|_, sender| !sender.is_closed());
            }
            Event::Data { stream, bytes } => {
                if let Some(sender) = open.get(&stream)
                    && sender.send(bytes).await.is_err()
                {
                    open.remove(&stream);
                }
            }
            Event::End { stream } => drop(open.remove(&stream)),
        }
    }
}

fn accept(pairs: &mut HashMap<String, Pair>, stream: u32, headers: &HashMap<String, String>) -> Option<()> {
    let id = headers.get("requestid")?;
    let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    if pairs.len() >= MAX_FORWARDS {
        return None;
    }
    let pair = pairs.entry(id.clone()).or_default();
    pair.port = Some(port);
    match headers.get("streamtype")?.as_str() {
        "error" => pair.error = Some(stream),
        "data" => pair.data = Some(stream),
        _ => return None,
    }
    Some(())
}

async fn connect<B: Backend>(
    backend: Arc<B>,
    (namespace, pod, port): (String, String, u16),
    (error, data): (u32, u32),
    frames: mpsc::Sender<Frame>,
    mut from_client: mpsc::Receiver<Bytes>,
) {
    let result = async {
        let stream = backend
            .port_forward(&namespace, &pod, port)
            .await
            .map_err(|refused| refused.message.unwrap_or_default())?;
        let (mut reader, mut writer) = stream.into_split();
        let up = async {
            while let Some(bytes) = from_client.recv().await {
                writer.write_all(&bytes).await?;
            }
            writer.shutdown().await
        };
        let down = async {
            loop {
                let mut buffer = BytesMut::with_capacity(CHUNK);
                if reader.read_buf(&mut buffer).await? == 0 {
                    // The client may send on, but nothing more comes.
                    frames.send(Frame::End { stream: data }).await.ok();
                    return Ok(());
                }
                if frames.send(Frame::Data { stream: data, bytes: buffer.freeze() }).await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::try_join!(up, down).map(drop).map_err(|error: std::io::Error| error.to_string())
    };
    if let Err(text) = result.await {
        // As the kubelet words it; kubectl prints what comes on the error stream.
        let text = format!(
            "error forwarding port {port} to pod {pod}, uid : failed to execute portforward in network namespace: {text}"
        );
        frames.send(Frame::Data { stream: error, bytes: text.into() }).await.ok();
        frames.send(Frame::End { stream: data }).await.ok();
    }
    frames.send(Frame::End { stream: error }).await.ok();
}
