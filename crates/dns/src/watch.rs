//! Lists and watches of the API server, one per kind of object, over a connection each. A watch that ends goes on where it
//! stopped; a version that the server has forgotten begins anew with a list. Meanwhile the zone answers as it was.

use std::{collections::HashSet, fs, io, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Config, State,
    objects::{EndpointSlice, Meta, Namespace, Pod, Service},
    zone::{Key, Kind, Zone},
};

const PAGE: usize = 500;
/// The longest page of a list, and the longest event.
const LONGEST_BODY: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(5);
/// A page that takes longer comes from a server that hangs.
const LIST: Duration = Duration::from_secs(30);
/// The server ends a watch by itself after so many seconds; we wait a little longer for that.
const WATCH_SECONDS: u64 = 290;
/// The pause after a failure doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error("the API server's address {0:?} is none: https://HOST:PORT")]
    Address(String),
    #[error("{path}: {error}")]
    Certificate { path: PathBuf, error: String },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("the API server answers {0}")]
    Status(http::StatusCode),
    #[error("more than {LONGEST_BODY} bytes at once")]
    TooLong,
    /// The version is gone: a new list is needed.
    #[error("the version is gone")]
    Gone,
}

/// How the API server is reached.
pub struct Client {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: PathBuf,
}

/// An object that can be watched.
trait Watched: DeserializeOwned {
    const KIND: Kind;
    const PATH: &'static str;
    fn meta(&self) -> &Meta;
    fn put(&self, zone: &mut Zone);
}

macro_rules! watched {
    ($object:ty, $kind:ident, $path:literal, $put:ident) => {
        impl Watched for $object {
            const KIND: Kind = Kind::$kind;
            const PATH: &'static str = $path;
            fn meta(&self) -> &Meta {
                &self.metadata
            }
            fn put(&self, zone: &mut Zone) {
                zone.$put(self);
            }
        }
    };
}
watched!(Namespace, Namespaces, "/api/v1/namespaces", set_namespace);
watched!(Service, Services, "/api/v1/services", set_service);
watched!(EndpointSlice, Slices, "/apis/discovery.k8s.io/v1/endpointslices", set_slice);
watched!(Pod, Pods, "/api/v1/pods", set_pod);

fn key(meta: &Meta) -> Key {
    (meta.namespace.clone(), meta.name.clone())
}

impl Client {
    /// # Errors
    /// An address that is none, a certificate that cannot be read.
    pub fn new(config: &Config) -> Result<Client, SetUpError> {
        let wrong = || SetUpError::Address(config.api.clone());
        let (scheme, rest) = config.api.split_once("://").ok_or_else(wrong)?;
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let tls = match scheme {
            "http" => None,
            "https" => Some(Arc::new(tls(&config.credentials.join("ca.crt"))?)),
            _ => return Err(wrong()),
        };
        Ok(Client {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse().map_err(|_| wrong())?,
            tls,
            token: config.credentials.join("token"),
        })
    }

    /// Keeps the state's zone up to date from now on.
    pub fn start(self, state: &Rc<State>) {
        let client = Rc::new(self);
        tokio::task::spawn_local(follow::<Namespace>(client.clone(), state.clone()));
        tokio::task::spawn_local(follow::<Service>(client.clone(), state.clone()));
        tokio::task::spawn_local(follow::<EndpointSlice>(client.clone(), state.clone()));
        tokio::task::spawn_local(follow::<Pod>(client, state.clone()));
    }

