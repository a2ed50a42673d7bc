//! PATCH: JSON, merge and strategic merge patches, applied to the object in the shape it is served in.

use api::{ApiError, patch::Patch, schema};
use http::{Response, StatusCode};
use serde_json::Value;

use super::{ApiServer, Context, events, request::Route, respond::Body, write::Change};

impl ApiServer {
    pub(super) async fn patch(
        &self,
        route: &Route,
        context: &mut Context,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let patch = Patch::parse(media, body)?;
        let resource = route.resource;
        let ty = schema::by_kind(&resource.api_version(), resource.kind).ok_or_else(|| {
            ApiError::internal(format!("no schema for {} {}", resource.api_version(), resource.kind))
        })?;
        let warnings = std::sync::Mutex::new(Vec::new());
        let validation = context.validation;
        let change = |_: &Context, old: &Value| -> Result<Change, ApiError> {
            let patched = match (events::served_shape(resource), events::stored_shape(resource)) {
                (Some(served), Some(stored)) => {
                    let mut patched = patch.apply(&served(old.clone()), ty, validation)?;
                    patched.value = stored(patched.value);
                    patched
                }
                _ => patch.apply(old, ty, validation)?,
            };
            *warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = patched.warnings;
            let name = patched.value["metadata"]["name"].as_str().unwrap_or_default();
            if name != route.name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    route.name
                )));
            }
            Ok(patched.value.into())
        };
        let outcome = self.update(route, context, change).await;
        context.warnings.extend(warnings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(self.respond(StatusCode::OK, route, context, outcome?))
    }
}
