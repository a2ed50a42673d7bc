//! Other servers: answered, silent, failing, long, and ourselves.

use std::{
    cell::{Cell, RefCell},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{LocalSet, spawn_local},
};

use super::{name, query, zone};
use crate::{
    State,
    forward::{AskError, Forwarder},
    health::Counters,
    server,
};

/// How a server of the tests behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    Silent,
    Fails,
    /// Says over UDP that there is more.
    Long,
    /// Answers another question first.
    Forges,
}

struct Upstream {
    address: SocketAddr,
    asked: Rc<Cell<usize>>,
}

fn reply(packet: &[u8], manner: Manner, tcp: bool) -> Vec<u8> {
    let mut message = Message::from_vec(packet).expect("a query");
    assert!(message.metadata.recursion_desired && message.edns.is_some());
    message.metadata.message_type = MessageType::Response;
    match manner {
        Manner::Fails => message.metadata.response_code = ResponseCode::ServFail,
        Manner::Long if !tcp => message.metadata.truncation = true,
        _ => {
            let owner = message.queries[0].name.clone();
            message.add_answer(Record::from_rdata(owner, 300, RData::A(A::new(192, 0, 2, 1))));
        }
    }
    message.to_vec().expect("bytes")
}

async fn upstream(manner: Manner) -> Upstream {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = udp.local_addr().expect("an address");
    let tcp = TcpListener::bind(address).await.expect("the same port");
    let asked = Rc::new(Cell::new(0));
    let count = asked.clone();
    spawn_local(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            count.set(count.get() + 1);
            if manner == Manner::Forges {
                let mut other = reply(&buffer[..length], manner, false);
                other[0] ^= 1;
                udp.send_to(&other, client).await.expect("sent");
            }
            if manner != Manner::Silent {
                udp.send_to(&reply(&buffer[..length], manner, false), client).await.expect("sent");
            }
        }
    });
    spawn_local(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.expect("a length");
            let mut packet = vec![0; usize::from(length)];
            stream.read_exact(&mut packet).await.expect("a packet");
            let answer = reply(&packet, manner, true);
            stream.write_u16(answer.len() as u16).await.expect("written");
            stream.write_all(&answer).await.expect("written");
        }
    });
    Upstream { address, asked }
}

fn question(text: &str) -> Query {
    Query::query(name(text), RecordType::A)
}

#[tokio::test]
async fn servers_are_asked_in_order_until_one_answers() {
    LocalSet::new()
        .run_until(async {
            for (manners, asked, answers) in [
                (&[Manner::Answers, Manner::Answers][..], &[1, 0][..], true),
                (&[Manner::Silent, Manner::Answers], &[1, 1], true),
                (&[Manner::Fails, Manner::Answers], &[1, 1], true),
                (&[Manner::Fails], &[1], false),
                (&[Manner::Long], &[1], true),
                (&[Manner::Forges], &[1], true),
            ] {
                let mut servers = Vec::new();
                for manner in manners {
                    servers.push(upstream(*manner).await);
                }
                let addresses: Vec<SocketAddr> = servers.iter().map(|one| one.address).collect();
                let forwarder = Rc::new(Forwarder::to(&addresses));
                let said = forwarder.ask(&question("www.example.com."), false).await.expect("an answer");
                assert_eq!(said.answers.len(), usize::from(answers));
                let seen: Vec<usize> = servers.iter().map(|one| one.asked.get()).collect();
                assert_eq!(seen, asked);
                assert_eq!(forwarder.remembered(), usize::from(answers), "only answers are remembered");
                // A server that was silent is asked last: the next name comes at once.
                if manners[0] == Manner::Silent {
                    forwarder.ask(&question("other.example.com."), false).await.expect("an answer");
                    assert_eq!(servers[0].asked.get(), 1);
                }
            }
            let nobody = Rc::new(Forwarder::to(&[]));
            assert_eq!(nobody.ask(&question("x."), false).await, Err(AskError::NoServer));
            let silent = upstream(Manner::Silent).await;
            let silent = Rc::new(Forwarder::to(&[silent.address]));
            assert_eq!(silent.ask(&question("x."), false).await, Err(AskError::NoAnswer));
        })
        .await;
}

