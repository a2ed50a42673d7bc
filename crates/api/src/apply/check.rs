//! Whether a configuration has only what its type has, in structured-merge-diff's words. Go's typed decoder never sees an applied
//! configuration, so its words are not used here.

use serde_json::Value;

use super::{
    node::Node,
    path::{self, show},
};
use crate::schema::{Field, Kind, Merge, Shape, Type};

/// # Errors
/// All that is wrong, with the paths.
pub fn check(config: &Value, ty: &'static Type) -> Result<(), String> {
    let mut findings = Vec::new();
    object(config, ty, "", &mut findings);
    match findings.len() {
        0 => Ok(()),
        1 => Err(findings.remove(0)),
        _ => Err(format!("errors:\n  {}", findings.join("\n  "))),
    }
}

fn finding(at: &str, why: &str) -> String {
    if at.is_empty() { why.to_owned() } else { format!("{at}: {why}") }
}

fn object(value: &Value, ty: &'static Type, at: &str, findings: &mut Vec<String>) {
    let map = match value {
        Value::Null => return,
        Value::Object(map) => map,
        other => return findings.push(finding(at, &format!("expected map, got &{{{other}}}"))),
    };
    for (name, value) in map {
        let at = format!("{at}{}", show(&path::of_field(name)));
        match ty.field(name) {
            Some(field) => one_field(value, field, &at, findings),
            None => findings.push(finding(&at, "field not declared in schema")),
        }
    }
}

fn one_field(value: &Value, field: &'static Field, at: &str, findings: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    match field.shape {
        Shape::One(_) => one(value, field.shape, at, findings),
        Shape::List(_) => {
            let Value::Array(items) = value else {
                return findings.push(finding(at, &format!("expected list, got &{{{value}}}")));
            };
            list(items, field, at, findings);
        }
        Shape::Map(_) | Shape::MapOfLists(_) => {
            let Value::Object(map) = value else {
                return findings.push(finding(at, &format!("expected map, got &{{{value}}}")));
            };
            let of_lists = matches!(field.shape, Shape::MapOfLists(_));
            for (key, value) in map {
                let at = format!("{at}{}", show(&path::of_field(key)));
                match value {
                    Value::Array(items) if of_lists => {
                        items.iter().for_each(|item| one(item, field.shape, &at, findings));
                    }
                    value => one(value, field.shape, &at, findings),
                }
            }
        }
    }
}

fn list(items: &[Value], field: &'static Field, at: &str, findings: &mut Vec<String>) {
    let node = Node::of(field);
    let keyed = matches!(field.merge, Merge::ByKeys(_) | Merge::Set) && node.is_list();
    let mut seen = std::collections::HashSet::new();
    for (number, item) in items.iter().enumerate() {
        if !keyed {
            one(item, field.shape, &format!("{at}[{number}]"), findings);
            continue;
        }
        match node.element(item) {
            Err(why) => findings.push(finding(at, &format!("element {number}: {why}"))),
            Ok(element) => {
                let shown = show(&element);
                if !seen.insert(element) {
                    findings.push(finding(at, &format!("duplicate entries for key {shown}")));
                }
                one(item, field.shape, &format!("{at}{shown}"), findings);
            }
        }
    }
}

fn one(value: &Value, shape: Shape, at: &str, findings: &mut Vec<String>) {
    let go = || match value {
        Value::Object(_) => format!("&value.valueUnstructured{{Value:map[string]interface {{}}({value})}}"),
        Value::Array(_) => format!("&value.valueUnstructured{{Value:[]interface {{}}({value})}}"),
        scalar => format!("&value.valueUnstructured{{Value:{scalar}}}"),
    };
    let wrong = match (shape.kind(), value) {
        (_, Value::Null) => return,
        (Kind::Object(_), _) => {
            if let Some(ty) = shape.object() {
                object(value, ty, at, findings);
            }
            return;
        }
        (Kind::Raw, Value::Object(_)) | (Kind::Bool, Value::Bool(_)) => return,
        (Kind::String | Kind::Bytes, Value::String(_)) => return,
        (Kind::Int32 | Kind::Int64 | Kind::Number, Value::Number(_)) => return,
        // Scalars of any kind to the schema; what they hold, decoding says.
        (Kind::Quantity | Kind::IntOrString | Kind::Time | Kind::MicroTime, _) => return,
        (Kind::Raw, _) => format!("expected map, got &{{{value}}}"),
        (Kind::Bool, _) => format!("expected boolean, got {}", go()),
        (Kind::String | Kind::Bytes, _) => format!("expected string, got {}", go()),
        (Kind::Int32 | Kind::Int64 | Kind::Number, _) => {
            "expected numeric (int or float), got *value.valueUnstructured".to_owned()
        }
    };
    findings.push(finding(at, &wrong));
}
