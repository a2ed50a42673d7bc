//! Objects that are served in two shapes and stored in one: events. `events.k8s.io/v1` renames most fields of core
//! `v1` events (its older ones with the prefix `deprecated`); both are views of the same objects.

use serde_json::Value;

use crate::registry::Resource;

/// Core name, name in `events.k8s.io/v1`.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Turns an object of the resource into the shape it is stored in.
pub fn to_stored(resource: &Resource, object: &mut Value) {
    if is_new_event(resource) {
        rename(object, "v1", EVENT_FIELDS.iter().map(|(core, new)| (*new, *core)));
    }
}

/// Turns a stored object into the shape that the resource serves.
pub fn from_stored(resource: &Resource, object: &mut Value) {
    if is_new_event(resource) {
        rename(object, "events.k8s.io/v1", EVENT_FIELDS.iter().copied());
    }
}

fn is_new_event(resource: &Resource) -> bool {
    resource.stored_as != (resource.group, resource.plural) && resource.kind == "Event"
}

fn rename<'a>(object: &mut Value, api_version: &str, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Value::Object(map) = object else { return };
    map.insert("apiVersion".into(), api_version.into());
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::by_plural;
    use crate::{schema, strict};
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_in_both_shapes() {
        let new = by_plural("events.k8s.io", "v1", "events").unwrap();
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x"},
            "regarding": {"kind": "Pod", "name": "p"}, "note": "Started", "reason": "Started", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "kubelet", "reportingInstance": "node-1",
            "action": "Starting", "deprecatedCount": 2, "deprecatedSource": {"component": "kubelet"},
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"},
        });
        let served = event.clone();
        to_stored(new, &mut event);
        assert_eq!(event["involvedObject"]["name"], "p");
        assert_eq!(event["message"], "Started");
        let unknown = strict::conform(&mut event, schema::by_kind("v1", "Event").unwrap()).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        from_stored(new, &mut event);
        assert_eq!(event, served);
    }

    #[test]
    fn other_objects_are_stored_as_they_are_served() {
        for resource in crate::registry::resources().iter().filter(|r| r.group != "events.k8s.io") {
            let mut object = json!({"apiVersion": resource.api_version(), "message": "m", "note": "n"});
            let before = object.clone();
            to_stored(resource, &mut object);
            from_stored(resource, &mut object);
            assert_eq!(object, before, "{}", resource.plural);
        }
    }
}
