//! What the kernel and the wire show of a pod, seen from the machine: /proc, namespace inodes, connections made from
//! inside a pod's network namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// How long a packet may take to be answered before we call it dropped.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// The first process of a container, as the machine numbers it.
pub fn first_process(cluster: &str, node: &str, uid: &str, container: &str, attempt: u32) -> Result<i32> {
    let below = format!("cofferdam-{cluster}/{node}/pod{uid}/{container}_{attempt}/cgroup.procs");
    for hierarchy in ["unified", "pids", "memory", ""] {
        let path = Path::new("/sys/fs/cgroup").join(hierarchy).join(&below);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        // The lowest number is the oldest process: the one the container began with.
        if let Some(pid) = text.lines().filter_map(|line| line.parse::<i32>().ok()).min() {
            return Ok(pid);
        }
    }
    bail!("no process in a cgroup {below}")
}

/// `/proc/<pid>/status` by its names.
pub fn status(pid: i32) -> Result<BTreeMap<String, String>> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Ok(fields
        .map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect())
}

/// The inode that stands for a namespace.
pub fn namespace(pid: i32, kind: &str) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::read_link(&path).with_context(|| format!("read {path}"))
}

/// Which of the kinds are the same for two processes.
pub fn shared(one: i32, other: i32, kinds: &[&str]) -> Result<Vec<String>> {
    let mut shared = Vec::new();
    for kind in kinds {
        if namespace(one, kind)? == namespace(other, kind)? {
            shared.push((*kind).to_owned());
        }
    }
    Ok(shared)
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connected, and this was answered to a request.
    Answered(String),
    Refused,
    /// No packet came back.
    Dropped,
}

impl Outcome {
    pub fn passes(&self) -> bool {
        matches!(self, Outcome::Answered(_))
    }
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Answered(_) => "passes",
            Outcome::Refused => "is refused",
            Outcome::Dropped => "is dropped",
        }
    }
}

/// Connects from the network namespace of a process and asks for `/`. A container that runs need not listen yet: while it
/// refuses, it is asked again, for two seconds.
pub fn connect(from: i32, to: Ipv4Addr, port: u16) -> Result<Outcome> {
    for _ in 0..100 {
        let outcome = connect_once(from, to, port)?;
        if outcome != Outcome::Refused {
            return Ok(outcome);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Outcome::Refused)
}

fn connect_once(from: i32, to: Ipv4Addr, port: u16) -> Result<Outcome> {
    within(from, move || {
        let address = SocketAddr::V4(SocketAddrV4::new(to, port));
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => ask(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                Ok(Outcome::Dropped)
            }
            Err(error) => Err(error).with_context(|| format!("connect to {address}")),
        }
    })
}

fn ask(mut stream: TcpStream) -> Result<Outcome> {
    stream.set_read_timeout(Some(PATIENCE)).context("set a time limit")?;
    let mut answer = String::new();
    let exchange = stream
        .write_all(b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut answer).map(drop));
    match exchange {
        Ok(()) => {
            Ok(Outcome::Answered(answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned()))
        }
        Err(_) => Ok(Outcome::Dropped),
    }
}

/// A connection that stays open, made from the network namespace of a process.
pub fn open(from: i32, to: Ipv4Addr, port: u16) -> Result<TcpStream> {
    within(from, move || {
        let address = SocketAddr::V4(SocketAddrV4::new(to, port));
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connect to {address}"))
    })
}

/// Whether an open connection still carries a request and its answer.
pub fn alive(stream: TcpStream) -> Result<bool> {
    Ok(ask(stream)?.passes())
}

/// Runs `work` on a thread of its own in the network namespace of a process: sockets belong where they were made.
fn within<T: Send + 'static>(pid: i32, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
    let thread = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(
            namespace.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .context("setns")?;
        work()
    });
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("the probe's thread panicked"),
    }
}
