//! Network namespaces for tests, servers in them, and a prober that says what reaches what: threads and sockets only,
//! no external programs. Raw packets are made by hand, so that they can lie about their source.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kernel::netlink::{Family, Socket};
use kernel::packet::{checksum, pseudo_checksum};
use kernel::route::netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// How long what must arrive may take, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// How long to watch for what must not arrive, after all that must has.
pub const GRACE: Duration = Duration::from_millis(60);

/// A network namespace of a test: a machine, a node or a pod.
#[derive(Debug)]
pub struct Netns {
    pub fd: OwnedFd,
}

impl Netns {
    pub fn new() -> Result<Netns> {
        Ok(Netns { fd: netns::create().context("make a network namespace (are you root?)")? })
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(self.fd.as_fd(), work).expect("setns into a test's namespace")
    }

    pub fn route_socket(&self) -> Result<Socket> {
        Ok(Socket::open_in(self.fd.as_fd(), Family::Route)?)
    }

    /// A NETLINK_ROUTE socket as a keeper hands it out.
    pub fn route_fd(&self) -> Result<OwnedFd> {
        let socket = self.run(|| {
            let flags = SocketFlags::CLOEXEC;
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
        });
        Ok(socket?)
    }

    /// Echo servers on these ports, on every address of both families, until the test's process ends.
    pub fn echo(&self, tcp: &[u16], udp: &[u16]) -> Result<()> {
        for port in tcp {
            let listener = self.run(|| {
                TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))
                    .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)))
            })?;
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || echo_stream(stream));
                }
            });
        }
        for port in udp {
            let socket = self.run(|| {
                UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port))
                    .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)))
            })?;
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    // A client that is gone is no matter.
                    if socket.send_to(&buffer[..len], from).is_err() {
                        continue;
                    }
                }
            });
        }
        Ok(())
    }

    /// Servers that tell a client who they are and whom they see: `name address`, once for every connection or datagram,
    /// until the test's process ends.
    pub fn tell(&self, name: &str, tcp: &[u16], udp: &[u16]) -> Result<()> {
        for port in tcp {
            let listener = self.run(|| {
                TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))
                    .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)))
            })?;
            let name = name.to_string();
            std::thread::spawn(move || {
                while let Ok((mut stream, from)) = listener.accept() {
                    // A client that is gone is no matter.
                    drop(stream.write_all(format!("{name} {}", from.ip().to_canonical()).as_bytes()));
                }
            });
        }
        for port in udp {
            let socket = self.run(|| {
                UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port))
                    .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)))
            })?;
            let name = name.to_string();
            std::thread::spawn(move || {
                let mut word = [0; 256];
                while let Ok((len, from)) = socket.recv_from(&mut word) {
                    let mut answer = format!("{name} {} ", from.ip().to_canonical()).into_bytes();
                    answer.extend(&word[..len]);
                    drop(socket.send_to(&answer, from));
                }
            });
        }
        Ok(())
    }

    /// Who a server of [`Netns::tell`] says it is, and what address it sees.
    pub fn ask(&self, to: impl Into<SocketAddr>) -> io::Result<(String, IpAddr)> {
        let mut stream = self.connect(to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        told(&text)
    }

    /// Whether a TCP connection comes about, within [`PATIENCE`].
    pub fn connects(&self, to: impl Into<SocketAddr>) -> bool {
        self.connect(to, PATIENCE).is_ok()
    }

    pub fn connect(&self, to: impl Into<SocketAddr>, patience: Duration) -> io::Result<TcpStream> {
        let to = to.into();
        self.run(|| TcpStream::connect_timeout(&to, patience))
    }

    /// An UDP socket connected to that address.
    pub fn udp(&self, to: impl Into<SocketAddr>) -> Result<UdpSocket> {
        let to = to.into();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.run(|| UdpSocket::bind(any))?;
        socket.connect(to)?;
        Ok(socket)
    }

    /// Sends IPv4 packets made by hand; the kernel fills in the header's checksum only.
    pub fn raw_sender(&self) -> Result<RawSender> {
        let flags = SocketFlags::CLOEXEC;
        let protocol = Some(rustix::net::ipproto::RAW);
        let fd =
            self.run(|| rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol))?;
        Ok(RawSender { fd })
    }

    /// Sees every packet of that protocol that arrives at this namespace's addresses, before its own stack does.
    pub fn sniffer(&self, protocol: u8) -> Result<Sniffer> {
        let protocol = match protocol {
            1 => rustix::net::ipproto::ICMP,
            6 => rustix::net::ipproto::TCP,
            17 => rustix::net::ipproto::UDP,
            132 => rustix::net::ipproto::SCTP,
            other => anyhow::bail!("no sniffer for protocol {other}"),
        };
        let flags = SocketFlags::CLOEXEC;
        let fd = self
            .run(|| rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(protocol)))?;
        Ok(Sniffer { fd })
    }
}

