//! Requests that change something.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Ip, Mac, Net};
use crate::netlink::Batch;
use crate::netlink::message::{ACK, CREATE, EXCL, REPLACE};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    pub mac: Mac,
    /// Where the end is made; None is the socket's own namespace.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Makes a veth pair, both ends down. (Asking for a peer that is up gives ENOTCONN.) An `alias` is a note on the
/// first end that anyone can read.
pub fn add_veth(batch: &mut Batch, here: VethEnd<'_>, peer: VethEnd<'_>, mtu: u32) {
    batch.message(RTM_NEWLINK, CREATE | EXCL | ACK, format!("make link {}", here.name), |m| {
        m.put(&[0; 16]);
        end(m, here, mtu);
        m.nest(IFLA_LINKINFO, |m| {
            m.attr(IFLA_INFO_KIND, b"veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.put(&[0; 16]);
                    end(m, peer, mtu);
                });
            });
        });
    });
}

fn end(m: &mut Batch, end: VethEnd<'_>, mtu: u32) {
    m.attr_str(IFLA_IFNAME, end.name);
    m.attr(IFLA_ADDRESS, &end.mac.0);
    m.attr_u32(IFLA_MTU, mtu);
    if let Some(netns) = end.netns {
        m.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
    }
}

fn link_header(m: &mut Batch, index: u32, flags: u32, change: u32) {
    m.put(&[0; 4]);
    m.put(&index.to_ne_bytes());
    m.put(&flags.to_ne_bytes());
    m.put(&change.to_ne_bytes());
}

pub fn set_up(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, ACK, format!("bring link {index} up"), |m| {
        link_header(m, index, IFF_UP, IFF_UP)
    });
}

pub fn set_down(batch: &mut Batch, index: u32) {
    batch.message(RTM_NEWLINK, ACK, format!("take link {index} down"), |m| link_header(m, index, 0, IFF_UP));
}

/// The link must be down.
pub fn rename(batch: &mut Batch, index: u32, name: &str) {
    batch.message(RTM_NEWLINK, ACK, format!("rename link {index} to {name}"), |m| {
        link_header(m, index, 0, 0);
        m.attr_str(IFLA_IFNAME, name);
    });
}

pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.message(RTM_NEWLINK, ACK, format!("set the MTU of link {index} to {mtu}"), |m| {
        link_header(m, index, 0, 0);
        m.attr_u32(IFLA_MTU, mtu);
    });
}

/// A note on the link that anyone can read; at most 255 bytes.
pub fn set_alias(batch: &mut Batch, index: u32, alias: &str) {
    batch.message(RTM_NEWLINK, ACK, format!("set the alias of link {index}"), |m| {
        link_header(m, index, 0, 0);
        m.attr(IFLA_IFALIAS, alias.as_bytes());
    });
}

/// Waits for RCU grace periods (30 ms for a veth that is up): not on a path that someone waits for.
pub fn delete_link(batch: &mut Batch, name: &str) {
    batch.message(RTM_DELLINK, ACK, format!("delete link {name}"), |m| {
        link_header(m, 0, 0, 0);
        m.attr_str(IFLA_IFNAME, name);
    });
}

/// IPv6 does not look first whether anyone else has it (DAD): it is ours, and can be used at once.
pub fn add_address<A: Ip>(batch: &mut Batch, index: u32, address: A, prefix: u8) {
    const NO_DAD: u8 = 2;
    let flags = if A::BITS == 128 { NO_DAD } else { 0 };
    let object = format!("add address {address}/{prefix} to link {index}");
    batch.message(RTM_NEWADDR, CREATE | EXCL | ACK, object, |m| {
        m.put(&[A::FAMILY, prefix, flags, 0]);
        m.put(&index.to_ne_bytes());
        m.attr(1, &address.bytes());
        m.attr(2, &address.bytes());
    });
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route<A> {
    pub to: Net<A>,
    pub link: u32,
    /// Taken as a neighbour on that link without asking whether another route leads to it (`onlink`).
    pub via: Option<A>,
    /// The source address of packets this namespace itself sends there.
    pub source: Option<A>,
}

/// Adds the route or replaces the one to the same block. The link must be up.
pub fn replace_route<A: Ip>(batch: &mut Batch, route: Route<A>) {
    let object = format!("route {} by link {}", route.to, route.link);
    batch.message(RTM_NEWROUTE, CREATE | REPLACE | ACK, object, |m| route_body(m, route));
}

pub fn delete_route<A: Ip>(batch: &mut Batch, route: Route<A>) {
    let object = format!("delete route {} by link {}", route.to, route.link);
    batch.message(RTM_DELROUTE, ACK, object, |m| route_body(m, route));
}

/// Packets for this address, which the link has, are this namespace's own. The kernel makes that route itself: for IPv4
/// with the address, for IPv6 in a worker some time later, and until then the first answers to a new pod would be lost.
/// The link must be up.
pub fn add_local_route<A: Ip>(batch: &mut Batch, link: u32, address: A) {
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_KERNEL: u8 = 2;
    const LOCAL: u8 = 2;
    if A::BITS == 32 {
        return;
    }
    let object = format!("route {address} to link {link} itself");
    batch.message(RTM_NEWROUTE, CREATE | REPLACE | ACK, object, |m| {
        m.put(&[A::FAMILY, A::BITS, 0, 0, TABLE_LOCAL, PROTOCOL_KERNEL, 0, LOCAL]);
        m.put(&[0; 4]);
        m.attr(1, &address.bytes());
        m.attr_u32(4, link);
    });
}

fn route_body<A: Ip>(m: &mut Batch, route: Route<A>) {
    const TABLE_MAIN: u8 = 254;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_LINK: u8 = 253;
    const UNICAST: u8 = 1;
    const ONLINK: u32 = 4;
    // IPv6 knows no scope of a route.
    let (scope, flags) = match route.via {
        Some(_) => (0, ONLINK),
        None if A::BITS == 128 => (0, 0),
        None => (SCOPE_LINK, 0),
    };
    m.put(&[A::FAMILY, route.to.prefix(), 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, UNICAST]);
    m.put(&u32::to_ne_bytes(flags));
    m.attr(1, &route.to.network().bytes());
    m.attr_u32(4, route.link);
    if let Some(via) = route.via {
        m.attr(5, &via.bytes());
    }
    if let Some(source) = route.source {
        m.attr(7, &source.bytes());
    }
}

/// A permanent neighbour: neither ARP nor neighbour discovery asks for it or changes it.
pub fn replace_neighbour<A: Ip>(batch: &mut Batch, index: u32, address: A, mac: Mac) {
    const NUD_PERMANENT: u16 = 0x80;
    let object = format!("set neighbour {address} on link {index}");
    batch.message(RTM_NEWNEIGH, CREATE | REPLACE | ACK, object, |m| {
        m.put(&[A::FAMILY, 0, 0, 0]);
        m.put(&index.to_ne_bytes());
        m.put(&NUD_PERMANENT.to_ne_bytes());
        m.put(&[0, 0]);
        m.attr(1, &address.bytes());
        m.attr(2, &mac.0);
    });
}
