//! Host names without the C library's resolver, which a static program cannot use (it loads code at run time):
//! addresses, /etc/hosts, then the name servers and search domains of /etc/resolv.conf over UDP.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// The addresses of `host`, at least one.
pub fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let known: Vec<IpAddr> = hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word == host).then_some(address)
        })
        .collect();
    if !known.is_empty() {
        return Ok(known);
    }
    let config = fs::read_to_string("/etc/resolv.conf")?;
    let mut servers: Vec<IpAddr> = Vec::new();
    let mut search: Vec<&str> = Vec::new();
    let mut dots_wanted = 1;
    for line in config.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            Some("search") => search = words.collect(),
            Some("options") => {
                dots_wanted =
                    words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok()).unwrap_or(dots_wanted);
            }
            _ => {}
        }
    }
    let mut names: Vec<String> = search.iter().map(|domain| format!("{host}.{domain}")).collect();
    let absolute = host.trim_end_matches('.').to_owned();
    if host.ends_with('.') {
        names = vec![absolute];
    } else if host.matches('.').count() >= dots_wanted {
        names.insert(0, absolute);
    } else {
        names.push(absolute);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no name server knows {host}"));
    for name in &names {
        for server in &servers {
            match ask(*server, name) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => break,
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// Asks one server for the IPv4 addresses of a whole name.
fn ask(server: IpAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let socket = match server {
        IpAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect((server, 53))?;
    // The port is the kernel's random choice; the id distinguishes nothing more on a connected socket.
    let mut query = vec![0x43, 0x66, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        query.push(
            length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a label of 1 to 63 bytes"))?,
        );
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query)?;
    let mut answer = [0; 1500];
    let count = socket.recv(&mut answer)?;
    parse(&answer[..count]).ok_or_else(|| io::Error::other("a malformed answer from the name server"))
}

fn parse(answer: &[u8]) -> Option<Vec<IpAddr>> {
    let word = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let skip_name = |mut at: usize| loop {
        match *answer.get(at)? {
            0 => break Some(at + 1),
            length if length >= 0xc0 => break Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    };
    let (questions, records) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..records {
        at = skip_name(at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        if kind == 1 {
            found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(found)
}
