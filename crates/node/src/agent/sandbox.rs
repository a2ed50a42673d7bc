//! A pod's sandbox: its keeper, namespaces, network and volumes, made before the first container and taken down after
//! the last.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Child,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use keeper::client::{ClientError, Executable};
use keeper::protocol::{Event, NamespaceMode, PidMode, PodRef, SandboxPlan};
use policy::security_context::{ConfigError, PodEffective, resolve_pod};
use tokio::sync::mpsc;

use super::{
    announce::Address,
    context::Context,
    events, files,
    link::{Link, LinkError},
    report::Subject,
    tokens::PodTokens,
};
use crate::{
    net::{HostPort, NamedPort, NetError, PodAddresses, PodNet, Protocol},
    volumes::PodVolumes,
};

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("{0}")]
    Rejected(#[from] ConfigError),
    #[error("start the keeper: {0}")]
    Spawn(#[from] ClientError),
    #[error("{0}")]
    Keeper(#[from] LinkError),
    #[error("pod network: {0}")]
    Net(#[from] NetError),
    #[error("{what} {path}: {error}")]
    File { what: &'static str, path: String, error: io::Error },
    #[error("the keeper did not hand over the pod's network namespace")]
    NoNetwork,
}

/// A sandbox that is ready for containers.
pub struct Made {
    pub link: Link,
    pub events: mpsc::Receiver<Event>,
    pub effective: Arc<PodEffective>,
    pub pod_ips: Vec<String>,
    pub warnings: Vec<String>,
    /// Volumes fail by themselves: they are tried again without a new sandbox.
    pub volumes: Result<Arc<PodVolumes>, String>,
    /// The keeper's process, to be reaped when its socket closes.
    pub child: Child,
}

fn file_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SandboxError + 'a {
    move |error| SandboxError::File { what, path: path.display().to_string(), error }
}

/// Makes the sandbox, and the volumes meanwhile.
pub async fn make(ctx: Arc<Context>, pod: Arc<Pod>, tokens: Arc<PodTokens>) -> Result<Made, SandboxError> {
    let effective = Arc::new(resolve_pod(&pod, &ctx.facts)?);
    let (sandbox, volumes) = tokio::join!(namespaces(&ctx, &pod, &effective), volumes(&ctx, &pod, &tokens));
    let Namespaces { link, events, warnings, address, child } = sandbox?;
    let pod_ips = match address {
        Some(own) => texts(own),
        None => ctx.config.ips(),
    };
    let mut warnings = warnings;
    if let Some(address) = address {
        warnings.extend(announce(&ctx, &pod, address).await);
    }
    let written = files::write(&ctx.config, &pod, &effective, &pod_ips).map_err(|(path, error)| {
        SandboxError::File { what: "write", path: path.display().to_string(), error }
    })?;
    for (reason, message) in written {
        ctx.recorder.pod(&pod, None, events::Kind::Warning, reason, &message);
    }
    Ok(Made { link, events, effective, pod_ips, warnings, volumes, child })
}

struct Namespaces {
    link: Link,
    events: mpsc::Receiver<Event>,
    warnings: Vec<String>,
    /// Of its own; None in the node's network.
    address: Option<PodAddresses>,
    child: Child,
}

async fn namespaces(
    ctx: &Arc<Context>,
    pod: &Pod,
    effective: &PodEffective,
) -> Result<Namespaces, SandboxError> {
    let subject = Subject::of(pod);
    let dir = ctx.config.pod_dir(&subject.uid);
    fs::create_dir_all(&dir).map_err(file_error("create", &dir))?;
    let plan = plan(ctx, &subject, effective);
    let own_network = plan.net == NamespaceMode::Own;
    let (child, stream) = keeper::client::start(Executable::Fd(ctx.keeper.as_fd()))?;
    let (link, events, warnings, fds) = match open(stream, plan).await {
        Ok(opened) => opened,
        Err(error) => {
            // Without its first client it ends; it only has to be reaped.
            reap(child);
            return Err(error.into());
        }
    };
    let address = match own_network {
        false => None,
        true => {
            let mut fds = fds.into_iter();
            let (Some(netns), Some(socket)) = (fds.next(), fds.next()) else {
                return Err(SandboxError::NoNetwork);
            };
            match attach(ctx, pod_net(pod), netns, socket) {
                Ok(address) => Some(address),
                Err(error) => {
                    let stopped = link.stop().await;
                    reap(child);
                    stopped?;
                    return Err(error.into());
                }
            }
        }
    };
    Ok(Namespaces { link, events, warnings, address, child })
}

type Opened = (Link, mpsc::Receiver<Event>, Vec<String>, Vec<OwnedFd>);

async fn open(stream: UnixStream, plan: SandboxPlan) -> Result<Opened, LinkError> {
    let (link, events) = Link::open(stream)?;
    let (warnings, fds) = link.sandbox(plan).await?;
    link.subscribe().await?;
    Ok((link, events, warnings, fds))
}

/// Has the other nodes whose policies mean the pod take in its address before its first instruction, and before its
/// status shows it. Returns what to warn of.
async fn announce(ctx: &Context, pod: &Pod, address: PodAddresses) -> Option<String> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let nodes = ctx.net.audience(&uid, ctx.announcer.peers(), |uid| ctx.bound.node_of(uid));
    let behind = ctx.announcer.announce(&Address { uid, addresses: address.all() }, &nodes).await;
    (!behind.is_empty()).then(|| {
        let nodes = behind.join(", ");
        format!("network policies on {nodes} may still refuse {}: not told of this pod in time", address.v4)
    })
}

/// Waits for a keeper that has ended or is about to, away from the runtime's threads.
pub fn reap(mut child: Child) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = child.wait() {
            eprintln!("reap a keeper: {error}");
        }
    });
}

