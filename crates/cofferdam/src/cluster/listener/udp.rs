//! Datagrams: each client has a flow of its own, a socket towards one node, as long as it is in use. So the node's
//! connection tracking sees one client port per client, and answers find their way back.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, oneshot},
    task::AbortHandle,
    time::Instant,
};

use super::{Backends, Places};

/// As long as the kernel keeps a UDP conversation that nobody continues.
const IDLE: Duration = Duration::from_secs(120);
/// Flows of one port at a time; one more ends the one that was idle for longest.
const MOST_FLOWS: usize = 512;
const LARGEST: usize = 65_536;

struct Flow {
    node: IpAddr,
    upstream: Arc<UdpSocket>,
    used: Arc<Mutex<Instant>>,
    answers: AbortHandle,
    /// Given back at its end.
    _place: OwnedSemaphorePermit,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

fn used(at: &Mutex<Instant>) -> std::sync::MutexGuard<'_, Instant> {
    at.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Serves one port until it is not declared any more.
pub async fn carry(
    socket: std::net::UdpSocket,
    port: u16,
    backends: Backends,
    places: Places,
    mut until: oneshot::Receiver<()>,
) -> Result<()> {
    socket.set_nonblocking(true).context("set non-blocking")?;
    let socket = Arc::new(UdpSocket::from_std(socket).context("listen")?);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            _ = &mut until => return Ok(()),
        };
        // The last answer found nobody: no matter of the next datagram.
        let Ok((len, client)) = received else { continue };
        flows.retain(|_, flow| !flow.answers.is_finished());
        if flows.get(&client).is_some_and(|flow| !backends.have(flow.node)) {
            flows.remove(&client);
        }
        if !flows.contains_key(&client) {
            let Some(node) = backends.next() else { continue };
            let mut place = places.try_take();
            if (place.is_none() || flows.len() >= MOST_FLOWS)
                && let Some(idlest) = flows.iter().min_by_key(|(_, flow)| *used(&flow.used)).map(|(c, _)| *c)
            {
                flows.remove(&idlest);
                place = place.or_else(|| places.try_take());
            }
            // No place, or the kernel has no socket now: the datagram is lost, as datagrams are, and the port goes on.
            let Some(place) = place else { continue };
            let Ok(flow) = begin(socket.clone(), client, node, port, place).await else { continue };
            flows.insert(client, flow);
        }
        if let Some(flow) = flows.get(&client) {
            *used(&flow.used) = Instant::now();
            // Refused, by an earlier datagram's answer: the flow ends, and the client's next datagram begins another.
            if flow.upstream.send(&buffer[..len]).await.is_err() {
                flows.remove(&client);
            }
        }
    }
}

async fn begin(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    node: IpAddr,
    port: u16,
    place: OwnedSemaphorePermit,
) -> std::io::Result<Flow> {
    let any: IpAddr =
        if node.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let upstream = UdpSocket::bind((any, 0)).await?;
    upstream.connect((node, port)).await?;
    let upstream = Arc::new(upstream);
    let since = Arc::new(Mutex::new(Instant::now()));
    let (from, last) = (upstream.clone(), since.clone());
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; LARGEST];
        loop {
            let until = *used(&last) + IDLE;
            match tokio::time::timeout_at(until, from.recv(&mut buffer)).await {
                Ok(Ok(len)) => {
                    *used(&last) = Instant::now();
                    if socket.send_to(&buffer[..len], client).await.is_err() {
                        return;
                    }
                }
                Ok(Err(_)) => return,
                Err(_) if *used(&last) + IDLE <= Instant::now() => return,
                // The client has sent in the meantime.
                Err(_) => {}
            }
        }
    });
    Ok(Flow { node, upstream, used: since, answers: answers.abort_handle(), _place: place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_client_has_a_flow_and_gets_its_own_answers() {
        // A node that answers who asked, on an address of its own.
        let node = Ipv4Addr::new(127, 0, 0, 2);
        let server = UdpSocket::bind((node, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((len, from)) = server.recv_from(&mut buffer).await {
                let answer = format!("{} {}", from.port(), String::from_utf8_lossy(&buffer[..len]));
                server.send_to(answer.as_bytes(), from).await.unwrap();
            }
        });
        let listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let front = listener.local_addr().unwrap();
        let backends = Backends::default();
        backends.set(vec![node.into()]);
        let (keep, until) = oneshot::channel();
        let carried = tokio::spawn(carry(listener, port, backends.clone(), Places::of(8), until));
        let ask = async |client: &UdpSocket, word: &str| {
            client.send_to(word.as_bytes(), front).await.unwrap();
            let mut buffer = [0; 64];
            let (len, _) = client.recv_from(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let (port, word) = text.split_once(' ').unwrap();
            (port.to_string(), word.to_string())
        };
        let (a, b) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (first, second) = (ask(&a, "one").await, ask(&b, "two").await);
        assert_eq!((first.1.as_str(), second.1.as_str()), ("one", "two"));
        assert_ne!(first.0, second.0, "a socket per client");
        assert_eq!(ask(&a, "three").await.0, first.0, "and the same one while it is in use");
        // The node answers no more: the next datagram begins another flow when one does.
        backends.set(Vec::new());
        a.send_to(b"lost", front).await.unwrap();
        backends.set(vec![node.into()]);
        ask(&b, "four").await;
        ask(&a, "five").await;
        drop(keep);
        carried.await.unwrap().unwrap();
    }
}
