//! Server-side apply: PATCH with `application/apply-patch+yaml`. The body is what the client wants to be so, not a change; an
//! object that is not there is created.

use api::{
    ApiError,
    field::quote,
    json::{self, Limits, Parsed},
    registry::GroupVersionKind,
    schema,
    strict::FieldValidation,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ApiServer, Context, key,
    owners::{self, Owners},
    request::{Route, Verb},
    respond::{self, Body},
    scale, text,
    write::Change,
};

/// Tries of an apply that finds the object gone, or made, by somebody else meanwhile.
const TRIES: usize = 8;

/// Reads a configuration. JSON is YAML too, and is read faster as what it is.
fn read(body: &[u8], context: &mut Context) -> Result<Value, ApiError> {
    let undecodable =
        |why: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let parsed = match json::parse(body, Limits::default()) {
        Ok(parsed) if is_json => parsed,
        _ => json::parse_yaml(body, Limits::default()).map_err(|error| undecodable(&error))?,
    };
    let Parsed { value, duplicates } = parsed;
    if !value.is_object() {
        return Err(undecodable(&format!("expected an object, found {value}")));
    }
    let findings: Vec<String> =
        duplicates.iter().map(|path| format!("duplicate field {}", quote(path))).collect();
    match context.validation {
        FieldValidation::Strict if !findings.is_empty() => {
            let why = format!("error strict decoding YAML: {}", findings.join(", "));
            return Err(ApiError::bad_request(why));
        }
        FieldValidation::Warn => context.warnings.extend(findings),
        _ => {}
    }
    Ok(value)
}

/// The configuration must be of the kind that the path has, and say nothing of its own owners.
fn expect(config: &Value, kind: GroupVersionKind) -> Result<(), ApiError> {
    let version = text(config, "/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let given = (group, version, text(config, "/kind"));
    if given != (kind.group, kind.version, kind.kind) {
        let given = owners::gvk(given.0, given.1, given.2);
        return Err(ApiError::bad_request(format!("invalid object type: {given}")));
    }
    if config["metadata"].get("managedFields").is_some_and(|value| !value.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// The name must be that of the path; an object that is made must say it.
fn expect_name(route: &Route, object: &Value) -> Result<(), ApiError> {
    match text(object, "/metadata/name") {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            route.name
        ))),
        name if name == route.name => Ok(()),
        name => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            route.name
        ))),
    }
}

impl ApiServer {
    pub(super) async fn apply(
        &self,
        route: &Route,
        context: &mut Context,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let config = read(body, context)?;
        let kind = route.subresource.map_or(route.resource.group_version_kind(), |sub| sub.kind);
        expect(&config, kind)?;
        if route.subresource_name() == "scale" {
            return self.apply_scale(route, context, &config).await;
        }
        let key = key(route.resource, &route.namespace, &route.name);
        for _ in 0..TRIES {
            let creates = self.store.get(&key).is_none() && route.subresource.is_none();
            let done = if creates {
                self.apply_new(route, context, &config).await
            } else {
                self.apply_to(route, context, &config).await
            };
            match done {
                Err(error) if creates && error.reason == api::error::Reason::AlreadyExists => {}
                Err(error) if !creates && error.code == 404 && route.subresource.is_none() => {}
                done => return done,
            }
        }
        Err(ApiError::modified(route.resource, &route.name))
    }

    async fn apply_new(
        &self,
        route: &Route,
        context: &mut Context,
        config: &Value,
    ) -> Result<Response<Body>, ApiError> {
        let (object, managed) = owners::applied(route, context, None, config)?;
        let uid = text(&object, "/metadata/uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(route.resource, &route.name, &why));
        }
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(ApiError::modified(route.resource, &route.name));
        }
        expect_name(route, &object)?;
        self.authorize_create(&context.user, route)?;
        let creating = Route { verb: Verb::Create, ..route.clone() };
        let outcome = self.create_owned(&creating, context, object, Owners::Applied(managed)).await?;
        Ok(self.respond(StatusCode::CREATED, route, context, outcome))
    }

    async fn apply_to(
        &self,
        route: &Route,
        context: &mut Context,
        config: &Value,
    ) -> Result<Response<Body>, ApiError> {
        let outcome = self
            .update(route, context, |context, old| {
                let (object, managed) = owners::applied(route, context, Some(old), config)?;
                expect_name(route, &object)?;
                Ok(Change { object, owners: Owners::Applied(managed) })
            })
            .await?;
        Ok(self.respond(StatusCode::OK, route, context, outcome))
    }

    /// A Scale is applied as the replicas of its object.
    async fn apply_scale(
        &self,
        route: &Route,
        context: &mut Context,
        config: &Value,
    ) -> Result<Response<Body>, ApiError> {
        let ty = schema::by_kind("autoscaling/v1", "Scale")
            .ok_or_else(|| ApiError::internal("no schema for autoscaling/v1 Scale"))?;
        owners::check(route, config, ty)?;
        let mut metadata = config["metadata"].clone();
        if let Some(map) = metadata.as_object_mut() {
            map.retain(|field, _| matches!(field.as_str(), "name" | "uid" | "resourceVersion"));
        }
        let mut whole = json!({
            "apiVersion": route.resource.api_version(),
            "kind": route.resource.kind,
            "metadata": metadata,
        });
        if let Some(replicas) = config["spec"].get("replicas") {
            scale::expect_replicas(route, replicas.as_i64().unwrap_or(0))?;
            whole["spec"] = json!({"replicas": replicas});
        }
        let outcome = self
            .update(route, context, |context, old| {
                let (mut object, managed) = owners::applied(route, context, Some(old), &whole)?;
                expect_name(route, &object)?;
                // A Scale without replicas has none: what was applied before and is no longer goes.
                if object["spec"].get("replicas").is_none() {
                    object["spec"]["replicas"] = 0.into();
                }
                Ok(Change { object, owners: Owners::Applied(managed) })
            })
            .await?;
        Ok(respond::json_value(StatusCode::OK, &scale::of(route.resource, &outcome.into_value())))
    }
}