fn attach(ctx: &Context, pod: PodNet, netns: OwnedFd, socket: OwnedFd) -> Result<PodAddresses, NetError> {
    ctx.net.prepare(pod, &netns, socket)
}

/// As the status has them.
pub fn texts(addresses: PodAddresses) -> Vec<String> {
    addresses.all().iter().map(ToString::to_string).collect()
}

fn plan(ctx: &Context, subject: &Subject, effective: &PodEffective) -> SandboxPlan {
    let mode = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Own };
    let namespaces = &effective.namespaces;
    let dir = ctx.config.pod_dir(&subject.uid);
    SandboxPlan {
        pod: PodRef {
            namespace: subject.namespace.clone(),
            name: subject.name.clone(),
            uid: subject.uid.clone(),
        },
        hostname: (!namespaces.host_network).then(|| effective.hostname.clone()),
        net: mode(namespaces.host_network),
        ipc: mode(namespaces.host_ipc),
        // As kubelet and the CRI runtimes do: the node's name goes with the node's network.
        uts: mode(namespaces.host_network),
        pid: match (namespaces.host_pid, namespaces.share_process) {
            (true, _) => PidMode::Node,
            (false, true) => PidMode::Pod,
            (false, false) => PidMode::PerContainer,
        },
        cgroup: ctx.config.pod_cgroup(&subject.uid),
        resources: None,
        sysctls: sysctls(effective),
        shm_size: None,
        socket: dir.join("keeper.sock"),
        state_dir: dir.join("keeper"),
    }
}

/// What the pod asks for, over what containerd 2 gives every pod with a network of its own: low ports and ping without a
/// capability, since neither is a privilege there.
fn sysctls(effective: &PodEffective) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    if !effective.namespaces.host_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    sysctls.extend(effective.sysctls.clone());
    sysctls
}

/// The pod as the network sees it.
pub fn pod_net(pod: &Pod) -> PodNet {
    let subject = Subject::of(pod);
    let mut named_ports = Vec::new();
    // Init containers that stay (sidecars) have ports too.
    let spec = pod.spec.as_ref();
    let all =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    for port in all.flat_map(|container| container.ports.iter().flatten()) {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let Ok(container_port) = u16::try_from(port.container_port) else { continue };
        if let Some(name) = &port.name {
            named_ports.push(NamedPort { name: name.clone(), protocol, port: container_port });
        }
    }
    PodNet {
        uid: subject.uid,
        namespace: subject.namespace,
        name: subject.name,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        host_ports: HostPort::of(pod),
        named_ports,
    }
}

