//! A set of field paths, held as `FieldsV1` writes it: an object whose keys are path elements; a path is in the set where
//! its object is empty or has the key `.`. So sets are read from and written to objects without being converted.

use serde_json::{Map, Value};

use super::path;

/// The mark of a member that has members below it.
const SELF: &str = ".";

/// A set of field paths. No object in it is both without members and no member itself.
#[derive(Debug, Clone, Default)]
pub struct FieldSet(pub(super) Map<String, Value>);

/// A `FieldsV1` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) String);

impl PartialEq for FieldSet {
    fn eq(&self, other: &FieldSet) -> bool {
        self.0 == other.0
    }
}

pub(super) fn is_member(node: &Map<String, Value>) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// A node with these members below it, which is a member itself if `member`; None where nothing is.
pub(super) fn node(mut below: Map<String, Value>, member: bool) -> Option<Value> {
    match (below.is_empty(), member) {
        (true, false) => None,
        (true, true) => Some(Value::Object(below)),
        (false, _) => {
            if member {
                below.insert(SELF.into(), Value::Object(Map::new()));
            }
            Some(Value::Object(below))
        }
    }
}

/// The nodes below a node.
pub(super) fn below(node: &Map<String, Value>) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    node.iter().filter(|(key, _)| *key != SELF).filter_map(|(key, value)| Some((key, value.as_object()?)))
}

fn without_self(node: &Map<String, Value>) -> Map<String, Value> {
    below(node).map(|(key, node)| (key.clone(), Value::Object(node.clone()))).collect()
}

/// Puts back what a change of the nodes below has left; true where nothing is left.
fn settle(node: &mut Map<String, Value>, member: bool) -> bool {
    if member && !node.is_empty() {
        node.insert(SELF.into(), Value::Object(Map::new()));
    }
    !member && node.is_empty()
}

fn add(mine: &mut Map<String, Value>, other: &Map<String, Value>) {
    let member = is_member(mine) || is_member(other);
    mine.remove(SELF);
    add_below(mine, other);
    settle(mine, member);
}

fn add_below(mine: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (key, theirs) in below(other) {
        match mine.get_mut(key).and_then(Value::as_object_mut) {
            Some(node) => add(node, theirs),
            None => {
                mine.insert(key.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

/// True where nothing is left.
fn take(mine: &mut Map<String, Value>, other: &Map<String, Value>) -> bool {
    let member = is_member(mine) && !is_member(other);
    mine.remove(SELF);
    take_below(mine, other);
    settle(mine, member)
}

fn take_below(mine: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (key, theirs) in below(other) {
        if mine.get_mut(key).and_then(Value::as_object_mut).is_some_and(|node| take(node, theirs)) {
            mine.remove(key);
        }
    }
}

fn common(mine: &Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, theirs) in below(other) {
        let Some(node_of_mine) = mine.get(key).and_then(Value::as_object) else { continue };
        let member = is_member(node_of_mine) && is_member(theirs);
        if let Some(both) = node(common(node_of_mine, theirs), member) {
            out.insert(key.clone(), both);
        }
    }
    out
}

fn canonical(value: &Value) -> Result<Option<Value>, Malformed> {
    let Value::Object(map) = value else { return Err(Malformed(format!("expected object, found {value}"))) };
    let mut out = Map::new();
    for (key, inner) in map {
        if key == SELF {
            continue;
        }
        let Some(element) = path::canonical(key)? else { continue };
        let Some(inner) = canonical(inner)? else { continue };
        match (out.get_mut(&element).and_then(Value::as_object_mut), inner.as_object()) {
            (Some(there), Some(inner)) => add(there, inner),
            _ => {
                out.insert(element, inner);
            }
        }
    }
    // What had only elements of unknown kinds is a member, as upstream's reader has it.
    let member = out.is_empty() || map.contains_key(SELF);
    Ok(node(out, member))
}

impl FieldSet {
    /// Reads a `FieldsV1` that somebody sent.
    ///
    /// # Errors
    /// A key that is no path element; a value that is no object.
    pub fn parse(fields: &Value) -> Result<FieldSet, Malformed> {
        let Value::Object(map) = fields else {
            return Err(Malformed(format!("expected object, found {fields}")));
        };
        // Nobody owns the object as a whole.
        if map.is_empty() {
            return Ok(FieldSet::default());
        }
        match canonical(fields)? {
            Some(Value::Object(mut map)) => {
                map.remove(SELF);
                Ok(FieldSet(map))
            }
            _ => Ok(FieldSet::default()),
        }
    }

    /// The set as `FieldsV1`.
    pub fn into_fields(self) -> Value {
        Value::Object(self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path, given as its elements.
    pub fn insert(&mut self, path: &[&str]) {
        let mut one = Map::new();
        for (at, element) in path.iter().rev().enumerate() {
            let mut outer = Map::new();
            if let Some(inner) = node(one, at == 0) {
                outer.insert((*element).to_owned(), inner);
            }
            one = outer;
        }
        add_below(&mut self.0, &one);
    }

    pub fn contains(&self, path: &[&str]) -> bool {
        let mut at = &self.0;
        for element in path {
            match at.get(*element).and_then(Value::as_object) {
                Some(node) => at = node,
                None => return false,
            }
        }
        !path.is_empty() && is_member(at)
    }

    pub fn add(&mut self, other: &FieldSet) {
        if self.0.is_empty() {
            self.0 = other.0.clone();
        } else {
            add_below(&mut self.0, &other.0);
        }
    }

    pub fn subtract(&mut self, other: &FieldSet) {
        take_below(&mut self.0, &other.0);
    }

    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        FieldSet(common(&self.0, &other.0))
    }

    #[must_use]
    pub fn union(mut self, other: &FieldSet) -> FieldSet {
        self.add(other);
        self
    }

    #[must_use]
    pub fn difference(mut self, other: &FieldSet) -> FieldSet {
        self.subtract(other);
        self
    }

    /// Calls `each` with the elements of every path, those of a level before those below it.
    pub fn for_each(&self, each: &mut dyn FnMut(&[&str])) {
        fn walk<'a>(node: &'a Map<String, Value>, path: &mut Vec<&'a str>, each: &mut dyn FnMut(&[&str])) {
            let mut sorted: Vec<_> = below(node).collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (key, _) in sorted.iter().filter(|(_, node)| is_member(node)) {
                path.push(key);
                each(path);
                path.pop();
            }
            for (key, node) in sorted {
                path.push(key);
                walk(node, path, each);
                path.pop();
            }
        }
        walk(&self.0, &mut Vec::new(), each);
    }

    /// For what a write makes of a part of the set: the nodes below one field of the root, without the mark of the field itself.
    pub(super) fn without(&mut self, root: &str, names: &[&str]) {
        let root = path::of_field(root);
        let Some(node_of_root) = self.0.get(&root).and_then(Value::as_object) else { return };
        let mut kept = without_self(node_of_root);
        for name in names {
            kept.remove(&path::of_field(name));
        }
        match node(kept, false) {
            Some(rest) => self.0.insert(root, rest),
            None => self.0.remove(&root),
        };
    }
}

impl std::fmt::Display for FieldSet {
    /// One path a line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = Vec::new();
        self.for_each(&mut |path| lines.push(path::shown(path)));
        f.write_str(&lines.join("\n"))
    }
}
