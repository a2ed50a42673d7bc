//! A pod that answers, and one attempt to be answered.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use policy::network_policy::ir;
use testkit::net::{GRACE, Netns, PATIENCE};

/// A pod that answers on its ports for as long as this lives; its namespace and link go with it.
pub struct Running {
    pub uid: String,
    pub node: usize,
    /// IPv4 first.
    pub ips: Vec<IpAddr>,
    pub netns: Netns,
    pub stop: Arc<AtomicBool>,
    pub server: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.server.take().map(|thread| thread.join());
    }
}

/// Echoes on all ports, TCP and UDP, without a thread per connection.
pub fn serve(tcp: Vec<TcpListener>, udp: Vec<UdpSocket>, stop: &AtomicBool) {
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for listener in &tcp {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                streams.push(stream);
                idle = false;
            }
        }
        for socket in &udp {
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                // Its client may be gone.
                socket.send_to(&buffer[..len], from).ok();
                idle = false;
            }
        }
        streams.retain_mut(|stream| match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(len) => {
                idle = false;
                stream.write_all(&buffer[..len]).is_ok()
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        if idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One attempt from inside the client's namespace; whether it was answered. Gives up when silence is what may be.
pub fn attempt(client: &Netns, to: SocketAddr, protocol: ir::Protocol, silent: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    let wait = |answered: &mut dyn FnMut(Duration) -> bool| loop {
        if answered(GRACE) {
            return true;
        }
        if silent() || began.elapsed() > PATIENCE {
            return false;
        }
    };
    if protocol == ir::Protocol::Udp {
        let Ok(socket) = client.udp(to) else { return false };
        if socket.send(b"ask").is_err() {
            return false;
        }
        return wait(&mut |slice| {
            socket.set_read_timeout(Some(slice)).unwrap();
            socket.recv(&mut [0; 16]).is_ok()
        });
    }
    // Not blocking, so that one connection is asked about in slices: its first SYN is the one that is judged.
    let connected = client.run(|| {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        rustix::net::socket_with(
            if to.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 },
            rustix::net::SocketType::STREAM,
            flags,
            None,
        )
    });
    let Ok(socket) = connected else { return false };
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(_) => return false,
    }
    wait(&mut |slice| {
        let mut fds = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::OUT)];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: slice.as_nanos() as i64 };
        let ready = rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|n| n > 0);
        let established = ready && rustix::net::sockopt::socket_error(&socket).is_ok_and(|e| e.is_ok());
        if ready && !established {
            // Refused: nothing more comes of it.
            std::thread::sleep(slice);
        }
        established && rustix::net::getpeername(&socket).is_ok()
    })
}
