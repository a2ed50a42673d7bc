//! Host names without the C library's resolver, which a static program cannot use (it loads code at run time):
//! addresses, /etc/hosts, then the name servers and search domains of /etc/resolv.conf.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::{Failure, Outcome, failed, say};

const TIMEOUT: Duration = Duration::from_secs(2);
const PORT: u16 = 53;

/// The types of records that can be asked for.
const TYPES: &[(&str, u16)] =
    &[("A", 1), ("CNAME", 5), ("SOA", 6), ("PTR", 12), ("TXT", 16), ("AAAA", 28), ("SRV", 33)];

/// How a question went out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// 0 no error, 2 the server failed, 3 no such name.
    code: u8,
    truncated: bool,
    records: Vec<Record>,
}

#[derive(Debug, PartialEq, Eq)]
struct Record {
    name: String,
    kind: u16,
    data: Data,
}

#[derive(Debug, PartialEq, Eq)]
enum Data {
    Address(IpAddr),
    Text(String),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = TYPES.iter().find(|(_, number)| *number == self.kind).map_or("?", |(name, _)| name);
        match &self.data {
            Data::Address(address) => write!(f, "{} {kind} {address}", self.name),
            Data::Text(text) => write!(f, "{} {kind} {text}", self.name),
        }
    }
}

/// `resolve NAME [TYPE] [--tcp] [--server ADDRESS]`: the records found, a line each. Exit code 1: no such name, or no such
/// record of it; 2: no server answered; 3: a server could not say.
pub fn resolve(args: &[String]) -> Outcome {
    let (mut words, mut transport, mut server) = (Vec::new(), Transport::Udp, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--tcp" => transport = Transport::Tcp,
            "--server" => {
                let address = rest.next().and_then(|one| one.parse().ok());
                server = Some(address.ok_or(Failure::Usage("--server takes an address"))?);
            }
            word => words.push(word),
        }
    }
    let (name, kind) = match words[..] {
        [name] => (name, "A"),
        [name, kind] => (name, kind),
        _ => return Err(Failure::Usage("a name, please")),
    };
    let kind = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(kind));
    let kind = kind.ok_or(Failure::Usage("A, AAAA, CNAME, PTR, SOA, SRV or TXT"))?.1;
    let mut config = Config::read().map_err(failed("/etc/resolv.conf"))?;
    if let Some(server) = server {
        config.servers = vec![server];
    }
    match config.search(name, kind, transport) {
        Ok(answer) if !answer.records.is_empty() => {
            answer.records.iter().try_for_each(|record| say(&record.to_string())).map(|()| 0)
        }
        Ok(Answer { code: 0, .. }) => say("no such record").map(|()| 1),
        Ok(Answer { code: 3, .. }) => say("NXDOMAIN").map(|()| 1),
        Ok(Answer { code, .. }) => say(&format!("the server answered with code {code}")).map(|()| 3),
        Err(error) => say(&format!("no answer: {error}")).map(|()| 2),
    }
}

/// The addresses of `host`, at least one; IPv4 first.
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
    let config = Config::read()?;
    for kind in [1, 28] {
        let answer = config.search(host, kind, Transport::Udp)?;
        let found: Vec<IpAddr> = answer
            .records
            .iter()
            .filter_map(|record| match record.data {
                Data::Address(address) => Some(address),
                Data::Text(_) => None,
            })
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no name server knows {host}")))
}

/// What /etc/resolv.conf says.
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    /// A name with as many dots is asked for as it is first.
    dots: usize,
}

impl Config {
    fn read() -> io::Result<Config> {
        Ok(Config::parse(&fs::read_to_string("/etc/resolv.conf")?))
    }

    fn parse(text: &str) -> Config {
        let mut config = Config { servers: Vec::new(), search: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    config.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    config.dots = dots.unwrap_or(config.dots);
                }
                _ => {}
            }
        }
        config
    }

    /// The names to ask for, in order.
    fn names(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{}", domain.trim_end_matches('.'))).collect();
        let first = name.matches('.').count() >= self.dots;
        names.insert(if first { 0 } else { names.len() }, name.to_owned());
        names
    }

    /// The first answer with records; else the last one, or why there is none.
    fn search(&self, name: &str, kind: u16, transport: Transport) -> io::Result<Answer> {
        let mut last = Err(io::Error::new(io::ErrorKind::NotFound, "no name server"));
        for name in self.names(name) {
            for server in &self.servers {
                let answer = ask(*server, &name, kind, transport);
                let decided = matches!(answer, Ok(Answer { code: 0 | 3, .. }));
                let found = matches!(&answer, Ok(answer) if !answer.records.is_empty());
                // A name that exists without such a record weighs more than one that does not exist.
                if found || !matches!((&last, &answer), (Ok(Answer { code: 0, .. }), Ok(_) | Err(_))) {
                    last = answer;
                }
                if found {
                    return last;
                }
                if decided {
                    break;
                }
            }
        }
        last
    }
}

/// Asks one server; over TCP if it says that the answer is longer than a datagram.
fn ask(server: IpAddr, name: &str, kind: u16, transport: Transport) -> io::Result<Answer> {
    let query = query(name, kind)?;
    let bytes = match transport {
        Transport::Udp => by_udp(server, &query)?,
        Transport::Tcp => by_tcp(server, &query)?,
    };
    let answer = parse(&bytes).ok_or_else(|| io::Error::other("a malformed answer from the name server"))?;
    if answer.truncated && transport == Transport::Udp {
        return ask(server, name, kind, Transport::Tcp);
    }
    Ok(answer)
}

