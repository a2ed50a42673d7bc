//! Carries connections from the machine's 127.0.0.1 to the ports that pods (hostPort) and services (nodePort) declare, so
//! that `curl localhost:30123` works as it would on a node.
//!
//! Sockets belong to the network namespace they were made in: listening ones are made here, in the machine's; a thread
//! that lives in the fabric's namespace accepts on them and connects to the nodes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api,
    runtime::{WatchStreamExt, reflector, watcher},
};
use tokio::{net::TcpStream, sync::mpsc};

use super::layout::{Cluster, Layout};

/// The nodes that answer on a port; the listener goes round them.
type Backends = Arc<Mutex<Vec<Ipv4Addr>>>;

/// A listening socket, to be served in the fabric's namespace.
struct Serve {
    listener: TcpListener,
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
    runtime.block_on(async {
        while let Some(request) = requests.recv().await {
            tokio::spawn(async move {
                let port = request.port;
                if let Err(error) = accept(request).await {
                    eprintln!("port {port} on 127.0.0.1: {error:#}");
                }
            });
        }
    });
    Ok(())
}

async fn accept(request: Serve) -> Result<()> {
    let Serve { listener, port, backends, mut until } = request;
    listener.set_nonblocking(true).context("set non-blocking")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("listen")?;
    let mut turn = 0usize;
    loop {
        let (mut client, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("accept")?,
            _ = &mut until => return Ok(()),
        };
        let node = {
            let backends = backends.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            turn = turn.wrapping_add(1);
            if backends.is_empty() { None } else { Some(backends[turn % backends.len()]) }
        };
        tokio::spawn(async move {
            // No backend, or one that refuses: the client's connection is closed, as it would be there.
            let Some(node) = node else { return };
            if let Ok(mut server) = TcpStream::connect((node, port)).await {
                // Either side may break off: that ends the other, and there is nobody else to tell.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            }
        });
    }
}

async fn follow(client: kube::Client, cluster: Cluster, serve: mpsc::Sender<Serve>) {
    let (pods, pods_writer) = reflector::store();
    let (services, services_writer) = reflector::store();
    let pod_events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(pods_writer)
        .map_ok(|_| ());
    let service_events = watcher(Api::<Service>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(services_writer)
        .map_ok(|_| ());
    let mut events = stream::select(pod_events.boxed(), service_events.boxed());
    let mut open: HashMap<u16, (Backends, tokio::sync::oneshot::Sender<()>)> = HashMap::new();
    let mut refused: BTreeSet<u16> = BTreeSet::new();
    while let Some(event) = events.next().await {
        if event.is_err() {
            continue; // the watcher tries again by itself
        }
        let wanted = declared(
            &cluster,
            pods.state().iter().map(AsRef::as_ref),
            services.state().iter().map(AsRef::as_ref),
        );
        open.retain(|port, _| wanted.contains_key(port));
        refused.retain(|port| wanted.contains_key(port));
        for (port, nodes) in wanted {
            if let Some((backends, _)) = open.get(&port) {
                *backends.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = nodes;
                continue;
            }
            if refused.contains(&port) {
                continue;
            }
            match TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
                Ok(listener) => {
                    let backends: Backends = Arc::new(Mutex::new(nodes));
                    let (keep, until) = tokio::sync::oneshot::channel();
                    let request = Serve { listener, port, backends: backends.clone(), until };
                    if serve.send(request).await.is_err() {
                        return; // the fabric thread has said why it ended
                    }
                    open.insert(port, (backends, keep));
                }
                Err(error) => {
                    // Said once: somebody else on this machine has the port; the nodes themselves still answer.
                    eprintln!("port {port} on 127.0.0.1: {error}");
                    refused.insert(port);
                }
            }
        }
    }
}

/// The TCP ports declared by running pods and by services, with the nodes that answer on each.
fn declared<'a>(
    cluster: &Cluster,
    pods: impl Iterator<Item = &'a Pod>,
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<u16, Vec<Ipv4Addr>> {
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP") == "TCP";
    let mut ports: BTreeMap<u16, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for pod in pods {
        let status = pod.status.as_ref();
        let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        let Some(host) = status.and_then(|status| status.host_ip.as_ref()?.parse().ok()).filter(|_| !ended)
        else {
            continue;
        };
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            if let Some(number) = port.host_port.and_then(|number| u16::try_from(number).ok())
                && is_tcp(&port.protocol)
            {
                ports.entry(number).or_default().insert(host);
            }
        }
    }
    let range: Option<node::net::Ipv4Net> = cluster.node_cidr.parse().ok();
    let nodes =
        || (1..=cluster.nodes).filter_map(move |index| node::net::fabric::node_address(range?, index));
    for service in services {
        let declared = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        for port in declared.filter(|port| is_tcp(&port.protocol)) {
            if let Some(number) = port.node_port.and_then(|number| u16::try_from(number).ok()) {
                ports.entry(number).or_default().extend(nodes());
            }
        }
    }
    ports
        .into_iter()
        .filter(|(port, _)| *port != 0)
        .map(|(port, nodes)| (port, nodes.into_iter().collect()))
        .collect()
}
