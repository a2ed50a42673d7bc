//! SCTP through Services and host ports, in both families. Few machines have SCTP sockets; none needs them to see what
//! becomes of an INIT and of the answer to it.

use kernel::packet::{crc32c, ip_packet};
use node::net::HostPort;
use testkit::wire::{SCTP, Wire};

use super::*;

const CLIENT_PORT: u16 = 12345;
/// The tag that the client chooses, by which it knows answers.
const TAG: u32 = 0x0102_0304;
const CLUSTER_IP6: &str = "fd00:cf:96::7";
const EXTERNAL_IP6: &str = "2001:db8:e::1";

/// The ends among whose packets is looked for.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// A packet of SCTP as it arrived.
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    segment: Vec<u8>,
}

#[test]
fn sctp_reaches_host_ports_and_services_and_its_answers_come_back() {
    needs_root!("sctp_reaches_host_ports_and_services_and_its_answers_come_back");
    let cluster = Cluster::dual(2);
    let client = cluster.pod(0, pod("foo", "client", &[]));
    let mut net = pod("foo", "server", &[]);
    let (protocol, host_port, container_port) = (Protocol::Sctp, 9000, 8080);
    net.host_ports.push(HostPort { host_ip: None, protocol, host_port, container_port });
    let server = cluster.pod(1, net);
    let v4 = port(Protocol::Sctp, &[server.at(8080)]);
    let all = Backends::of([SocketAddr::V6(server.at6(8080))]);
    let external_ips = BTreeSet::from([EXTERNAL_IP6.parse().unwrap()]);
    let cluster_ip = CLUSTER_IP6.parse().unwrap();
    let v6 = ServicePort {
        cluster_ip,
        external_ips,
        inside: all.clone(),
        outside: all.clone(),
        all,
        ..v4.clone()
    };
    cluster.serve(vec![v4, v6]);
    let nodes = [0, 1].map(|index| (&cluster.nodes[index].netns, cluster.nodes[index].addresses.v4.node_ip));
    let wire = Wire::new(&[&client.netns, &server.netns], nodes).unwrap();
    let node = |index: usize, v4: bool| cluster.nodes[index].ips()[usize::from(!v4)];
    for (client, server) in client.each(CLIENT_PORT).into_iter().zip(server.each(8080)) {
        let v4 = client.is_ipv4();
        let cluster_ip = if v4 { IpAddr::from(CLUSTER_IP) } else { CLUSTER_IP6.parse().unwrap() };
        let external_ip = if v4 { IpAddr::from(EXTERNAL_IP) } else { EXTERNAL_IP6.parse().unwrap() };
        let targets = [
            ("the pod itself", server),
            ("the cluster's address", SocketAddr::new(cluster_ip, 80)),
            ("an external address", SocketAddr::new(external_ip, 80)),
            ("its node's port", SocketAddr::new(node(0, v4), NODE_PORT)),
            ("another node's port", SocketAddr::new(node(1, v4), NODE_PORT)),
            ("a host port", SocketAddr::new(node(1, v4), 9000)),
        ];
        for (number, (what, to)) in (0..).zip(targets) {
            let what = format!("{what}, {to}");
            let from = SocketAddr::new(client.ip(), CLIENT_PORT + number);
            let init = chunk(from.port(), to.port(), 0, 1);
            send(&wire, CLIENT, from, to, &init);
            let packet = arrived(&wire, SERVER).unwrap_or_else(|| panic!("{what}: no INIT arrives"));
            assert_eq!(packet.to, server, "{what}");
            assert_eq!(packet.segment[12..], init[12..], "{what}: the chunk is as it was");
            assert_eq!(
                checksum(&packet.segment),
                packet.segment[8..12],
                "{what}: the checksum is right again"
            );
            let answer = chunk(server.port(), packet.from.port(), TAG, 2);
            send(&wire, SERVER, server, packet.from, &answer);
            let packet = arrived(&wire, CLIENT).unwrap_or_else(|| panic!("{what}: no answer arrives"));
            assert_eq!((packet.from, packet.to), (to, from), "{what}");
            assert_eq!(checksum(&packet.segment), packet.segment[8..12], "{what}: the answer's checksum");
        }
        // A host port is on its own node alone.
        let elsewhere = SocketAddr::new(node(0, v4), 9000);
        send(&wire, CLIENT, client, elsewhere, &chunk(CLIENT_PORT, 9000, 0, 1));
        assert!(arrived(&wire, SERVER).is_none(), "{elsewhere}");
    }
}

fn send(wire: &Wire, end: usize, from: SocketAddr, to: SocketAddr, segment: &[u8]) {
    wire.send_raw(end, to.ip(), &ip_packet(from.ip(), to.ip(), SCTP, segment)).unwrap();
}

/// The one packet of SCTP that has come there since it was last asked.
fn arrived(wire: &Wire, end: usize) -> Option<Packet> {
    wire.settle().unwrap();
    let mut packets: Vec<Packet> = wire.packets(end).unwrap().iter().filter_map(|all| parse(all)).collect();
    assert!(packets.len() < 2, "{} packets", packets.len());
    packets.pop()
}

fn parse(packet: &[u8]) -> Option<Packet> {
    let (header, protocol, addresses) =
        if packet[0] >> 4 == 4 { (20, packet[9], 12) } else { (40, packet[6], 8) };
    let address = |number: usize| -> IpAddr {
        match header {
            20 => <[u8; 4]>::try_from(&packet[addresses + 4 * number..][..4]).unwrap().into(),
            _ => <[u8; 16]>::try_from(&packet[addresses + 16 * number..][..16]).unwrap().into(),
        }
    };
    let segment = packet[header..].to_vec();
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    (protocol == SCTP).then(|| Packet {
        from: SocketAddr::new(address(0), port(0)),
        to: SocketAddr::new(address(1), port(2)),
        segment: segment.clone(),
    })
}

/// A packet with one chunk: 1 is INIT, 2 INIT ACK (RFC 9260, 3.3.2 and 3.3.3).
fn chunk(from: u16, to: u16, verification: u32, kind: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend(verification.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([kind, 0, 0, 20]);
    segment.extend(TAG.to_be_bytes());
    segment.extend([0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = checksum(&segment);
    segment[8..12].copy_from_slice(&sum);
    segment
}

fn checksum(segment: &[u8]) -> [u8; 4] {
    let mut segment = segment.to_vec();
    segment[8..12].fill(0);
    crc32c(&segment)
}
