//! The control loops: each brings the cluster a step nearer to what its objects ask for. What to do is decided in
//! [`policy::workload`]; here is who is told of what, and the writes.
//!
//! One watch per kind feeds a cache ([`cache`]) and, for every kind there is, the graph of owners ([`garbage`]). A
//! change puts keys into work queues ([`queue`]); workers take them and look at the world as it is then. Nothing polls.

mod adoption;
mod aggregation;
mod alarms;
mod cache;
mod clients;
pub mod clock;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod garbage;
mod job;
mod namespace;
mod node;
mod pods;
mod queue;
pub(crate) mod recorder;
mod replica_set;
mod replication;
mod revisions;
mod service_account;
mod stateful_set;
mod tracked;
pub(crate) mod watches;

use std::sync::{Arc, Mutex};

use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::ApiResource;
use policy::workload::daemon_set::Backoff;
use tokio::task::JoinSet;

use alarms::Alarms;
use cache::{Cache, Key};
use clients::Clients;
use clock::Clock;
use garbage::Graph;
use queue::Queue;
use recorder::Recorder;
use watches::Tracked;

use crate::apiserver::User;

pub(crate) use service_account::ROOT_CA;

/// Workers per queue: enough to keep the store's group commit filled.
const WORKERS: usize = 8;

/// Why a step could not be taken; it is tried again later.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("{0} has an invalid selector: {1}")]
    Selector(String, policy::selector::SelectorError),
    #[error("ControllerRevision {0} holds no pod template")]
    Revision(String),
    #[error("no kind {0} is known")]
    UnknownKind(String),
}

