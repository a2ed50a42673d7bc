//! What is done to pods alone: binding to a node, eviction, and finding the container that a log or an exec means.

use api::{ApiError, field::quote, validation};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ApiServer, Context, decode, delete, key,
    request::Route,
    respond::{self, Body},
    text,
    write::{self, Step},
};
use crate::{admission::Operation, scheduler, store::Object};

fn success(status: StatusCode) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": status.as_u16()});
    respond::json_value(status, &body)
}

/// Binds `pod` to the binding's node (`BindingREST.setPodNodeAndMetadata`).
fn bound(pod: &Value, binding: &Value, now: String) -> Result<Value, String> {
    let name = text(pod, "/metadata/name");
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node {}", quote(node)));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = text(binding, "/target/name").into();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = &mut pod["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => {
            list.retain(|c| c["type"] != "PodScheduled");
            list.push(condition);
        }
        None => *conditions = json!([condition]),
    }
    Ok(pod)
}

/// Whether a pod that was added is the scheduler's to bind.
pub fn wants_binding(pod: &Object) -> bool {
    let selected = pod.attributes(|object| super::selectable("pods", object));
    text(selected, "/spec/nodeName").is_empty() && text(selected, "/spec/schedulerName") == scheduler::NAME
}

impl ApiServer {
    /// POST of a Binding, to `pods/<name>/binding` or to `bindings`.
    pub(super) async fn bind(
        &self,
        route: &Route,
        context: &mut Context,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let binding = write::decode_body(route, context, media, body)?;
        let given = text(&binding, "/metadata/name");
        let name = if route.name.is_empty() { given } else { &route.name };
        if !given.is_empty() && given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        let errors = validation::validate_binding(&binding);
        if !errors.is_empty() {
            return Err(ApiError::invalid("", "Binding", name, &errors));
        }
        let pods = api::registry::by_plural("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
        let uid = text(&binding, "/metadata/uid");
        let conflict = |why: &str| ApiError::conflict(("", "pods/binding"), name, why);
        self.step_from(context.sight(), pods, &route.namespace, name, context.options.dry_run, |_, pod| {
            let there = text(pod, "/metadata/uid");
            if !uid.is_empty() && uid != there {
                return Err(conflict(&format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {there}"
                )));
            }
            let now = respond::timestamp(jiff::Timestamp::now());
            bound(pod, &binding, now).map(Step::Put).map_err(|why| conflict(&why))
        })
        .await?;
        Ok(success(StatusCode::CREATED))
    }

    /// POST of an Eviction: a delete that may be refused (by disruption budgets, once they are served).
    pub(super) async fn evict(
        &self,
        route: &Route,
        context: &mut Context,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let eviction = write::decode_body(route, context, media, body)?;
        let given = text(&eviction, "/metadata/name");
        if !given.is_empty() && given != route.name {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = eviction["deleteOptions"].clone();
        if !options.is_object() {
            options = json!({});
        }
        let options = delete::Options::read("application/json", options.to_string().as_bytes(), context)?;
        let pod = self
            .store
            .get(&key(route.resource, &route.namespace, &route.name))
            .ok_or_else(|| ApiError::not_found(route.resource, &route.name))?;
        let mut evicting = Route { verb: super::Verb::Create, ..route.clone() };
        self.admit(Operation::Create, &evicting, context, Some(&pod.value()))?;
        evicting.subresource = None;
        self.delete_one(&evicting, context, &options).await?;
        Ok(success(StatusCode::CREATED))
    }

    /// The pod of a `pods/<subresource>` request.
    pub(super) fn pod(&self, route: &Route) -> Result<Value, ApiError> {
        let key = key(route.resource, &route.namespace, &route.name);
        Ok(self.store.get(&key).ok_or_else(|| ApiError::not_found(route.resource, &route.name))?.value())
    }
}

/// The names of a pod's containers in one of its three lists.
fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
}

/// The container that a log or an exec means: the named one, or the only one.
///
/// # Errors
/// BadRequest in upstream's words.
pub fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let name = text(pod, "/metadata/name");
    let (plain, init, ephemeral) =
        (names(pod, "containers"), names(pod, "initContainers"), names(pod, "ephemeralContainers"));
    if !asked.is_empty() {
        if [&plain, &init, &ephemeral].into_iter().any(|list| list.contains(&asked)) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    match plain.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            for (list, what) in [(init, "init"), (ephemeral, "ephemeral")] {
                if !list.is_empty() {
                    why.push_str(&format!(" or one of the {what} containers: [{}]", list.join(" ")));
                }
            }
            Err(ApiError::bad_request(why))
        }
    }
}

/// What an agent answers when it refuses: its words, as a `Status`.
pub fn agent_refused(status: StatusCode, text: &str) -> ApiError {
    use api::error::Reason;
    let text = text.trim();
    // The agent answers with a Status, as the API does; anything else is plain words.
    if let Some(refusal) = serde_json::from_str(text).ok().and_then(|said| ApiError::from_status(&said)) {
        return refusal;
    }
    match status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::new(404, Reason::NotFound, text),
        StatusCode::FORBIDDEN => ApiError::new(403, Reason::Forbidden, text),
        StatusCode::SERVICE_UNAVAILABLE => ApiError::service_unavailable(text),
        other if other.is_server_error() => ApiError::internal(text),
        other => ApiError::new(other.as_u16(), Reason::Unknown, text),
    }
}

/// The most of an agent's refusal that is read.
pub const REFUSAL: usize = decode::MAX_BODY >> 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_refusal_is_passed_on() {
        let said =
            ApiError::bad_request("container \"a\" in pod \"p\" is waiting to start: ContainerCreating");
        assert_eq!(agent_refused(StatusCode::BAD_REQUEST, &said.to_status().to_string()), said);
        assert_eq!(agent_refused(StatusCode::NOT_FOUND, " gone \n").message, "gone");
    }

    #[test]
    fn the_container_is_found_or_asked_for() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "").unwrap(), "a");
        assert_eq!(container(&one, "i").unwrap(), "i");
        assert_eq!(container(&one, "x").unwrap_err().message, "container x is not valid for pod p");
        let two = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            container(&two, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"target": {"kind": "Node", "name": "n"}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let new = bound(&pod, &binding, "t".into()).unwrap();
        assert_eq!(new["spec"]["nodeName"], "n");
        assert_eq!(new["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(new["status"]["conditions"][0]["status"], "True");
        assert_eq!(bound(&new, &binding, "t".into()).unwrap_err(), "pod p is already assigned to node \"n\"");
        let gone = json!({"metadata": {"name": "p", "deletionTimestamp": "t"}, "spec": {}});
        assert_eq!(
            bound(&gone, &binding, "t".into()).unwrap_err(),
            "pod p is being deleted, cannot be assigned to a host"
        );
    }
}
