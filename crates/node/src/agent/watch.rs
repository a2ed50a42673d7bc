//! What the agent follows of the cluster: all pods, namespaces and policies (for the rule set), its own pods (for their
//! workers), services (for environments) and the image store.

mod tiers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, ObjectReference, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, reflector, watcher},
};
use policy::network_policy::{self, ClusterNetworkPolicy, NodeRecord, PodRecord, Policy};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{AgentError, announce, context::Context, events::Kind, recover, sources::Sources, worker};
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
    let events = watcher(Api::<Service>::all(client), watcher::Config::default())
        .default_backoff()
        .modify(|service| service.metadata.managed_fields = None)
        .reflect(writer);
    // The watcher tells of its errors by trying again; there is nothing else to do with them.
    tokio::spawn(async move { events.for_each(|_| std::future::ready(())).await });
    store
}

enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Namespace(watcher::Event<Namespace>),
    Policy(watcher::Event<NetworkPolicy>),
    ClusterPolicy(watcher::Event<ClusterNetworkPolicy>),
    Node(Box<watcher::Event<Node>>),
    /// A ConfigMap or Secret of a namespace.
    Source(String, worker::Source),
    /// Another node tells of its new pods.
    Announced(Announced),
    Error(watcher::Error),
}

/// What another node tells of a pod of its; answered when the rules have it.
pub struct Announced {
    pub from: String,
    pub pod: announce::Address,
    pub taken_in: oneshot::Sender<()>,
}

fn follow<K>(client: &kube::Client, seen: fn(watcher::Event<K>) -> Seen) -> BoxStream<'static, Seen>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default + Clone,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        // Nothing here asks who owns which field, and of a pod that is as large as the rest.
        .modify(|object| object.meta_mut().managed_fields = None)
        .map(move |event| event.map_or_else(Seen::Error, seen))
        .boxed()
}

/// What has changed of what the node's pods refer to; never ends.
fn changes(mut queue: mpsc::Receiver<(String, worker::Source)>) -> BoxStream<'static, Seen> {
    futures::stream::poll_fn(move |context| {
        queue.poll_recv(context).map(|one| one.map(|(namespace, source)| Seen::Source(namespace, source)))
    })
    .boxed()
}

/// The words of other nodes; never ends, also when nobody can speak any more.
fn announcements(mut queue: mpsc::Receiver<Announced>) -> BoxStream<'static, Seen> {
    futures::stream::poll_fn(move |context| queue.poll_recv(context).map(|one| one.map(Seen::Announced)))
        .boxed()
}

