//! New pods' addresses, told to the other nodes before the pods' first instruction.
//!
//! A node judges packets of a pod elsewhere by the address that pod has. It learns the address from the pod's status; but
//! a pod that connects in its first instruction is faster than that, and would be refused although a policy allows it. So
//! where a policy means a new pod as a peer, its node tells the nodes of that policy's pods the address, and the pod's
//! containers wait until those say that their rules have it. The API server passes the word on from agent to agent, so
//! that it is known who speaks; as with a status, a node speaks for the pods that are bound to it and for no others.
//!
//! A node that does not answer is waited for once, less than a second, and then told but not waited for until it answers
//! again. What it misses it reads from the pods' statuses.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use policy::network_policy::PodRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::context::lock;

/// A node whose agent says nothing for so long is not waited for.
const SILENCE: Duration = Duration::from_secs(1);
/// An agent that is not there may be starting again; it is asked again for so long, with these pauses.
const RESTART: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(20);
/// The longest that a pod waits for nodes that do answer, but have not heard of the pod itself yet.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a node waits to hear of a pod before it answers that it has not.
pub const HOLD: Duration = Duration::from_millis(100);
/// How many pods may wait to be announced to a node. More than a node holds.
const QUEUE: usize = 512;
/// How many go as one request.
const BATCH: usize = 128;

/// A pod and the addresses it has from now on, which nobody else has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub uid: String,
    pub addresses: Vec<IpAddr>,
}

/// What one agent tells another in one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub pods: Vec<Address>,
}

/// What the other one answers: the uids of the pods it has not heard of yet. Its rules have the addresses of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub pods: Vec<String>,
}

/// A pod to be announced, and who waits for the answer.
struct Waiting {
    address: Address,
    since: Instant,
    taken_in: oneshot::Sender<()>,
}

struct Peer {
    node: String,
    queue: mpsc::Sender<Waiting>,
    /// It took in what it was told last.
    follows: Arc<AtomicBool>,
}

/// Tells the other nodes.
pub struct Announcer {
    peers: Vec<Peer>,
}

impl Announcer {
    /// Starts a sender for each of the nodes `others`; must be called within the runtime.
    pub fn start(client: &kube::Client, others: impl IntoIterator<Item = String>) -> Announcer {
        let peers = others.into_iter().map(|node| {
            let (queue, waiting) = mpsc::channel(QUEUE);
            let follows = Arc::new(AtomicBool::new(true));
            tokio::spawn(send(client.clone(), node.clone(), waiting, follows.clone()));
            Peer { node, queue, follows }
        });
        Announcer { peers: peers.collect() }
    }

    /// How many nodes there are beside this one.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Tells these nodes, and waits for those that follow. Returns the names of the nodes that have not taken it in.
    pub async fn announce(&self, address: &Address, nodes: &BTreeSet<String>) -> Vec<String> {
        let told = self.peers.iter().filter(|peer| nodes.contains(&peer.node)).map(|peer| async move {
            let (taken_in, answer) = oneshot::channel();
            let waiting = Waiting { address: address.clone(), since: Instant::now(), taken_in };
            let followed = peer.follows.load(Ordering::Relaxed);
            let heard = peer.queue.try_send(waiting).is_ok() && followed && answer.await.is_ok();
            (!heard).then(|| peer.node.clone())
        });
        join_all(told).await.into_iter().flatten().collect()
    }
}

