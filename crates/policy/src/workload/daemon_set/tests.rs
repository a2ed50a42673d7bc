//! DaemonSets in a small world: pods start on the node they are made for, get ready, and go when they are deleted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use super::*;
use crate::workload::history::{self, Present, REVISION, outlived, present};

const START: &str = "2026-01-01T00:00:00Z";

fn owner() -> OwnerReference {
    serde_json::from_value(
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "D", "controller": true }),
    )
    .unwrap()
}

fn node(name: &str, labels: Value, taints: Value) -> Node {
    serde_json::from_value(
        json!({ "metadata": { "name": name, "labels": labels }, "spec": { "taints": taints } }),
    )
    .unwrap()
}

fn set(strategy: Value, pod_spec: Value) -> DaemonSet {
    let mut spec = json!({ "containers": [{ "name": "c", "image": "one" }] });
    for (key, value) in pod_spec.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(
        json!({ "metadata": { "name": "d", "namespace": "n", "uid": "D", "generation": 1 },
        "spec": { "selector": { "matchLabels": { "app": "d" } }, "updateStrategy": strategy,
                  "template": { "metadata": { "labels": { "app": "d" } }, "spec": spec } } }),
    )
    .unwrap()
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } })
}

struct World {
    set: DaemonSet,
    nodes: Vec<Node>,
    pods: BTreeMap<String, Pod>,
    made: usize,
    now: Timestamp,
    hash: String,
    notes: Vec<String>,
    backoff: Backoff,
    recheck: Option<SignedDuration>,
    /// The fewest ready at any time since it was last set.
    fewest: usize,
    most: usize,
}

impl World {
    fn new(set: DaemonSet, nodes: Vec<Node>) -> World {
        World {
            set,
            nodes,
            pods: BTreeMap::new(),
            made: 0,
            now: START.parse().unwrap(),
            hash: "one".into(),
            notes: Vec::new(),
            backoff: Backoff::default(),
            recheck: None,
            fewest: 0,
            most: 0,
        }
    }

    fn step(&mut self) {
        let look = |world: &World| {
            let pods: Vec<&Pod> = world.pods.values().collect();
            let nodes: Vec<&Node> = world.nodes.iter().collect();
            plan(&world.set, &pods, &nodes, &world.hash, &owner(), &world.backoff, world.now)
        };
        let first = look(self);
        self.notes.extend(first.notes.into_iter().map(|note| format!("{}: {}", note.reason, note.message)));
        for node in first.failed {
            self.backoff.replaced(&self.set, &node, self.now);
        }
        for name in first.delete {
            self.pods.remove(&name).unwrap();
        }
        for mut pod in first.create {
            self.made += 1;
            let name = format!("p{:02}", self.made);
            pod.metadata.name = Some(name.clone());
            pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                self.now + SignedDuration::from_secs(self.made as i64),
            ));
            self.pods.insert(name, pod);
        }
        let then = look(self);
        self.set.status = Some(then.status);
        self.recheck = then.recheck;
        let ready = self.pods.values().filter(|pod| is_ready(pod)).count();
        self.fewest = self.fewest.min(ready);
        self.most = self.most.max(self.pods.len());
    }

    fn ready(&mut self) {
        let since = self.now.to_string();
        for pod in self.pods.values_mut() {
            let node = make::node_of(pod).to_owned();
            pod.spec.as_mut().unwrap().node_name = Some(node);
            pod.status.get_or_insert_with(|| {
                let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": since }]);
                serde_json::from_value(json!({ "phase": "Running", "conditions": ready })).unwrap()
            });
        }
    }

    /// Until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..60 {
            let before = (self.set.clone(), self.pods.clone());
            self.step();
            self.ready();
            if before == (self.set.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("never settles: {:?}", self.set.status);
    }

    fn nodes_with_pods(&self) -> Vec<String> {
        let mut all: Vec<String> = self.pods.values().map(|pod| make::node_of(pod).to_owned()).collect();
        all.sort();
        all
    }

    /// desired, current, ready, updated, available, misscheduled
    fn counts(&self) -> [i32; 6] {
        let status = self.set.status.as_ref().unwrap();
        [
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_ready,
            status.updated_number_scheduled.unwrap_or(0),
            status.number_available.unwrap_or(0),
            status.number_misscheduled,
        ]
    }
}

fn three() -> Vec<Node> {
    ["a", "b", "c"].map(|name| node(name, json!({}), json!([]))).to_vec()
}

