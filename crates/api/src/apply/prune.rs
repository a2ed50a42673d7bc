//! What an applier had applied before and no longer does goes, unless somebody else owns it too.

use serde_json::Value;

use super::{
    extract::{extract, with_named},
    field_set::FieldSet,
    remove::remove,
};
use crate::schema::Type;

/// `merged` without what is only in `last`. `owned` is what all managers own, the applier by its new configuration.
pub(super) fn prune(merged: Value, last: &FieldSet, owned: &FieldSet, ty: &'static Type) -> Value {
    if last.is_empty() {
        return merged;
    }
    let fields = |value: &Value| with_named(&extract(value, ty), ty);
    let last = with_named(last, ty);
    let all = fields(&merged);
    let without_last = fields(&remove(&merged, &last, ty));
    // What others own comes back.
    let gone = all.clone().difference(&without_last.union(&with_named(owned, ty)));
    let without_unowned = fields(&remove(&merged, &gone, ty));
    // What went with its parent but was not the applier's comes back.
    let gone = all.difference(&without_unowned).intersection(&last);
    remove(&merged, &gone, ty)
}
