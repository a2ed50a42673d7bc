//! Strategic merge patch: a merge patch in which lists may be merged too, element by element, by a key that the schema
//! names. Directives in the patch say what plain JSON cannot: `$patch: delete` and `replace`, `$retainKeys`,
//! `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>`. Rules and order of elements are those of
//! apimachinery's `strategicpatch`, so that three-way patches that kubectl computes come out as kubectl expects.

use serde_json::{Map, Value};

use crate::schema::{Field, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum StrategicError {
    #[error("unknown patch type found: {0}")]
    UnknownDirective(String),
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("map: {0} does not contain declared merge key: {1}")]
    NoMergeKey(Value, &'static str),
    #[error("delete patch type with no merge key defined")]
    DeleteWithoutKey,
    #[error("lists of lists are not supported")]
    MixedList,
}

/// Merges the patch into an object of the type.
pub fn apply(
    object: &mut Map<String, Value>,
    patch: Map<String, Value>,
    ty: &'static Type,
) -> Result<(), StrategicError> {
    merge_object(object, patch, Some(ty))
}

/// `ty` is none where the schema says nothing of the fields: maps, and what is unknown.
fn merge_object(
    original: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Option<&'static Type>,
) -> Result<(), StrategicError> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(word)) if word == "replace" => {
            *original = without_directives(patch);
            return Ok(());
        }
        Some(Value::String(word)) if word == "delete" => {
            original.clear();
            return Ok(());
        }
        Some(Value::String(word)) if word == "merge" => {}
        Some(other) => return Err(StrategicError::UnknownDirective(plain(&other))),
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain(original, &patch, &keys)?;
    }
    order_lists(original, &mut patch, ty)?;

    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let Value::Array(gone) = value else { return Err(StrategicError::PrimitiveList) };
            if let Some(Value::Array(items)) = original.get_mut(name) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let field = ty.and_then(|t| t.field(&key));
        match (original.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(patch)) => {
                merge_object(there, patch, field.and_then(object_type))?;
            }
            (Some(Value::Array(there)), Value::Array(patch)) => {
                let merged = merge_list(std::mem::take(there), patch, field)?;
                *there = merged;
            }
            (_, value) => match settle(value) {
                Some(value) => {
                    original.insert(key, value);
                }
                None => {
                    original.remove(&key);
                }
            },
        }
    }
    Ok(())
}

/// The type of a field's object; none for maps, whose keys are not fields.
fn object_type(field: &'static Field) -> Option<&'static Type> {
    match field.shape {
        crate::schema::Shape::One(_) | crate::schema::Shape::List(_) => field.shape.object(),
        crate::schema::Shape::Map(_) | crate::schema::Shape::MapOfLists(_) => None,
    }
}

/// `$retainKeys` lists every field that may be there afterwards; the patch may set no other. It may remove others by
/// `null`, as kubectl does when a volume changes its kind.
fn retain(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), StrategicError> {
    let Value::Array(keys) = keys else { return Err(StrategicError::RetainKeys) };
    let kept = |key: &str| keys.iter().any(|k| k == key);
    if patch.iter().any(|(key, value)| !key.starts_with('$') && !value.is_null() && !kept(key)) {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// Handles each `$setElementOrder/<field>` together with its list, and takes both out of the patch.
fn order_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Option<&'static Type>,
) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let name = directive[ELEMENT_ORDER.len()..].to_owned();
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(StrategicError::ElementOrder);
        };
        let field = ty.and_then(|t| t.field(&name));
        let key = field.and_then(|f| f.strategy.key);
        let listed = match patch.remove(&name) {
            None => None,
            Some(Value::Array(items)) => Some(items),
            // A `null` or a scalar in place of the list needs no order.
            Some(other) => {
                patch.insert(name, other);
                continue;
            }
        };
        if let Some(items) = &listed {
            check_order(items, &order, key)?;
        }
        // Elements are also taken from this list by $deleteFromPrimitiveList; that must come first.
        if let Some(gone) = patch.remove(&format!("{DELETE_FROM}{name}")) {
            let Value::Array(gone) = gone else { return Err(StrategicError::PrimitiveList) };
            if let Some(Value::Array(items)) = original.get_mut(&name) {
                items.retain(|item| !gone.contains(item));
            }
        }
        let before = match original.remove(&name) {
            Some(Value::Array(items)) => Some(items),
            _ => None,
        };
        let live = before.clone().unwrap_or_default();
        let merged = match (before, listed) {
            (Some(items), None) => items,
            (None, Some(items)) => items.into_iter().filter_map(settle).collect(),
            (Some(items), Some(patch)) => merge_list(items, patch, field)?,
            (None, None) => continue,
        };
        original.insert(name, arrange(merged, &order, &live, key).into());
    }
    Ok(())
}