/// One request to a node at a time; what comes meanwhile goes with the next.
async fn send(
    client: kube::Client,
    node: String,
    mut queue: mpsc::Receiver<Waiting>,
    follows: Arc<AtomicBool>,
) {
    let mut batch: Vec<Waiting> = Vec::new();
    let mut refused: Option<Instant> = None;
    loop {
        let room = BATCH.saturating_sub(batch.len());
        if batch.is_empty() {
            if queue.recv_many(&mut batch, room).await == 0 {
                return;
            }
        } else {
            batch.extend(std::iter::from_fn(|| queue.try_recv().ok()).take(room));
        }
        match tokio::time::timeout(SILENCE, tell(&client, &node, &batch)).await {
            Ok(Ok(missing)) => {
                refused = None;
                follows.store(true, Ordering::Relaxed);
                let (late, heard): (Vec<_>, Vec<_>) =
                    batch.into_iter().partition(|waiting| missing.pods.contains(&waiting.address.uid));
                for waiting in heard {
                    // Its pod may be gone by now.
                    waiting.taken_in.send(()).ok();
                }
                batch = late;
                batch.retain(|waiting| waiting.since.elapsed() < LONGEST);
                if !batch.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(Err(_)) if refused.get_or_insert_with(Instant::now).elapsed() < RESTART => {
                tokio::time::sleep(PAUSE).await;
            }
            // Those who wait learn it by their channel's end. The node reads the pods' statuses when it is there again.
            Ok(Err(_)) | Err(_) => {
                follows.store(false, Ordering::Relaxed);
                batch.clear();
            }
        }
    }
}

async fn tell(client: &kube::Client, node: &str, batch: &[Waiting]) -> Result<Missing, kube::Error> {
    let pods = batch.iter().map(|waiting| waiting.address.clone()).collect();
    let body = serde_json::to_vec(&Announcement { pods }).map_err(kube::Error::SerdeError)?;
    let request = Request::post(format!("/cofferdam/v1/nodes/{node}/addresses"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// The node each pod is bound to, by the pod's uid. Shared: cheap to clone.
#[derive(Clone, Default)]
pub struct Bound(Arc<Mutex<HashMap<String, String>>>);

impl Bound {
    pub fn node_of(&self, uid: &str) -> Option<String> {
        lock(&self.0).get(uid).cloned()
    }
}

/// What this agent was told by others, and what a pod's own status says about it later.
#[derive(Default)]
pub struct Told {
    bound: Bound,
    holders: HashMap<IpAddr, String>,
    pods: HashMap<String, Holding>,
}

struct Holding {
    addresses: Vec<IpAddr>,
    /// The pod's status showed them: from now on it counts where it differs.
    shown: bool,
}

/// What became of a pod that was announced.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has the addresses, and these pods have lost theirs.
    Now { losers: Vec<String> },
    /// No such pod is known yet.
    Unknown,
    /// It is not the pod of the node that speaks.
    NotTheirs,
}

impl Told {
    pub fn new(bound: Bound) -> Told {
        Told { bound, ..Told::default() }
    }

    /// A pod as the API server has it now: puts the addresses that its node has announced into its record.
    pub fn seen(&mut self, pod: &Pod, record: &mut PodRecord) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        match node {
            Some(node) => lock(&self.bound.0).insert(record.uid.clone(), node.clone()),
            None => lock(&self.bound.0).remove(&record.uid),
        };
        let Some(holding) = self.pods.get_mut(&record.uid) else { return };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let as_told = holding.addresses.iter().all(|address| record.addresses.contains(address));
        holding.shown |= as_told;
        // Its end, or another address after the one that was told: the status is younger.
        if matches!(phase, "Succeeded" | "Failed") || (holding.shown && !as_told) {
            self.drop_holding(&record.uid.clone());
            return;
        }
        hold(record, &holding.addresses);
    }

    pub fn gone(&mut self, uid: &str) {
        lock(&self.bound.0).remove(uid);
        self.drop_holding(uid);
    }

    /// The node `from` says that a pod has these addresses.
    pub fn tell(&mut self, from: &str, told: &Address) -> Heard {
        match self.bound.node_of(&told.uid) {
            None => return Heard::Unknown,
            Some(node) if node != from => return Heard::NotTheirs,
            Some(_) => {}
        }
        self.drop_holding(&told.uid);
        let mut losers = BTreeSet::new();
        for address in &told.addresses {
            losers.extend(self.holders.insert(*address, told.uid.clone()));
        }
        let losers: Vec<String> = losers.into_iter().collect();
        losers.iter().for_each(|uid| self.drop_holding(uid));
        // Dropping a loser must not take an address it has just lost from its new holder.
        for address in &told.addresses {
            self.holders.insert(*address, told.uid.clone());
        }
        self.pods.insert(told.uid.clone(), Holding { addresses: told.addresses.clone(), shown: false });
        Heard::Now { losers }
    }

    fn drop_holding(&mut self, uid: &str) {
        for address in self.pods.remove(uid).into_iter().flat_map(|holding| holding.addresses) {
            self.holders.remove(&address);
        }
    }
}

/// An address that was announced is this pod's, whoever else is still said to have it.
pub fn hold(record: &mut PodRecord, addresses: &[IpAddr]) {
    record.addresses = addresses.to_vec();
    record.created = crate::net::YOUNGEST.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, node: &str, phase: &str, ip: Option<&str>) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": uid, "namespace": "a", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "podIP": ip },
        }))
        .unwrap()
    }

    fn see(told: &mut Told, pod: &Pod) -> (Vec<String>, bool) {
        let mut record = PodRecord::from_api(pod, "node-1");
        told.seen(pod, &mut record);
        let addresses = record.addresses.iter().map(ToString::to_string).collect();
        (addresses, record.created == crate::net::YOUNGEST)
    }

    fn address(uid: &str, ip: &str) -> Address {
        Address { uid: uid.into(), addresses: vec![ip.parse().unwrap()] }
    }

    #[test]
    fn what_a_node_announced_counts_until_the_status_says_otherwise() {
        let mut told = Told::default();
        assert_eq!(told.tell("node-2", &address("p", "10.244.2.2")), Heard::Unknown);
        see(&mut told, &pod("p", "node-2", "Pending", None));
        assert_eq!(told.tell("node-3", &address("p", "10.244.2.2")), Heard::NotTheirs);
        assert_eq!(told.tell("node-2", &address("p", "10.244.2.2")), Heard::Now { losers: vec![] });
        let table = [
            // The pod's status as it comes, and what counts.
            (pod("p", "node-2", "Pending", None), vec!["10.244.2.2"], true),
            (pod("p", "node-2", "Running", Some("10.244.2.2")), vec!["10.244.2.2"], true),
            (pod("p", "node-2", "Running", Some("10.244.2.9")), vec!["10.244.2.9"], false),
            (pod("p", "node-2", "Running", None), vec![], false),
        ];
        for (pod, addresses, youngest) in table {
            let (is, holds) = see(&mut told, &pod);
            assert_eq!((is, holds), (addresses.iter().map(ToString::to_string).collect(), youngest));
        }
    }

    #[test]
    fn a_new_sandbox_s_address_counts_more_than_the_old_one_s_status() {
        let mut told = Told::default();
        see(&mut told, &pod("p", "node-2", "Running", Some("10.244.2.2")));
        told.tell("node-2", &address("p", "10.244.2.3"));
        assert_eq!(see(&mut told, &pod("p", "node-2", "Running", Some("10.244.2.2"))).0, ["10.244.2.3"]);
        assert_eq!(see(&mut told, &pod("p", "node-2", "Running", None)).0, ["10.244.2.3"]);
    }

    #[test]
    fn an_address_has_one_holder() {
        let mut told = Told::default();
        for uid in ["p", "q"] {
            see(&mut told, &pod(uid, "node-2", "Pending", None));
        }
        told.tell("node-2", &address("p", "10.244.2.2"));
        assert_eq!(told.tell("node-2", &address("q", "10.244.2.2")), Heard::Now { losers: vec!["p".into()] });
        assert_eq!(see(&mut told, &pod("p", "node-2", "Pending", None)), (vec![], false));
        assert_eq!(see(&mut told, &pod("q", "node-2", "Pending", None)).0, ["10.244.2.2"]);
        // A pod that has ended has none, nor one that is gone.
        assert_eq!(see(&mut told, &pod("q", "node-2", "Succeeded", Some("10.244.2.2"))), (vec![], false));
        told.tell("node-2", &address("p", "10.244.2.2"));
        told.gone("p");
        assert!(told.pods.is_empty() && told.holders.is_empty());
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_waited_for_once() {
        // Nobody listens there.
        let client = crate::client::unix("/nonexistent/control.sock");
        let announcer = Announcer::start(&client, ["node-2".to_owned()]);
        let nodes = ["node-2".to_owned(), "node-3".to_owned()].into();
        assert_eq!(announcer.announce(&address("p", "10.244.1.2"), &nodes).await, ["node-2"]);
        while announcer.peers[0].follows.load(Ordering::Relaxed) {
            tokio::time::sleep(PAUSE).await;
        }
        let began = Instant::now();
        assert_eq!(announcer.announce(&address("q", "10.244.1.3"), &nodes).await, ["node-2"]);
        assert!(began.elapsed() < RESTART, "the next pod does not wait");
    }
}