/// While the kernel refuses what it is given.
struct Refused {
    /// When it is given it again.
    at: Option<Instant>,
    pause: Duration,
    /// The policies that are not in force yet, by namespace and name, and whether that was said.
    policies: BTreeMap<(String, String), (ObjectReference, bool)>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Default for Refused {
    fn default() -> Refused {
        Refused { at: None, pause: FIRST_PAUSE, policies: BTreeMap::new() }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
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
    /// What the node's pods refer to.
    sources: Sources,
    /// All that is ready at once comes as one item.
    events: BoxStream<'static, Vec<Seen>>,
    pods: Known,
    namespaces: Known,
    policies: Known,
    cluster_policies: Known,
    nodes: Known,
    node_records: BTreeMap<String, NodeRecord>,
    uids: HashMap<(String, String), String>,
    told: announce::Told,
    /// Announcements of pods that are not known yet.
    early: Vec<Announced>,
    /// The newest resource version among the policies.
    version: u64,
    refused: Refused,
    /// Own pods, until the first list is whole and the survivors are known.
    waiting: BTreeMap<(String, String), Arc<Pod>>,
    /// By uid: the pod's namespace and its worker's queue.
    workers: HashMap<String, (String, mpsc::Sender<worker::Message>)>,
    /// The first lists are whole.
    running: bool,
}

impl Cluster {
    pub fn new(ctx: Arc<Context>, announced: mpsc::Receiver<Announced>) -> Cluster {
        let client = ctx.client.clone();
        let (sources, changed) = Sources::new(ctx.config.sockets_dir.join("control.sock"));
        let events = futures::stream::select_all([
            follow::<Pod>(&client, |event| Seen::Pod(Box::new(event))),
            follow::<Namespace>(&client, Seen::Namespace),
            follow::<NetworkPolicy>(&client, Seen::Policy),
            follow::<ClusterNetworkPolicy>(&client, Seen::ClusterPolicy),
            follow::<Node>(&client, |event| Seen::Node(Box::new(event))),
            changes(changed),
            announcements(announced),
        ]);
        let told = announce::Told::new(ctx.bound.clone());
        Cluster {
            ctx,
            sources,
            events: events.ready_chunks(BATCH).boxed(),
            pods: Known::default(),
            namespaces: Known::default(),
            policies: Known::default(),
            cluster_policies: Known::default(),
            nodes: Known::default(),
            node_records: BTreeMap::new(),
            uids: HashMap::new(),
            told,
            early: Vec::new(),
            version: 0,
            refused: Refused::default(),
            waiting: BTreeMap::new(),
            workers: HashMap::new(),
            running: false,
        }
    }

    /// Takes in the first list of each kind, then takes over what an earlier agent left.
    pub async fn first_lists(&mut self) -> Result<(), AgentError> {
        let complete = |this: &Cluster| {
            let Cluster { pods, namespaces, nodes, policies, cluster_policies, .. } = this;
            [pods, namespaces, nodes, policies, cluster_policies].into_iter().all(|known| known.complete)
        };
        while !complete(self) {
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
        let programmed = self.ctx.programmed.clone();
        let seen = tokio::select! {
            seen = self.events.next() => seen.ok_or(AgentError::WatchEnded)?,
            () = programmed.wait_refused() => {
                self.refused.at.get_or_insert_with(|| Instant::now() + self.refused.pause);
                return Ok(());
            }
            () = sleep_until(self.refused.at) => {
                // All that is missing goes with the next transaction, whatever is in it.
                self.refused.at = None;
                self.refused.pause = (self.refused.pause * 2).min(LONGEST_PAUSE);
                Vec::new()
            }
        };

        let mut batch = Batch::default();
        for event in seen {
            match event {
                Seen::Pod(event) => self.pod(*event, &mut batch),
                Seen::Namespace(event) => self.namespace(event, &mut batch),
                Seen::Policy(event) => self.policy(event, &mut batch),
                Seen::ClusterPolicy(event) => self.cluster_policy(event, &mut batch),
                Seen::Node(event) => self.node(*event, &mut batch),
                Seen::Source(namespace, source) => batch.sources.push((namespace, source)),
                Seen::Announced(announced) => self.early.push(announced),
                // The watcher begins anew by itself; the next list says what was missed.
                Seen::Error(error) => eprintln!("watch on the cluster: {error}"),
            }
        }
        // All that has arrived goes to the kernel as one transaction; workers hear of their pods after that.
        self.refused.policies.extend(batch.changed);
        self.program(batch.policy);
        self.take_in();
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

    /// Takes in what other nodes have told of pods that are known here, all as one transaction, and answers them.
    fn take_in(&mut self) {
        // Who has given up waiting has closed the channel, and its pods' statuses will say it.
        self.early.retain(|announced| !announced.taken_in.is_closed());
        let mut events = Vec::new();
        let mut answers = Vec::new();
        for announced in std::mem::take(&mut self.early) {
            let Announced { from, pod, .. } = &announced;
            match self.told.tell(from, pod) {
                announce::Heard::Unknown => {
                    self.early.push(announced);
                    continue;
                }
                announce::Heard::NotTheirs => {
                    eprintln!("{from} announced an address of pod {}, which is not its own", pod.uid);
                }
                announce::Heard::Now { losers } => {
                    events.extend(losers.iter().filter_map(|uid| {
                        let record = self.ctx.net.record(uid)?.with_addresses(Vec::new());
                        Some(network_policy::Event::UpsertPod(record))
                    }));
                    events.extend(self.ctx.net.record(&pod.uid).map(|mut record| {
                        announce::hold(&mut record, &pod.addresses);
                        network_policy::Event::UpsertPod(record)
                    }));
                }
            }
            answers.push(announced.taken_in);
        }
        if !events.is_empty() {
            self.program(events);
        }
        // Also where the kernel refused: that is said elsewhere, and no pod's start mends it.
        for answer in answers {
            answer.send(()).ok();
        }
    }

    /// Brings the rule set up to date. A failure is said on the node and on the policies that wait for it, and the rule set
    /// is written again after a pause.
    fn program(&mut self, events: Vec<network_policy::Event>) {
        let (recorder, node) = (&self.ctx.recorder, &self.ctx.config.node);
        match self.ctx.net.apply(events) {
            Ok(generation) => {
                let mended = self.ctx.programmed.done(
                    self.version,
                    self.policies.names.len() + self.cluster_policies.names.len(),
                    generation,
                );
                let waited = std::mem::take(&mut self.refused.policies);
                if mended {
                    self.refused.at = None;
                    self.refused.pause = FIRST_PAUSE;
                    let message = format!("in force on {node}");
                    for policy in waited.into_values().filter(|(_, told)| *told).map(|(policy, _)| policy) {
                        recorder.object(policy, Kind::Normal, "NetworkPolicyProgrammed", &message);
                    }
                }
            }
            Err(error) => {
                self.ctx.programmed.refused(&error.to_string());
                let message = format!("the packet filter of {node} could not be programmed: {error}");
                recorder.node(node, Kind::Warning, "PacketFilterFailed", &message);
                for (policy, told) in self.refused.policies.values_mut().filter(|(_, told)| !told) {
                    *told = true;
                    recorder.object(policy.clone(), Kind::Warning, "NetworkPolicyNotProgrammed", &message);
                }
            }
        }
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
                let mut record = PodRecord::from_api(&pod, node);
                self.told.seen(&pod, &mut record);
                batch.policy.push(network_policy::Event::UpsertPod(record));
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

    fn pod_gone(&mut self, uid: String, batch: &mut Batch) {
        self.told.gone(&uid);
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
                self.version = self.version.max(version(&policy));
                let (parsed, error) = Policy::from_api(&policy);
                if let Some(error) = &error {
                    // It isolates what it selects and allows nothing: closed, and said.
                    self.ctx.recorder.policy(&policy, &error.to_string());
                }
                let name = format!("{}/{}", parsed.namespace, parsed.name);
                self.ctx.programmed.invalid(&name, error.map(|error| error.to_string()));
                batch.changed.insert(key(&policy), (super::events::policy_reference(&policy), false));
                batch.policy.push(UpsertPolicy(parsed));
            }
            watcher::Event::Delete(policy) => {
                let key = key(&policy);
                self.version = self.version.max(version(&policy));
                self.policies.remove(&key);
                self.ctx.programmed.invalid(&format!("{}/{}", key.0, key.1), None);
                self.refused.policies.remove(&key);
                batch.policy.push(RemovePolicy { namespace: key.0, name: key.1 });
            }
            watcher::Event::InitDone => {
                let gone = self.policies.end();
                for (namespace, name) in &gone {
                    self.ctx.programmed.invalid(&format!("{namespace}/{name}"), None);
                }
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
                self.sources.gone(&uid);
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
        self.sources.pod(&uid, &pod);
        if let Some((_, worker)) = self.workers.get(&uid) {
            // The worker ended only if its pod's object is gone: then this is an echo.
            drop(worker.send(worker::Message::Pod(pod)).await);
            return;
        }
        let (queue, messages) = mpsc::channel(QUEUE);
        self.workers.insert(uid, (pod.namespace().unwrap_or_default(), queue));
        tokio::spawn(worker::run(self.ctx.clone(), pod, messages, survivor));
    }

    /// A pod whose keeper lives but cannot be used: it is ended, so that nothing of the pod runs twice, and said.
    async fn not_taken_over(&self, pod: &Pod, error: &str) {
        let ended = recover::end(&self.ctx, &super::report::Subject::of(pod)).await;
        let end = match ended {
            Ok(()) => "it was ended, and the pod gets a new sandbox".to_owned(),
            Err(error) => format!("and what it left could not be ended: {error}"),
        };
        let message = format!(
            "Pod sandbox could not be taken over after a restart of the node's agent: {error}; {end}"
        );
        eprintln!("pod {}: {message}", pod.name_any());
        self.ctx.recorder.pod(pod, None, Kind::Warning, "SandboxNotTakenOver", &message);
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
                    self.not_taken_over(pod, &error).await;
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
    /// Policies that come or change, and that nothing was said of yet.
    changed: BTreeMap<(String, String), (ObjectReference, bool)>,
}

enum Action {
    Pod(Arc<Pod>),
    Gone(String),
}
