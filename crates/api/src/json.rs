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
    /// Bytes of all strings, keys included. Only YAML's aliases can make more of them than the body has.
    pub text: usize,
}

impl Default for Limits {
    /// serde_json itself stops at a depth of 128, and no Kubernetes object comes near it. A request body is at most
    /// 3 MiB (`MaxRequestBodyBytes` upstream), which holds fewer values than this.
    fn default() -> Self {
        Limits { depth: 100, values: 1_600_000, text: 16 << 20 }
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
pub struct ParseError(pub(crate) String);

/// Reads one JSON document; nothing may follow it.
pub fn parse(body: &[u8], limits: Limits) -> Result<Parsed, ParseError> {
    let mut state = State { duplicates: Vec::new(), left: limits };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let node = Node { state: &mut state, at: &Place::Root, depth: limits.depth };
    let value = node.deserialize(&mut deserializer).map_err(ParseError::of)?;
    deserializer.end().map_err(ParseError::of)?;
    Ok(Parsed { value, duplicates: state.duplicates })
}

/// Reads one YAML document ([`crate::yaml`]).
pub fn parse_yaml(body: &[u8], limits: Limits) -> Result<Parsed, ParseError> {
    crate::yaml::parse(body, limits)
}

/// Reads a YAML stream ([`crate::yaml`]); empty documents are left out.
pub fn parse_yaml_documents(body: &[u8], limits: Limits) -> Result<Vec<Parsed>, ParseError> {
    crate::yaml::parse_documents(body, limits)
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

/// What is common to all nodes of a document.
pub(crate) struct State {
    pub(crate) duplicates: Vec<String>,
    /// What may still come; the depth is not counted here.
    pub(crate) left: Limits,
}

impl State {
    fn count_value<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.left.values =
            self.left.values.checked_sub(1).ok_or_else(|| E::custom("the document holds too many values"))?;
        Ok(())
    }

    fn count_text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.left.text = self
            .left
            .text
            .checked_sub(text.len())
            .ok_or_else(|| E::custom("the document holds too much text"))?;
        Ok(())
    }
}

/// More of the same are not listed (upstream's decoder stops at as many).
const MAX_DUPLICATES: usize = 100;

/// Reads one value of a document, whatever it is.
pub(crate) struct Node<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) at: &'a Place<'a>,
    pub(crate) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.state.count_value()?;
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

    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Value, E> {
        self.state.count_text(v)?;
        Ok(v.into())
    }

    fn visit_string<E: serde::de::Error>(self, v: String) -> Result<Value, E> {
        self.state.count_text(&v)?;
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
            self.state.count_text(&key)?;
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
        let small = Limits { depth: 3, values: 10, text: 10 };
        assert!(parse(b"[[[1]]]", small).is_ok());
        assert_eq!(
            parse(b"[[[[1]]]]", small).unwrap_err().to_string().split(" at").next(),
            Some("exceeded max depth")
        );
        assert!(parse(b"[1,2,3,4,5,6,7,8,9,10]", small).unwrap_err().to_string().contains("too many values"));
        assert!(parse(br#"{"abcde":"fghij"}"#, small).is_ok());
        assert!(parse(br#"{"abcde":"fghijk"}"#, small).unwrap_err().to_string().contains("too much text"));
    }

    #[test]
    fn what_is_not_one_json_document_is_an_error() {
        for bad in ["", "{", "{} x", "{'a':1}", "\u{feff}{}", "[1,]", "nul"] {
            assert!(parse(bad.as_bytes(), Limits::default()).is_err(), "{bad}");
        }
        assert_eq!(parse(b"{", Limits::default()).unwrap_err().to_string(), "unexpected end of JSON input");
    }
}
