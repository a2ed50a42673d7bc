//! The templates a DaemonSet has had, as ControllerRevisions: what `kubectl rollout history` shows and `undo` goes back to
//! (`pkg/controller/history`).

use std::borrow::Borrow;
use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::HASH;
use crate::workload::template::template_hash;

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

pub fn hash_of(revision: &ControllerRevision) -> &str {
    revision
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(HASH))
        .map(String::as_str)
        .unwrap_or_default()
}

fn data(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref().map(|RawExtension(value)| value)
}

/// Whether two revisions are of one template.
pub fn is_same(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    data(a) == data(b)
}

/// `revisions`: those the DaemonSet controls.
pub fn present<R: Borrow<ControllerRevision>>(
    set: &DaemonSet,
    revisions: &[R],
    owner: &OwnerReference,
) -> Present {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
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
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template_hash(&template, collisions);
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Present::Create(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(wanted)),
        revision: newest + 1,
    })
}

/// Names of revisions that are more than `revisionHistoryLimit`: the oldest, but those that pods are still of.
pub fn outlived<R: Borrow<ControllerRevision>>(
    set: &DaemonSet,
    revisions: &[R],
    present: &str,
    alive: &BTreeSet<String>,
) -> Vec<String> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut old: Vec<&ControllerRevision> = revisions
        .iter()
        .map(Borrow::borrow)
        .filter(|revision| hash_of(revision) != present && !alive.contains(hash_of(revision)))
        .collect();
    old.sort_by_key(|revision| revision.revision);
    let kept = usize::try_from(limit).unwrap_or(0).min(old.len());
    let count = old.len() - kept;
    old.into_iter().take(count).filter_map(|revision| revision.metadata.name.clone()).collect()
}
