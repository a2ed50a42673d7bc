//! Probes against servers on loopback, and what their results come to.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use keeper::protocol::ContainerId;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Kind, Target, Thresholds, hook, once::Outcome, once::once, told};

type Body = BoxBody<Bytes, std::convert::Infallible>;

fn target(ports: Value) -> Target {
    let container: Container =
        serde_json::from_value(json!({"name": "c", "ports": ports, "env": [{"name": "A", "value": "x"}]}))
            .expect("a container");
    let id = ContainerId { name: "c".into(), attempt: 0 };
    Target::new(&id, &container, Ipv4Addr::LOCALHOST.into(), None)
}

fn probe(value: Value) -> Probe {
    serde_json::from_value(value).expect("a probe")
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

async fn http_server() -> u16 {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request| Ok::<_, std::convert::Infallible>(answer(&request)));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

fn full(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into()).boxed()).expect("a response")
}

/// What the tests' HTTP server answers.
fn answer(request: &Request<hyper::body::Incoming>) -> Response<Body> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map_or("none".to_owned(), |value| value.to_str().expect("text").to_owned())
    };
    let asked = request.uri().path_and_query().expect("a path").as_str();
    match request.uri().path() {
        "/ok" => full(200, &[], ""),
        "/399" => full(399, &[], "three"),
        "/400" | "/500" => full(request.uri().path()[1..].parse().expect("a code"), &[], ""),
        "/here" => full(302, &[("location", "/ok?from=here")], ""),
        "/away" => full(307, &[("location", "http://192.0.2.1/ok")], "elsewhere"),
        "/nowhere" => full(301, &[], "x".repeat(20_000)),
        "/round" => full(302, &[("location", "/round")], ""),
        "/agent" if header("user-agent").starts_with("kube-probe/1.") && header("accept") == "*/*" => {
            full(200, &[], "")
        }
        "/own-agent" if header("user-agent") == "mine" && header("accept") == "none" => full(200, &[], ""),
        "/host" if header("host") == "shop.example" && header("x-a") == "b" => full(200, &[], ""),
        "/hook" if header("user-agent").starts_with("kube-lifecycle/1.") => full(500, &[], ""),
        "/a%20b" if asked == "/a%20b?q=1%202" => full(200, &[], ""),
        _ => full(404, &[], ""),
    }
}

#[tokio::test]
async fn http_probes_judge_by_status_and_follow_to_the_same_host() {
    let port = http_server().await;
    let target = target(json!([{"name": "web", "containerPort": port}]));
    let failed = |code: u16| Outcome::Failure(format!("HTTP probe failed with statuscode: {code}"));
    let warned = |body: &str| Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"));
    let headers = |list: Value| json!({"httpHeaders": list});
    for (path, more, expected) in [
        ("/ok", json!({}), Outcome::Success),
        ("/ok", json!({"port": "web"}), Outcome::Success),
        ("/ok", json!({"host": "localhost"}), Outcome::Success),
        ("/399", json!({}), warned("three")),
        ("/400", json!({}), failed(400)),
        ("/500", json!({}), failed(500)),
        ("/here", json!({}), Outcome::Success),
        ("/away", json!({}), warned("elsewhere")),
        ("/nowhere", json!({}), warned(&"x".repeat(10 << 10))),
        (
            "/round",
            json!({}),
            Outcome::Failure(format!("Get \"http://127.0.0.1:{port}/round\": stopped after 10 redirects")),
        ),
        ("/agent", json!({}), Outcome::Success),
        (
            "/own-agent",
            headers(json!([{"name": "User-Agent", "value": "mine"}, {"name": "Accept", "value": ""}])),
            Outcome::Success,
        ),
        (
            "/host",
            headers(json!([{"name": "Host", "value": "shop.example"}, {"name": "X-A", "value": "b"}])),
            Outcome::Success,
        ),
        ("/a b?q=1 2#part", json!({}), Outcome::Success),
        ("/ok", json!({"port": "other"}), Outcome::Errored("couldn't find port: other".into())),
    ] {
        let mut get = json!({"path": path, "port": port});
        get.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let seen = once(&probe(json!({"httpGet": get})), &target, Duration::from_secs(20)).await;
        assert_eq!(seen, expected, "{get}");
    }
}

