//! Reads YAML as kubectl reads it. kubectl's parser follows YAML 1.1, ours follows 1.2; people's manifests have what only 1.1
//! knows: `defaultMode: 0644`, `hostNetwork: yes`, `<<: *base`. Once a document is read, merge keys are expanded, and where
//! the schema wants a number or a boolean, the forms of 1.1 are taken for one. (What was quoted cannot be told from what
//! was not, so a quoted `"0644"` is taken for a number too.)

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

use crate::json::{Limits, Node, ParseError, Parsed, Place, State};
use crate::schema::{self, Kind, Shape, Type};

/// Reads one YAML document, aliases expanded.
pub fn parse(body: &[u8], limits: Limits) -> Result<Parsed, ParseError> {
    let mut documents = parse_documents(body, limits)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document),
        (None, _) => Ok(Parsed { value: Value::Null, duplicates: Vec::new() }),
        (Some(_), false) => Err(ParseError("more than one YAML document".into())),
    }
}

/// Reads a YAML stream (`---` between documents); empty documents are left out. The limits are for all together.
pub fn parse_documents(body: &[u8], limits: Limits) -> Result<Vec<Parsed>, ParseError> {
    let text = std::str::from_utf8(body).map_err(|e| ParseError(format!("yaml: invalid UTF-8: {e}")))?;
    let mut left = limits;
    let mut out = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut state = State { duplicates: Vec::new(), left };
        let node = Node { state: &mut state, at: &Place::Root, depth: limits.depth };
        let mut value = node.deserialize(document).map_err(|e| ParseError(format!("yaml: {e}")))?;
        left = state.left;
        if value.is_null() {
            continue;
        }
        expand_merge_keys(&mut value).map_err(|e| ParseError(format!("yaml: {e}")))?;
        settle_document(&mut value);
        out.push(Parsed { value, duplicates: state.duplicates });
    }
    Ok(out)
}

