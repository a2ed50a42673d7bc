//! What a write does to the owners of fields, and what an apply does to the object.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    compare::{Comparison, compare, created},
    conflict::Conflicts,
    extract::extract,
    field_set::FieldSet,
    last_applied,
    managers::{Entry, Managed, Operation},
    merge::merge,
    node::Node,
    path,
    prune::prune,
};
use crate::{defaults, schema::Type, strict};

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// "" for the object itself.
    pub subresource: &'a str,
    /// The version in which the object is written.
    pub api_version: &'a str,
    /// RFC 3339 with seconds.
    pub now: &'a str,
}

impl Writer<'_> {
    fn entry(&self, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now.to_owned()),
            fields,
        }
    }
}

/// The object in another version, with its type there: for managers that named fields in it. None for a version that is
/// not served; the managers of that one go.
pub type Convert<'a> = &'a dyn Fn(&Value, &str) -> Option<(&'static Type, Value)>;

/// What belongs to no manager: the identity of the object, and what the server alone writes.
const UNOWNED: &[&str] = &[
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

fn strip(set: &mut FieldSet) {
    for field in ["apiVersion", "kind"] {
        let mut one = FieldSet::default();
        one.insert(&[&path::of_field(field)]);
        set.subtract(&one);
    }
    set.without("metadata", UNOWNED);
}

/// Who managed an object of which that was not written down: all of it is one manager's.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What a path of the API writes of an object. The metadata every path does.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    All,
    AllBut(&'a str),
    Only(&'a str),
}

impl Reach<'_> {
    pub(super) fn covers(self, field: &str) -> bool {
        matches!(field, "apiVersion" | "kind" | "metadata")
            || match self {
                Reach::All => true,
                Reach::AllBut(other) => field != other,
                Reach::Only(own) => field == own,
            }
    }
}

/// A version of an object's type, and what of it is written.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub ty: &'static Type,
    pub reach: Reach<'a>,
    pub convert: Convert<'a>,
}

/// The owners after any write but an apply: the writer owns what it changed, nobody else does. Of an object that is there
/// without any manager nothing is written down until somebody applies.
pub fn write(
    live: Option<&Value>,
    new: &Value,
    scope: &Scope<'_>,
    mut managed: Managed,
    writer: &Writer<'_>,
) -> Managed {
    if live.is_some() && managed.is_empty() {
        return managed;
    }
    let mut changed = match live {
        Some(live) => compare(live, new, scope.ty, scope.reach),
        None => created(new, scope.ty, scope.reach),
    };
    for set in [&mut changed.added, &mut changed.modified, &mut changed.removed] {
        strip(set);
    }
    if let Some(live) = live {
        let mut others = Others { live, new, convert: scope.convert, seen: HashMap::new() };
        managed.0.retain_mut(|entry| {
            let changed =
                if entry.api_version == writer.api_version { Some(&changed) } else { others.compared(entry) };
            let Some(changed) = changed else { return false };
            for set in [&changed.added, &changed.modified, &changed.removed] {
                if !set.is_empty() {
                    entry.fields.subtract(set);
                }
            }
            !entry.fields.is_empty()
        });
    }
    let mut own = writer.entry(Operation::Update, changed.added);
    own.fields.add(&changed.modified);
    if !own.fields.is_empty() {
        match managed.position(&own) {
            Some(at) => {
                let before = std::mem::take(&mut managed.0[at].fields);
                own.fields.add(&before);
                managed.0[at] = own;
            }
            None => managed.0.push(own),
        }
    }
    managed.cap();
    managed
}

/// The comparison in other versions, each made once.
struct Others<'a> {
    live: &'a Value,
    new: &'a Value,
    convert: Convert<'a>,
    seen: HashMap<String, Option<Comparison>>,
}

impl Others<'_> {
    fn compared(&mut self, entry: &Entry) -> Option<&Comparison> {
        let make = || {
            let both = (self.convert)(self.live, &entry.api_version)
                .zip((self.convert)(self.new, &entry.api_version));
            both.map(|((ty, live), (_, new))| compare(&live, &new, ty, Reach::All))
        };
        self.seen.entry(entry.api_version.clone()).or_insert_with(make).as_ref()
    }
}

