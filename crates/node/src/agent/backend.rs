//! What the agent's server asks for: where a container's log is, and a way into a running container.

use std::{io, sync::Arc};

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use keeper::protocol::{ContainerId, ContainerPhase, ExecPlan, TerminalOf, TerminalSize};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::{
    announce::{Announcement, HOLD, Missing},
    context::{Context, PodView, Shown},
    link::{Link, LinkError},
    report::Subject,
    watch::Announced,
};
use crate::net::probe;
use crate::server::{Backend, ExecRequest, LogFiles, Session, Streams, Target, Wants, status};

pub struct Containers(pub Arc<Context>);

type Refused = Box<Status>;

impl Containers {
    fn view(&self, target: &Target) -> Result<Arc<PodView>, Refused> {
        self.0.find(&target.namespace, &target.pod).ok_or_else(|| {
            status(StatusCode::NOT_FOUND, "NotFound", format!("pods \"{}\" not found", target.pod))
        })
    }

    /// The running attempt and the way to it.
    fn running_one(&self, target: &Target) -> Result<(Link, ContainerId, Shown), Refused> {
        let shown = self.view(target)?.shown();
        let refused = || {
            let message = format!("container not found (\"{}\")", target.container);
            status(StatusCode::NOT_FOUND, "NotFound", message)
        };
        match (shown.link.clone(), shown.containers.get(&target.container)) {
            (Some(link), Some((attempt, true))) => {
                let id = ContainerId { name: target.container.clone(), attempt: *attempt };
                Ok((link, id, shown))
            }
            _ => Err(refused()),
        }
    }
}

fn failed(error: &LinkError) -> Refused {
    status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string())
}

impl Backend for Containers {
    async fn announced(&self, node: &str, announcement: Announcement) -> Result<Missing, Refused> {
        let until = tokio::time::Instant::now() + HOLD;
        let asked = announcement.pods.into_iter().map(|pod| async move {
            let uid = pod.uid.clone();
            let (taken_in, answer) = oneshot::channel();
            let announced = Announced { from: node.to_owned(), pod, taken_in };
            let queued = self.0.announced.send(announced).await.is_ok();
            let heard = queued && matches!(tokio::time::timeout_at(until, answer).await, Ok(Ok(())));
            (!heard).then_some(uid)
        });
        Ok(Missing { pods: futures::future::join_all(asked).await.into_iter().flatten().collect() })
    }

    async fn logs(&self, target: &Target, previous: bool) -> Result<LogFiles, Refused> {
        let view = self.view(target)?;
        let shown = view.shown();
        let missing = |what: &str| {
            let message = format!("{what} \"{}\" in pod \"{}\"", target.container, target.pod);
            status(StatusCode::BAD_REQUEST, "BadRequest", message)
        };
        let Some((newest, runs)) = shown.containers.get(&target.container).copied() else {
            return Err(status(
                StatusCode::BAD_REQUEST,
                "BadRequest",
                format!(
                    "container \"{}\" in pod \"{}\" is waiting to start: ContainerCreating",
                    target.container, target.pod
                ),
            ));
        };
        let attempt = match previous {
            true => newest.checked_sub(1).ok_or_else(|| missing("previous terminated container")).map_err(
                |mut refused| {
                    refused.message = refused.message.map(|message| format!("{message} not found"));
                    refused
                },
            )?,
            false => newest,
        };
        let subject =
            Subject { namespace: target.namespace.clone(), name: target.pod.clone(), uid: view.uid.clone() };
        let path = self.0.config.log_dir(&subject).join(&target.container).join(format!("{attempt}.log"));
        let grows = runs && !previous;
        let (sender, ended) = watch::channel(!grows);
        if grows {
            let mut changed = view.changes();
            let (view, name) = (view.clone(), target.container.clone());
            tokio::spawn(async move {
                // Until this attempt is not the running one any more, or the worker is gone, or nobody follows.
                loop {
                    let still = view.shown().containers.get(&name) == Some(&(attempt, true));
                    if !still {
                        sender.send_replace(true);
                        return;
                    }
                    tokio::select! {
                        change = changed.changed() => if change.is_err() { return },
                        () = sender.closed() => return,
                    }
                }
            });
        }
        Ok(LogFiles { path, ended })
    }

    async fn running(&self, target: &Target) -> Result<(), Refused> {
        self.running_one(target).map(drop)
    }

