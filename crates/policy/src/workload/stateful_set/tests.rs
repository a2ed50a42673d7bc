//! StatefulSets in a small world: pods start when they are made, serve when the test says so, and go when they are deleted.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::workload::history::{REVISION, present, template_of};

const START: &str = "2026-01-01T00:00:00Z";

fn owner() -> OwnerReference {
    serde_json::from_value(
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "S", "controller": true }),
    )
    .unwrap()
}

fn set(replicas: i32, more: Value) -> StatefulSet {
    let mut spec = json!({ "replicas": replicas, "serviceName": "peers", "selector": { "matchLabels": { "app": "w" } },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        "template": { "metadata": { "labels": { "app": "w" } },
                      "spec": { "containers": [{ "name": "c", "image": "one" }] } } });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(
        json!({ "metadata": { "name": "web", "namespace": "n", "uid": "S", "generation": 1 }, "spec": spec }),
    )
    .unwrap()
}

fn rolling(partition: i32, unavailable: Value) -> Value {
    json!({ "updateStrategy": { "type": "RollingUpdate",
        "rollingUpdate": { "partition": partition, "maxUnavailable": unavailable } } })
}

struct World {
    set: StatefulSet,
    pods: BTreeMap<String, Pod>,
    now: Timestamp,
    /// Each template by the name of its revision.
    revisions: BTreeMap<String, PodTemplateSpec>,
    update: String,
    /// Images whose pods never get ready.
    broken: Vec<&'static str>,
    /// What was done, in order: `+web-0 -web-1`.
    steps: Vec<String>,
    /// The fewest that served at any time since it was last set.
    fewest: usize,
    recheck: Option<SignedDuration>,
}

impl World {
    fn new(set: StatefulSet) -> World {
        let mut world = World {
            set,
            pods: BTreeMap::new(),
            now: START.parse().unwrap(),
            revisions: BTreeMap::new(),
            update: String::new(),
            broken: Vec::new(),
            steps: Vec::new(),
            fewest: 0,
            recheck: None,
        };
        world.image("one");
        world
    }

    /// Another template: a revision of that name.
    fn image(&mut self, image: &'static str) {
        let template = &mut self.set.spec.as_mut().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        self.revisions.insert(image.to_owned(), template.clone());
        self.update = image.to_owned();
    }

    fn plan(&self) -> Plan {
        let pods: Vec<&Pod> = self.pods.values().collect();
        let before = self.set.status.as_ref().and_then(|status| status.current_revision.clone());
        let current = before.unwrap_or_else(|| self.update.clone());
        let revision = |name: &str| {
            let (name, template) = self.revisions.get_key_value(name).unwrap();
            Revision { name, template }
        };
        plan(&self.set, &pods, revision(&current), revision(&self.update), &owner(), self.now)
    }

    /// What the controller does when it looks once; pods that are deleted are gone at once.
    fn step(&mut self) {
        let first = self.plan();
        for (name, labels) in first.relabel {
            self.pods.get_mut(&name).unwrap().metadata.labels.get_or_insert_default().extend(labels);
            self.steps.push(format!("={name}"));
        }
        for name in first.finished.into_iter().chain(first.delete) {
            assert!(self.pods.remove(&name).is_some(), "{name} is deleted twice");
            self.steps.push(format!("-{name}"));
        }
        for mut pod in first.create {
            let name = name_of(&pod);
            pod.status = Some(serde_json::from_value(json!({ "phase": "Pending" })).unwrap());
            assert!(self.pods.insert(name.clone(), pod).is_none(), "{name} is there already");
            self.steps.push(format!("+{name}"));
        }
        let then = self.plan();
        self.set.status = Some(then.status);
        self.recheck = then.recheck;
        self.fewest = self.fewest.min(self.pods.values().filter(|pod| is_ready(pod)).count());
    }

    fn serve(&mut self) {
        let since = self.now.to_string();
        for pod in self.pods.values_mut() {
            let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            let status = pod.status.as_mut().unwrap();
            if status.phase.as_deref() == Some("Pending") {
                let ready = if self.broken.contains(&image.as_str()) { "False" } else { "True" };
                let ready = json!([{ "type": "Ready", "status": ready, "lastTransitionTime": since }]);
                *status = serde_json::from_value(json!({ "phase": "Running", "conditions": ready })).unwrap();
            }
        }
    }

