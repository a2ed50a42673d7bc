//! The network: links, addresses, routes and rule sets of nodes and their pods.
//!
//! [`fabric`] is the switch between the virtual nodes, made by `cofferdam up` in a network namespace of its own.
//! [`NodeNet`] is the network inside one node, driven by its agent: it gives pods their links and addresses, keeps
//! the table `inet cofferdam` equal to what the network policies ask, and repairs it when someone else changes it.
//!
//! No isolation step fails silently, and every order is fail closed: a pod's rules are committed before its link is up.

mod before;
mod exprs;
pub mod fabric;
mod family;
mod follow;
mod health;
mod listener;
mod machine;
mod node_net;
pub mod overlap;
mod pods;
mod pool;
pub mod probe;
pub mod services;
mod state;
mod table;

pub use follow::{Failure as ServiceFailure, follow as follow_services};
pub use health::{HealthCheckError, HealthChecks};
pub use node_net::NodeNet;
pub(crate) use pods::YOUNGEST;
pub use pods::{
    HostPort, NamedPort, NetError, NetEvent, Network, NodeNetConfig, PodAddresses, PodNet, Protocol,
};
pub use services::{Backends, Guarded, ServiceChange, ServiceName, ServicePort};

/// Address blocks, `address/prefix`.
pub use kernel::route::{BlockError, Ip, Ipv4Net, Ipv6Net, Net};
