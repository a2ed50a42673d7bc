//! `cofferdam why --live`: one packet for each connection that was judged. The nodes on its way watch; the source's own
//! node sends it, from the source's network; so what is seen is what the kernel does with a packet of that pod.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use futures::{AsyncBufReadExt, Stream, StreamExt, stream};
use node::net::probe::{Absorb, Asked, Held, Packet, Reserve, Seen, send};
use policy::network_policy::explain::{Answer, Connection, Party, PartyKind, shown};
use policy::network_policy::ir::Layer4;

use super::verdict::{Live, Observed, Said, Wait, not_probed};
use crate::cli::remote;
use crate::cluster::layout::Layout;
use crate::cluster::supervisor::find_fabric;

/// Above what the kernel gives to connections by itself.
const PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;
/// Ports that may be somebody's before one is not.
const TRIES: usize = 8;

/// One packet to send.
struct Question<'a> {
    port: Layer4,
    to: SocketAddr,
    /// What it may come to.
    ends: Vec<&'a Connection>,
    /// The node that translates it, if not the client's own.
    by: Option<&'a Party>,
}

fn questions(answer: &Answer) -> Vec<Question<'_>> {
    let port_of = |port: &Layer4| match port {
        Layer4::Port(_, number) => *number,
        Layer4::Other(_) => 0,
    };
    let direct =
        |connection: &Connection| SocketAddr::new(connection.server.address, port_of(&connection.port));
    let translated = answer.translations.iter().enumerate().flat_map(|(at, translation)| {
        let of_it = move |c: &&Connection| c.translation == Some(at);
        translation.targets.iter().filter_map(move |targets| {
            let ends = answer.connections.iter().filter(of_it);
            Some(Question {
                port: targets.port,
                to: SocketAddr::new(translation.address?, port_of(&targets.port)),
                ends: ends.filter(|c| targets.endpoints.contains(&direct(c))).collect(),
                by: translation.node.as_ref(),
            })
        })
    });
    // What no node translates: a packet for each.
    let as_it_is = answer.connections.iter().filter(|connection| connection.translation.is_none());
    let as_it_is =
        as_it_is.map(|one| Question { port: one.port, to: direct(one), ends: vec![one], by: None });
    translated.chain(as_it_is).collect()
}

/// Who sends it.
enum Sender<'a> {
    /// An agent, from a pod or from its own network.
    Node { node: &'a str, pod: Option<&'a str> },
    /// Nobody has the address: the packet comes as if from outside, to the node of that address where its own leads to none.
    Outside { hop: Option<IpAddr> },
}

/// Asks the kernel about everything that was answered.
///
/// # Errors
/// Where an agent cannot be asked.
pub async fn probe(layout: &Layout, answer: &Answer) -> Result<Vec<Live>> {
    let mut all = Vec::new();
    for question in questions(answer) {
        let from = answer.source.address;
        let named = format!("{} {from} → {}", name_of(&question.port), whole(question.to));
        let live = match sender(&answer.source, &question) {
            Ok(sender) => ask(layout, &answer.source, &question, &sender).await?,
            Err(why) => not_probed(named, why),
        };
        all.push(live);
    }
    Ok(all)
}

fn sender<'a>(source: &'a Party, question: &Question) -> Result<Sender<'a>, &'static str> {
    let inside = question.ends.iter().any(|end| end.server.kind != PartyKind::Outside);
    match (source.kind, source.node.as_deref()) {
        (PartyKind::Outside, _) if !inside && question.by.is_none() => Err("neither end is in the cluster"),
        (PartyKind::Outside, _) => Ok(Sender::Outside { hop: question.by.map(|node| node.address) }),
        (_, None) => Err("the source's node is not known"),
        (PartyKind::Pod, _) if question.to.ip() == source.address => {
            Err("what a pod sends to itself never leaves its own network")
        }
        (PartyKind::Pod, Some(node)) => Ok(Sender::Node { node, pod: source.name.as_deref() }),
        (PartyKind::HostNetworkPod | PartyKind::Node, Some(node)) => Ok(Sender::Node { node, pod: None }),
    }
}

