//! The packet's bytes, and what headers say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel::nft::Headers;
use kernel::packet::{checksum, crc32c, ip_packet, pseudo_checksum};

use super::{Answer, ICMP, ICMPV6, Packet, SCTP, TCP, UDP};

/// With its IP header. Both addresses must be of one family.
pub fn bytes(packet: &Packet) -> Vec<u8> {
    let (from, to) = (packet.from, packet.to);
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut segment = ports.clone();
    match packet.protocol {
        TCP => {
            // Sequence 1, a header of 20 bytes, SYN, the greatest window.
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
            let sum = pseudo_checksum(from.ip(), to.ip(), TCP, &segment);
            segment[16..18].copy_from_slice(&sum);
        }
        UDP => {
            segment.extend([0, 8, 0, 0]);
            let sum = pseudo_checksum(from.ip(), to.ip(), UDP, &segment);
            // A sum of 0 would say that there is none.
            segment[6..8].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
        }
        SCTP => {
            // The common header, and the chunk INIT (RFC 9260): tag, window, streams out and in, first sequence number.
            segment.extend([0; 8]);
            segment.extend([1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            let sum = crc32c(&segment);
            segment[8..12].copy_from_slice(&sum);
        }
        _ => {
            let kind = if packet.protocol == ICMP { 8 } else { 128 };
            segment = vec![kind, 0, 0, 0];
            segment.extend(from.port().to_be_bytes());
            segment.extend([0, 1]);
            let sum = match packet.protocol {
                ICMP => checksum(&segment),
                _ => pseudo_checksum(from.ip(), to.ip(), ICMPV6, &segment),
            };
            segment[2..4].copy_from_slice(&sum);
        }
    }
    ip_packet(from.ip(), to.ip(), packet.protocol, &segment)
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// With port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Likewise.
    pub to: SocketAddr,
    pub protocol: u8,
    /// What it would be as an answer.
    pub answer: Answer,
}

/// None for what is no IP packet.
pub fn shown(headers: &Headers) -> Option<Shown> {
    let network = headers.network.as_slice();
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(network.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(network.get(at..at + 16)?).ok()?));
    let (source, destination, protocol) = match network.first()? >> 4 {
        4 => (v4(12)?, v4(16)?, *network.get(9)?),
        6 => (v6(8)?, v6(24)?, *network.get(6)?),
        _ => return None,
    };
    let transport = headers.transport.as_slice();
    let ports = match protocol {
        TCP | UDP | SCTP => u32::from_be_bytes(transport.get(..4)?.try_into().ok()?),
        _ => 0,
    };
    const RST: u8 = 4;
    const SYN_ACK: u8 = 0x12;
    let answer = match (protocol, transport) {
        (TCP, _) => match transport.get(13)? {
            flags if flags & RST != 0 => Answer::Resets,
            flags if flags & SYN_ACK == SYN_ACK => Answer::Accepts,
            _ => Answer::Other,
        },
        (UDP, _) => Answer::Answers,
        // INIT ACK and ABORT.
        (SCTP, _) => match transport.get(12) {
            Some(2) => Answer::Accepts,
            Some(6) => Answer::Resets,
            _ => Answer::Other,
        },
        (ICMP, [0, ..]) | (ICMPV6, [129, ..]) => Answer::Accepts,
        (ICMP, [3, ..]) | (ICMPV6, [1 | 4, ..]) => Answer::Unreachable,
        _ => Answer::Other,
    };
    Some(Shown {
        source: SocketAddr::new(source, (ports >> 16) as u16),
        to: SocketAddr::new(destination, ports as u16),
        protocol,
        answer,
    })
}

/// Where in an ICMP error the port is from which the packet came that it is about: behind the error's own header and the
/// packet's, which has no options.
pub fn port_in_error(of: IpAddr, echo: bool) -> u32 {
    let header = match of {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    8 + header + identifier(echo)
}

/// Where in a transport header the port is from which it came.
pub fn identifier(echo: bool) -> u32 {
    if echo { 4 } else { 0 }
}

/// Of an address, where it is in its header.
pub fn place(address: IpAddr, source: bool) -> (u32, Vec<u8>) {
    fn of<const N: usize>(bytes: [u8; N], at: [u32; 2], source: bool) -> (u32, Vec<u8>) {
        (at[usize::from(!source)], bytes.to_vec())
    }
    match address {
        IpAddr::V4(address) => of(Ipv4Addr::octets(&address), [12, 16], source),
        IpAddr::V6(address) => of(Ipv6Addr::octets(&address), [8, 24], source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_says_what_it_is_and_sums_up() {
        let ends = [("10.0.0.1:61005", "10.0.0.2:80"), ("[fd00::1]:61005", "[fd00::2]:80")];
        for (from, to) in ends {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let echo = if from.is_ipv4() { ICMP } else { ICMPV6 };
            for protocol in [TCP, UDP, SCTP, echo] {
                let packet = Packet { protocol, from, to };
                assert_eq!(packet.wrong(), None);
                let bytes = bytes(&packet);
                let header = if from.is_ipv4() { 20 } else { 40 };
                let (network, transport) = bytes.split_at(header);
                let headers = Headers { network: network.to_vec(), transport: transport.to_vec() };
                let shown = shown(&headers).unwrap();
                let (port, own) = if protocol == echo { (0, 0) } else { (80, 61005) };
                assert_eq!(shown.to, SocketAddr::new(to.ip(), port));
                assert_eq!((shown.source, shown.protocol), (SocketAddr::new(from.ip(), own), protocol));
                let at = identifier(protocol == echo) as usize;
                assert_eq!(transport[at..at + 2], 61005_u16.to_be_bytes());
                // A sum over what has its sum in it is nothing.
                match protocol {
                    SCTP => {
                        let mut without = transport.to_vec();
                        without[8..12].fill(0);
                        assert_eq!(transport[8..12], crc32c(&without));
                    }
                    ICMP => assert_eq!(checksum(transport), [0, 0]),
                    _ => assert_eq!(pseudo_checksum(from.ip(), to.ip(), protocol, transport), [0, 0]),
                }
            }
        }
        let two = Packet { protocol: TCP, from: ends[0].0.parse().unwrap(), to: ends[1].1.parse().unwrap() };
        assert!(two.wrong().is_some());
        let strange = Packet { protocol: 89, ..two };
        assert!(strange.wrong().is_some());
    }
}