/// What is applied, to what, and how.
#[derive(Clone, Copy)]
pub struct Apply<'a> {
    /// None where the apply creates the object.
    pub live: Option<&'a Value>,
    pub config: &'a Value,
    pub scope: Scope<'a>,
    /// What others own and the configuration would change becomes the applier's.
    pub force: bool,
}

/// The object after an apply, cleaned as a decoded body is. Defaults are not set.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    pub object: Value,
    pub managed: Managed,
}

/// Why nothing is applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// What others own and the configuration would change, where it is not forced.
    Conflicts(Conflicts),
    /// What comes out is no object of the type, in Go's words.
    Undecodable(String),
}

/// # Errors
/// [`Refused`].
pub fn apply(what: &Apply<'_>, mut managed: Managed, writer: &Writer<'_>) -> Result<Applied, Refused> {
    let scope = what.scope;
    let mut config = what.config.clone();
    if let Some(map) = config.as_object_mut() {
        map.retain(|name, _| scope.reach.covers(name));
    }
    let mut live = what.live.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let Some(metadata) = live.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if what.live.is_some() && managed.is_empty() {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        managed = write(None, &live, &scope, managed, &before);
    }
    let again = managed.clone();
    let done = match merged(&live, &config, &scope, what.force, managed, writer) {
        Err(Refused::Conflicts(conflicts)) if writer.manager == last_applied::MANAGER => {
            let Some(allowed) = last_applied::allowed(&live, scope.ty, writer.api_version) else {
                return Err(Refused::Conflicts(conflicts));
            };
            let left = conflicts.beyond(&allowed);
            if !left.is_empty() {
                return Err(Refused::Conflicts(left));
            }
            merged(&live, &config, &scope, true, again, writer)
        }
        done => done,
    };
    let mut applied = done?;
    if writer.manager == last_applied::MANAGER {
        last_applied::renew(&mut applied.object, what.config);
    }
    Ok(applied)
}

fn merged(
    live: &Value,
    config: &Value,
    scope: &Scope<'_>,
    force: bool,
    mut managed: Managed,
    writer: &Writer<'_>,
) -> Result<Applied, Refused> {
    let merged = merge(live, config, Node::Object(scope.ty));
    let mut own = writer.entry(Operation::Apply, extract(config, scope.ty));
    let last = managed.position(&own).map(|at| managed.0.remove(at));
    let mut owned = own.fields.clone();
    for entry in managed.0.iter().filter(|entry| entry.api_version == writer.api_version) {
        owned.add(&entry.fields);
    }
    let mut object = match &last {
        Some(last) if last.api_version == writer.api_version => prune(merged, &last.fields, &owned, scope.ty),
        _ => merged,
    };
    strict::conform(&mut object, scope.ty).map_err(Refused::Undecodable)?;
    // Compared is what will be stored: what Go does not write of what was said, or writes in other words, or sets where it was not
    // said, is no change.
    let mut new = object.clone();
    let group = writer.api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = new["kind"].as_str().unwrap_or_default().to_owned();
    defaults::apply_kind(group, &kind, &mut new);
    let changed = compare(live, &new, scope.ty, Reach::All);
    let mut others = Others { live, new: &new, convert: scope.convert, seen: HashMap::new() };
    let mut conflicts = Vec::new();
    managed.0.retain_mut(|entry| {
        let changed =
            if entry.api_version == writer.api_version { Some(&changed) } else { others.compared(entry) };
        let Some(changed) = changed else { return false };
        // What the configuration makes null, false or empty is changed too, although Go then does not write it.
        let unset = changed.removed.intersection(&own.fields);
        let set = changed.modified.clone().union(&changed.added).union(&unset);
        let taken = entry.fields.intersection(&set);
        if !taken.is_empty() {
            conflicts.push((entry.clone(), taken.clone()));
        }
        entry.fields.subtract(&taken);
        entry.fields.subtract(&changed.removed);
        !entry.fields.is_empty()
    });
    if !force && !conflicts.is_empty() {
        return Err(Refused::Conflicts(Conflicts(conflicts)));
    }
    strip(&mut own.fields);
    if !own.fields.is_empty() {
        managed.0.push(own);
    }
    Ok(Applied { object, managed })
}
