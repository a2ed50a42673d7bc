//! What a Deployment does next: one step of its rollout as the writes it takes. Called again when they were seen.
//! (`pkg/controller/deployment/{sync,rolling,recreate,progress}.go` and `util/deployment_util.go`.)

mod sizes;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::Note;
use super::rollout_status::{self, Conditions};
pub use super::template::{equal_ignoring_hash, fenceposts, template_hash};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotations of a Deployment that its replica sets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// A write. Updates carry the resourceVersion they were decided on, so that a stale decision conflicts.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Box<ReplicaSet>),
    Update(Box<ReplicaSet>),
    Delete(String),
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub notes: Vec<Note>,
    /// The revision annotation the Deployment should have, if it has another.
    pub revision: Option<String>,
    pub status: DeploymentStatus,
    /// When time alone changes the answer: the progress deadline.
    pub recheck: Option<SignedDuration>,
}

/// `replica_sets`: those the Deployment controls. `old_pods_run`: some pod of an old replica set is not finished yet
/// (also a terminating one); Recreate waits for it.
pub fn plan(
    deployment: &Deployment,
    replica_sets: &[ReplicaSet],
    old_pods_run: impl Fn(&[&ReplicaSet]) -> bool,
    now: Timestamp,
) -> Plan {
    let default_spec = DeploymentSpec::default();
    let spec = deployment.spec.as_ref().unwrap_or(&default_spec);
    let mut step = Step::new(deployment, spec, replica_sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return step.finish(false);
    }
    step.note_pause();
    if spec.paused.unwrap_or(false) {
        step.find_new(false);
        step.scale_proportionally();
        step.clean_up();
        return step.finish(false);
    }
    if step.is_scaling() {
        step.find_new(false);
        step.scale_proportionally();
        return step.finish(false);
    }
    let recreate = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
    if recreate {
        step.find_new(false);
        let old: Vec<usize> = step.old().collect();
        let running: Vec<&ReplicaSet> = old.iter().map(|i| &step.sets[*i].object).collect();
        let wait = old_pods_run(&running);
        let mut scaled_down = false;
        for index in old {
            scaled_down |= step.resize(index, 0);
        }
        if !scaled_down && !wait {
            step.find_new(true);
            step.grow_new();
            step.clean_up_if_complete();
        }
    } else {
        step.find_new(true);
        if !step.grow_new() && !step.shrink_old() {
            step.clean_up_if_complete();
        }
    }
    step.finish(true)
}

/// A replica set in hand: as it is, and what was decided about it.
struct Held {
    object: ReplicaSet,
    is_created: bool,
    is_changed: bool,
}

struct Step<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    sets: Vec<Held>,
    new: Option<usize>,
    deleted: Vec<String>,
    notes: Vec<Note>,
    revision: Option<String>,
    conditions: Conditions,
    now: Timestamp,
}

