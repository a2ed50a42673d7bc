//! The fabric: the network between the virtual nodes of one cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};

use kernel::route::Ipv4Net;

/// What `cofferdam up` knows of the cluster's network.
#[derive(Clone, Debug)]
pub struct FabricConfig {
    /// Lower case letters, digits and `-`, at most 11 bytes: it names the uplink `cfd-<id>` and the machine's table
    /// `inet cofferdam-<id>`.
    pub cluster_id: String,
    /// Default 10.88.0.0/24. The fabric has its first address, node `i` (from 1) the address number `i + 1`.
    pub node_cidr: Ipv4Net,
    /// Default 10.244.0.0/16. Node `i` has the /24 number `i`.
    pub pod_cidr: Ipv4Net,
    /// Default 10.96.0.0/16.
    pub service_cidr: Ipv4Net,
}

/// What a node is told of its place in the network: the rest of `node.json` follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    pub node_ip: Ipv4Addr,
    pub pod_cidr: Ipv4Net,
    /// The fabric, next hop of the node's default route.
    pub gateway: Ipv4Addr,
    /// Of every link of the cluster: the machine's own towards the world.
    pub mtu: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error("{0}")]
    Todo(&'static str),
}

/// The fabric of a running cluster. Dropping it drops one reference to its network namespace; the namespace and all its
/// links live as long as anyone holds [`Fabric::netns`].
#[derive(Debug)]
pub struct Fabric {
    netns: OwnedFd,
    /// What does not work on this machine, one line each, for the user.
    pub warnings: Vec<String>,
}

impl Fabric {
    /// Makes the fabric's namespace, its uplink and the machine's table; sets the machine's `ip_forward`. Calls
    /// [`Fabric::teardown`] first, so that what a killed cluster of that id left is gone.
    pub fn create(config: FabricConfig) -> Result<Fabric, FabricError> {
        let _ = config;
        Err(FabricError::Todo("in work"))
    }

    /// Takes over the fabric that an earlier process made and someone kept open.
    pub fn adopt(config: FabricConfig, netns: OwnedFd) -> Result<Fabric, FabricError> {
        let _ = config;
        Ok(Fabric { netns, warnings: Vec::new() })
    }

    /// The fabric's network namespace, to be kept open (by the supervisor, say).
    pub fn netns(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.netns.as_fd()
    }

    /// What node `index` (from 1) has; the same before and after [`Fabric::add_node`].
    pub fn addresses(&self, index: u32) -> Result<NodeAddresses, FabricError> {
        let _ = index;
        Err(FabricError::Todo("in work"))
    }

    /// Gives the node in that namespace its `eth0`, address, default route, and brings its `lo` up. The fabric routes
    /// the node's address and pod block to it. Replaces a link that a killed node left.
    pub fn add_node(&self, index: u32, netns: BorrowedFd<'_>) -> Result<NodeAddresses, FabricError> {
        let _ = netns;
        self.addresses(index)
    }

    /// Removes the node's link. Not an error if there is none.
    pub fn remove_node(&self, index: u32) -> Result<(), FabricError> {
        let _ = index;
        Ok(())
    }

    /// A TCP connection from the fabric, which reaches every node and pod: what the supervisor's listener on 127.0.0.1
    /// forwards node ports through. The machine itself has no route to nodes, so clusters with equal ranges live
    /// side by side. Blocks until connected or refused.
    pub fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        TcpStream::connect(to)
    }

    /// Removes everything a cluster of that id has on the machine: uplink, table, `ip_forward` (restored when the last
    /// cluster goes). Works without a running process and is idempotent. Says what it did, one line each.
    pub fn teardown(cluster_id: &str) -> Result<Vec<String>, FabricError> {
        let _ = cluster_id;
        Ok(Vec::new())
    }
}
