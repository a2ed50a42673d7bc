//! A network under change: policies, labels, pods and Services come, change and go at random while clients connect without
//! pause, and the naive evaluator judges the fate of every attempt. What was attempted while nothing changed must go as it
//! says, in both families; during a change either as before or as after. At the end the kernel holds what a fresh compile of the outcome gives.
//!
//! `COFFERDAM_SOAK_SECONDS` and `COFFERDAM_SOAK_SEED` choose how long and which history (`cargo xtask soak`).

#[path = "../net_common/mod.rs"]
mod net_common;
mod random;
mod running;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use net_common::*;
use policy::network_policy::{self, Compiler, Event, Flow, Layer4, PodRecord, Policy, ir};
use policy::services;
use random::Random;
use running::{Running, attempt, serve};
use serde_json::{Value, json};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const PORTS: [u16; 2] = [80, 5432];
const NODES: usize = 2;
const PODS: usize = 9;
const SERVICE_PORT: u16 = 8080;
/// In each family.
const SERVICE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 7, 7)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xcf, 0x96, 0, 0, 0, 0, 0x707)),
];
const CLIENTS: u64 = 8;

/// The cluster's objects at one moment.
#[derive(Clone, Default)]
struct State {
    running: Vec<Arc<Running>>,
    pods: Vec<ApiPod>,
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
    /// Uids of the pods behind the Service.
    endpoints: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Unanswered,
    /// It depends on the endpoint.
    Either,
}

#[derive(Clone, Debug)]
enum Target {
    Pod { uid: String, port: u16 },
    Service,
}

#[derive(Clone, Debug)]
struct Attempt {
    client: String,
    target: Target,
    protocol: ir::Protocol,
    /// Index into a pod's addresses.
    family: usize,
}

impl State {
    fn find(&self, uid: &str) -> Option<&Arc<Running>> {
        self.running.iter().find(|pod| pod.uid == uid)
    }

    fn allows(&self, attempt: &Attempt, server: &str, port: u16) -> bool {
        let Attempt { client, protocol, family, .. } = attempt;
        let (Some(client), Some(server)) = (self.find(client), self.find(server)) else { return false };
        let objects = network_policy::Cluster {
            pods: &self.pods,
            namespaces: &self.namespaces,
            nodes: &[],
            policies: &self.policies,
            cluster_policies: &[],
        };
        let (client, server) = (client.ips[*family], server.ips[*family]);
        network_policy::evaluate(&objects, &Flow { client, server, layer4: Layer4::Port(*protocol, port) })
    }

    fn fate(&self, attempt: &Attempt) -> Fate {
        if self.find(&attempt.client).is_none() {
            return Fate::Either;
        }
        let one = |uid: &str, port| self.allows(attempt, uid, port);
        let answers: Vec<bool> = match &attempt.target {
            Target::Pod { uid, port } => vec![one(uid, *port)],
            Target::Service => self.endpoints.iter().map(|uid| one(uid, PORTS[0])).collect(),
        };
        match (answers.iter().any(|yes| *yes), answers.iter().all(|yes| *yes)) {
            (false, _) => Fate::Unanswered,
            (true, true) => Fate::Answered,
            (true, false) => Fate::Either,
        }
    }
}

/// All states so far. The last one may be on its way into the kernel; those up to `settled` are there.
#[derive(Default)]
struct History {
    states: RwLock<Vec<Arc<State>>>,
    settled: AtomicUsize,
}

impl History {
    fn settled(&self) -> (usize, Arc<State>) {
        let at = self.settled.load(Ordering::SeqCst);
        (at, self.states.read().unwrap()[at].clone())
    }

    /// What may become of an attempt that began when `since` was settled and ends now.
    fn fate(&self, attempt: &Attempt, since: usize) -> Fate {
        let states = self.states.read().unwrap();
        let mut fates = states[since..].iter().map(|state| state.fate(attempt));
        let first = fates.next().unwrap();
        if fates.all(|fate| fate == first) { first } else { Fate::Either }
    }
}

struct World {
    cluster: Cluster,
    state: State,
    random: Random,
    born: usize,
}

