//! The watches, against an API server of a few lines: lists in pages, events, ends, and versions that are gone.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::Ipv4Addr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

use crate::{
    Config, State,
    forward::Forwarder,
    health::Counters,
    watch,
    zone::{Found, Zone},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Events = mpsc::UnboundedSender<Bytes>;

#[derive(Default)]
struct Server {
    /// Paths with their queries.
    asked: RefCell<Vec<String>>,
    /// The open watch on services.
    events: RefCell<Option<Events>>,
    /// What a list of services shows, a page each.
    services: RefCell<Vec<Value>>,
    /// A watch from the version 1 is refused.
    forgetful: Cell<bool>,
}

fn service(name: &str, address: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()},
        "spec": {"clusterIP": address}})
}

fn json_body(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

impl Server {
    fn answer(&self, request: &Request<hyper::body::Incoming>) -> Response<Body> {
        let asked = request.uri().to_string();
        assert_eq!(request.headers()["authorization"], "Bearer let-me-in");
        self.asked.borrow_mut().push(asked.clone());
        let of_services = asked.starts_with("/api/v1/services");
        if asked.contains("watch=1") {
            let (sender, receiver) = mpsc::unbounded_channel();
            if of_services && asked.contains("resourceVersion=1") && self.forgetful.get() {
                return Response::builder().status(410).body(json_body(&json!({}))).expect("a response");
            }
            if of_services {
                *self.events.borrow_mut() = Some(sender);
            } else {
                // Others stay open and say nothing.
                std::mem::forget(sender);
            }
            let frames = futures::stream::unfold(receiver, async |mut receiver| {
                let data = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(data)), receiver))
            });
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let services = self.services.borrow();
        let page = asked.split_once("continue=").map_or(0, |(_, page)| page.parse().expect("a page"));
        let (items, rest) = match of_services {
            true => (services.get(page).cloned().into_iter().collect(), page + 1 < services.len()),
            false => (Vec::new(), false),
        };
        let next = if rest { (page + 1).to_string() } else { String::new() };
        Response::new(json_body(
            &json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items}),
        ))
    }

    fn send(&self, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        // In two pieces, as a network may deliver it.
        let (head, tail) = line.split_at(line.len() / 2);
        let events = self.events.borrow();
        let events = events.as_ref().expect("a watch");
        for piece in [head, tail] {
            events.send(Bytes::from(piece.to_owned())).expect("an open watch");
        }
    }
}

/// Waits, generously, until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn the_zone_follows_lists_and_watches() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("token"), "let-me-in\n").expect("a token");
    LocalSet::new()
        .run_until(async {
            let server = Rc::new(Server::default());
            server.services.borrow_mut().extend([service("a", "10.96.0.1", 1), service("b", "10.96.0.2", 1)]);
            // Of a kind that nobody expects, and with what Go writes for what is empty.
            server.services.borrow_mut().push(json!({"metadata": {"name": 1}}));
            server.services.borrow_mut().push(json!({
                "metadata": {"name": "out", "namespace": "shop", "labels": null},
                "spec": {"type": "ExternalName", "externalName": "x.example", "clusterIPs": null, "ports": null},
            }));
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let api = format!("http://{}", listener.local_addr().expect("an address"));
            let serving = server.clone();
            spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let server = serving.clone();
                    let service = service_fn(move |request| {
                        let response = server.answer(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    spawn_local(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
            let args = [
                "--api",
                &api,
                "--credentials",
                dir.path().to_str().expect("a path"),
                "--upstream",
                "192.0.2.1",
            ];
            let config = Config::from_args(args.into_iter().map(str::to_owned)).expect("a configuration");
            let state = Rc::new(State {
                zone: RefCell::new(Zone::new("cluster.local", Vec::new())),
                forwarder: Rc::new(Forwarder::to(&[])),
                counters: Counters::default(),
            });
            let known = |name: &str| state.zone.borrow().find(&[name, "shop", "svc"]) != Found::Nothing;
            assert!(!state.zone.borrow().is_synced());
            watch::Client::new(&config).expect("a client").start(&state);
            until("synced", || state.zone.borrow().is_synced()).await;
            assert!(known("a") && known("b") && known("out"), "all pages were read");

            until("a watch on services", || server.events.borrow().is_some()).await;
            server.send("ADDED", &service("c", "10.96.0.3", 2));
            server.send("DELETED", &service("a", "10.96.0.1", 3));
            server.send("BOOKMARK", &json!({"metadata": {"resourceVersion": "9"}}));
            until("the events are taken in", || known("c") && !known("a")).await;

            // A watch that ends goes on from the last version.
            *server.events.borrow_mut() = None;
            until("the watch again", || server.events.borrow().is_some()).await;
            let goes_on = |asked: &String| {
                asked.starts_with("/api/v1/services?watch") && asked.ends_with("resourceVersion=9")
            };
            assert!(server.asked.borrow().iter().any(goes_on), "{:?}", server.asked.borrow());

            // A version that is gone: a new list says what there is, and what is not.
            *server.services.borrow_mut() = vec![service("d", "10.96.0.4", 1)];
            server.send("ERROR", &json!({"kind": "Status", "code": 410}));
            until("the new list", || known("d") && !known("b") && !known("c")).await;

            // One that is refused at once, too.
            server.forgetful.set(true);
            *server.services.borrow_mut() = vec![service("e", "10.96.0.5", 1)];
            *server.events.borrow_mut() = None;
            until("the list after that", || known("e") && !known("d")).await;
            assert!(state.zone.borrow().is_synced());
        })
        .await;
}