    /// Until nothing changes any more; what was done.
    fn settle(&mut self) -> String {
        for _ in 0..100 {
            let before = (self.set.clone(), self.pods.clone());
            self.step();
            self.serve();
            if before == (self.set.clone(), self.pods.clone()) {
                return std::mem::take(&mut self.steps).join(" ");
            }
        }
        panic!("never settles: {:?}", self.set.status);
    }

    fn spec(&mut self) -> &mut StatefulSetSpec {
        self.set.spec.as_mut().unwrap()
    }

    /// The revision of each pod.
    fn running(&self) -> String {
        let all = self.pods.iter().map(|(name, pod)| format!("{name}:{}", revision_of(pod)));
        all.collect::<Vec<_>>().join(" ")
    }

    /// replicas, ready, available, current, updated, and both revisions
    fn status(&self) -> ([i32; 5], &str, &str) {
        let status = self.set.status.as_ref().unwrap();
        let of = |count: Option<i32>| count.unwrap_or(0);
        let counts = [
            status.replicas,
            of(status.ready_replicas),
            of(status.available_replicas),
            of(status.current_replicas),
            of(status.updated_replicas),
        ];
        (counts, status.current_revision.as_deref().unwrap(), status.update_revision.as_deref().unwrap())
    }

    fn end(&mut self, name: &str, phase: &str) {
        let pod = self.pods.get_mut(name).unwrap();
        pod.status = Some(serde_json::from_value(json!({ "phase": phase })).unwrap());
    }
}

#[test]
fn each_pod_waits_for_those_before_it_and_the_last_goes_first() {
    let mut world = World::new(set(3, json!({})));
    world.step();
    world.step();
    assert_eq!(world.steps, ["+web-0"], "it does not serve yet");
    world.serve();
    assert_eq!(world.settle(), "+web-0 +web-1 +web-2");
    assert_eq!(world.status(), ([3, 3, 3, 3, 3], "one", "one"));
    assert_eq!(world.set.status.as_ref().unwrap().collision_count, Some(0));
    world.spec().replicas = Some(1);
    assert_eq!(world.settle(), "-web-2 -web-1");
    world.spec().replicas = Some(0);
    assert_eq!(world.settle(), "-web-0");
    assert_eq!(world.status().0, [0; 5]);
}

#[test]
fn each_pod_has_a_name_of_its_own() {
    let mut world = World::new(set(2, json!({ "ordinals": { "start": 5 } })));
    assert_eq!(world.settle(), "+web-5 +web-6");
    let pod = &world.pods["web-6"];
    let labels = pod.metadata.labels.as_ref().unwrap();
    let want = [
        ("app", "w"),
        ("apps.kubernetes.io/pod-index", "6"),
        ("statefulset.kubernetes.io/pod-name", "web-6"),
        (REVISION, "one"),
    ];
    assert_eq!(labels.len(), want.len());
    want.iter().for_each(|(key, value)| assert_eq!(labels[*key], *value));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-6"), Some("peers")));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(pod.metadata.owner_references, Some(vec![owner()]));
    // Another start moves the numbers: those that are missing first, those that are too many then.
    world.spec().ordinals.as_mut().unwrap().start = Some(4);
    assert_eq!(world.settle(), "+web-4 -web-6");
    // Names that it would not give are not its own.
    for (name, want) in [
        ("web-0", Some(0)),
        ("web-2147483647", Some(i64::from(i32::MAX))),
        ("web-2147483648", None),
        ("web-00", None),
        ("web-+1", None),
        ("web--1", None),
        ("web-", None),
        ("web", None),
        ("webs-1", None),
        ("web-a-1", None),
    ] {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        assert_eq!(ordinal(&world.set, &pod), want, "{name}");
    }
}

#[test]
fn in_parallel_nobody_waits() {
    let mut world = World::new(set(4, json!({ "podManagementPolicy": "Parallel" })));
    world.step();
    assert_eq!(world.steps.join(" "), "+web-0 +web-1 +web-2 +web-3");
    world.settle();
    world.spec().replicas = Some(1);
    world.step();
    assert_eq!(world.steps.join(" "), "-web-3 -web-2 -web-1");
    // A number that nobody can have is not counted through at once.
    world.spec().replicas = Some(i32::MAX);
    assert_eq!(world.plan().create.len(), BURST);
}

