//! Asks other servers: the machine's, in their order, over UDP and where the answer is longer over TCP. Who asks the same
//! at the same time is answered by one question; what was said is remembered for a while.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::oneshot,
    time::timeout,
};

use crate::{
    State,
    answer::{LONGEST_DATAGRAM, LOOP_DOMAIN},
    cache::{Cache, Question, Said},
};

/// How long one server has for its answer; resolvers in pods wait five seconds for all.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// A server that did not answer is asked last for so long.
const REST: Duration = Duration::from_secs(10);
/// Most different questions under way.
const MOST_UNDER_WAY: usize = 512;
/// Most who wait for the same one.
const MOST_WAITING: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("there is no server to ask")]
    NoServer,
    #[error("too many questions are under way")]
    TooMany,
    #[error("no server answered")]
    NoAnswer,
}

struct Upstream {
    address: SocketAddr,
    /// It failed to answer: asked last until then.
    resting: Cell<Option<Instant>>,
    /// It asks us in turn: never asked again.
    loops: Cell<bool>,
}

type Answer = Result<Rc<Said>, AskError>;

pub struct Forwarder {
    upstreams: Vec<Upstream>,
    cache: RefCell<Cache>,
    waiting: RefCell<HashMap<Question, Vec<oneshot::Sender<Answer>>>>,
    /// By which we know our own questions if they come back.
    own: String,
}

impl Forwarder {
    /// Servers on loopback are this very pod: they are left out, and so is who stands for everybody.
    pub fn new(upstreams: &[SocketAddr]) -> Forwarder {
        let mut kept: Vec<Upstream> = Vec::new();
        for address in upstreams {
            let ip = address.ip().to_canonical();
            if ip.is_loopback() || ip.is_unspecified() {
                eprintln!("{address} is this pod's own loopback: it is not asked");
            } else if kept.iter().all(|known| known.address != *address) {
                kept.push(Upstream { address: *address, resting: Cell::new(None), loops: Cell::new(false) });
            }
        }
        let own = (0..2).map(|_| format!("{:04x}", random())).collect();
        Forwarder { upstreams: kept, cache: RefCell::default(), waiting: RefCell::default(), own }
    }

    /// For tests, whose servers are on loopback.
    #[cfg(test)]
    pub fn to(upstreams: &[SocketAddr]) -> Forwarder {
        let mut forwarder = Forwarder::new(&[]);
        forwarder.upstreams = upstreams
            .iter()
            .map(|address| Upstream { address: *address, resting: Cell::new(None), loops: Cell::new(false) })
            .collect();
        forwarder
    }

    pub fn remembered(&self) -> usize {
        self.cache.borrow().len()
    }

    /// What others say to this question.
    ///
    /// # Errors
    /// Nobody could be asked, or nobody answered.
    pub async fn ask(self: &Rc<Self>, query: &Query, dnssec: bool) -> Answer {
        let name = query.name.to_lowercase().to_ascii();
        let question = Question { name, kind: query.query_type, dnssec };
        if let Some(said) = self.cache.borrow().get(&question, Instant::now()) {
            return Ok(Rc::new(said));
        }
        if self.upstreams.iter().all(|one| one.loops.get()) {
            return Err(AskError::NoServer);
        }
        let answered = {
            let mut waiting = self.waiting.borrow_mut();
            let (sender, receiver) = oneshot::channel();
            let under_way = waiting.len();
            match waiting.get_mut(&question) {
                Some(others) if others.len() >= MOST_WAITING => return Err(AskError::TooMany),
                Some(others) => others.push(sender),
                None if under_way >= MOST_UNDER_WAY => return Err(AskError::TooMany),
                None => {
                    waiting.insert(question.clone(), vec![sender]);
                    // On its own, so that it ends even if the first who asked goes away.
                    tokio::task::spawn_local(self.clone().ask_all(question, query.clone()));
                }
            }
            receiver
        };
        answered.await.unwrap_or(Err(AskError::NoAnswer))
    }

