//! Carries what comes to the machine's 127.0.0.1 to the ports that pods (hostPort) and services (nodePort) declare, TCP
//! and UDP, so that `curl localhost:30123` works as it would on a node. (SCTP needs no carrier: few machines have sockets
//! for it.)
//!
//! Sockets belong to the network namespace they were made in: listening ones are made here, in the machine's; a thread
//! that lives in the fabric's namespace serves them and connects to the nodes.

mod declared;
mod tcp;
mod udp;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    runtime::{WatchStreamExt, reflector, watcher},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use self::declared::{Protocol, declared};
use super::layout::{Cluster, Layout};

/// The nodes that answer on a port; the listener goes round them.
#[derive(Clone, Default)]
struct Backends(Arc<Mutex<Turn>>);

#[derive(Default)]
struct Turn {
    nodes: Vec<IpAddr>,
    next: usize,
}

impl Backends {
    fn set(&self, nodes: Vec<IpAddr>) {
        self.lock().nodes = nodes;
    }

    fn next(&self) -> Option<IpAddr> {
        let mut turn = self.lock();
        turn.next = turn.next.wrapping_add(1);
        let count = turn.nodes.len();
        (count > 0).then(|| turn.nodes[turn.next % count])
    }

    fn have(&self, node: IpAddr) -> bool {
        self.lock().nodes.contains(&node)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How many sockets connections and flows may have together, counted in descriptors: the process that carries them also
/// starts the cluster's parts again, and must never be out of descriptors for that.
#[derive(Clone)]
struct Places(Arc<Semaphore>);

impl Places {
    /// Half of what the process may have; the ports themselves take of the rest.
    fn of_this_process() -> Places {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Places::of(
            most.and_then(|most| usize::try_from(most / 2).ok()).unwrap_or(MOST_PLACES).min(MOST_PLACES),
        )
    }

    fn of(count: usize) -> Places {
        Places(Arc::new(Semaphore::new(count)))
    }

    async fn take(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        self.0.clone().acquire_many_owned(count).await.ok()
    }

    fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }

    #[cfg(test)]
    fn left(&self) -> usize {
        self.0.available_permits()
    }
}

/// More than one machine's own clients need.
const MOST_PLACES: usize = 16_384;

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Socket {
    fn bind(protocol: Protocol, port: u16) -> std::io::Result<Socket> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        match protocol {
            Protocol::Tcp => TcpListener::bind(address).map(Socket::Tcp),
            Protocol::Udp => UdpSocket::bind(address).map(Socket::Udp),
        }
    }
}

/// A listening socket, to be served in the fabric's namespace.
struct Serve {
    socket: Socket,
    port: u16,
    backends: Backends,
    /// Dropped when the port is not declared any more.
    until: tokio::sync::oneshot::Receiver<()>,
}

/// Starts watching; returns at once.
pub fn start(layout: &Layout, cluster: &Cluster, fabric: BorrowedFd<'_>) -> Result<()> {
    let (serve, requests) = mpsc::channel(64);
    let fabric = fabric.try_clone_to_owned().context("dup")?;
    std::thread::Builder::new()
        .name("fabric".into())
        .spawn(move || {
            if let Err(error) = serve_in(fabric.as_fd(), requests) {
                eprintln!("ports of pods and services do not answer on 127.0.0.1: {error:#}");
            }
        })
        .context("start the fabric thread")?;
    let client = node::client::unix(layout.admin_socket());
    let cluster = cluster.clone();
    tokio::spawn(async move { follow(client, cluster, serve).await });
    Ok(())
}

fn serve_in(fabric: BorrowedFd<'_>, mut requests: mpsc::Receiver<Serve>) -> Result<()> {
    rustix::thread::move_into_link_name_space(fabric, Some(rustix::thread::LinkNameSpaceType::Network))
        .context("setns into the fabric")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let places = Places::of_this_process();
    runtime.block_on(async {
        while let Some(request) = requests.recv().await {
            let places = places.clone();
            tokio::spawn(async move {
                let Serve { socket, port, backends, until } = request;
                let served = match socket {
                    Socket::Tcp(listener) => tcp::carry(listener, port, backends, places, until).await,
                    Socket::Udp(socket) => udp::carry(socket, port, backends, places, until).await,
                };
                if let Err(error) = served {
                    eprintln!("port {port} on 127.0.0.1: {error:#}");
                }
            });
        }
    });
    Ok(())
}

async fn follow(client: kube::Client, cluster: Cluster, serve: mpsc::Sender<Serve>) {
    let (pods, pods_writer) = reflector::store();
    let (services, services_writer) = reflector::store();
    let (slices, slices_writer) = reflector::store();
    let pod_events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(pods_writer)
        .map_ok(|_| ());
    let service_events = watcher(Api::<Service>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(services_writer)
        .map_ok(|_| ());
    let slice_events = watcher(Api::<EndpointSlice>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(slices_writer)
        .map_ok(|_| ());
    let mut events = stream::select_all([pod_events.boxed(), service_events.boxed(), slice_events.boxed()]);
    let mut open: HashMap<(Protocol, u16), (Backends, tokio::sync::oneshot::Sender<()>)> = HashMap::new();
    let mut refused: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    while let Some(event) = events.next().await {
        if event.is_err() {
            continue; // the watcher tries again by itself
        }
        let wanted = declared(
            &cluster,
            pods.state().iter().map(AsRef::as_ref),
            services.state().iter().map(AsRef::as_ref),
            slices.state().iter().map(AsRef::as_ref),
        );
        open.retain(|port, _| wanted.contains_key(port));
        refused.retain(|port| wanted.contains_key(port));
        for (at, nodes) in wanted {
            if let Some((backends, _)) = open.get(&at) {
                backends.set(nodes);
                continue;
            }
            if refused.contains(&at) {
                continue;
            }
            let (protocol, port) = at;
            match Socket::bind(protocol, port) {
                Ok(socket) => {
                    let backends = Backends::default();
                    backends.set(nodes);
                    let (keep, until) = tokio::sync::oneshot::channel();
                    let request = Serve { socket, port, backends: backends.clone(), until };
                    if serve.send(request).await.is_err() {
                        return; // the fabric thread has said why it ended
                    }
                    open.insert(at, (backends, keep));
                }
                Err(error) => {
                    // Said once: somebody else on this machine has the port; the nodes themselves still answer.
                    eprintln!("{} port {port} on 127.0.0.1: {error}", protocol.name());
                    refused.insert(at);
                }
            }
        }
    }
}
