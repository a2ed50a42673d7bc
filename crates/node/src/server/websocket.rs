//! Exec and attach over WebSocket, as `v5.channel.k8s.io` and `v4.channel.k8s.io` say: each binary message begins with
//! the number of its channel. Version 5 adds the message `255, channel`: the client will send no more on it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    Backend, Body, Session, Wants, bad_request, full,
    session::{Input, Output, pump},
};

/// In order of preference; the client's order decides.
const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Clients send pieces of 32 KiB.
const MAX_MESSAGE: usize = 4 << 20;
/// How long a client gets to answer the closing frame.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(10);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether the client asks for a WebSocket.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    has_word(headers, header::CONNECTION, "upgrade") && has_word(headers, header::UPGRADE, "websocket")
}

/// Whether a header's comma-separated list has a word, in any case.
pub(super) fn has_word(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    words(headers, name).any(|found| found.eq_ignore_ascii_case(word))
}

fn words(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Answers 101 and, once the connection is the client's, opens the session and carries it.
pub(super) fn upgrade(
    mut request: Request<Incoming>,
    wants: Wants,
    command: Vec<String>,
    open: impl Future<Output = Result<Session, Box<Status>>> + Send + 'static,
) -> Result<Response<Body>, Box<Status>> {
    let (protocol, accept) = check(request.headers(), PROTOCOLS)?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A client that went before the answer reached it.
        let Ok(upgraded) = upgraded.await else { return };
        let socket = Socket::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config())).await;
        carry(socket, wants, &command, open).await;
    });
    Ok(switch(protocol, &accept))
}

/// The protocol to speak, the first of the client's that is `known`, and the answer to its key.
fn check(headers: &HeaderMap, known: &[&'static str]) -> Result<(&'static str, String), Box<Status>> {
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| bad_request("unable to upgrade: missing header Sec-WebSocket-Key"))?;
    if !has_word(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(bad_request("unable to upgrade: Sec-WebSocket-Version must be 13"));
    }
    let offered: Vec<&str> = words(headers, header::SEC_WEBSOCKET_PROTOCOL).collect();
    let Some(protocol) = offered.iter().find_map(|offer| known.iter().find(|known| *known == offer)) else {
        return Err(bad_request(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"
        )));
    };
    Ok((protocol, derive_accept_key(key.as_bytes())))
}

fn switch(protocol: &'static str, accept: &str) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// `kubectl port-forward` over WebSocket: binary messages carry the bytes of a SPDY connection (KEP-4006).
pub(super) fn forward<B: Backend>(
    mut request: Request<Incoming>,
    backend: Arc<B>,
    namespace: String,
    pod: String,
) -> Result<Response<Body>, Box<Status>> {
    let (protocol, accept) = check(request.headers(), &[TUNNEL])?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let socket = Socket::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config())).await;
        let (mut sink, mut stream) = socket.split();
        let (inside, outside) = tokio::io::duplex(64 << 10);
        let (mut from_spdy, mut to_spdy) = tokio::io::split(outside);
        let up = async {
            while let Some(Ok(message)) = stream.next().await {
                let data = match message {
                    Message::Binary(data) => data,
                    Message::Close(_) => break,
                    _ => continue,
                };
                if to_spdy.write_all(&data).await.is_err() {
                    break;
                }
            }
            // The SPDY connection ends when its reader does.
            to_spdy.shutdown().await.ok();
        };
        let down = async {
            loop {
                let mut buffer = BytesMut::with_capacity(32 << 10);
                match from_spdy.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {
                        if sink.send(Message::Binary(buffer.freeze())).await.is_err() {
                            break;
                        }
                    }
                }
            }
            sink.close().await.ok();
        };
        tokio::join!(super::spdy_streams::forward_on(inside, backend, namespace, pod), up, down);
    });
    Ok(switch(protocol, &accept))
}

fn config() -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    config
}

async fn carry(
    socket: Socket,
    wants: Wants,
    command: &[String],
    open: impl Future<Output = Result<Session, Box<Status>>>,
) {
    let (mut sink, mut stream) = socket.split();
    // As the kubelet: an empty message tells the client that the connection is there.
    let first = if wants.stdout {
        STDOUT
    } else if wants.stderr {
        STDERR
    } else {
        ERROR
    };
    if sink.send(message(first, &Bytes::new())).await.is_err() {
        return;
    }
    let (input_sender, input) = mpsc::channel(8);
    let (output, output_receiver) = mpsc::channel(8);
    let session = open.await;
    let receiving = receive(&mut stream, input_sender);
    let sending = send(sink, output_receiver);
    tokio::pin!(receiving);
    let work = async { tokio::join!(pump(session, command, input, output), sending) };
    tokio::pin!(work);
    tokio::select! {
        _ = &mut work => {}
        () = &mut receiving => {
            // The client is gone, or has closed: the session notices by the end of its input.
            work.await;
            return;
        }
    }
    // Until the client has closed too, so that what was sent last is not lost with the connection.
    tokio::time::timeout(CLOSING, receiving).await.ok();
}

/// Passes on what comes, until the client closes.
async fn receive(stream: &mut SplitStream<Socket>, input: mpsc::Sender<Input>) {
    let mut input = Some(input);
    while let Some(Ok(message)) = stream.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => {
                input = None;
                continue;
            }
            _ => continue,
        };
        let Some((channel, rest)) = data.split_first() else { continue };
        let event = match *channel {
            STDIN if rest.is_empty() => continue,
            STDIN => Input::Stdin(data.slice(1..)),
            CLOSE if rest == [STDIN] => Input::StdinEnd,
            RESIZE => match serde_json::from_slice::<Size>(rest) {
                Ok(size) => Input::Resize(size.width, size.height),
                Err(_) => continue,
            },
            _ => continue,
        };
        if let Some(sender) = &input
            && sender.send(event).await.is_err()
        {
            // The session is over; what still comes is read and dropped until the client has closed.
            input = None;
        }
    }
}

/// client-go's `remotecommand.TerminalSize`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn send(mut sink: SplitSink<Socket, Message>, mut output: mpsc::Receiver<Output>) {
    while let Some(event) = output.recv().await {
        let sent = match &event {
            Output::Stdout(bytes) => sink.send(message(STDOUT, bytes)).await,
            Output::Stderr(bytes) => sink.send(message(STDERR, bytes)).await,
            Output::Status(bytes) => sink.send(message(ERROR, bytes)).await,
        };
        if sent.is_err() {
            return;
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // The client may have closed first.
    sink.send(Message::Close(Some(close))).await.ok();
}

fn message(channel: u8, bytes: &Bytes) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(bytes);
    Message::Binary(message.freeze())
}
