//! The agent's HTTP server, on a unix socket: the part of the kubelet's API that the API server passes on for
//! `kubectl logs`, `exec`, `attach` and `port-forward`. It knows HTTP and the streaming protocols; what a container is and
//! how one gets into it, a [`Backend`] says.
//!
//! ```text
//! GET       /healthz
//! GET       /containerLogs/<namespace>/<pod>/<container>?follow=&tailLines=&sinceSeconds=&sinceTime=&timestamps=&previous=&limitBytes=
//! GET|POST  /exec/<namespace>/<pod>/<container>?command=…&stdin=&stdout=&stderr=&tty=      (or input=, output=, error=)
//! GET|POST  /attach/<namespace>/<pod>/<container>?…
//! GET|POST  /portForward/<namespace>/<pod>
//! POST      /run/<namespace>/<pod>/<container>?cmd=…
//! POST      /probe/watch          what becomes of a packet on this node, a line of JSON each, until the client closes
//! POST      /probe/send[/<namespace>/<pod>]   that packet, from the node or the pod; its port is kept until the client closes
//! POST      /addresses/<node>     that node tells of its new pods; the API server vouches for its name
//! ```

mod logs;
mod probe;
mod session;
mod spdy;
mod spdy_streams;
mod websocket;

use std::{convert::Infallible, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusDetails};
use tokio::{
    net::{TcpStream, UnixListener, UnixStream},
    sync::{oneshot, watch},
};

use crate::agent::{Announcement, Missing};
use crate::net::probe::{Asked, Held, Packet, Watch};

/// A container that a request names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// Where a container's log is.
#[derive(Debug)]
pub struct LogFiles {
    /// The file that is written, in the CRI's format. When it is renamed and made anew, the new one is read on.
    pub path: PathBuf,
    /// True once the container has ended and all it wrote is in the file: then following ends. A sender that is gone
    /// means the same.
    pub ended: watch::Receiver<bool>,
}

/// Which of a process's streams the client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wants {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// `kubectl exec`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub streams: Wants,
}

/// Our ends of a process's streams.
#[derive(Debug)]
pub enum Streams {
    /// What was not asked for is None. Closing stdin is how the process learns of its end.
    Pipes { stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd> },
    /// The master of its terminal.
    Terminal(OwnedFd),
}

/// A process whose streams a client gets.
pub struct Session {
    pub streams: Streams,
    /// The exit code of a command; of an attached container, the end of which is the end of its streams, None.
    pub exit: Option<oneshot::Receiver<i32>>,
    /// Sets the terminal's columns and rows.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
}

/// What the server needs of the agent. Errors are `Status` objects that go to the client as they are: see [`status`].
pub trait Backend: Send + Sync + 'static {
    /// The log of the container's current or, with `previous`, its last terminated attempt.
    fn logs(
        &self,
        target: &Target,
        previous: bool,
    ) -> impl Future<Output = Result<LogFiles, Box<Status>>> + Send;
    /// Whether there is such a container and it runs. Asked before a connection is upgraded, so that the client sees the
    /// error as HTTP.
    fn running(&self, target: &Target) -> impl Future<Output = Result<(), Box<Status>>> + Send;
    /// Starts a process in the container.
    fn exec(
        &self,
        target: &Target,
        request: ExecRequest,
    ) -> impl Future<Output = Result<Session, Box<Status>>> + Send;
    /// The container's own streams.
    fn attach(
        &self,
        target: &Target,
        wants: Wants,
    ) -> impl Future<Output = Result<Session, Box<Status>>> + Send;
    /// Another node tells of its new pods' addresses; returns when this node's rules have them, or soon with those that
    /// it has not heard of.
    fn announced(
        &self,
        node: &str,
        announcement: Announcement,
    ) -> impl Future<Output = Result<Missing, Box<Status>>> + Send {
        let text = format!("this node does not take in {} addresses of {node}", announcement.pods.len());
        async { Err(status(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)) }
    }
    /// Follows a packet through this node's rule sets.
    fn watch(&self, asked: Asked) -> impl Future<Output = Result<Watch, Box<Status>>> + Send {
        let text = format!("this node does not follow packets to {}", asked.packet.to);
        async { Err(status(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)) }
    }
    /// Sends a packet from the pod, or from the node itself.
    fn send(
        &self,
        pod: Option<(&str, &str)>,
        packet: Packet,
    ) -> impl Future<Output = Result<Held, Box<Status>>> + Send {
        let text = format!("this node sends no packets, to {} from {pod:?}", packet.to);
        async { Err(status(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)) }
    }
    /// A TCP connection to a port inside the pod's network namespace.
    fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> impl Future<Output = Result<TcpStream, Box<Status>>> + Send {
        let text = format!("port forwarding to {namespace}/{pod} port {port} is not supported by this node");
        async { Err(status(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)) }
    }
}

