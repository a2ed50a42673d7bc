//! HTTP for those who look after the server: `/ready` (the zone is whole), `/health` (it runs), `/metrics`.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{Error, State};

const MOST_CONNECTIONS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long `/ready` waits before it says no.
const PATIENCE: Duration = Duration::from_secs(3);

/// What happened since the start.
#[derive(Default)]
pub struct Counters {
    pub udp: Cell<u64>,
    pub tcp: Cell<u64>,
    pub forwarded: Cell<u64>,
    pub failed: Cell<u64>,
    pub refused: Cell<u64>,
}

pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

pub async fn start(address: SocketAddr, state: Rc<State>) -> Result<(), Error> {
    let listener = crate::server::listen(address).await?;
    tokio::task::spawn_local(serve(listener, state));
    Ok(())
}

async fn serve(listener: TcpListener, state: Rc<State>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others will close theirs.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let state = state.clone();
        tokio::task::spawn_local(async move {
            // A client that goes away in the middle concerns nobody.
            drop(timeout(TIMEOUT, answer(stream, &state)).await);
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 || request.len() > 8192 {
            return Ok(());
        }
        request.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = std::str::from_utf8(line).ok().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    if path == "/ready" {
        // Who looks just before the first lists are whole hears of it at once, and need not come again.
        let whole = state.zone.borrow().whole();
        let told = whole.notified();
        let synced = state.zone.borrow().is_synced();
        if !synced {
            drop(timeout(PATIENCE, told).await);
        }
    }
    let ready = state.zone.borrow().is_synced();
    let (status, body) = match path {
        "/health" => ("200 OK", "OK".to_owned()),
        "/ready" if ready => ("200 OK", "OK".to_owned()),
        "/ready" => ("503 Service Unavailable", "the first lists are not whole yet".to_owned()),
        "/metrics" => ("200 OK", metrics(state)),
        _ => ("404 Not Found", "not found".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

fn metrics(state: &State) -> String {
    let counters = &state.counters;
    format!(
        "# TYPE cofferdam_dns_requests_total counter\n\
         cofferdam_dns_requests_total{{proto=\"udp\"}} {}\n\
         cofferdam_dns_requests_total{{proto=\"tcp\"}} {}\n\
         # TYPE cofferdam_dns_forwarded_total counter\n\
         cofferdam_dns_forwarded_total {}\n\
         # TYPE cofferdam_dns_forward_failed_total counter\n\
         cofferdam_dns_forward_failed_total {}\n\
         # TYPE cofferdam_dns_overload_total counter\n\
         cofferdam_dns_overload_total {}\n\
         # TYPE cofferdam_dns_cache_entries gauge\n\
         cofferdam_dns_cache_entries {}\n",
        counters.udp.get(),
        counters.tcp.get(),
        counters.forwarded.get(),
        counters.failed.get(),
        counters.refused.get(),
        state.forwarder.remembered(),
    )
}
