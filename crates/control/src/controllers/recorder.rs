//! Records events on objects, as the event recorder of client-go does: one that happens again is counted, not repeated.
//! Never in the way of the work: it has a bounded queue, and what does not fit is dropped.

use std::collections::{HashMap, VecDeque};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that wait to be written.
const QUEUED: usize = 4096;
/// Events that are remembered, to count them when they come again.
const REMEMBERED: usize = 1024;
/// Events written at a time.
const AT_ONCE: usize = 4;

#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    client: Client,
    queue: mpsc::Sender<Note>,
}

struct Note {
    component: &'static str,
    client: Client,
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    when: Timestamp,
}

/// Refers to an object of a kind known at compile time.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    /// A recorder, and the work of writing what it is given, to be run beside.
    pub fn new(client: Client, component: &'static str) -> (Recorder, impl Future<Output = ()> + Send) {
        let (queue, notes) = mpsc::channel(QUEUED);
        (Recorder { component, client, queue }, write(notes))
    }

    /// The same queue for another component, which writes as `client`.
    pub fn of(&self, component: &'static str, client: &Client) -> Recorder {
        Recorder { component, client: client.clone(), queue: self.queue.clone() }
    }

    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: String) {
        self.note(reference(about), "Normal", reason, message);
    }

    pub fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: String) {
        self.note(reference(about), "Warning", reason, message);
    }

    fn note(&self, about: ObjectReference, kind: &'static str, reason: &str, message: String) {
        let note = Note {
            component: self.component,
            client: self.client.clone(),
            about,
            kind,
            reason: reason.to_string(),
            message,
            when: Timestamp::now(),
        };
        // Full: the events of a storm are the least of its problems, and client-go drops them too.
        let _ = self.queue.try_send(note);
    }
}

type Same = (Option<String>, String, String);

async fn write(notes: mpsc::Receiver<Note>) {
    let mut known: HashMap<Same, (String, i32)> = HashMap::new();
    let mut order: VecDeque<Same> = VecDeque::new();
    let writes =
        futures::stream::unfold(notes, |mut notes| async { notes.recv().await.map(|note| (note, notes)) })
            .map(move |note| {
                let same = (note.about.uid.clone(), note.reason.clone(), note.message.clone());
                let again = known.get_mut(&same).map(|(name, count)| {
                    *count += 1;
                    (name.clone(), *count)
                });
                if again.is_none() {
                    known.insert(same.clone(), (event_name(&note), 1));
                    order.push_back(same);
                    if order.len() > REMEMBERED
                        && let Some(oldest) = order.pop_front()
                    {
                        known.remove(&oldest);
                    }
                }
                write_one(note, again)
            })
            .buffer_unordered(AT_ONCE);
    writes.for_each(|()| std::future::ready(())).await;
}

async fn write_one(note: Note, again: Option<(String, i32)>) {
    let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".to_string());
    let api: Api<Event> = Api::namespaced(note.client.clone(), &namespace);
    if let Some((name, count)) = again {
        let patch = json!({ "count": count, "lastTimestamp": Time(note.when) });
        if api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.is_ok() {
            return;
        }
        // It expired, or its first write failed: written anew below.
    }
    let event = Event {
        metadata: ObjectMeta {
            name: Some(event_name(&note)),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: note.about,
        type_: Some(note.kind.to_string()),
        reason: Some(note.reason),
        message: Some(note.message),
        source: Some(EventSource { component: Some(note.component.to_string()), host: None }),
        reporting_component: Some(note.component.to_string()),
        first_timestamp: Some(Time(note.when)),
        last_timestamp: Some(Time(note.when)),
        count: Some(1),
        ..Event::default()
    };
    // An event about an object in a namespace that goes is refused: that is as it should be, and nobody waits for it.
    let _ = api.create(&PostParams::default(), &event).await;
}

/// As client-go names them: the object's name and the time in hexadecimal.
fn event_name(note: &Note) -> String {
    format!("{}.{:x}", note.about.name.as_deref().unwrap_or_default(), note.when.as_nanosecond())
}
