//! A Kubernetes client over a unix socket: how an agent, and the program as administrator, reach the API server.
//! The socket says who one is, so nothing is sent to authenticate.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Uri, header::USER_AGENT};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tower::{Service, service_fn};

/// A stream that hyper's connection pool accepts.
struct Unix(UnixStream);

impl Connection for Unix {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Unix {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unix {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<Unix>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Unix>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(Unix(UnixStream::connect(path).await?))) })
    }
}

/// How the program calls itself, and how an agent does: by upstream's name, by which people know whose the status of a pod is.
/// It is whose the fields are that a client writes.
const PROGRAM: HeaderValue = HeaderValue::from_static(concat!("cofferdam/", env!("CARGO_PKG_VERSION")));
const AGENT: HeaderValue = HeaderValue::from_static(concat!("kubelet/cofferdam-", env!("CARGO_PKG_VERSION")));

/// A client whose requests go to the API server behind the unix socket at `path`, with `default` as its namespace.
pub fn unix(path: impl Into<PathBuf>) -> kube::Client {
    client(Client::builder(TokioExecutor::new()).build(Connector(path.into())), PROGRAM)
}

/// The same for an agent.
pub fn of_agent(path: impl Into<PathBuf>) -> kube::Client {
    client(Client::builder(TokioExecutor::new()).build(Connector(path.into())), AGENT)
}

/// An agent's over one connection for all requests (HTTP/2): for many watches.
pub fn multiplexed(path: impl Into<PathBuf>) -> kube::Client {
    client(Client::builder(TokioExecutor::new()).http2_only(true).build(Connector(path.into())), AGENT)
}

fn client(pool: Client<Connector, kube::client::Body>, agent: HeaderValue) -> kube::Client {
    let service = service_fn(move |mut request: Request<kube::client::Body>| {
        let (pool, agent) = (pool.clone(), agent.clone());
        async move {
            // kube builds requests with a path alone; the pool wants a whole address to key its connections on.
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = Uri::builder()
                .scheme("http")
                .authority("cofferdam")
                .path_and_query(path)
                .build()
                .map_err(tower::BoxError::from)?;
            request.headers_mut().entry(USER_AGENT).or_insert(agent);
            pool.request(request).await.map_err(Into::<tower::BoxError>::into)
        }
    });
    kube::Client::new(service, "default")
}
