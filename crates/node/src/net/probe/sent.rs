//! Sending the packet, from the network namespace that the calling thread is in.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrV4, SocketAddrV6, SocketFlags, SocketType};

use super::{Packet, TCP, UDP, made};

/// Whether the packet's port is kept from others, who could be given it at this very moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    Port,
    /// The packet's address is nobody's here.
    Nothing,
}

/// Keeps the port. A TCP peer that accepts is answered with RST by the kernel, since nobody connects from there; a UDP
/// peer's datagram is taken and read by nobody.
#[derive(Debug)]
pub struct Held {
    _port: Option<OwnedFd>,
}

/// Sends it, to its own address or to the next hop that is said.
///
/// # Errors
/// `AddrInUse` where the port is somebody's; `AddrNotAvailable` where the address is not of this namespace; what sending
/// says, but for a rule that drops it on its way out.
pub fn send(packet: &Packet, hop: Option<IpAddr>, reserve: Reserve) -> io::Result<Held> {
    if let Some(wrong) = packet.wrong() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, wrong));
    }
    let family = if packet.from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match packet.protocol {
        TCP => Some(SocketType::STREAM),
        UDP => Some(SocketType::DGRAM),
        // An echo's identifier and SCTP's ports are nobody's: what answers goes by them alone.
        _ => None,
    };
    let port = match kind.filter(|_| reserve == Reserve::Port) {
        None => None,
        Some(kind) => {
            let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &packet.from)?;
            Some(socket)
        }
    };
    let raw = rustix::net::socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(rustix::net::ipproto::RAW),
    )?;
    let bytes = made::bytes(packet);
    // The kernel routes by this address, whatever the header says.
    let sent = match hop.unwrap_or(packet.to.ip()) {
        IpAddr::V4(to) => rustix::net::sendto(&raw, &bytes, SendFlags::empty(), &SocketAddrV4::new(to, 0)),
        IpAddr::V6(to) => {
            rustix::net::sendto(&raw, &bytes, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, 0))
        }
    };
    match sent {
        // Dropped on its way out: whoever watches has seen by what.
        Ok(_) | Err(Errno::PERM) => Ok(Held { _port: port }),
        Err(errno) => Err(errno.into()),
    }
}