/// The elements that the patch changes must stand in the order list, in the same order.
fn check_order(items: &[Value], order: &[Value], key: Option<&str>) -> Result<(), StrategicError> {
    let mut rest = order.iter();
    for item in items.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !rest.any(|o| same(o, item, key)) {
            return Err(StrategicError::ElementOrder);
        }
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: Option<&'static Field>,
) -> Result<Vec<Value>, StrategicError> {
    let Some(field) = field.filter(|f| f.strategy.merge) else {
        return Ok(patch.into_iter().filter_map(settle).collect());
    };
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(StrategicError::MixedList);
    }
    let Some(key) = field.strategy.key else {
        // A set of scalars: what is new comes to the end.
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(arrange(merged, &patch, &original, None));
    };
    let live = original.clone();
    let mut merged = original;
    let mut changes = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Value::Object(mut item) = item else { return Err(StrategicError::MixedList) };
        match item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned).as_deref() {
            None if item.contains_key(DIRECTIVE) => {
                return Err(StrategicError::UnknownDirective(plain(&item[DIRECTIVE])));
            }
            None => changes.push(item),
            Some("delete") => {
                if !item.contains_key(key) {
                    return Err(StrategicError::DeleteWithoutKey);
                }
                let item = Value::Object(item);
                merged.retain(|there| !same(there, &item, Some(key)));
            }
            Some("replace") => {
                // The element that carries only the directive stands for the whole list; one with content is kept.
                replace = true;
                item.remove(DIRECTIVE);
                if !item.is_empty() {
                    changes.push(item);
                }
            }
            Some(other) => return Err(StrategicError::UnknownDirective(other.to_owned())),
        }
    }
    if replace {
        return Ok(changes.into_iter().map(|item| Value::Object(without_directives(item))).collect());
    }
    let order: Vec<Value> = changes.iter().cloned().map(Value::Object).collect();
    for item in changes {
        if !item.contains_key(key) {
            return Err(StrategicError::NoMergeKey(Value::Object(item), key));
        }
        let whole = Value::Object(item);
        let there = merged.iter_mut().find(|there| same(there, &whole, Some(key)));
        match (there, whole) {
            (Some(Value::Object(there)), Value::Object(item)) => {
                merge_object(there, item, field.shape.object())?
            }
            (_, whole) => merged.extend(settle(whole)),
        }
    }
    Ok(arrange(merged, &order, &live, Some(key)))
}

/// Whether two elements are the same one: by their key, or scalars by value.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => match (a.get(key), b.get(key)) {
            (Some(a), Some(b)) => a == b || plain(a) == plain(b),
            _ => false,
        },
        None => a == b,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Puts the elements that stand in `order` into that order, and the others, which only the server has, among them: each
/// before the first that the live list has after it.
fn arrange(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let (mut ours, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    ours.sort_by_cached_key(|item| place(order, item));
    others.sort_by_cached_key(|item| place(live, item));

    let mut out = Vec::with_capacity(ours.len() + others.len());
    let (mut ours, mut others) = (ours.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(our), Some(other)) = (ours.peek(), others.peek()) {
        let first = match (place(live, other), place(live, our)) {
            (Some(other), Some(our)) if other < our => others.next(),
            _ => ours.next(),
        };
        out.extend(first);
    }
    out.extend(ours);
    out.extend(others);
    out
}

/// A value of the patch that meets nothing in the original: directives and nulls are taken out. None when it says to delete.
fn settle(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => match map.get(DIRECTIVE).and_then(Value::as_str) {
            Some("delete") => None,
            _ => Some(Value::Object(without_directives(map))),
        },
        Value::Array(items) => Some(items.into_iter().filter_map(settle).collect()),
        other => Some(other),
    }
}

fn without_directives(map: Map<String, Value>) -> Map<String, Value> {
    let directive = |key: &str| {
        key == DIRECTIVE
            || key == RETAIN_KEYS
            || key.starts_with(DELETE_FROM)
            || key.starts_with(ELEMENT_ORDER)
    };
    map.into_iter()
        .filter(|(key, value)| !directive(key) && !value.is_null())
        .filter_map(|(key, value)| Some((key, settle(value)?)))
        .collect()
}
