//! The server with a backend made of local processes and files; clients speak HTTP and WebSocket over its socket.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Mutex,
};

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use super::*;

/// Containers are directories; what is run in them runs here.
#[derive(Default)]
struct Local {
    logs: Mutex<HashMap<String, (PathBuf, watch::Receiver<bool>)>>,
    sizes: Arc<Mutex<Vec<(u16, u16)>>>,
}

impl Backend for Local {
    async fn logs(&self, target: &Target, previous: bool) -> Result<LogFiles, Box<Status>> {
        let key = if previous { format!("{}-previous", target.container) } else { target.container.clone() };
        match self.logs.lock().unwrap().get(&key) {
            Some((path, ended)) => Ok(LogFiles { path: path.clone(), ended: ended.clone() }),
            None => Err(status(StatusCode::NOT_FOUND, "NotFound", format!("container \"{key}\" has no log"))),
        }
    }

    async fn running(&self, target: &Target) -> Result<(), Box<Status>> {
        if target.container == "c" {
            return Ok(());
        }
        let text = format!("container {} is not valid for pod {}", target.container, target.pod);
        Err(status(StatusCode::BAD_REQUEST, "BadRequest", text))
    }

    async fn exec(&self, _: &Target, request: ExecRequest) -> Result<Session, Box<Status>> {
        let mut command = Command::new(&request.command[0]);
        command.args(&request.command[1..]);
        let wants = request.streams;
        if wants.tty {
            return self.terminal(command);
        }
        command.stdin(if wants.stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(if wants.stdout { Stdio::piped() } else { Stdio::null() });
        command.stderr(if wants.stderr { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|error| {
            let text = format!("error executing command in container: {error}");
            status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
        })?;
        let streams = Streams::Pipes {
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
        };
        Ok(Session { streams, exit: Some(exit_of(child)), resize: None })
    }

    async fn attach(&self, target: &Target, streams: Wants) -> Result<Session, Box<Status>> {
        let command = vec!["echo".to_owned(), "attached".to_owned()];
        let session = self.exec(target, ExecRequest { command, streams }).await?;
        Ok(Session { exit: None, ..session })
    }

    async fn port_forward(&self, _: &str, _: &str, port: u16) -> Result<TcpStream, Box<Status>> {
        TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|error| status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string()))
    }
}

impl Local {
    fn terminal(&self, mut command: Command) -> Result<Session, Box<Status>> {
        use rustix::pty;
        let master =
            pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY | pty::OpenptFlags::CLOEXEC)
                .unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        let name = pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || fs::File::options().read(true).write(true).open(&name).unwrap();
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        drop(command);
        let sizes = Arc::clone(&self.sizes);
        let resize = move |columns, rows| sizes.lock().unwrap().push((columns, rows));
        Ok(Session {
            streams: Streams::Terminal(master),
            exit: Some(exit_of(child)),
            resize: Some(Box::new(resize)),
        })
    }
}

fn exit_of(mut child: std::process::Child) -> oneshot::Receiver<i32> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(child.wait().unwrap().code().unwrap_or(137)));
    receiver
}

