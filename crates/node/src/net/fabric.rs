//! The fabric: the network between the virtual nodes of one cluster, a network namespace that routes.
//!
//! Each node has one routed veth to it, and it has one uplink to the machine, behind which it is masqueraded; then the
//! machine masquerades it once more towards the world. So the machine needs no route to nodes or pods, and clusters with
//! equal ranges live side by side. On the machine there are one link (`cfd-<id>`), one table (`inet cofferdam-<id>`) and
//! `ip_forward`; what must be restored is written in the table's comment, so that [`Fabric::teardown`] needs nothing else.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kernel::netlink::{Batch, Family, NetlinkError, Socket};
use kernel::nft::CommitError;
use kernel::route::netns::{self, SysctlError};
use kernel::route::{self, Ip, Ipv4Net, Ipv6Net, Mac, Net, Route, VethEnd};
use rustix::io::Errno;

use super::family::{self, Role, set_ipv6};
use super::machine::{self, Uplink};
use super::pods::Network;

/// What `cofferdam up` knows of the cluster's network.
#[derive(Clone, Debug)]
pub struct FabricConfig {
    /// Lower case letters, digits and `-`, at most 11 bytes: it names the uplink `cfd-<id>` and the machine's table
    /// `inet cofferdam-<id>`.
    pub cluster_id: String,
    pub v4: Ranges<Ipv4Addr>,
    /// None: no IPv6 at all, not even link-local addresses.
    pub v6: Option<Ranges<Ipv6Addr>>,
}

/// The address ranges of a cluster, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges<A> {
    /// The fabric has its first address, node `i` (from 1) the address number `i + 1`.
    pub nodes: Net<A>,
    /// Node `i` has the /24 number `i`, in IPv6 the /64.
    pub pods: Net<A>,
    pub services: Net<A>,
}

impl Ranges<Ipv4Addr> {
    pub const DEFAULT: Ranges<Ipv4Addr> = Ranges {
        nodes: Ipv4Net::new(Ipv4Addr::new(10, 88, 0, 0), 24),
        pods: Ipv4Net::new(Ipv4Addr::new(10, 244, 0, 0), 16),
        services: Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16),
    };
}

impl Ranges<Ipv6Addr> {
    /// Unique local addresses (RFC 4193).
    pub const DEFAULT: Ranges<Ipv6Addr> = Ranges {
        nodes: Ipv6Net::new(Ipv6Addr::new(0xfd00, 0xcf, 0x88, 0, 0, 0, 0, 0), 64),
        pods: Ipv6Net::new(Ipv6Addr::new(0xfd00, 0xcf, 0x244, 0, 0, 0, 0, 0), 56),
        services: Ipv6Net::new(Ipv6Addr::new(0xfd00, 0xcf, 0x96, 0, 0, 0, 0, 0), 112),
    };
}

/// What a node is told of its place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    pub v4: Network<Ipv4Addr>,
    pub v6: Option<Network<Ipv6Addr>>,
    /// Of every link of the cluster: the machine's own towards the world.
    pub mtu: u32,
}

impl<A: Ip> Ranges<A> {
    fn gateway(&self) -> Result<A, FabricError> {
        self.nodes.nth(1).ok_or_else(|| self.no_such_node(0))
    }

    /// What node `index` (from 1) knows of the network.
    pub fn node(&self, index: u32) -> Result<Network<A>, FabricError> {
        match (node_address(self.nodes, index), pod_block(self.pods, index)) {
            (Some(node_ip), Some(pod_cidr)) => Ok(Network {
                node_ip,
                gateway: self.gateway()?,
                pod_cidr,
                cluster_cidr: self.pods,
                node_cidr: self.nodes,
                service_cidr: self.services,
            }),
            _ => Err(self.no_such_node(index)),
        }
    }

    fn no_such_node(&self, index: u32) -> FabricError {
        FabricError::NoSuchNode(index, self.nodes.to_string(), self.pods.to_string())
    }
}

/// Address of node `index` (from 1): the fabric has the first address of the range. None behind its end.
pub fn node_address<A: Ip>(nodes: Net<A>, index: u32) -> Option<A> {
    let address = nodes.nth(index.checked_add(1)?)?;
    (index > 0 && address != nodes.last()).then_some(address)
}