#[test]
fn every_node_gets_its_pod_and_one_that_comes_later_too() {
    let mut world = World::new(set(rolling(json!(1), json!(0)), json!({})), three());
    world.settle();
    assert_eq!(
        (world.nodes_with_pods(), world.counts()),
        (vec!["a".into(), "b".into(), "c".into()], [3, 3, 3, 3, 3, 0])
    );
    let pod = &world.pods["p01"];
    assert_eq!(pod.metadata.labels.as_ref().unwrap()[REVISION], "one");
    let spec = serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
    let term = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        [0];
    assert_eq!(term["matchFields"], json!([{ "key": "metadata.name", "operator": "In", "values": ["a"] }]));
    let tolerated: BTreeSet<&str> =
        spec["tolerations"].as_array().unwrap().iter().filter_map(|t| t["key"].as_str()).collect();
    assert!(tolerated.contains("node.kubernetes.io/unschedulable") && tolerated.len() == 6, "{tolerated:?}");
    world.nodes.push(node("d", json!({}), json!([])));
    world.settle();
    assert_eq!((world.made, world.counts()[0]), (4, 4));
    world.pods.remove("p02");
    world.settle();
    assert_eq!((world.made, world.nodes_with_pods().len()), (5, 4), "one that is lost is made again");
}

#[test]
fn selectors_and_taints_say_which_nodes_are_its_own() {
    let nodes = || {
        vec![
            node("plain", json!({}), json!([])),
            node("disk", json!({ "disk": "ssd" }), json!([])),
            node("tainted", json!({ "disk": "ssd" }), json!([{ "key": "own", "effect": "NoSchedule" }])),
            node(
                "sick",
                json!({ "disk": "ssd" }),
                json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }]),
            ),
        ]
    };
    let tolerates = json!([{ "key": "own", "operator": "Exists" }]);
    for (spec, want) in [
        (json!({}), vec!["disk", "plain", "sick"]),
        (json!({ "nodeSelector": { "disk": "ssd" } }), vec!["disk", "sick"]),
        (
            json!({ "nodeSelector": { "disk": "ssd" }, "tolerations": tolerates }),
            vec!["disk", "sick", "tainted"],
        ),
        (json!({ "nodeName": "plain" }), vec!["plain"]),
    ] {
        let mut world = World::new(set(rolling(json!(1), json!(0)), spec.clone()), nodes());
        world.settle();
        assert_eq!(world.nodes_with_pods(), want, "{spec}");
    }
    // A taint that comes later drives away what it says it does.
    let mut world = World::new(set(rolling(json!(1), json!(0)), json!({})), three());
    world.settle();
    world.nodes[0] = node("a", json!({}), json!([{ "key": "own", "effect": "NoSchedule" }]));
    world.nodes[1] = node("b", json!({}), json!([{ "key": "own", "effect": "NoExecute" }]));
    world.settle();
    assert_eq!((world.nodes_with_pods(), world.counts()), (vec!["a".into(), "c".into()], [1, 1, 1, 1, 1, 1]));
}

#[test]
fn a_new_template_comes_node_by_node() {
    for (unavailable, at_least) in [(json!(1), 2), (json!(2), 1), (json!("50%"), 1), (json!("100%"), 0)] {
        let mut world = World::new(set(rolling(unavailable.clone(), json!(0)), json!({})), three());
        world.settle();
        world.hash = "two".into();
        world.fewest = 3;
        world.settle();
        assert_eq!((world.made, world.counts()), (6, [3, 3, 3, 3, 3, 0]), "{unavailable}");
        assert_eq!((world.fewest, world.most), (at_least, 3), "{unavailable}");
    }
}

#[test]
fn a_surge_puts_the_new_pod_beside_the_old_one() {
    let mut world = World::new(set(rolling(json!(0), json!(1)), json!({})), three());
    world.settle();
    world.hash = "two".into();
    (world.fewest, world.most) = (3, 3);
    world.settle();
    assert_eq!((world.counts(), world.fewest, world.most), ([3, 3, 3, 3, 3, 0], 3, 4));
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut world = World::new(set(json!({ "type": "OnDelete" }), json!({})), three());
    world.settle();
    world.hash = "two".into();
    world.settle();
    assert_eq!((world.made, world.counts()), (3, [3, 3, 3, 0, 3, 0]));
    world.pods.remove("p01");
    world.settle();
    assert_eq!(world.counts()[3], 1);
}

#[test]
fn a_pod_is_available_when_it_was_ready_for_long_enough() {
    let mut world = World::new(set(rolling(json!(1), json!(0)), json!({})), three());
    world.set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    world.settle();
    assert_eq!((world.counts(), world.recheck), ([3, 3, 3, 3, 0, 0], Some(SignedDuration::from_secs(30))));
    world.now += SignedDuration::from_secs(30);
    world.settle();
    assert_eq!(world.counts()[4], 3);
}

