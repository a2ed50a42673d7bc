//! What there is: links, addresses, routes.

use std::time::{Duration, Instant};

use super::{Ip, Mac, Net, Route};
use crate::netlink::message::DUMP;
use crate::netlink::{Attributes, Batch, Event, Group, NetlinkError, Socket, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    /// Administratively: someone asked for it.
    pub up: bool,
    /// Packets pass: IF_OPER_UP. A link whose peer came up a moment ago drops what is sent to it until then.
    pub running: bool,
    pub alias: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<A> {
    pub link: u32,
    pub address: A,
    pub prefix: u8,
}

/// Something that happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    New(Link),
    /// It is gone, or went to another namespace.
    Gone {
        index: u32,
        name: String,
    },
}

impl LinkEvent {
    /// None for events about anything else.
    pub fn parse(event: Event<'_>) -> Option<LinkEvent> {
        let (link, family) = parse_link(event.payload)?;
        match event.kind {
            RTM_NEWLINK => Some(LinkEvent::New(link)),
            // A bridge port that leaves its bridge is told with family AF_BRIDGE: the link is still there.
            RTM_DELLINK if family == 0 => Some(LinkEvent::Gone { index: link.index, name: link.name }),
            _ => None,
        }
    }
}

fn parse_link(payload: &[u8]) -> Option<(Link, u8)> {
    let header = payload.get(..16)?;
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let attrs = attributes(payload.get(16..)?);
    let link = Link {
        index: word(4),
        name: attrs.str(3)?.to_string(),
        mac: attrs.get(1).and_then(|mac| mac.try_into().ok()).map(Mac),
        mtu: attrs.u32(4).unwrap_or_default(),
        up: word(8) & 1 != 0,
        running: attrs.u8(16) == Some(6),
        alias: attrs.str(20).map(str::to_string),
    };
    Some((link, header[0]))
}

pub fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETLINK, DUMP, "list links", |m| m.put(&[0; 16]));
    let mut links = Vec::new();
    socket
        .dump("list links", &batch, |event| links.extend(parse_link(event.payload).map(|(link, _)| link)))?;
    Ok(links)
}

/// Index of a link by its name; None if there is none.
pub fn index_of(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETLINK, 0, format!("find link {name}"), |m| {
        m.put(&[0; 16]);
        m.attr_str(3, name);
    });
    let mut found = None;
    match socket.dump("find a link", &batch, |event| found = parse_link(event.payload)) {
        Ok(()) => Ok(found.map(|(link, _)| link.index)),
        Err(e) if e.errno() == Some(rustix::io::Errno::NODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Waits until packets pass over a link whose both ends were brought up. The kernel takes notice of that in its own time
/// (linkwatch), and until then drops what is sent: the first SYN of a pod, which costs it a second. Asking for the link
/// makes it take notice at once since Linux 6.9; before, an event tells.
pub fn wait_running(socket: &mut Socket, index: u32, patience: Duration) -> Result<bool, NetlinkError> {
    if is_running(socket, index)? {
        return Ok(true);
    }
    let mut events = socket.sibling()?;
    events.join(Group::Links)?;
    let deadline = Instant::now() + patience;
    // Asked again, since it may have come between the question and the joining.
    while !is_running(socket, index)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !events.wait(left)? {
            return is_running(socket, index);
        }
        events.drain(|_| {})?;
    }
    Ok(true)
}

fn is_running(socket: &mut Socket, index: u32) -> Result<bool, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETLINK, 0, format!("find link {index}"), |m| {
        m.put(&[0; 4]);
        m.put(&index.to_ne_bytes());
        m.put(&[0; 8]);
    });
    let mut found = None;
    socket.dump("find a link", &batch, |event| found = parse_link(event.payload))?;
    Ok(found.is_some_and(|(link, _)| link.running))
}

/// Addresses of one family of all links. None on a kernel without that family.
pub fn addresses<A: Ip>(socket: &mut Socket) -> Result<Vec<Address<A>>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETADDR, DUMP, "list addresses", |m| m.put(&[A::FAMILY, 0, 0, 0, 0, 0, 0, 0]));
    let mut addresses = Vec::new();
    socket.dump("list addresses", &batch, |event| {
        addresses.extend(event.payload.get(..8).and_then(|header| {
            let link = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
            let attrs = attributes(&event.payload[8..]);
            // IFA_LOCAL, and IFA_ADDRESS, which is the peer's on a point-to-point link.
            let address = A::from_bytes(attrs.get(2).or(attrs.get(1))?)?;
            (header[0] == A::FAMILY).then_some(Address { link, address, prefix: header[1] })
        }));
    })?;
    Ok(addresses)
}

/// Unicast routes of one family with one next hop, of the main table. None on a kernel without that family.
pub fn routes<A: Ip>(socket: &mut Socket) -> Result<Vec<Route<A>>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(RTM_GETROUTE, DUMP, "list routes", |m| {
        m.put(&[A::FAMILY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    let mut routes = Vec::new();
    socket.dump("list routes", &batch, |event| routes.extend(parse_route(event.payload)))?;
    Ok(routes)
}

fn parse_route<A: Ip>(payload: &[u8]) -> Option<Route<A>> {
    let header = payload.get(..12)?;
    let attrs: Attributes<'_> = attributes(&payload[12..]);
    let table = attrs.u32(15).unwrap_or(u32::from(header[4]));
    if header[0] != A::FAMILY || table != 254 || header[7] != 1 {
        return None;
    }
    let address = |kind| attrs.get(kind).and_then(A::from_bytes);
    Some(Route {
        to: Net::of(address(1).unwrap_or(A::UNSPECIFIED), header[1]),
        link: attrs.u32(4)?,
        via: address(5),
        source: address(7),
    })
}
