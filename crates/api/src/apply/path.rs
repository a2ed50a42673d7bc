//! Path elements as `FieldsV1` writes them: `f:name`, `k:{"key":"value"}`, `v:value`, `i:index`; and as people read them in the
//! words of a conflict: `.spec.containers[name="main"].image`.

use serde_json::{Map, Value};

use super::field_set::Malformed;
use crate::schema::Type;

pub(super) fn of_field(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    out.push_str("f:");
    out.push_str(name);
    out
}

/// The value of a key field that an item does not have: the defaults of Kubernetes' own schema.
fn key_default(ty: &Type, key: &str) -> Option<Value> {
    match (ty.short_name(), key) {
        ("ContainerPort" | "ServicePort", "protocol") => Some("TCP".into()),
        ("LocalObjectReference", "name") => Some("".into()),
        _ => None,
    }
}

pub(super) fn of_item(ty: &Type, keys: &[&str], item: &Value) -> Result<String, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut out = String::from("k:{");
    // The keys of the table are sorted.
    for (at, key) in keys.iter().enumerate() {
        let default;
        let value = match map.get(*key) {
            Some(value) => value,
            None => {
                default = key_default(ty, key).ok_or_else(|| {
                    format!("associative list with keys has an element that omits key field {key:?} (and doesn't have default value)")
                })?;
                &default
            }
        };
        let comma = if at > 0 { "," } else { "" };
        out.push_str(&format!("{comma}\"{key}\":{value}"));
    }
    out.push('}');
    Ok(out)
}

pub(super) fn of_value(item: &Value) -> Result<String, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
        scalar => Ok(format!("v:{scalar}")),
    }
}

/// A path element of somebody else in the form this module writes; None for a kind of element that a later version of
/// Kubernetes may know.
pub(super) fn canonical(element: &str) -> Result<Option<String>, Malformed> {
    let malformed = |why: String| Malformed(why);
    let (kind, rest) = match (element.get(..1), element.get(1..2), element.get(2..)) {
        (Some(kind), Some(":"), Some(rest)) => (kind, rest),
        _ if element.len() < 2 => return Err(malformed("key must be 2 characters long:".into())),
        _ => return Err(malformed(format!("missing colon: {element}"))),
    };
    let parsed = || serde_json::from_str::<Value>(rest).map_err(|e| malformed(e.to_string()));
    Ok(match kind {
        "f" => Some(element.to_owned()),
        "v" => Some(format!("v:{}", parsed()?)),
        "k" => {
            let mut keys: Map<String, Value> =
                serde_json::from_str(rest).map_err(|e| malformed(e.to_string()))?;
            keys.sort_keys();
            Some(format!("k:{}", Value::Object(keys)))
        }
        "i" => Some(format!("i:{}", rest.parse::<i64>().map_err(|e| malformed(e.to_string()))?)),
        _ => None,
    })
}

/// A path in the words of structured-merge-diff.
pub(super) fn shown(path: &[&str]) -> String {
    path.iter().map(|element| show(element)).collect()
}

pub(super) fn show(element: &str) -> String {
    let (kind, rest) = element.split_at(element.len().min(2));
    match kind {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={rest}]"),
        "i:" => format!("[{rest}]"),
        _ => match serde_json::from_str::<Map<String, Value>>(rest) {
            Ok(mut keys) => {
                keys.sort_keys();
                let parts: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", parts.join(","))
            }
            Err(_) => format!("[{rest}]"),
        },
    }
}
