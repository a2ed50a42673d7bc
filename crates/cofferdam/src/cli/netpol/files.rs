//! Manifests as a cluster: pods, and a pod for every template of a workload, become subjects; what is no part of the
//! question is passed over.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use policy::workload::stateful_set::identity;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::groups::stateful_set;
use super::objects::Objects;
use crate::cli::manifests::{self, Manifest};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// More pods of a StatefulSet than this are not told apart.
const MOST_REPLICAS: i64 = 10_000;

/// `namespace` is where objects without one are.
pub fn read(names: &[String], namespace: &str) -> Result<Objects> {
    let mut objects = Objects::default();
    for manifest in manifests::read_all(names, true)? {
        put(&mut objects, manifest, namespace)?;
    }
    complete(&mut objects);
    Ok(objects)
}

fn put(objects: &mut Objects, manifest: Manifest, namespace: &str) -> Result<()> {
    let Manifest { mut object, source, .. } = manifest;
    let text = |object: &Value, at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or("").to_owned();
    let (version, kind, name) =
        (text(&object, "/apiVersion"), text(&object, "/kind"), text(&object, "/metadata/name"));
    if version.is_empty() || kind.is_empty() {
        bail!("{source}: an object without apiVersion and kind");
    }
    let cluster_wide = ["Namespace", "Node", "ClusterNetworkPolicy"].contains(&kind.as_str());
    if !cluster_wide && text(&object, "/metadata/namespace").is_empty() && object["metadata"].is_object() {
        object["metadata"]["namespace"] = namespace.into();
    }
    let what = format!("{source}: {kind} {name}");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let template = match (group, kind.as_str()) {
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    };
    if let Some(at) = template {
        let template = object.pointer(at).with_context(|| format!("{what}: no pod template"))?;
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"].clone(), "spec": template["spec"].clone() });
        if !pod["metadata"].is_object() {
            pod["metadata"] = json!({});
        }
        pod["metadata"]["name"] = name.as_str().into();
        pod["metadata"]["namespace"] = object["metadata"]["namespace"].clone();
        if kind == "StatefulSet" {
            objects.pods.extend(replicas(&object, &pod, &name, &what)?);
        } else {
            objects.pods.push(typed(pod, &what)?);
        }
        return Ok(());
    }
    if let Some(resource) = api::registry::by_kind(&version, &kind) {
        if let Some(ty) = api::schema::by_kind(&version, &kind) {
            let unknown =
                api::strict::conform(&mut object, ty).map_err(|error| anyhow::anyhow!("{what}: {error}"))?;
            if !unknown.is_empty() {
                bail!("{what}: {}", unknown.join(", "));
            }
        }
        api::defaults::apply(resource, &mut object);
        if matches!(kind.as_str(), "NetworkPolicy" | "ClusterNetworkPolicy") {
            let errors = api::validation::validate_create(resource, &object);
            if !errors.is_empty() {
                let all: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
                bail!("{what}: {}", all.join("; "));
            }
        }
    }
    match (group, kind.as_str()) {
        ("", "Pod") => objects.pods.push(typed(object, &what)?),
        ("", "Namespace") => objects.namespaces.push(typed(object, &what)?),
        ("", "Node") => objects.nodes.push(typed(object, &what)?),
        ("", "Service") => objects.services.push(typed(object, &what)?),
        ("networking.k8s.io", "NetworkPolicy") => objects.policies.push(typed(object, &what)?),
        ("policy.networking.k8s.io", "ClusterNetworkPolicy") => {
            objects.cluster_policies.push(typed(object, &what)?);
        }
        _ => {}
    }
    Ok(())
}

