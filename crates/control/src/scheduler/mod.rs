//! Binds pending pods to nodes: the shell around [`policy::scheduling`].
//!
//! One task sees every event, keeps the picture of the cluster, and decides; binding goes on beside it. A pod that is
//! decided counts on its node at once ("assumed"), so a burst is decided without waiting for any answer. A pod that
//! fits nowhere waits; whatever could let it in (a pod gone, a node or its labels or taints changed) has all that wait
//! looked at again at once.

mod state;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::controllers::recorder::Recorder;
use crate::controllers::watches::Pauses;
use state::{Decision, Queue};

/// Pods with this scheduler's name, or none, are ours.
pub const NAME: &str = "default-scheduler";

/// Bindings and conditions under way at a time.
const AT_ONCE: usize = 128;

/// What a watch brought.
enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Node(Box<watcher::Event<Node>>),
    Namespace(Box<watcher::Event<Namespace>>),
}

/// A write that came back.
struct Written {
    uid: String,
    outcome: Outcome,
}

enum Outcome {
    Bound,
    Gone,
    /// Someone else wrote at the same moment; the watch says whether it was bound by that.
    Overtaken,
    BindFailed(String),
    Noted,
    /// Its wait after a failure is over.
    Rested,
}

/// Runs until the client's server goes away.
pub async fn run(client: Client) {
    let (recorder, writing) = Recorder::new(client.clone(), NAME);
    futures::future::join(writing, schedule(client, recorder)).await;
}

async fn schedule(client: Client, recorder: Recorder) {
    let mut seen = stream::select_all([
        watch::<Pod>(&client).map(Box::new).map(Seen::Pod).boxed(),
        watch::<Node>(&client).map(Box::new).map(Seen::Node).boxed(),
        watch::<Namespace>(&client).map(Box::new).map(Seen::Namespace).boxed(),
    ]);
    let mut queue = Queue::default();
    let mut relists = Relists::default();
    let mut writes: FuturesUnordered<BoxFuture<'static, Written>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(written) = writes.next(), if !writes.is_empty() => {
                take_written(written, &mut queue, &writes, &recorder);
            }
            event = seen.next() => match event {
                Some(event) => relists.take(event, &mut queue),
                None => return,
            },
        }
        // What is there already is taken in before deciding: one decision for a burst of events.
        while let Some(Some(event)) = seen.next().now_or_never() {
            relists.take(event, &mut queue);
        }
        if !relists.are_done() {
            continue;
        }
        while writes.len() < AT_ONCE {
            match queue.decide() {
                None => break,
                Some(Decision::Bind { pod, node }) => {
                    let uid = pod.uid().unwrap_or_default();
                    let bind = bind(client.clone(), recorder.clone(), pod, node);
                    writes.push(bind.map(|outcome| Written { uid, outcome }).boxed());
                }
                Some(Decision::Wait { pod, why }) => {
                    let uid = pod.uid().unwrap_or_default();
                    recorder.warning(&*pod, "FailedScheduling", why.clone());
                    let note = note_unschedulable(client.clone(), pod, why);
                    writes.push(note.map(|()| Written { uid, outcome: Outcome::Noted }).boxed());
                }
            }
        }
    }
}

fn take_written(
    written: Written,
    queue: &mut Queue,
    writes: &FuturesUnordered<BoxFuture<'static, Written>>,
    recorder: &Recorder,
) {
    let Written { uid, outcome } = written;
    match outcome {
        Outcome::Bound => queue.bound(&uid),
        Outcome::Gone => {
            queue.unassume(&uid);
            queue.drop_pending(&uid);
        }
        Outcome::Overtaken => {
            queue.unassume(&uid);
            if let Some((_, wait)) = queue.rest(&uid) {
                writes.push(rested(uid, wait).boxed());
            }
        }
        Outcome::BindFailed(why) => {
            queue.unassume(&uid);
            if let Some((pod, wait)) = queue.rest(&uid) {
                recorder.warning(&*pod, "FailedScheduling", format!("running Bind method: {why}"));
                writes.push(rested(uid, wait).boxed());
            }
        }
        Outcome::Noted | Outcome::Rested => queue.release(&uid),
    }
}