fn echo_stream(mut stream: TcpStream) {
    let mut buffer = [0; 2048];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

fn told(text: &str) -> io::Result<(String, IpAddr)> {
    let parsed = text.split_once(' ').and_then(|(name, from)| Some((name.to_string(), from.parse().ok()?)));
    parsed.ok_or_else(|| io::Error::other(format!("no answer of this test's servers: {text:?}")))
}

/// The same as [`Netns::ask`] over a connected UDP socket.
pub fn ask_udp(socket: &UdpSocket, patience: Duration) -> io::Result<(String, IpAddr)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let word = format!(" {}", NEXT.fetch_add(1, Ordering::Relaxed));
    socket.set_read_timeout(Some(patience))?;
    socket.send(word.trim_start().as_bytes())?;
    let mut buffer = [0; 256];
    loop {
        let len = socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..len]);
        // The answer to an earlier question may come late.
        if let Some(text) = text.strip_suffix(&word) {
            return told(text);
        }
    }
}

/// Whether an echo server answers over this connection.
pub fn echoes(stream: &mut TcpStream, patience: Duration) -> bool {
    let mut answer = [0; 4];
    let mut exchange = || -> io::Result<()> {
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"ping")?;
        stream.read_exact(&mut answer)
    };
    exchange().is_ok()
}

/// Whether an echo server answers a new datagram.
pub fn udp_echoes(socket: &UdpSocket, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let word = format!("{:?}", Instant::now());
    if socket.send(word.as_bytes()).is_err() {
        return false;
    }
    let mut buffer = [0; 2048];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if socket.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match socket.recv(&mut buffer) {
            // An answer to an earlier datagram may still be queued.
            Ok(len) if &buffer[..len] == word.as_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

/// One question: does an echo server at that address answer?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub to: SocketAddrV4,
    pub transport: Transport,
}

enum Flight {
    Tcp(TcpFlight),
    Udp(UdpSocket),
    /// The kernel refused at once (no route, rejected).
    Refused,
}

struct TcpFlight(OwnedFd);

impl Netns {
    /// Asks all questions at once. Waits until every one that is expected to be answered is, or [`PATIENCE`] is over,
    /// and [`GRACE`] for those that are not. Returns the answers in order.
    pub fn probe(&self, probes: &[(Probe, bool)]) -> Result<Vec<bool>> {
        let flights: Vec<Flight> =
            self.run(|| probes.iter().map(|(probe, _)| fly(*probe)).collect::<Result<_>>())?;
        let mut answers = vec![false; probes.len()];
        let started = Instant::now();
        let mut all_expected: Option<Instant> = None;
        loop {
            let open: Vec<usize> = (0..flights.len())
                .filter(|i| !answers[*i] && !matches!(flights[*i], Flight::Refused))
                .collect();
            let missing = open.iter().any(|i| probes[*i].1);
            let now = Instant::now();
            if !missing && all_expected.is_none() {
                all_expected = Some(now);
            }
            let end = all_expected.map_or(started + PATIENCE, |since| since + GRACE);
            let Some(left) =
                end.checked_duration_since(now).filter(|left| !left.is_zero() && !open.is_empty())
            else {
                return Ok(answers);
            };
            let mut fds: Vec<PollFd<'_>> = open
                .iter()
                .map(|i| match &flights[*i] {
                    Flight::Tcp(tcp) => PollFd::new(&tcp.0, PollFlags::OUT),
                    Flight::Udp(udp) => PollFd::new(udp, PollFlags::IN),
                    Flight::Refused => unreachable!("filtered above"),
                })
                .collect();
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            let mut idle = true;
            for (i, events) in open.into_iter().zip(events) {
                if events.is_empty() {
                    continue;
                }
                let answered = match &flights[i] {
                    Flight::Tcp(tcp) => {
                        rustix::net::sockopt::socket_error(&tcp.0)?.is_ok()
                            && !events.contains(PollFlags::ERR)
                    }
                    Flight::Udp(udp) => udp.recv(&mut [0; 64]).is_ok(),
                    Flight::Refused => false,
                };
                idle &= !answered;
                answers[i] = answered;
            }
            if idle {
                // A refused connection stays ready: do not spin on it.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn fly(probe: Probe) -> Result<Flight> {
    match probe.transport {
        Transport::Tcp => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&fd, &probe.to) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(Flight::Tcp(TcpFlight(fd))),
                Err(_) => Ok(Flight::Refused),
            }
        }
        Transport::Udp => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_nonblocking(true)?;
            if socket.connect(probe.to).is_err() || socket.send(b"probe").is_err() {
                return Ok(Flight::Refused);
            }
            Ok(Flight::Udp(socket))
        }
    }
}