impl<'a> Step<'a> {
    fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        sets: &[ReplicaSet],
        now: Timestamp,
    ) -> Step<'a> {
        let held =
            |object: &ReplicaSet| Held { object: object.clone(), is_created: false, is_changed: false };
        let mut sets: Vec<Held> = sets.iter().map(held).collect();
        // By age, then by name: the order of ReplicaSetsByCreationTimestamp.
        sets.sort_by_cached_key(|held| {
            let meta = &held.object.metadata;
            (meta.creation_timestamp.as_ref().map(|t| t.0), meta.name.clone())
        });
        let conditions = Conditions::new(deployment.status.as_ref().and_then(|s| s.conditions.as_ref()), now);
        Step {
            deployment,
            spec,
            sets,
            new: None,
            deleted: vec![],
            notes: vec![],
            revision: None,
            conditions,
            now,
        }
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    fn note_pause(&mut self) {
        if !rollout_status::has_deadline(self.spec) {
            return;
        }
        let reason = self.conditions.reason("Progressing");
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        let paused = self.spec.paused.unwrap_or(false);
        let was = reason == Some("DeploymentPaused");
        if paused && !was {
            self.conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into());
        } else if !paused && was {
            self.conditions.set(
                "Progressing",
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed".into(),
            );
        }
    }

    /// Finds the replica set of the template as it is; makes it if there is none and `create`.
    fn find_new(&mut self, create: bool) {
        let same = |held: &Held| {
            let template = held.object.spec.as_ref().and_then(|s| s.template.as_ref());
            template.is_some_and(|template| equal_ignoring_hash(template, &self.spec.template))
        };
        self.new = self.sets.iter().position(same);
        let newest_old = self.old().map(|i| revision_of(&self.sets[i].object)).max().unwrap_or(0);
        let revision = (newest_old + 1).to_string();
        match self.new {
            Some(index) => {
                self.annotate(index, &revision, true);
                let object = &mut self.sets[index];
                let seconds = object.object.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
                if seconds != self.spec.min_ready_seconds.unwrap_or(0)
                    && let Some(spec) = &mut object.object.spec
                {
                    spec.min_ready_seconds = self.spec.min_ready_seconds;
                    object.is_changed = true;
                }
                let revision = annotation(&self.sets[index].object.metadata, REVISION).map(str::to_string);
                self.set_revision(revision);
                if rollout_status::has_deadline(self.spec) && self.conditions.reason("Progressing").is_none()
                {
                    let message = format!("Found new replica set \"{}\"", name_of(&self.sets[index].object));
                    self.conditions.set("Progressing", "True", "FoundNewReplicaSet", message);
                }
            }
            None if create => {
                self.sets.push(Held { object: self.make(), is_created: true, is_changed: false });
                let index = self.sets.len() - 1;
                self.new = Some(index);
                let size = self.new_size();
                self.annotate(index, &revision, false);
                self.mark_size(index);
                let object = &mut self.sets[index].object;
                if let Some(spec) = &mut object.spec {
                    spec.replicas = Some(size);
                }
                let name = name_of(object).to_string();
                if size > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {size}");
                    self.notes.push(Note::normal("ScalingReplicaSet", message));
                }
                self.set_revision(Some(revision));
                if rollout_status::has_deadline(self.spec) {
                    let message = format!("Created new replica set \"{name}\"");
                    self.conditions.set("Progressing", "True", "NewReplicaSetCreated", message);
                }
            }
            None => {}
        }
    }

    fn set_revision(&mut self, revision: Option<String>) {
        let has = annotation(&self.deployment.metadata, REVISION);
        if revision.as_deref() != has {
            self.revision = revision;
        }
    }

    fn make(&self) -> ReplicaSet {
        let collisions = self.deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let hash = template_hash(&self.spec.template, collisions);
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(POD_TEMPLATE_HASH.to_string(), hash.clone());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_string(), hash.clone());
        let meta = &self.deployment.metadata;
        let name = meta.name.clone().unwrap_or_default();
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".to_string(),
                    kind: "Deployment".to_string(),
                    name,
                    uid: meta.uid.clone().unwrap_or_default(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// Copies the Deployment's annotations, and notes the revision with the ones it had before.
    fn annotate(&mut self, index: usize, revision: &str, exists: bool) {
        let copied = self.deployment.metadata.annotations.iter().flatten();
        let copied: Vec<(String, String)> = copied
            .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let held = &mut self.sets[index];
        let annotations = held.object.metadata.annotations.get_or_insert_default();
        for (key, value) in copied {
            if annotations.get(&key) != Some(&value) {
                annotations.insert(key, value);
                held.is_changed = true;
            }
        }
        let has = annotations.get(REVISION).cloned();
        let number = |text: Option<&String>| text.and_then(|t| t.parse::<i64>().ok()).unwrap_or(0);
        if number(has.as_ref()) < number(Some(&revision.to_string())) {
            annotations.insert(REVISION.to_string(), revision.to_string());
            held.is_changed = true;
            if let Some(has) = has.filter(|_| exists) {
                let history = annotations.entry(REVISION_HISTORY.to_string()).or_default();
                if !history.is_empty() {
                    history.push(',');
                }
                history.push_str(&has);
            }
        }
    }

    fn clean_up_if_complete(&mut self) {
        let status = self.counts();
        if rollout_status::is_complete(self.spec, &status, self.deployment.metadata.generation) {
            self.clean_up();
        }
    }

    /// Deletes old empty replica sets beyond the history limit, the oldest revision first.
    fn clean_up(&mut self) {
        let limit = usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let mut old: Vec<&ReplicaSet> = self.old().map(|i| &self.sets[i].object).collect();
        old.retain(|object| object.metadata.deletion_timestamp.is_none());
        old.sort_by_key(|object| revision_of(object));
        let excess = old.len().saturating_sub(limit);
        let is_idle = |object: &&&ReplicaSet| {
            let status = object.status.as_ref();
            let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
            size_of(object) == 0
                && status.map_or(0, |s| s.replicas) == 0
                && object.metadata.generation.unwrap_or(0) <= observed
        };
        self.deleted =
            old.iter().take(excess).filter(is_idle).map(|object| name_of(object).to_string()).collect();
    }

    fn counts(&self) -> DeploymentStatus {
        let status =
            |f: &dyn Fn(&ReplicaSet) -> i32| self.sets.iter().map(|held| f(&held.object)).sum::<i32>();
        let some = |count: i32| (count != 0).then_some(count);
        let replicas = status(&|o| o.status.as_ref().map_or(0, |s| s.replicas));
        let ready = status(&|o| o.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0));
        let terminating = status(&|o| o.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0));
        let available = self.available();
        let updated = self.new.and_then(|i| self.sets[i].object.status.as_ref()).map_or(0, |s| s.replicas);
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: some(replicas),
            updated_replicas: some(updated),
            ready_replicas: some(ready),
            available_replicas: some(available),
            unavailable_replicas: some((self.total() - available).max(0)),
            terminating_replicas: Some(terminating),
            collision_count: self.deployment.status.as_ref().and_then(|s| s.collision_count),
            conditions: None,
        }
    }

    fn finish(mut self, is_rollout: bool) -> Plan {
        let mut status = self.counts();
        let available = status.available_replicas.unwrap_or(0);
        if available >= self.replicas() - self.max_unavailable() {
            let message = "Deployment has minimum availability.".to_string();
            self.conditions.set("Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.".to_string();
            self.conditions.set("Available", "False", "MinimumReplicasUnavailable", message);
        }
        let mut recheck = None;
        if is_rollout {
            let new = self.new.map(|i| name_of(&self.sets[i].object).to_string());
            let judged = (self.deployment, self.spec, &status, new.as_deref());
            recheck = rollout_status::judge_progress(&mut self.conditions, judged, self.now);
            let failure = self.new.into_iter().chain(self.old()).find_map(|i| {
                let conditions = self.sets[i].object.status.as_ref()?.conditions.as_ref()?;
                conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned()
            });
            self.conditions.take_failure(failure);
        }
        status.conditions = self.conditions.into_list();
        let mut actions = Vec::new();
        for held in self.sets {
            if held.is_created {
                actions.push(Action::Create(Box::new(held.object)));
            } else if held.is_changed {
                actions.push(Action::Update(Box::new(held.object)));
            }
        }
        actions.extend(self.deleted.into_iter().map(Action::Delete));
        Plan { actions, notes: self.notes, revision: self.revision, status, recheck }
    }
}

fn size_of(object: &ReplicaSet) -> i32 {
    object.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available_of(object: &ReplicaSet) -> i32 {
    object.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn name_of(object: &ReplicaSet) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

fn annotation<'m>(meta: &'m ObjectMeta, key: &str) -> Option<&'m str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

fn revision_of(object: &ReplicaSet) -> i64 {
    annotation(&object.metadata, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}
