//! Services on the whole path: manifests in, connections from the machine's 127.0.0.1 and from pods out.

mod common;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    time::Duration,
};

use common::*;
use serde_json::Value;

/// Ports that other clusters on this machine are unlikely to have.
const HOST_PORT: u16 = 19_437;
const NODE_PORT: u16 = 31_847;
const UDP_HOST_PORT: u16 = 19_438;
const UDP_NODE_PORT: u16 = 31_848;

const UDP: &str = "
apiVersion: v1
kind: Pod
metadata: { name: datagrams, labels: { app: datagrams } }
spec:
  containers:
  - { name: c, image: nginx, command: [/bin/tool, serve, --udp, '5353'], ports: [{ containerPort: 5353, hostPort: 19438, protocol: UDP }] }
---
apiVersion: v1
kind: Service
metadata: { name: datagrams }
spec:
  type: NodePort
  selector: { app: datagrams }
  ports: [{ port: 53, targetPort: 5353, nodePort: 31848, protocol: UDP }]
";

fn example(file: &str) -> String {
    let path = format!("{}/../../examples/chapter/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("an example");
    text.replace("9000", &HOST_PORT.to_string()).replace("30123", &NODE_PORT.to_string())
}

fn hostname(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("hostname: ")).map(str::to_string)
}

/// Who answers HTTP on a port of 127.0.0.1.
fn ask(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(4))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    hostname(&text)
}

fn ask_udp(socket: &UdpSocket, port: u16) -> Option<String> {
    socket.send_to(b"who", (Ipv4Addr::LOCALHOST, port)).ok()?;
    let mut buffer = [0; 512];
    let (len, _) = socket.recv_from(&mut buffer).ok()?;
    hostname(&String::from_utf8_lossy(&buffer[..len]))
}

/// Asks until all of `wanted` have answered and nobody else does.
fn everybody(cluster: &Cluster, port: u16, wanted: &BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    for _ in 0..600 {
        match ask(port) {
            Some(name) => drop(seen.insert(name)),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
        if seen == *wanted {
            return;
        }
    }
    panic!("port {port}: {seen:?} answer instead of {wanted:?}{}", cluster.logs());
}

fn get(cluster: &Cluster, what: &[&str]) -> Value {
    let arguments = [&["get"], what, &["-o", "json"]].concat();
    serde_json::from_slice(&cluster.run(&arguments).stdout).unwrap_or_default()
}

fn names(list: &Value, wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let items = list["items"].as_array().into_iter().flatten().filter(|item| wanted(item));
    items.filter_map(|item| item["metadata"]["name"].as_str().map(str::to_string)).collect()
}

#[test]
fn host_ports_and_node_ports_answer_on_the_machine_and_services_in_pods() {
    if skipped("host_ports_and_node_ports_answer_on_the_machine_and_services_in_pods", false) {
        return;
    }
    let cluster = Cluster::with_images(3);
    cluster.apply(&example("02-hostport-deployment.yaml"));
    cluster.apply(&example("03-nodeport-service.yaml"));
    cluster.apply(UDP);
    let running = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let mut pods = BTreeSet::new();
    for _ in 0..150 {
        pods = names(&get(&cluster, &["pods", "-l", "app=hostport-example"]), running);
        if pods.len() == 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(pods.len(), 3, "three of four have a node of their own{}", cluster.logs());
    // Each node's host port leads to its own pod, a node port to any of them; the listener goes round the nodes.
    everybody(&cluster, HOST_PORT, &pods);
    everybody(&cluster, NODE_PORT, &pods);

    let endpoints = get(&cluster, &["endpoints", "nodeport-example"]);
    let addresses = endpoints["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
    assert_eq!(addresses, 3, "{endpoints}");

    let service = get(&cluster, &["service", "nodeport-example"]);
    let cluster_ip = service["spec"]["clusterIP"].as_str().expect("an address").to_string();
    let pod = pods.first().expect("a pod");
    for _ in 0..6 {
        // Its own pod among them.
        cluster.ok(&["exec", pod, "--", "/bin/tool", "connect", &cluster_ip, "80"]);
    }

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    for port in [UDP_HOST_PORT, UDP_NODE_PORT] {
        let answer = (0..150).find_map(|_| {
            let answer = ask_udp(&socket, port);
            if answer.is_none() {
                std::thread::sleep(Duration::from_millis(100));
            }
            answer
        });
        assert_eq!(answer.as_deref(), Some("datagrams"), "UDP port {port}{}", cluster.logs());
    }
}