/// `<<` holds a map, or a list of maps, whose keys count where the map around has none of its own. Nothing grows by it: what is
/// merged was counted when its alias was expanded.
fn expand_merge_keys(value: &mut Value) -> Result<(), &'static str> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(expand_merge_keys),
        Value::Object(map) => {
            map.values_mut().try_for_each(expand_merge_keys)?;
            let sources = match map.remove("<<") {
                None => return Ok(()),
                Some(Value::Array(sources)) => sources,
                Some(source) => vec![source],
            };
            for source in sources {
                let Value::Object(source) = source else {
                    return Err("map merge requires map or sequence of maps as the value");
                };
                for (key, value) in source {
                    map.entry(key).or_insert(value);
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn settle_document(value: &mut Value) {
    let Value::Object(map) = value else { return };
    if map.get("kind").and_then(Value::as_str) == Some("List") {
        if let Some(Value::Array(items)) = map.get_mut("items") {
            items.iter_mut().for_each(settle_document);
        }
        return;
    }
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    if let Some(ty) = schema::by_kind(text("apiVersion"), text("kind")) {
        settle_object(map, ty);
    }
}

fn settle_object(map: &mut Map<String, Value>, ty: &'static Type) {
    for (name, value) in map.iter_mut() {
        if let Some(field) = ty.field(name) {
            match (field.shape, value) {
                (Shape::One(kind), value) => settle(value, kind),
                (Shape::List(kind), Value::Array(items)) => items.iter_mut().for_each(|v| settle(v, kind)),
                (Shape::Map(kind), Value::Object(map)) => map.values_mut().for_each(|v| settle(v, kind)),
                _ => {}
            }
        }
    }
}

fn settle(value: &mut Value, kind: Kind) {
    let settled = match (kind, &mut *value) {
        (Kind::Object(_), Value::Object(map)) => {
            if let Some(ty) = Shape::One(kind).object() {
                settle_object(map, ty);
            }
            None
        }
        (Kind::Int32 | Kind::Int64, Value::String(text)) => integer(text).map(Value::from),
        // 1e3 is a whole number to whoever wrote it.
        (Kind::Int32 | Kind::Int64 | Kind::IntOrString, Value::Number(n)) if n.is_f64() => {
            // Beyond 2^53 a float is not exact.
            let whole = n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e15);
            whole.map(|f| Value::from(f as i64))
        }
        (Kind::Bool, Value::String(text)) => boolean(text).map(Value::Bool),
        _ => None,
    };
    if let Some(settled) = settled {
        *value = settled;
    }
}

/// The integers of YAML 1.1 that 1.2 does not know: octal with a leading zero, binary, digits grouped by `_`.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        // Plain digits are a string here only if they were quoted or grouped; a quoted number is a string.
        _ if text.contains('_') => (10, digits.as_str()),
        _ => return None,
    };
    (!digits.starts_with(['+', '-']))
        .then(|| i64::from_str_radix(digits, radix).ok())
        .flatten()
        .map(|n| sign * n)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        parse(text.as_bytes(), Limits::default()).unwrap().value
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(parse(bomb.as_bytes(), Limits::default()).is_err());
        // Few values, much text.
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1000].join(","));
        assert!(parse(long.as_bytes(), Limits::default()).unwrap_err().to_string().contains("too much text"));
    }

    #[test]
    fn yaml_becomes_json() {
        let text = "# c\nkind: Pod\nspec: &s\n  n: 1\n  8080: yes it is\nagain: *s\n---\n---\nkind: Other\nkind: Twice\n";
        let documents = parse_documents(text.as_bytes(), Limits::default()).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(
            documents[0].value,
            json!({"kind": "Pod", "spec": {"n": 1, "8080": "yes it is"}, "again": {"n": 1, "8080": "yes it is"}})
        );
        assert_eq!(documents[1].duplicates, ["kind"]);
    }

    #[test]
    fn manifests_may_be_written_in_yaml_1_1() {
        let pod = read(
            "apiVersion: v1\nkind: Pod\nspec:\n  hostNetwork: yes\n  priority: 1e3\n  terminationGracePeriodSeconds: 1_0\n  \
             nodeSelector: {a: 'yes', b: '0644'}\n  volumes:\n  - name: v\n    configMap: {name: c, defaultMode: 0644, items: \
             [{key: k, path: p, mode: 0o400}]}\n",
        );
        assert_eq!(
            pod["spec"],
            json!({
                "hostNetwork": true,
                "priority": 1000,
                "terminationGracePeriodSeconds": 10,
                // Where a string is wanted it stays one.
                "nodeSelector": {"a": "yes", "b": "0644"},
                "volumes": [{"name": "v", "configMap": {
                    "name": "c", "defaultMode": 420, "items": [{"key": "k", "path": "p", "mode": 256}],
                }}],
            })
        );
        let list =
            read("kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Pod, spec: {hostPID: on}}\n");
        assert_eq!(list["items"][0]["spec"]["hostPID"], true);
        // A quoted number is no number, and 8 is no octal digit: the decoder will refuse them.
        let wrong =
            read("apiVersion: v1\nkind: Pod\nspec: {priority: '5', hostIPC: maybe, runAsUser: 080}\n");
        assert_eq!(wrong["spec"], json!({"priority": "5", "hostIPC": "maybe", "runAsUser": "080"}));
    }

    #[test]
    fn merge_keys_are_expanded() {
        let text =
            "base: &b {x: 1, y: 2}\nother: &o {z: 3, x: 9}\none: {<<: *b, y: 5}\nboth: {<<: [*b, *o]}\n";
        let value = read(text);
        assert_eq!(value["one"], json!({"x": 1, "y": 5}));
        assert_eq!(value["both"], json!({"x": 1, "y": 2, "z": 3}));
        assert!(parse(b"a: {<<: 1}", Limits::default()).is_err());
    }
}
