//! The cluster's name server. It holds no privilege and keeps nothing: the records of Kubernetes' DNS specification 1.1.0
//! come from watches on the API server, and everything else from the resolvers of the machine.
//!
//! [`zone`] is the pure part, from objects to what a name leads to; [`answer`] makes messages of that; [`forward`] asks
//! other servers and remembers what they said; [`watch`] keeps the zone up to date; [`server`] reads and writes packets.
//! An answer about the cluster never waits for anybody. Everything runs on one thread, so nothing needs a lock, and
//! everything that others can fill is bounded.

pub mod answer;
pub mod cache;
pub mod config;
pub mod forward;
pub mod health;
pub mod objects;
pub mod server;
pub mod watch;
pub mod zone;

#[cfg(test)]
mod tests;

use std::cell::RefCell;

pub use self::config::Config;

/// What the parts share.
pub struct State {
    pub zone: RefCell<zone::Zone>,
    pub forwarder: std::rc::Rc<forward::Forwarder>,
    pub counters: health::Counters,
}

/// Why the program ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on {address}: {error}")]
    Listen { address: std::net::SocketAddr, error: std::io::Error },
    #[error("{0}")]
    Watch(#[from] watch::SetUpError),
}

/// Serves until something that cannot be mended fails. To be called on a `LocalSet`.
///
/// # Errors
/// A port that cannot be had, credentials that cannot be read.
pub async fn run(config: Config) -> Result<(), Error> {
    let state = std::rc::Rc::new(State {
        zone: RefCell::new(zone::Zone::new(&config.domain, config.ranges.clone())),
        forwarder: std::rc::Rc::new(forward::Forwarder::new(&config.upstreams)),
        counters: health::Counters::default(),
    });
    let watching = watch::Client::new(&config)?;
    let serving = server::bind(config.listen).await?;
    health::start(config.health, state.clone()).await?;
    watching.start(&state);
    tokio::task::spawn_local(forward::find_loops(state.clone()));
    serving.run(state).await;
    Ok(())
}
