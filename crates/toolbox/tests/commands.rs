//! What each command prints and how it exits: the interface that the demo and the tests rely on.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_toolbox"))
}

fn run(args: &[&str]) -> Output {
    tool().args(args).output().unwrap()
}

/// Exit code and stdout.
fn says(args: &[&str]) -> (i32, String) {
    let output = run(args);
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// A command that runs until it is dropped, and its first lines.
struct Running(Child, BufReader<std::process::ChildStdout>);

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = tool().args(args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn code(&mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn the_server_says_who_it_is_and_whom_it_sees() {
    let (tcp, udp) = (free_port(), free_port());
    let mut server = Running::start(&["serve", &tcp, "--udp", &udp]);
    assert_eq!(server.line(), format!("serving TCP {tcp}"));
    assert_eq!(server.line(), format!("serving UDP {udp}"));

    let (code, body) = says(&["connect", "127.0.0.1", &tcp, "--get", "/a"]);
    assert_eq!(code, 0, "{body}");
    assert!(body.contains("hostname: ") && body.contains("request: GET /a"), "{body}");
    assert!(
        body.contains(&format!("address: 127.0.0.1:{tcp}")) && body.contains("client: 127.0.0.1:"),
        "{body}"
    );
    let (code, text) = says(&["connect", "localhost", &tcp]);
    assert!(code == 0 && text.contains("connected from 127.0.0.1:"), "{text}");
    let (code, text) = says(&["connect", "127.0.0.1", &udp, "--udp"]);
    assert!(code == 0 && text.contains("client: 127.0.0.1:") && text.contains("data: ping"), "{text}");

    // What is not HTTP is echoed, line by line, on one connection.
    let mut stream = TcpStream::connect(format!("127.0.0.1:{tcp}")).unwrap();
    for line in ["one\n", "two\n"] {
        stream.write_all(line.as_bytes()).unwrap();
        let mut echo = vec![0; line.len()];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, line.as_bytes());
    }
    let mut stream = TcpStream::connect(format!("127.0.0.1:{tcp}")).unwrap();
    stream.write_all(b"GET /status/503 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");

    server.signal(Signal::TERM);
    assert_eq!(server.code(), 0);
}

#[test]
fn connect_tells_refused_from_timed_out() {
    let port = free_port();
    assert_eq!(says(&["connect", "127.0.0.1", &port]).0, 1);
    assert_eq!(says(&["connect", "127.0.0.1", &port, "--udp", "--timeout", "200"]).0, 1);
    // A socket that is bound and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    assert_eq!(says(&["connect", "127.0.0.1", &port, "--udp", "--timeout", "200"]).0, 2);
}

#[test]
fn sleep_ends_by_itself_and_by_sigterm() {
    assert_eq!(says(&["sleep", "0.05"]).0, 0);
    let mut sleeper = Running::start(&["signal-echo"]);
    assert_eq!(sleeper.line(), "ready");
    sleeper.signal(Signal::USR1);
    assert_eq!(sleeper.line(), "SIGUSR1");
    sleeper.signal(Signal::TERM);
    assert_eq!(sleeper.line(), "SIGTERM");
    assert_eq!(sleeper.code(), 0);
    for wrong in [&["sleep"][..], &["sleep", "soon"], &["exit"], &["exit", "256"], &["nonsense"], &[]] {
        assert_eq!(run(wrong).status.code(), Some(64), "{wrong:?}");
    }
    assert_eq!(says(&["exit", "9"]).0, 9);
}

#[test]
fn show_is_json_that_agrees_with_the_kernel() {
    let (code, text) = says(&["show"]);
    assert_eq!(code, 0);
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["uid"], rustix::process::getuid().as_raw());
    let net = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(net.to_str().unwrap(), format!("net:[{}]", shown["namespaces"]["net"]));
    assert!(shown["mounts"].as_array().unwrap().iter().any(|mount| mount["point"] == "/proc"));
    assert_eq!(shown["CapEff"].as_str().unwrap().len(), 16);
    let output = tool().args(["show", "env"]).env_clear().env("ODD", "a\"b\\c\n\u{1}").output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown, serde_json::json!({ "env": { "ODD": "a\"b\\c\n\u{1}" } }));
    let id = says(&["id"]).1;
    assert!(id.starts_with(&format!("uid={} ", rustix::process::getuid().as_raw())), "{id}");
}

#[test]
fn files_are_written_read_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(says(&["write", &path("a"), "some", "text"]).0, 0);
    assert_eq!(says(&["read", &path("a")]), (0, "some text\n".to_owned()));
    assert_eq!(says(&["mkdir", &path("d")]).0, 0);
    let (code, list) = says(&["ls", dir.path().to_str().unwrap()]);
    assert_eq!(code, 0);
    let names: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(names, ["a", "d"]);
    let output = run(&["read", &path("missing")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("No such file or directory"));
}

#[test]
fn a_link_is_made_where_the_process_may_and_refused_where_not() {
    if !testkit::is_root("a_link_is_made_where_the_process_may_and_refused_where_not") {
        return;
    }
    let inside = |more: &[&str]| {
        Command::new("unshare")
            .arg("--net")
            .args(more)
            .arg(env!("CARGO_BIN_EXE_toolbox"))
            .args(["mklink", "made0"])
            .output()
            .unwrap()
    };
    let output = inside(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "created made0\n");
    let output = inside(&["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("Operation not permitted"));
}
