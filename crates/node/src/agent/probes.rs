//! Startup, readiness and liveness probes: one task per probe of a running container, each with its own period, that tells
//! the pod's worker when its verdict changes.

use std::{net::IpAddr, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, ExecAction, HTTPGetAction, LifecycleHandler, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use keeper::protocol::{ContainerId, ExecPlan};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, task::JoinHandle};

use super::link::Link;

/// The most of a probe's output that is shown, in bytes.
const LONGEST_OUTPUT: usize = 10 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// What a probe's task tells.
#[derive(Debug)]
pub struct Report {
    pub container: ContainerId,
    pub kind: Kind,
    /// The thresholds have decided; None for a single failure that only makes an event.
    pub verdict: Option<bool>,
    /// Why it failed, as kubelet words it.
    pub failure: Option<String>,
}

/// The tasks of one running container; they end when this is dropped.
pub struct Probes {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What the probes of a container look at.
#[derive(Clone)]
pub struct Target {
    pub container: ContainerId,
    pub ip: IpAddr,
    pub ports: Vec<ContainerPort>,
    pub link: Link,
}

/// Starts the startup probe alone if there is one and has not passed, else readiness and liveness probes.
pub fn start(
    container: &Container,
    started: bool,
    target: &Target,
    reports: &mpsc::Sender<Report>,
) -> Probes {
    let chosen = match (&container.startup_probe, started) {
        (Some(probe), false) => vec![(Kind::Startup, probe)],
        _ => [(Kind::Readiness, &container.readiness_probe), (Kind::Liveness, &container.liveness_probe)]
            .into_iter()
            .filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
            .collect(),
    };
    let tasks = chosen
        .into_iter()
        .map(|(kind, probe)| tokio::spawn(run(kind, probe.clone(), target.clone(), reports.clone())))
        .collect();
    Probes { tasks }
}

async fn run(kind: Kind, probe: Probe, target: Target, reports: mpsc::Sender<Report>) {
    let seconds = |value: Option<i32>, default: i32| value.filter(|value| *value > 0).unwrap_or(default);
    let delay = probe.initial_delay_seconds.unwrap_or(0).max(0);
    tokio::time::sleep(Duration::from_secs(delay.unsigned_abs().into())).await;
    let period = Duration::from_secs(seconds(probe.period_seconds, 10).unsigned_abs().into());
    let timeout = Duration::from_secs(seconds(probe.timeout_seconds, 1).unsigned_abs().into());
    let (success, failure) = (seconds(probe.success_threshold, 1), seconds(probe.failure_threshold, 3));
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut last, mut run) = (None, 0);
    let mut told = None;
    loop {
        interval.tick().await;
        let result = match tokio::time::timeout(timeout, once(&probe, &target)).await {
            Ok(result) => result,
            Err(_) => {
                Err(format!("command timed out: context deadline exceeded after {}s", timeout.as_secs()))
            }
        };
        let passed = result.is_ok();
        run = if last == Some(passed) { run + 1 } else { 1 };
        last = Some(passed);
        let decided = run >= if passed { success } else { failure };
        let verdict = (decided && told != Some(passed)).then_some(passed);
        if verdict.is_some() {
            told = verdict;
        }
        if verdict.is_none() && passed {
            continue;
        }
        let report = Report { container: target.container.clone(), kind, verdict, failure: result.err() };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// One try; the error is what kubelet would say after `Readiness probe failed: `.
async fn once(probe: &Probe, target: &Target) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return by_exec(exec, target).await;
    }
    if let Some(get) = &probe.http_get {
        return by_http(get, target).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = host(socket.host.as_deref(), target)?;
        let port = port(&socket.port, target)?;
        return TcpStream::connect((host, port))
            .await
            .map(drop)
            .map_err(|error| format!("dial tcp {host}:{port}: {error}"));
    }
    Err("this kind of probe (grpc) is not carried out by this node".to_owned())
}

/// Runs a lifecycle hook (`postStart`, `preStop`) to its end; the error is what its event says.
pub async fn hook(handler: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return by_exec(exec, target).await;
    }
    if let Some(get) = &handler.http_get {
        return by_http(get, target).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("this kind of hook is not carried out by this node".to_owned())
}

fn host(host: Option<&str>, target: &Target) -> Result<IpAddr, String> {
    match host.filter(|host| !host.is_empty()) {
        None => Ok(target.ip),
        Some(host) => host.parse().map_err(|_| format!("host {host:?} is no IP address")),
    }
}

fn port(port: &IntOrString, target: &Target) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => target
            .ports
            .iter()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("couldn't find port: {port:?}"))
}

async fn by_exec(exec: &ExecAction, target: &Target) -> Result<(), String> {
    let plan = ExecPlan {
        container: target.container.clone(),
        argv: exec.command.clone().unwrap_or_default(),
        env: Vec::new(),
        cwd: None,
        user: None,
        tty: false,
        stdin: false,
        terminal_size: None,
    };
    let mut run = target.link.exec(plan).await.map_err(|error| error.to_string())?;
    // Out of time, this future is dropped: the process must not go on.
    let guard = KillOnDrop { link: target.link.clone(), exec: run.number, done: false };
    let mut output = Vec::new();
    for fd in run.fds.drain(..).skip(1) {
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).map_err(|error| error.to_string())?;
        pipe.take(LONGEST_OUTPUT as u64).read_to_end(&mut output).await.map_err(|error| error.to_string())?;
    }
    let exit = (&mut run.exited).await.map_err(|_| "the pod's keeper is gone".to_owned())?;
    guard.done();
    if exit.code == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&output).into_owned()) }
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

async fn by_http(get: &HTTPGetAction, target: &Target) -> Result<(), String> {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP");
    if scheme != "HTTP" {
        return Err(format!("probes by {scheme} are not carried out by this node"));
    }
    let (host, port) = (host(get.host.as_deref(), target)?, port(&get.port, target)?);
    let path = get.path.as_deref().unwrap_or("/");
    let failed = |error: &dyn std::fmt::Display| format!("Get \"http://{host}:{port}{path}\": {error}");
    let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let mut request = http::Request::get(path)
        .header("Host", format!("{host}:{port}"))
        .header("User-Agent", "kube-probe/1.35")
        .header("Accept", "*/*")
        .header("Connection", "close");
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| failed(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let code = response.status().as_u16();
        // Enough of the body is read for the server to finish; what it says does not matter.
        drop(http_body_util::Limited::new(response.into_body(), LONGEST_OUTPUT).collect().await);
        if (200..400).contains(&code) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {code}"))
        }
    };
    tokio::select! {
        result = exchange => result,
        ended = connection => Err(match ended {
            Ok(()) => failed(&"the server closed the connection"),
            Err(error) => failed(&error),
        }),
    }
}