/// Sends packets that lie.
#[derive(Debug)]
pub struct RawSender {
    fd: OwnedFd,
}

impl RawSender {
    /// `payload` is all behind the IPv4 header.
    pub fn send(&self, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Result<()> {
        let total = 20 + payload.len() as u16;
        let [high, low] = total.to_be_bytes();
        let mut packet = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        rustix::net::sendto(&self.fd, &packet, SendFlags::empty(), &SocketAddrV4::new(destination, 0))?;
        Ok(())
    }
}

/// What arrives.
#[derive(Debug)]
pub struct Sniffer {
    fd: OwnedFd,
}

/// An IPv4 packet that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// All behind the IPv4 header.
    pub payload: Vec<u8>,
}

impl Sniffer {
    /// The next packet that `wanted` accepts; None if there is none until `patience` is over.
    pub fn next(&self, patience: Duration, wanted: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => panic!("poll: {errno}"),
            }
            let (len, _) =
                rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT).unwrap_or((0, 0));
            let header = usize::from(buffer[0] & 15) * 4;
            if len < header || header < 20 {
                continue;
            }
            let ip = |at: usize| Ipv4Addr::new(buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]);
            let packet =
                Packet { source: ip(12), destination: ip(16), payload: buffer[header..len].to_vec() };
            if wanted(&packet) {
                return Some(packet);
            }
        }
    }
}

pub const SYN: u8 = 2;
pub const FIN: u8 = 1;
pub const ACK: u8 = 16;
pub const PSH: u8 = 8;
pub const RST: u8 = 4;

/// A TCP segment with those flags.
pub fn tcp_segment(
    from: SocketAddrV4,
    to: SocketAddrV4,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = pseudo_checksum((*from.ip()).into(), (*to.ip()).into(), 6, &segment);
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// A UDP datagram of either family, with its checksum.
pub fn udp_datagram(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (from.into(), to.into());
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = pseudo_checksum(from.ip(), to.ip(), 17, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// An ICMP echo reply (`0`) or request (`8`), or any other type with an identifier and a sequence number.
pub fn icmp(kind: u8, identifier: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// Tells why a test did not run, where people and CI see it, and returns.
#[macro_export]
macro_rules! skip {
    ($test:expr, $($why:tt)*) => {{
        $crate::skipped($test, format_args!($($why)*));
        return;
    }};
}

/// Whether tests that make namespaces can run: None, or why not.
pub fn cannot() -> Option<String> {
    Netns::new().err().map(|error| format!("{error:#}"))
}
