//! A configuration merged into an object: what the configuration names is as it says, nothing is taken away. Lists known by keys
//! are in the configuration's order, with what only the object has where it stood.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::node::{Node, is_empty};

pub(super) fn merge(live: &Value, config: &Value, node: Node) -> Value {
    // Two empty containers are one value, so that the difference between empty and null stays.
    if matches!(node, Node::Leaf) || is_empty(live) && is_empty(config) {
        return config.clone();
    }
    match (live, config) {
        (Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) if !node.is_list() => {
            maps(live.as_object(), config.as_object(), node)
        }
        (Value::Array(_) | Value::Null, Value::Array(_) | Value::Null) if node.is_list() => {
            let list = |value| Value::as_array(value).map_or(&[][..], Vec::as_slice);
            lists(list(live), list(config), node).unwrap_or_else(|| config.clone())
        }
        _ => config.clone(),
    }
}

fn maps(live: Option<&Map<String, Value>>, config: Option<&Map<String, Value>>, node: Node) -> Value {
    let mut out = Map::new();
    for (name, value) in live.into_iter().flatten() {
        let merged = match config.and_then(|config| config.get(name)) {
            Some(applied) => merge(value, applied, node.under(name)),
            None => value.clone(),
        };
        out.insert(name.clone(), merged);
    }
    for (name, value) in config.into_iter().flatten() {
        if !out.contains_key(name) {
            out.insert(name.clone(), value.clone());
        }
    }
    Value::Object(out)
}

/// None where items cannot be told from each other.
fn lists(live: &[Value], config: &[Value], node: Node) -> Option<Value> {
    let (live, config) = (node.index(live)?, node.index(config)?);
    let applied: HashMap<&str, &Value> =
        config.iter().map(|(element, item)| (element.as_str(), *item)).collect();
    let mut there: HashMap<&str, Option<&Value>> = HashMap::new();
    for (element, item) in &live {
        // What stands twice is replaced, not merged.
        there.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
    }
    let both = |element: &str, item: &Value| match there.get(element) {
        Some(Some(old)) => merge(old, item, node.item()),
        _ => item.clone(),
    };
    // What both have, in the configuration's order: before the next of it, no other of it may be put.
    let mut shared = config.iter().map(|(element, _)| element.as_str()).filter(|e| there.contains_key(e));
    let mut next = shared.next();
    let mut done = HashSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if let (Some((mine, _)), Some((theirs, item))) = (live.get(l), config.get(c)) {
            if mine == theirs {
                out.push(both(theirs, item));
                done.insert(theirs.as_str());
                l += 1;
                c += 1;
                next = shared.next();
                continue;
            }
            if applied.contains_key(mine.as_str()) && next.is_some_and(|next| next != mine) {
                l += 1;
                continue;
            }
        }
        if let Some((mine, item)) = live.get(l) {
            if !applied.contains_key(mine.as_str()) {
                out.push((*item).clone());
                l += 1;
                continue;
            }
            if done.contains(mine.as_str()) {
                l += 1;
            }
        }
        if let Some((theirs, item)) = config.get(c) {
            out.push(both(theirs, item));
            done.insert(theirs.as_str());
            c += 1;
            if next == Some(theirs.as_str()) {
                next = shared.next();
            }
        }
    }
    Some(Value::Array(out))
}
