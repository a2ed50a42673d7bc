//! Links, addresses, routes and neighbours over rtnetlink, and network namespaces.

mod block;

pub use block::{BlockError, Ipv4Net};
