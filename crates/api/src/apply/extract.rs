//! The fields that a configuration names: what its applier comes to own.

use serde_json::{Map, Value};

use super::{
    field_set::{self, FieldSet},
    node::{Node, is_empty},
    path,
};
use crate::schema::Type;

/// Every leaf of the value, every key of a map and every item of a list; a named field only where it is a leaf or empty.
pub(super) fn extract(value: &Value, ty: &'static Type) -> FieldSet {
    FieldSet(below(value, Node::Object(ty)))
}

/// The members below a place that is no leaf.
fn below(value: &Value, node: Node) -> Map<String, Value> {
    let mut out = Map::new();
    match value {
        Value::Object(map) if matches!(node, Node::Object(_) | Node::Map(_)) => {
            for (name, value) in map {
                let under = node.under(name);
                let member = matches!(under, Node::Leaf)
                    || value.is_null()
                    || value.is_object() && is_empty(value)
                    || !node.names(name);
                if let Some(inner) = field_set::node(below(value, under), member) {
                    out.insert(path::of_field(name), inner);
                }
            }
        }
        Value::Array(list) if node.is_list() => {
            for (element, item) in list.iter().filter_map(|item| Some((node.element(item).ok()?, item))) {
                // Of what stands twice nothing below it is owned.
                let twice = out.contains_key(&element);
                let inner = if twice { Map::new() } else { below(item, node.item()) };
                if let Some(inner) = field_set::node(inner, true) {
                    out.insert(element, inner);
                }
            }
        }
        _ => {}
    }
    out
}

/// The set with every named field that has members below it.
pub(super) fn with_named(set: &FieldSet, ty: &'static Type) -> FieldSet {
    fn walk(set: &Map<String, Value>, at: Node) -> Map<String, Value> {
        let mut out = Map::new();
        for (element, inner) in field_set::below(set) {
            let (named, under) = match element.strip_prefix("f:") {
                Some(name) => (at.names(name), at.under(name)),
                None => (false, at.item()),
            };
            let member = field_set::is_member(inner) || named;
            if let Some(inner) = field_set::node(walk(inner, under), member) {
                out.insert(element.clone(), inner);
            }
        }
        out
    }
    FieldSet(walk(&set.0, Node::Object(ty)))
}
