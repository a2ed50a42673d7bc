//! Defaults of role bindings: which API group a name belongs to. Roles have none.

use serde_json::{Map, Value};

use super::{each, maybe, set, text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn binding(root: &mut Map<String, Value>) {
    if let Some(role) = maybe(root, "roleRef") {
        set(role, "apiGroup", GROUP);
    }
    for subject in each(root, "subjects") {
        // A service account is of the core group.
        if matches!(text(subject, "kind"), "User" | "Group") {
            set(subject, "apiGroup", GROUP);
        }
    }
}