#[tokio::test]
async fn many_who_ask_the_same_are_answered_by_one_question() {
    LocalSet::new()
        .run_until(async {
            let server = upstream(Manner::Answers).await;
            let forwarder = Rc::new(Forwarder::to(&[server.address]));
            let tasks: Vec<_> = (0..50)
                .map(|number| {
                    let forwarder = forwarder.clone();
                    // Whatever the case.
                    let name = if number % 2 == 0 { "www.example.com." } else { "WWW.example.COM." };
                    spawn_local(async move { forwarder.ask(&question(name), false).await })
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await.expect("a task").expect("an answer").answers.len(), 1);
            }
            assert_eq!(server.asked.get(), 1);
            forwarder.ask(&question("www.example.com."), true).await.expect("an answer");
            assert_eq!(server.asked.get(), 2, "with signatures it is another question");
        })
        .await;
}

async fn serve(upstreams: &[SocketAddr]) -> (Rc<State>, SocketAddr) {
    let state = Rc::new(State {
        zone: RefCell::new(zone()),
        forwarder: Rc::new(Forwarder::to(upstreams)),
        counters: Counters::default(),
    });
    let sockets = loop {
        // The kernel's choice for UDP may be taken for TCP.
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = udp.local_addr().expect("an address");
        drop(udp);
        if let Ok(sockets) = server::bind(address).await {
            break sockets;
        }
    };
    let address = sockets.address().expect("an address");
    spawn_local(sockets.run(state.clone()));
    (state, address)
}

async fn by_udp(server: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    socket.connect(server).await.expect("connected");
    socket.send(packet).await.expect("sent");
    let mut buffer = [0; 4096];
    let length =
        tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await.expect("in time");
    Message::from_vec(&buffer[..length.expect("received")]).expect("a message")
}

#[tokio::test]
async fn packets_are_answered_over_udp_and_tcp() {
    LocalSet::new()
        .run_until(async {
            let server = upstream(Manner::Answers).await;
            let (state, address) = serve(&[server.address]).await;
            for (asked, answers) in [
                ("web.shop.svc.cluster.local.", 1),
                ("www.example.com.", 1),
                // The chain leads outside.
                ("out.shop.svc.cluster.local.", 2),
            ] {
                let message = by_udp(address, &query(asked, RecordType::A)).await;
                assert_eq!((message.metadata.id, message.answers.len()), (7, answers), "{asked}");
            }
            // Two questions on one connection.
            let mut stream = TcpStream::connect(address).await.expect("connected");
            for asked in ["db.shop.svc.cluster.local.", "www.example.com."] {
                let packet = query(asked, RecordType::A);
                stream.write_u16(packet.len() as u16).await.expect("written");
                stream.write_all(&packet).await.expect("written");
                let mut answer = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
                stream.read_exact(&mut answer).await.expect("an answer");
                let message = Message::from_vec(&answer).expect("a message");
                assert!(!message.answers.is_empty(), "{asked}");
            }
            assert_eq!(
                (state.counters.udp.get(), state.counters.tcp.get(), state.counters.forwarded.get()),
                (3, 2, 3)
            );
        })
        .await;
}

#[tokio::test]
async fn a_server_that_leads_back_is_found_and_not_asked() {
    LocalSet::new()
        .run_until(async {
            // Two servers, each the other's upstream, as a machine whose resolver asks the cluster's.
            let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let (state, address) = serve(&[relay.local_addr().expect("an address")]).await;
            spawn_local(async move {
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = relay.recv_from(&mut buffer).await {
                    let answer = by_udp(address, &buffer[..length]).await;
                    drop(answer);
                }
            });
            crate::forward::find_loops(state.clone()).await;
            let message = by_udp(address, &query("www.example.com.", RecordType::A)).await;
            assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
            assert_eq!(state.forwarder.ask(&question("x."), false).await, Err(AskError::NoServer));
            assert!(!state.forwarder.came_back("0000-0"), "another's question is not ours");
        })
        .await;
}
