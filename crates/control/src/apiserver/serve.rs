//! Listeners: TLS with client certificates, and unix sockets whose peer the kernel names. Each connection is bounded in
//! number, in the time it may take to say what it wants, and in the streams it may open.

use std::{io, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;

use super::{ApiServer, User, respond::Failure};
use crate::audit::Peer;

#[derive(Debug, thiserror::Error)]
#[error("accept on {what}: {source}")]
pub struct ServeError {
    what: String,
    source: io::Error,
}

/// Connections per listener; more wait in the kernel's backlog.
const CONNECTIONS: usize = 512;
/// A client that takes longer for its TLS handshake or its request's headers is cut off (slowloris).
const HEADERS: Duration = Duration::from_secs(30);
/// HTTP/2 connections are asked for a sign of life, as upstream does, and cut off without.
const PING: Duration = Duration::from_secs(30);
const STREAMS: u32 = 250;
/// Of our own agents, which watch each ConfigMap and Secret that their pods refer to by itself.
const AGENT_STREAMS: u32 = 16 << 10;
const BUFFER: usize = 64 << 10;

/// After a connection could not be taken for want of something: those that are there will give it back.
const SHORTAGE: Duration = Duration::from_millis(50);

/// What becomes of the listener when accept fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// One connection failed; the next is taken.
    Next,
    /// The process or the machine is out of descriptors or memory for now. Whoever opens many connections must not end the
    /// API server.
    Rest,
    End,
}

fn after(error: &io::Error) -> After {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    match (error.kind(), error.raw_os_error().map(rustix::io::Errno::from_raw_os_error)) {
        (ConnectionAborted | ConnectionReset | Interrupted, _) => After::Next,
        (_, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)) => After::Rest,
        (_, Some(rustix::io::Errno::NOBUFS | rustix::io::Errno::NOMEM)) => After::Rest,
        _ => After::End,
    }
}

/// Returns when the next connection may be taken after one that failed.
///
/// # Errors
/// The listener is of no more use.
async fn recover(error: io::Error) -> io::Result<()> {
    match after(&error) {
        After::Next => Ok(()),
        After::Rest => {
            tokio::time::sleep(SHORTAGE).await;
            Ok(())
        }
        After::End => Err(error),
    }
}

async fn permit(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match places.clone().acquire_owned().await {
        Ok(permit) => permit,
        Err(closed) => unreachable!("nobody closes it: {closed}"),
    }
}

/// Serves HTTPS. A client's user is its certificate's common name, its groups the organizations; one without is nobody.
///
/// # Errors
/// Where the listener fails.
pub async fn serve_tls(
    server: Arc<ApiServer>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = permit(&places).await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                recover(error)
                    .await
                    .map_err(|source| ServeError { what: "the TLS socket".into(), source })?;
                continue;
            }
        };
        let (server, acceptor) = (server.clone(), acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            // Answers are small and should leave at once; without the option they are only later.
            drop(stream.set_nodelay(true));
            let Ok(Ok(stream)) = tokio::time::timeout(HEADERS, acceptor.accept(stream)).await else { return };
            let (_, session) = stream.get_ref();
            let user = session
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(|certificate| User::of_certificate(certificate).map(Arc::new));
            let http2 = session.alpn_protocol() == Some(b"h2");
            connection(server, stream, user, Some(http2), Some(Peer(peer.ip()))).await;
        });
    }
}

/// Serves a unix socket: whoever connects as uid 0 is `user`, all others are cut off. The peer is who made the connection
/// (SO_PEERCRED), so a socket handed on keeps its identity.
///
/// # Errors
/// Where the listener fails.
pub async fn serve_unix(
    server: Arc<ApiServer>,
    listener: UnixListener,
    user: User,
) -> Result<(), ServeError> {
    let user = Arc::new(user);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = permit(&places).await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                let what = || format!("the socket of {}", user.name);
                recover(error).await.map_err(|source| ServeError { what: what(), source })?;
                continue;
            }
        };
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
            continue;
        }
        let (server, user) = (server.clone(), user.clone());
        tokio::spawn(async move {
            let _place = place;
            connection(server, stream, Some(user), None, None).await;
        });
    }
}

/// Serves one connection; `http2` says which protocol TLS agreed on, None (unix sockets) lets the first bytes decide.
async fn connection(
    server: Arc<ApiServer>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    user: Option<Arc<User>>,
    http2: Option<bool>,
    peer: Option<Peer>,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    // The timeout also ends connections that wait for their next request, so those of our own agents have none.
    let headers = http2.is_some().then_some(HEADERS);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(headers).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(HEADERS)
        .max_concurrent_streams(if http2.is_some() { STREAMS } else { AGENT_STREAMS });
    let builder = match http2 {
        Some(true) => builder.http2_only(),
        Some(false) => builder.http1_only(),
        None => builder,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move {
            let mut request =
                request.map(|body| body.map_err(|error| -> Failure { Box::new(error) }).boxed_unsync());
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            Ok::<_, std::convert::Infallible>(server.handle(request, user).await)
        }
    });
    // A client that goes away in the middle is no error of ours.
    drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn want_of_descriptors_ends_no_listener() {
        for (errno, becomes) in [
            (Errno::CONNABORTED, After::Next),
            (Errno::INTR, After::Next),
            (Errno::MFILE, After::Rest),
            (Errno::NFILE, After::Rest),
            (Errno::NOBUFS, After::Rest),
            (Errno::NOMEM, After::Rest),
            (Errno::BADF, After::End),
            (Errno::INVAL, After::End),
        ] {
            assert_eq!(after(&errno.into()), becomes, "{errno:?}");
        }
    }
}
