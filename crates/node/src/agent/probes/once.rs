//! One try of a probe, and one run of a hook: whom it asks, and what its answer means (kubelet `pkg/probe`,
//! `pkg/kubelet/lifecycle`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, EnvVar, ExecAction, LifecycleHandler, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use keeper::protocol::{ContainerId, ExecPlan};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::timeout as within,
};

use super::{LONGEST_OUTPUT, grpc, http};
use crate::agent::link::Link;

/// How long the output of an exec probe is waited for when its process has ended: a child of it may hold the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

/// What one try found.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It counts as passed, and its event says why one should look.
    Warning(String),
    Failure(String),
    /// It could not be carried out: no result.
    Errored(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Outcome {
        result.map_or_else(Outcome::Failure, |()| Outcome::Success)
    }
}

/// What the probes and hooks of a container look at.
#[derive(Clone)]
pub struct Target {
    pub container: ContainerId,
    pub ip: IpAddr,
    pub ports: Vec<ContainerPort>,
    /// The container's own variables, for the command of an exec probe.
    pub env: Vec<EnvVar>,
    /// None where there is nothing to execute in.
    pub link: Option<Link>,
}

impl Target {
    pub fn new(id: &ContainerId, container: &Container, ip: IpAddr, link: Option<Link>) -> Target {
        Target {
            container: id.clone(),
            ip,
            ports: container.ports.clone().unwrap_or_default(),
            env: container.env.clone().unwrap_or_default(),
            link,
        }
    }

    /// The host that is asked: the one that is named, else the pod.
    pub fn host(&self, named: Option<&str>) -> String {
        named.filter(|host| !host.is_empty()).map_or_else(|| self.ip.to_string(), str::to_owned)
    }

    /// A port by its number, or by its name among the container's.
    pub fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => self
                .ports
                .iter()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok()),
        };
        let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
        number.ok_or_else(|| match port {
            IntOrString::Int(number) => format!("invalid port number: {number}"),
            IntOrString::String(name) => format!("couldn't find port: {name}"),
        })
    }
}

/// One try, over after `timeout`.
pub async fn once(probe: &Probe, target: &Target, timeout: Duration) -> Outcome {
    if let Some(exec) = &probe.exec {
        return match by_exec(exec, target, timeout).await {
            Ok(result) => result.into(),
            Err(error) => Outcome::Errored(error),
        };
    }
    if let Some(get) = &probe.http_get {
        return http::probe(get, target, timeout).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = target.host(socket.host.as_deref());
        let port = match target.port(&socket.port) {
            Ok(port) => port,
            Err(error) => return Outcome::Errored(error),
        };
        let connected = within(timeout, dial(&host, port)).await;
        return connected
            .unwrap_or_else(|_| Err(format!("dial tcp {}: i/o timeout", at(&host, port))))
            .map(drop)
            .into();
    }
    if let Some(action) = &probe.grpc {
        return match u16::try_from(action.port) {
            Ok(port) => {
                let host = target.ip.to_string();
                grpc::check(&host, port, action.service.as_deref().unwrap_or_default(), timeout).await.into()
            }
            Err(_) => Outcome::Errored(format!("invalid port number: {}", action.port)),
        };
    }
    Outcome::Errored("missing probe handler".to_owned())
}

/// Runs a lifecycle hook (`postStart`, `preStop`) to its end; the error is what its event says.
pub async fn hook(handler: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        // The hook's own limit is the caller's: a day is none.
        return by_exec(exec, target, Duration::from_secs(86_400)).await?;
    }
    if let Some(get) = &handler.http_get {
        return http::hook(get, target).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("invalid handler: tcpSocket hooks are not carried out, as in Kubernetes".to_owned())
}

/// As Go joins them: brackets about what holds a colon.
pub fn at(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A connection from the node's network; the error is worded as Go words it.
pub async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    connected.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
            io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {}: {why}", at(host, port))
    })
}

/// Runs a command in the container. The outer error: it could not be run; the inner one: it failed, with what it printed.
async fn by_exec(
    exec: &ExecAction,
    target: &Target,
    timeout: Duration,
) -> Result<Result<(), String>, String> {
    let argv = command(exec, &target.env);
    let shown = argv.join(" ");
    match within(timeout, execute(argv, target)).await {
        Ok(result) => result,
        Err(_) => Ok(Err(format!("command {shown:?} timed out"))),
    }
}

/// The command with the container's literal variables in it (kubelet `ExpandContainerCommandOnlyStatic`).
fn command(exec: &ExecAction, env: &[EnvVar]) -> Vec<String> {
    let lookup = |name: &str| {
        let variable = env.iter().rev().find(|variable| variable.name == name)?;
        variable.value.clone().filter(|_| variable.value_from.is_none())
    };
    exec.command.iter().flatten().map(|word| policy::env::expand(word, lookup)).collect()
}

async fn execute(argv: Vec<String>, target: &Target) -> Result<Result<(), String>, String> {
    let link = target.link.as_ref().ok_or("the pod's keeper is gone")?;
    let plan = ExecPlan {
        container: target.container.clone(),
        argv,
        env: Vec::new(),
        cwd: None,
        user: None,
        tty: false,
        stdin: false,
        terminal_size: None,
    };
    let run = link.exec(plan).await.map_err(|error| error.to_string())?;
    // Out of time, this future is dropped: the process must not go on.
    let guard = KillOnDrop { link: link.clone(), exec: run.number, done: false };
    let mut pipes = Vec::new();
    for fd in run.fds.into_iter().skip(1) {
        pipes.push(tokio::net::unix::pipe::Receiver::from_owned_fd(fd).map_err(|error| error.to_string())?);
    }
    let mut output = Vec::new();
    let mut exited = run.exited;
    let exit = {
        let read = both(&mut pipes, &mut output);
        tokio::pin!(read);
        tokio::select! {
            exit = &mut exited => {
                // Whether all of it came matters less than that the verdict is told.
                drop(within(DRAIN, &mut read).await);
                exit
            }
            result = &mut read => {
                result.map_err(|error| error.to_string())?;
                exited.await
            }
        }
    };
    let exit = exit.map_err(|_| "the pod's keeper is gone".to_owned())?;
    guard.done();
    Ok(if exit.code == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&output).into_owned()) })
}

/// Reads both pipes to their ends at once, so that a process that fills one is not held up by the other; keeps the
/// beginning and throws the rest away, so that it is not killed for what nobody reads.
async fn both(pipes: &mut [tokio::net::unix::pipe::Receiver], output: &mut Vec<u8>) -> io::Result<()> {
    let (mut first, mut second) = ([0; 4096], [0; 4096]);
    let [out, err] = pipes else { return Ok(()) };
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let (count, chunk) = tokio::select! {
            count = some(out, &mut first), if out_open => {
                let count = count?;
                out_open = count > 0;
                (count, &first)
            }
            count = some(err, &mut second), if err_open => {
                let count = count?;
                err_open = count > 0;
                (count, &second)
            }
        };
        let room = LONGEST_OUTPUT.saturating_sub(output.len()).min(count);
        output.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
    Ok(())
}

async fn some(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    pipe.read(buffer).await
}

struct KillOnDrop {
    link: Link,
    exec: u64,
    done: bool,
}

impl KillOnDrop {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.done {
            let (link, exec) = (self.link.clone(), self.exec);
            // It may end by itself meanwhile.
            tokio::spawn(async move { drop(link.kill_exec(exec).await) });
        }
    }
}
