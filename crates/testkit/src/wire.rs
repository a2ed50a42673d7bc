//! Many packets at once, and what became of each, without waiting for what does not come.
//!
//! All packets are made by hand and sent by one thread bound to one processor. A veth hands a packet over through the
//! queue of the processor that sent it, so packets overtake each other on no way: once a few messages went to and fro
//! between two nodes that nothing keeps apart, everything that was sent before has arrived or will not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::net::Netns;
use kernel::packet::crc32c;
pub use kernel::packet::{ip_packet, pseudo_checksum};

/// The protocols with ports, by their IANA numbers.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;

/// How long the sentinels may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than the links on the longest way and back.
const ROUNDS: usize = 6;
/// The verification tag of every SCTP association here.
const TAG: [u8; 4] = [1, 2, 3, 4];

/// The first packet of a connection that begins at one end and goes to another (by their numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shot {
    pub client: usize,
    pub from: SocketAddr,
    pub server: usize,
    pub to: SocketAddr,
    pub protocol: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    /// The first packet came through, the answer did not.
    Unanswered,
    Answered,
}

/// A packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    from: SocketAddr,
    to: SocketAddr,
    protocol: u8,
}

struct End {
    v4: OwnedFd,
    v6: OwnedFd,
    captures: [OwnedFd; 2],
}

/// The ends of many connections.
pub struct Wire {
    ends: Vec<End>,
    /// Of two nodes, each connected to the other.
    sentinels: [UdpSocket; 2],
}

impl Wire {
    /// `nodes` are two namespaces that reach each other at these addresses, over the links that the ends share. The
    /// calling thread, which must make all calls, is bound to one processor from now on.
    pub fn new(ends: &[&Netns], nodes: [(&Netns, Ipv4Addr); 2]) -> Result<Wire> {
        let mut processor = rustix::thread::CpuSet::new();
        let allowed = rustix::thread::sched_getaffinity(None).context("sched_getaffinity")?;
        let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
        processor.set(first.context("a processor to run on")?);
        rustix::thread::sched_setaffinity(None, &processor).context("sched_setaffinity")?;
        let [one, two] = nodes.map(|(netns, ip)| netns.run(|| UdpSocket::bind((ip, 0))));
        let sentinels = [one?, two?];
        let addresses = [sentinels[0].local_addr()?, sentinels[1].local_addr()?];
        for (socket, other) in sentinels.iter().zip([addresses[1], addresses[0]]) {
            socket.connect(other)?;
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        let ends = ends.iter().map(|netns| End::open(netns)).collect::<Result<_>>()?;
        Ok(Wire { ends, sentinels })
    }

    /// Sends every first packet and answers those that came through. In the order of `shots`.
    pub fn fire(&self, shots: &[Shot]) -> Result<Vec<Fate>> {
        for end in &self.ends {
            end.seen()?;
        }
        for shot in shots {
            self.ends[shot.client].send(shot.from, shot.to, shot.protocol, Part::First)?;
        }
        self.settle()?;
        let seen = self.seen()?;
        let arrived = |shot: &Shot| {
            seen[shot.server].contains(&Seen { from: shot.from, to: shot.to, protocol: shot.protocol })
        };
        for shot in shots.iter().filter(|shot| arrived(shot) && shot.protocol != TCP) {
            self.ends[shot.server].send(shot.to, shot.from, shot.protocol, Part::Answer)?;
        }
        self.settle()?;
        let answers = self.seen()?;
        let answered = |shot: &Shot| {
            let answer = Seen { from: shot.to, to: shot.from, protocol: shot.protocol };
            // TCP's kernel has answered by itself: nobody listens.
            let seen = if shot.protocol == TCP { &seen } else { &answers };
            seen[shot.client].contains(&answer)
        };
        Ok(shots
            .iter()
            .map(|shot| match (arrived(shot), answered(shot)) {
                (false, _) => Fate::Lost,
                (true, false) => Fate::Unanswered,
                (true, true) => Fate::Answered,
            })
            .collect())
    }

    /// A packet in the middle of a connection; gives whether it arrived.
    pub fn follow_up(&self, shots: &[Shot]) -> Result<Vec<bool>> {
        for end in &self.ends {
            end.seen()?;
        }
        for shot in shots {
            self.ends[shot.client].send(shot.from, shot.to, shot.protocol, Part::More)?;
        }
        self.settle()?;
        let seen = self.seen()?;
        let packet = |shot: &Shot| Seen { from: shot.from, to: shot.to, protocol: shot.protocol };
        Ok(shots.iter().map(|shot| seen[shot.server].contains(&packet(shot))).collect())
    }

    /// Sends a packet made elsewhere, with its IP header.
    pub fn send_raw(&self, end: usize, to: IpAddr, packet: &[u8]) -> Result<()> {
        self.ends[end].send_packet(to, packet)
    }

    /// Every IP packet that arrived at an end since it was last asked, headers and all.
    pub fn packets(&self, end: usize) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        self.ends[end].drain(|packet| packets.push(packet.to_vec()))?;
        Ok(packets)
    }

    /// Returns when everything that was sent has arrived or is dropped.
    pub fn settle(&self) -> Result<()> {
        let mut buffer = [0; 16];
        for round in 0..ROUNDS as u8 {
            for (from, to) in [(0, 1), (1, 0)] {
                self.sentinels[from].send(&[round])?;
                // An earlier round's is impossible: each was waited for.
                let length = self.sentinels[to].recv(&mut buffer).context("the sentinel does not come")?;
                ensure!(buffer[..length] == [round], "a foreign packet at the sentinel's port");
            }
        }
        Ok(())
    }