/// Which families this kernel has: both, but for one without IPv6.
fn families() -> &'static [ir::Family] {
    let both = std::fs::exists("/proc/sys/net/ipv6").unwrap_or(false);
    if both { &[ir::Family::V4, ir::Family::V6] } else { &[ir::Family::V4] }
}

impl World {
    fn new(seed: u64) -> World {
        let nodes = NODES as u32;
        let cluster = if families().len() == 2 { Cluster::dual(nodes) } else { Cluster::new(nodes) };
        World { cluster, state: State::default(), random: Random(seed), born: 0 }
    }

    /// Tells all nodes, each as its own agent would hear it.
    fn tell(&self, state: &State, events: &[Event]) {
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let localized = events.iter().map(|event| match event {
                Event::UpsertPod(record) => {
                    let object = state.pods.iter().find(|pod| pod.metadata.uid.as_ref() == Some(&record.uid));
                    Event::UpsertPod(PodRecord::from_api(object.unwrap(), &node_name(index)))
                }
                other => other.clone(),
            });
            node.net.apply(localized.collect()).unwrap();
        }
    }

    /// One change: what comes next as a state, and how it gets into the kernel.
    fn change(&mut self, history: &History) {
        let mut next = self.state.clone();
        let kind = if next.running.len() < PODS { 0 } else { 1 + self.random.below(9) };
        match kind {
            0 => self.pod_comes(next, history),
            1 => {
                let index = self.random.below(next.running.len());
                let gone = next.running.remove(index);
                next.pods.retain(|pod| pod.metadata.uid.as_ref() != Some(&gone.uid));
                next.endpoints.retain(|uid| *uid != gone.uid);
                self.begin(&next, history);
                self.set_service(&next);
                self.cluster.nodes[gone.node].net.detach(&gone.uid).unwrap();
                self.tell(&next, &[Event::RemovePod(gone.uid.clone())]);
                self.end(next, history);
            }
            2 => {
                let labels = self.random.labels();
                let index = self.random.below(next.pods.len());
                let pod = &mut next.pods[index];
                pod.metadata.labels = Some(labels);
                let event = Event::UpsertPod(PodRecord::from_api(pod, ""));
                self.simple(next, &[event], history);
            }
            3 => {
                let (index, labels) = (self.random.below(NAMESPACES.len()), self.random.labels());
                next.namespaces[index].metadata.labels = Some(labels.clone());
                self.simple(next, &[Event::UpsertNamespace(NAMESPACES[index].into(), labels)], history);
            }
            4 | 5 if next.policies.len() > 3 => {
                let gone = next.policies.remove(self.random.below(next.policies.len()));
                let (namespace, name) = (gone.metadata.namespace.unwrap(), gone.metadata.name.unwrap());
                self.simple(next, &[Event::RemovePolicy { namespace, name }], history);
            }
            6 => {
                next.endpoints = next.running.iter().map(|pod| pod.uid.clone()).collect();
                next.endpoints.retain(|_| self.random.one_in(3));
                self.begin(&next, history);
                self.set_service(&next);
                self.end(next, history);
            }
            _ => {
                // Some names come again: a policy is replaced.
                let (namespace, name) = (*self.random.of(&NAMESPACES), format!("p{}", self.random.below(4)));
                let policy = self.random.policy(namespace, &name);
                next.policies.retain(|one| {
                    (&one.metadata.namespace, &one.metadata.name)
                        != (&policy.metadata.namespace, &policy.metadata.name)
                });
                let (parsed, error) = Policy::from_api(&policy);
                assert_eq!(error, None);
                next.policies.push(policy);
                self.simple(next, &[Event::UpsertPolicy(parsed)], history);
            }
        }
    }

    fn simple(&mut self, next: State, events: &[Event], history: &History) {
        self.begin(&next, history);
        self.tell(&next, events);
        self.end(next, history);
    }

    fn pod_comes(&mut self, mut next: State, history: &History) {
        let (node, namespace) = (self.random.below(NODES), *self.random.of(&NAMESPACES));
        let labels = self.random.labels();
        self.born += 1;
        let name = format!("pod-{}", self.born);
        let web = *self.random.of(&PORTS);
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut net = pod(namespace, &name, &pairs);
        net.named_ports =
            vec![node::net::NamedPort { name: "web".into(), protocol: ir::Protocol::Tcp, port: web }];
        let uid = net.uid.clone();
        // Its own node guards it before it is in any state: nobody knows its address yet.
        let made = self.cluster.nodes[node].pod(net);
        let any =
            if families().len() == 2 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let bind = |port: &u16| SocketAddr::new(any, *port);
        let (tcp, udp) = made.netns.run(|| {
            let tcp: Vec<_> = PORTS.iter().map(|port| TcpListener::bind(bind(port)).unwrap()).collect();
            let udp: Vec<_> = PORTS.iter().map(|port| UdpSocket::bind(bind(port)).unwrap()).collect();
            tcp.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
            udp.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
            (tcp, udp)
        });
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let server = Some(std::thread::spawn(move || serve(tcp, udp, &until)));
        let object = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": labels},
            "spec": {"nodeName": node_name(node), "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": web}]}]},
            "status": {"phase": "Running", "podIP": made.ip,
                "podIPs": made.ips().iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
                "hostIP": self.cluster.nodes[node].addresses.v4.node_ip},
        });
        let object: ApiPod = serde_json::from_value(object).unwrap();
        let event = Event::UpsertPod(PodRecord::from_api(&object, ""));
        next.pods.push(object);
        let ips = made.ips();
        next.running.push(Arc::new(Running { uid, node, ips, netns: made.netns, stop, server }));
        self.simple(next, &[event], history);
    }

    fn set_service(&self, state: &State) {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "s"},
            "spec": {"clusterIP": SERVICE[0], "clusterIPs": SERVICE[..families().len()], "type": "ClusterIP", "ports": [
                {"name": "tcp", "port": SERVICE_PORT, "targetPort": PORTS[0], "protocol": "TCP"},
                {"name": "udp", "port": SERVICE_PORT, "targetPort": PORTS[0], "protocol": "UDP"}]},
        }))
        .unwrap();
        let slice = |(family, kind): (usize, &str)| -> EndpointSlice {
            let endpoints: Vec<Value> = state
                .endpoints
                .iter()
                .filter_map(|uid| state.find(uid))
                .map(|pod| {
                    json!({"addresses": [pod.ips[family]], "nodeName": node_name(pod.node),
                        "conditions": {"ready": true, "serving": true, "terminating": false}})
                })
                .collect();
            serde_json::from_value(json!({
                "metadata": {"namespace": "a", "name": format!("s-{family}"), "labels": {"kubernetes.io/service-name": "s"}},
                "addressType": kind,
                "endpoints": endpoints,
                "ports": [{"name": "tcp", "port": PORTS[0], "protocol": "TCP"},
                    {"name": "udp", "port": PORTS[0], "protocol": "UDP"}],
            }))
            .unwrap()
        };
        let slices: Vec<EndpointSlice> = (0..families().len()).zip(["IPv4", "IPv6"]).map(slice).collect();
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            node.net.set_services(services::from_api([&service], &slices, &node_name(index))).unwrap();
        }
    }

    fn begin(&self, next: &State, history: &History) {
        history.states.write().unwrap().push(Arc::new(next.clone()));
    }

    fn end(&mut self, next: State, history: &History) {
        self.state = next;
        let last = history.states.read().unwrap().len() - 1;
        history.settled.store(last, Ordering::SeqCst);
    }
}

fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

#[derive(Default)]
struct Findings {
    /// Attempts by what they should come to: answered, unanswered, either.
    fates: [AtomicUsize; 3],
    wrong: Mutex<Vec<String>>,
}

fn client(history: &History, findings: &Findings, seed: u64, stop: &AtomicBool) {
    let mut random = Random(seed);
    while !stop.load(Ordering::Relaxed) {
        let (since, state) = history.settled();
        let (Some(from), Some(to)) = (pick(&mut random, &state), pick(&mut random, &state)) else { continue };
        let target = match random.one_in(4) {
            true => Target::Service,
            false => Target::Pod { uid: to.uid.clone(), port: *random.of(&PORTS) },
        };
        let protocol = *random.of(&[ir::Protocol::Tcp, ir::Protocol::Udp]);
        let family = random.below(families().len());
        let one = Attempt { client: from.uid.clone(), target, protocol, family };
        let address = match &one.target {
            Target::Service => SocketAddr::new(SERVICE[family], SERVICE_PORT),
            Target::Pod { port, .. } => SocketAddr::new(to.ips[family], *port),
        };
        let silent = || history.fate(&one, since) != Fate::Answered;
        let answered = attempt(&from.netns, address, protocol, silent);
        let fate = history.fate(&one, since);
        findings.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
        let right = match fate {
            Fate::Either => true,
            Fate::Answered => answered,
            Fate::Unanswered => !answered,
        };
        if !right {
            let policies = serde_json::to_string(&state.policies).unwrap();
            let pods = serde_json::to_string(&state.pods).unwrap();
            let line = format!(
                "state {since}: {one:?} ({} → {address}) should be {fate:?}; policies {policies}; pods {pods}; endpoints {:?}",
                from.ips[family], state.endpoints
            );
            findings.wrong.lock().unwrap().push(line);
            stop.store(true, Ordering::Relaxed);
        }
    }
}

