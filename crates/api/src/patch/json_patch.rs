//! RFC 6902: a list of operations, applied in order; if one fails nothing is done.

use serde_json::Value;

use crate::error::{ApiError, Reason};

/// Upstream's limit on the length of the list.
const MAX_OPERATIONS: usize = 10_000;

/// Upstream's limit on what `copy` may add to a document, bytes: a list that copies itself into itself doubles with each
/// operation.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Objects and lists within each other, at most, in what a patch makes. The document and each value come in with a bound of
/// their own, but operations can put one into the other again and again, and a document of a hundred thousand levels
/// overflows the stack of whoever walks it.
const MAX_DEPTH: usize = 200;

/// The keys on the way to a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, to: Pointer },
    Copy { from: Pointer, to: Pointer },
    Test(Pointer, Value),
}

pub fn operations(patch: Value) -> Result<Vec<Operation>, ApiError> {
    let Value::Array(list) = patch else {
        return Err(ApiError::bad_request("error decoding patch: a JSON patch is a list of operations"));
    };
    if list.len() > MAX_OPERATIONS {
        let message =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", list.len());
        return Err(ApiError::new(
            413,
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: {message}"),
        ));
    }
    list.iter().enumerate().map(|(at, op)| operation(at, op)).collect()
}

fn operation(at: usize, value: &Value) -> Result<Operation, ApiError> {
    let wrong = |what: String| ApiError::bad_request(format!("error decoding patch: operation {at}: {what}"));
    let name = value["op"].as_str().ok_or_else(|| wrong("\"op\" is missing".into()))?;
    let pointer = |key: &str| {
        let text = value[key].as_str().ok_or_else(|| wrong(format!("\"{key}\" is missing")))?;
        Pointer::parse(text).ok_or_else(|| wrong(format!("\"{key}\": {text:?} is not a JSON pointer")))
    };
    let given = || value.get("value").cloned().ok_or_else(|| wrong("\"value\" is missing".into()));
    Ok(match name {
        "add" => Operation::Add(pointer("path")?, given()?),
        "remove" => Operation::Remove(pointer("path")?),
        "replace" => Operation::Replace(pointer("path")?, given()?),
        "move" => Operation::Move { from: pointer("from")?, to: pointer("path")? },
        "copy" => Operation::Copy { from: pointer("from")?, to: pointer("path")? },
        // The comparison with null may leave it out.
        "test" => Operation::Test(pointer("path")?, value.get("value").cloned().unwrap_or(Value::Null)),
        other => return Err(wrong(format!("unknown operation {other:?}"))),
    })
}

pub fn apply(mut document: Value, operations: &[Operation]) -> Result<Value, ApiError> {
    let mut copied = 0usize;
    for operation in operations {
        step(&mut document, operation, &mut copied).map_err(|why| ApiError::unprocessable_patch(&why))?;
    }
    Ok(document)
}

fn step(document: &mut Value, operation: &Operation, copied: &mut usize) -> Result<(), String> {
    let missing = |verb: &str, pointer: &Pointer| {
        format!("{verb} operation does not apply: doc is missing path: \"{}\": missing value", pointer.text)
    };
    match operation {
        Operation::Add(path, value) => {
            within_depth(path, value)?;
            add(document, path, value.clone()).map_err(|()| missing("add", path))
        }
        Operation::Remove(path) => remove(document, path).map(drop).map_err(|()| missing("remove", path)),
        Operation::Replace(path, value) => match path.find_mut(document) {
            Some(place) => {
                within_depth(path, value)?;
                *place = value.clone();
                Ok(())
            }
            None => Err(format!(
                "replace operation does not apply: doc is missing key: {}: missing value",
                path.text
            )),
        },
        Operation::Move { from, to } => {
            if to.tokens.len() > from.tokens.len() && to.tokens.starts_with(&from.tokens) {
                return Err(format!("move operation does not apply: {} lies within {}", to.text, from.text));
            }
            let value = remove(document, from).map_err(|()| missing("move", from))?;
            within_depth(to, &value)?;
            add(document, to, value).map_err(|()| missing("move", to))
        }
        Operation::Copy { from, to } => {
            let value = from.find(document).ok_or_else(|| missing("copy", from))?.clone();
            within_depth(to, &value)?;
            *copied += size(&value);
            if *copied > MAX_COPIED {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                     limit {MAX_COPIED}"
                ));
            }
            add(document, to, value).map_err(|()| missing("copy", to))
        }
        Operation::Test(path, value) => match path.find(document) {
            Some(found) if found == value => Ok(()),
            None if value.is_null() => Ok(()),
            _ => Err(format!("testing value {} failed: test failed", path.text)),
        },
    }
}

fn within_depth(path: &Pointer, value: &Value) -> Result<(), String> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    if path.tokens.len() + depth(value) > MAX_DEPTH {
        return Err(format!("the result would be nested more than {MAX_DEPTH} levels deep"));
    }
    Ok(())
}

/// About as many bytes as the value takes as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(s) => s.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| size(v) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>(),
    }
}

fn add(document: &mut Value, path: &Pointer, value: Value) -> Result<(), ()> {
    let Some((last, parents)) = path.tokens.split_last() else {
        *document = value;
        return Ok(());
    };
    match walk_mut(document, parents).ok_or(())? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(items) => {
            let at = if last == "-" {
                items.len()
            } else {
                index(last).filter(|at| *at <= items.len()).ok_or(())?
            };
            items.insert(at, value);
            Ok(())
        }
        _ => Err(()),
    }
}

