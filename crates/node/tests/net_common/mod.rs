//! A cluster's network without its processes: a namespace as the machine, a fabric, nodes, pods.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};

use node::net::fabric::{Fabric, FabricConfig, NodeAddresses, Ranges};
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
    pub ip6: Option<Ipv6Addr>,
}

/// Which families a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    Ipv4,
    Dual,
}

pub fn config(id: &str, families: Families) -> FabricConfig {
    FabricConfig {
        cluster_id: id.to_string(),
        v4: Ranges::<Ipv4Addr>::DEFAULT,
        v6: (families == Families::Dual).then_some(Ranges::<Ipv6Addr>::DEFAULT),
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
        Cluster::with(nodes, Families::Ipv4)
    }

    pub fn dual(nodes: u32) -> Cluster {
        Cluster::with(nodes, Families::Dual)
    }

    fn with(nodes: u32, families: Families) -> Cluster {
        let machine = machine();
        let fabric = machine.run(|| Fabric::create(config("t", families))).unwrap();
        let nodes = (1..=nodes).map(|index| Node::new(&fabric, index)).collect();
        let cluster = Cluster { machine, fabric, nodes };
        let v4: Vec<_> = cluster.nodes.iter().map(|n| n.addresses.v4.pod_cidr).collect();
        let v6: Vec<_> = cluster.nodes.iter().filter_map(|n| Some(n.addresses.v6?.pod_cidr)).collect();
        for node in &cluster.nodes {
            node.net.set_routes(&v4, &v6).unwrap();
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
                        IpAddr::V4(a) => self.nodes[index].addresses.v4.pod_cidr.contains(*a),
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
        let given = self.net.prepare(net.clone(), &netns.fd, netns.route_fd().unwrap()).unwrap();
        Pod { netns, net, ip: given.v4, ip6: given.v6 }
    }

    /// Its own addresses, IPv4 first.
    pub fn ips(&self) -> Vec<IpAddr> {
        let v6 = self.addresses.v6.map(|v6| IpAddr::V6(v6.node_ip));
        [IpAddr::V4(self.addresses.v4.node_ip)].into_iter().chain(v6).collect()
    }

    /// What `nft list ruleset` prints inside of the node.
    pub fn nft(&self, arguments: &[&str]) -> String {
        nft(&self.netns, arguments)
    }
}

pub fn start(netns: &Netns, addresses: &NodeAddresses) -> (NodeNet, Receiver<NetEvent>) {
    let (sender, events) = mpsc::channel();
    let config = NodeNetConfig {
        node_name: "node".to_string(),
        v4: addresses.v4,
        v6: addresses.v6,
        mtu: addresses.mtu,
        on_event: Box::new(move |event| drop(sender.send(event))),
    };
    (netns.run(|| NodeNet::start(config)).unwrap(), events)
}

impl Pod {
    /// In the order of its status.
    pub fn ips(&self) -> Vec<IpAddr> {
        [IpAddr::V4(self.ip)].into_iter().chain(self.ip6.map(IpAddr::V6)).collect()
    }

    pub fn record(&self) -> PodRecord {
        PodRecord {
            uid: self.net.uid.clone(),
            namespace: self.net.namespace.clone(),
            name: self.net.name.clone(),
            labels: self.net.labels.clone(),
            local: false,
            addresses: self.ips(),
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

    /// Of a pod of a dual-stack cluster.
    pub fn at6(&self, port: u16) -> SocketAddrV6 {
        SocketAddrV6::new(self.ip6.unwrap(), port, 0, 0)
    }

    /// In each family it has.
    pub fn each(&self, port: u16) -> Vec<SocketAddr> {
        self.ips().into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
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