    fn seen(&self) -> Result<Vec<BTreeSet<Seen>>> {
        self.ends.iter().map(End::seen).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Answer,
    More,
}

impl End {
    fn open(netns: &Netns) -> Result<End> {
        netns.run(|| {
            let raw = |family| {
                let protocol = Some(rustix::net::ipproto::RAW);
                rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            };
            let capture = |ether_type: u16| -> Result<OwnedFd> {
                let protocol = Protocol::from_raw(u32::from(ether_type.to_be()).try_into()?);
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let fd =
                    rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(protocol))
                        .context("a packet socket")?;
                sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20).context("SO_RCVBUFFORCE")?;
                Ok(fd)
            };
            Ok(End {
                v4: raw(AddressFamily::INET)?,
                v6: raw(AddressFamily::INET6)?,
                captures: [capture(0x0800)?, capture(0x86dd)?],
            })
        })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, protocol: u8, part: Part) -> Result<()> {
        let segment = segment(from, to, protocol, part);
        self.send_packet(to.ip(), &ip_packet(from.ip(), to.ip(), protocol, &segment))
    }

    fn send_packet(&self, to: IpAddr, packet: &[u8]) -> Result<()> {
        let flags = SendFlags::empty();
        let sent = match to {
            IpAddr::V4(ip) => rustix::net::sendto(&self.v4, packet, flags, &SocketAddrV4::new(ip, 0)),
            IpAddr::V6(ip) => rustix::net::sendto(&self.v6, packet, flags, &SocketAddrV6::new(ip, 0, 0, 0)),
        };
        sent.with_context(|| format!("send to {to}"))?;
        Ok(())
    }

    fn drain(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = [0; 4096];
        for capture in &self.captures {
            loop {
                match rustix::net::recv(capture, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((length, _)) => take(&buffer[..length]),
                    Err(rustix::io::Errno::AGAIN) => break,
                    // Its namespace lost a link: told once.
                    Err(rustix::io::Errno::NETDOWN) => {}
                    Err(errno) => return Err(errno).context("receive a packet"),
                }
            }
        }
        Ok(())
    }

    fn seen(&self) -> Result<BTreeSet<Seen>> {
        let mut seen = BTreeSet::new();
        self.drain(|packet| seen.extend(parse(packet)))?;
        Ok(seen)
    }
}

fn parse(packet: &[u8]) -> Option<Seen> {
    let (source, destination, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let address =
                |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let header = usize::from(packet[0] & 15) * 4;
            (address(12)?.into(), address(16)?.into(), *packet.get(9)?, packet.get(header..)?)
        }
        6 => {
            let address =
                |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (address(8)?.into(), address(24)?.into(), *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    if ![TCP, UDP, SCTP].contains(&protocol) {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let (from, to) = (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?));
    Some(Seen { from, to, protocol })
}

fn segment(from: SocketAddr, to: SocketAddr, protocol: u8, part: Part) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    match protocol {
        TCP => {
            const SYN: u8 = 2;
            const ACK: u8 = 16;
            const PUSH: u8 = 8;
            let (sequence, acknowledged, flags) = match part {
                Part::First => (1u32, 0u32, SYN),
                Part::Answer => (1, 2, SYN | ACK),
                Part::More => (2, 2, PUSH | ACK),
            };
            segment.extend(sequence.to_be_bytes());
            segment.extend(acknowledged.to_be_bytes());
            segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            let sum = pseudo_checksum(from.ip(), to.ip(), protocol, &segment);
            segment[16..18].copy_from_slice(&sum);
        }
        UDP => {
            segment.extend([0, 12, 0, 0]);
            segment.extend(b"shot");
            let sum = pseudo_checksum(from.ip(), to.ip(), protocol, &segment);
            segment[6..8].copy_from_slice(&sum);
        }
        SCTP => segment = sctp(from.port(), to.port(), part),
        other => panic!("no segment of protocol {other}"),
    }
    segment
}

/// The common header and one chunk (RFC 9260): INIT, INIT ACK, or COOKIE ECHO.
fn sctp(from: u16, to: u16, part: Part) -> Vec<u8> {
    let (tag, chunk, flags_and_length) = match part {
        Part::First => ([0; 4], 1, [0, 0, 20]),
        Part::Answer => (TAG, 2, [0, 0, 20]),
        Part::More => (TAG, 10, [0, 0, 8]),
    };
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(tag);
    packet.extend([0; 4]);
    packet.push(chunk);
    packet.extend(flags_and_length);
    match part {
        Part::More => packet.extend([0; 4]),
        _ => {
            // Initiate tag, receiver window, streams out and in, first sequence number.
            packet.extend(TAG);
            packet.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        }
    }
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_parsed() {
        for (from, to) in [("10.0.0.1:7", "10.0.0.2:80"), ("[fd00::1]:7", "[fd00::2]:80")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for protocol in [TCP, UDP, SCTP] {
                let segment = segment(from, to, protocol, Part::First);
                let packet = ip_packet(from.ip(), to.ip(), protocol, &segment);
                assert_eq!(parse(&packet), Some(Seen { from, to, protocol }));
            }
        }
    }
}
