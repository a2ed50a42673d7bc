//! What all workers of an agent share: how it is set up, whom it talks to, and what it shows of its pods.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::reflector;
use policy::node_facts::NodeFacts;
use tokio::sync::{mpsc, watch};

use super::{
    announce::{Announcer, Bound},
    events::Recorder,
    link::Link,
    programmed::Programmed,
    report::Subject,
    watch::Announced,
};
use crate::{
    images::ImageStore,
    net::{Network, NodeNet},
};

/// How an agent is set up; see ARCHITECTURE.md for the directories.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: String,
    /// From 1; its block of pod addresses follows from it.
    pub index: u32,
    pub cluster_id: String,
    /// How many nodes the cluster has.
    pub nodes: u32,
    pub v4: Network<Ipv4Addr>,
    /// None where the cluster has no IPv6.
    pub v6: Option<Network<Ipv6Addr>>,
    /// The addresses of the cluster's name service, one of each family, as the kubelet's `--cluster-dns`; none if it has none.
    pub cluster_dns: Vec<IpAddr>,
    pub mtu: u32,
    /// Holds `control.sock`, the API server's for this node, and is given `agent.sock`. To be where no pod gets at it.
    pub sockets_dir: PathBuf,
    /// `/run/cofferdam` of the node.
    pub run_dir: PathBuf,
    /// `/var/lib/cofferdam/pods` of the node.
    pub pods_dir: PathBuf,
    /// `/var/log/pods` of the node.
    pub logs_dir: PathBuf,
    /// The user of the control process, who may connect to the agent's socket beside root.
    pub control_uid: u32,
}

impl Config {
    /// The node's own addresses, IPv4 first.
    pub fn ips(&self) -> Vec<String> {
        let v6 = self.v6.as_ref().map(|v6| v6.node_ip.to_string());
        [self.v4.node_ip.to_string()].into_iter().chain(v6).collect()
    }
    /// The pod's cgroup below each hierarchy.
    pub fn pod_cgroup(&self, uid: &str) -> PathBuf {
        PathBuf::from(format!("cofferdam-{}/{}/pod{uid}", self.cluster_id, self.node))
    }
    /// The names of the other nodes.
    pub fn others(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.nodes).filter(|index| *index != self.index).map(|index| format!("node-{index}"))
    }
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }
    pub fn log_dir(&self, subject: &Subject) -> PathBuf {
        self.logs_dir.join(format!("{}_{}_{}", subject.namespace, subject.name, subject.uid))
    }
}

pub struct Context {
    pub config: Config,
    pub client: kube::Client,
    pub facts: NodeFacts,
    pub images: ImageStore,
    pub net: Arc<NodeNet>,
    pub recorder: Recorder,
    /// What the packet filter holds of the policies.
    pub programmed: Programmed,
    /// The keeper's program, sealed.
    pub keeper: OwnedFd,
    /// Changes when an image was loaded or pulled.
    pub images_changed: watch::Receiver<u64>,
    /// Where every pod of the cluster is bound to.
    pub bound: Bound,
    /// Tells the other nodes of new pods' addresses.
    pub announcer: Announcer,
    /// What they tell this one.
    pub announced: mpsc::Sender<Announced>,
    /// All services, for the environment.
    pub services: reflector::Store<Service>,
    pub(super) views: Mutex<HashMap<(String, String), Arc<PodView>>>,
}

impl Context {
    /// What is shown of a pod; made when it is first asked for.
    pub fn view(&self, subject: &Subject) -> Arc<PodView> {
        let key = (subject.namespace.clone(), subject.name.clone());
        let mut views = lock(&self.views);
        match views.get(&key) {
            // A pod of the same name with another uid is another pod.
            Some(view) if view.uid == subject.uid => view.clone(),
            _ => {
                let view = Arc::new(PodView { uid: subject.uid.clone(), shown: watch::Sender::default() });
                views.insert(key, view.clone());
                view
            }
        }
    }

    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        lock(&self.views).get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn forget(&self, subject: &Subject) {
        let key = (subject.namespace.clone(), subject.name.clone());
        let mut views = lock(&self.views);
        if views.get(&key).is_some_and(|view| view.uid == subject.uid) {
            views.remove(&key);
        }
    }
}

/// What a pod's worker shows to the agent's server.
pub struct PodView {
    pub uid: String,
    shown: watch::Sender<Shown>,
}

#[derive(Clone, Default)]
pub struct Shown {
    pub pod: Option<Arc<Pod>>,
    pub link: Option<Link>,
    /// Attempt, and whether it runs, of each container that was started.
    pub containers: BTreeMap<String, (u32, bool)>,
}

impl PodView {
    pub fn show(&self, link: Option<Link>, containers: BTreeMap<String, (u32, bool)>, pod: Arc<Pod>) {
        self.shown.send_replace(Shown { pod: Some(pod), link, containers });
    }

    pub fn shown(&self) -> Shown {
        self.shown.borrow().clone()
    }

    /// Tells of every change of what is shown.
    pub fn changes(&self) -> watch::Receiver<Shown> {
        self.shown.subscribe()
    }
}

/// A panic elsewhere leaves these maps whole: every change to them is one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
