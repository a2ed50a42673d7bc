//! Which objects of a collection a client asks for. A selector looks at a small part of each object, taken out once and
//! kept beside the stored bytes, so that a list or a watch with a selector parses nothing.

use std::sync::Arc;

use api::{
    ApiError,
    registry::Resource,
    selector::{FieldSelector, LabelSelector, SelectorError},
};
use serde_json::{Map, Value};

use super::request::Query;
use crate::store::Object;

/// What field selectors may look at beside the metadata, by kind (`api::selector`).
fn fields(resource: &Resource) -> &'static [(&'static str, &'static [&'static str])] {
    match (resource.stored_as.0, resource.plural) {
        ("", "pods") => &[
            ("spec", &["nodeName", "restartPolicy", "schedulerName", "serviceAccountName", "hostNetwork"]),
            ("status", &["phase", "podIP", "nominatedNodeName"]),
        ],
        ("", "nodes") => &[("spec", &["unschedulable"])],
        ("", "namespaces") => &[("status", &["phase"])],
        ("", "services") => &[("spec", &["clusterIP", "type"])],
        ("", "secrets") => &[("type", &[])],
        ("batch", "jobs") => &[("status", &["succeeded"])],
        ("", "events") => &[
            ("involvedObject", &[]),
            ("reason", &[]),
            ("source", &[]),
            ("reportingComponent", &[]),
            ("type", &[]),
        ],
        _ => &[],
    }
}

/// The part of a stored object that selectors look at.
pub fn attributes(resource: &Resource, object: &Value) -> Value {
    let pick = |from: &Value, names: &[&str]| -> Map<String, Value> {
        names.iter().filter_map(|name| Some(((*name).to_owned(), from.get(name)?.clone()))).collect()
    };
    let mut out = Map::new();
    out.insert(
        "metadata".into(),
        pick(&object["metadata"], &["name", "namespace", "labels", "uid", "generation"]).into(),
    );
    for (name, inner) in fields(resource) {
        let Some(value) = object.get(name) else { continue };
        let value = if inner.is_empty() { value.clone() } else { pick(value, inner).into() };
        out.insert((*name).into(), value);
    }
    out.into()
}

/// The two selectors of a list or a watch.
#[derive(Clone, Debug)]
pub struct Selection {
    resource: &'static Resource,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// BadRequest, in upstream's words.
    pub fn parse(resource: &'static Resource, query: &Query) -> Result<Selection, ApiError> {
        let text = query.get("labelSelector");
        let labels = if text.is_empty() {
            LabelSelector::everything()
        } else {
            text.parse().map_err(|error: SelectorError| ApiError::bad_request(error.to_string()))?
        };
        let fields = FieldSelector::parse(query.get("fieldSelector"), resource)?;
        Ok(Selection { resource, labels, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one object that can match, where the selector names it.
    pub fn name(&self) -> Option<&str> {
        self.fields.requires("metadata.name").filter(|name| !name.is_empty() && !name.contains('/'))
    }

    pub fn namespace(&self) -> Option<&str> {
        self.fields.requires("metadata.namespace").filter(|name| !name.is_empty() && !name.contains('/'))
    }

    /// The value that a field must have.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.fields.requires(field)
    }

    pub fn matches(&self, object: &Arc<Object>) -> bool {
        if self.is_everything() {
            return true;
        }
        let seen = object.attributes(|value| attributes(self.resource, value));
        self.labels.matches_object(seen) && self.fields.matches(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::registry;
    use serde_json::json;

    #[test]
    fn every_selectable_field_is_kept_with_the_object() {
        let full = json!({
            "metadata": {"name": "n", "namespace": "ns", "labels": {"a": "b"}},
            "spec": {"nodeName": "x", "restartPolicy": "x", "schedulerName": "x", "serviceAccountName": "x",
                     "hostNetwork": true, "unschedulable": true, "clusterIP": "x", "type": "x", "containers": [1]},
            "status": {"phase": "x", "podIP": "x", "nominatedNodeName": "x"},
            "involvedObject": {"kind": "x", "namespace": "x", "name": "x", "uid": "x", "apiVersion": "x"},
            "reason": "x", "source": {"component": "x"}, "type": "x", "reportingComponent": "x",
        });
        for resource in registry::resources() {
            let part = attributes(resource, &full);
            for field in [
                "spec.nodeName",
                "spec.host",
                "status.phase",
                "status.podIP",
                "type",
                "spec.type",
                "reason",
                "source",
                "involvedObject.uid",
                "regarding.uid",
                "spec.unschedulable",
                "spec.hostNetwork",
                "reportingController",
                "spec.clusterIP",
                "metadata.name",
                "status.nominatedNodeName",
            ] {
                for value in ["x", "true", "n"] {
                    let Ok(selector) = FieldSelector::parse(&format!("{field}={value}"), resource) else {
                        continue;
                    };
                    assert_eq!(
                        selector.matches(&part),
                        selector.matches(&full),
                        "{}: {field}={value}",
                        resource.kind
                    );
                }
            }
            assert!(part["spec"].get("containers").is_none());
        }
    }
}
