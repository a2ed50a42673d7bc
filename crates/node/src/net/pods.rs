//! What the agent says about its node and its pods, and what it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::netlink::NetlinkError;
use kernel::nft::CommitError;
use kernel::route::netns::SysctlError;
use kernel::route::{Ipv4Net, Net};
use policy::network_policy::PodRecord;
use rustix::io::Errno;

pub use policy::network_policy::ir::Protocol;
pub use policy::services::HostPort;

/// What the agent knows of its node and cluster.
pub struct NodeNetConfig {
    pub node_name: String,
    pub v4: Network<Ipv4Addr>,
    /// None: the cluster has no IPv6, and so its pods have none at all.
    pub v6: Option<Network<Ipv6Addr>>,
    pub mtu: u32,
    /// Called from the listener's thread; must not block.
    pub on_event: Box<dyn Fn(NetEvent) + Send + Sync>,
}

impl NodeNetConfig {
    /// The node's addresses, IPv4 first.
    pub(super) fn own(&self) -> Vec<IpAddr> {
        let v6 = self.v6.as_ref().map(|v6| IpAddr::V6(v6.node_ip));
        [IpAddr::V4(self.v4.node_ip)].into_iter().chain(v6).collect()
    }
}

/// A node's place in the cluster's network of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<A> {
    pub node_ip: A,
    /// The fabric: next hop of the routes to other nodes.
    pub gateway: A,
    /// This node's own block.
    pub pod_cidr: Net<A>,
    /// The pods of all nodes.
    pub cluster_cidr: Net<A>,
    pub node_cidr: Net<A>,
    pub service_cidr: Net<A>,
}

/// The addresses of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddresses {
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
}

impl PodAddresses {
    /// IPv4 first: the cluster's primary family.
    pub fn all(&self) -> Vec<IpAddr> {
        [IpAddr::V4(self.v4)].into_iter().chain(self.v6.map(IpAddr::V6)).collect()
    }
}

/// What the agent should publish as an Event of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// Someone else changed the table; it was written again. `by` is the name of the process, as the kernel says.
    Repaired { by: String, generation: u32 },
    /// It could not be written again.
    RepairFailed { by: String, error: String },
}

/// A pod with a network namespace of its own, on this node. Pods of `hostNetwork` are no business of this module: they
/// are never subjects of a policy and match no selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNet {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub host_ports: Vec<HostPort>,
    /// The named container ports, for policies that name a port.
    pub named_ports: Vec<NamedPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("no free pod address in {0}")]
    NoAddress(Ipv4Net),
    #[error("hostPort {0} is in use by pod {1}")]
    HostPortInUse(String, String),
    #[error("pod {0} has a network already")]
    Attached(String),
    #[error("no link {0}")]
    NoLink(String),
    #[error("link {0} did not come up")]
    LinkDown(String),
    #[error("enter the pod's network namespace: {0}")]
    Enter(Errno),
    #[error("start the listener's thread: {0}")]
    Thread(std::io::Error),
    #[error("{call}: {errno}")]
    Call { call: &'static str, errno: Errno },
    #[error("the rule set was changed by others again and again while it was written")]
    Contended,
    #[error(transparent)]
    Services(#[from] super::services::TooMany),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Rules(#[from] CommitError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl PodNet {
    pub(super) fn record(&self, addresses: PodAddresses) -> PodRecord {
        let mut named_ports = BTreeMap::new();
        for port in &self.named_ports {
            // The first one counts, as Kubernetes resolves a name that two containers use.
            named_ports.entry((port.protocol, port.name.clone())).or_insert(port.port);
        }
        PodRecord {
            uid: self.uid.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            labels: self.labels.clone(),
            local: true,
            addresses: addresses.all(),
            named_ports,
            // This node gave the address to this pod: whoever else is still said to have it had it earlier.
            created: YOUNGEST.to_string(),
        }
    }
}

/// Behind every creation time of the API.
pub(crate) const YOUNGEST: &str = "~";
