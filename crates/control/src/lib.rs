//! The control process: the API server over its store, with the scheduler and the controllers beside it as clients.
//!
//! It holds no privilege. Whoever starts it opens the sockets, gives up root, and calls [`run`] (or [`run_blocking`]),
//! which serves until a part fails. Everything that decides about objects lives below: [`store`] keeps them,
//! [`apiserver`] speaks HTTP, [`admission`] changes and refuses them on their way in, [`pki`] makes the certificates.

pub mod controllers;
pub mod pki;
mod random;
pub mod scheduler;
pub mod store;

use std::{
    fs::File,
    net::TcpListener,
    os::unix::net::UnixListener,
    path::PathBuf,
};

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
    /// Whoever connects as uid 0 is in `system:masters`.
    pub admin: UnixListener,
    /// Whoever connects as uid 0 is `system:node:<name>`.
    pub nodes: Vec<(String, UnixListener)>,
    /// Where Services get their addresses, `10.96.0.0/16`.
    pub service_cidr: String,
    /// Part of the kubeconfig's names, so that two clusters' files can be merged.
    pub cluster_id: String,
}

/// Why the control process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    NotYet(String),
}

/// [`run`] on a runtime of its own.
///
/// # Errors
/// As [`run`].
pub fn run_blocking(config: Config) -> Result<(), Error> {
    drop(config);
    Err(Error::NotYet("the API server".into()))
}
