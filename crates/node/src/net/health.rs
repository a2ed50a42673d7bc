//! Where a balancer in front of the cluster asks whether this node has endpoints of a Service: an HTTP server on the
//! `healthCheckNodePort` of each Service of type LoadBalancer under `externalTrafficPolicy: Local`, as kube-proxy has it
//! (`pkg/proxy/healthcheck/service_health.go`). It answers from what was last written into the node's table.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use policy::services::{HealthCheck, LocalEndpoints, ServiceName};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Connections of one Service's balancers at a time; more wait.
const MOST_CONNECTIONS: usize = 64;
/// A connection over which nothing is asked for this long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// After how long a port that something else has is tried again, ever longer, up to the latter.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(120);
/// For balancers that weigh nodes by their endpoints.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// A health check that cannot be answered, because something else has its port on this node say.
#[derive(Debug, thiserror::Error)]
#[error("failed to start healthcheck \"{}/{}\" on port {port}: {error}", service.0, service.1)]
pub struct HealthCheckError {
    pub service: ServiceName,
    pub port: u16,
    pub error: io::Error,
}

/// All health checks of a node; they end when this is dropped.
#[derive(Debug, Default)]
pub struct HealthChecks {
    wanted: BTreeMap<ServiceName, HealthCheck>,
    listening: BTreeMap<u16, Listening>,
    healthy: bool,
    /// Ports that something else had when they were last tried.
    refused: BTreeSet<u16>,
    /// When those are tried again, and how long that was waited for.
    retry: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Listening {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    service: ServiceName,
    local: LocalEndpoints,
    /// Whether the node's table is as the API has it.
    healthy: bool,
}

impl HealthChecks {
    /// Takes in what became of these Services' checks (None: the Service has none), and whether the table has what they are
    /// about. Says which ports could not be listened on; those are tried again with the Service's next change, and by
    /// [`HealthChecks::retry`].
    pub async fn change(
        &mut self,
        changes: impl IntoIterator<Item = (ServiceName, Option<HealthCheck>)>,
        healthy: bool,
    ) -> Vec<HealthCheckError> {
        self.healthy = healthy;
        for (service, check) in changes {
            match check {
                Some(check) => {
                    self.refused.remove(&check.port);
                    self.wanted.insert(service, check);
                }
                None => drop(self.wanted.remove(&service)),
            }
        }
        self.settle().await
    }

