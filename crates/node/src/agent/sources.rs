//! Follows the ConfigMaps and Secrets that the node's pods refer to, each by its name: an agent may see no others. A watch
//! begins with the first pod that refers to its object and ends with the last.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::AbortHandle};

use super::worker::Source;
use crate::volumes;

/// How many changes may wait for the agent; the watches wait then.
const QUEUE: usize = 64;

/// Namespace, and what is referred to there.
type Reference = (String, Source);

struct Followed {
    pods: usize,
    watch: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub struct Sources {
    client: kube::Client,
    changes: mpsc::Sender<Reference>,
    followed: HashMap<Reference, Followed>,
    /// By the pod's uid.
    pods: HashMap<String, BTreeSet<Reference>>,
}

/// Everything the pod's volumes and variables come from.
fn references(pod: &Pod) -> BTreeSet<Reference> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut out = BTreeSet::new();
    let mut add = |config_maps: BTreeSet<String>, secrets: BTreeSet<String>| {
        let sources = config_maps.into_iter().map(Source::ConfigMap);
        for source in sources.chain(secrets.into_iter().map(Source::Secret)) {
            out.insert((namespace.clone(), source));
        }
    };
    let of_volumes = volumes::references(pod);
    add(of_volumes.config_maps, of_volumes.secrets);
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    for container in spec.into_iter().flat_map(|spec| &spec.containers).chain(init) {
        let of_variables = policy::env::references(container);
        add(of_variables.config_maps, of_variables.secrets);
    }
    out
}

impl Sources {
    /// With the changes of what is followed: what is there when a watch begins is told as a change too.
    pub fn new(socket: PathBuf) -> (Sources, mpsc::Receiver<Reference>) {
        let (changes, receiver) = mpsc::channel(QUEUE);
        let client = crate::client::multiplexed(socket);
        (Sources { client, changes, followed: HashMap::new(), pods: HashMap::new() }, receiver)
    }

    /// A pod of this node, as it is now.
    pub fn pod(&mut self, uid: &str, pod: &Pod) {
        let now = references(pod);
        let before = self.pods.insert(uid.to_owned(), now.clone()).unwrap_or_default();
        for reference in now.difference(&before) {
            self.follow(reference);
        }
        for reference in before.difference(&now) {
            self.let_go(reference);
        }
    }

    pub fn gone(&mut self, uid: &str) {
        for reference in self.pods.remove(uid).into_iter().flatten() {
            self.let_go(&reference);
        }
    }

    fn follow(&mut self, reference: &Reference) {
        if let Some(followed) = self.followed.get_mut(reference) {
            followed.pods += 1;
            return;
        }
        let watch = match &reference.1 {
            Source::ConfigMap(name) => self.watch::<ConfigMap>(name, reference),
            Source::Secret(name) => self.watch::<Secret>(name, reference),
        };
        self.followed.insert(reference.clone(), Followed { pods: 1, watch });
    }

    fn let_go(&mut self, reference: &Reference) {
        if let Some(followed) = self.followed.get_mut(reference) {
            followed.pods -= 1;
            if followed.pods == 0 {
                self.followed.remove(reference);
            }
        }
    }

    fn watch<K>(&self, name: &str, reference: &Reference) -> AbortHandle
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K: Send + 'static,
        K::DynamicType: Default + Clone,
    {
        let api = Api::<PartialObjectMeta<K>>::namespaced(self.client.clone(), &reference.0);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}")).streaming_lists();
        let events = watcher(api, config).default_backoff();
        let (changes, reference) = (self.changes.clone(), reference.clone());
        let follow = events.for_each(move |event| {
            let (changes, reference) = (changes.clone(), reference.clone());
            async move {
                match event {
                    Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                    // Nobody listens any more when the agent ends.
                    Ok(_) => drop(changes.send(reference).await),
                    // The watcher begins anew by itself.
                    Err(error) => eprintln!("watch on {:?} in {}: {error}", reference.1, reference.0),
                }
            }
        });
        tokio::spawn(follow).abort_handle()
    }
}