async fn rested(uid: String, wait: Duration) -> Written {
    tokio::time::sleep(wait).await;
    Written { uid, outcome: Outcome::Rested }
}

fn watch<K>(client: &Client) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    use kube::runtime::WatchStreamExt as _;
    let events =
        watcher(Api::<K>::all(client.clone()), watcher::Config::default()).backoff(Pauses::default());
    // An error is followed by a new attempt, after a pause that grows.
    let events = events.modify(|object| object.meta_mut().managed_fields = None);
    events.filter_map(|event| std::future::ready(event.ok())).boxed()
}

/// Which uids or names a list that is coming in has brought so far; what it did not bring is gone.
#[derive(Default)]
struct Relists {
    pods: Relist,
    nodes: Relist,
    namespaces: Relist,
}

#[derive(Default)]
struct Relist {
    brought: BTreeSet<String>,
    /// At least one list is complete.
    is_done: bool,
}

impl Relists {
    fn are_done(&self) -> bool {
        self.pods.is_done && self.nodes.is_done && self.namespaces.is_done
    }

    fn take(&mut self, seen: Seen, queue: &mut Queue) {
        match seen {
            Seen::Pod(event) => {
                let changes = self.pods.sort(*event, |pod| pod.uid().unwrap_or_default(), || queue.pods());
                changes.gone.iter().for_each(|uid| queue.remove_pod(uid));
                changes.come.into_iter().for_each(|pod| queue.see_pod(pod));
            }
            Seen::Node(event) => {
                let changes = self.nodes.sort(*event, |node| node.name_any(), || queue.nodes());
                changes.gone.iter().for_each(|name| queue.remove_node(name));
                changes.come.iter().for_each(|node| queue.see_node(node));
            }
            Seen::Namespace(event) => {
                let changes = self.namespaces.sort(*event, |n| n.name_any(), BTreeSet::new);
                changes.gone.iter().for_each(|name| queue.remove_namespace(name));
                changes.come.iter().for_each(|namespace| queue.see_namespace(namespace));
            }
        }
    }
}

struct Sorted<K> {
    come: Option<K>,
    gone: Vec<String>,
}

impl Relist {
    fn sort<K>(
        &mut self,
        event: watcher::Event<K>,
        id: impl Fn(&K) -> String,
        known: impl Fn() -> BTreeSet<String>,
    ) -> Sorted<K> {
        let (mut come, mut gone) = (None, Vec::new());
        match event {
            watcher::Event::Apply(object) => come = Some(object),
            watcher::Event::Delete(object) => gone.push(id(&object)),
            watcher::Event::Init => self.brought.clear(),
            watcher::Event::InitApply(object) => {
                self.brought.insert(id(&object));
                come = Some(object);
            }
            watcher::Event::InitDone => {
                gone.extend(known().difference(&self.brought).cloned());
                self.brought.clear();
                self.is_done = true;
            }
        }
        Sorted { come, gone }
    }
}

async fn bind(client: Client, recorder: Recorder, pod: std::sync::Arc<Pod>, node: String) -> Outcome {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            // Another pod of the same name is not meant.
            uid: pod.uid(),
            ..ObjectMeta::default()
        },
        target: ObjectReference { kind: Some("Node".into()), name: Some(node.clone()), ..Default::default() },
    };
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let answer = api
        .create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
        .await;
    match answer {
        Ok(_) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            recorder.normal(&*pod, "Scheduled", message);
            Outcome::Bound
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Gone,
        Err(kube::Error::Api(status)) if status.code == 409 => Outcome::Overtaken,
        Err(error) => Outcome::BindFailed(error.to_string()),
    }
}

/// `PodScheduled` False, Unschedulable, with the message of the event.
async fn note_unschedulable(client: Client, pod: std::sync::Arc<Pod>, why: String) {
    let known = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let known = known.and_then(|all| all.iter().find(|c| c.type_ == "PodScheduled"));
    if known.is_some_and(|c| c.status == "False" && c.message.as_ref() == Some(&why)) {
        return;
    }
    let since = known.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": why,
        "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
        "observedGeneration": pod.metadata.generation,
    });
    // The uid is a precondition; a pod that went meanwhile needs no condition, and the next attempt writes it again.
    let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
}
