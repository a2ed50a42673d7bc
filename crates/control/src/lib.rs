//! The control process: the API server over its store, with the scheduler and the controllers beside it as clients.
//!
//! It holds no privilege. Whoever starts it opens the sockets, gives up root, and calls [`run`] (or [`run_blocking`]),
//! which serves until a part fails. Everything that decides about objects lives below: [`store`] keeps them,
//! [`apiserver`] speaks HTTP, [`admission`] changes and refuses them on their way in, [`pki`] makes the certificates.

pub mod admission;
pub mod apiserver;
pub mod audit;
pub mod authorization;
mod bootstrap;
pub mod controllers;
pub mod name_service;
pub mod pki;
mod random;
pub mod scheduler;
pub mod store;
mod time_zones;
pub mod tokens;

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
};

use futures::{FutureExt as _, TryFutureExt as _};
use tokio::task::JoinSet;

/// What the control process is given. The sockets are bound and the files open, because it has no right to make them.
#[derive(Debug)]
pub struct Config {
    /// The store and the keys; a directory this process owns.
    pub data_dir: PathBuf,
    /// Holds `nodes/<node>/agent.sock`, where each node's agent answers for logs and exec.
    pub run_dir: PathBuf,
    /// Replaced whole by the administrator's kubeconfig before anything is served. The caller set its mode to 0600.
    pub kubeconfig: File,
    /// HTTPS with client certificates, on 127.0.0.1.
    pub tls: TcpListener,
    /// The same for nodes and pods, on an IPv4 address of their network; the Service `kubernetes` leads there.
    pub tls_for_pods: Option<TcpListener>,
    /// A directory this process may write, for `audit.log`; None keeps no log.
    pub audit: Option<OwnedFd>,
    /// Whoever connects as uid 0 is in `system:masters`.
    pub admin: UnixListener,
    /// Whoever connects as uid 0 is `system:node:<name>`.
    pub nodes: Vec<(String, UnixListener)>,
    /// Where Services get their addresses: `10.96.0.0/16`, and a range of IPv6 in a cluster that has it.
    pub service_cidrs: Vec<String>,
    /// Part of the kubeconfig's names, so that two clusters' files can be merged.
    pub cluster_id: String,
    /// The name service to be had in the cluster; None: none.
    pub name_service: Option<name_service::NameService>,
    /// What Pod Security asks where a namespace has no labels, and of whom it asks nothing.
    pub pod_security: admission::PodSecurityConfig,
}

/// Why the control process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::engine::EngineError),
    /// The store failed while it served; what was acknowledged is safe, and a restart reads it.
    #[error("the store failed: {0}")]
    StoreFailed(String),
    #[error(transparent)]
    Pki(#[from] pki::PkiError),
    #[error(transparent)]
    Tokens(#[from] tokens::KeyError),
    #[error(transparent)]
    Ranges(#[from] apiserver::AllocatorError),
    #[error(transparent)]
    Serve(#[from] apiserver::ServeError),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("make {what}: {source}")]
    Bootstrap { what: &'static str, source: kube::Error },
    #[error("the {0} ended")]
    Ended(&'static str),
}

/// Opens the store, makes what every cluster has, and serves until something fails; then says what.
///
/// # Errors
/// Always: it returns for no other reason.
pub async fn run(config: Config) -> Result<(), Error> {
    let io = |what| move |source| Error::Io { what, source };
    let address = config.tls.local_addr().map_err(io("address of the TLS socket"))?;
    let store = store::Store::open(store::engine::Durable::open(&config.data_dir.join("store"))?)?;
    let pki = pki::Pki::open(&config.data_dir.join("pki"))?;
    let ranges = apiserver::ServiceRanges::with_cidrs(config.service_cidrs);
    let service_ip = ranges.first()?;
    let for_pods = config.tls_for_pods.as_ref().map(TcpListener::local_addr).transpose();
    let for_pods = for_pods.map_err(io("address of the TLS socket for pods"))?;
    let names = [service_ip].into_iter().chain(for_pods.map(|address| address.ip()));
    let tls = Arc::new(pki.server_config(names)?);

    let name = format!("cofferdam-{}", config.cluster_id);
    let text = pki.kubeconfig(&name, &address.to_string());
    let mut kubeconfig = config.kubeconfig;
    kubeconfig
        .set_len(0)
        .and_then(|()| kubeconfig.rewind())
        .and_then(|()| kubeconfig.write_all(text.as_bytes()))
        .map_err(io("write the kubeconfig"))?;

    let audit = config.audit.map(audit::Audit::open).transpose().map_err(io("open the audit log"))?;
    let settings = apiserver::Settings {
        address: address.to_string(),
        run_dir: config.run_dir,
        ranges,
        tokens: Arc::new(tokens::Tokens::open(&config.data_dir.join("pki/sa.key"))?),
        audit: audit.unwrap_or_default(),
        pod_security: config.pod_security,
    };
    let server = apiserver::ApiServer::new(store.clone(), settings)?;
    let client = server.client(apiserver::User::component("system:apiserver"));
    let roles = authorization::bootstrap::run(&client)
        .map_err(|source| Error::Bootstrap { what: "the default roles", source });
    futures::try_join!(roles, bootstrap::run(&client, service_ip, for_pods.unwrap_or(address)))?;

    let mut parts = JoinSet::new();
    for socket in [config.tls].into_iter().chain(config.tls_for_pods) {
        socket.set_nonblocking(true).map_err(io("TLS socket"))?;
        let listener = tokio::net::TcpListener::from_std(socket).map_err(io("TLS socket"))?;
        parts.spawn(apiserver::serve_tls(server.clone(), listener, tls.clone()).map_err(Error::from));
    }
    let nodes = config.nodes.into_iter().map(|(node, socket)| (apiserver::User::node(&node), socket));
    for (user, socket) in nodes.chain([(apiserver::User::admin(), config.admin)]) {
        socket.set_nonblocking(true).map_err(io("unix socket"))?;
        let listener = tokio::net::UnixListener::from_std(socket).map_err(io("unix socket"))?;
        parts.spawn(apiserver::serve_unix(server.clone(), listener, user).map_err(Error::from));
    }
    let scheduler = scheduler::run(server.client_ahead(apiserver::User::new("system:kube-scheduler", [])));
    parts.spawn(scheduler.map(|_| Err(Error::Ended("scheduler"))));
    let for_controllers = server.clone();
    let controllers = controllers::run(move |user| for_controllers.client(user), pki.authority.clone());
    if let Some(service) = config.name_service {
        let made = name_service::run(client, service);
        parts.spawn(made.then(|()| std::future::pending()));
    }
    parts.spawn(controllers.map(|_| Err(Error::Ended("controllers"))));
    parts.spawn(apiserver::expire_events(store.clone()).map(|()| Err(Error::Ended("expiry of events"))));
    parts.spawn(async move { Err(Error::StoreFailed(store.failed().await)) });

    // Dropping the set ends the other parts.
    match parts.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(panic)) => {
            Err(Error::Io { what: "a part of the control process", source: io::Error::other(panic) })
        }
        None => Ok(()),
    }
}

/// [`run`] on a runtime of its own.
///
/// # Errors
/// As [`run`].
pub fn run_blocking(config: Config) -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "start the runtime", source })?
        .block_on(run(config))
}