#[test]
fn what_has_ended_is_made_again_under_its_name() {
    for policy in ["OrderedReady", "Parallel"] {
        for phase in ["Failed", "Succeeded"] {
            let mut world = World::new(set(2, json!({ "podManagementPolicy": policy })));
            world.settle();
            world.end("web-0", phase);
            assert_eq!(world.settle(), "-web-0 +web-0", "{policy} {phase}");
            // It waits until it is gone.
            world.end("web-1", phase);
            world.pods.get_mut("web-1").unwrap().metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
            assert_eq!(world.settle(), "", "{policy} {phase}");
        }
    }
}

#[test]
fn a_set_that_goes_makes_and_ends_nothing() {
    let mut world = World::new(set(3, json!({})));
    world.settle();
    world.pods.remove("web-1");
    world.image("two");
    world.set.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    assert_eq!(world.settle(), "");
    assert_eq!(world.status(), ([2, 2, 2, 2, 0], "one", "two"));
}

#[test]
fn pods_that_are_too_many_wait_for_those_before_them() {
    let mut world = World::new(set(4, json!({})));
    world.settle();
    let unready = |world: &mut World, name: &str| {
        let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }] });
        world.pods.get_mut(name).unwrap().status = Some(serde_json::from_value(status).unwrap());
    };
    // One that is to stay does not serve: nothing goes.
    unready(&mut world, "web-0");
    world.spec().replicas = Some(1);
    assert_eq!(world.settle(), "");
    world.end("web-0", "Pending");
    assert_eq!(world.settle(), "-web-3 -web-2 -web-1");
    // Of those that go, the last that does not serve waits for another before it, not for itself.
    world.spec().replicas = Some(4);
    world.settle();
    world.spec().replicas = Some(1);
    unready(&mut world, "web-3");
    unready(&mut world, "web-2");
    assert_eq!(world.settle(), "");
    world.end("web-2", "Pending");
    assert_eq!(world.settle(), "-web-3 -web-2 -web-1");
    // And not for one that has ended.
    world.spec().replicas = Some(4);
    world.settle();
    world.spec().replicas = Some(1);
    unready(&mut world, "web-3");
    world.end("web-2", "Failed");
    world.end("web-1", "Failed");
    assert_eq!(world.settle(), "-web-3 -web-2 -web-1");
}

#[test]
fn a_new_template_comes_from_the_last_to_the_first() {
    let mut world = World::new(set(3, json!({})));
    world.settle();
    world.image("two");
    world.fewest = 3;
    assert_eq!(world.settle(), "-web-2 +web-2 -web-1 +web-1 -web-0 +web-0");
    assert_eq!((world.fewest, world.status()), (2, ([3, 3, 3, 3, 3], "two", "two")));
    // One that never serves stops it, and what is rolled out stays the current one.
    world.broken.push("three");
    world.image("three");
    assert_eq!(world.settle(), "-web-2 +web-2");
    assert_eq!(world.status(), ([3, 2, 2, 2, 1], "two", "three"));
    assert_eq!(world.running(), "web-0:two web-1:two web-2:three");
}

#[test]
fn the_partition_keeps_the_template_of_those_before_it() {
    let mut world = World::new(set(4, rolling(2, json!(1))));
    world.settle();
    world.image("two");
    assert_eq!(world.settle(), "-web-3 +web-3 -web-2 +web-2");
    assert_eq!(world.status(), ([4, 4, 4, 2, 2], "one", "two"));
    // One that is lost comes back with the template it had, or the new one, by its number.
    world.pods.remove("web-0");
    world.pods.remove("web-3");
    world.settle();
    assert_eq!(world.running(), "web-0:one web-1:one web-2:two web-3:two");
    let image = |name: &str| world.pods[name].spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    assert_eq!((image("web-0"), image("web-3")), ("one".into(), "two".into()));
    world.spec().update_strategy =
        serde_json::from_value(rolling(0, json!(1))["updateStrategy"].clone()).unwrap();
    assert_eq!(world.settle(), "-web-1 +web-1 -web-0 +web-0");
    assert_eq!(world.status(), ([4, 4, 4, 4, 4], "two", "two"));
    // A partition beyond the last keeps all.
    world.spec().update_strategy =
        serde_json::from_value(rolling(9, json!(1))["updateStrategy"].clone()).unwrap();
    world.image("three");
    assert_eq!(world.settle(), "");
}

