//! What a pod meets at its very start: its first connection, the first packets to its address; and a peer that does not
//! wait for it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, Outcome, failed, say};

/// Connects at once, and says how often the kernel had to ask: a first SYN that was dropped is sent again after a second,
/// and a program would not notice. Exit code 0 for a connection at the first attempt.
pub fn first(args: &[String]) -> Outcome {
    let [host, port] = args else { return Err(Failure::Usage("an address and a port, please")) };
    let host: Ipv4Addr = host.parse().map_err(|_| Failure::Usage("the host is an IPv4 address"))?;
    let port: u16 = port.parse().map_err(|_| Failure::Usage("the port is a number"))?;
    let began = Instant::now();
    let stream = TcpStream::connect_timeout(&SocketAddrV4::new(host, port).into(), Duration::from_secs(10));
    let took = began.elapsed();
    let stream = stream.map_err(failed(format!("connect to {host}:{port}")))?;
    let again = counter("/proc/net/netstat", "TcpExt:", "TCPSynRetrans")?;
    say(&format!("connected from {} in {} us, {again} SYNs sent again", local(&stream)?, took.as_micros()))?;
    Ok(u8::from(again != 0))
}

fn local(stream: &TcpStream) -> Result<String, Failure> {
    stream.local_addr().map(|address| address.to_string()).map_err(failed("getsockname"))
}

/// A counter of this network namespace: a line of names and a line of values begin with the same word.
fn counter(path: &str, group: &str, name: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(path).map_err(failed(path))?;
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let at = names.split_whitespace().position(|word| word == name);
    at.and_then(|at| values.split_whitespace().nth(at)?.parse().ok())
        .ok_or_else(|| Failure::Failed(format!("{path} has no {name}")))
}

/// Waits, then says how many packets have come in by eth0 since it exists, from the first moment on: exit code 0 if none.
pub fn received(args: &[String]) -> Outcome {
    let [wait] = args else { return Err(Failure::Usage("milliseconds to wait, please")) };
    let wait = wait.parse().map_err(|_| Failure::Usage("a number of milliseconds"))?;
    thread::sleep(Duration::from_millis(wait));
    let text = fs::read_to_string("/proc/net/dev").map_err(failed("/proc/net/dev"))?;
    let packets: Option<u64> = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("eth0:")?.split_whitespace().nth(1)?.parse().ok());
    let packets = packets.ok_or_else(|| Failure::Failed("there is no eth0".to_owned()))?;
    say(&format!("{packets} packets received"))?;
    Ok(u8::from(packets != 0))
}

/// Sends datagrams to every address of the /24 blocks, round and round, until it is ended.
pub fn knock(args: &[String]) -> Outcome {
    let [port, blocks @ ..] = args else { return Err(Failure::Usage("a port and blocks, please")) };
    let port: u16 = port.parse().map_err(|_| Failure::Usage("the port is a number"))?;
    let mut addresses = Vec::new();
    for block in blocks {
        let block: Ipv4Addr = block.parse().map_err(|_| Failure::Usage("a block is its first address"))?;
        let [a, b, c, _] = block.octets();
        addresses.extend((1..255).map(|last| SocketAddrV4::new(Ipv4Addr::new(a, b, c, last), port)));
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed("bind"))?;
    say("knocking")?;
    loop {
        for address in &addresses {
            // Nobody there yet, or told so by an earlier one: that is what this is about.
            socket.send_to(b"knock", address).ok();
        }
        // Without a breath it would be the machine's only program.
        thread::sleep(Duration::from_millis(2));
    }
}
