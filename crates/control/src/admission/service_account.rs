//! ServiceAccount: every pod runs as one, `default` unless it names another, and it must exist. Unless the pod or the
//! account says otherwise, its containers find there a token, the cluster's authority and their namespace
//! (`plugin/pkg/admission/serviceaccount`).

use api::ApiError;
use api::field::quote;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::{controllers::ROOT_CA, random};

pub struct ServiceAccount;

const DEFAULT: &str = "default";
/// Names of the volumes that carry a token begin so.
const VOLUME: &str = "kube-api-access-";
/// Where clients within a pod look.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds; by this number the API server knows a token it may let live longer.
const TOKEN_LIFE: u32 = 3607;

/// Mirror pods are a node's own business.
fn is_mirror(object: &Value) -> bool {
    object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
}

fn name_of(object: &Value) -> &str {
    object["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()).unwrap_or(DEFAULT)
}

fn key(namespace: &str, name: &str) -> String {
    format!("/serviceaccounts/{namespace}/{name}")
}

/// The pod's word counts before the account's; neither means yes.
fn automounts(pod: &Value, account: &Value) -> bool {
    let says = |value: &Value| value["automountServiceAccountToken"].as_bool();
    says(&pod["spec"]).or_else(|| says(account)).unwrap_or(true)
}

fn list<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    object[field].as_array().into_iter().flatten()
}

/// Puts the volume into the pod, and its mount into each container that has nothing there yet.
fn mount_token(spec: &mut Value) {
    let carries = |volume: &&str| volume.starts_with(VOLUME);
    let there = list(spec, "volumes").filter_map(|v| v["name"].as_str()).find(carries).map(str::to_owned);
    let name = there.clone().unwrap_or_else(|| format!("{VOLUME}{}", random::suffix()));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut mounted = false;
    for containers in ["initContainers", "containers"] {
        // Not by index: that would write a null where there is no list.
        let list_of = spec.get_mut(containers).and_then(Value::as_array_mut);
        for container in list_of.into_iter().flatten().filter(|one| one.is_object()) {
            if list(container, "volumeMounts").any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            push(container, "volumeMounts", mount.clone());
            mounted = true;
        }
    }
    if there.is_some() || !mounted {
        return;
    }
    let sources = json!([
        {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFE, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]);
    push(spec, "volumes", json!({"name": name, "projected": {"defaultMode": 0o644, "sources": sources}}));
}

/// Adds to a list, which is made where there is none; what stands there and is no list, validation refuses.
fn push(object: &mut Value, field: &str, item: Value) {
    if object[field].is_null() {
        object[field] = json!([]);
    }
    if let Some(list) = object[field].as_array_mut() {
        list.push(item);
    }
}

impl Plugin for ServiceAccount {
    /// A new namespace's default account is made by a controller, and a pod may come first.
    fn awaits(&self, request: &Request<'_>, object: &Value) -> Option<String> {
        let waits = request.is(Operation::Create, "pods") && !is_mirror(object) && name_of(object) == DEFAULT;
        waits.then(|| key(request.namespace, DEFAULT))
    }

    fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !request.is(Operation::Create, "pods") || is_mirror(object) || !object["spec"].is_object() {
            return Ok(());
        }
        let name = name_of(object).to_owned();
        let Some(account) = request.store.get(&key(request.namespace, &name)) else {
            let pod = object["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {} not found",
                request.namespace,
                quote(&name)
            );
            return Err(ApiError::forbidden(request.resource, pod, &why));
        };
        let account = account.value();
        let mounts = automounts(object, &account);
        let spec = &mut object["spec"];
        spec["serviceAccountName"] = name.as_str().into();
        // The field's old name is filled from the new one.
        spec["serviceAccount"] = name.into();
        if mounts {
            mount_token(spec);
        }
        if list(spec, "imagePullSecrets").next().is_none() {
            let secrets: Vec<Value> =
                list(&account, "imagePullSecrets").map(|secret| json!({"name": secret["name"]})).collect();
            if !secrets.is_empty() {
                spec["imagePullSecrets"] = secrets.into();
            }
        }
        Ok(())
    }

    /// A mirror pod stands for what a node runs by itself, without a word from the API.
    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        _: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let Some(pod) = object.filter(|pod| request.is(Operation::Create, "pods") && is_mirror(pod)) else {
            return Ok(());
        };
        let spec = &pod["spec"];
        let projects = |volume: &Value| {
            list(&volume["projected"], "sources").any(|source| source["serviceAccountToken"].is_object())
        };
        let why = if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
            "a mirror pod may not reference service accounts"
        } else if list(spec, "volumes").any(projects) {
            "a mirror pod may not use ServiceAccountToken volume projections"
        } else {
            return Ok(());
        };
        Err(ApiError::forbidden(request.resource, pod["metadata"]["name"].as_str().unwrap_or_default(), why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_without_a_mount_there_gets_one() {
        let mut spec = json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
                {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}],
            "volumes": [{"name": "own", "emptyDir": {}}],
        });
        mount_token(&mut spec);
        let volume = &spec["volumes"][1];
        let name = volume["name"].as_str().unwrap();
        assert!(name.len() == VOLUME.len() + 5 && name.starts_with(VOLUME), "{name}");
        assert_eq!(volume["projected"]["defaultMode"], 420);
        let want = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
        assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([want]));
        assert_eq!(spec["containers"][0]["volumeMounts"][1], want);
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);

        // All have something there: no volume for nobody. One that is there already serves.
        let mut own = json!({"containers": [{"volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]});
        let before = own.clone();
        mount_token(&mut own);
        assert_eq!(own, before);
        let mut again = json!({"containers": [{}], "volumes": [{"name": "kube-api-access-mine"}]});
        mount_token(&mut again);
        assert_eq!(again["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(again["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-mine");
    }

    #[test]
    fn the_pods_word_counts_before_the_accounts() {
        let says = |value: Option<bool>| match value {
            Some(value) => json!({"automountServiceAccountToken": value}),
            None => json!({}),
        };
        for (pod, account, want) in [
            (None, None, true),
            (None, Some(false), false),
            (None, Some(true), true),
            (Some(false), Some(true), false),
            (Some(true), Some(false), true),
        ] {
            assert_eq!(automounts(&json!({"spec": says(pod)}), &says(account)), want, "{pod:?} {account:?}");
        }
    }
}
