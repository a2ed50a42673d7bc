//! What a check is, and what it finds.

use std::{collections::BTreeSet, fmt};

use super::{
    pod::{ContainerView, FieldPath, PodView},
    standard::Level,
};

/// A rule of the standard through its versions.
pub struct Check {
    /// Upstream's identifier.
    pub id: &'static str,
    /// A sentence: what is wrong where it is violated.
    pub about: &'static str,
    /// The laxest level that has it.
    pub level: Level,
    /// The oldest first.
    pub versions: &'static [Revision],
    #[cfg(test)]
    pub(super) fixtures: fn() -> Vec<super::fixture::Case>,
}

impl Check {
    /// The revision that holds at this minor version; `None` before the first.
    pub fn at(&self, minor: u32) -> Option<&Revision> {
        self.versions.iter().rev().find(|revision| revision.since <= minor)
    }
}

/// A rule from a version of the standard on, until the next revision.
pub struct Revision {
    /// The minor version of Kubernetes 1.
    pub since: u32,
    pub(super) run: fn(&PodView<'_>) -> Option<Violation>,
    /// Checks of laxer levels that this one says better.
    pub replaces: &'static [&'static str],
}

impl Revision {
    pub(super) const fn since(minor: u32, run: fn(&PodView<'_>) -> Option<Violation>) -> Revision {
        Revision { since: minor, run, replaces: &[] }
    }

    pub(super) const fn replacing(self, ids: &'static [&'static str]) -> Revision {
        Revision { replaces: ids, ..self }
    }
}

/// What a pod does that a check forbids, or does not do that it demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// [`Check::id`].
    pub check: &'static str,
    /// Upstream's `ForbiddenReason`.
    pub reason: &'static str,
    /// Upstream's `ForbiddenDetail`; names containers and values.
    pub detail: String,
    /// The offending fields; where one is demanded, it is not there.
    pub fields: Vec<FieldPath>,
    /// What to write instead, in order.
    pub remedies: Vec<Remedy>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(self.reason),
            detail => write!(f, "{} ({detail})", self.reason),
        }
    }
}

/// A change of a manifest after which the check has one reason less to refuse it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    pub path: FieldPath,
    pub change: Change,
    /// What the pod may lack then.
    pub note: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The field is given this value, and made where it is not there.
    Set(Setting),
    /// The field, the key or the item goes.
    Remove,
    /// Only people know what to write instead; the note says what could be.
    ByHand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Bool(bool),
    Text(&'static str),
    /// A list of one.
    List(&'static str),
}

/// What a check has found so far.
#[derive(Default)]
pub(super) struct Found<'a> {
    pod: bool,
    containers: Vec<&'a str>,
    /// Forbidden values, sorted and without repeats.
    pub values: BTreeSet<String>,
    fields: Vec<FieldPath>,
    remedies: Vec<Remedy>,
}

impl<'a> Found<'a> {
    /// The pod's own securityContext offends.
    pub fn pod(&mut self, path: FieldPath, change: Change) {
        self.pod = true;
        self.field(path, change, None);
    }

    /// `container` offends by this field of it. It is named once.
    pub fn container(&mut self, container: &ContainerView<'a>, path: FieldPath, change: Change) {
        self.name(container);
        self.field(path, change, None);
    }

    /// Names a container without a field.
    pub fn name(&mut self, container: &ContainerView<'a>) {
        if self.containers.last() != Some(&container.name) {
            self.containers.push(container.name);
        }
    }

    pub fn value(&mut self, value: &str) {
        self.values.insert(value.to_owned());
    }

    pub fn field(&mut self, path: FieldPath, change: Change, note: Option<&'static str>) {
        self.remedies.push(Remedy { path: path.clone(), change, note });
        self.fields.push(path);
    }

    /// An offending field that another field's change remedies.
    pub fn field_alone(&mut self, path: FieldPath) {
        self.fields.push(path);
    }

    pub fn remedy(&mut self, path: FieldPath, change: Change, note: Option<&'static str>) {
        self.remedies.push(Remedy { path, change, note });
    }

    /// What is said of the last remedy.
    pub fn note(&mut self, note: &'static str) {
        if let Some(last) = self.remedies.last_mut() {
            last.note = Some(note);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn count(&self) -> usize {
        self.containers.len()
    }

    /// `container "a"`, `containers "a", "b"`.
    pub fn containers(&self) -> String {
        format!("{} {}", plural(self.containers.len(), "container", "containers"), quoted(&self.containers))
    }

    /// Those who set it: `pod`, `pod and containers "a", "b"`.
    pub fn setters(&self) -> Vec<String> {
        let pod = self.pod.then(|| "pod".to_owned());
        let containers = (!self.containers.is_empty()).then(|| self.containers());
        pod.into_iter().chain(containers).collect()
    }

    /// `"x", "y"` of the values.
    pub fn quoted_values(&self) -> String {
        quoted(&self.values)
    }

    /// Orders the named containers by name.
    pub fn sort_containers(&mut self) {
        self.containers.sort_unstable();
        self.containers.dedup();
    }

    /// The violation, if anything was found.
    pub fn violation(self, reason: &'static str, detail: impl FnOnce(&Self) -> String) -> Option<Violation> {
        if self.is_empty() {
            return None;
        }
        let detail = detail(&self);
        // The table's row names the check.
        Some(Violation { check: "", reason, detail, fields: self.fields, remedies: self.remedies })
    }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

pub(super) fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}