    /// A GET on a connection of its own; the body of a 200.
    async fn get(&self, path: &str) -> Result<Incoming, WatchError> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        let stream =
            timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port))).await.map_err(late)??;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return self.request(stream, path).await };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let stream = timeout(CONNECT, connector.connect(name, stream)).await.map_err(late)??;
        self.request(stream, path).await
    }

    async fn request<S>(&self, stream: S, path: &str) -> Result<Incoming, WatchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its body; what goes wrong is seen there.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let mut request = Request::get(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::USER_AGENT, concat!("cofferdam-dns/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json");
        // Read each time, because it is renewed. Without one the server says who we are not.
        if let Ok(token) = fs::read_to_string(&self.token) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let response = timeout(LIST, sender.send_request(request))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match response.status() {
            http::StatusCode::OK => Ok(response.into_body()),
            http::StatusCode::GONE => Err(WatchError::Gone),
            status => Err(WatchError::Status(status)),
        }
    }

    /// Everything there is, into the zone; the version it is of.
    async fn list<T: Watched>(&self, state: &State) -> Result<String, WatchError> {
        #[derive(Deserialize)]
        struct List<'a> {
            metadata: ListMeta,
            #[serde(borrow)]
            items: Option<Vec<&'a RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMeta {
            resource_version: String,
            #[serde(default, rename = "continue")]
            rest: Option<String>,
        }
        let (mut rest, mut seen) = (String::new(), HashSet::new());
        loop {
            let more = if rest.is_empty() { String::new() } else { format!("&continue={}", escaped(&rest)) };
            let body = self.get(&format!("{}?limit={PAGE}{more}", T::PATH)).await?;
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no list in time");
            let bytes = timeout(LIST, whole(body)).await.map_err(late)??;
            let page: List<'_> = serde_json::from_slice(&bytes)?;
            let mut zone = state.zone.borrow_mut();
            for object in page.items.into_iter().flatten().filter_map(read::<T>) {
                object.put(&mut zone);
                seen.insert(key(object.meta()));
            }
            rest = page.metadata.rest.unwrap_or_default();
            if rest.is_empty() {
                for gone in zone.keys(T::KIND).iter().filter(|key| !seen.contains(*key)) {
                    zone.remove(T::KIND, gone);
                }
                zone.set_synced(T::KIND);
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Changes after `version`, which moves on; returns when the watch ends.
    async fn watch<T: Watched>(&self, state: &State, version: &mut String) -> Result<(), WatchError> {
        let path = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            T::PATH,
            escaped(version)
        );
        let mut body = self.get(&path).await?;
        let mut line = BytesMut::new();
        let patience = Duration::from_secs(WATCH_SECONDS + 30);
        loop {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the watch hangs");
            let Some(frame) = timeout(patience, body.frame()).await.map_err(late)? else { return Ok(()) };
            let frame = frame?;
            let Some(mut data) = frame.data_ref().map(|data| &data[..]) else { continue };
            while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&data[..end]);
                data = &data[end + 1..];
                take::<T>(&line, state, version)?;
                line.clear();
            }
            line.extend_from_slice(data);
            if line.len() > LONGEST_BODY {
                return Err(WatchError::TooLong);
            }
        }
    }
}

/// An object; one that cannot be read costs its own name and no other.
fn read<T: Watched>(text: &RawValue) -> Option<T> {
    serde_json::from_str(text.get()).inspect_err(|error| eprintln!("an object of {}: {error}", T::PATH)).ok()
}

/// One event of a watch.
fn take<T: Watched>(line: &[u8], state: &State, version: &mut String) -> Result<(), WatchError> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let event: Event<'_> = serde_json::from_slice(line)?;
    if event.kind == "ERROR" {
        return Err(WatchError::Gone);
    }
    let Some(object) = read::<T>(event.object) else { return Ok(()) };
    let mut zone = state.zone.borrow_mut();
    match event.kind {
        "ADDED" | "MODIFIED" => object.put(&mut zone),
        "DELETED" => zone.remove(T::KIND, &key(object.meta())),
        _ => {}
    }
    version.clone_from(&object.meta().resource_version);
    Ok(())
}

async fn follow<T: Watched>(client: Rc<Client>, state: Rc<State>) {
    let (mut version, mut pause) = (None, FIRST_PAUSE);
    loop {
        let result = match &mut version {
            None => client.list::<T>(&state).await.map(|listed| version = Some(listed)),
            Some(version) => client.watch::<T>(&state, version).await,
        };
        match result {
            Ok(()) => pause = FIRST_PAUSE,
            Err(WatchError::Gone) => {
                version = None;
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            Err(error) => {
                eprintln!("{}: {error}", T::PATH);
                // Where a line could not be read, what it said is in the list.
                if matches!(error, WatchError::Json(_) | WatchError::TooLong) {
                    version = None;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, WatchError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > LONGEST_BODY {
            return Err(WatchError::TooLong);
        }
    }
    Ok(bytes)
}

/// A value of a query: tokens may hold what a URL must not.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn tls(path: &std::path::Path) -> Result<ClientConfig, SetUpError> {
    let failed = |error: String| SetUpError::Certificate { path: path.to_owned(), error };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        roots.add(certificate.map_err(|error| failed(error.to_string()))?)?;
    }
    if roots.is_empty() {
        return Err(failed("no certificate in it".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
