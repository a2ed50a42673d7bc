//! The agent: watches the cluster, gives each pod bound to its node a worker that drives it to what its spec asks, and
//! keeps the node's rule set equal to what the policies say.

mod announce;
mod backend;
mod context;
mod events;
mod facts;
mod files;
mod link;
mod objects;
mod probes;
pub mod programmed;
mod recover;
mod registration;
mod report;
mod sandbox;
mod sources;
mod start;
mod tokens;
mod watch;
mod worker;

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

pub use self::announce::{Address, Announcement, Missing};
pub use self::context::Config;
use self::context::Context;
use crate::{
    images::{ImageStore, StoreError},
    net::{self, NetError, NetEvent, NodeNet, NodeNetConfig, fabric::pod_block},
};

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("start the runtime: {0}")]
    Runtime(io::Error),
    #[error("create {path}: {error}")]
    Directory { path: PathBuf, error: io::Error },
    #[error("the node's network: {0}")]
    Net(#[from] NetError),
    #[error("the image store: {0}")]
    Images(#[from] StoreError),
    #[error("the keeper's program: {0}")]
    Keeper(kernel::error::CallError),
    #[error("the agent's socket {path}: {error}")]
    Socket { path: PathBuf, error: io::Error },
    #[error("register the node: {0}")]
    Register(kube::Error),
    #[error("the watch on the cluster ended")]
    WatchEnded,
}

/// How many announcements of other nodes may wait; behind them, those nodes wait.
const ANNOUNCED: usize = 512;

/// Runs the agent of this node; returns only on an error.
pub fn run(config: Config) -> Result<(), AgentError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(AgentError::Runtime)?
        .block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), AgentError> {
    for dir in [&config.pods_dir, &config.logs_dir] {
        fs::create_dir_all(dir).map_err(|error| AgentError::Directory { path: dir.clone(), error })?;
    }
    let client = crate::client::of_agent(config.sockets_dir.join("control.sock"));
    let recorder = events::Recorder::new(client.clone(), &config.node);
    let programmed = programmed::Programmed::default();
    let net = Arc::new(NodeNet::start(net_config(&config, recorder.clone(), programmed.clone()))?);
    // The pod blocks of all nodes follow from the cluster's ranges.
    let nodes = 1..=config.nodes;
    let blocks: Vec<_> = nodes.clone().filter_map(|index| pod_block(config.v4.cluster_cidr, index)).collect();
    let blocks6: Vec<_> =
        nodes.filter_map(|index| pod_block(config.v6.as_ref()?.cluster_cidr, index)).collect();
    net.set_routes(&blocks, &blocks6)?;
    let images = ImageStore::open(config.run_dir.join("images"))?;
    let images_changed = watch::images(&images)?;
    let services = watch::services(client.clone());
    let announced = tokio::sync::mpsc::channel(ANNOUNCED);
    let bound = announce::Bound::default();
    let ctx = Arc::new(Context {
        facts: facts::find(&config),
        images,
        net,
        recorder,
        programmed,
        keeper: kernel::fds::sealed_file("keeper", crate::keeper_image::KEEPER)
            .map_err(AgentError::Keeper)?,
        images_changed,
        services,
        announcer: announce::Announcer::start(&client, &bound, config.others()),
        bound,
        announced: announced.0,
        views: Mutex::default(),
        client,
        config,
    });
    let config = &ctx.config;
    let socket = listen(&config.sockets_dir.join("agent.sock"), config.control_uid)?;
    let serving =
        crate::server::serve(socket, vec![0, config.control_uid], Arc::new(backend::Containers(ctx.clone())));
    let (reporter, node) = (ctx.recorder.clone(), config.node.clone());
    tokio::spawn(net::follow_services(ctx.client.clone(), ctx.net.clone(), node.clone(), move |failure| {
        match failure {
            net::ServiceFailure::Table(error) => {
                let message =
                    format!("the node's packet filter could not be programmed with Services: {error}");
                reporter.node(&node, events::Kind::Warning, "PacketFilterFailed", &message);
            }
            net::ServiceFailure::HealthCheck(error) => {
                let service = events::service_reference(&error.service);
                let message = format!("node {node} {error}");
                reporter.object(service, events::Kind::Warning, "FailedToStartServiceHealthcheck", &message);
            }
        }
    }));
    let mut cluster = watch::Cluster::new(ctx.clone(), announced.1);
    // Policies and pods are known before the node says that it is Ready, so that no pod starts unguarded.
    cluster.first_lists().await?;
    registration::register(&ctx.client, config).await.map_err(AgentError::Register)?;
    ctx.programmed.publish(&ctx.client, &config.node);
    tokio::select! {
        ended = cluster.follow() => ended,
        ended = serving => {
            let error = ended.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
            Err(AgentError::Socket { path: config.sockets_dir.join("agent.sock"), error })
        }
    }
}

/// The agent's socket: the control process may connect, and root.
fn listen(path: &std::path::Path, uid: u32) -> Result<tokio::net::UnixListener, AgentError> {
    let failed = |error: io::Error| AgentError::Socket { path: path.to_path_buf(), error };
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&draft).map_err(failed)?;
    std::os::unix::fs::chown(&draft, Some(uid), None).map_err(failed)?;
    fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    Ok(listener)
}

fn net_config(
    config: &Config,
    recorder: events::Recorder,
    programmed: programmed::Programmed,
) -> NodeNetConfig {
    let node = config.node.clone();
    NodeNetConfig {
        node_name: config.node.clone(),
        v4: config.v4,
        v6: config.v6,
        mtu: config.mtu,
        on_event: Box::new(move |event| match event {
            NetEvent::Repaired { by, generation } => {
                programmed.repaired(generation);
                let message = format!(
                    "{by} changed the node's packet filter; it was written again (generation {generation})"
                );
                recorder.node(&node, events::Kind::Warning, "PacketFilterRepaired", &message);
            }
            NetEvent::RepairFailed { by, error } => {
                programmed.refused(&error);
                let message = format!(
                    "{by} changed the node's packet filter, and it could not be written again: {error}"
                );
                recorder.node(&node, events::Kind::Warning, "PacketFilterBroken", &message);
            }
        }),
    }
}
