//! SCTP through Services and host ports. Few machines have SCTP sockets; none needs them to see what becomes of an INIT and
//! of the answer to it.

use node::net::HostPort;
use testkit::net::{GRACE, PATIENCE};

use super::*;

const SCTP: u8 = 132;
const CLIENT_PORT: u16 = 12345;
/// The tag that the client chooses, by which it knows answers.
const TAG: u32 = 0x0102_0304;

#[test]
fn sctp_reaches_host_ports_and_services_and_its_answers_come_back() {
    needs_root!("sctp_reaches_host_ports_and_services_and_its_answers_come_back");
    let cluster = Cluster::new(2);
    let client = cluster.pod(0, pod("foo", "client", &[]));
    let mut net = pod("foo", "server", &[]);
    let (protocol, host_port, container_port) = (Protocol::Sctp, 9000, 8080);
    net.host_ports.push(HostPort { host_ip: None, protocol, host_port, container_port });
    let server = cluster.pod(1, net);
    cluster.serve(vec![port(Protocol::Sctp, &[server.at(8080)])]);
    let arriving = server.netns.sniffer(SCTP).unwrap();
    let returning = client.netns.sniffer(SCTP).unwrap();
    let node = |index: usize| cluster.nodes[index].addresses.v4.node_ip;
    let targets = [
        ("the pod itself", server.at(8080)),
        ("the cluster's address", at(CLUSTER_IP)),
        ("an external address", at(EXTERNAL_IP)),
        ("its node's port", cluster.node_port(0)),
        ("another node's port", cluster.node_port(1)),
        ("a host port", SocketAddrV4::new(node(1), 9000)),
    ];
    for (number, (what, to)) in (0..).zip(targets) {
        let from_port = CLIENT_PORT + number;
        let init = chunk(from_port, to.port(), 0, 1);
        client.netns.raw_sender().unwrap().send(client.ip, *to.ip(), SCTP, &init).unwrap();
        let packet = arriving.next(PATIENCE, |_| true).unwrap_or_else(|| panic!("{what}: no INIT arrives"));
        let (seen_port, to_port) = ports(&packet.payload);
        assert_eq!((packet.destination, to_port), (server.ip, 8080), "{what}");
        assert_eq!(packet.payload[12..], init[12..], "{what}: the chunk is as it was");
        assert_eq!(checksum(&packet.payload), packet.payload[8..12], "{what}: the checksum is right again");
        let answer = chunk(8080, seen_port, TAG, 2);
        server.netns.raw_sender().unwrap().send(server.ip, packet.source, SCTP, &answer).unwrap();
        let packet = returning
            .next(PATIENCE, |packet| ports(&packet.payload).1 == from_port)
            .unwrap_or_else(|| panic!("{what}: no answer arrives"));
        assert_eq!((packet.source, ports(&packet.payload).0), (*to.ip(), to.port()), "{what}");
    }
    // A host port is on its own node alone.
    let elsewhere = chunk(CLIENT_PORT, 9000, 0, 1);
    client.netns.raw_sender().unwrap().send(client.ip, node(0), SCTP, &elsewhere).unwrap();
    assert_eq!(arriving.next(GRACE, |_| true), None);
}

fn ports(segment: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([segment[0], segment[1]]), u16::from_be_bytes([segment[2], segment[3]]))
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
    crc32c(&segment).to_le_bytes()
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1)))
    })
}
