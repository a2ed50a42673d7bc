//! The `scale` subresource: the replicas of a Deployment, ReplicaSet, StatefulSet or ReplicationController as an
//! `autoscaling/v1` Scale.

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
    patch::Patch,
    registry::Resource,
    schema,
    selector::LabelSelector,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ApiServer, Context, key,
    request::{Route, Verb},
    respond::{self, Body},
    text, write,
};

/// The Scale of an object.
pub fn of(resource: &Resource, object: &Value) -> Value {
    let selector = object["spec"].get("selector");
    // A ReplicationController's is labels alone.
    let labels = (resource.group.is_empty()).then(|| json!({"matchLabels": selector}));
    let selector = LabelSelector::from_object(labels.as_ref().or(selector));
    let selector = selector.map(|selector| selector.to_string()).unwrap_or_default();
    let meta = &object["metadata"];
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|n| *n != 0) {
        spec["replicas"] = replicas.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": spec,
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector},
    })
}

/// # Errors
/// Invalid, for fewer than none.
pub fn expect_replicas(route: &Route, replicas: i64) -> Result<(), ApiError> {
    if replicas >= 0 {
        return Ok(());
    }
    let mut errors = ErrorList::new();
    let path = Path::new("spec").child("replicas");
    errors.push(Error::invalid(&path, replicas, "must be greater than or equal to 0"));
    Err(ApiError::invalid("autoscaling", "Scale", &route.name, &errors))
}

impl ApiServer {
    pub(super) async fn write_scale(
        &self,
        route: &Route,
        context: &mut Context,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let scale = match route.verb {
            Verb::Patch => {
                let patch = Patch::parse(media, body)?;
                let there = self
                    .store
                    .get(&key(route.resource, &route.namespace, &route.name))
                    .ok_or_else(|| ApiError::not_found(route.resource, &route.name))?;
                let ty = schema::by_kind("autoscaling/v1", "Scale")
                    .ok_or_else(|| ApiError::internal("no schema for autoscaling/v1 Scale"))?;
                let mut current = of(route.resource, &there.value());
                // The patch is for whatever version is there, unless it names one.
                current["metadata"]["resourceVersion"] = Value::Null;
                let patched = patch.apply(&current, ty, context.validation)?;
                context.warnings.extend(patched.warnings);
                patched.value
            }
            _ => write::decode_body(route, context, media, body)?,
        };
        let name = text(&scale, "/metadata/name");
        if !name.is_empty() && name != route.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                route.name
            )));
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        expect_replicas(route, replicas)?;
        let updating = Route { verb: Verb::Update, ..route.clone() };
        let outcome = self
            .update(&updating, context, |_, old| {
                let mut new = old.clone();
                new["spec"]["replicas"] = replicas.into();
                // What the client knows of the object, for the preconditions.
                for field in ["uid", "resourceVersion"] {
                    let known = text(&scale, &format!("/metadata/{field}"));
                    new["metadata"][field] = known.into();
                }
                Ok(new.into())
            })
            .await?;
        Ok(respond::json_value(StatusCode::OK, &of(route.resource, &outcome.into_value())))
    }
}
