//! What the pods of each node refer to: ServiceAccount, Secrets, ConfigMaps, claims. A pod's references are read when it is
//! bound to a node and when its spec changes after that (ephemeral containers); no other change costs anything.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;

use crate::{apiserver::selectable, store::Object};

/// What a node may ask for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
}

/// Kind and name.
pub type Reference = (Kind, String);

struct Bound {
    uid: String,
    generation: i64,
    node: String,
    references: BTreeSet<Reference>,
}

#[derive(Default)]
pub(super) struct Graph {
    /// By namespace and name.
    pods: HashMap<(String, String), Bound>,
    /// By node and namespace: how many pods refer to it.
    nodes: HashMap<String, HashMap<String, HashMap<Reference, usize>>>,
}

impl Graph {
    /// Whether a pod that is bound to the node refers to the object.
    pub fn reaches(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let references = self.nodes.get(node).and_then(|namespaces| namespaces.get(namespace));
        references.is_some_and(|references| references.contains_key(&(kind, name.to_owned())))
    }

    /// The pod as it is now; None where it is gone.
    pub fn set(&mut self, namespace: &str, name: &str, object: Option<&Arc<Object>>) {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(object) = object else { return self.remove(&key) };
        let seen = object.attributes(|value| selectable("pods", value));
        let node = seen["spec"]["nodeName"].as_str().unwrap_or_default();
        let uid = seen["metadata"]["uid"].as_str().unwrap_or_default();
        let generation = seen["metadata"]["generation"].as_i64().unwrap_or_default();
        if let Some(known) = self.pods.get(&key)
            && (known.uid.as_str(), known.generation, known.node.as_str()) == (uid, generation, node)
        {
            return;
        }
        self.remove(&key);
        if node.is_empty() {
            return;
        }
        let pod = object.value();
        // Of a pod that the node runs by itself it needs nothing from here (upstream's `Graph.AddPod`).
        let is_mirror = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
        let mut references = if is_mirror { BTreeSet::new() } else { references(&pod["spec"]) };
        references.insert((Kind::Pod, name.to_owned()));
        let counts = self.nodes.entry(node.to_owned()).or_default().entry(namespace.to_owned()).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        let bound = Bound { uid: uid.to_owned(), generation, node: node.to_owned(), references };
        self.pods.insert(key, bound);
    }

    fn remove(&mut self, key: &(String, String)) {
        let Some(bound) = self.pods.remove(key) else { return };
        let Some(namespaces) = self.nodes.get_mut(&bound.node) else { return };
        if let Some(counts) = namespaces.get_mut(&key.0) {
            for reference in &bound.references {
                if let Some(count) = counts.get_mut(reference) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(reference);
                    }
                }
            }
            if counts.is_empty() {
                namespaces.remove(&key.0);
            }
        }
        if namespaces.is_empty() {
            self.nodes.remove(&bound.node);
        }
    }
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[field].as_array().into_iter().flatten()
}

/// What a pod's spec names (upstream's `VisitPodSecretNames`, `VisitPodConfigmapNames`, and its claims).
pub fn references(spec: &Value) -> BTreeSet<Reference> {
    let mut out = BTreeSet::new();
    let mut add = |kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            out.insert((kind, name.to_owned()));
        }
    };
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    for secret in items(spec, "imagePullSecrets") {
        add(Kind::Secret, &secret["name"]);
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, field) {
            for source in items(container, "envFrom") {
                add(Kind::ConfigMap, &source["configMapRef"]["name"]);
                add(Kind::Secret, &source["secretRef"]["name"]);
            }
            for variable in items(container, "env") {
                add(Kind::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
                add(Kind::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    for volume in items(spec, "volumes") {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        add(Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]);
        for source in items(&volume["projected"], "sources") {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
        for driver in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            add(Kind::Secret, &volume[driver]["secretRef"]["name"]);
        }
        add(Kind::Secret, &volume["azureFile"]["secretName"]);
        add(Kind::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
    }
    out
}
