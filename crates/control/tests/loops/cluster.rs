//! A control plane in this process, and stand-ins for its kubelets.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control::apiserver::{ApiServer, ServiceRanges, Settings, User};
use control::controllers::clock::{Clock, Machine};
use control::store::{
    Store,
    engine::{Engine, Volatile},
};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub client: Client,
    /// Images whose pods never become ready.
    bad_images: Arc<Mutex<BTreeSet<String>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

impl Cluster {
    /// Everything runs, and the nodes are ready.
    pub async fn start(nodes: &[&str]) -> Cluster {
        Cluster::start_with(Arc::new(Machine), Volatile, nodes).await
    }

    /// By another clock than the machine's.
    pub async fn start_by(clock: Arc<dyn Clock>, nodes: &[&str]) -> Cluster {
        Cluster::start_with(clock, Volatile, nodes).await
    }

    /// With this engine behind the store.
    pub async fn start_over(engine: impl Engine, nodes: &[&str]) -> Cluster {
        Cluster::start_with(Arc::new(Machine), engine, nodes).await
    }

    async fn start_with(clock: Arc<dyn Clock>, engine: impl Engine, nodes: &[&str]) -> Cluster {
        let settings = Settings {
            address: "127.0.0.1:6443".into(),
            run_dir: PathBuf::from("/nonexistent"),
            ranges: ServiceRanges::with_cidr("10.96.0.0/16"),
            tokens: Arc::new(control::tokens::Tokens::ephemeral().unwrap()),
            audit: control::audit::Audit::none(),
            pod_security: Default::default(),
        };
        let server = ApiServer::new(Store::open(engine).unwrap(), settings).unwrap();
        let client = server.client(User::admin());
        // Without their roles the loops may do nothing.
        control::authorization::bootstrap::run(&client).await.unwrap();
        let loops = server.clone();
        let scheduler = server.client_ahead(User::new("system:kube-scheduler", []));
        let bad_images = Arc::new(Mutex::new(BTreeSet::new()));
        let tasks = vec![
            tokio::spawn(control::controllers::run_by(
                clock,
                move |user| loops.client(user),
                "the CA".to_string(),
            )),
            tokio::spawn(control::scheduler::run(scheduler)),
            tokio::spawn(kubelets(client.clone(), bad_images.clone())),
        ];
        let cluster = Cluster { client, bad_images, tasks };
        cluster.namespace("default").await;
        for node in nodes {
            cluster.node(node).await;
        }
        cluster
    }

    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits for its ServiceAccount: without it no pod is let in.
    pub async fn namespace(&self, name: &str) {
        let api: Api<Namespace> = self.all();
        if api.get_opt(name).await.unwrap().is_none() {
            api.create(&PostParams::default(), &from(json!({ "metadata": { "name": name } }))).await.unwrap();
        }
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client.clone(), name);
        eventually("the default ServiceAccount", async || accounts.get_opt("default").await.unwrap()).await;
    }

    pub async fn node(&self, name: &str) {
        let api: Api<Node> = self.all();
        let node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } });
        api.create(&PostParams::default(), &from(node)).await.unwrap();
        let status = json!({ "status": {
            "allocatable": { "cpu": "16", "memory": "32Gi", "pods": "110" },
            "capacity": { "cpu": "16", "memory": "32Gi", "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" }] } });
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
    }

    pub fn never_ready(&self, image: &str) {
        self.bad_images.lock().unwrap().insert(image.to_string());
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + serde::Serialize,
    {
        self.api::<K>().create(&PostParams::default(), &from(object)).await.unwrap()
    }

    pub async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    pub async fn delete<K>(&self, name: &str, params: DeleteParams)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &params).await.unwrap();
    }

    pub async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.unwrap().items
    }

    /// The pod, once it has a node.
    pub async fn bound(&self, name: &str) -> String {
        let api = self.api::<Pod>();
        eventually(&format!("{name} is bound"), async || {
            api.get_opt(name).await.unwrap().and_then(|pod| pod.spec.and_then(|s| s.node_name))
        })
        .await
    }

    /// Messages of the events of an object with this reason.
    pub async fn events(&self, object: &str, reason: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let is_it = |e: &Event| {
            e.involved_object.name.as_deref() == Some(object) && e.reason.as_deref() == Some(reason)
        };
        events.into_iter().filter(is_it).filter_map(|event| event.message).collect()
    }

    /// Waits until the newest template runs everywhere and nothing else does.
    pub async fn rolled_out(&self, name: &str) -> Deployment {
        let api = self.api::<Deployment>();
        eventually(&format!("{name} is rolled out"), async || {
            let deployment = api.get(name).await.unwrap();
            let wanted = deployment.spec.as_ref().unwrap().replicas;
            let status = deployment.status.clone().unwrap_or_default();
            let counts = [status.updated_replicas, status.replicas, status.available_replicas];
            let seen = status.observed_generation == deployment.metadata.generation;
            (seen && counts.iter().all(|count| *count == wanted)).then_some(deployment)
        })
        .await
    }
}

/// Does the kubelets' part: pods that are bound run and get ready, pods that are deleted go.
async fn kubelets(client: Client, bad_images: Arc<Mutex<BTreeSet<String>>>) {
    let mut events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).boxed();
    let mut addresses = 0u32;
    while let Some(event) = events.next().await {
        let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else { continue };
        let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.is_some()) else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            tokio::spawn(async move {
                let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            });
            continue;
        }
        if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Pending") {
            continue;
        }
        addresses += 1;
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + addresses);
        let image = spec.containers[0].image.clone().unwrap_or_default();
        let ready = if bad_images.lock().unwrap().contains(&image) { "False" } else { "True" };
        let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
        tokio::spawn(async move {
            let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await;
        });
    }
}

pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A value the closure gives in the end.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn pod(name: &str, container: Value) -> Value {
    let mut full = json!({ "name": "c", "image": "web" });
    full.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": "web" } },
            "spec": { "containers": [full] } })
}

pub fn deployment(name: &str, replicas: u32) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": name } },
                      "template": { "metadata": { "labels": { "app": name } },
                                    "spec": { "containers": [{ "name": "c", "image": "one" }] } } } })
}