    /// Comes back when ports that something else had are to be tried again; never, if there are none.
    pub async fn due(&self) {
        match self.retry {
            Some((at, _)) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Tries those again, and says which still cannot be listened on.
    pub async fn retry(&mut self) -> Vec<HealthCheckError> {
        self.refused.clear();
        self.settle().await
    }

    async fn settle(&mut self) -> Vec<HealthCheckError> {
        let healthy = self.healthy;
        let states: BTreeMap<u16, State> = self
            .wanted
            .iter()
            .map(|(service, check)| {
                (check.port, State { service: service.clone(), local: check.local, healthy })
            })
            .collect();
        let over: Vec<u16> =
            self.listening.keys().filter(|port| !states.contains_key(port)).copied().collect();
        for mut listening in over.into_iter().filter_map(|port| self.listening.remove(&port)) {
            listening.task.abort();
            // The port is free only when the task is gone; it was told to go, so how it ends is no news.
            drop((&mut listening.task).await);
        }
        self.refused.retain(|port| states.contains_key(port));
        let mut failed = Vec::new();
        for (port, state) in states {
            if let Some(listening) = self.listening.get(&port) {
                *listening.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
                continue;
            }
            if self.refused.contains(&port) {
                continue;
            }
            match listen(port) {
                Ok(listener) => {
                    let state = Arc::new(Mutex::new(state));
                    let task = tokio::spawn(serve(listener, state.clone()));
                    self.listening.insert(port, Listening { state, task });
                }
                Err(error) => failed.push(HealthCheckError { service: state.service, port, error }),
            }
        }
        self.refused.extend(failed.iter().map(|failure| failure.port));
        if self.refused.is_empty() {
            self.retry = None;
        } else if !failed.is_empty() || self.retry.is_none() {
            let wait = self.retry.map_or(FIRST_RETRY, |(_, waited)| (2 * waited).min(LONGEST_RETRY));
            self.retry = Some((Instant::now() + wait, wait));
        }
        failed
    }
}

/// On every address of the node, of both families where it has both.
fn listen(port: u16) -> io::Result<TcpListener> {
    let bind = |any: IpAddr| std::net::TcpListener::bind(SocketAddr::new(any, port));
    let listener = match bind(Ipv6Addr::UNSPECIFIED.into()) {
        // A kernel, or a node, without IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(Ipv4Addr::UNSPECIFIED.into()),
        done => done,
    }?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MOST_CONNECTIONS {
            connections.join_next().await;
        }
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The client is gone already, or there are no more descriptors: others will be tried.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(here) = stream.local_addr() else { continue };
        let state = state.clone();
        connections.spawn(async move {
            let answer = service_fn(async |_| {
                let state = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok::<_, Infallible>(answer(&state, here.ip()))
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            let served = http.timer(TokioTimer::new()).header_read_timeout(IDLE);
            // A client that speaks no HTTP, or leaves, hears nothing more.
            drop(served.serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}

/// The answer to a request that came to that address of the node.
fn answer(state: &State, here: IpAddr) -> Response<Full<Bytes>> {
    let State { service: (namespace, name), local, healthy } = state;
    let count = if here.to_canonical().is_ipv4() { local.v4 } else { local.v6 };
    let body = serde_json::json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    if count == 0 || !healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    headers.insert(WEIGHT, http::HeaderValue::from(count));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn check(port: u16, v4: usize) -> Option<HealthCheck> {
        Some(HealthCheck { port, local: LocalEndpoints { v4, v6: 0 } })
    }

    fn named(name: &str) -> ServiceName {
        ("foo".to_owned(), name.to_owned())
    }

    /// Status, weight and body; None: nobody listens.
    async fn ask(port: u16) -> Option<(u16, String, serde_json::Value)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let weight = head.lines().find_map(|line| line.strip_prefix("x-load-balancing-endpoint-weight: "))?;
        Some((status, weight.to_owned(), serde_json::from_str(body).ok()?))
    }

    #[tokio::test]
    async fn a_port_answers_for_its_service_as_long_as_it_has_one() {
        let held = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
            .or_else(|_| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .unwrap();
        let port = held.local_addr().unwrap().port();
        let mut checks = HealthChecks::default();
        let failed = checks.change([(named("a"), check(port, 2))], true).await;
        let shown = failed.first().map(ToString::to_string).unwrap_or_default();
        assert!(
            shown.starts_with(&format!("failed to start healthcheck \"foo/a\" on port {port}: ")),
            "{shown}"
        );
        drop(held);

        let told = |name: &str, count: usize, healthy: bool| {
            serde_json::json!({
                "service": {"namespace": "foo", "name": name}, "localEndpoints": count, "serviceProxyHealthy": healthy,
            })
        };
        // (what changes, whether the table is as it should be, what is told then)
        let steps = [
            (vec![(named("a"), check(port, 2))], true, Some((200, "2", told("a", 2, true)))),
            (vec![(named("a"), check(port, 0))], true, Some((503, "0", told("a", 0, true)))),
            (vec![(named("a"), check(port, 1))], false, Some((503, "1", told("a", 1, false)))),
            (vec![], true, Some((200, "1", told("a", 1, true)))),
            (
                vec![(named("a"), None), (named("b"), check(port, 3))],
                true,
                Some((200, "3", told("b", 3, true))),
            ),
            (vec![(named("b"), None)], true, None),
            (vec![(named("c"), check(port, 1))], true, Some((200, "1", told("c", 1, true)))),
        ];
        for (changes, healthy, expected) in steps {
            let what = format!("{changes:?}");
            let failed = checks.change(changes, healthy).await;
            assert!(failed.is_empty(), "{what}: {failed:?}");
            let expected = expected.map(|(status, weight, body)| (status, weight.to_owned(), body));
            assert_eq!(ask(port).await, expected, "{what}");
        }
        drop(checks);
    }

    /// However many changes of other Services come by, and with nobody's change at all.
    #[tokio::test]
    async fn a_port_that_somebody_else_has_is_taken_when_it_is_free() {
        let held = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let mut checks = HealthChecks::default();
        assert_eq!(checks.change([(named("a"), check(port, 2))], true).await.len(), 1);
        assert!(
            checks.change([(named("b"), None)], true).await.is_empty(),
            "it is not tried with each change"
        );
        checks.due().await;
        assert_eq!(checks.retry().await.len(), 1, "and told of each time that it is");
        assert_eq!(checks.retry.map(|(_, wait)| wait), Some(2 * FIRST_RETRY), "ever less often");
        drop(held);
        checks.due().await;
        assert!(checks.retry().await.is_empty());
        assert_eq!(ask(port).await.map(|(status, ..)| status), Some(200));
        assert!(checks.retry.is_none());
        // Nor is it waited for a port that nobody wants any more.
        let held = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert_eq!(checks.change([(named("c"), check(port, 1))], true).await.len(), 1);
        assert!(checks.change([(named("c"), None)], true).await.is_empty());
        assert!(checks.retry.is_none());
    }

    #[test]
    fn endpoints_are_counted_in_the_family_that_is_asked_in() {
        let state = State { service: named("a"), local: LocalEndpoints { v4: 2, v6: 0 }, healthy: true };
        for (here, expected) in [("10.88.0.2", 200), ("::ffff:10.88.0.2", 200), ("fd00:cf:88::2", 503)] {
            assert_eq!(answer(&state, here.parse().unwrap()).status().as_u16(), expected, "{here}");
        }
    }
}
