//! The templates that a DaemonSet or a StatefulSet has had, as ControllerRevisions: what `kubectl rollout history` shows and
//! `undo` goes back to (`pkg/controller/history`).

use std::borrow::Borrow;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::template::template_hash;

/// The label of pods that says which revision they are of: its hash for a DaemonSet's, its name for a StatefulSet's.
pub const REVISION: &str = "controller-revision-hash";

/// The label's value; "" where a pod is of none.
pub fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION)).map(String::as_str).unwrap_or_default()
}

/// A kind whose templates are kept.
pub trait Revised {
    /// The label of a revision with its hash.
    const HASH: &'static str;
    fn meta(&self) -> &ObjectMeta;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn limit(&self) -> Option<i32>;
    fn collisions(&self) -> i32;
    /// The same, with one more name that was taken.
    fn collided(&self) -> Self;
}

macro_rules! revised {
    ($kind:ty, $hash:expr) => {
        impl Revised for $kind {
            const HASH: &'static str = $hash;

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn template(&self) -> Option<&PodTemplateSpec> {
                self.spec.as_ref().map(|spec| &spec.template)
            }

            fn limit(&self) -> Option<i32> {
                self.spec.as_ref()?.revision_history_limit
            }

            fn collisions(&self) -> i32 {
                self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
            }

            fn collided(&self) -> Self {
                let mut next = self.clone();
                next.status.get_or_insert_default().collision_count = Some(self.collisions() + 1);
                next
            }
        }
    };
}

revised!(DaemonSet, REVISION);
revised!(StatefulSet, "controller.kubernetes.io/hash");

/// The revision of the present template.
#[derive(Clone, Debug, PartialEq)]
pub enum Present {
    Is(ControllerRevision),
    /// A template that was there before is the newest again.
    Renumber(ControllerRevision),
    Create(ControllerRevision),
}

impl Present {
    pub fn revision(&self) -> &ControllerRevision {
        match self {
            Present::Is(revision) | Present::Renumber(revision) | Present::Create(revision) => revision,
        }
    }
}

/// The patch that brings a template back.
fn patch(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// The template that such a patch brings back.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = data(revision)?.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

pub fn hash_of<K: Revised>(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(K::HASH)).map(String::as_str).unwrap_or_default()
}

pub fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

fn data(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref().map(|RawExtension(value)| value)
}

/// Whether two revisions are of one template.
pub fn is_same(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    data(a) == data(b)
}

/// `revisions`: those that `set` controls.
pub fn present<K: Revised, R: Borrow<ControllerRevision>>(
    set: &K,
    revisions: &[R],
    owner: &OwnerReference,
) -> Present {
    let template = set.template().cloned().unwrap_or_default();
    let wanted = patch(&template);
    let revisions: Vec<&ControllerRevision> = revisions.iter().map(Borrow::borrow).collect();
    let newest = revisions.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let same = revisions.iter().filter(|revision| data(revision) == Some(&wanted));
    if let Some(same) = same.max_by_key(|revision| revision.revision) {
        if same.revision == newest {
            return Present::Is((*same).clone());
        }
        return Present::Renumber(ControllerRevision { revision: newest + 1, ..(*same).clone() });
    }
    let hash = template_hash(&template, set.collisions());
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(K::HASH.to_owned(), hash.clone());
    let meta = set.meta();
    // Room for the hash in a name of 253 characters.
    let name: String = meta.name.iter().flat_map(|name| name.chars()).take(223).collect();
    Present::Create(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(wanted)),
        revision: newest + 1,
    })
}

/// Names of revisions that are more than `revisionHistoryLimit`: the oldest, but those that are alive.
pub fn outlived<R: Borrow<ControllerRevision>>(
    set: &impl Revised,
    revisions: &[R],
    is_alive: impl Fn(&ControllerRevision) -> bool,
) -> Vec<String> {
    let mut old: Vec<&ControllerRevision> =
        revisions.iter().map(Borrow::borrow).filter(|revision| !is_alive(revision)).collect();
    old.sort_by_key(|revision| revision.revision);
    // A negative limit is none.
    let limit = usize::try_from(set.limit().unwrap_or(10)).unwrap_or(usize::MAX);
    let count = old.len().saturating_sub(limit);
    old.into_iter().take(count).filter_map(|revision| revision.metadata.name.clone()).collect()
}