/// Prepares the pod's volumes; the error is the message of the FailedMount event.
pub async fn volumes(
    ctx: &Arc<Context>,
    pod: &Arc<Pod>,
    tokens: &PodTokens,
) -> Result<Arc<PodVolumes>, String> {
    let objects = super::objects::volume_objects(&ctx.client, pod, tokens).await?;
    let (ctx, pod) = (ctx.clone(), pod.clone());
    let volumes = pod_volumes(&ctx, pod.metadata.uid.as_deref().unwrap_or_default());
    tokio::task::spawn_blocking(move || {
        volumes.set_up(&pod, &objects.sources(&ctx), &ctx.facts).map_err(|error| error.to_string())?;
        Ok(Arc::new(volumes))
    })
    .await
    .map_err(|error| format!("MountVolume.SetUp failed: {error}"))?
}

/// Brings the files of a running pod's volumes up to date; the error is the message of an event.
pub async fn refresh(
    ctx: &Arc<Context>,
    pod: &Arc<Pod>,
    volumes: &Arc<PodVolumes>,
    tokens: &PodTokens,
) -> Result<(), String> {
    let objects = super::objects::volume_objects(&ctx.client, pod, tokens).await?;
    let (ctx, pod, volumes) = (ctx.clone(), pod.clone(), volumes.clone());
    tokio::task::spawn_blocking(move || {
        volumes.refresh(&pod, &objects.sources(&ctx), &ctx.facts).map(drop).map_err(|error| error.to_string())
    })
    .await
    .map_err(|error| error.to_string())?
}

/// Whether an emptyDir of the pod holds more than its limit: the message of its eviction.
pub async fn measure(pod: &Arc<Pod>, volumes: &Arc<PodVolumes>) -> Result<Option<String>, String> {
    let (pod, volumes) = (pod.clone(), volumes.clone());
    tokio::task::spawn_blocking(move || volumes.over_size_limit(&pod).map_err(|error| error.to_string()))
        .await
        .map_err(|error| error.to_string())?
}

/// Where a pod's volumes are.
pub fn pod_volumes(ctx: &Context, uid: &str) -> PodVolumes {
    PodVolumes { root: ctx.config.pod_dir(uid).join("volumes") }
}

/// Takes a sandbox down: rules and addresses, keeper (with it the namespaces and cgroups), volumes.
pub async fn take_down(
    ctx: &Arc<Context>,
    subject: &Subject,
    link: Option<Link>,
    volumes: Option<Arc<PodVolumes>>,
) -> Result<(), String> {
    // All is tried, the first failure is told.
    let mut failure = None;
    if let Some(link) = link
        && let Err(error) = link.stop().await
    {
        failure = Some(format!("stop the keeper: {error}"));
    }
    if let Err(error) = ctx.net.detach(&subject.uid) {
        failure.get_or_insert(format!("pod network: {error}"));
    }
    let volumes = volumes.map_or_else(|| pod_volumes(ctx, &subject.uid), |volumes| (*volumes).clone());
    let gone = tokio::task::spawn_blocking(move || volumes.tear_down()).await;
    match gone {
        Ok(Ok(())) => {}
        Ok(Err(error)) => drop(failure.get_or_insert(error.to_string()).clone()),
        Err(error) => drop(failure.get_or_insert(error.to_string()).clone()),
    }
    failure.map_or(Ok(()), Err)
}

/// After a keeper died: ends what it left running and frees its network, so that a new sandbox can be made.
pub fn clear(ctx: &Context, subject: &Subject) -> Result<(), String> {
    let cgroup = ctx.config.pod_cgroup(&subject.uid);
    kernel::cgroup::kill_and_remove(&cgroup).map_err(|error| error.to_string())?;
    ctx.net.detach(&subject.uid).map_err(|error| error.to_string())
}

/// Removes the pod's directory and logs, apart from the work: an overlay's upper directory takes milliseconds.
pub fn remove_files(ctx: &Context, subject: &Subject) {
    let dirs = [ctx.config.pod_dir(&subject.uid), ctx.config.log_dir(subject)];
    tokio::task::spawn_blocking(move || {
        for dir in dirs {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    eprintln!("remove {}: {error}", dir.display());
                }
                _ => {}
            }
        }
    });
}