fn by_udp(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = match server {
        IpAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect((server, PORT))?;
    socket.send(query)?;
    let mut answer = vec![0; 4096];
    let count = socket.recv(&mut answer)?;
    answer.truncate(count);
    Ok(answer)
}

fn by_tcp(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The port is the kernel's random choice; the id distinguishes nothing more on a connected socket.
fn query(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut query = vec![0x43, 0x66, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length));
        query.push(
            length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a label of 1 to 63 bytes"))?,
        );
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    Ok(query)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A name with its pointers followed, and where what comes after it begins.
fn name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut end, mut text) = (start, None, String::new());
    // Each pointer leads backwards, so this ends; the count makes it sure.
    for _ in 0..128 {
        match *bytes.get(at)? {
            0 => return Some((text, end.unwrap_or(at + 1))),
            high if high >= 0xc0 => {
                end = end.or(Some(at + 2));
                at = usize::from(word(bytes, at)? & 0x3fff);
            }
            length => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&String::from_utf8_lossy(label));
                at += 1 + usize::from(length);
            }
        }
    }
    None
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let (flags, questions, count) = (word(bytes, 2)?, word(bytes, 4)?, word(bytes, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name(bytes, at)?.1 + 4;
    }
    let truncated = flags & 0x0200 != 0;
    let mut answer = Answer { code: (flags & 15) as u8, truncated, records: Vec::new() };
    if truncated {
        return Some(answer);
    }
    for _ in 0..count {
        let (owner, head) = name(bytes, at)?;
        let (kind, length) = (word(bytes, head)?, usize::from(word(bytes, head + 8)?));
        let start = head + 10;
        let data = bytes.get(start..start + length)?;
        at = start + length;
        let data = match kind {
            1 => Data::Address(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            28 => Data::Address(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            5 | 6 | 12 => Data::Text(name(bytes, start)?.0),
            16 => Data::Text(String::from_utf8_lossy(data.get(1..)?).into_owned()),
            33 => Data::Text(format!(
                "{} {} {} {}",
                word(bytes, start)?,
                word(bytes, start + 2)?,
                word(bytes, start + 4)?,
                name(bytes, start + 6)?.0
            )),
            _ => continue,
        };
        answer.records.push(Record { name: owner, kind, data });
    }
    Some(answer)
}

/// `names PORT NAME=ADDRESS…`: a name server that knows these names and says of all others that they do not exist.
pub fn names(args: &[String]) -> Outcome {
    let usage = Failure::Usage("a port and NAME=ADDRESS pairs");
    let Some((port, pairs)) = args.split_first() else { return Err(usage) };
    let port: u16 = port.parse().map_err(|_| Failure::Usage("the port is a number"))?;
    let mut known = Vec::new();
    for pair in pairs {
        let (name, address) = pair.split_once('=').ok_or(Failure::Usage("NAME=ADDRESS"))?;
        known.push((name.to_lowercase(), address.parse().map_err(|_| Failure::Usage("NAME=ADDRESS"))?));
    }
    let socket =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(failed(format!("bind UDP port {port}")))?;
    say(&format!("naming {port}"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let Ok((count, client)) = socket.recv_from(&mut buffer) else { continue };
            if let Some((asked, answer)) = answer_for(buffer.get(..count).unwrap_or_default(), &known) {
                say(&format!("{client} {asked}")).ok();
                // A client that is gone asks again.
                socket.send_to(&answer, client).ok();
            }
        }
    });
    crate::process::until_terminated()?;
    Ok(0)
}

fn answer_for(query: &[u8], known: &[(String, Ipv4Addr)]) -> Option<(String, Vec<u8>)> {
    let (asked, end) = name(query, 12)?;
    let kind = word(query, end)?;
    let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(&asked));
    let address = found.map(|(_, address)| address).filter(|_| kind == 1);
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let mut answer = query.get(..2)?.to_vec();
    answer.extend_from_slice(&[0x81, code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend_from_slice(query.get(12..end + 4)?);
    if let Some(address) = address {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    Some((asked, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_as_ndots_says() {
        let config = Config::parse("search ns.svc a.\nnameserver 10.96.0.10\noptions edns0 ndots:2\n");
        assert_eq!(config.servers, [IpAddr::from([10, 96, 0, 10])]);
        for (name, expected) in [
            ("web", &["web.ns.svc", "web.a", "web"][..]),
            ("a.b.c", &["a.b.c", "a.b.c.ns.svc", "a.b.c.a"]),
            ("web.", &["web"]),
        ] {
            assert_eq!(config.names(name), expected, "{name}");
        }
    }

    #[test]
    fn questions_are_answered_and_answers_read() {
        let known = [("db.test".to_owned(), Ipv4Addr::new(192, 0, 2, 7))];
        for (asked, kind, code, records) in [("DB.test", 1, 0, 1), ("db.test", 28, 0, 0), ("x.test", 1, 3, 0)]
        {
            let query = query(asked, kind).expect("a query");
            let (name, bytes) = answer_for(&query, &known).expect("an answer");
            assert_eq!(name, asked);
            let answer = parse(&bytes).expect("a well-formed answer");
            assert_eq!((answer.code, answer.records.len()), (code, records), "{asked} {kind}");
        }
        let bytes = answer_for(&query("db.test", 1).expect("a query"), &known).expect("an answer").1;
        let lines: Vec<String> =
            parse(&bytes).expect("well-formed").records.iter().map(Record::to_string).collect();
        assert_eq!(lines, ["db.test A 192.0.2.7"]);
        // A pointer to itself.
        assert_eq!(name(&[0xc0, 0], 0), None);
    }
}
