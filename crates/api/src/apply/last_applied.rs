//! The annotation of client-side apply, where somebody goes over to applying server-side as `kubectl`: what it says was applied,
//! and still is so, makes no conflicts, and it goes on saying what was applied last.

use serde_json::Value;

use super::{compare::compare, decide::Reach, extract::extract, field_set::FieldSet};
use crate::schema::Type;

pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose annotation it is.
pub(super) const MANAGER: &str = "kubectl";

/// The longest that the annotations of an object may be together; an annotation above it is taken away.
const MAX_ANNOTATIONS: usize = 256 << 10;

fn annotation(object: &Value) -> &str {
    object["metadata"]["annotations"][ANNOTATION].as_str().unwrap_or_default()
}

/// The fields that the annotation has and that are in the live object as it says; None where there is no such annotation.
pub(super) fn allowed(live: &Value, ty: &'static Type, api_version: &str) -> Option<FieldSet> {
    let text = annotation(live);
    if text.is_empty() {
        return None;
    }
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"] != api_version || super::check(&last, ty).is_err() {
        return None;
    }
    let differs = compare(&last, live, ty, Reach::All);
    let set = extract(&last, ty);
    Some(set.difference(&differs.modified).difference(&differs.added).difference(&differs.removed))
}

/// Brings the annotation of `object`, if it has one, up to what was applied now.
pub(super) fn renew(object: &mut Value, config: &Value) {
    if annotation(object).is_empty() {
        return;
    }
    let mut applied = config.clone();
    if let Some(annotations) = applied["metadata"]["annotations"].as_object_mut() {
        annotations.remove(ANNOTATION);
    } else if let Some(metadata) = applied["metadata"].as_object_mut() {
        metadata.remove("annotations");
    }
    applied.sort_all_objects();
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    annotations.insert(ANNOTATION.into(), format!("{applied}\n").into());
    let length: usize =
        annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if length > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}
