use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::jiff::ToSpan as _;
use serde_json::{Value, json};

use super::deployment::{Action, DESIRED_REPLICAS, REVISION, fenceposts, plan, template_hash};
use super::replica_set::{Scale, scale, status};
use super::*;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// A Deployment with its replica sets, whose pods become ready when told.
struct World {
    deployment: Deployment,
    sets: BTreeMap<String, ReplicaSet>,
    /// Pods that run, per replica set; those that are ready.
    running: BTreeMap<String, (i32, i32)>,
    notes: Vec<String>,
    now: Timestamp,
    writes: i64,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> World {
        let deployment = from(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "strategy": strategy,
                      "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
                      "template": { "metadata": { "labels": { "app": "web" } },
                                    "spec": { "containers": [{ "name": "c", "image": "one" }] } } },
        }));
        let (sets, running, notes) = (BTreeMap::new(), BTreeMap::new(), vec![]);
        World { deployment, sets, running, notes, now: now(), writes: 0 }
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_string());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn set_replicas(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    /// One reconcile; true if anything was written.
    fn step(&mut self) -> bool {
        let sets: Vec<ReplicaSet> = self.sets.values().cloned().collect();
        let running = self.running.clone();
        let old_pods_run =
            |old: &[&ReplicaSet]| old.iter().any(|set| running[set.metadata.name.as_ref().unwrap()].0 > 0);
        let plan = plan(&self.deployment, &sets, old_pods_run, self.now);
        self.notes.extend(plan.notes.into_iter().map(|note| note.message));
        let mut changed = self.deployment.status.as_ref() != Some(&plan.status);
        self.deployment.status = Some(plan.status);
        if let Some(revision) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.into(), revision);
            changed = true;
        }
        for action in plan.actions {
            changed = true;
            self.writes += 1;
            match action {
                Action::Create(mut set) => {
                    set.metadata.creation_timestamp = Some(from(json!(self.now + self.writes.seconds())));
                    set.metadata.generation = Some(1);
                    let name = set.metadata.name.clone().unwrap();
                    self.running.insert(name.clone(), (0, 0));
                    assert!(self.sets.insert(name, *set).is_none(), "made twice");
                }
                Action::Update(set) => {
                    assert!(self.sets.insert(set.metadata.name.clone().unwrap(), *set).is_some());
                }
                Action::Delete(name) => {
                    assert!(self.sets.remove(&name).is_some());
                }
            }
        }
        changed
    }

    /// The replica sets and the kubelets do their part; `ready` says whether a set's pods become ready.
    fn pods(&mut self, ready: impl Fn(&str) -> bool) -> bool {
        let mut changed = false;
        for (name, set) in &mut self.sets {
            let wanted = set.spec.as_ref().unwrap().replicas.unwrap();
            let image =
                set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0]
                    .image
                    .clone();
            let is_ready = ready(image.as_deref().unwrap());
            let after = (wanted, if is_ready { wanted } else { self.running[name].1.min(wanted) });
            changed |= self.running.insert(name.clone(), after) != Some(after);
            let some = |n: i32| (n != 0).then_some(n);
            let (ready_replicas, available_replicas) = (some(after.1), some(after.1));
            let observed_generation = set.metadata.generation;
            set.status = Some(ReplicaSetStatus {
                replicas: wanted,
                ready_replicas,
                available_replicas,
                observed_generation,
                ..Default::default()
            });
        }
        changed
    }

    fn settle(&mut self, ready: impl Fn(&str) -> bool) {
        for _ in 0..100 {
            let wrote = self.step();
            self.check();
            let moved = self.pods(&ready);
            self.check();
            if !wrote && !moved {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.notes);
    }

    /// Never more than allowed, never fewer available than promised (once they were all there).
    fn check(&self) {
        let (surge, _) = fenceposts(self.deployment.spec.as_ref().unwrap());
        let total: i32 = self.sets.values().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).sum();
        let replicas = self.deployment.spec.as_ref().unwrap().replicas.unwrap();
        let before = self
            .sets
            .values()
            .filter_map(|s| s.metadata.annotations.as_ref()?.get(DESIRED_REPLICAS)?.parse::<i32>().ok())
            .max();
        let most = replicas.max(before.unwrap_or(0)) + surge;
        assert!(total <= most, "{total} > {most}: {:#?}", self.notes);
    }

    fn ready(&self) -> i32 {
        self.running.values().map(|(_, ready)| ready).sum()
    }

    fn status(&self) -> &DeploymentStatus {
        self.deployment.status.as_ref().unwrap()
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let all = self.status().conditions.as_ref().unwrap();
        let c = all.iter().find(|c| c.type_ == kind).unwrap();
        (c.status.clone(), c.reason.clone().unwrap(), c.message.clone().unwrap())
    }

    /// Sizes of the replica sets, oldest first.
    fn sizes(&self) -> Vec<i32> {
        let mut sets: Vec<&ReplicaSet> = self.sets.values().collect();
        sets.sort_by_key(|set| set.metadata.creation_timestamp.clone());
        sets.iter().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).collect()
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

