//! A cluster's network without its processes: a namespace as the machine, a fabric, nodes, pods.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};

use node::net::fabric::{Fabric, FabricConfig, NodeAddresses};
use node::net::{NetEvent, NodeNet, NodeNetConfig, PodNet};
use policy::network_policy::{Event, PodRecord, Policy};
use testkit::net::Netns;

pub struct Cluster {
    /// Stands for the machine: what it has around the cluster is this namespace.
    pub machine: Netns,
    pub fabric: Fabric,
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub netns: Netns,
    pub addresses: NodeAddresses,
    pub net: NodeNet,
    pub events: Receiver<NetEvent>,
}

pub struct Pod {
    pub netns: Netns,
    pub net: PodNet,
    pub ip: Ipv4Addr,
}

pub fn config(id: &str) -> FabricConfig {
    FabricConfig {
        cluster_id: id.to_string(),
        node_cidr: "10.88.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
    }
}

pub fn machine() -> Netns {
    let machine = Netns::new().unwrap();
    let mut socket = machine.route_socket().unwrap();
    let lo = kernel::route::index_of(&mut socket, "lo").unwrap().unwrap();
    let mut batch = kernel::netlink::Batch::new();
    kernel::route::set_up(&mut batch, lo);
    socket.request(&batch).unwrap();
    machine
}

impl Cluster {
    pub fn new(nodes: u32) -> Cluster {
        let machine = machine();
        let fabric = machine.run(|| Fabric::create(config("t"))).unwrap();
        let nodes = (1..=nodes).map(|index| Node::new(&fabric, index)).collect();
        let cluster = Cluster { machine, fabric, nodes };
        let all: Vec<_> = cluster.nodes.iter().map(|n| (n.addresses.pod_cidr, n.addresses.node_ip)).collect();
        for node in &cluster.nodes {
            node.net.set_routes(&all).unwrap();
            node.net.adopted().unwrap();
            node.net.apply(Vec::new()).unwrap();
        }
        cluster
    }

    /// Tells every node, as the API's watches do; each pod is local on one of them.
    pub fn apply(&self, events: &[Event]) {
        for (index, node) in self.nodes.iter().enumerate() {
            let events = events.iter().cloned().map(|event| match event {
                Event::UpsertPod(mut record) => {
                    let mine = record.addresses.iter().any(|a| match a {
                        IpAddr::V4(a) => self.nodes[index].addresses.pod_cidr.contains(*a),
                        IpAddr::V6(_) => false,
                    });
                    record.local = mine;
                    Event::UpsertPod(record)
                }
                other => other,
            });
            node.net.apply(events.collect()).unwrap();
        }
    }

    /// A pod on node `index` (from 0), known to all nodes.
    pub fn pod(&self, index: usize, pod: PodNet) -> Pod {
        let pod = self.nodes[index].pod(pod);
        self.apply(&[Event::UpsertPod(pod.record())]);
        pod
    }
}

impl Node {
    pub fn new(fabric: &Fabric, index: u32) -> Node {
        let netns = Netns::new().unwrap();
        let addresses = fabric.add_node(index, netns.fd.as_fd()).unwrap();
        let (net, events) = start(&netns, &addresses);
        Node { netns, addresses, net, events }
    }

    pub fn pod(&self, net: PodNet) -> Pod {
        let netns = Netns::new().unwrap();
        let ip = self.net.prepare(net.clone(), &netns.fd, netns.route_fd().unwrap()).unwrap();
        Pod { netns, net, ip }
    }

    /// What `nft list ruleset` prints inside of the node.
    pub fn nft(&self, arguments: &[&str]) -> String {
        nft(&self.netns, arguments)
    }
}

pub fn start(netns: &Netns, addresses: &NodeAddresses) -> (NodeNet, Receiver<NetEvent>) {
    let (sender, events) = mpsc::channel();
    let ranges = config("t");
    let config = NodeNetConfig {
        node_name: "node".to_string(),
        node_ip: addresses.node_ip,
        gateway: addresses.gateway,
        pod_cidr: addresses.pod_cidr,
        cluster_cidr: ranges.pod_cidr,
        node_cidr: ranges.node_cidr,
        service_cidr: ranges.service_cidr,
        mtu: addresses.mtu,
        on_event: Box::new(move |event| drop(sender.send(event))),
    };
    (netns.run(|| NodeNet::start(config)).unwrap(), events)
}

impl Pod {
    pub fn record(&self) -> PodRecord {
        PodRecord {
            uid: self.net.uid.clone(),
            namespace: self.net.namespace.clone(),
            name: self.net.name.clone(),
            labels: self.net.labels.clone(),
            local: false,
            addresses: vec![IpAddr::V4(self.ip)],
            named_ports: self
                .net
                .named_ports
                .iter()
                .map(|port| ((port.protocol, port.name.clone()), port.port))
                .collect(),
            created: String::new(),
        }
    }

    pub fn at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, port)
    }
}

pub fn pod(namespace: &str, name: &str, labels: &[(&str, &str)]) -> PodNet {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    PodNet {
        uid: format!("00000000-0000-4000-8000-{:012}", NEXT.fetch_add(1, Ordering::Relaxed)),
        namespace: namespace.to_string(),
        name: name.to_string(),
        labels: labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..PodNet::default()
    }
}

pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Event {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Event::UpsertNamespace(name.to_string(), labels)
}

/// A policy written as people write it.
pub fn policy(yaml: &str) -> Event {
    let object = serde_yaml::from_str(yaml).unwrap();
    let (policy, error) = Policy::from_api(&object);
    assert!(error.is_none(), "{error:?}");
    Event::UpsertPolicy(policy)
}

pub const DENY_ALL: &str = "
metadata: { name: deny, namespace: foo }
spec: { podSelector: {}, policyTypes: [Ingress, Egress] }";

pub const DENY_INGRESS: &str = "
metadata: { name: deny, namespace: foo }
spec: { podSelector: {} }";

/// Runs the nft program inside a namespace: the oracle that what is written can be read by people.
pub fn nft(netns: &Netns, arguments: &[&str]) -> String {
    let output = netns.run(|| std::process::Command::new("nft").args(arguments).output()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "nft {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.stderr.is_empty(), "nft {arguments:?} complains: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Whether this test can run; tells why not.
#[macro_export]
macro_rules! needs_root {
    ($test:expr) => {
        if let Some(why) = testkit::net::cannot() {
            testkit::skip!($test, "{why}");
        }
    };
}