/// The pods of a StatefulSet, one at the least: each has labels of its own, which a policy may mean.
fn replicas(set: &Value, pod: &Value, name: &str, what: &str) -> Result<Vec<Pod>> {
    let number = |at: &str| set.pointer(at).and_then(Value::as_i64);
    let count = number("/spec/replicas").unwrap_or(1).max(1);
    if count > MOST_REPLICAS {
        bail!("{what}: spec.replicas: more than {MOST_REPLICAS} pods are not told apart");
    }
    let start = number("/spec/ordinals/start").unwrap_or(0);
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "", "controller": true }]);
    let one = |ordinal: i64| {
        let mut pod: Pod = typed(pod.clone(), what)?;
        let own = format!("{name}-{ordinal}");
        pod.metadata.labels.get_or_insert_default().extend(identity(&own, ordinal));
        pod.metadata.name = Some(own);
        pod.metadata.owner_references = Some(typed(owner.clone(), what)?);
        Ok(pod)
    };
    (start..start + count).map(one).collect()
}

fn typed<T: DeserializeOwned>(object: Value, what: &str) -> Result<T> {
    serde_json::from_value(object).with_context(|| what.to_owned())
}

/// Namespaces that are only named exist too, and all carry their name as a label, as the API server gives it.
pub(super) fn complete(objects: &mut Objects) {
    let of_pods = objects.pods.iter().filter_map(|pod| pod.metadata.namespace.clone());
    let named: Vec<String> =
        of_pods.chain(objects.policies.iter().filter_map(|p| p.metadata.namespace.clone())).collect();
    for name in named {
        if !objects.namespaces.iter().any(|n| n.metadata.name.as_ref() == Some(&name)) {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name);
            objects.namespaces.push(namespace);
        }
    }
    for namespace in &mut objects.namespaces {
        if let Some(name) = &namespace.metadata.name {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name.clone());
        }
    }
}

/// What applying `new` makes of `old`: objects of one name are replaced.
pub fn apply(old: &Objects, new: Objects) -> Objects {
    fn put<
        T: Clone + k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
    >(
        old: &[T],
        new: Vec<T>,
    ) -> Vec<T> {
        let mut all = old.to_vec();
        for object in new {
            let same = |other: &&mut T| {
                let (a, b) = (other.metadata(), object.metadata());
                (&a.namespace, &a.name) == (&b.namespace, &b.name)
            };
            match all.iter_mut().find(same) {
                Some(other) => *other = object,
                None => all.push(object),
            }
        }
        all
    }
    // Of a StatefulSet that is replaced, those go that are too many.
    let sets: BTreeSet<_> = new.pods.iter().filter_map(stateful_set).collect();
    let goes = |pod: &&Pod| stateful_set(pod).is_some_and(|set| sets.contains(&set));
    let old_pods: Vec<Pod> = old.pods.iter().filter(|pod| !goes(pod)).cloned().collect();
    // A pod that runs keeps its address: a manifest has none.
    let pods = new.pods.into_iter().map(|mut pod: Pod| {
        let same = |other: &&Pod| {
            (&other.metadata.namespace, &other.metadata.name) == (&pod.metadata.namespace, &pod.metadata.name)
        };
        if let Some(other) = old.pods.iter().find(same) {
            pod.status = other.status.clone();
        }
        pod
    });
    // A namespace that was only named must not take the labels of one that is there.
    let bare = |n: &Namespace| {
        n.metadata.labels.as_ref().is_none_or(|labels| labels.keys().all(|k| k == NAME_LABEL))
    };
    let known = |n: &Namespace| old.namespaces.iter().any(|o| o.metadata.name == n.metadata.name);
    let namespaces = new.namespaces.into_iter().filter(|n| !(bare(n) && known(n))).collect();
    let mut all = Objects {
        pods: put(&old_pods, pods.collect()),
        namespaces: put(&old.namespaces, namespaces),
        nodes: put(&old.nodes, new.nodes),
        policies: put(&old.policies, new.policies),
        cluster_policies: put(&old.cluster_policies, new.cluster_policies),
        services: put(&old.services, new.services),
        slices: old.slices.clone(),
    };
    complete(&mut all);
    all
}

#[cfg(test)]
pub(super) fn parse(text: &str) -> Objects {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("m.yaml");
    std::fs::write(&path, text).expect("write a manifest");
    read(&[path.display().to_string()], "default").expect("manifests")
}