async fn ask(layout: &Layout, source: &Party, question: &Question<'_>, sender: &Sender<'_>) -> Result<Live> {
    let outside =
        !question.ends.is_empty() && question.ends.iter().all(|end| end.server.kind == PartyKind::Outside);
    let absorb = match sender {
        Sender::Outside { .. } => Absorb::Answers,
        Sender::Node { .. } if outside => Absorb::Packet,
        Sender::Node { .. } => Absorb::Nothing,
    };
    let mut nodes: Vec<&str> = question.ends.iter().filter_map(|end| end.server.node.as_deref()).collect();
    nodes.extend(match sender {
        Sender::Node { node, .. } => Some(*node),
        Sender::Outside { .. } => None,
    });
    nodes.extend(question.by.and_then(|node| node.node.as_deref()));
    nodes.sort_unstable();
    nodes.dedup();
    let seen_as = question.ends.iter().find_map(|end| Some(end.seen_as.as_ref()?.address));
    for _ in 0..TRIES {
        let packet = Packet {
            protocol: protocol(&question.port, source.address),
            from: SocketAddr::new(source.address, any_port()?),
            to: question.to,
        };
        let mut watches = stream::select_all(watch(layout, &nodes, Asked { packet, absorb, seen_as }).await?);
        let Some(_held) = sent(layout, sender, packet).await? else { continue };
        let mut observed = Observed::new(packet.protocol, outside);
        while let Wait::AtMost(patience) = observed.wait() {
            match tokio::time::timeout(patience, watches.next()).await {
                Err(_) => break,
                Ok(None) => bail!("the nodes stopped to watch before anything was seen"),
                Ok(Some((node, seen))) => observed.take(&node, seen?),
            }
        }
        let said: Vec<Said> = question
            .ends
            .iter()
            .map(|end| {
                let port = match end.port {
                    Layer4::Port(_, number) => number,
                    Layer4::Other(_) => 0,
                };
                Said { to: SocketAddr::new(end.server.address, port), allowed: end.allowed }
            })
            .collect();
        let from = if packet.to.port() == 0 { packet.from.ip().to_string() } else { packet.from.to_string() };
        let named = format!("{} {from} → {}", name_of(&question.port), whole(packet.to));
        return Ok(observed.conclude(named, &said));
    }
    bail!("no free port to send from was found in {TRIES} tries")
}

/// Like `TCP`.
fn name_of(port: &Layer4) -> String {
    let shown = shown(port);
    shown.split(' ').next().unwrap_or_default().to_string()
}

fn whole(to: SocketAddr) -> String {
    if to.port() == 0 { to.ip().to_string() } else { to.to_string() }
}

fn protocol(port: &Layer4, from: IpAddr) -> u8 {
    match port {
        Layer4::Port(protocol, _) => protocol.number(),
        Layer4::Other(1 | 58) if from.is_ipv6() => node::net::probe::ICMPV6,
        Layer4::Other(number) => *number,
    }
}

fn any_port() -> Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getrandom")?;
    let many = PORTS.end() - PORTS.start() + 1;
    Ok(PORTS.start() + u16::from_ne_bytes(bytes) % many)
}

fn post(path: &str, body: &impl serde::Serialize) -> Result<http::Request<Vec<u8>>> {
    let body = serde_json::to_vec(body)?;
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    request.body(body).context("make a request")
}

type Told = (String, Result<Seen>);

/// Returns when all of them watch.
async fn watch(
    layout: &Layout,
    nodes: &[&str],
    asked: Asked,
) -> Result<Vec<impl Stream<Item = Told> + Unpin + use<>>> {
    let each = nodes.iter().map(|node| async move {
        let client = node::client::unix(layout.agent_socket(node));
        let failed = |error| anyhow!(remote::explain(error)).context(format!("ask {node} to watch"));
        let lines = client.request_stream(post("/probe/watch", &asked)?).await.map_err(failed)?;
        let node = (*node).to_string();
        let mut told = Box::pin(lines.lines().map(move |line| {
            let seen = line.context("read what a node saw").and_then(|line| Ok(serde_json::from_str(&line)?));
            // The connection is the watch: it lives as long as this.
            let _alive = &client;
            (node.clone(), seen)
        }));
        match told.next().await {
            Some((_, Ok(Seen::Watching))) => Ok(told),
            Some((node, Ok(other))) => bail!("{node} does not watch: {other:?}"),
            Some((_, Err(error))) => Err(error),
            None => bail!("a node closed the connection"),
        }
    });
    futures::future::try_join_all(each).await
}

/// What keeps the packet's port.
enum Kept {
    ByUs(#[expect(dead_code, reason = "held, not used")] Held),
    ByAgent(#[expect(dead_code, reason = "held, not used")] Box<dyn std::any::Any>),
}

/// None where the port is somebody else's.
async fn sent(layout: &Layout, sender: &Sender<'_>, packet: Packet) -> Result<Option<Kept>> {
    match sender {
        Sender::Node { node, pod } => {
            let client = node::client::unix(layout.agent_socket(node));
            let path = pod.map_or("/probe/send".to_string(), |pod| format!("/probe/send/{pod}"));
            let lines = match client.request_stream(post(&path, &packet)?).await {
                Ok(lines) => lines,
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(None),
                Err(error) => {
                    return Err(
                        anyhow!(remote::explain(error)).context(format!("ask {node} to send a packet"))
                    );
                }
            };
            let mut lines = Box::pin(lines.lines());
            lines.next().await.context("the agent closed the connection")?.context("send a packet")?;
            Ok(Some(Kept::ByAgent(Box::new((client, lines)))))
        }
        Sender::Outside { hop } => {
            let fabric = find_fabric(layout)?.context("no node of the cluster runs")?;
            let sent = kernel::route::netns::run_in(fabric.as_fd(), || send(&packet, *hop, Reserve::Nothing));
            let held = sent.context("enter the fabric")?.context("send a packet from the fabric")?;
            Ok(Some(Kept::ByUs(held)))
        }
    }
}
