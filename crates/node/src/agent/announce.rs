//! New pods' addresses, told to the other nodes before the pods' first instruction.
//!
//! A node judges packets of a pod elsewhere by the address that pod has. It learns the address from the pod's status; but
//! a pod that connects in its first instruction is faster than that, and would be refused although a policy allows it. So
//! where a policy means a new pod as a peer, its node tells the nodes of that policy's pods the address, and the pod's
//! containers wait until those say that their rules have it. The API server passes the word on from agent to agent, so
//! that it is known who speaks; as with a status, a node speaks for the pods that are bound to it and for no others.
//!
//! A node that has not seen the pod itself yet keeps the question until it has: nobody asks again and again. Such a pod
//! holds up no other one. A node that does not answer is waited for once, for three seconds at most, and one that answers but sees
//! none of the pods it is told of once for five; then they are told but not waited for until they take in what they are
//! told. What a node misses it reads from the pods' statuses, and until then its rules refuse the pod: nothing is ever open
//! for want of a word.

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

/// A node whose agent says nothing for so long is not waited for. Long: on a machine that is busy with a burst of pods an
/// answer may take a second, and who is not waited for refuses the first packets of many. An agent that is not there
/// at all is known at once.
const SILENCE: Duration = Duration::from_secs(3);
/// An agent that is not there may be starting again; it is asked again for so long, after a pause that doubles.
const RESTART: Duration = Duration::from_millis(300);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest that a pod waits for a node that does answer, but has not heard of the pod itself yet.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a node keeps a question about a pod that it has not heard of before it says so; less than [`SILENCE`]. It
/// answers as soon as it hears of it.
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
    /// Starts the senders for each of the nodes `others`; must be called within the runtime. `bound` says which pods are
    /// still there.
    pub fn start(
        client: &kube::Client,
        bound: &Bound,
        others: impl IntoIterator<Item = String>,
    ) -> Announcer {
        Announcer::with_patience(client, bound, others, LONGEST)
    }

    fn with_patience(
        client: &kube::Client,
        bound: &Bound,
        others: impl IntoIterator<Item = String>,
        longest: Duration,
    ) -> Announcer {
        let peers = others.into_iter().map(|node| {
            let (queue, waiting) = mpsc::channel(QUEUE);
            let (later, late) = mpsc::channel(QUEUE);
            let follows = Arc::new(AtomicBool::new(true));
            let teller = Teller {
                client: client.clone(),
                node: node.clone(),
                bound: bound.clone(),
                follows: follows.clone(),
                longest,
            };
            tokio::spawn(teller.clone().first(waiting, later));
            tokio::spawn(teller.again(late));
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

/// What speaks to one node. Two tasks: one tells of each pod for the first time, the other asks about those that the node had
/// not heard of then, so that these hold up no others. Each has one request under way at a time; what comes meanwhile goes
/// with the next.
#[derive(Clone)]
struct Teller {
    client: kube::Client,
    node: String,
    bound: Bound,
    follows: Arc<AtomicBool>,
    /// The longest that a pod waits for a node that has not heard of it.
    longest: Duration,
}

impl Teller {
    async fn first(self, mut queue: mpsc::Receiver<Waiting>, later: mpsc::Sender<Waiting>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let late = self.ask(std::mem::take(&mut batch)).await.unwrap_or_default();
            for one in late.into_iter().filter(|waiting| !waiting.taken_in.is_closed()) {
                // Where there is no room, who waits learns it by the channel's end, as below.
                later.try_send(one).ok();
            }
        }
    }

    async fn again(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut batch: Vec<Waiting> = Vec::new();
        // When the node last took in a pod that it had not heard of.
        let mut last_heard = None;
        loop {
            let room = BATCH.saturating_sub(batch.len());
            if batch.is_empty() {
                if queue.recv_many(&mut batch, room).await == 0 {
                    return;
                }
            } else {
                batch.extend(std::iter::from_fn(|| queue.try_recv().ok()).take(room));
            }
            let asked = batch.len();
            // The node keeps the question until it has an answer: this does not turn by itself.
            batch = self.ask(std::mem::take(&mut batch)).await.unwrap_or_default();
            if batch.len() < asked {
                last_heard = Some(Instant::now());
            }
            // What is gone here as well the node need never hear of, and who has given up waits no more.
            batch.retain(|waiting| {
                self.bound.node_of(&waiting.address.uid).is_some() && !waiting.taken_in.is_closed()
            });
            let overdue = |waiting: &Waiting| waiting.since.elapsed() >= self.longest;
            if batch.iter().any(|one| overdue(one) && last_heard.is_none_or(|heard| heard < one.since)) {
                // It has heard of no pod for so long: its watch stands still, and the next pod would wait in vain too.
                self.follows.store(false, Ordering::Relaxed);
            }
            batch.retain(|waiting| !overdue(waiting));
        }
    }

    /// Those of the pods that the node has not heard of yet; the others' starts go on. None if it does not answer: those
    /// who wait learn it by their channel's end, and the node reads the pods' statuses when it is there again.
    async fn ask(&self, batch: Vec<Waiting>) -> Option<Vec<Waiting>> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let missing = loop {
            match tokio::time::timeout(SILENCE, tell(&self.client, &self.node, &batch)).await {
                Ok(Ok(missing)) => break missing,
                Ok(Err(_)) if began.elapsed() < RESTART && self.follows.load(Ordering::Relaxed) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Ok(Err(_)) | Err(_) => {
                    self.follows.store(false, Ordering::Relaxed);
                    return None;
                }
            }
        };
        let (late, heard): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| missing.pods.contains(&waiting.address.uid));
        if !heard.is_empty() {
            self.follows.store(true, Ordering::Relaxed);
        }
        for waiting in heard {
            // Its pod may be gone by now.
            waiting.taken_in.send(()).ok();
        }
        Some(late)
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

    /// A bound pod as the agent itself knows it.
    fn known(bound: &Bound, uid: &str) -> Address {
        lock(&bound.0).insert(uid.to_owned(), "node-1".to_owned());
        address(uid, "10.244.1.2")
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_waited_for_once() {
        // Nobody listens there.
        let client = crate::client::unix("/nonexistent/control.sock");
        let bound = Bound::default();
        let announcer = Announcer::start(&client, &bound, ["node-2".to_owned()]);
        let nodes = ["node-2".to_owned(), "node-3".to_owned()].into();
        assert_eq!(announcer.announce(&known(&bound, "p"), &nodes).await, ["node-2"]);
        assert!(!announcer.peers[0].follows.load(Ordering::Relaxed));
        let began = Instant::now();
        assert_eq!(announcer.announce(&known(&bound, "q"), &nodes).await, ["node-2"]);
        assert!(began.elapsed() < RESTART, "the next pod does not wait");
    }

    /// Another node behind the API server: answers each request by what `hears` makes of the pods in it.
    async fn other_node<F>(
        socket: &std::path::Path,
        hears: impl Fn(Vec<String>) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = Vec<String>> + Send + 'static,
    {
        use http_body_util::{BodyExt, Full};
        use hyper::{Response, body::Incoming, service::service_fn};
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hears = hears.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let hears = hears.clone();
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let announcement: Announcement = serde_json::from_slice(&body).unwrap();
                        let uids = announcement.pods.into_iter().map(|pod| pod.uid).collect();
                        let missing = Missing { pods: hears(uids).await };
                        let body = serde_json::to_vec(&missing).unwrap();
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from(body))))
                    }
                });
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            }
        });
    }

    #[tokio::test]
    async fn a_pod_that_the_other_node_has_not_heard_of_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        // It keeps a question about `late` as long as it may, and never hears of it.
        other_node(&socket, async |uids: Vec<String>| {
            let late: Vec<String> = uids.into_iter().filter(|uid| uid == "late").collect();
            if !late.is_empty() {
                tokio::time::sleep(HOLD).await;
            }
            late
        })
        .await;
        let bound = Bound::default();
        let announcer = Arc::new(Announcer::start(&crate::client::unix(&socket), &bound, ["node-2".into()]));
        let nodes: BTreeSet<String> = ["node-2".to_owned()].into();
        let late = {
            let (announcer, address, nodes) = (announcer.clone(), known(&bound, "late"), nodes.clone());
            tokio::spawn(async move { announcer.announce(&address, &nodes).await })
        };
        for number in 0..20 {
            let address = known(&bound, &format!("p{number}"));
            assert_eq!(announcer.announce(&address, &nodes).await, Vec::<String>::new());
        }
        assert!(!late.is_finished(), "the others did not wait for it");
        // Once it is gone here, nobody waits for the other node to hear of it; that node still follows.
        lock(&bound.0).remove("late");
        assert_eq!(late.await.unwrap(), ["node-2"]);
        assert!(announcer.peers[0].follows.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_node_whose_watch_stands_still_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let sees = Arc::new(AtomicBool::new(false));
        let seeing = sees.clone();
        other_node(&socket, move |uids| {
            let sees = seeing.load(Ordering::Relaxed);
            async move {
                if sees {
                    return Vec::new();
                }
                tokio::time::sleep(HOLD).await;
                uids
            }
        })
        .await;
        let bound = Bound::default();
        let client = crate::client::unix(&socket);
        let announcer = Announcer::with_patience(&client, &bound, ["node-2".to_owned()], HOLD);
        let nodes: BTreeSet<String> = ["node-2".to_owned()].into();
        assert_eq!(announcer.announce(&known(&bound, "p"), &nodes).await, ["node-2"]);
        let follows = || announcer.peers[0].follows.load(Ordering::Relaxed);
        assert!(!follows(), "the next pod is told and not waited for");
        sees.store(true, Ordering::Relaxed);
        while !follows() {
            announcer.announce(&known(&bound, "q"), &nodes).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(announcer.announce(&known(&bound, "r"), &nodes).await, Vec::<String>::new());
    }
}
