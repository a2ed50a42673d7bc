//! What an applier is told whose configuration would change what others own.

use super::{
    field_set::FieldSet,
    managers::{Entry, Operation},
    path::shown,
};
use crate::error::{ApiError, Cause};
use crate::field::quote;

/// The managers that own what an apply would change, and what that is.
#[derive(Debug, Clone)]
pub struct Conflicts(pub(super) Vec<(Entry, FieldSet)>);

impl PartialEq for Conflicts {
    fn eq(&self, other: &Conflicts) -> bool {
        self.said() == other.said()
    }
}

/// A manager in the words of a conflict.
fn named(entry: &Entry) -> String {
    let mut out = quote(&entry.manager);
    if !entry.subresource.is_empty() {
        out.push_str(&format!(" with subresource {}", quote(&entry.subresource)));
    }
    if entry.operation == Operation::Update {
        out.push_str(&format!(" using {}", entry.api_version));
    }
    out
}

impl Conflicts {
    /// Each manager, sorted, with its paths.
    fn said(&self) -> Vec<(String, Vec<String>)> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|(entry, _)| {
            (entry.manager.clone(), entry.operation, entry.api_version.clone(), entry.subresource.clone())
        });
        let paths = |set: &FieldSet| {
            let mut paths = Vec::new();
            set.for_each(&mut |path| paths.push(shown(path)));
            paths
        };
        sorted.into_iter().map(|(entry, set)| (named(entry), paths(set))).collect()
    }

    /// What stays of the conflicts where those on `allowed` are none.
    pub(super) fn beyond(&self, allowed: &FieldSet) -> Conflicts {
        let left = |set: &FieldSet| set.clone().difference(allowed);
        let conflicts = self.0.iter().map(|(entry, set)| (entry.clone(), left(set)));
        Conflicts(conflicts.filter(|(_, set)| !set.is_empty()).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Conflicts> for ApiError {
    fn from(conflicts: Conflicts) -> ApiError {
        let said = conflicts.said();
        let causes: Vec<Cause> = said
            .iter()
            .flat_map(|(manager, paths)| paths.iter().map(move |path| (manager, path)))
            .map(|(manager, path)| Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {manager}"),
                field: path.clone(),
            })
            .collect();
        let message = match causes.as_slice() {
            [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
            many => {
                let mut lines = Vec::new();
                for (manager, paths) in &said {
                    lines.push(format!("conflicts with {manager}:"));
                    lines.extend(paths.iter().map(|path| format!("- {path}")));
                }
                format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
            }
        };
        ApiError::apply_conflict(message, causes)
    }
}