fn remove(document: &mut Value, path: &Pointer) -> Result<Value, ()> {
    let (last, parents) = path.tokens.split_last().ok_or(())?;
    match walk_mut(document, parents).ok_or(())? {
        Value::Object(map) => map.remove(last).ok_or(()),
        Value::Array(items) => {
            let at = index(last).filter(|at| *at < items.len()).ok_or(())?;
            Ok(items.remove(at))
        }
        _ => Err(()),
    }
}

/// An index has no sign and no leading zero.
fn index(token: &str) -> Option<usize> {
    let digits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
    (digits && (token == "0" || !token.starts_with('0'))).then(|| token.parse().ok()).flatten()
}

fn walk_mut<'a>(document: &'a mut Value, tokens: &[String]) -> Option<&'a mut Value> {
    tokens.iter().try_fold(document, |value, token| match value {
        Value::Object(map) => map.get_mut(token),
        Value::Array(items) => items.get_mut(index(token)?),
        _ => None,
    })
}

impl Pointer {
    fn parse(text: &str) -> Option<Pointer> {
        if text.is_empty() {
            return Some(Pointer { text: String::new(), tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>()?;
        Some(Pointer { text: text.to_owned(), tokens })
    }

    fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.tokens.iter().try_fold(document, |value, token| match value {
            Value::Object(map) => map.get(token),
            Value::Array(items) => items.get(index(token)?),
            _ => None,
        })
    }

    fn find_mut<'a>(&self, document: &'a mut Value) -> Option<&'a mut Value> {
        walk_mut(document, &self.tokens)
    }
}

/// `~1` is `/`, `~0` is `~`; no other `~` may stand.
fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(document: Value, patch: Value) -> Result<Value, String> {
        let operations = operations(patch).map_err(|e| e.message)?;
        apply(document, &operations).map_err(|e| {
            let reason =
                e.message.strip_prefix("the server rejected our request due to an error in our request (");
            reason.unwrap().trim_end_matches(')').to_owned()
        })
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        for (document, patch, want) in [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), json!({"a": 1, "b": 2})),
            (
                json!({"a": [1, 3]}),
                json!([{"op": "add", "path": "/a/1", "value": 2}]),
                json!({"a": [1, 2, 3]}),
            ),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": null}]), json!({"a": null})),
            (
                json!({"a": 1, "b": {}}),
                json!([{"op": "move", "from": "/a", "path": "/b/c"}]),
                json!({"b": {"c": 1}}),
            ),
            (
                json!({"a": [1]}),
                json!([{"op": "copy", "from": "/a", "path": "/b"}]),
                json!({"a": [1], "b": [1]}),
            ),
            (json!({"a/b": {"~": 1}}), json!([{"op": "remove", "path": "/a~1b/~0"}]), json!({"a/b": {}})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1})),
            (json!({"a": 1}), json!([{"op": "add", "path": "", "value": {"z": 0}}]), json!({"z": 0})),
            (json!({"": 1}), json!([{"op": "remove", "path": "/"}]), json!({})),
        ] {
            assert_eq!(run(document, patch.clone()), Ok(want), "{patch}");
        }
    }

    #[test]
    fn what_does_not_apply_changes_nothing_and_says_where() {
        for (patch, want) in [
            (json!([{"op": "test", "path": "/a", "value": 2}]), "testing value /a failed: test failed"),
            (
                json!([{"op": "remove", "path": "/x"}]),
                "remove operation does not apply: doc is missing path: \"/x\": missing value",
            ),
            (
                json!([{"op": "replace", "path": "/x", "value": 1}]),
                "replace operation does not apply: doc is missing key: /x: missing value",
            ),
            (
                json!([{"op": "add", "path": "/x/y", "value": 1}]),
                "add operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (
                json!([{"op": "add", "path": "/l/9", "value": 1}]),
                "add operation does not apply: doc is missing path: \"/l/9\": missing value",
            ),
            (
                json!([{"op": "remove", "path": "/l/00"}]),
                "remove operation does not apply: doc is missing path: \"/l/00\": missing value",
            ),
            (
                json!([{"op": "move", "from": "/o", "path": "/o/p"}]),
                "move operation does not apply: /o/p lies within /o",
            ),
            (json!({"op": "add"}), "error decoding patch: a JSON patch is a list of operations"),
            (
                json!([{"op": "grow", "path": "/a"}]),
                "error decoding patch: operation 0: unknown operation \"grow\"",
            ),
            (
                json!([{"op": "add", "path": "a", "value": 1}]),
                "error decoding patch: operation 0: \"path\": \"a\" is not a JSON pointer",
            ),
            (json!([{"op": "add", "path": "/a"}]), "error decoding patch: operation 0: \"value\" is missing"),
        ] {
            assert_eq!(run(json!({"a": 1, "l": [1], "o": {}}), patch).unwrap_err(), want);
        }
    }

    #[test]
    fn a_document_cannot_copy_itself_without_bounds() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::Array(vec![double; 60]);
        let error = run(json!({"a": ["x".repeat(100)]}), patch).unwrap_err();
        assert!(error.starts_with("Unable to complete the copy"), "{error}");
        // Into itself, at its own end: twice as deep with each operation.
        let mut deeper = Vec::new();
        for level in 0..12 {
            let path = "/a".repeat(1 << level);
            deeper.push(json!({"op": "copy", "from": "/a", "path": format!("{path}/a")}));
        }
        let error = run(json!({"a": {}}), Value::Array(deeper)).unwrap_err();
        assert_eq!(error, "the result would be nested more than 200 levels deep");
        let many = Value::Array(vec![json!({"op": "remove", "path": "/a"}); MAX_OPERATIONS + 1]);
        assert_eq!(operations(many).unwrap_err().code, 413);
    }
}
