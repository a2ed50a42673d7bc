//! Who owns which fields of an object (`metadata.managedFields`), kept at every write. The decisions are `api::apply`'s; here they are
//! given the writer, the time, and the versions in which an object is served.
//!
//! As upstream, a write to an object itself counts as it was sent, with defaults and before admission and the server add their own; a
//! write to a subresource counts for what that one writes.

use api::{
    ApiError,
    apply::{self, Managed, Reach, Refused, Scope, Writer},
    schema::{self, Type},
};
use serde_json::Value;

use super::{Context, events, request::Route, respond, stored, text};

/// What becomes of the owners of an object that is written.
pub enum Owners {
    /// Its writer owns what it changes.
    Tracked,
    /// An apply has decided.
    Applied(Managed),
}

/// Takes `metadata.managedFields` out of what a client sent.
pub fn take(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or(Value::Null)
}

fn of(object: &Value) -> Option<&Value> {
    object["metadata"].get("managedFields")
}

/// Puts the owners into an object.
pub fn put(object: &mut Value, managed: Managed) {
    if let (Some(value), Some(metadata)) =
        (managed.into_value(), object.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("managedFields".into(), value);
    }
}

/// Whether two objects are the same in all fields but one.
fn same_but(except: &str, a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    !a.keys().chain(b.keys()).any(|key| key != except && a.get(key) != b.get(key))
}

/// Whether a write changes nothing but when its writer last wrote: then it is not written (upstream's
/// `IgnoreManagedFieldsTimestampsTransformer`). The owners are compared last, because most writes differ before.
pub fn is_unchanged(new: &Value, old: &Value) -> bool {
    same_but("metadata", new, old)
        && same_but("managedFields", &new["metadata"], &old["metadata"])
        && (of(new) == of(old) || apply::same_but_times(of(new), of(old)))
}

/// The type of the objects at a route, whatever the subresource takes.
fn ty(route: &Route) -> Result<&'static Type, ApiError> {
    let resource = route.resource;
    schema::by_kind(&resource.api_version(), resource.kind).ok_or_else(|| {
        ApiError::internal(format!("no schema for {} {}", resource.api_version(), resource.kind))
    })
}

fn reach(route: &Route) -> Reach<'static> {
    match route.subresource_name() {
        "status" => Reach::Only("status"),
        "ephemeralcontainers" | "finalize" => Reach::Only("spec"),
        // All that its spec has is written through `finalize`.
        _ if (route.resource.group, route.resource.plural) == ("", "namespaces") => Reach::Only("metadata"),
        _ if route.resource.has_status() => Reach::AllBut("status"),
        _ => Reach::All,
    }
}

/// An object as the route serves it.
fn served(route: &Route, object: &Value) -> Option<Value> {
    events::served_shape(route.resource).map(|shape| shape(object.clone()))
}

/// Calls `decide` with what the decisions of `api::apply` ask for.
fn decide<T>(
    route: &Route,
    context: &Context,
    decide: impl FnOnce(&Scope<'_>, &Writer<'_>) -> T,
) -> Result<T, ApiError> {
    let now = respond::timestamp(jiff::Timestamp::now());
    let api_version = route.resource.api_version();
    let writer = Writer {
        manager: &context.options.manager,
        subresource: route.subresource_name(),
        api_version: &api_version,
        now: &now,
    };
    let convert = |object: &Value, version: &str| events::in_version(route.resource, object, version);
    Ok(decide(&Scope { ty: ty(route)?, reach: reach(route), convert: &convert }, &writer))
}

/// The owners of a new object; `sent` are those that its body had.
pub fn created(route: &Route, context: &Context, object: &Value, sent: Value) -> Result<Managed, ApiError> {
    let shown = served(route, object);
    let managed = Managed::of_request(sent, None);
    decide(route, context, |scope, writer| {
        apply::write(None, shown.as_ref().unwrap_or(object), scope, managed, writer)
    })
}

/// The owners after `old` became `new`. `carried` are those that the new object came with: on the main path from its sender, on
/// a subresource, through which nobody changes them, from the old object.
pub fn changed(
    route: &Route,
    context: &Context,
    old: &Value,
    new: &Value,
    carried: Value,
) -> Result<Managed, ApiError> {
    let managed = match carried {
        carried if route.subresource.is_none() => Managed::of_request(carried, of(old)),
        Value::Null => of(old).cloned().map(Managed::stored).unwrap_or_default(),
        carried => Managed::stored(carried),
    };
    let (old_shown, new_shown) = (served(route, old), served(route, new));
    decide(route, context, |scope, writer| {
        let (old, new) = (old_shown.as_ref().unwrap_or(old), new_shown.as_ref().unwrap_or(new));
        apply::write(Some(old), new, scope, managed, writer)
    })
}

/// `default/web; apps/v1, Kind=Deployment`, as upstream names an object within its own errors.
fn named(route: &Route, object: &Value) -> String {
    let name = text(object, "/metadata/name");
    let namespace = text(object, "/metadata/namespace");
    format!("{namespace}/{name}; {}", gvk(route.resource.group, route.resource.version, route.resource.kind))
}

/// A group, version and kind as Go prints them.
pub fn gvk(group: &str, version: &str, kind: &str) -> String {
    format!("{group}/{version}, Kind={kind}")
}

/// What upstream answers to an error that it has no status for.
fn unnamed(why: String) -> ApiError {
    ApiError::new(500, api::error::Reason::Unknown, why)
}

/// Whether a configuration has only what its type has.
///
/// # Errors
/// In upstream's words.
pub fn check(route: &Route, config: &Value, ty: &'static Type) -> Result<(), ApiError> {
    apply::check(config, ty).map_err(|why| {
        unnamed(format!("failed to create typed patch object ({}): {why}", named(route, config)))
    })
}

/// The object that an apply makes of `old`, in the form it is stored in, and its owners.
///
/// # Errors
/// Conflict; what comes out is no object of the kind.
pub fn applied(
    route: &Route,
    context: &Context,
    old: Option<&Value>,
    config: &Value,
) -> Result<(Value, Managed), ApiError> {
    check(route, config, ty(route)?)?;
    let managed = old.and_then(of).cloned().map(Managed::stored).unwrap_or_default();
    let shown = old.and_then(|old| served(route, old));
    let live = shown.as_ref().or(old);
    let applied = decide(route, context, |scope, writer| {
        let what = apply::Apply { live, config, scope: *scope, force: context.options.force };
        apply::apply(&what, managed, writer)
    })?;
    let applied = applied.map_err(|refused| match refused {
        Refused::Conflicts(conflicts) => conflicts.into(),
        Refused::Undecodable(why) => unnamed(format!(
            "failed to convert new object ({}) to proper version: unable to convert unstructured object to {}: {why}",
            named(route, config),
            gvk(route.resource.group, route.resource.version, route.resource.kind)
        )),
    })?;
    let object = match events::stored_shape(route.resource) {
        Some(shape) => shape(applied.object),
        None => applied.object,
    };
    debug_assert_eq!(stored(route.resource).kind, text(&object, "/kind"));
    Ok((object, applied.managed))
}
