//! What differs between two versions of an object. Only what differs is walked further than its comparison, and only that is
//! put into sets, so a small change of a large object is cheap to track.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    decide::Reach,
    field_set::{self, FieldSet},
    node::{Node, is_empty},
    path,
};
use crate::schema::{Field, Kind, Shape, Type};

/// No path is in more than one of the sets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    #[cfg(test)]
    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// From `old` to `new`, objects of a type, in what `reach` covers.
pub(super) fn compare(old: &Value, new: &Value, ty: &'static Type, reach: Reach<'_>) -> Comparison {
    let mut out = Three::default();
    both_maps(old.as_object(), new.as_object(), Node::Object(ty), reach, &mut out);
    Comparison {
        added: FieldSet(out.added),
        modified: FieldSet(out.modified),
        removed: FieldSet(out.removed),
    }
}

/// From nothing to `new`. Kubernetes compares with an empty object of the type, in which the structs and lists that Go always writes are
/// there: these do not become members themselves.
pub(super) fn created(new: &Value, ty: &'static Type, reach: Reach<'_>) -> Comparison {
    let mut added = Map::new();
    if let Value::Object(map) = new {
        made(map, ty, reach, &mut added);
    }
    Comparison { added: FieldSet(added), ..Comparison::default() }
}

/// Structs that Go holds by value and always writes, whatever `omitempty` says.
const BY_VALUE: &[&str] =
    &["jobTemplate", "metadata", "spec", "status", "strategy", "template", "updateStrategy"];

fn made(map: &Map<String, Value>, ty: &'static Type, reach: Reach<'_>, out: &mut Map<String, Value>) {
    for (name, value) in map.iter().filter(|(name, _)| reach.covers(name)) {
        let field = ty.field(name);
        let node = field.map_or(Node::Leaf, Node::of);
        let always = field.is_some_and(|field| {
            field.required
                || BY_VALUE.contains(&field.name) && matches!(field.shape, Shape::One(Kind::Object(_)))
        });
        let inner = match (node, value) {
            (Node::Object(inner_type), Value::Object(inner)) if always => {
                let mut below = Map::new();
                made(inner, inner_type, Reach::All, &mut below);
                field_set::node(below, false)
            }
            (Node::Leaf, value) if always && field.is_some_and(|field| is_zero(value, field)) => None,
            _ => {
                let mut below = whole(value, node);
                if always && !matches!(node, Node::Leaf) {
                    below.remove(".");
                    field_set::node(below, false)
                } else {
                    Some(Value::Object(below))
                }
            }
        };
        if let Some(inner) = inner {
            out.insert(path::of_field(name), inner);
        }
    }
}

/// What Go writes for a field that nobody set.
fn is_zero(value: &Value, field: &Field) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.shape, Shape::One(_)),
    }
}

#[derive(Default)]
struct Three {
    added: Map<String, Value>,
    modified: Map<String, Value>,
    removed: Map<String, Value>,
}

impl Three {
    fn differs(
        &mut self,
        element: impl FnOnce() -> String,
        old: Option<&Value>,
        new: Option<&Value>,
        node: Node,
    ) {
        match (old, new) {
            (None, None) => {}
            (None, Some(new)) => {
                self.added.insert(element(), Value::Object(whole(new, node)));
            }
            (Some(old), None) => {
                self.removed.insert(element(), Value::Object(whole(old, node)));
            }
            (Some(old), Some(new)) => {
                let mut below = Three::default();
                if !descend(old, new, node, &mut below) {
                    if old != new {
                        self.modified.insert(element(), Value::Object(Map::new()));
                    }
                    return;
                }
                if below.added.is_empty() && below.modified.is_empty() && below.removed.is_empty() {
                    return;
                }
                let element = element();
                let sets = [
                    (&mut self.added, below.added),
                    (&mut self.modified, below.modified),
                    (&mut self.removed, below.removed),
                ];
                for (set, below) in sets {
                    if let Some(inner) = field_set::node(below, false) {
                        set.insert(element.clone(), inner);
                    }
                }
            }
        }
    }
}

/// Compares what is below a place; false where the place is one value.
fn descend(old: &Value, new: &Value, node: Node, out: &mut Three) -> bool {
    if matches!(node, Node::Leaf) || is_empty(old) && is_empty(new) {
        return false;
    }
    match (old, new) {
        (Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) if !node.is_list() => {
            both_maps(old.as_object(), new.as_object(), node, Reach::All, out);
            true
        }
        (Value::Array(_) | Value::Null, Value::Array(_) | Value::Null) if node.is_list() => {
            let list = |value| Value::as_array(value).map_or(&[][..], Vec::as_slice);
            old == new || both_lists(list(old), list(new), node, out)
        }
        _ => false,
    }
}

fn both_maps(
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    node: Node,
    reach: Reach<'_>,
    out: &mut Three,
) {
    for (name, value) in old.into_iter().flatten().filter(|(name, _)| reach.covers(name)) {
        let there = new.and_then(|new| new.get(name));
        out.differs(|| path::of_field(name), Some(value), there, node.under(name));
    }
    for (name, value) in new.into_iter().flatten().filter(|(name, _)| reach.covers(name)) {
        if old.is_none_or(|old| !old.contains_key(name)) {
            out.differs(|| path::of_field(name), None, Some(value), node.under(name));
        }
    }
}

/// False where items cannot be told from each other: then the list is one value.
fn both_lists(old: &[Value], new: &[Value], node: Node, out: &mut Three) -> bool {
    let (Some(old), Some(new)) = (node.index(old), node.index(new)) else { return false };
    let mut items: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (element, item) in old {
        items.entry(element).or_default().0.push(item);
    }
    for (element, item) in new {
        items.entry(element).or_default().1.push(item);
    }
    for (element, (before, after)) in items {
        if before.len() > 1 || after.len() > 1 {
            // What stands twice is one value.
            let one = |list: Vec<&Value>| (!list.is_empty()).then(|| list.into_iter().cloned().collect());
            let (before, after): (Option<Value>, Option<Value>) = (one(before), one(after));
            out.differs(|| element, before.as_ref(), after.as_ref(), Node::Leaf);
        } else {
            out.differs(|| element, before.first().copied(), after.first().copied(), node.item());
        }
    }
    true
}

/// The node of a place that is only in one of the two: it and all that is in it.
fn whole(value: &Value, node: Node) -> Map<String, Value> {
    let mut out = Map::new();
    match (value, node) {
        (_, Node::Leaf) => {}
        (Value::Object(map), _) if !node.is_list() => {
            for (name, value) in map {
                out.insert(path::of_field(name), Value::Object(whole(value, node.under(name))));
            }
        }
        (Value::Array(list), _) if node.is_list() => {
            for (element, item) in node.index(list).into_iter().flatten() {
                out.insert(element, Value::Object(whole(item, node.item())));
            }
        }
        _ => {}
    }
    if !out.is_empty() {
        out.insert(".".into(), Value::Object(Map::new()));
    }
    out
}