#[test]
fn a_rollout_ends_complete_with_kubernetes_words() {
    let mut world = World::new(3, rolling(json!("25%"), json!("25%")));
    world.step();
    let set = world.sets.values().next().unwrap().clone();
    let name = set.metadata.name.clone().unwrap();
    assert!(name.starts_with("web-") && name.len() == 14, "{name}");
    let labels = set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap();
    assert_eq!(labels["pod-template-hash"], name["web-".len()..]);
    let notes = set.metadata.annotations.unwrap();
    assert_eq!((notes[REVISION].as_str(), notes[DESIRED_REPLICAS].as_str()), ("1", "3"));
    assert_eq!(notes["deployment.kubernetes.io/max-replicas"], "4");
    assert_eq!(world.condition("Available").1, "MinimumReplicasUnavailable");
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetCreated");
    world.settle(|_| true);
    assert_eq!(world.notes, [format!("Scaled up replica set {name} from 0 to 3")]);
    let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into(), message));
    assert_eq!(world.condition("Available").0, "True");
    assert_eq!((world.status().replicas, world.status().updated_replicas), (Some(3), Some(3)));
    assert_eq!((world.status().observed_generation, world.status().unavailable_replicas), (Some(1), None));
}

#[test]
fn a_rolling_update_never_has_too_few_or_too_many() {
    let rows = [
        (3, json!("25%"), json!("25%")),
        (10, json!(3), json!(2)),
        (4, json!(0), json!(1)),
        (4, json!(1), json!(0)),
        (1, json!("25%"), json!("25%")),
        (5, json!("100%"), json!("100%")),
        (2, json!(0), json!("10%")), // both come to nothing: one may be unavailable
    ];
    for (replicas, surge, unavailable) in rows {
        let mut world = World::new(replicas, rolling(surge.clone(), unavailable.clone()));
        world.settle(|_| true);
        world.set_image("two");
        let least = replicas - fenceposts(world.deployment.spec.as_ref().unwrap()).1.min(replicas);
        for _ in 0..100 {
            let wrote = world.step();
            world.check();
            let moved = world.pods(|_| true);
            assert!(world.ready() >= least, "{replicas} {surge} {unavailable}: {:#?}", world.notes);
            if !wrote && !moved {
                break;
            }
        }
        assert_eq!(world.sizes(), [0, replicas], "{surge} {unavailable}");
        assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "2");
    }
}

#[test]
fn an_image_that_never_gets_ready_stops_the_rollout_and_the_deadline_tells() {
    let mut world = World::new(4, rolling(json!(1), json!(1)));
    world.settle(|_| true);
    world.set_image("bad");
    world.settle(|image| image != "bad");
    assert_eq!(world.sizes(), [3, 2], "one old pod gone, two new that are not ready");
    assert_eq!(world.condition("Progressing").0, "True");
    world.now += 601.seconds();
    world.step();
    let (status, reason, message) = world.condition("Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ProgressDeadlineExceeded"));
    assert!(message.ends_with("has timed out progressing."), "{message}");
    // Back to what was: the old replica set is the new one again, as the next revision.
    world.set_image("one");
    world.settle(|image| image != "bad");
    assert_eq!(world.sizes(), [4, 0]);
    let annotations = world.sets.values().filter_map(|s| s.metadata.annotations.clone()).collect::<Vec<_>>();
    let back = annotations.iter().find(|a| a[REVISION] == "3").unwrap();
    assert_eq!(back["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn recreate_waits_until_all_old_pods_are_gone() {
    let mut world = World::new(3, json!({ "type": "Recreate" }));
    world.settle(|_| true);
    world.set_image("two");
    world.step();
    assert_eq!(world.sizes(), [0], "scaled down first");
    world.step();
    assert_eq!(world.sizes(), [0], "the old pods still run");
    world.settle(|_| true);
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn a_change_of_size_in_a_rollout_is_shared_by_size() {
    let mut world = World::new(10, rolling(json!(3), json!(2)));
    world.settle(|_| true);
    world.set_image("bad");
    world.settle(|image| image != "bad");
    assert_eq!(world.sizes(), [8, 5]);
    world.set_replicas(15);
    world.step();
    // The example of the Kubernetes documentation (Deployments, proportional scaling).
    assert_eq!(world.sizes(), [11, 7]);
}

#[test]
fn scaling_to_zero_and_back_keeps_the_replica_set() {
    let mut world = World::new(3, rolling(json!(1), json!(0)));
    world.settle(|_| true);
    world.set_replicas(0);
    world.settle(|_| true);
    assert_eq!((world.sizes(), world.ready()), (vec![0], 0));
    world.set_replicas(5);
    world.settle(|_| true);
    assert_eq!((world.sizes(), world.ready()), (vec![5], 5));
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.settle(|_| true);
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.set_image("two");
    world.settle(|_| true);
    assert_eq!(world.sizes(), [2]);
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    world.set_replicas(4);
    world.settle(|_| true);
    assert_eq!(world.sizes(), [4]);
    world.deployment.spec.as_mut().unwrap().paused = None;
    world.settle(|_| true);
    assert_eq!(world.sizes(), [0, 4]);
}

#[test]
fn old_replica_sets_beyond_the_history_limit_go() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    for image in ["one", "two", "three", "four", "five"] {
        world.set_image(image);
        world.settle(|_| true);
    }
    assert_eq!(world.sizes(), [0, 0, 1]);
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "5");
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    for (replicas, surge, unavailable, expected) in [
        (3, json!("25%"), json!("25%"), (1, 0)),
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!(0), json!("50%"), (0, 1)),
        (4, json!(2), json!(3), (2, 3)),
        (0, json!("25%"), json!("25%"), (0, 1)),
    ] {
        let world = World::new(replicas, rolling(surge.clone(), unavailable.clone()));
        assert_eq!(
            fenceposts(world.deployment.spec.as_ref().unwrap()),
            expected,
            "{replicas} {surge} {unavailable}"
        );
    }
}

