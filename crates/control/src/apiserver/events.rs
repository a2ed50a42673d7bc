//! One set of events in two shapes: stored as core events, also served under `events.k8s.io`, which has other names for the
//! same fields (upstream's `pkg/apis/events/v1` conversion).

use api::registry::Resource;
use serde_json::Value;

/// (`events.k8s.io` name, core name)
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn differs(resource: &Resource) -> bool {
    (resource.group, resource.plural) == ("events.k8s.io", "events")
}

/// From the stored form to the one `resource` serves, where they differ.
pub fn served_shape(resource: &Resource) -> Option<fn(Value) -> Value> {
    differs(resource).then_some(served as fn(Value) -> Value)
}

/// From the form that `resource` serves to the stored one, where they differ.
pub fn stored_shape(resource: &Resource) -> Option<fn(Value) -> Value> {
    differs(resource).then_some(stored as fn(Value) -> Value)
}

fn served(event: Value) -> Value {
    rename(event, "events.k8s.io/v1", |(new, core)| (core, new))
}

fn stored(event: Value) -> Value {
    rename(event, "v1", |names| names)
}

fn rename(mut event: Value, version: &str, order: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) -> Value {
    if let Some(map) = event.as_object_mut() {
        for (from, to) in NAMES.map(order) {
            if let Some(value) = map.remove(from) {
                map.insert(to.to_owned(), value);
            }
        }
        map.insert("apiVersion".into(), version.into());
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
