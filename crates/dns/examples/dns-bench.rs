//! Answers per second and latency of the name server, beside dnsmasq with the same 1 000 names where that is installed:
//! one thread each, asked over loopback in one run, in turns.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use dns::{
    State,
    forward::Forwarder,
    health::Counters,
    server,
    zone::{Kind, Zone},
};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use serde_json::json;

const NAMES: u32 = 1000;
const ROUNDS: usize = 5;
const LATENCY: usize = 5_000;
const RATE: usize = 50_000;
/// Questions under way when the rate is measured.
const WINDOW: usize = 64;

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number)
}

fn name(number: u32) -> String {
    format!("svc-{number}.shop.svc.cluster.local")
}

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local", Vec::new());
    for number in 0..NAMES {
        let service = json!({"metadata": {"name": format!("svc-{number}"), "namespace": "shop"},
            "spec": {"clusterIP": address(number).to_string()}});
        zone.set_service(&serde_json::from_value(service).expect("a service"));
    }
    for kind in [Kind::Namespaces, Kind::Services, Kind::Slices, Kind::Pods] {
        zone.set_synced(kind);
    }
    zone
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.local_addr().expect("an address")
}

/// Our server on a thread of its own, until the process ends.
fn ours(address: SocketAddr) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let state = State {
                zone: RefCell::new(zone()),
                forwarder: Rc::new(Forwarder::new(&[])),
                counters: Counters::default(),
            };
            server::bind(address).await.expect("the port").run(Rc::new(state)).await;
        });
    });
}

struct Dnsmasq(Child);

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("end dnsmasq");
    }
}

/// None where it is not installed.
fn dnsmasq(address_of: SocketAddr) -> Option<(Dnsmasq, tempfile::NamedTempFile)> {
    let mut hosts = tempfile::NamedTempFile::new().expect("a file");
    for number in 0..NAMES {
        std::io::Write::write_fmt(&mut hosts, format_args!("{} {}\n", address(number), name(number)))
            .expect("written");
    }
    let child = Command::new("dnsmasq")
        .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root"])
        .args(["--conf-file=/dev/null", "--listen-address=127.0.0.1", "--pid-file="])
        .arg(format!("--port={}", address_of.port()))
        .arg(format!("--addn-hosts={}", hosts.path().display()))
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some((Dnsmasq(child), hosts))
}

fn questions() -> Vec<Vec<u8>> {
    (0..NAMES)
        .map(|number| {
            let mut message = Message::query();
            message.metadata.id = number as u16;
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(
                Name::from_ascii(name(number) + ".").expect("a name"),
                RecordType::A,
            ));
            message.to_vec().expect("bytes")
        })
        .collect()
}

fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
    socket
}

/// The median of one question after the other.
fn latency(server: SocketAddr, questions: &[Vec<u8>]) -> Duration {
    let (socket, mut buffer) = (client(server), [0; 2048]);
    let mut times: Vec<Duration> = (0..LATENCY)
        .map(|number| {
            let began = Instant::now();
            socket.send(&questions[number % questions.len()]).expect("sent");
            let length = socket.recv(&mut buffer).expect("an answer");
            // One answer, no error.
            assert_eq!((buffer[3] & 15, buffer[7], length > 12), (0, 1, true));
            began.elapsed()
        })
        .collect();
    times.sort();
    times[LATENCY / 2]
}

/// Answers per second with a window of questions under way.
fn rate(server: SocketAddr, questions: &[Vec<u8>]) -> f64 {
    let (socket, mut buffer) = (client(server), [0; 2048]);
    let began = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < RATE {
        while sent < RATE && sent - received < WINDOW {
            socket.send(&questions[sent % questions.len()]).expect("sent");
            sent += 1;
        }
        socket.recv(&mut buffer).expect("an answer");
        received += 1;
    }
    RATE as f64 / began.elapsed().as_secs_f64()
}

fn main() {
    let questions = questions();
    let mut servers = vec![("ours", free_port())];
    ours(servers[0].1);
    let beside = free_port();
    let running = dnsmasq(beside);
    match &running {
        Some(_) => servers.push(("dnsmasq", beside)),
        None => println!("SKIPPED the comparison with dnsmasq: it is not installed"),
    }
    // Both answer before anything is measured.
    for (what, server) in &servers {
        let socket = client(*server);
        let answered = (0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            socket.send(&questions[0]).is_ok() && socket.recv(&mut [0; 2048]).is_ok()
        });
        assert!(answered, "{what} does not answer");
    }
    let mut seen: Vec<(Vec<Duration>, Vec<f64>)> = vec![Default::default(); servers.len()];
    for _ in 0..ROUNDS {
        for (at, (_, server)) in servers.iter().enumerate() {
            seen[at].0.push(latency(*server, &questions));
            seen[at].1.push(rate(*server, &questions));
        }
    }
    println!("{NAMES} names, medians of {ROUNDS} rounds");
    for ((what, _), (mut times, mut rates)) in servers.iter().zip(seen) {
        times.sort();
        rates.sort_by(f64::total_cmp);
        println!("{what:<8} p50 {:>6.1?}   {:>8.0} answers/s", times[ROUNDS / 2], rates[ROUNDS / 2]);
    }
}
