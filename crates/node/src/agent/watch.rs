//! What the agent follows of the cluster: all pods, namespaces and policies (for the rule set), its own pods (for their
//! workers), services (for environments) and the image store.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Pod, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, reflector, watcher},
};
use policy::network_policy::{self, PodRecord, Policy};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::{AgentError, context::Context, recover, worker};
use crate::images::{ImageStore, StoreError};

/// How many messages a worker's queue holds. A worker that is behind makes the watch wait, not the memory grow.
const QUEUE: usize = 64;
/// The most events that go to the kernel as one transaction.
const BATCH: usize = 512;

/// A number that changes with the image store.
pub fn images(store: &ImageStore) -> Result<watch::Receiver<u64>, StoreError> {
    let (changed, receiver) = watch::channel(0);
    let mut watcher = store.watch()?;
    tokio::spawn(async move {
        while watcher.changed().await.is_ok() {
            changed.send_modify(|number| *number += 1);
        }
    });
    Ok(receiver)
}

/// All services, kept up to date.
pub fn services(client: kube::Client) -> reflector::Store<Service> {
    let (store, writer) = reflector::store();
    let events =
        watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff().reflect(writer);
    // The watcher tells of its errors by trying again; there is nothing else to do with them.
    tokio::spawn(async move { events.for_each(|_| std::future::ready(())).await });
    store
}

enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Namespace(watcher::Event<Namespace>),
    Policy(watcher::Event<NetworkPolicy>),
    /// A ConfigMap or Secret of a namespace.
    Source(String, worker::Source),
    /// Nothing to be told: the steps of a list of sources.
    Nothing,
    Error(watcher::Error),
}

fn follow<K>(client: &kube::Client, seen: fn(watcher::Event<K>) -> Seen) -> BoxStream<'static, Seen>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default + Clone,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .map(move |event| event.map_or_else(Seen::Error, seen))
        .boxed()
}

/// Follows the names of the ConfigMaps or Secrets that change: pods that use them fetch them.
fn sources<K>(client: &kube::Client, source: fn(String) -> worker::Source) -> BoxStream<'static, Seen>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default + Clone,
{
    watcher(Api::<PartialObjectMeta<K>>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .map(move |event| match event {
            Ok(
                watcher::Event::Apply(object)
                | watcher::Event::InitApply(object)
                | watcher::Event::Delete(object),
            ) => Seen::Source(object.namespace().unwrap_or_default(), source(object.name_any())),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => Seen::Nothing,
            Err(error) => Seen::Error(error),
        })
        .boxed()
}

/// A list under way, or the names that the last one and the events since have shown.
#[derive(Default)]
struct Known {
    names: BTreeSet<(String, String)>,
    listing: Option<BTreeSet<(String, String)>>,
    complete: bool,
}

impl Known {
    fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
    }
    fn add(&mut self, name: (String, String)) {
        if let Some(listing) = &mut self.listing {
            listing.insert(name.clone());
        }
        self.names.insert(name);
    }
    fn remove(&mut self, name: &(String, String)) {
        self.names.remove(name);
    }
    /// The list is whole: what it does not hold has gone meanwhile.
    fn end(&mut self) -> Vec<(String, String)> {
        self.complete = true;
        let Some(listing) = self.listing.take() else { return Vec::new() };
        let gone = self.names.difference(&listing).cloned().collect();
        self.names = listing;
        gone
    }
}

fn key<K: ResourceExt>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The cluster as the agent sees it.
pub struct Cluster {
    ctx: Arc<Context>,
    /// All that is ready at once comes as one item.
    events: BoxStream<'static, Vec<Seen>>,
    pods: Known,
    namespaces: Known,
    policies: Known,
    uids: HashMap<(String, String), String>,
    /// Own pods, until the first list is whole and the survivors are known.
    waiting: BTreeMap<(String, String), Arc<Pod>>,
    /// By uid: the pod's namespace and its worker's queue.
    workers: HashMap<String, (String, mpsc::Sender<worker::Message>)>,
    /// The first lists are whole.
    running: bool,
}

