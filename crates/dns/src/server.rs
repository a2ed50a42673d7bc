//! Packets in, packets out. What the zone knows is answered at once, in the loop that reads; what others must be asked for
//! waits in a task of its own.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hickory_proto::op::{Message, Query, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    Error, State,
    answer::{self, Decision},
    forward::AskError,
    health::count,
};

/// Most questions of pods that wait for other servers.
const MOST_WAITING: usize = 2048;
const MOST_CONNECTIONS: usize = 256;
/// A connection on which nothing comes for so long is closed (RFC 7766 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// A longer question is none.
const LONGEST_QUESTION: usize = 4096;
/// After so many packets the other tasks get their turn, however fast packets come.
const BURST: usize = 64;

pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Listen { address, error })
}

/// Takes the address for UDP and TCP; IPv4 alone where there is no IPv6.
///
/// # Errors
/// It cannot be had.
pub async fn bind(address: SocketAddr) -> Result<Sockets, Error> {
    let udp = UdpSocket::bind(address).await.map_err(|error| Error::Listen { address, error })?;
    Ok(Sockets { udp, tcp: listen(address).await? })
}

impl Sockets {
    /// Where they are, for who let the kernel choose.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Serves for ever.
    pub async fn run(self, state: Rc<State>) {
        let places = Arc::new(Semaphore::new(MOST_WAITING));
        tokio::task::spawn_local(connections(self.tcp, state.clone(), places.clone()));
        datagrams(Rc::new(self.udp), state, places).await;
    }
}

async fn datagrams(socket: Rc<UdpSocket>, state: Rc<State>, places: Arc<Semaphore>) {
    let mut buffer = vec![0; LONGEST_QUESTION];
    let (mut turn, mut burst) = (0_usize, 0);
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = buffer.get(..length).unwrap_or_default();
        count(&state.counters.udp);
        turn = turn.wrapping_add(1);
        let limit = answer::datagram_limit(packet);
        let decision = answer::decide(packet, &state.zone.borrow(), turn);
        match settle(decision, &state) {
            Settled::Now(mut response) => {
                if let Some(bytes) = answer::encode(&mut response, limit) {
                    // A client whose buffer is full asks again.
                    drop(socket.try_send_to(&bytes, client));
                }
            }
            Settled::Ask { mut response, question } => match places.clone().try_acquire_owned() {
                Err(_) => {
                    count(&state.counters.refused);
                    response.metadata.response_code = ResponseCode::ServFail;
                    if let Some(bytes) = answer::encode(&mut response, limit) {
                        drop(socket.try_send_to(&bytes, client));
                    }
                }
                Ok(place) => {
                    let (socket, state) = (socket.clone(), state.clone());
                    tokio::task::spawn_local(async move {
                        let mut response = ask(response, &question, &state).await;
                        if let Some(bytes) = answer::encode(&mut response, limit) {
                            drop(socket.send_to(&bytes, client).await);
                        }
                        drop(place);
                    });
                }
            },
            Settled::Nothing => {}
        }
        burst += 1;
        if burst == BURST {
            burst = 0;
            tokio::task::yield_now().await;
        }
    }
}

async fn connections(listener: TcpListener, state: Rc<State>, waiting: Arc<Semaphore>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others will close theirs.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // One too many is closed at once: it may come again.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (state, waiting) = (state.clone(), waiting.clone());
        tokio::task::spawn_local(async move {
            // A client that goes away in the middle concerns nobody.
            drop(connection(stream, &state, &waiting).await);
            drop(place);
        });
    }
}

async fn connection(mut stream: TcpStream, state: &Rc<State>, waiting: &Semaphore) -> std::io::Result<()> {
    let idle = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let mut turn = 0;
    loop {
        let length = usize::from(timeout(IDLE, stream.read_u16()).await.map_err(idle)??);
        if length > LONGEST_QUESTION {
            return Ok(());
        }
        let mut packet = vec![0; length];
        timeout(IDLE, stream.read_exact(&mut packet)).await.map_err(idle)??;
        count(&state.counters.tcp);
        turn += 1;
        let decision = answer::decide(&packet, &state.zone.borrow(), turn);
        let mut response = match settle(decision, state) {
            Settled::Now(response) => response,
            Settled::Ask { response, question } => {
                let Ok(_place) = waiting.acquire().await else { return Ok(()) };
                ask(response, &question, state).await
            }
            Settled::Nothing => return Ok(()),
        };
        let Some(bytes) = answer::encode(&mut response, usize::from(u16::MAX)) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await.map_err(idle)??;
    }
}

enum Settled {
    Now(Message),
    Ask { response: Message, question: Query },
    Nothing,
}

fn settle(decision: Decision, state: &State) -> Settled {
    match decision {
        Decision::Answer(response) => Settled::Now(response),
        Decision::Ask { response, question } => Settled::Ask { response, question },
        Decision::Loop { response, label } => {
            state.forwarder.came_back(&label);
            Settled::Now(response)
        }
        Decision::Ignore => Settled::Nothing,
    }
}

/// Completes a response by what others say.
async fn ask(mut response: Message, question: &Query, state: &Rc<State>) -> Message {
    count(&state.counters.forwarded);
    let dnssec = response.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    match state.forwarder.ask(question, dnssec).await {
        Ok(said) => {
            response.metadata.response_code = said.code;
            // What stands before is ours, what comes after is not.
            response.metadata.authoritative = false;
            response.metadata.authentic_data = said.authentic && response.answers.is_empty();
            response.answers.extend(said.answers.iter().cloned());
            response.authorities.extend(said.authorities.iter().cloned());
            response.additionals.extend(said.additionals.iter().cloned());
        }
        Err(error) => {
            count(if error == AskError::TooMany { &state.counters.refused } else { &state.counters.failed });
            response.metadata.response_code = ResponseCode::ServFail;
        }
    }
    response
}
