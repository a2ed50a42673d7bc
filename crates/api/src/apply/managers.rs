//! `metadata.managedFields`: which manager owns which fields.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Malformed};

/// In the order in which entries are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    /// The version in which the fields are named.
    pub api_version: String,
    /// Through which subresource it wrote; "" for the object itself.
    pub subresource: String,
    /// When it last changed something: RFC 3339 with seconds.
    pub time: Option<String>,
    pub fields: FieldSet,
}

impl Entry {
    /// Whether the two are one manager's: an applier is known without its version, so that it has one configuration.
    fn is_same(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// What [`is_same`](Entry::is_same) compares.
    fn identity(&self) -> (String, Operation, String, String) {
        let version =
            if self.operation == Operation::Apply { String::new() } else { self.api_version.clone() };
        (self.manager.clone(), self.operation, version, self.subresource.clone())
    }
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Managed(pub(super) Vec<Entry>);

/// Of managers that wrote and did not apply, so many are kept apart.
const MAX_UPDATERS: usize = 10;
/// To whom the fields of older ones go.
const ANCIENT: &str = "ancient-changes";

impl Managed {
    /// Reads what an object carries.
    ///
    /// # Errors
    /// An entry that is none.
    pub fn parse(managed_fields: &Value) -> Result<Managed, Malformed> {
        let read = read(managed_fields.clone(), |fields| FieldSet::parse(&fields))?;
        // Of two entries of one manager the last counts.
        let mut seen = HashSet::new();
        let mut last: Vec<Entry> =
            read.0.into_iter().rev().filter(|entry| seen.insert(entry.identity())).collect();
        last.reverse();
        Ok(Managed(last))
    }

    /// Reads what an object of the store carries, which [`into_value`](Managed::into_value) has written: its sets are not looked through.
    pub fn stored(managed_fields: Value) -> Managed {
        let set = |fields| match fields {
            Value::Object(map) => Ok(FieldSet(map)),
            _ => Ok(FieldSet::default()),
        };
        read(managed_fields, set).unwrap_or_default()
    }

    /// What an object sent by a client asks for: its own entries where it has some that can be read, else those of the object that is
    /// there, so that a client that knows nothing of them does not take them away. An empty list, or one empty entry, asks for
    /// none.
    pub fn of_request(sent: Value, live: Option<&Value>) -> Managed {
        let kept = || live.cloned().map(Managed::stored).unwrap_or_default();
        let reset = match sent.as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([one]) => one.as_object().is_some_and(Map::is_empty),
            _ => false,
        };
        if reset {
            return Managed::default();
        }
        if live == Some(&sent) {
            return Managed::stored(sent);
        }
        match Managed::parse(&sent) {
            Ok(managed) if !managed.0.is_empty() => managed,
            _ => kept(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The value of `metadata.managedFields`; None where nobody owns anything.
    pub fn into_value(mut self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        fn key(entry: &Entry) -> (Operation, Option<&str>, &str, &str, &str) {
            let Entry { manager, operation, api_version, subresource, time, .. } = entry;
            (*operation, time.as_deref(), manager, api_version, subresource)
        }
        self.0.sort_by(|a, b| key(a).cmp(&key(b)));
        Some(self.0.into_iter().map(written).collect())
    }

    pub(super) fn position(&self, entry: &Entry) -> Option<usize> {
        self.0.iter().position(|other| other.is_same(entry))
    }

    /// Puts the fields of the oldest updaters together until there are no more than may be.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<usize> =
            (0..self.0.len()).filter(|at| self.0[*at].operation == Operation::Update).collect();
        let mut over = updaters.len().saturating_sub(MAX_UPDATERS);
        if over == 0 {
            return;
        }
        let age = |at: &usize| {
            let entry = &self.0[*at];
            (entry.time.clone(), entry.manager.clone(), entry.api_version.clone(), entry.subresource.clone())
        };
        updaters.sort_by_key(age);
        // The first of each version waits for a second, with which it becomes the bucket of the version.
        let mut firsts: Vec<usize> = Vec::new();
        let mut gone = Vec::new();
        for at in updaters {
            if over == 0 {
                break;
            }
            let version = self.0[at].api_version.clone();
            let Some(first) = firsts.iter().copied().find(|first| self.0[*first].api_version == version)
            else {
                firsts.push(at);
                continue;
            };
            let is_bucket = |entry: &Entry| {
                entry.manager == ANCIENT
                    && entry.operation == Operation::Update
                    && entry.subresource.is_empty()
                    && entry.api_version == version
            };
            let bucket = self.0.iter().position(is_bucket).unwrap_or(first);
            if bucket == at {
                continue;
            }
            let merged = std::mem::take(&mut self.0[at].fields);
            let time = self.0[at].time.take();
            let bucket = &mut self.0[bucket];
            bucket.manager = ANCIENT.into();
            bucket.subresource = String::new();
            bucket.fields.add(&merged);
            bucket.time = time;
            gone.push(at);
            over -= 1;
        }
        gone.sort_unstable();
        for at in gone.into_iter().rev() {
            self.0.remove(at);
        }
    }
}

fn written(entry: Entry) -> Value {
    let mut out = Map::new();
    if !entry.manager.is_empty() {
        out.insert("manager".into(), entry.manager.into());
    }
    out.insert("operation".into(), entry.operation.as_str().into());
    out.insert("apiVersion".into(), entry.api_version.into());
    if let Some(time) = entry.time {
        out.insert("time".into(), time.into());
    }
    out.insert("fieldsType".into(), "FieldsV1".into());
    let mut fields = entry.fields.into_fields();
    fields.sort_all_objects();
    out.insert("fieldsV1".into(), fields);
    if !entry.subresource.is_empty() {
        out.insert("subresource".into(), entry.subresource.into());
    }
    Value::Object(out)
}

fn read(
    managed_fields: Value,
    set: impl Fn(Value) -> Result<FieldSet, Malformed>,
) -> Result<Managed, Malformed> {
    let Value::Array(list) = managed_fields else { return Ok(Managed::default()) };
    let mut managed = Managed::default();
    for (at, value) in list.into_iter().enumerate() {
        let Value::Object(mut map) = value else { return Err(Malformed(format!("entry {at} is no object"))) };
        let mut text = |key: &str| match map.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(Malformed("operation must be `Apply` or `Update`".into())),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err(Malformed("apiVersion must not be empty".into()));
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err(Malformed(format!("missing fieldsType in managed fields entry {at}"))),
            other => {
                return Err(Malformed(format!("invalid fieldsType {other:?} in managed fields entry {at}")));
            }
        }
        let (manager, subresource) = (text("manager"), text("subresource"));
        let time = Some(text("time")).filter(|time| !time.is_empty());
        let fields = match map.remove("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => set(fields)?,
        };
        managed.0.push(Entry { manager, operation, api_version, subresource, time, fields });
    }
    Ok(managed)
}

/// Whether two values of `managedFields` differ in nothing but when something was done.
pub fn same_but_times(a: Option<&Value>, b: Option<&Value>) -> bool {
    let timeless = |value: Option<&Value>| {
        let mut managed = value.cloned().map(Managed::stored).unwrap_or_default();
        managed.0.iter_mut().for_each(|entry| entry.time = None);
        managed.0.sort_by_key(Entry::identity);
        managed
    };
    timeless(a) == timeless(b)
}