/// The pods' block of node `index` (from 1): a /24, or a /64. None behind the end of the range.
pub fn pod_block<A: Ip>(pods: Net<A>, index: u32) -> Option<Net<A>> {
    let prefix = if A::BITS == 32 { 24 } else { 64 };
    if index == 0 { None } else { pods.subnet(prefix, index) }
}

#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error("cluster id {0:?}: at most 11 lower case letters, digits and hyphens")]
    ClusterId(String),
    #[error("node {0} does not fit the ranges of nodes ({1}) and pods ({2})")]
    NoSuchNode(u32, String, String),
    #[error(
        "all of 100.64.0.0/10 and of 198.18.0.0/15 is in use on this machine: a cluster needs four addresses there"
    )]
    NoUplinkAddress,
    #[error("make a network namespace: {0}")]
    Namespace(io::Error),
    #[error("enter a network namespace: {0}")]
    Enter(Errno),
    #[error("no link {0} in the fabric")]
    NoLink(String),
    #[error("link {0} did not come up")]
    LinkDown(String),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Rules(#[from] CommitError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// The API server's port on the fabric's address: the only one that answers nodes and pods there.
pub const API_PORT: u16 = 6443;

/// A link comes up in microseconds, or something is wrong.
pub(super) const LINK_PATIENCE: Duration = Duration::from_secs(2);
/// The uplink's name in the fabric.
pub(super) const FABRIC_UPLINK: &str = "up0";

/// The fabric of a running cluster. Dropping it drops one reference to its network namespace; the namespace and all its
/// links live as long as anyone holds [`Fabric::netns`].
#[derive(Debug)]
pub struct Fabric {
    config: FabricConfig,
    netns: OwnedFd,
    mtu: u32,
    /// What does not work on this machine, one line each, for the user.
    pub warnings: Vec<String>,
}

impl Fabric {
    /// Makes the fabric's namespace, its uplink and the machine's table; sets the machine's `ip_forward`. Calls
    /// [`Fabric::teardown`] first, so that what a killed cluster of that id left is gone.
    pub fn create(config: FabricConfig) -> Result<Fabric, FabricError> {
        check_id(&config.cluster_id)?;
        Fabric::teardown(&config.cluster_id)?;
        let netns = netns::create().map_err(FabricError::Namespace)?;
        let made = machine::connect(&config.cluster_id, netns.as_fd(), config.v6.is_some(), |uplink| {
            set_up_namespace(netns.as_fd(), &config, uplink)
        });
        match made {
            Ok((uplink, warnings)) => Ok(Fabric { config, netns, mtu: uplink.mtu, warnings }),
            Err(error) => {
                // Nothing half-made stays behind; the first error is the one to tell.
                match Fabric::teardown(&config.cluster_id) {
                    Ok(_) => Err(error),
                    Err(second) => {
                        eprintln!("take the half-made fabric away: {second}");
                        Err(error)
                    }
                }
            }
        }
    }

    /// Takes over the fabric that an earlier process made and someone kept open.
    pub fn adopt(config: FabricConfig, netns: OwnedFd) -> Result<Fabric, FabricError> {
        check_id(&config.cluster_id)?;
        let mut socket = Socket::open_in(netns.as_fd(), Family::Route)?;
        let uplink = route::links(&mut socket)?.into_iter().find(|link| link.name == FABRIC_UPLINK);
        let mtu = uplink.ok_or_else(|| FabricError::NoLink(FABRIC_UPLINK.to_string()))?.mtu;
        Ok(Fabric { config, netns, mtu, warnings: Vec::new() })
    }

    /// The fabric's network namespace, to be kept open (by the supervisor and the nodes).
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// What node `index` (from 1) has; the same before and after [`Fabric::add_node`].
    pub fn addresses(&self, index: u32) -> Result<NodeAddresses, FabricError> {
        let v6 = self.config.v6.map(|ranges| ranges.node(index)).transpose()?;
        Ok(NodeAddresses { v4: self.config.v4.node(index)?, v6, mtu: self.mtu })
    }

    /// Gives the node in that namespace its `eth0`, addresses, default routes, and brings its `lo` up. The fabric routes
    /// the node's addresses and pod blocks to it. Replaces a link that a killed node left.
    pub fn add_node(&self, index: u32, netns: BorrowedFd<'_>) -> Result<NodeAddresses, FabricError> {
        let node = self.addresses(index)?;
        self.remove_node(index)?;
        let name = format!("n{index}");
        let (fabric_mac, node_mac) = (Mac([0x0a, 0xcf, 0, 0, 0, 1]), mac_of(node.v4.node_ip));

        in_netns(netns, || set_ipv6(node.v6.map(|_| Role::Router), &[]))?;
        let mut fabric = Socket::open_in(self.netns.as_fd(), Family::Route)?;
        let mut batch = Batch::new();
        route::add_veth(
            &mut batch,
            VethEnd { name: &name, mac: fabric_mac, netns: None },
            VethEnd { name: "eth0", mac: node_mac, netns: Some(netns) },
            node.mtu,
        );
        fabric.request(&batch)?;

        let link = find(&mut fabric, &name)?;
        let mut batch = Batch::new();
        route::set_up(&mut batch, link);
        towards_node(&mut batch, link, node.v4, node_mac);
        if let Some(v6) = node.v6 {
            towards_node(&mut batch, link, v6, node_mac);
        }
        fabric.request(&batch)?;

        let mut inside = Socket::open_in(netns, Family::Route)?;
        let (lo, eth0) = (find(&mut inside, "lo")?, find(&mut inside, "eth0")?);
        let mut batch = Batch::new();
        route::set_up(&mut batch, lo);
        route::set_up(&mut batch, eth0);
        family::leaf(&mut batch, eth0, node.v4.node_ip, node.v4.gateway, fabric_mac);
        if let Some(v6) = node.v6 {
            family::leaf(&mut batch, eth0, v6.node_ip, v6.gateway, fabric_mac);
        }
        inside.request(&batch)?;
        for (socket, link) in [(&mut fabric, link), (&mut inside, eth0)] {
            if !route::wait_running(socket, link, LINK_PATIENCE)? {
                return Err(FabricError::LinkDown(name));
            }
        }
        Ok(node)
    }

    /// Removes the node's link. Not an error if there is none.
    pub fn remove_node(&self, index: u32) -> Result<(), FabricError> {
        let mut fabric = Socket::open_in(self.netns.as_fd(), Family::Route)?;
        let name = format!("n{index}");
        if route::index_of(&mut fabric, &name)?.is_some() {
            let mut batch = Batch::new();
            route::delete_link(&mut batch, &name);
            // It may go by itself at this very moment, with its node's namespace.
            kernel::netlink::ignore_missing(fabric.request(&batch))?;
        }
        Ok(())
    }

    /// A TCP connection from the fabric, which reaches every node and pod: what the supervisor's listener on 127.0.0.1
    /// forwards node ports through. Blocks until connected or refused.
    pub fn connect(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let to = to.into();
        netns::run_in(self.netns.as_fd(), || TcpStream::connect(to))?
    }

    /// A socket that listens on [`API_PORT`] of the fabric's address: for the API server, which has no right to make it.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let gateway = self.config.v4.gateway().map_err(io::Error::other)?;
        netns::run_in(self.netns.as_fd(), || TcpListener::bind((gateway, API_PORT)))?
    }

    /// Removes everything a cluster of that id has on the machine: uplink, table, rules beside those of others,
    /// `ip_forward` (restored when the last cluster goes). Works without a running process and is idempotent. Says what
    /// it did, one line each.
    pub fn teardown(cluster_id: &str) -> Result<Vec<String>, FabricError> {
        check_id(cluster_id)?;
        machine::disconnect(cluster_id)
    }
}

