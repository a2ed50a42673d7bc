//! HTTP and HTTPS: requests as kubelet makes them (kubelet `pkg/probe/http`). Certificates are not verified: a probe asks
//! whether the pod answers, not who it is.

use std::{sync::Arc, time::Duration};

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout as within,
};
use url::Url;

use super::{
    HOOK_AGENT, LONGEST_OUTPUT, PROBE_AGENT,
    once::{Outcome, Target, at, dial},
};

/// Go's limit.
const MOST_REDIRECTS: usize = 10;

/// Where redirects are followed to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Redirects {
    /// Probes: to the same host only; another one answers for itself.
    SameHost,
    /// Hooks.
    Anywhere,
}

struct Answer {
    status: StatusCode,
    /// The beginning of it.
    body: String,
}

/// One try.
pub async fn probe(get: &HTTPGetAction, target: &Target, timeout: Duration) -> Outcome {
    let url = match url(get, target) {
        Ok(url) => url,
        Err(error) => return Outcome::Errored(error),
    };
    let headers = match headers(get, PROBE_AGENT) {
        Ok(headers) => headers,
        Err(error) => return Outcome::Errored(error),
    };
    let late = format!(
        "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        text(&url)
    );
    match within(timeout, follow(url, &headers, Redirects::SameHost)).await {
        Err(_) => Outcome::Failure(late),
        Ok(Err(error)) => Outcome::Failure(error),
        Ok(Ok(answer)) => judge(&answer),
    }
}

/// 200 to 399 pass; a redirect that was not followed passes with a warning.
fn judge(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..300 => Outcome::Success,
        300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

/// Runs a hook: any answer is one. A server that does not speak TLS is asked again without, as kubelet does.
pub async fn hook(get: &HTTPGetAction, target: &Target) -> Result<(), String> {
    let mut url = url(get, target)?;
    let headers = headers(get, HOOK_AGENT)?;
    match follow(url.clone(), &headers, Redirects::Anywhere).await {
        Ok(_) => Ok(()),
        Err(error) if url.scheme() == "https" && error.contains("InvalidContentType") => {
            // The scheme of a URL with a host can always be changed so.
            url.set_scheme("http").map_err(|()| error)?;
            follow(url, &headers, Redirects::Anywhere).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

fn url(get: &HTTPGetAction, target: &Target) -> Result<Url, String> {
    let scheme = get.scheme.as_deref().filter(|scheme| !scheme.is_empty()).unwrap_or("HTTP").to_lowercase();
    let (host, port) = (target.host(get.host.as_deref()), target.port(&get.port)?);
    let base = format!("{scheme}://{}/", at(&host, port));
    let mut url = Url::parse(&base).map_err(|error| format!("{base}: {error}"))?;
    let path = get.path.as_deref().unwrap_or("/");
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    Ok(url)
}

/// With its port, as Go prints the URL it was given.
fn text(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}://{}:{port}{}{query}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The headers that are asked for over the usual ones, which an empty value takes away (kubelet
/// `pkg/probe/http/request.go`).
fn headers(get: &HTTPGetAction, agent: &'static str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for asked in get.http_headers.iter().flatten() {
        let name = HeaderName::try_from(&asked.name).map_err(|error| format!("{}: {error}", asked.name))?;
        let value =
            HeaderValue::try_from(&asked.value).map_err(|error| format!("{}: {error}", asked.name))?;
        headers.append(name, value);
    }
    for (name, usual) in [(header::USER_AGENT, agent), (header::ACCEPT, "*/*")] {
        match headers.get(&name) {
            None => drop(headers.insert(name, HeaderValue::from_static(usual))),
            Some(value) if value.is_empty() => drop(headers.remove(name)),
            Some(_) => {}
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

async fn follow(first: Url, headers: &HeaderMap, redirects: Redirects) -> Result<Answer, String> {
    let mut url = first.clone();
    let mut followed = 0;
    loop {
        let (answer, location) = request(&url, headers).await?;
        let next = match (answer.status.as_u16(), location) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => url
                .join(&location)
                .map_err(|error| format!("Get \"{}\": Location {location:?}: {error}", text(&url)))?,
            _ => return Ok(answer),
        };
        if redirects == Redirects::SameHost && next.host_str() != first.host_str() {
            return Ok(answer);
        }
        followed += 1;
        if followed >= MOST_REDIRECTS {
            return Err(format!("Get \"{}\": stopped after {MOST_REDIRECTS} redirects", text(&next)));
        }
        if !matches!(next.scheme(), "http" | "https") {
            return Err(format!("Get \"{next}\": unsupported protocol scheme \"{}\"", next.scheme()));
        }
        url = next;
    }
}

/// One request on a connection of its own; the answer, and where it points.
async fn request(url: &Url, headers: &HeaderMap) -> Result<(Answer, Option<String>), String> {
    let failed = |error: String| format!("Get \"{}\": {error}", text(url));
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    let stream = dial(&host, port).await.map_err(failed)?;
    if url.scheme() != "https" {
        return exchange(stream, url, headers).await.map_err(failed);
    }
    let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
    let config = tls().map_err(|error| failed(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|error| failed(format!("tls: {error}")))?;
    exchange(stream, url, headers).await.map_err(failed)
}

async fn exchange<S>(stream: S, url: &Url, headers: &HeaderMap) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::get(format!("{}{query}", url.path()));
    if !headers.contains_key(header::HOST) {
        // Without the port where it is the scheme's own, as every client does.
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        request = request.header(header::HOST, format!("{}{port}", url.host_str().unwrap_or_default()));
    }
    let mut request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    request.headers_mut().extend(headers.clone());
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = beginning(response.into_body()).await.map_err(|error| error.to_string())?;
        Ok((Answer { status, body }, location))
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        ended = &mut connection => match ended {
            // All came; what is left is to be read from what was received.
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The beginning of a body; the rest is not waited for.
async fn beginning(mut body: hyper::body::Incoming) -> Result<String, hyper::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            let room = LONGEST_OUTPUT - bytes.len();
            bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            if bytes.len() == LONGEST_OUTPUT {
                break;
            }
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Takes every certificate for good.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