impl Error {
    fn code(&self) -> u16 {
        match self {
            Error::Api(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }
}

/// An answer where "not found" is as good as done.
fn gone_is_fine<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the controllers know, and what they are asked to look at.
struct World {
    clients: Clients,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    /// PEM, for `kube-root-ca.crt`.
    root_ca: String,

    pods: Cache<Pod>,
    replica_sets: Cache<ReplicaSet>,
    deployments: Cache<Deployment>,
    replication_controllers: Cache<ReplicationController>,
    daemon_sets: Cache<DaemonSet>,
    failed_daemons: Mutex<Backoff>,
    stateful_sets: Cache<StatefulSet>,
    controller_revisions: Cache<ControllerRevision>,
    jobs: Cache<Job>,
    cron_jobs: Cache<CronJob>,
    services: Cache<Service>,
    endpoint_slices: Cache<EndpointSlice>,
    endpoints: Cache<Endpoints>,
    namespaces: Cache<Namespace>,
    service_accounts: Cache<ServiceAccount>,
    config_maps: Cache<ConfigMap>,
    nodes: Cache<Node>,
    cluster_roles: Cache<ClusterRole>,
    graph: Mutex<Graph>,
    triggers: Mutex<endpoints::Triggers>,

    deployment_queue: Arc<Queue<Key>>,
    replica_set_queue: Arc<Queue<Key>>,
    replication_queue: Arc<Queue<Key>>,
    daemon_set_queue: Arc<Queue<Key>>,
    stateful_set_queue: Arc<Queue<Key>>,
    job_queue: Arc<Queue<Key>>,
    /// Uids of Jobs that are gone, whose pods wait to be let go.
    lost_job_queue: Arc<Queue<String>>,
    cron_job_queue: Arc<Queue<Key>>,
    /// When their schedules come.
    cron_job_alarms: Alarms<Key>,
    endpoints_queue: Arc<Queue<Key>>,
    /// Names of namespaces.
    namespace_queue: Arc<Queue<String>>,
    service_account_queue: Arc<Queue<String>>,
    node_queue: Arc<Queue<String>>,
    aggregation_queue: Arc<Queue<String>>,
    /// Uids.
    garbage_queue: Arc<Queue<String>>,
}

/// Runs until the server goes away. `client` gives each loop a client in its own name, whose roles
/// [`crate::authorization::bootstrap`] makes. `root_ca`: the certificate authority in PEM, which every namespace gets in
/// its ConfigMap `kube-root-ca.crt`.
pub async fn run(client: impl Fn(User) -> Client, root_ca: String) {
    run_by(Arc::new(clock::Machine), client, root_ca).await;
}

/// [`run`], by another clock than the machine's.
pub async fn run_by(clock: Arc<dyn Clock>, client: impl Fn(User) -> Client, root_ca: String) {
    let clients = Clients::new(client);
    let (recorder, writing) = Recorder::new(clients.watches.clone(), "controllers");
    let world = Arc::new(World {
        clock,
        recorder,
        root_ca,
        pods: Cache::new(),
        replica_sets: Cache::new(),
        deployments: Cache::new(),
        replication_controllers: Cache::new(),
        daemon_sets: Cache::new(),
        failed_daemons: Mutex::default(),
        stateful_sets: Cache::new(),
        controller_revisions: Cache::new(),
        jobs: Cache::new(),
        cron_jobs: Cache::new(),
        services: Cache::new(),
        endpoint_slices: Cache::new(),
        endpoints: Cache::new(),
        namespaces: Cache::new(),
        service_accounts: Cache::new(),
        config_maps: Cache::new(),
        nodes: Cache::new(),
        cluster_roles: Cache::new(),
        graph: Mutex::new(Graph::default()),
        triggers: Mutex::default(),
        deployment_queue: Queue::new(),
        replica_set_queue: Queue::new(),
        replication_queue: Queue::new(),
        daemon_set_queue: Queue::new(),
        stateful_set_queue: Queue::new(),
        job_queue: Queue::new(),
        lost_job_queue: Queue::new(),
        cron_job_queue: Queue::new(),
        cron_job_alarms: Alarms::new(),
        endpoints_queue: Queue::new(),
        namespace_queue: Queue::new(),
        service_account_queue: Queue::new(),
        node_queue: Queue::new(),
        aggregation_queue: Queue::new(),
        garbage_queue: Queue::new(),
        clients,
    });
    let (watches, synced) = watches::start(&world).await;
    // Dropping the set ends what is in it.
    let mut parts = JoinSet::new();
    parts.spawn(writing);
    for watch in watches {
        parts.spawn(watch);
    }
    synced.await;
    world.graph().is_whole = true;
    world.look_at_everything_owned();
    for worker in workers(&world) {
        parts.spawn(worker);
    }
    // None of them ends by itself but with the server; a loop that panicked must not be missing in silence.
    if let Some(Err(ended)) = parts.join_next().await
        && let Ok(panic) = ended.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

fn workers(world: &Arc<World>) -> Vec<BoxFuture<'static, ()>> {
    macro_rules! worker {
        ($queue:ident, $sync:path) => {{
            let for_work = world.clone();
            let work = move |key| {
                let world = for_work.clone();
                async move { $sync(&world, key).await }
            };
            world.$queue.clone().work(WORKERS, work).boxed()
        }};
    }
    vec![
        worker!(deployment_queue, deployment::sync),
        worker!(replica_set_queue, replica_set::sync),
        worker!(replication_queue, replication::sync),
        worker!(daemon_set_queue, daemon_set::sync),
        worker!(stateful_set_queue, stateful_set::sync),
        worker!(job_queue, job::sync),
        worker!(lost_job_queue, job::let_go),
        worker!(cron_job_queue, cron_job::sync),
        cron_job_alarm(world.clone()).boxed(),
        worker!(endpoints_queue, endpoints::sync),
        worker!(namespace_queue, namespace::sync),
        worker!(service_account_queue, service_account::sync),
        worker!(node_queue, node::sync),
        worker!(aggregation_queue, aggregation::sync),
        worker!(garbage_queue, garbage::sync),
    ]
}

async fn cron_job_alarm(world: Arc<World>) {
    world.cron_job_alarms.ring(&*world.clock, |key| world.cron_job_queue.add(key)).await;
}

impl World {
    fn graph(&self) -> std::sync::MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn failed_daemons(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.failed_daemons.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn triggers(&self) -> std::sync::MutexGuard<'_, endpoints::Triggers> {
        self.triggers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An object came by, from a watch or as the answer to a write.
    fn saw<K: Tracked>(&self, object: K) {
        let meta = object.meta().clone();
        if let Some(change) = K::cache(self).observe(object) {
            self.saw_meta(&ApiResource::erase::<K>(&()), K::NAMESPACED, &meta);
            K::changed(self, &change);
        }
    }

    fn lost<K: Tracked>(&self, meta: &ObjectMeta) {
        if let Some(change) = K::cache(self).forget(meta) {
            K::changed(self, &change);
        }
        self.lost_meta(meta);
    }

    /// For the graph of owners.
    fn saw_meta(&self, resource: &ApiResource, namespaced: bool, meta: &ObjectMeta) {
        let due = self.graph().observe(resource, namespaced, meta);
        due.into_iter().for_each(|uid| self.garbage_queue.add(uid));
    }

    fn lost_meta(&self, meta: &ObjectMeta) {
        let due = self.graph().forget(meta.uid.as_deref().unwrap_or_default());
        due.into_iter().for_each(|uid| self.garbage_queue.add(uid));
        // The last object of a namespace that goes may have been this one.
        if let Some(namespace) = &meta.namespace
            && self.namespace_is_going(namespace)
        {
            self.namespace_queue.add(namespace.clone());
        }
    }

    fn look_at_everything_owned(&self) {
        let due = self.graph().owned();
        due.into_iter().for_each(|uid| self.garbage_queue.add(uid));
    }

    fn namespace_is_going(&self, name: &str) -> bool {
        let namespace = self.namespaces.get(&(String::new(), name.to_string()));
        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }
}
