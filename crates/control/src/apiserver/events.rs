//! One set of events in two shapes: stored as core events, also served under `events.k8s.io`, which has other names for the
//! same fields (`api::convert`).

use api::{
    convert, registry,
    registry::Resource,
    schema::{self, Type},
};
use serde_json::Value;

fn differs(resource: &Resource) -> bool {
    resource.stored_as != (resource.group, resource.plural)
}

fn events() -> Option<&'static Resource> {
    registry::by_plural("events.k8s.io", "v1", "events")
}

/// From the stored form to the one `resource` serves, where they differ.
pub fn served_shape(resource: &Resource) -> Option<fn(Value) -> Value> {
    differs(resource).then_some(served as fn(Value) -> Value)
}

/// From the form that `resource` serves to the stored one, where they differ.
pub fn stored_shape(resource: &Resource) -> Option<fn(Value) -> Value> {
    differs(resource).then_some(stored as fn(Value) -> Value)
}

/// An event of one of the two versions in the one named, with its type there: for the owners of fields, which are named as in
/// the version in which they were written. None for what has no other version.
pub fn in_version(resource: &Resource, object: &Value, version: &str) -> Option<(&'static Type, Value)> {
    let new = events()?;
    if resource.kind != new.kind {
        return None;
    }
    let object = if new.api_version() == version { served(object.clone()) } else { stored(object.clone()) };
    Some((schema::by_kind(version, resource.kind)?, object))
}

fn served(mut event: Value) -> Value {
    if let Some(resource) = events() {
        convert::from_stored(resource, &mut event);
    }
    event
}

fn stored(mut event: Value) -> Value {
    if let Some(resource) = events() {
        convert::to_stored(resource, &mut event);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_comes_back_as_it_was_sent() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "a"},
                         "reportingController": "c", "reason": "r", "eventTime": "t"});
        let core = stored(new.clone());
        assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("n"), &json!("a")));
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(served(core), new);
    }
}
