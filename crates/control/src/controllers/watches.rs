//! The watches that feed the caches and the graph of owners: one per kind the server has.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::StreamExt as _;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt as _, utils::Backoff, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::World;
use super::cache::{Cache, Change, Key, key_of};

/// A kind the controllers look into; of all others only the metadata is kept.
pub(super) trait Tracked:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    const NAMESPACED: bool;
    fn cache(world: &World) -> &Cache<Self>;
    /// Who has to look.
    fn changed(world: &World, change: &Change<Self>);
}

/// The watches, to be run, and a future that is done when every kind was listed once.
pub(super) async fn start(world: &Arc<World>) -> (Vec<BoxFuture<'static, ()>>, BoxFuture<'static, ()>) {
    let kinds = discover(&world.clients.watches).await;
    let (listed, mut progress) = watch::channel(0usize);
    let mut watches: Vec<BoxFuture<'static, ()>> = Vec::new();
    let mut typed = BTreeSet::new();
    macro_rules! tracked {
        ($($kind:ty),*) => {$(
            let resource = ApiResource::erase::<$kind>(&());
            let id = (resource.group.clone(), resource.kind.clone());
            if kinds.iter().any(|(known, _)| (&known.group, &known.kind) == (&id.0, &id.1)) {
                watches.push(follow::<$kind>(world.clone(), listed.clone()).boxed());
            }
            typed.insert(id);
        )*};
    }
    tracked!(
        Pod,
        ReplicaSet,
        Deployment,
        ReplicationController,
        DaemonSet,
        StatefulSet,
        ControllerRevision,
        Job,
        CronJob,
        Service,
        EndpointSlice,
        Endpoints,
        Namespace,
        ServiceAccount,
        ConfigMap,
        Node,
        ClusterRole
    );
    for (resource, namespaced) in kinds {
        if !typed.contains(&(resource.group.clone(), resource.kind.clone())) {
            watches.push(follow_metadata(world.clone(), resource, namespaced, listed.clone()).boxed());
        }
    }
    let all = watches.len();
    let synced = async move {
        // An error means that no watch is left to count.
        let _ = progress.wait_for(|listed| *listed >= all).await;
    };
    (watches, synced.boxed())
}

/// Pauses between attempts to watch: the server is in this process, so the usual reason (the watch fell behind) is over
/// at once.
pub(crate) struct Pauses(Duration);

const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(5);

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses(SHORTEST)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = SHORTEST;
    }
}

/// All kinds that can be listed, watched and deleted, but events: they own nothing and nobody owns them.
async fn discover(client: &Client) -> Vec<(ApiResource, bool)> {
    let mut pauses = Pauses::default();
    loop {
        let Ok(discovery) = Discovery::new(client.clone()).run().await else {
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST)).await;
            continue;
        };
        let mut kinds = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
                if needed.iter().all(|verb| capabilities.supports_operation(verb)) && resource.kind != "Event"
                {
                    kinds.push((resource, capabilities.scope == Scope::Namespaced));
                }
            }
        }
        return kinds;
    }
}

/// Tells the count when the first list is complete.
struct Listed {
    count: watch::Sender<usize>,
    is_told: bool,
}

impl Listed {
    fn tell(&mut self) {
        if !self.is_told {
            self.is_told = true;
            self.count.send_modify(|count| *count += 1);
        }
    }
}

async fn follow<K: Tracked>(world: Arc<World>, count: watch::Sender<usize>) {
    let mut listed = Listed { count, is_told: false };
    let mut brought: HashSet<Key> = HashSet::new();
    let api: Api<K> = Api::all(world.clients.watches.clone());
    let mut events = watcher(api, watcher::Config::default()).backoff(Pauses::default()).boxed();
    while let Some(event) = events.next().await {
        // An error is followed by a new attempt, after a pause that grows.
        let Ok(event) = event else { continue };
        match event {
            watcher::Event::Apply(object) => world.saw(object),
            watcher::Event::Delete(object) => world.lost::<K>(object.meta()),
            watcher::Event::Init => brought.clear(),
            watcher::Event::InitApply(object) => {
                brought.insert(key_of(object.meta()));
                world.saw(object);
            }
            watcher::Event::InitDone => {
                for key in K::cache(&world).keys().difference(&brought) {
                    if let Some(object) = K::cache(&world).get(key) {
                        world.lost::<K>(object.meta());
                    }
                }
                brought.clear();
                listed.tell();
            }
        }
    }
}

async fn follow_metadata(
    world: Arc<World>,
    resource: ApiResource,
    namespaced: bool,
    count: watch::Sender<usize>,
) {
    let mut listed = Listed { count, is_told: false };
    let mut brought: HashSet<String> = HashSet::new();
    let api: Api<DynamicObject> = Api::all_with(world.clients.watches.clone(), &resource);
    let mut events = watcher(api, watcher::Config::default()).backoff(Pauses::default()).boxed();
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        match event {
            watcher::Event::Apply(object) => world.saw_meta(&resource, namespaced, &object.metadata),
            watcher::Event::Delete(object) => world.lost_meta(&object.metadata),
            watcher::Event::Init => brought.clear(),
            watcher::Event::InitApply(object) => {
                brought.insert(object.uid().unwrap_or_default());
                world.saw_meta(&resource, namespaced, &object.metadata);
            }
            watcher::Event::InitDone => {
                let known = world.graph().of_resource(&resource);
                for (uid, namespace) in known.into_iter().filter(|(uid, _)| !brought.contains(uid)) {
                    let namespace = (!namespace.is_empty()).then_some(namespace);
                    world.lost_meta(&ObjectMeta { uid: Some(uid), namespace, ..ObjectMeta::default() });
                }
                brought.clear();
                listed.tell();
            }
        }
    }
}