#[test]
fn a_collision_gives_another_name() {
    let world = World::new(1, json!({}));
    let template = &world.deployment.spec.as_ref().unwrap().template;
    assert_eq!(template_hash(template, 0), template_hash(template, 0));
    assert_ne!(template_hash(template, 0), template_hash(template, 1));
}

fn pod(name: &str, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": name, "uid": name, "labels": { "app": "web" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "nodeName": "node-1", "containers": [] },
        "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    });
    json_patch(&mut pod, more);
    from(pod)
}

fn json_patch(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter()
                .for_each(|(key, value)| json_patch(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn set(replicas: i32) -> ReplicaSet {
    from(
        json!({ "metadata": { "name": "rs", "generation": 4 }, "spec": { "replicas": replicas, "minReadySeconds": 0,
        "selector": {}, "template": { "metadata": { "labels": { "app": "web" } } } } }),
    )
}

fn none() -> &'static [Pod] {
    &[]
}

#[test]
fn pods_are_made_up_to_the_number_and_finished_or_deleted_ones_do_not_count() {
    let pods = [
        pod("a", json!({})),
        pod("b", json!({ "status": { "phase": "Failed" } })),
        pod("c", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
    ];
    assert_eq!(scale(&set(1), &pods, none(), now()), Scale::Keep);
    assert_eq!(scale(&set(3), &pods, none(), now()), Scale::Create(2));
    assert_eq!(scale(&set(9999), &pods, none(), now()), Scale::Create(500));
    assert_eq!(scale(&set(0), &pods, none(), now()), Scale::Delete(vec!["a".into()]));
}

#[test]
fn the_most_dispensable_pod_goes_first() {
    let not_ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let ready_since = |time: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": time }] } });
    let cost = |cost: &str| json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost } } });
    let restarts = json!({ "status": { "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3 }] } });
    // Each row: what goes, what stays.
    let rows = [
        (json!({ "spec": { "nodeName": "" } }), not_ready.clone()),
        (json!({ "status": { "phase": "Pending" } }), json!({ "status": { "phase": "Unknown" } })),
        (json!({ "status": { "phase": "Unknown" } }), not_ready.clone()),
        (not_ready.clone(), cost("-5")),
        (cost("-5"), json!({})),
        (json!({}), cost("5")),
        (ready_since("2026-01-01T11:59:50Z"), json!({})),
        (restarts, json!({})),
        (json!({ "metadata": { "creationTimestamp": "2026-01-01T11:00:00Z" } }), json!({})),
    ];
    for (goes, stays) in rows {
        // The uid would decide the other way round.
        let pods = [pod("z-goes", goes.clone()), pod("a-stays", stays.clone())];
        assert_eq!(
            scale(&set(1), &pods, none(), now()),
            Scale::Delete(vec!["z-goes".into()]),
            "{goes} before {stays}"
        );
    }
    let pods = [pod("z-crowded", json!({})), pod("a-alone", json!({ "spec": { "nodeName": "node-2" } }))];
    let sibling = [pod("sibling", json!({}))];
    assert_eq!(scale(&set(1), &pods, &sibling, now()), Scale::Delete(vec!["z-crowded".into()]));
}

#[test]
fn the_status_counts_ready_and_available_and_says_when_to_look_again() {
    let mut set = set(3);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let young = json!({ "metadata": { "labels": { "app": "other" } }, "status": { "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:59:50Z" }] } });
    let pods = [
        pod("a", json!({})),
        pod("b", young),
        pod("c", json!({ "status": { "conditions": [] } })),
        pod("d", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
    ];
    let (counts, recheck) = status(&set, &pods, Some(("FailedCreate", "quota")), now());
    assert_eq!((counts.replicas, counts.ready_replicas, counts.available_replicas), (3, Some(2), Some(1)));
    assert_eq!((counts.fully_labeled_replicas, counts.terminating_replicas), (Some(2), Some(1)));
    assert_eq!(counts.observed_generation, Some(4));
    assert_eq!(recheck, Some(SignedDuration::from_secs(20)));
    assert_eq!(counts.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
    set.status = Some(counts);
    assert_eq!(status(&set, &pods, None, now()).0.conditions, None);
}
