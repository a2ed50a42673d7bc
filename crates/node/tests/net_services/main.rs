//! Services, seen by real packets: who answers at cluster addresses, node ports and external addresses, and how the
//! answers follow what changes.

#[path = "../net_common/mod.rs"]
mod net_common;

mod affinity;
mod api_server;
mod changes;
mod policies;
mod sctp;
mod sources;
mod spread;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;

use net_common::*;
use node::net::{Backends, Protocol, ServiceChange, ServicePort};
use testkit::net::Netns;

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NODE_PORT: u16 = 30123;

/// A port 80 with every kind of address, all of whose endpoints answer.
fn port(protocol: Protocol, endpoints: &[SocketAddrV4]) -> ServicePort {
    let all = Backends::of(endpoints.iter().map(|endpoint| SocketAddr::V4(*endpoint)));
    ServicePort {
        protocol,
        port: 80,
        cluster_ip: IpAddr::V4(CLUSTER_IP),
        external_ips: BTreeSet::from([IpAddr::V4(EXTERNAL_IP)]),
        guarded: None,
        node_port: Some(NODE_PORT),
        affinity: None,
        inside: all.clone(),
        outside: all.clone(),
        all,
    }
}

fn service(ports: Vec<ServicePort>) -> Vec<ServiceChange> {
    vec![ServiceChange { name: ("foo".to_string(), "web".to_string()), ports }]
}

impl Cluster {
    /// Every node sees the same.
    fn serve(&self, ports: Vec<ServicePort>) {
        self.nodes.iter().for_each(|node| node.net.set_services(service(ports.clone())).unwrap());
    }

    fn node_port(&self, node: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.nodes[node].addresses.v4.node_ip, NODE_PORT)
    }

    /// The fabric as a client: what comes from outside of the cluster.
    fn outside(&self) -> Netns {
        Netns { fd: self.fabric.netns().as_fd().try_clone_to_owned().unwrap() }
    }
}

/// How the fabric reaches an address that is nobody's: by that node, as whoever is said.
fn route_by<A: kernel::route::Ip>(outside: &Netns, to: A, node_ip: A, source: Option<A>) {
    let mut socket = outside.route_socket().unwrap();
    let routes = kernel::route::routes::<A>(&mut socket).unwrap();
    let route =
        routes.iter().find(|route| route.to.network() == node_ip && route.to.prefix() == A::BITS).unwrap();
    let source = source.or(route.source);
    let mut batch = kernel::netlink::Batch::new();
    let to = kernel::route::Net::single(to);
    let route = kernel::route::Route { to, via: Some(node_ip), source, ..*route };
    kernel::route::replace_route(&mut batch, route);
    socket.request(&batch).unwrap();
}

/// How often each server answers so many connections.
fn count(client: &Netns, to: impl Into<SocketAddr>, connections: usize) -> BTreeMap<String, u32> {
    let to = to.into();
    let mut seen = BTreeMap::new();
    for _ in 0..connections {
        let (name, _) = client.ask(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        *seen.entry(name).or_insert(0) += 1;
    }
    seen
}

fn at(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, 80)
}

/// Whether a connection was refused, at once and in so many words.
fn is_refused(result: &io::Result<impl Sized>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
