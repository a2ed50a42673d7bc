//! NamespaceLifecycle: nothing is created in a namespace that is not there or is being deleted, and the namespaces the
//! cluster itself needs are never deleted.

use api::{ApiError, error::Cause};
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Plugin for NamespaceLifecycle {
    fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        // Reviews are answered, not stored.
        if request.operation != Operation::Create
            || request.namespace.is_empty()
            || request.resource.is_review()
        {
            return Ok(());
        }
        let namespaces = ("", "namespaces");
        let namespace = request
            .store
            .get(&format!("/namespaces/{}", request.namespace))
            .ok_or_else(|| ApiError::not_found(namespaces, request.namespace))?;
        let namespace = namespace.value();
        if namespace["status"]["phase"] != "Terminating"
            && namespace["metadata"]["deletionTimestamp"].is_null()
        {
            return Ok(());
        }
        let name = match request.name {
            "" => object["metadata"]["name"].as_str().unwrap_or_default(),
            name => name,
        };
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            request.namespace
        );
        let mut error = ApiError::forbidden(request.resource, name, &why);
        error.details.get_or_insert_default().causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {} is being terminated", request.namespace),
            field: "metadata.namespace".into(),
        });
        Err(error)
    }

    fn validate(
        &self,
        request: &Request<'_>,
        _: Option<&Value>,
        _: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if request.is(Operation::Delete, "namespaces") && IMMORTAL.contains(&request.name) {
            return Err(ApiError::forbidden(
                request.resource,
                request.name,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }
}
