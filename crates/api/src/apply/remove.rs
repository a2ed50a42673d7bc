//! An object without some of its fields and items.

use serde_json::{Map, Value};

use super::{
    field_set::{self, FieldSet},
    node::Node,
    path,
};
use crate::schema::Type;

/// The value without every place that is in the set. A container that is left with nothing is null.
pub(super) fn remove(value: &Value, set: &FieldSet, ty: &'static Type) -> Value {
    from(value, &set.0, Node::Object(ty))
}

fn from(value: &Value, set: &Map<String, Value>, node: Node) -> Value {
    // What the set has of this place: whether the place itself, and what is below.
    let asked = |element: &str| match set.get(element).and_then(Value::as_object) {
        Some(inner) => (field_set::is_member(inner), Some(inner)),
        None => (false, None),
    };
    let rest = |inner: Option<&Map<String, Value>>, value: &Value, node: Node| match inner {
        Some(inner) => from(value, inner, node),
        None => value.clone(),
    };
    match value {
        Value::Object(map) if matches!(node, Node::Object(_) | Node::Map(_)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let (member, inner) = asked(&path::of_field(name));
                if !member {
                    out.insert(name.clone(), rest(inner, value, node.under(name)));
                }
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        Value::Array(list) if node.is_list() => {
            let mut out = Vec::new();
            for item in list {
                // An item without an element of its own is nobody's.
                let (member, inner) = node.element(item).map_or((false, None), |element| asked(&element));
                if !member {
                    out.push(rest(inner, item, node.item()));
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        scalar => scalar.clone(),
    }
}