/// The most of an announcement, in bytes: some thousand addresses.
const ADDRESSES: usize = 1 << 20;

/// A failure as Kubernetes words it: `reason` is one of its StatusReasons.
pub fn status(code: StatusCode, reason: &str, message: impl Into<String>) -> Box<Status> {
    Box::new(Status {
        status: Some("Failure".to_owned()),
        code: Some(code.as_u16().into()),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        details: Some(StatusDetails::default()),
        ..Status::default()
    })
}

fn bad_request(message: impl Into<String>) -> Box<Status> {
    status(StatusCode::BAD_REQUEST, "BadRequest", message)
}

type Body = BoxBody<Bytes, io::Error>;

fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never: Infallible| match never {}).boxed()
}

fn refuse(status: &Status) -> Response<Body> {
    let code = status
        .code
        .and_then(|code| u16::try_from(code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = Response::new(full(serde_json::to_vec(status).unwrap_or_default()));
    *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The pause after a connection could not be taken for want of something.
const SHORTAGE: std::time::Duration = std::time::Duration::from_millis(50);

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Answers on `listener` for as long as it is polled. Peers must have one of the user ids `allowed`: the socket's mode
/// alone would let in whoever it is passed to.
///
/// # Errors
/// What accepting says, other than of a single connection.
pub async fn serve<B: Backend>(listener: UnixListener, allowed: Vec<u32>, backend: Arc<B>) -> io::Result<()> {
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            // Out of descriptors: the sessions that hold them give them back, and no agent ends for it.
            Err(error) if is_shortage(&error) => {
                tokio::time::sleep(SHORTAGE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        match stream.peer_cred() {
            Ok(peer) if allowed.contains(&peer.uid()) => {}
            _ => continue,
        }
        let backend = Arc::clone(&backend);
        tokio::spawn(connection(stream, backend));
    }
}

async fn connection<B: Backend>(stream: UnixStream, backend: Arc<B>) {
    let service = service_fn(move |request| {
        let backend = Arc::clone(&backend);
        async move { Ok::<_, Infallible>(route(request, backend).await) }
    });
    // A client that breaks off concerns nobody else.
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .ok();
}

async fn route<B: Backend>(request: Request<Incoming>, backend: Arc<B>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let mut parts = path.trim_start_matches('/').split('/');
    let action = parts.next().unwrap_or_default();
    let names: Vec<String> = parts.map(|part| percent_decode(part, false)).collect();
    let target = |names: &[String]| match names {
        [namespace, pod, container] | [namespace, pod, _, container] => {
            Ok(Target { namespace: namespace.clone(), pod: pod.clone(), container: container.clone() })
        }
        _ => Err(status(StatusCode::NOT_FOUND, "NotFound", "404 page not found")),
    };
    let result = match (action, request.method()) {
        ("healthz", _) => Ok(Response::new(full("ok"))),
        ("containerLogs", &Method::GET) => match target(&names) {
            Ok(target) => logs::respond(&*backend, &target, &query).await,
            Err(error) => Err(error),
        },
        ("exec" | "attach", &Method::GET | &Method::POST) => match target(&names) {
            Ok(target) => stream(request, &query, backend, target, action == "exec").await,
            Err(error) => Err(error),
        },
        ("portForward", &Method::GET | &Method::POST) => match names.as_slice() {
            [namespace, pod] | [namespace, pod, _] => {
                let (namespace, pod) = (namespace.clone(), pod.clone());
                if spdy_streams::is_asked(request.headers()) {
                    spdy_streams::forward(request, backend, namespace, pod)
                } else if websocket::is_asked(request.headers()) {
                    websocket::forward(request, backend, namespace, pod)
                } else {
                    Err(bad_request("Upgrade request required"))
                }
            }
            _ => Err(status(StatusCode::NOT_FOUND, "NotFound", "404 page not found")),
        },
        ("addresses", &Method::POST) => match names.as_slice() {
            [node] => addresses(request, &*backend, node).await,
            _ => Err(status(StatusCode::NOT_FOUND, "NotFound", "404 page not found")),
        },
        ("probe", &Method::POST) => match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["watch"] => probe::watch(request, &*backend).await,
            ["send"] => probe::send(request, &*backend, None).await,
            ["send", namespace, pod] => probe::send(request, &*backend, Some((*namespace, *pod))).await,
            _ => Err(status(StatusCode::NOT_FOUND, "NotFound", "404 page not found")),
        },
        ("run", &Method::POST) => match target(&names) {
            Ok(target) => session::run(&*backend, &target, &query).await,
            Err(error) => Err(error),
        },
        _ => Err(status(StatusCode::NOT_FOUND, "NotFound", "404 page not found")),
    };
    result.unwrap_or_else(|error| refuse(&error))
}

/// Another node's word on its new pods; answered when the rules have it.
async fn addresses<B: Backend>(
    request: Request<Incoming>,
    backend: &B,
    node: &str,
) -> Result<Response<Body>, Box<Status>> {
    let announcement = read(request, ADDRESSES, "the addresses").await?;
    let missing = backend.announced(node, announcement).await?;
    Ok(Response::new(full(serde_json::to_vec(&missing).unwrap_or_default())))
}

/// A request's body, of so many bytes at most.
async fn read<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
    most: usize,
    what: &str,
) -> Result<T, Box<Status>> {
    let body = Limited::new(request.into_body(), most)
        .collect()
        .await
        .map_err(|error| bad_request(format!("read {what}: {error}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad_request(format!("read {what}: {error}")))
}

/// `exec` and `attach`: checks, then leaves the connection to a streaming protocol.
async fn stream<B: Backend>(
    request: Request<Incoming>,
    query: &Query,
    backend: Arc<B>,
    target: Target,
    exec: bool,
) -> Result<Response<Body>, Box<Status>> {
    let either = |kubectl: &str, kubelet: &str| query.flag(kubectl) || query.flag(kubelet);
    let tty = query.flag("tty");
    let wants = Wants {
        stdin: either("stdin", "input"),
        stdout: either("stdout", "output"),
        // With a terminal there is one output: remotecommand.NewOptions.
        stderr: either("stderr", "error") && !tty,
        tty,
    };
    if !(wants.stdin || wants.stdout || wants.stderr) {
        return Err(bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if exec && command.is_empty() {
        return Err(bad_request("you must specify at least 1 command for the container"));
    }
    let spdy = spdy_streams::is_asked(request.headers());
    if !spdy && !websocket::is_asked(request.headers()) {
        return Err(bad_request("Upgrade request required"));
    }
    backend.running(&target).await?;
    let words = command.clone();
    let open = async move {
        if exec {
            backend.exec(&target, ExecRequest { command, streams: wants }).await
        } else {
            backend.attach(&target, wants).await
        }
    };
    if spdy {
        spdy_streams::upgrade(request, wants, words, open)
    } else {
        websocket::upgrade(request, wants, words, open)
    }
}

/// A query string's parameters in order; names may repeat.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(name, true), percent_decode(value, true))
                })
                .collect(),
        )
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// As apimachinery's `Convert_Slice_string_To_bool`: there, and neither `false` nor `0`.
    fn flag(&self, name: &str) -> bool {
        self.all(name).next().is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Decodes `%xx`, and in a query `+`.
fn percent_decode(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| {
            after.get(at).and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8)
        };
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', ..) if plus => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