#[test]
fn so_many_may_be_missing_at_a_time() {
    for (unavailable, at_least) in
        [(json!(1), 4), (json!(2), 3), (json!("50%"), 3), (json!("10%"), 4), (json!("100%"), 0)]
    {
        for policy in ["OrderedReady", "Parallel"] {
            let mut more = rolling(0, unavailable.clone());
            more["podManagementPolicy"] = policy.into();
            let mut world = World::new(set(5, more));
            world.settle();
            world.image("two");
            world.fewest = 5;
            world.settle();
            assert_eq!(world.status(), ([5, 5, 5, 5, 5], "two", "two"), "{unavailable} {policy}");
            assert_eq!(world.fewest, at_least, "{unavailable} {policy}");
        }
    }
}

#[test]
fn in_parallel_a_template_that_never_served_is_replaced_and_what_serves_is_spared() {
    let mut world = World::new(set(3, json!({ "podManagementPolicy": "Parallel" })));
    world.settle();
    // The first of them breaks, and the others serve: it goes beside none of them.
    world.broken.push("two");
    world.image("two");
    world.settle();
    assert_eq!(world.running(), "web-0:one web-1:one web-2:two");
    world.image("three");
    world.fewest = 3;
    assert_eq!(world.settle(), "-web-2 +web-2 -web-1 +web-1 -web-0 +web-0");
    assert_eq!((world.fewest, world.status()), (2, ([3, 3, 3, 3, 3], "three", "three")));
    // In order, it waits for somebody to mend or delete it.
    let mut world = World::new(set(2, json!({})));
    world.broken.push("two");
    world.settle();
    world.image("two");
    world.settle();
    world.image("three");
    assert_eq!(world.settle(), "");
    assert_eq!(world.running(), "web-0:one web-1:two");
    world.pods.remove("web-1");
    world.settle();
    assert_eq!(world.running(), "web-0:three web-1:three");
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut world = World::new(set(2, json!({ "updateStrategy": { "type": "OnDelete" } })));
    world.settle();
    world.image("two");
    assert_eq!(world.settle(), "");
    assert_eq!(world.status(), ([2, 2, 2, 2, 0], "one", "two"));
    world.pods.remove("web-0");
    world.settle();
    assert_eq!(world.running(), "web-0:two web-1:one");
    world.pods.remove("web-1");
    world.settle();
    // As upstream: without a rolling update none is complete.
    assert_eq!(world.status(), ([2, 2, 2, 0, 2], "one", "two"));
}

#[test]
fn without_parameters_those_that_are_left_of_the_old_template_keep_it() {
    let mut world = World::new(set(3, json!({ "updateStrategy": { "type": "RollingUpdate" } })));
    world.settle();
    world.image("two");
    world.step();
    world.serve();
    world.step();
    assert_eq!(world.steps.join(" "), "-web-2 +web-2");
    world.pods.remove("web-0");
    world.step();
    assert_eq!(world.running(), "web-0:one web-1:one web-2:two");
}

#[test]
fn a_pod_is_available_when_it_was_ready_for_long_enough() {
    let mut world = World::new(set(2, json!({ "minReadySeconds": 30 })));
    assert_eq!(world.settle(), "+web-0");
    assert_eq!((world.status().0, world.recheck), ([1, 1, 0, 1, 1], Some(SignedDuration::from_secs(30))));
    world.now += SignedDuration::from_secs(30);
    assert_eq!(world.settle(), "+web-1");
    world.now += SignedDuration::from_secs(30);
    assert_eq!(world.settle(), "");
    assert_eq!((world.status().0, world.recheck), ([2, 2, 2, 2, 2], None));
}

#[test]
fn a_pod_that_lost_its_label_gets_it_back() {
    for policy in ["OrderedReady", "Parallel"] {
        let mut world = World::new(set(2, json!({ "podManagementPolicy": policy })));
        world.settle();
        let labels = world.pods.get_mut("web-1").unwrap().metadata.labels.as_mut().unwrap();
        labels.remove("statefulset.kubernetes.io/pod-name");
        assert_eq!(world.settle(), "=web-1", "{policy}");
    }
}

