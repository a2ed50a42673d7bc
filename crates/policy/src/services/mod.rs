//! What a node makes of Services: who answers at which address and port, and whom else its host ports lead to. The node
//! carries it out (`node::net::services`); `cofferdam why` says it.

mod from_api;
mod host_port;
mod node_table;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::network_policy::ir::{Cidr, Protocol};

pub use from_api::{Service, Slice, from_api, health_check, ports};
pub use host_port::HostPort;
pub use node_table::{By, Fate, Front, NodeTable, Packet, Why, selected_pods};

/// The label of a node that says in which zone it is.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Namespace and name of a Service.
pub type ServiceName = (String, String);

/// One port of one Service, in one address family, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub protocol: Protocol,
    pub port: u16,
    pub cluster_ip: IpAddr,
    /// `externalIPs`, and what a load balancer gave.
    pub external_ips: BTreeSet<IpAddr>,
    /// None: anybody may come to any of these.
    pub guarded: Option<Guarded>,
    pub node_port: Option<u16>,
    /// `sessionAffinity: ClientIP`: for how many seconds a client comes back to the same endpoint.
    pub affinity: Option<u32>,
    /// Who answers on the cluster's address, after `internalTrafficPolicy`.
    pub inside: Backends,
    /// Who answers clients from outside, at node ports and external addresses, after `externalTrafficPolicy`.
    pub outside: Backends,
    /// Who answers this node and its pods there, which that policy is not for.
    pub all: Backends,
}

/// `loadBalancerSourceRanges`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// What a load balancer gave: never empty.
    pub addresses: BTreeSet<IpAddr>,
    /// Who may come there, of the same family; nobody, if all ranges are of the other.
    pub ranges: BTreeSet<Cidr>,
}

impl Guarded {
    pub fn admits(&self, source: &IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(source))
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// Never empty.
    Any(BTreeSet<SocketAddr>),
    /// No endpoint is ready: connections are refused.
    Nobody,
    /// Some are, but not on this node, and the policy is `Local`: connections are dropped, so that a balancer in front
    /// takes another node.
    NobodyHere,
}

impl Backends {
    /// From a list that may be empty.
    pub fn of(endpoints: impl IntoIterator<Item = SocketAddr>) -> Backends {
        let endpoints: BTreeSet<SocketAddr> = endpoints.into_iter().collect();
        if endpoints.is_empty() { Backends::Nobody } else { Backends::Any(endpoints) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &SocketAddr> {
        match self {
            Backends::Any(endpoints) => Some(endpoints.iter()),
            Backends::Nobody | Backends::NobodyHere => None,
        }
        .into_iter()
        .flatten()
    }
}

/// What became of a Service: its ports now; none if it is gone or has no cluster address.
#[derive(Clone, Debug)]
pub struct ServiceChange {
    pub name: ServiceName,
    pub ports: Vec<ServicePort>,
}

/// What a Service's health check says on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints here, by family.
    pub local: LocalEndpoints,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalEndpoints {
    pub v4: usize,
    pub v6: usize,
}
