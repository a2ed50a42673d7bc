//! Services on a node: their addresses and ports are translated to endpoints, chosen at random for each connection.
//!
//! `policy::services` says who answers where; [`Services`] how that lies in the node's table ([`layout`]), and turns a
//! change of one Service into a change of its own elements and no others; [`stale`] finds the UDP conntrack entries that a
//! change leaves behind.

pub mod layout;
mod part;
mod sources;
mod stale;
mod state;
mod uses;

pub use policy::services::{Backends, Guarded, ServiceChange, ServiceName, ServicePort};
pub(super) use stale::Stale;
pub(super) use state::Services;
pub use state::TooMany;