/// A server that speaks TLS with a certificate that nobody signed.
async fn https_server() -> u16 {
    let signed = rcgen::generate_simple_self_signed(vec!["wrong.example".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(async |request| Ok::<_, std::convert::Infallible>(answer(&request)));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

#[tokio::test]
async fn https_probes_take_any_certificate() {
    let (port, plain) = (https_server().await, http_server().await);
    let target = target(json!([]));
    let ask = async |port: u16, path: &str| {
        let get = json!({"path": path, "port": port, "scheme": "HTTPS"});
        once(&probe(json!({"httpGet": get})), &target, Duration::from_secs(20)).await
    };
    assert_eq!(ask(port, "/ok").await, Outcome::Success);
    assert_eq!(ask(port, "/500").await, Outcome::Failure("HTTP probe failed with statuscode: 500".into()));
    let Outcome::Failure(error) = ask(plain, "/ok").await else { panic!("a server without TLS passes") };
    assert!(error.starts_with(&format!("Get \"https://127.0.0.1:{plain}/ok\": tls: ")), "{error}");
}

#[tokio::test]
async fn what_does_not_listen_or_answer_fails_with_kubelets_words() {
    // Listens, and never answers.
    let (_silent, silent) = listener().await;
    let (free, closed) = listener().await;
    drop(free);
    let target = target(json!([]));
    let short = Duration::from_millis(200);
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    for (asked, expected) in [
        (json!({"tcpSocket": {"port": silent}}), Outcome::Success),
        (
            json!({"tcpSocket": {"port": closed}}),
            Outcome::Failure(format!("dial tcp 127.0.0.1:{closed}: connect: connection refused")),
        ),
        (
            json!({"httpGet": {"path": "/x", "port": closed}}),
            Outcome::Failure(format!(
                "Get \"http://127.0.0.1:{closed}/x\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
            )),
        ),
        (
            json!({"httpGet": {"path": "/x", "port": silent}}),
            Outcome::Failure(format!("Get \"http://127.0.0.1:{silent}/x\": {late}")),
        ),
        (
            json!({"grpc": {"port": closed}}),
            Outcome::Failure(format!(
                "error: failed to connect service at \"127.0.0.1:{closed}\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
            )),
        ),
        (
            json!({"grpc": {"port": silent}}),
            Outcome::Failure("timeout: health rpc did not complete within 200ms".into()),
        ),
        (json!({"exec": {"command": ["x"]}}), Outcome::Errored("the pod's keeper is gone".into())),
    ] {
        assert_eq!(once(&probe(asked.clone()), &target, short).await, expected, "{asked}");
    }
}

/// A gRPC server whose health depends on the service it is asked for.
fn health(request: &Request<hyper::body::Incoming>, message: &[u8]) -> Response<Body> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert!(request.headers()["user-agent"].to_str().expect("text").starts_with("kube-probe/1."));
    let service = message.get(7..).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    let only_headers = |code: &str, message: &str| {
        Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", code)
            .header("grpc-message", message)
            .body(Empty::new().boxed())
            .expect("a response")
    };
    let status = match service.as_str() {
        "" | "good" => 1,
        "bad" => 2,
        "none" => return only_headers("12", "unknown service"),
        "lost" => return only_headers("5", "no%20such"),
        _ => 3,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let frames =
        [Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures::stream::iter(frames));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed(body))
        .expect("a response")
}

#[tokio::test]
async fn grpc_probes_ask_the_health_service() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |mut request: Request<hyper::body::Incoming>| {
                let message = request.body_mut().collect().await.expect("a message").to_bytes();
                Ok::<_, std::convert::Infallible>(health(&request, &message))
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let plain = http_server().await;
    let target = target(json!([]));
    let ask = async |port: u16, service: &str| {
        once(&probe(json!({"grpc": {"port": port, "service": service}})), &target, Duration::from_secs(20))
            .await
    };
    let failed = |text: &str| Outcome::Failure(text.to_owned());
    for (service, expected) in [
        ("", Outcome::Success),
        ("good", Outcome::Success),
        ("bad", failed("service unhealthy (responded with \"NOT_SERVING\")")),
        ("other", failed("service unhealthy (responded with \"SERVICE_UNKNOWN\")")),
        (
            "none",
            failed(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
            ),
        ),
        ("lost", failed("error: health rpc probe failed: rpc error: code = NotFound desc = no such")),
    ] {
        assert_eq!(ask(port, service).await, expected, "{service}");
    }
    let Outcome::Failure(error) = ask(plain, "").await else { panic!("a server without HTTP/2 passes") };
    assert!(error.starts_with("error: health rpc probe failed: "), "{error}");
}

#[tokio::test]
async fn http_hooks_take_any_answer_and_fall_back_from_https() {
    let port = http_server().await;
    let (free, closed) = listener().await;
    drop(free);
    let target = target(json!([]));
    let run = async |handler: Value| {
        let handler: LifecycleHandler = serde_json::from_value(handler).expect("a handler");
        hook(&handler, &target).await
    };
    assert_eq!(run(json!({"httpGet": {"path": "/hook", "port": port}})).await, Ok(()));
    assert_eq!(run(json!({"httpGet": {"path": "/hook", "port": port, "scheme": "HTTPS"}})).await, Ok(()));
    assert_eq!(run(json!({"sleep": {"seconds": 0}})).await, Ok(()));
    assert!(run(json!({"httpGet": {"path": "/hook", "port": closed}})).await.is_err());
    assert!(run(json!({"tcpSocket": {"port": port}})).await.is_err());
}

#[test]
fn thresholds_decide_and_tell_only_what_changes() {
    let results = |text: &str, success: i32, failure: i32| -> String {
        let mut thresholds =
            Thresholds::of(&probe(json!({"successThreshold": success, "failureThreshold": failure})));
        text.chars()
            .map(|one| match thresholds.count(one == '+') {
                None => '.',
                Some(true) => '+',
                Some(false) => '-',
            })
            .collect()
    };
    for (seen, success, failure, told) in [
        ("+++", 1, 3, "+.."),
        ("---+", 1, 3, "..-+"),
        ("--+---", 1, 3, "..+..-"),
        ("-++", 2, 1, "-.+"),
        ("+-+-", 2, 2, "...."),
    ] {
        assert_eq!(results(seen, success, failure), told, "{seen} with {success} and {failure}");
    }
}

#[test]
fn results_are_told_in_kubelets_words() {
    for (outcome, expected) in [
        (Outcome::Success, (Some(true), None)),
        (
            Outcome::Failure("HTTP probe failed with statuscode: 500".into()),
            (
                Some(false),
                Some(("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500".into())),
            ),
        ),
        (
            Outcome::Warning("Probe terminated redirects, Response body: ".into()),
            (
                Some(true),
                Some((
                    "ProbeWarning",
                    "Readiness probe warning: Probe terminated redirects, Response body: ".into(),
                )),
            ),
        ),
        (
            Outcome::Errored("x".into()),
            (None, Some(("Unhealthy", "Readiness probe errored and resulted in unknown state: x".into()))),
        ),
    ] {
        assert_eq!(told(Kind::Readiness, outcome), expected);
    }
}