impl Cluster {
    pub fn new(ctx: Arc<Context>) -> Cluster {
        let client = ctx.client.clone();
        let events = futures::stream::select_all([
            follow::<Pod>(&client, |event| Seen::Pod(Box::new(event))),
            follow::<Namespace>(&client, Seen::Namespace),
            follow::<NetworkPolicy>(&client, Seen::Policy),
            sources::<ConfigMap>(&client, worker::Source::ConfigMap),
            sources::<Secret>(&client, worker::Source::Secret),
        ]);
        Cluster {
            ctx,
            events: events.ready_chunks(BATCH).boxed(),
            pods: Known::default(),
            namespaces: Known::default(),
            policies: Known::default(),
            uids: HashMap::new(),
            waiting: BTreeMap::new(),
            workers: HashMap::new(),
            running: false,
        }
    }

    /// Takes in the first list of each kind, then takes over what an earlier agent left.
    pub async fn first_lists(&mut self) -> Result<(), AgentError> {
        while !(self.pods.complete && self.namespaces.complete && self.policies.complete) {
            self.next().await?;
        }
        self.take_over().await?;
        self.running = true;
        Ok(())
    }

    pub async fn follow(&mut self) -> Result<(), AgentError> {
        loop {
            self.next().await?;
        }
    }

    async fn next(&mut self) -> Result<(), AgentError> {
        let seen = self.events.next().await.ok_or(AgentError::WatchEnded)?;
        let mut batch = Batch::default();
        for event in seen {
            match event {
                Seen::Pod(event) => self.pod(*event, &mut batch),
                Seen::Namespace(event) => self.namespace(event, &mut batch),
                Seen::Policy(event) => self.policy(event, &mut batch),
                Seen::Source(namespace, source) => batch.sources.push((namespace, source)),
                Seen::Nothing => {}
                // The watcher begins anew by itself; the next list says what was missed.
                Seen::Error(error) => eprintln!("watch on the cluster: {error}"),
            }
        }
        // All that has arrived goes to the kernel as one transaction; workers hear of their pods after that.
        if let Err(error) = self.ctx.net.apply(batch.policy) {
            let message = format!("the node's packet filter could not be programmed: {error}");
            let node = &self.ctx.config.node;
            self.ctx.recorder.node(node, super::events::Kind::Warning, "PacketFilterFailed", &message);
        }
        for action in batch.own {
            self.act(action).await;
        }
        for (namespace, source) in batch.sources {
            let source = Arc::new(source);
            for (_, worker) in self.workers.values().filter(|(of, _)| *of == namespace) {
                // A worker that has ended needs no telling.
                drop(worker.send(worker::Message::Source(source.clone())).await);
            }
        }
        Ok(())
    }

