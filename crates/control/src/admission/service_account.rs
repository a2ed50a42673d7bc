//! ServiceAccount: every pod runs as one, `default` unless it names another, and it must exist. (The token volume comes
//! with the service account's own issue.)

use api::ApiError;
use api::field::quote;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct ServiceAccount;

const DEFAULT: &str = "default";

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
        if request.store.get(&key(request.namespace, &name)).is_none() {
            let pod = object["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {} not found",
                request.namespace,
                quote(&name)
            );
            return Err(ApiError::forbidden(request.resource, pod, &why));
        }
        object["spec"]["serviceAccountName"] = name.as_str().into();
        // The field's old name is filled from the new one.
        object["spec"]["serviceAccount"] = name.into();
        Ok(())
    }
}