fn check_id(id: &str) -> Result<(), FabricError> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=11).contains(&id.len()) && id.bytes().all(fine) {
        Ok(())
    } else {
        Err(FabricError::ClusterId(id.to_string()))
    }
}

fn towards_node<A: Ip>(batch: &mut Batch, link: u32, node: Network<A>, mac: Mac) {
    family::branch(batch, link, node.node_ip, mac, node.gateway);
    let (via, source) = (Some(node.node_ip), Some(node.gateway));
    route::replace_route(batch, Route { to: node.pod_cidr, link, via, source });
}

/// The hardware address of the link that has this address: so both ends of a veth know each other's before they exist.
pub(super) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x0a, 0x58, a, b, c, d])
}

pub(super) fn find(socket: &mut Socket, name: &str) -> Result<u32, FabricError> {
    route::index_of(socket, name)?.ok_or_else(|| FabricError::NoLink(name.to_string()))
}

pub(super) fn in_netns<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, SysctlError> + Send,
) -> Result<T, FabricError> {
    Ok(netns::run_in(netns, work).map_err(FabricError::Enter)??)
}

fn set_up_namespace(
    netns: BorrowedFd<'_>,
    config: &FabricConfig,
    uplink: &Uplink,
) -> Result<(), FabricError> {
    in_netns(netns, || {
        set_ipv6(config.v6.map(|_| Role::Router), &[FABRIC_UPLINK])?;
        netns::write_sysctl("net/ipv4/ip_forward", "1")?;
        // A node can send with its own addresses and those of its pods only: the route back must be the way it came.
        // (IPv6 has no such sysctl: a rule of the fabric's table says the same.)
        for conf in ["all", "default", FABRIC_UPLINK] {
            netns::write_sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "1")?;
            netns::write_sysctl(&format!("net/ipv4/conf/{conf}/send_redirects"), "0")?;
            netns::write_sysctl(&format!("net/ipv4/conf/{conf}/accept_redirects"), "0")?;
        }
        Ok(())
    })?;
    machine::write_fabric_table(netns, config, config.v4.gateway()?)?;
    let mut socket = Socket::open_in(netns, Family::Route)?;
    let (lo, up0) = (find(&mut socket, "lo")?, find(&mut socket, FABRIC_UPLINK)?);
    let machine_mac = mac_of(uplink.v4.machine);
    let mut batch = Batch::new();
    route::set_up(&mut batch, lo);
    route::set_up(&mut batch, up0);
    own_gateway(&mut batch, lo, config.v4.gateway()?);
    family::leaf(&mut batch, up0, uplink.v4.fabric, uplink.v4.machine, machine_mac);
    if let Some(ranges) = config.v6 {
        own_gateway(&mut batch, lo, ranges.gateway()?);
    }
    if let Some(ends) = uplink.v6 {
        family::leaf(&mut batch, up0, ends.fabric, ends.machine, machine_mac);
    }
    socket.request(&batch)?;
    Ok(())
}