fn pick(random: &mut Random, state: &State) -> Option<Arc<Running>> {
    (!state.running.is_empty()).then(|| random.of(&state.running).clone())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_connection_goes_as_the_evaluator_says_while_everything_changes() {
    needs_root!("every_connection_goes_as_the_evaluator_says_while_everything_changes");
    let time = Duration::from_secs(number("COFFERDAM_SOAK_SECONDS").unwrap_or(8));
    let seed = number("COFFERDAM_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("seed {seed}, {} s, {:?}", time.as_secs(), families());
    let mut world = World::new(seed);
    let history = History::default();
    let mut first = State::default();
    let mut events = Vec::new();
    for name in NAMESPACES {
        first
            .namespaces
            .push(serde_json::from_value(json!({"metadata": {"name": name, "labels": {}}})).unwrap());
        events.push(namespace(name, &[]));
    }
    world.begin(&first, &history);
    world.tell(&first, &events);
    world.set_service(&first);
    world.end(first, &history);
    for _ in 0..PODS {
        world.change(&history);
    }
    let (findings, stop) = (Findings::default(), AtomicBool::new(false));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 1..=CLIENTS {
            let (history, findings, stop) = (&history, &findings, &stop);
            scope.spawn(move || client(history, findings, seed ^ (number << 32), stop));
        }
        while began.elapsed() < time && !stop.load(Ordering::Relaxed) {
            world.change(&history);
            // Some attempts fall between two changes, some upon one.
            std::thread::sleep(Duration::from_millis(world.random.next() % 60));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let states = history.states.read().unwrap().len();
    let [answered, unanswered, either] = findings.fates.map(AtomicUsize::into_inner);
    eprintln!("{states} states; attempts: {answered} to be answered, {unanswered} not, {either} either way");
    let wrong = findings.wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert!(answered > 0 && unanswered > 0, "nothing was judged");

    // What the kernel holds is what the node wants, and that is what a fresh compiler makes of the outcome.
    for (index, node) in world.cluster.nodes.iter().enumerate() {
        assert_eq!(node.net.verify().unwrap(), [""; 0], "seed {seed}");
        let mut fresh = Compiler::new(families());
        let state = &world.state;
        let labels = |namespace: &Namespace| namespace.metadata.labels.clone().unwrap_or_default();
        fresh.apply(
            state
                .namespaces
                .iter()
                .map(|one| Event::UpsertNamespace(one.metadata.name.clone().unwrap(), labels(one)))
                .chain(state.policies.iter().map(|policy| Event::UpsertPolicy(Policy::from_api(policy).0)))
                .chain(
                    state
                        .pods
                        .iter()
                        .map(|pod| Event::UpsertPod(PodRecord::from_api(pod, &node_name(index)))),
                ),
        );
        assert_eq!(fresh.rule_set(), node.net.rule_set(), "seed {seed}");
    }
}
