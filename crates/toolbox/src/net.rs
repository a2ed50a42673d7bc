//! The two ends of a connection. The server says who it is and whom it sees; the client says how it went.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use crate::{Failure, Outcome, failed, grpc, process, resolve, say, show};

/// Serves until SIGTERM: on TCP HTTP/1.0, and an echo of lines for clients that do not speak HTTP; on UDP an answer
/// to each datagram; for gRPC its health service.
pub fn serve(args: &[String]) -> Outcome {
    let mut protocol = "TCP";
    let mut threads = Vec::new();
    for arg in args {
        if arg == "--udp" || arg == "--grpc" {
            protocol = if arg == "--udp" { "UDP" } else { "gRPC" };
            continue;
        }
        let port: u16 = arg.parse().map_err(|_| Failure::Usage("ports are numbers"))?;
        if protocol == "UDP" {
            let socket = bind_udp(port).map_err(failed(format!("bind UDP port {port}")))?;
            threads.push(thread::spawn(move || datagrams(&socket)));
        } else {
            let listener = bind_tcp(port).map_err(failed(format!("bind TCP port {port}")))?;
            let serve = if protocol == "TCP" { connections } else { grpc::connections };
            threads.push(thread::spawn(move || serve(&listener)));
        }
        say(&format!("serving {protocol} {port}"))?;
    }
    if threads.is_empty() {
        return Err(Failure::Usage("a port, please"));
    }
    process::until_terminated()?;
    Ok(0)
}

/// Both families where there is IPv6, else IPv4.
fn bind_tcp(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

fn bind_udp(port: u16) -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
}

fn connections(listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                // A client that goes away in the middle concerns nobody else.
                thread::spawn(move || answer(&stream, client).ok());
            }
            Err(error) => crate::complain(&format!("accept: {error}")),
        }
    }
}

fn answer(stream: &TcpStream, client: SocketAddr) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.by_ref().take(8192).read_line(&mut line)? > 0 {
        let mut words = line.split_whitespace();
        let (method, path, protocol) = (words.next(), words.next(), words.next());
        match (method, path, protocol) {
            (Some(method), Some(path), Some(protocol)) if protocol.starts_with("HTTP/") => {
                let (method, path) = (method.to_owned(), path.to_owned());
                let mut header = String::new();
                while reader.by_ref().take(65536).read_line(&mut header)? > 2 {
                    header.clear();
                }
                return http(stream, client, &method, &path);
            }
            _ => {
                (&*stream).write_all(line.as_bytes())?;
                line.clear();
            }
        }
    }
    Ok(())
}

/// `/status/NNN` answers with that status; every other path with who is there.
fn http(mut stream: &TcpStream, client: SocketAddr, method: &str, path: &str) -> io::Result<()> {
    let status: u16 = path.strip_prefix("/status/").and_then(|code| code.parse().ok()).unwrap_or(200);
    let body = format!(
        "hostname: {}\naddress: {}\nclient: {}\nrequest: {method} {path}\n",
        show::host(),
        plain(stream.local_addr()?),
        plain(client)
    );
    write!(
        stream,
        "HTTP/1.0 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        if status < 400 { "OK" } else { "Error" },
        body.len()
    )?;
    say(&format!("{} {method} {path} {status}", plain(client))).ok();
    stream.flush()
}

fn datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((count, client)) => {
                let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).trim().to_owned();
                let answer = format!("hostname: {}\nclient: {}\ndata: {text}\n", show::host(), plain(client));
                if let Err(error) = socket.send_to(answer.as_bytes(), client) {
                    crate::complain(&format!("send to {client}: {error}"));
                }
            }
            Err(error) => crate::complain(&format!("receive: {error}")),
        }
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Exit code 0 connected (for UDP: answered), 1 refused, 2 timed out, 3 unreachable or otherwise failed.
pub fn connect(args: &[String]) -> Outcome {
    let mut words = Vec::new();
    let (mut udp, mut timeout, mut get) = (false, Duration::from_millis(1000), None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--udp" => udp = true,
            "--timeout" => {
                let value = rest.next().and_then(|value| value.parse().ok()).filter(|value| *value > 0);
                timeout = Duration::from_millis(value.ok_or(Failure::Usage("--timeout takes milliseconds"))?);
            }
            "--get" => get = Some(rest.next().ok_or(Failure::Usage("--get takes a path"))?),
            _ => words.push(arg.as_str()),
        }
    }
    let [host, port] = words[..] else { return Err(Failure::Usage("a host and a port, please")) };
    let port: u16 = port.parse().map_err(|_| Failure::Usage("the port is a number"))?;
    let addresses = resolve::addresses(host).map_err(failed(format!("resolve {host}")))?;
    let address = SocketAddr::new(*addresses.first().ok_or(Failure::Usage("a host with an address"))?, port);
    let result =
        if udp { ask_udp(address, timeout) } else { ask_tcp(address, timeout, get.map(String::as_str)) };
    match result {
        Ok(text) => say(&text).map(|()| 0),
        Err(error) => {
            let (code, text) = match error.kind() {
                io::ErrorKind::ConnectionRefused => (1, "refused".to_owned()),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (2, "timed out".to_owned()),
                _ => (3, format!("failed: {error}")),
            };
            say(&format!("{address}: {text}")).map(|()| code)
        }
    }
}

fn ask_tcp(address: SocketAddr, timeout: Duration, get: Option<&str>) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    let Some(path) = get else {
        return Ok(format!("{address}: connected from {}", stream.local_addr()?));
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.trim_end().to_owned()))
}

fn ask_udp(address: SocketAddr, timeout: Duration) -> io::Result<String> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(address)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(b"ping\n")?;
    let mut buffer = [0; 2048];
    let count = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).trim_end().to_owned())
}