    async fn ask_all(self: Rc<Self>, question: Question, query: Query) {
        let answer = self.in_order(&query, question.dnssec).await;
        if let Ok(said) = &answer {
            self.cache.borrow_mut().put(question.clone(), said.clone(), Instant::now());
        }
        let waiting = self.waiting.borrow_mut().remove(&question);
        for one in waiting.into_iter().flatten() {
            // Who went away does not care.
            drop(one.send(answer.clone()));
        }
    }

    /// The first answer: of those that are well, then of those that rest.
    async fn in_order(&self, query: &Query, dnssec: bool) -> Answer {
        let now = Instant::now();
        let rests = |one: &Upstream| one.resting.get().is_some_and(|until| now < until);
        let asked = self.upstreams.iter().filter(|one| !one.loops.get());
        let mut order: Vec<&Upstream> = asked.collect();
        order.sort_by_key(|one| rests(one));
        let mut failure = None;
        for upstream in order {
            match exchange(upstream.address, query, dnssec).await {
                // It is there, and cannot say: another may.
                Ok(said) if matches!(said.code, ResponseCode::ServFail | ResponseCode::Refused) => {
                    failure.get_or_insert(Rc::new(said));
                }
                Ok(said) => {
                    upstream.resting.set(None);
                    return Ok(Rc::new(said));
                }
                Err(_) => upstream.resting.set(Some(Instant::now() + REST)),
            }
        }
        failure.ok_or(AskError::NoAnswer)
    }

    /// One of our questions for [`find_loops`] has come to us: its server is not asked again. Whether it was one.
    pub fn came_back(&self, label: &str) -> bool {
        let number =
            label.strip_prefix(&self.own).and_then(|rest| rest.strip_prefix('-')?.parse::<usize>().ok());
        let Some(upstream) = number.and_then(|number| self.upstreams.get(number)) else { return false };
        if !upstream.loops.replace(true) {
            eprintln!("{} asks this server in turn: it is not asked any more", upstream.address);
        }
        true
    }
}

/// Asks each server once for a name that only we would know again: a server that leads back to us is found before it
/// turns one question into thousands.
pub async fn find_loops(state: Rc<State>) {
    for (number, upstream) in state.forwarder.upstreams.iter().enumerate() {
        let name = format!("{}-{number}.{LOOP_DOMAIN}", state.forwarder.own);
        let Ok(name) = Name::from_ascii(&name) else { continue };
        // The answer does not matter; the question may come back.
        drop(exchange(upstream.address, &Query::query(name, RecordType::HINFO), false).await);
    }
}

/// A random id; on top of the random port that the kernel gives each socket.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without it the port alone protects: an id that can be guessed is no reason not to answer.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        eprintln!("getrandom fails: ids of questions can be guessed");
    }
    u16::from_be_bytes(bytes)
}

async fn exchange(server: SocketAddr, query: &Query, dnssec: bool) -> io::Result<Said> {
    let mut message = Message::query();
    message.metadata.id = random();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(LONGEST_DATAGRAM).set_dnssec_ok(dnssec);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = timeout(TIMEOUT, by_udp(server, &bytes, &message)).await.map_err(late)??;
    let answer = if answer.metadata.truncation {
        timeout(TIMEOUT, by_tcp(server, &bytes, &message)).await.map_err(late)??
    } else {
        answer
    };
    Ok(Said {
        code: answer.metadata.response_code,
        answers: answer.answers,
        authorities: answer.authorities,
        additionals: answer.additionals,
        authentic: answer.metadata.authentic_data,
    })
}

/// An answer to what was asked: everything else on the socket is somebody's attempt.
fn fits(answer: &Message, asked: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == asked.metadata.id
        && answer.queries.len() == 1
        && answer.queries.iter().zip(&asked.queries).all(|(one, other)| {
            one.query_type == other.query_type
                && one.query_class == other.query_class
                && one.name == other.name
        })
}

async fn by_udp(server: SocketAddr, query: &[u8], asked: &Message) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let count = socket.recv(&mut buffer).await?;
        if let Ok(answer) = Message::from_vec(buffer.get(..count).unwrap_or_default())
            && fits(&answer, asked)
        {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8], asked: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
    if fits(&answer, asked) { Ok(answer) } else { Err(io::Error::other("an answer to another question")) }
}