    fn pod(&mut self, event: watcher::Event<Pod>, batch: &mut Batch) {
        match event {
            watcher::Event::Init => self.pods.begin(),
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let (key, uid) = (key(&pod), pod.uid().unwrap_or_default());
                if let Some(old) = self.uids.insert(key.clone(), uid.clone())
                    && old != uid
                {
                    self.pod_gone(old, batch);
                }
                self.pods.add(key);
                let node = &self.ctx.config.node;
                batch.policy.push(network_policy::Event::UpsertPod(PodRecord::from_api(&pod, node)));
                if pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(node) {
                    batch.own.push(Action::Pod(Arc::new(pod)));
                }
            }
            watcher::Event::Delete(pod) => {
                let key = key(&pod);
                self.pods.remove(&key);
                // A younger pod of that name may be known already.
                if self.uids.get(&key) == pod.uid().as_ref() {
                    self.uids.remove(&key);
                }
                self.pod_gone(pod.uid().unwrap_or_default(), batch);
            }
            watcher::Event::InitDone => {
                for key in self.pods.end() {
                    if let Some(uid) = self.uids.remove(&key) {
                        self.pod_gone(uid, batch);
                    }
                }
            }
        }
    }

    fn pod_gone(&self, uid: String, batch: &mut Batch) {
        batch.policy.push(network_policy::Event::RemovePod(uid.clone()));
        batch.own.push(Action::Gone(uid));
    }

    fn namespace(&mut self, event: watcher::Event<Namespace>, batch: &mut Batch) {
        use network_policy::Event::{RemoveNamespace, UpsertNamespace};
        match event {
            watcher::Event::Init => self.namespaces.begin(),
            watcher::Event::InitApply(namespace) | watcher::Event::Apply(namespace) => {
                self.namespaces.add(key(&namespace));
                batch.policy.push(UpsertNamespace(namespace.name_any(), namespace.labels().clone()));
            }
            watcher::Event::Delete(namespace) => {
                self.namespaces.remove(&key(&namespace));
                batch.policy.push(RemoveNamespace(namespace.name_any()));
            }
            watcher::Event::InitDone => {
                batch.policy.extend(self.namespaces.end().into_iter().map(|(_, name)| RemoveNamespace(name)));
            }
        }
    }

    fn policy(&mut self, event: watcher::Event<NetworkPolicy>, batch: &mut Batch) {
        use network_policy::Event::{RemovePolicy, UpsertPolicy};
        match event {
            watcher::Event::Init => self.policies.begin(),
            watcher::Event::InitApply(policy) | watcher::Event::Apply(policy) => {
                self.policies.add(key(&policy));
                let (parsed, error) = Policy::from_api(&policy);
                if let Some(error) = error {
                    // It isolates what it selects and allows nothing: closed, and said.
                    self.ctx.recorder.policy(&policy, &error.to_string());
                }
                batch.policy.push(UpsertPolicy(parsed));
            }
            watcher::Event::Delete(policy) => {
                let key = key(&policy);
                self.policies.remove(&key);
                batch.policy.push(RemovePolicy { namespace: key.0, name: key.1 });
            }
            watcher::Event::InitDone => {
                let gone = self.policies.end();
                batch
                    .policy
                    .extend(gone.into_iter().map(|(namespace, name)| RemovePolicy { namespace, name }));
            }
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Pod(pod) if !self.running => drop(self.waiting.insert(key(pod.as_ref()), pod)),
            Action::Pod(pod) => self.tell(pod, None).await,
            Action::Gone(uid) => {
                self.waiting.retain(|_, pod| pod.uid().as_deref() != Some(uid.as_str()));
                if let Some((_, worker)) = self.workers.remove(&uid) {
                    // A worker that has ended needs no telling.
                    drop(worker.send(worker::Message::Gone).await);
                }
            }
        }
    }

    /// Tells the pod's worker, which is started if there is none.
    async fn tell(&mut self, pod: Arc<Pod>, survivor: Option<recover::Survivor>) {
        let uid = pod.uid().unwrap_or_default();
        if let Some((_, worker)) = self.workers.get(&uid) {
            // The worker ended only if its pod's object is gone: then this is an echo.
            drop(worker.send(worker::Message::Pod(pod)).await);
            return;
        }
        let (queue, messages) = mpsc::channel(QUEUE);
        self.workers.insert(uid, (pod.namespace().unwrap_or_default(), queue));
        tokio::spawn(worker::run(self.ctx.clone(), pod, messages, survivor));
    }

    /// Connects to the keepers that an earlier agent left, and ends those whose pods are gone.
    async fn take_over(&mut self) -> Result<(), AgentError> {
        let own = std::mem::take(&mut self.waiting);
        let dirs = recover::uids(&self.ctx.config.pods_dir)
            .map_err(|error| AgentError::Directory { path: self.ctx.config.pods_dir.clone(), error })?;
        let mut survivors = Vec::new();
        for pod in own.values() {
            match recover::find(&self.ctx, pod).await {
                Ok(survivor) => survivors.push(survivor),
                Err(error) => {
                    eprintln!("take over pod {}: {error}", pod.name_any());
                    survivors.push(None);
                }
            }
        }
        for uid in dirs.into_iter().filter(|uid| !own.values().any(|pod| pod.uid().as_deref() == Some(uid))) {
            if let Err(error) = recover::end_orphan(&self.ctx, &uid).await {
                eprintln!("end what is left of pod {uid}: {error}");
            }
        }
        self.ctx.net.adopted()?;
        for (pod, survivor) in own.into_values().zip(survivors) {
            self.tell(pod, survivor).await;
        }
        Ok(())
    }
}

/// What a handful of events asks for.
#[derive(Default)]
struct Batch {
    policy: Vec<network_policy::Event>,
    own: Vec<Action>,
    sources: Vec<(String, worker::Source)>,
}

enum Action {
    Pod(Arc<Pod>),
    Gone(String),
}