#[test]
fn a_revision_gives_the_template_back() {
    let set = set(1, json!({}));
    let revision = present::<_, k8s_openapi::api::apps::v1::ControllerRevision>(&set, &[], &owner());
    let revision = revision.revision();
    let labels = revision.metadata.labels.as_ref().unwrap();
    let name = format!("web-{}", labels["controller.kubernetes.io/hash"]);
    assert_eq!(revision.metadata.name.as_ref(), Some(&name));
    assert_eq!(labels["app"], "w", "kubectl finds it by the selector");
    assert_eq!(template_of(revision), Some(set.spec.unwrap().template));
}

/// What may happen to a StatefulSet and its pods between two looks.
#[derive(Clone, Debug)]
enum Event {
    Scale(i32),
    Start(i32),
    Template(usize),
    Lost(usize),
    Ended(usize),
    Unready(usize),
    Look,
    Serve,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..5).prop_map(Event::Scale),
        (0..3).prop_map(Event::Start),
        (0..3usize).prop_map(Event::Template),
        (0..5usize).prop_map(Event::Lost),
        (0..5usize).prop_map(Event::Ended),
        (0..5usize).prop_map(Event::Unready),
        Just(Event::Look),
        Just(Event::Look),
        Just(Event::Serve),
    ]
}

impl World {
    fn happens(&mut self, event: &Event) {
        let at = |world: &World, index: usize| world.pods.keys().nth(index).cloned();
        let status = |world: &mut World, name: Option<String>, status: Value| {
            if let Some(pod) = name.and_then(|name| world.pods.get_mut(&name)) {
                pod.status = Some(serde_json::from_value(status).unwrap());
            }
        };
        match *event {
            Event::Scale(replicas) => self.spec().replicas = Some(replicas),
            Event::Start(start) => {
                self.spec().ordinals = serde_json::from_value(json!({ "start": start })).unwrap();
            }
            Event::Template(index) => self.image(["one", "two", "three"][index]),
            Event::Lost(index) => drop(at(self, index).and_then(|name| self.pods.remove(&name))),
            Event::Ended(index) => status(self, at(self, index), json!({ "phase": "Failed" })),
            Event::Unready(index) => status(
                self,
                at(self, index),
                json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }] }),
            ),
            Event::Look => self.look(),
            Event::Serve => self.serve(),
        }
    }

    /// Looks once, and holds what is done against what is promised.
    fn look(&mut self) {
        let ordered = self.spec().pod_management_policy.as_deref() == Some("OrderedReady");
        let start = make::start(self.spec());
        let before = self.pods.clone();
        self.step();
        if !ordered {
            return;
        }
        let steps = std::mem::take(&mut self.steps);
        let serves = |ordinal: i64| before.get(&format!("web-{ordinal}")).is_some_and(is_running_and_ready);
        let made: Vec<&String> = steps.iter().filter(|step| step.starts_with('+')).collect();
        assert!(made.len() <= 1, "one at a time: {steps:?}");
        for name in made {
            let ordinal: i64 = name.rsplit('-').next().unwrap().parse().unwrap();
            assert!((start..ordinal).all(serves), "{name} came before those it waits for: {before:?}");
        }
    }
}

proptest! {
    /// Whatever happened: once everything serves, there are exactly the pods that are asked for, of the present template.
    #[test]
    fn it_comes_to_what_is_asked_for(
        events in prop::collection::vec(event(), 0..40),
        ordered in any::<bool>(),
        most in 1..4,
    ) {
        let mut more = rolling(0, json!(most));
        more["podManagementPolicy"] = if ordered { "OrderedReady" } else { "Parallel" }.into();
        let mut world = World::new(set(3, more));
        for event in &events {
            world.happens(event);
        }
        for pod in world.pods.values_mut().filter(|pod| !is_finished(pod)) {
            pod.status = Some(serde_json::from_value(json!({ "phase": "Pending" })).unwrap());
        }
        world.settle();
        let (start, replicas) = (make::start(world.spec()), world.spec().replicas.unwrap());
        let want: Vec<String> = (start..start + i64::from(replicas))
            .map(|ordinal| format!("web-{ordinal}:{}", world.update))
            .collect();
        prop_assert_eq!(world.running(), want.join(" "));
        let name = world.update.as_str();
        prop_assert_eq!(world.status(), ([replicas; 5], name, name));
    }
}
