//! What a place of an object is to apply, from the schema table.

use serde_json::Value;

use super::path;
use crate::schema::{Field, Kind, Merge, Shape, Type};

#[derive(Clone, Copy)]
pub(super) enum Node {
    /// Owned as a whole: a scalar, or what the table calls atomic.
    Leaf,
    /// Owned field by field.
    Object(&'static Type),
    /// Owned key by key; the type of its values where these are owned field by field.
    Map(Option<&'static Type>),
    /// A list of objects known by these fields.
    Items { ty: &'static Type, keys: &'static [&'static str] },
    /// A list of scalars, each owned by itself.
    Set,
}

impl Node {
    pub fn of(field: &Field) -> Node {
        match (field.merge, field.shape) {
            (Merge::Atomic, _) => Node::Leaf,
            (_, Shape::One(_)) => field.shape.object().map_or(Node::Leaf, Node::object),
            (Merge::ByKeys(keys), Shape::List(_)) => {
                field.shape.object().map_or(Node::Leaf, |ty| Node::Items { ty, keys })
            }
            (Merge::Set, Shape::List(_)) => Node::Set,
            // A list of which nothing is said is atomic.
            (_, Shape::List(_)) => Node::Leaf,
            (_, Shape::Map(Kind::Object(_))) => Node::Map(field.shape.object().filter(|ty| !ty.atomic)),
            (_, Shape::Map(_) | Shape::MapOfLists(_)) => Node::Map(None),
        }
    }

    fn object(ty: &'static Type) -> Node {
        if ty.atomic { Node::Leaf } else { Node::Object(ty) }
    }

    /// What is under a key of an object or map.
    pub fn under(self, name: &str) -> Node {
        match self {
            Node::Object(ty) => ty.field(name).map_or(Node::Leaf, Node::of),
            Node::Map(Some(ty)) => Node::Object(ty),
            _ => Node::Leaf,
        }
    }

    /// Whether `name` is a field of the type, and not a key that a user chose.
    pub fn names(self, name: &str) -> bool {
        matches!(self, Node::Object(ty) if ty.field(name).is_some())
    }

    /// What each item of a list is.
    pub fn item(self) -> Node {
        match self {
            Node::Items { ty, .. } => Node::object(ty),
            _ => Node::Leaf,
        }
    }

    pub fn is_list(self) -> bool {
        matches!(self, Node::Items { .. } | Node::Set)
    }

    /// The path element of an item of the list.
    ///
    /// # Errors
    /// An item that cannot be told from others, in structured-merge-diff's words.
    pub fn element(self, item: &Value) -> Result<String, String> {
        match self {
            Node::Items { ty, keys } => path::of_item(ty, keys, item),
            _ => path::of_value(item),
        }
    }

    /// The items of a list with their path elements; None where one has none.
    pub fn index(self, list: &[Value]) -> Option<Vec<(String, &Value)>> {
        list.iter().map(|item| Some((self.element(item).ok()?, item))).collect()
    }
}

/// Null, or a container with nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
