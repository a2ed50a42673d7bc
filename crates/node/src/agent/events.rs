//! Events on pods, as kubelet words them. They are sent apart from the work they tell of, so that a pod never waits
//! for its own report. While the API server is not there they wait, in order; a bounded queue holds them, and what does
//! not fit is said in the log.

use std::time::Duration;

use k8s_openapi::{
    api::{
        core::v1::{Event, EventSource, ObjectReference, Pod},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::sync::mpsc;

/// Whether an event tells of the ordinary or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Warning,
}

/// Between attempts while the API server is not there, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Sends an event, again and again while nobody answers. What the API server refuses is said in the log.
async fn send(client: &kube::Client, event: Event) {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    let mut pause = FIRST_PAUSE;
    loop {
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => return,
            // An earlier attempt came through, but for its answer.
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                let name = event.involved_object.name.unwrap_or_default();
                eprintln!("event {} of {name}: {status}", event.reason.unwrap_or_default());
                return;
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

pub fn policy_reference(policy: &NetworkPolicy) -> ObjectReference {
    ObjectReference {
        api_version: Some("networking.k8s.io/v1".into()),
        kind: Some("NetworkPolicy".into()),
        name: policy.metadata.name.clone(),
        namespace: policy.metadata.namespace.clone(),
        uid: policy.metadata.uid.clone(),
        ..Default::default()
    }
}

/// A Service by namespace and name.
pub fn service_reference((namespace, name): &(String, String)) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        ..Default::default()
    }
}

/// Where events go; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    node: String,
    queue: mpsc::Sender<Event>,
}

impl Recorder {
    /// Starts the sender; must be called within the runtime.
    pub fn new(client: kube::Client, node: &str) -> Recorder {
        let (queue, mut events) = mpsc::channel::<Event>(1024);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                send(&client, event).await;
            }
        });
        Recorder { node: node.to_owned(), queue }
    }

    /// Records an event on this node.
    pub fn node(&self, node: &str, kind: Kind, reason: &str, message: &str) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.into()),
            uid: Some(node.into()),
            ..Default::default()
        };
        self.queue(object, kind, reason, message);
    }

    /// Records on a policy that it could not be understood.
    pub fn policy(&self, policy: &NetworkPolicy, message: &str) {
        self.queue(policy_reference(policy), Kind::Warning, "NetworkPolicyInvalid", message);
    }

    /// Records an event on a pod, or on one of its containers if `container` names it.
    pub fn pod(&self, pod: &Pod, container: Option<&str>, kind: Kind, reason: &str, message: &str) {
        let in_init = container.is_some_and(|container| {
            let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            init.into_iter().any(|candidate| candidate.name == container)
        });
        let field = if in_init { "initContainers" } else { "containers" };
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|container| format!("spec.{field}{{{container}}}")),
        };
        self.queue(object, kind, reason, message);
    }

    /// Records an event on any object.
    pub fn object(&self, object: ObjectReference, kind: Kind, reason: &str, message: &str) {
        self.queue(object, kind, reason, message);
    }

    fn queue(&self, object: ObjectReference, kind: Kind, reason: &str, message: &str) {
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}",
                    object.name.as_deref().unwrap_or_default(),
                    now.as_nanosecond()
                )),
                // Events of cluster-wide objects live in the default namespace.
                namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".into())),
                ..Default::default()
            },
            involved_object: object,
            reason: Some(reason.into()),
            message: Some(message.chars().take(1024).collect()),
            type_: Some(match kind {
                Kind::Normal => "Normal".into(),
                Kind::Warning => "Warning".into(),
            }),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.node.clone()) }),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            ..Default::default()
        };
        if let Err(error) = self.queue.try_send(event) {
            eprintln!("event {reason} ({message}) is lost: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, service::service_fn};
    use hyper_util::rt::TokioIo;
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    /// An API server that is overloaded at first, and refuses what has the reason `Bad`.
    async fn serve(listener: tokio::net::UnixListener, reasons: mpsc::Sender<String>) {
        let asked = Arc::new(AtomicU32::new(0));
        while let Ok((stream, _)) = listener.accept().await {
            let (asked, reasons) = (asked.clone(), reasons.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (asked, reasons) = (asked.clone(), reasons.clone());
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let event: Event = serde_json::from_slice(&body).unwrap();
                    let reason = event.reason.clone().unwrap_or_default();
                    let status = match (asked.fetch_add(1, Ordering::Relaxed), reason.as_str()) {
                        (0, _) => StatusCode::SERVICE_UNAVAILABLE,
                        (_, "Bad") => StatusCode::UNPROCESSABLE_ENTITY,
                        _ => StatusCode::CREATED,
                    };
                    if status == StatusCode::CREATED {
                        reasons.send(reason).await.unwrap();
                    }
                    // A refusal is no event.
                    let body = if status == StatusCode::CREATED { body } else { Bytes::new() };
                    let mut response = Response::new(Full::new(body));
                    *response.status_mut() = status;
                    Ok::<Response<Full<Bytes>>, Infallible>(response)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    }

    #[tokio::test]
    async fn events_wait_for_the_api_server_in_order_and_a_refused_one_stops_none() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let recorder = Recorder::new(crate::client::unix(&socket), "node-1");
        for reason in ["First", "Bad", "Last"] {
            recorder.node("node-1", Kind::Normal, reason, "told while nobody is there");
        }
        // Nobody is there at the first attempt.
        tokio::time::sleep(FIRST_PAUSE).await;
        let (sender, mut reasons) = mpsc::channel(8);
        tokio::spawn(serve(tokio::net::UnixListener::bind(&socket).unwrap(), sender));
        assert_eq!(reasons.recv().await.as_deref(), Some("First"));
        assert_eq!(reasons.recv().await.as_deref(), Some("Last"));
    }
}