fn own_gateway<A: Ip>(batch: &mut Batch, lo: u32, gateway: A) {
    route::add_address(batch, lo, gateway, A::BITS);
    route::add_local_route(batch, lo, gateway);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_the_addresses_behind_the_fabric() {
        let nodes: Ipv4Net = "10.88.0.0/29".parse().unwrap();
        let pods: Ipv4Net = "10.244.0.0/22".parse().unwrap();
        assert_eq!(node_address(nodes, 1), Some(Ipv4Addr::new(10, 88, 0, 2)));
        assert_eq!(node_address(nodes, 5), Some(Ipv4Addr::new(10, 88, 0, 6)));
        assert_eq!(node_address(nodes, 6), None, "the broadcast address");
        assert_eq!(node_address(nodes, 0), None);
        assert_eq!(node_address(nodes, u32::MAX), None);
        assert_eq!(pod_block(pods, 1), Some("10.244.1.0/24".parse().unwrap()));
        assert_eq!(pod_block(pods, 4), None);
        assert_eq!(pod_block(pods, 0), None);
        let Ranges { nodes, pods, services } = Ranges::<Ipv6Addr>::DEFAULT;
        assert_eq!(node_address(nodes, 1).unwrap().to_string(), "fd00:cf:88::2");
        assert_eq!(pod_block(pods, 1).unwrap().to_string(), "fd00:cf:244:1::/64");
        assert!(!pods.overlaps(&nodes) && !pods.overlaps(&services) && !nodes.overlaps(&services));
    }

    #[test]
    fn a_cluster_id_fits_a_link_name() {
        for good in ["a", "test-1", "0123456789a"] {
            check_id(good).unwrap();
        }
        for bad in ["", "UPPER", "a/b", "0123456789ab", "a b", "a\0"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
