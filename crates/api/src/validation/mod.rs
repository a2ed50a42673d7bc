//! Which objects are refused, and in what words: upstream's validation of each kind, on the JSON value after
//! defaulting. Field paths, types and messages are upstream's.

pub mod quantity;

use serde_json::Value;

use crate::field::ErrorList;

/// What is wrong with a new object of `kind`; `namespaced` says whether `metadata.namespace` is required.
pub fn validate_create_kind(group: &str, kind: &str, namespaced: bool, object: &Value) -> ErrorList {
    let _ = (group, kind, namespaced, object);
    ErrorList::new()
}

/// What is wrong with `new` in place of `old`; `subresource` is "" or "status", "ephemeralcontainers", "binding", ….
pub fn validate_update_kind(
    group: &str,
    kind: &str,
    namespaced: bool,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> ErrorList {
    let _ = (group, kind, namespaced, subresource, new, old);
    ErrorList::new()
}