struct Fixture {
    dir: tempfile::TempDir,
    backend: Arc<Local>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = Arc::new(Local::default());
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        let allowed = vec![rustix::process::getuid().as_raw()];
        tokio::spawn(serve(listener, allowed, Arc::clone(&backend)));
        Self { dir, backend }
    }

    async fn socket(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("agent.sock")).await.unwrap()
    }

    /// Status and body of a request; chunks joined.
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.socket().await)).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::builder().method(method).uri(path).header("host", "node").body(full("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// A container with this log; the sender says that it has ended.
    fn log(&self, container: &str, text: &str) -> (PathBuf, watch::Sender<bool>) {
        let path = self.dir.path().join(format!("{container}.log"));
        fs::write(&path, text).unwrap();
        let (sender, ended) = watch::channel(false);
        self.backend.logs.lock().unwrap().insert(container.to_owned(), (path.clone(), ended));
        (path, sender)
    }

    async fn websocket(&self, path: &str, protocol: &str) -> tokio_tungstenite::WebSocketStream<UnixStream> {
        let mut request = format!("ws://node{path}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        tokio_tungstenite::client_async(request, self.socket().await).await.unwrap().0
    }
}

/// What each channel said until the server closed.
async fn collect(
    socket: &mut (impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> HashMap<u8, Vec<u8>> {
    let mut channels: HashMap<u8, Vec<u8>> = HashMap::new();
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(data) => channels.entry(data[0]).or_default().extend_from_slice(&data[1..]),
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
            }
            _ => {}
        }
    }
    channels
}

fn status_of(channels: &HashMap<u8, Vec<u8>>) -> Value {
    serde_json::from_slice(&channels[&3]).unwrap()
}

const LOG: &str = "\
2026-01-01T00:00:00.000000001Z stdout F one\n\
2026-01-01T00:00:01.000000000Z stderr F two\n\
2026-01-01T00:00:02.000000000Z stdout P thr\n\
2026-01-01T00:00:02.500000000Z stdout F ee\n\
2026-01-01T00:00:03.000000000Z stdout F \n";

#[tokio::test]
async fn logs_are_what_the_container_wrote_cut_as_asked() {
    let fixture = Fixture::new();
    fixture.log("c", LOG);
    fixture.log("c-previous", "2026-01-01T00:00:00Z stdout F before\n");
    for (query, expect) in [
        ("", "one\ntwo\nthree\n\n"),
        ("?timestamps=true&tailLines=1", "2026-01-01T00:00:03.000000000Z \n"),
        ("?tailLines=0", ""),
        ("?tailLines=1", "\n"),
        ("?tailLines=3", "three\n\n"),
        ("?tailLines=100", "one\ntwo\nthree\n\n"),
        ("?limitBytes=5", "one\nt"),
        ("?sinceTime=2026-01-01T00:00:01.5Z", "three\n\n"),
        ("?sinceTime=2026-01-01T00%3A00%3A03Z", "\n"),
        ("?sinceSeconds=1", ""),
        ("?previous=true", "before\n"),
        ("?stream=Stderr", "two\n"),
    ] {
        assert_eq!(
            fixture.ask("GET", &format!("/containerLogs/n/p/c{query}")).await,
            (200, expect.to_owned()),
            "{query}"
        );
    }
    let (_, text) = fixture.ask("GET", "/containerLogs/n/p/c?timestamps=true").await;
    assert!(
        text.contains("\n2026-01-01T00:00:02.000000000Z three\n"),
        "a partial line is stamped once: {text}"
    );
    for (query, code, expect) in [
        ("c?tailLines=-1", 400, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("c?sinceSeconds=0", 400, "must be greater than 0"),
        ("c?sinceTime=yesterday", 400, "sinceTime: Invalid value"),
        ("c?sinceTime=2026-01-01T00:00:00Z&sinceSeconds=1", 400, "at most one of"),
        ("absent", 404, "has no log"),
    ] {
        let (status, body) = fixture.ask("GET", &format!("/containerLogs/n/p/{query}")).await;
        assert_eq!(status, code, "{query}");
        assert!(body.contains(expect), "{query}: {body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["kind"], "Status");
    }
}

#[tokio::test]
async fn tail_lines_are_found_across_reads() {
    let fixture = Fixture::new();
    let long = "x".repeat(3000);
    let text: String = (0..100).map(|at| format!("2026-01-01T00:00:00Z stdout F {at} {long}\n")).collect();
    fixture.log("c", &text);
    let (_, body) = fixture.ask("GET", "/containerLogs/n/p/c?tailLines=60").await;
    assert_eq!(body.lines().count(), 60);
    assert!(body.starts_with("40 x"));
}

#[tokio::test]
async fn following_sees_what_is_written_across_a_rotation_and_ends_with_the_container() {
    let fixture = Fixture::new();
    let (path, ended) = fixture.log("c", "2026-01-01T00:00:00Z stdout F one\n");
    let mut socket = fixture.socket().await;
    socket.write_all(b"GET /containerLogs/n/p/c?follow=true HTTP/1.0\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    async fn until(socket: &mut UnixStream, seen: &mut String, text: &str) {
        while !seen.contains(text) {
            let mut buffer = [0; 4096];
            let count =
                tokio::time::timeout(std::time::Duration::from_secs(20), socket.read(&mut buffer)).await;
            let count = count.expect("in time").unwrap();
            assert_ne!(count, 0, "ended before {text:?}: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    }
    until(&mut socket, &mut seen, "one\n").await;
    let append = |text: &str| {
        fs::File::options().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    // In two pieces: half a line is none.
    append("2026-01-01T00:00:01Z stdout F tw");
    append("o\n");
    until(&mut socket, &mut seen, "two\n").await;
    append("2026-01-01T00:00:01Z stdout F last of the old file\n");
    fs::rename(&path, path.with_extension("old")).unwrap();
    fs::write(&path, "2026-01-01T00:00:02Z stdout F three\n").unwrap();
    until(&mut socket, &mut seen, "three\n").await;
    append("2026-01-01T00:00:03Z stdout F four\n");
    ended.send(true).unwrap();
    let mut rest = String::new();
    tokio::time::timeout(std::time::Duration::from_secs(20), socket.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    let body = seen.split_once("\r\n\r\n").unwrap().1.to_owned() + &rest;
    assert_eq!(body, "one\ntwo\nlast of the old file\nthree\nfour\n");
}

#[tokio::test]
async fn exec_carries_all_streams_and_the_exit_code() {
    let fixture = Fixture::new();
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let path = "/exec/n/p/c?command=sh&command=-c&command=echo+out;echo%20err%3E%262;exit%203&stdout=true&stderr=1";
        let mut socket = fixture.websocket(path, protocol).await;
        let channels = collect(&mut socket).await;
        assert_eq!(channels[&1], b"out\n");
        assert_eq!(channels[&2], b"err\n");
        let status = status_of(&channels);
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert!(
            status["message"].as_str().unwrap().starts_with("command terminated with non-zero exit code: ")
        );
    }
}

#[tokio::test]
async fn stdin_ends_when_version_5_says_so_and_large_streams_come_through_whole() {
    let fixture = Fixture::new();
    // The kubelet's own names of the parameters.
    let socket =
        fixture.websocket("/exec/n/p/uid/c?command=sha256sum&input=1&output=1", "v5.channel.k8s.io").await;
    let (mut sink, mut stream) = socket.split();
    let data = vec![7_u8; 1 << 20];
    for chunk in data.chunks(32 << 10) {
        sink.send(Message::Binary([&[0], chunk].concat().into())).await.unwrap();
    }
    sink.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let channels = collect(&mut stream).await;
    let sum: String = {
        use sha2::Digest;
        sha2::Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!(String::from_utf8_lossy(&channels[&1]), format!("{sum}  -\n"));
    assert_eq!(status_of(&channels)["status"], "Success");

    let path = "/exec/n/p/c?command=head&command=-c&command=3000000&command=/dev/zero&stdout=true";
    let mut socket = fixture.websocket(path, "v5.channel.k8s.io").await;
    assert_eq!(collect(&mut socket).await[&1].len(), 3_000_000);
}

#[tokio::test]
async fn a_terminal_has_one_stream_and_is_resized() {
    let fixture = Fixture::new();
    let path = "/exec/n/p/c?command=sh&command=-c&command=read%20x;echo%20got%20$x;exec%202%3E%261;ls%20/nonexistent&stdin=true&stdout=true&stderr=true&tty=true";
    let socket = fixture.websocket(path, "v5.channel.k8s.io").await;
    let (mut sink, mut stream) = socket.split();
    sink.send(Message::Binary([&[4][..], br#"{"Width":120,"Height":40}"#].concat().into())).await.unwrap();
    sink.send(Message::Binary(b"\0word\n".to_vec().into())).await.unwrap();
    let channels = collect(&mut stream).await;
    let text = String::from_utf8_lossy(&channels[&1]);
    assert!(text.contains("got word\r\n") && text.contains("/nonexistent"), "{text}");
    assert!(!channels.contains_key(&2));
    assert_eq!(status_of(&channels)["details"]["causes"][0]["message"], "2");
    assert_eq!(*fixture.backend.sizes.lock().unwrap(), [(120, 40)]);
}

#[tokio::test]
async fn attach_ends_with_the_containers_streams() {
    let fixture = Fixture::new();
    let mut socket = fixture.websocket("/attach/n/p/c?stdout=true&stderr=true", "v5.channel.k8s.io").await;
    let channels = collect(&mut socket).await;
    assert_eq!(channels[&1], b"attached\n");
    assert_eq!(status_of(&channels)["status"], "Success");
}

#[tokio::test]
async fn a_command_that_cannot_start_is_told_on_the_error_channel() {
    let fixture = Fixture::new();
    let mut socket =
        fixture.websocket("/exec/n/p/c?command=/nonexistent&stdout=true", "v5.channel.k8s.io").await;
    let status = status_of(&collect(&mut socket).await);
    assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &500.into()));
    assert!(status["message"].as_str().unwrap().contains("error executing command in container"), "{status}");
}

#[tokio::test]
async fn a_client_that_goes_takes_the_process_streams_with_it() {
    let fixture = Fixture::new();
    let mark = fixture.dir.path().join("ended");
    let path = format!(
        "/exec/n/p/c?command=sh&command=-c&command=cat;touch+{}&stdin=true&stdout=true",
        mark.display()
    );
    let mut socket = fixture.websocket(&path, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(b"\0x".to_vec().into())).await.unwrap();
    while let Some(Ok(Message::Binary(data))) = socket.next().await {
        if data[..] == b"\x01x"[..] {
            break;
        }
    }
    drop(socket);
    // cat's stdin ends, so the shell goes on.
    for _ in 0..200 {
        if mark.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the process still waits for a client that is gone");
}

#[tokio::test]
async fn what_is_wrong_is_told_before_the_upgrade() {
    let fixture = Fixture::new();
    assert_eq!(fixture.ask("GET", "/healthz").await, (200, "ok".to_owned()));
    for (method, path, code, expect) in [
        ("GET", "/nothing", 404, "404 page not found"),
        ("GET", "/exec/n/p", 404, "404 page not found"),
        ("DELETE", "/exec/n/p/c", 404, "404 page not found"),
        ("GET", "/exec/n/p/c?command=a", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("GET", "/exec/n/p/c?stdout=1", 400, "you must specify at least 1 command for the container"),
        ("GET", "/exec/n/p/c?command=a&stdout=1", 400, "Upgrade request required"),
        ("POST", "/run/n/p/other?cmd=true", 400, "container other is not valid for pod p"),
        ("POST", "/run/n/p/c?cmd=", 400, "you must specify at least 1 command"),
        ("POST", "/run/n/p/c?cmd=false", 500, "exit code 1"),
        ("POST", "/run/n/p/c?cmd=echo+a+b", 200, "a b\n"),
    ] {
        let (status, body) = fixture.ask(method, path).await;
        assert_eq!(status, code, "{method} {path}: {body}");
        assert!(body.contains(expect), "{method} {path}: {body}");
    }
    let upgrade = |path: &str, protocol: &str| {
        let mut request = format!("ws://node{path}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        request
    };
    for (path, protocol) in [
        ("/exec/n/p/other?command=a&stdout=1", "v5.channel.k8s.io"),
        ("/exec/n/p/c?command=a&stdout=1", "v9.channel.k8s.io"),
    ] {
        let result = tokio_tungstenite::client_async(upgrade(path, protocol), fixture.socket().await).await;
        let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = result else {
            panic!("{path}: {result:?}")
        };
        assert_eq!(response.status(), 400, "{path}");
    }
}

#[tokio::test]
async fn strangers_are_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    tokio::spawn(serve(listener, vec![4_000_000], Arc::new(Local::default())));
    let mut socket = UnixStream::connect(dir.path().join("agent.sock")).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.ok();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.ok();
    assert!(answer.is_empty());
}

/// Upgrades to SPDY, and gives the protocol that the server chose.
async fn spdy(
    fixture: &Fixture,
    path: &str,
    protocol: &str,
) -> (super::spdy::tests::Client<UnixStream>, String) {
    let mut socket = fixture.socket().await;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\
         X-Stream-Protocol-Version: v9.channel.k8s.io\r\nX-Stream-Protocol-Version: {protocol}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    (super::spdy::tests::Client::new(socket), head)
}

#[tokio::test]
async fn exec_over_spdy_carries_all_streams_and_the_exit_code() {
    let fixture = Fixture::new();
    let path =
        "/exec/n/p/c?command=sh&command=-c&command=cat;echo+err%3E%262;exit%204&input=1&output=1&error=1";
    let (mut client, head) = spdy(&fixture, path, "v4.channel.k8s.io").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(stream, &[("streamType", kind)]).await;
        assert_eq!(client.frame().await.unwrap().0, 0x8000_0002, "a SYN_REPLY for {kind}");
    }
    client.ping(9).await;
    client.data(3, b"some ", false).await;
    client.data(3, b"input", true).await;
    let mut streams: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut ended = Vec::new();
    let mut pong = false;
    while ended.len() < 3 {
        let (stream, bytes, end) = client.frame().await.unwrap();
        pong |= stream == 0x8000_0006 && bytes == 9_u32.to_be_bytes();
        streams.entry(stream).or_default().extend(bytes);
        if end {
            ended.push(stream);
        }
    }
    assert!(pong);
    assert_eq!(streams[&5], b"some input");
    assert_eq!(streams[&7], b"err\n");
    let status: Value = serde_json::from_slice(&streams[&1]).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "4");
    let (_, head) = spdy(&fixture, "/exec/n/p/c?command=a&stdout=1", "v1").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

/// Answers each connection with what it sent, in capitals, after the client's end.
fn capitals() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        }
    });
    port
}

async fn forwards<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    client: &mut super::spdy::tests::Client<T>,
) {
    let port = capitals().to_string();
    for (id, error, data) in [("0", 1, 3), ("1", 5, 7)] {
        for (stream, kind) in [(error, "error"), (data, "data")] {
            client.open(stream, &[("streamType", kind), ("port", &port), ("requestID", id)]).await;
            assert_eq!(client.frame().await.unwrap().0, 0x8000_0002);
        }
    }
    client.data(3, b"first", true).await;
    client.data(7, b"second", true).await;
    let mut streams: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut ended = Vec::new();
    while ended.len() < 4 {
        let (stream, bytes, end) = client.frame().await.unwrap();
        streams.entry(stream).or_default().extend(bytes);
        if end {
            ended.push(stream);
        }
    }
    assert_eq!((&streams[&3][..], &streams[&7][..]), (&b"FIRST"[..], &b"SECOND"[..]));
    assert!(streams[&1].is_empty() && streams[&5].is_empty());

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for (stream, kind) in [(9, "error"), (11, "data")] {
        client.open(stream, &[("streamType", kind), ("port", &closed), ("requestID", "2")]).await;
    }
    let mut text = Vec::new();
    loop {
        let (stream, bytes, end) = client.frame().await.unwrap();
        if stream == 9 {
            text.extend(bytes);
            if end {
                break;
            }
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with(&format!("error forwarding port {closed} to pod p")) && text.contains("refused"),
        "{text}"
    );
    client.open(13, &[("streamType", "data"), ("port", "0"), ("requestID", "3")]).await;
    assert_eq!(loop_until_control(client).await, 0x8000_0003, "port 0 is reset");
}

async fn loop_until_control<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    client: &mut super::spdy::tests::Client<T>,
) -> u32 {
    loop {
        let (stream, _, _) = client.frame().await.unwrap();
        if stream & 0x8000_0000 != 0 {
            return stream;
        }
    }
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let fixture = Fixture::new();
    let (mut client, head) = spdy(&fixture, "/portForward/n/p", "portforward.k8s.io").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    forwards(&mut client).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_in_a_websocket() {
    let fixture = Fixture::new();
    let socket = fixture.websocket("/portForward/n/p", "SPDY/3.1+portforward.k8s.io").await;
    let (mut sink, mut stream) = socket.split();
    let (inside, outside) = tokio::io::duplex(4096);
    let (mut reader, mut writer) = tokio::io::split(outside);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(data) = message {
                writer.write_all(&data).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 1000];
        loop {
            match reader.read(&mut buffer).await.unwrap() {
                0 => return,
                count => sink.send(Message::Binary(buffer[..count].to_vec().into())).await.unwrap(),
            }
        }
    });
    forwards(&mut super::spdy::tests::Client::new(inside)).await;
}
