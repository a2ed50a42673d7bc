//! The network of one node: its pods' links, addresses and rules.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use kernel::route::Ipv4Net;

pub use policy::network_policy::ir::Protocol;

/// What the agent knows of its node and cluster.
pub struct NodeNetConfig {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// The fabric: next hop of the routes to other nodes.
    pub gateway: Ipv4Addr,
    /// This node's own block.
    pub pod_cidr: Ipv4Net,
    /// The pods of all nodes.
    pub cluster_cidr: Ipv4Net,
    pub node_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub mtu: u32,
    /// Called from the listener's thread; must not block.
    pub on_event: Box<dyn Fn(NetEvent) + Send + Sync>,
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
pub struct HostPort {
    /// None for every address of the node (`0.0.0.0` and absent).
    pub host_ip: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{0}")]
    Todo(&'static str),
}

/// The network of the node this process runs in. Clone-free: share it in an `Arc`; every method takes `&self`, is
/// synchronous and takes well under a millisecond but for [`NodeNet::prepare`] (about two).
pub struct NodeNet {
    _config: NodeNetConfig,
}

impl NodeNet {
    /// To be called in the node's network namespace. Writes sysctls and the base table, or takes over what an earlier
    /// agent left without a moment of change; starts the listener's thread.
    pub fn start(config: NodeNetConfig) -> Result<NodeNet, NetError> {
        Ok(NodeNet { _config: config })
    }

    /// On restart: takes over a pod whose sandbox survived. None if it has no link here. Before the first
    /// [`NodeNet::prepare`]; what is not adopted when [`NodeNet::adopted`] is called is removed.
    pub fn adopt(&self, pod: PodNet) -> Result<Option<Ipv4Addr>, NetError> {
        let _ = pod;
        Ok(None)
    }

    /// All survivors are adopted: forgets links, addresses and rules of the others.
    pub fn adopted(&self) -> Result<(), NetError> {
        Ok(())
    }

    /// Gives a new pod its network: address allocated → rules committed → link up. The workload's first instruction
    /// comes after this returns. `netns` is the pod's network namespace, `route_socket` a NETLINK_ROUTE socket opened
    /// in it. Undone on error. If its namespace or any policy is unknown yet (no [`NodeNet::apply`] so far), the link
    /// comes up but no packet passes until then.
    pub fn prepare(&self, pod: PodNet, netns: &OwnedFd, route_socket: OwnedFd) -> Result<Ipv4Addr, NetError> {
        let _ = (pod, netns, route_socket);
        Err(NetError::Todo("in work"))
    }

    /// The pod's processes are gone: removes its rules and host ports. The link goes with the pod's namespace, which
    /// the caller drops; its address is given out again only after that, last of all. Not an error if unknown.
    pub fn detach(&self, uid: &str) -> Result<(), NetError> {
        let _ = uid;
        Ok(())
    }

    /// The other nodes: (pod block, node address). Replaces the earlier list.
    pub fn set_routes(&self, nodes: &[(Ipv4Net, Ipv4Addr)]) -> Result<(), NetError> {
        let _ = nodes;
        Ok(())
    }

    /// The address of a pod prepared or adopted.
    pub fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        let _ = uid;
        None
    }
}
