//! GET and LIST: stored bytes to clients, whole or in pages of one revision.

use std::sync::Arc;

use api::ApiError;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ApiServer, Context, events, key,
    request::{Query, Route},
    respond::{self, Body, ListMeta},
    scale,
    select::Selection,
    write::{Outcome, read_failed},
};
use crate::store::{Object, ReadError};

pub fn get(server: &ApiServer, route: &Route, context: &Context) -> Result<Response<Body>, ApiError> {
    let object = server
        .store
        .get(&key(route.resource, &route.namespace, &route.name))
        .ok_or_else(|| ApiError::not_found(route.resource, &route.name))?;
    // A reader that has seen a later version must not be shown an older one.
    if let Some(least) = revision(context.query.get("resourceVersion"))? {
        let current = server.store.revision();
        if least > current {
            return Err(read_failed(ReadError::Future { requested: least, current }));
        }
    }
    if route.subresource_name() == "scale" {
        return Ok(respond::json_value(StatusCode::OK, &scale::of(route.resource, &object.value())));
    }
    Ok(server.respond(StatusCode::OK, route, context, Outcome::Stored(object)))
}

/// A `resourceVersion` parameter: None for "any".
///
/// # Errors
/// BadRequest for what is no number.
pub fn revision(text: &str) -> Result<Option<u64>, ApiError> {
    match text {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }),
    }
}

/// Where a list goes on: the revision of its first page, and the last key sent.
struct Token {
    revision: u64,
    after: String,
}

impl Token {
    fn encode(&self) -> String {
        api::base64::encode(
            json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.after}).to_string().as_bytes(),
        )
    }

    fn decode(text: &str) -> Result<Token, ApiError> {
        let bad = || ApiError::bad_request("continue key is not valid");
        let bytes = api::base64::decode(text).map_err(|_| bad())?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        match (value["v"].as_str(), value["rv"].as_u64(), value["start"].as_str()) {
            (Some("meta.k8s.io/v1"), Some(revision), Some(after)) => {
                Ok(Token { revision, after: after.to_owned() })
            }
            _ => Err(bad()),
        }
    }
}

/// What of a collection a list asks for.
struct Page {
    at: Option<u64>,
    after: Option<String>,
    limit: Option<usize>,
}

impl Page {
    fn parse(query: &Query, current: u64) -> Result<Page, ApiError> {
        let limit = match query.number("limit")? {
            Some(limit) if limit > 0 => usize::try_from(limit).ok(),
            _ => None,
        };
        let asked = revision(query.get("resourceVersion"))?;
        match query.get("continue") {
            "" => {}
            token => {
                if asked.is_some() {
                    let why = "specifying resource version is not allowed when using continue";
                    return Err(ApiError::bad_request(why));
                }
                let token = Token::decode(token)?;
                return Ok(Page { at: Some(token.revision), after: Some(token.after), limit });
            }
        }
        let at = match query.get("resourceVersionMatch") {
            "Exact" if asked.is_none() => {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                return Err(ApiError::bad_request(why));
            }
            "Exact" => asked,
            "" | "NotOlderThan" => {
                // The newest is never older than anything but the future.
                asked.filter(|least| *least > current)
            }
            other => {
                return Err(ApiError::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: {other:?}"
                )));
            }
        };
        Ok(Page { at, after: None, limit })
    }
}

pub fn list(server: &ApiServer, route: &Route, context: &Context) -> Result<Response<Body>, ApiError> {
    let selection = Selection::parse(route.resource, &context.query)?;
    let page = Page::parse(&context.query, server.store.revision())?;
    let prefix = prefix(route, &selection);
    let listed = server.store.list(&prefix, page.at).map_err(|error| match (&page.after, error) {
        (Some(_), ReadError::Expired { .. }) => ApiError::continue_expired(),
        (_, error) => read_failed(error),
    })?;
    let start = page
        .after
        .as_deref()
        .map_or(0, |after| listed.objects.partition_point(|object| *object.key <= *after));
    let rest = &listed.objects[start..];
    let mut chosen: Vec<Arc<Object>> = Vec::new();
    let mut meta = ListMeta { revision: listed.revision, ..ListMeta::default() };
    for (at, object) in rest.iter().enumerate().filter(|(_, object)| selection.matches(object)) {
        if page.limit == Some(chosen.len()) {
            let after = chosen.last().map(|last| last.key.to_string()).unwrap_or_default();
            meta.token = Some(Token { revision: listed.revision, after }.encode());
            // With a selector nobody knows how many of the rest match.
            meta.remaining = selection.is_everything().then_some(rest.len() - at);
            break;
        }
        chosen.push(object.clone());
    }
    let shape = events::served_shape(route.resource);
    let body = respond::list(context.representation, route.resource, &chosen, &meta, shape);
    Ok(respond::json_bytes(StatusCode::OK, body))
}

/// The keys a list or watch must look at: one object's where the selector names it.
pub fn prefix(route: &Route, selection: &Selection) -> String {
    let namespace = match route.namespace.as_str() {
        "" if route.resource.namespaced() => selection.namespace().unwrap_or_default(),
        namespace => namespace,
    };
    match selection.name() {
        Some(name) if !route.resource.namespaced() || !namespace.is_empty() => {
            key(route.resource, namespace, name)
        }
        _ => key(route.resource, namespace, ""),
    }
}
