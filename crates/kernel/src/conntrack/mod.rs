//! Connection tracking entries: listing, counting, deleting by tuple.
//!
//! Policy needs none of this, since every packet is judged by its tuple. But NAT is decided when an entry is made: the
//! entries of an endpoint that is gone must go too, or a client that keeps its UDP port talks to a dead address for ever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::message::{ACK, DUMP};
use crate::netlink::{Attributes, Batch, NetlinkError, Socket, attributes, ignore_missing};
use crate::route::Ip;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATS: u16 = 1 << 8 | 5;
/// All families in a list; in a request about one entry it must be named.
const AF_UNSPEC: u8 = 0;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IANA number.
    pub protocol: u8,
    /// 0 for protocols without ports.
    pub source_port: u16,
    pub destination_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the client sent its first packet.
    pub original: Tuple,
    /// As the server answers: after NAT.
    pub reply: Tuple,
    /// Tells an entry from a later one of the same tuple.
    pub id: u32,
}

/// Calls `take` for every entry of this namespace, of both families.
pub fn list(socket: &mut Socket, mut take: impl FnMut(Entry)) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(GET, DUMP, "list connections", |m| m.put(&[AF_UNSPEC, 0, 0, 0]));
    let listed = socket.dump("list connections", &batch, |event| {
        if let Some(entry) = event.payload.get(4..).and_then(|rest| parse(&attributes(rest))) {
            take(entry);
        }
    });
    match listed {
        // The table changes all the time; what was there throughout was listed.
        Err(NetlinkError::Interrupted(_)) => Ok(()),
        other => other,
    }
}

fn parse(attrs: &Attributes<'_>) -> Option<Entry> {
    Some(Entry {
        original: tuple(&attrs.nested(1))?,
        reply: tuple(&attrs.nested(2))?,
        id: attrs.be32(12).unwrap_or(0),
    })
}

fn tuple(attrs: &Attributes<'_>) -> Option<Tuple> {
    let (ip, proto) = (attrs.nested(1), attrs.nested(2));
    Some(Tuple {
        source: address(&ip, 1, 3)?,
        destination: address(&ip, 2, 4)?,
        protocol: proto.u8(1)?,
        source_port: proto.be16(2).unwrap_or(0),
        destination_port: proto.be16(3).unwrap_or(0),
    })
}

/// CTA_IP_V4_SRC and CTA_IP_V6_SRC, and the like.
fn address(ip: &Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    match ip.get(v4) {
        Some(bytes) => Ipv4Addr::from_bytes(bytes).map(IpAddr::V4),
        None => Ipv6Addr::from_bytes(ip.get(v6)?).map(IpAddr::V6),
    }
}

/// Deletes one entry. Not an error if it is gone.
pub fn delete(socket: &mut Socket, entry: &Entry) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    put_delete(&mut batch, entry);
    ignore_missing(socket.request(&batch))
}

fn put_delete(batch: &mut Batch, entry: &Entry) {
    let Entry { original, id, .. } = *entry;
    let object = format!("delete the connection {} → {}", original.source, original.destination);
    batch.message(DELETE, ACK, object, |m| {
        let family = if original.source.is_ipv4() { Ipv4Addr::FAMILY } else { Ipv6Addr::FAMILY };
        m.put(&[family, 0, 0, 0]);
        m.nest(1, |m| {
            m.nest(1, |m| {
                for (kind, address) in [(1, original.source), (2, original.destination)] {
                    match address {
                        IpAddr::V4(v4) => m.attr(kind, &v4.octets()),
                        IpAddr::V6(v6) => m.attr(kind + 2, &v6.octets()),
                    }
                }
            });
            m.nest(2, |m| {
                m.attr(1, &[original.protocol]);
                m.attr(2, &original.source_port.to_be_bytes());
                m.attr(3, &original.destination_port.to_be_bytes());
            });
        });
        m.attr_be32(12, id);
    });
}

/// Deletes every entry that `which` chooses; says how many.
pub fn delete_where(socket: &mut Socket, which: impl Fn(&Entry) -> bool) -> Result<usize, NetlinkError> {
    let mut chosen = Vec::new();
    list(socket, |entry| {
        if which(&entry) {
            chosen.push(entry);
        }
    })?;
    for entry in &chosen {
        delete(socket, entry)?;
    }
    Ok(chosen.len())
}

/// Deletes all entries of this namespace.
pub fn flush(socket: &mut Socket) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(DELETE, ACK, "delete all connections", |m| m.put(&[AF_UNSPEC, 0, 0, 0]));
    socket.request(&batch)
}

/// Number of entries of this namespace, all families.
pub fn count(socket: &mut Socket) -> Result<u32, NetlinkError> {
    let mut batch = Batch::new();
    batch.message(GET_STATS, 0, "count connections", |m| m.put(&[0; 4]));
    let mut count = None;
    socket.dump("count connections", &batch, |event| {
        count = event.payload.get(4..).and_then(|rest| attributes(rest).be32(1));
    })?;
    count.ok_or(NetlinkError::Malformed("count connections"))
}