#[test]
fn what_failed_is_made_again_after_ever_longer() {
    let mut world = World::new(set(rolling(json!(1), json!(0)), json!({})), three());
    world.settle();
    let fail = |world: &mut World, node: &str| {
        let pod = world.pods.values_mut().find(|pod| make::node_of(pod) == node).unwrap();
        pod.status = Some(serde_json::from_value(json!({ "phase": "Failed" })).unwrap());
        world.settle();
    };
    // The first one goes at once, each further one after twice as long.
    fail(&mut world, "a");
    assert_eq!((world.made, world.recheck), (4, None));
    assert_eq!(
        world.notes,
        ["FailedDaemonPod: Found failed daemon pod n/p01 on node a, will try to kill it"]
    );
    let mut made = world.made;
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
        fail(&mut world, "a");
        let left = SignedDuration::from_secs(seconds);
        assert_eq!((world.made, world.recheck), (made, Some(left)), "{seconds}");
        assert_eq!(world.counts()[2], 2, "it holds its place");
        world.now += left;
        world.settle();
        made += 1;
        assert_eq!((world.made, world.counts()[2], world.recheck), (made, 3, None), "{seconds}");
    }
    // That was one node, and one template.
    fail(&mut world, "b");
    assert_eq!((world.made, world.recheck), (made + 1, None));
    world.set.metadata.generation = Some(2);
    world.settle();
    fail(&mut world, "a");
    assert_eq!((world.made, world.recheck), (made + 2, None));
    // And it is forgotten in time.
    world.now += SignedDuration::from_mins(31);
    fail(&mut world, "a");
    fail(&mut world, "a");
    assert_eq!((world.made, world.recheck), (made + 3, Some(SignedDuration::from_secs(1))));
}

#[test]
fn revisions_remember_each_template_once() {
    let image = |name: &str| set(json!({}), json!({ "containers": [{ "name": "c", "image": name }] }));
    let mut revisions: Vec<ControllerRevision> = Vec::new();
    let mut settle = |set: &DaemonSet| {
        let now = present(set, &revisions, &owner());
        let revision = now.revision().clone();
        match now {
            Present::Is(_) => "is",
            Present::Create(_) => {
                revisions.push(revision.clone());
                "created"
            }
            Present::Renumber(_) => {
                revisions.retain(|one| one.metadata.name != revision.metadata.name);
                revisions.push(revision.clone());
                "renumbered"
            }
        };
        (now_word(&revisions, &revision), revision)
    };
    fn now_word(all: &[ControllerRevision], one: &ControllerRevision) -> (usize, i64) {
        (all.len(), one.revision)
    }
    let (count, first) = settle(&image("one"));
    assert_eq!(count, (1, 1));
    let name = first.metadata.name.as_deref().unwrap();
    assert_eq!(name, format!("d-{}", history::hash_of::<DaemonSet>(&first)));
    assert_eq!(first.metadata.labels.as_ref().unwrap()["app"], "d");
    let data = json!(first.data);
    assert_eq!(data["spec"]["template"]["$patch"], "replace");
    assert_eq!(data["spec"]["template"]["spec"]["containers"][0]["image"], "one");
    assert_eq!(settle(&image("one")).0, (1, 1), "nothing new");
    let (count, second) = settle(&image("two"));
    assert_eq!(count, (2, 2));
    assert_ne!(history::hash_of::<DaemonSet>(&first), history::hash_of::<DaemonSet>(&second));
    let (count, again) = settle(&image("one"));
    assert_eq!(
        (count, history::hash_of::<DaemonSet>(&again)),
        ((2, 3), history::hash_of::<DaemonSet>(&first)),
        "rolled back: the same one, newest again"
    );

    let mut kept = image("one");
    kept.spec.as_mut().unwrap().revision_history_limit = Some(0);
    let hash = history::hash_of::<DaemonSet>;
    let outlived = |kept: &DaemonSet, alive: &[&ControllerRevision]| {
        outlived(kept, &revisions, |revision| alive.iter().any(|one| hash(one) == hash(revision)))
    };
    assert_eq!(outlived(&kept, &[&first, &second]), [""; 0], "pods are of it");
    assert_eq!(outlived(&kept, &[&first]), [second.metadata.name.clone().unwrap()]);
    kept.spec.as_mut().unwrap().revision_history_limit = None;
    assert_eq!(outlived(&kept, &[&first]), [""; 0]);
}
