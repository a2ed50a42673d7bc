//! Reads JSON (and YAML) into a [`Value`], and what [`Value`] cannot hold: which keys stood twice. Depth and the number of
//! values are limited, so a body of a few kilobytes cannot become gigabytes (YAML aliases) or overflow the stack.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How much a body may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Objects and lists within each other.
    pub depth: usize,
    /// Values of any kind, keys not counted.
    pub values: usize,
}

impl Default for Limits {
    /// serde_json itself stops at a depth of 128, and no Kubernetes object comes near it. A request body is at most
    /// 3 MiB (`MaxRequestBodyBytes` upstream), which holds fewer values than this.
    fn default() -> Self {
        Limits { depth: 100, values: 1_600_000 }
    }
}

/// A document and the paths that stood in it more than once, as field paths: `spec.containers[0].name`.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub value: Value,
    /// Of a key that stood twice, the last value is kept, as Go keeps it.
    pub duplicates: Vec<String>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads one JSON document; nothing may follow it.
pub fn parse(body: &[u8], limits: Limits) -> Result<Parsed, ParseError> {
    let mut state = State { duplicates: Vec::new(), left: limits.values };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let node = Node { state: &mut state, at: &Place::Root, depth: limits.depth };
    let value = node.deserialize(&mut deserializer).map_err(ParseError::of)?;
    deserializer.end().map_err(ParseError::of)?;
    Ok(Parsed { value, duplicates: state.duplicates })
}

/// Reads one YAML document, aliases expanded.
pub fn parse_yaml(body: &[u8], limits: Limits) -> Result<Parsed, ParseError> {
    let mut documents = parse_yaml_documents(body, limits)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(document), true) => Ok(document),
        (None, _) => Ok(Parsed { value: Value::Null, duplicates: Vec::new() }),
        (Some(_), false) => Err(ParseError("more than one YAML document".into())),
    }
}

/// Reads a YAML stream (`---` between documents); empty documents are left out. The limit on values is for all together.
pub fn parse_yaml_documents(body: &[u8], limits: Limits) -> Result<Vec<Parsed>, ParseError> {
    let text = std::str::from_utf8(body).map_err(|e| ParseError(format!("yaml: invalid UTF-8: {e}")))?;
    let mut left = limits.values;
    let mut out = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut state = State { duplicates: Vec::new(), left };
        let node = Node { state: &mut state, at: &Place::Root, depth: limits.depth };
        let value = node.deserialize(document).map_err(|e| ParseError(format!("yaml: {e}")))?;
        left = state.left;
        if !value.is_null() {
            out.push(Parsed { value, duplicates: state.duplicates });
        }
    }
    Ok(out)
}

impl ParseError {
    fn of(error: serde_json::Error) -> Self {
        if error.is_eof() {
            ParseError("unexpected end of JSON input".into())
        } else {
            ParseError(error.to_string())
        }
    }
}

/// A place in an object, linked to its parents on the stack; made a string only when there is something to say of it.
pub(crate) enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
    Key(&'a Place<'a>, &'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Field(Place::Root, name) => f.write_str(name),
            Place::Field(parent, name) => write!(f, "{parent}.{name}"),
            Place::Index(parent, at) => write!(f, "{parent}[{at}]"),
            Place::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

struct State {
    duplicates: Vec<String>,
    left: usize,
}

/// More of the same are not listed (upstream's decoder stops at as many).
const MAX_DUPLICATES: usize = 100;

struct Node<'a> {
    state: &'a mut State,
    at: &'a Place<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.state.left == 0 {
            return Err(D::Error::custom("the document holds too many values"));
        }
        self.state.left -= 1;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("exceeded max depth"))?;
        let mut out = Vec::new();
        while let Some(item) =
            seq.next_element_seed(Node { state: self.state, at: &Place::Index(self.at, out.len()), depth })?
        {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("exceeded max depth"))?;
        let mut out = Map::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let place = Place::Field(self.at, &key);
            let value = map.next_value_seed(Node { state: self.state, at: &place, depth })?;
            if out.contains_key(&key) && self.state.duplicates.len() < MAX_DUPLICATES {
                let path = place.to_string();
                if !self.state.duplicates.contains(&path) {
                    self.state.duplicates.push(path);
                }
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// A key: a string, or in YAML also a number or a boolean, which become strings as in `sigs.k8s.io/yaml`.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string as key")
    }

    fn visit_str<E>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }

    fn visit_string<E>(self, v: String) -> Result<String, E> {
        Ok(v)
    }

    fn visit_bool<E>(self, v: bool) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_i64<E>(self, v: i64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_u64<E>(self, v: u64) -> Result<String, E> {
        Ok(v.to_string())
    }

    fn visit_f64<E>(self, v: f64) -> Result<String, E> {
        Ok(v.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn duplicates(text: &str) -> Vec<String> {
        parse(text.as_bytes(), Limits::default()).unwrap().duplicates
    }

    #[test]
    fn keys_that_stand_twice_are_named_by_their_path() {
        let none: [&str; 0] = [];
        assert_eq!(duplicates(r#"{"a":1,"b":{"a":2}}"#), none);
        assert_eq!(duplicates(r#"{"a":1,"a":2,"a":3}"#), ["a"]);
        assert_eq!(duplicates(r#"{"spec":{"c":[{},{"n":1,"n":1}]}}"#), ["spec.c[1].n"]);
        let kept = parse(br#"{"a":1,"a":2}"#, Limits::default()).unwrap();
        assert_eq!(kept.value, json!({"a": 2}));
    }

    #[test]
    fn bodies_without_bounds_are_refused() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(parse(deep.as_bytes(), Limits::default()).is_err());
        let small = Limits { depth: 3, values: 10 };
        assert!(parse(b"[[[1]]]", small).is_ok());
        assert_eq!(
            parse(b"[[[[1]]]]", small).unwrap_err().to_string().split(" at").next(),
            Some("exceeded max depth")
        );
        assert!(parse(b"[1,2,3,4,5,6,7,8,9,10]", small).unwrap_err().to_string().contains("too many values"));
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(parse_yaml(bomb.as_bytes(), Limits::default()).is_err());
    }

    #[test]
    fn yaml_becomes_json() {
        let text = "# c\nkind: Pod\nspec: &s\n  n: 1\n  8080: yes it is\nagain: *s\n---\n---\nkind: Other\nkind: Twice\n";
        let documents = parse_yaml_documents(text.as_bytes(), Limits::default()).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(
            documents[0].value,
            json!({"kind": "Pod", "spec": {"n": 1, "8080": "yes it is"}, "again": {"n": 1, "8080": "yes it is"}})
        );
        assert_eq!(documents[1].duplicates, ["kind"]);
    }

    #[test]
    fn what_is_not_one_json_document_is_an_error() {
        for bad in ["", "{", "{} x", "{'a':1}", "\u{feff}{}", "[1,]", "nul"] {
            assert!(parse(bad.as_bytes(), Limits::default()).is_err(), "{bad}");
        }
        assert_eq!(parse(b"{", Limits::default()).unwrap_err().to_string(), "unexpected end of JSON input");
    }
}
