//! Priority: a pod's priority is its class's. PriorityClasses are not served yet: the two that every cluster has are known,
//! and a pod without class has priority 0.

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
};
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct Priority;

const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

impl Plugin for Priority {
    fn mutate(&self, request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !request.is(Operation::Create, "pods") || !object["spec"].is_object() {
            return Ok(());
        }
        let pod = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let class = object["spec"]["priorityClassName"].as_str().unwrap_or_default();
        let priority = match (class, SYSTEM_CLASSES.iter().find(|(name, _)| *name == class)) {
            ("", _) => 0,
            (_, Some((_, priority))) => *priority,
            (class, None) => {
                let why = format!("no PriorityClass with name {class} was found");
                return Err(ApiError::forbidden(request.resource, &pod, &why));
            }
        };
        if let Some(given) = object["spec"]["priority"].as_i64().filter(|given| *given != priority) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {priority} from the given PriorityClass name"
            );
            return Err(ApiError::forbidden(request.resource, &pod, &why));
        }
        let policy = object["spec"]["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_owned();
        if !["PreemptLowerPriority", "Never"].contains(&policy.as_str()) {
            let mut errors = ErrorList::new();
            let path = Path::new("spec").child("preemptionPolicy");
            errors.push(Error::not_supported(&path, policy, &["Never", "PreemptLowerPriority"]));
            return Err(ApiError::invalid("", "Pod", &pod, &errors));
        }
        object["spec"]["priority"] = priority.into();
        object["spec"]["preemptionPolicy"] = policy.into();
        Ok(())
    }
}