    async fn exec(&self, target: &Target, request: ExecRequest) -> Result<Session, Refused> {
        let (link, container, _) = self.running_one(target)?;
        let Wants { stdin, stdout, stderr, tty } = request.streams;
        let plan = ExecPlan {
            container,
            argv: request.command,
            // A terminal without TERM is of little use; the CRI sets it likewise.
            env: if tty { vec!["TERM=xterm".to_owned()] } else { Vec::new() },
            cwd: None,
            user: None,
            tty,
            stdin,
            terminal_size: None,
        };
        // The kubelet's words; the code tells clients that the command did not run.
        let refused = |error: LinkError| {
            let text = format!("Internal error occurred: error executing command in container: {error}");
            status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
        };
        let run = link.exec(plan).await.map_err(refused)?;
        let (number, exited) = (run.number, run.exited);
        let mut fds = run.fds.into_iter();
        let streams = match tty {
            true => Streams::Terminal(fds.next().ok_or_else(|| failed(&LinkError::Unexpected))?),
            false => {
                let (input, output, error) = (fds.next(), fds.next(), fds.next());
                Streams::Pipes {
                    stdin: input.filter(|_| stdin),
                    stdout: output.filter(|_| stdout),
                    stderr: error.filter(|_| stderr),
                }
            }
        };
        let (sender, exit) = oneshot::channel();
        tokio::spawn(async move {
            // A keeper that dies takes its processes with it.
            let code = exited.await.map_or(137, |exit| exit.code);
            if sender.send(code).is_err() {
                eprintln!("nobody waits for an exec any more, which ended with {code}");
            }
        });
        Ok(Session { streams, exit: Some(exit), resize: resize(link, TerminalOf::Exec(number), tty) })
    }

    async fn attach(&self, target: &Target, wants: Wants) -> Result<Session, Refused> {
        let (link, container, shown) = self.running_one(target)?;
        let specs = shown.pod.iter().flat_map(|pod| policy::security_context::containers(pod));
        let tty = specs
            .into_iter()
            .find(|(_, one)| one.name == target.container)
            .is_some_and(|(_, one)| one.tty.unwrap_or(false));
        let fds = link.attach(container.clone()).await.map_err(|error| failed(&error))?;
        let mut fds = fds.into_iter();
        let (stdin, stdout, stderr) = (fds.next(), fds.next(), fds.next());
        Ok(Session {
            streams: Streams::Pipes {
                stdin: stdin.filter(|_| wants.stdin),
                stdout: stdout.filter(|_| wants.stdout),
                stderr: stderr.filter(|_| wants.stderr),
            },
            exit: None,
            resize: resize(link, TerminalOf::Container(container), tty),
        })
    }

    async fn watch(&self, asked: probe::Asked) -> Result<probe::Watch, Refused> {
        let net = self.0.net.clone();
        let watch = tokio::task::spawn_blocking(move || net.watch(asked)).await.map_err(broken)?;
        watch.map_err(broken)
    }

    async fn send(&self, pod: Option<(&str, &str)>, packet: probe::Packet) -> Result<probe::Held, Refused> {
        let send = move || probe::send(&packet, None, probe::Reserve::Port);
        let sent = match pod {
            Some((namespace, pod)) => on_a_thread_inside(self.inside(namespace, pod).await?, send).await?,
            None => tokio::task::spawn_blocking(send).await.map_err(broken)?,
        };
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => status(StatusCode::CONFLICT, "Conflict", error.to_string()),
            io::ErrorKind::InvalidInput => status(StatusCode::BAD_REQUEST, "BadRequest", error.to_string()),
            _ => broken(format!("send a packet from {} to {}: {error}", packet.from.ip(), packet.to)),
        })
    }

    async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, Refused> {
        let connect = move || std::net::TcpStream::connect(("127.0.0.1", port));
        let stream =
            on_a_thread_inside(self.inside(namespace, pod).await?, connect).await?.map_err(broken)?;
        stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(broken)
    }
}

impl Containers {
    /// A process in the pod's network.
    async fn inside(&self, namespace: &str, pod: &str) -> Result<rustix::process::Pid, Refused> {
        let target =
            Target { namespace: namespace.to_owned(), pod: pod.to_owned(), container: String::new() };
        let link =
            self.view(&target)?.shown().link.ok_or_else(|| broken(format!("pod {pod} has no sandbox")))?;
        let state = link.state().await.map_err(|error| failed(&error))?;
        let inside = state.containers.iter().find(|one| matches!(one.phase, ContainerPhase::Running));
        inside
            .and_then(|one| rustix::process::Pid::from_raw(one.pid))
            .ok_or_else(|| broken(format!("no container of pod {pod} is running")))
    }
}

fn broken(error: impl std::fmt::Display) -> Refused {
    status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string())
}

/// Works in the network namespace of the process `pid`, on a thread of its own that must not come back among the others.
async fn on_a_thread_inside<T: Send + 'static>(
    pid: rustix::process::Pid,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<io::Result<T>, Refused> {
    let (sender, done) = oneshot::channel();
    let enter = move || {
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        kernel::namespace::enter(&pidfd, &[kernel::namespace::Namespace::Net]).map_err(io::Error::other)
    };
    std::thread::spawn(move || {
        if sender.send(enter().and_then(|()| work())).is_err() {
            eprintln!("nobody waits any more for what was done in a pod's network");
        }
    });
    done.await.map_err(broken)
}

type Resize = Box<dyn Fn(u16, u16) + Send + Sync>;

fn resize(link: Link, target: TerminalOf, tty: bool) -> Option<Resize> {
    tty.then(|| -> Resize {
        Box::new(move |columns, rows| {
            let (link, target) = (link.clone(), target.clone());
            tokio::spawn(async move {
                if let Err(error) = link.resize(target, TerminalSize { columns, rows }).await {
                    eprintln!("resize a terminal: {error}");
                }
            });
        })
    })
}
