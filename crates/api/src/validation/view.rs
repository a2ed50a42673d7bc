//! A place in an object: the value there, if any, and its path for messages. Validation walks the object by these, so
//! that a rule and the path it reports cannot drift apart.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};

#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    value: Option<&'a Value>,
    pub path: Path,
}

impl<'a> At<'a> {
    pub fn root(value: &'a Value) -> At<'a> {
        At { value: Some(value), path: Path::root() }
    }

    /// The field `name`; null is absent, as it is for every upstream type.
    pub fn child(&self, name: &str) -> At<'a> {
        let value = self.value.and_then(|v| v.get(name)).filter(|v| !v.is_null());
        At { value, path: self.path.child(name) }
    }

    /// The entry `key` of a map.
    pub fn key(&self, key: &str) -> At<'a> {
        let value = self.value.and_then(|v| v.get(key)).filter(|v| !v.is_null());
        At { value, path: self.path.key(key) }
    }

    pub fn items(&self) -> Vec<At<'a>> {
        let list = self.value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(|(i, v)| At { value: Some(v), path: self.path.index(i) }).collect()
    }

    /// Keys and values of a map, in the map's order.
    pub fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let map = self.value.and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), At { value: Some(v), path: self.path.key(k) }))
            .collect()
    }

    /// A pointer upstream: whether it is not nil.
    pub fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// Absent, or a list, map or string without content.
    pub fn is_empty(&self) -> bool {
        match self.value {
            None => true,
            Some(Value::Array(a)) => a.is_empty(),
            Some(Value::Object(o)) => o.is_empty(),
            Some(Value::String(s)) => s.is_empty(),
            Some(_) => false,
        }
    }

    pub fn str(&self) -> &'a str {
        self.value.and_then(Value::as_str).unwrap_or("")
    }

    /// Numbers past i64 are cut there: out of every range that is checked.
    pub fn int(&self) -> Option<i64> {
        let number = self.value?.as_number()?;
        Some(number.as_i64().unwrap_or_else(|| match number.as_f64() {
            Some(f) if f < 0.0 => i64::MIN,
            _ => i64::MAX,
        }))
    }

    pub fn bool(&self) -> bool {
        self.value == Some(&Value::Bool(true))
    }

    /// A pointer to a bool upstream.
    pub fn opt_bool(&self) -> Option<bool> {
        self.value.and_then(Value::as_bool)
    }

    pub fn is_string(&self) -> bool {
        self.value.is_some_and(Value::is_string)
    }

    pub fn strings(&self) -> Vec<&'a str> {
        let list = self.value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).collect()
    }

    /// A copy for a message.
    pub fn value(&self) -> Value {
        self.value.cloned().unwrap_or(Value::Null)
    }

    pub fn raw(&self) -> Option<&'a Value> {
        self.value
    }

    /// The same value under another path: some upstream messages name a neighbour.
    pub fn with_path(&self, path: Path) -> At<'a> {
        At { value: self.value, path }
    }

    /// `Invalid` with this value.
    pub fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, self.value(), detail)
    }

    /// One `Invalid` for each message.
    pub fn invalid_each(&self, errors: &mut ErrorList, messages: Vec<String>) {
        errors.extend(messages.into_iter().map(|m| self.invalid(m)));
    }

    pub fn required(&self, detail: &str) -> Error {
        Error::required(&self.path, detail)
    }

    pub fn forbidden(&self, detail: &str) -> Error {
        Error::forbidden(&self.path, detail)
    }

    /// An enumeration whose zero value is "": required, then one of `supported`.
    pub fn one_of(&self, errors: &mut ErrorList, supported: &[&str]) {
        if self.str().is_empty() {
            errors.push(self.required(""));
        } else {
            self.one_of_set(errors, supported);
        }
    }

    /// One of `supported` where it is set at all.
    pub fn one_of_set(&self, errors: &mut ErrorList, supported: &[&str]) {
        if self.is_set() && !supported.contains(&self.str()) {
            errors.push(Error::not_supported(&self.path, self.value(), supported));
        }
    }

    pub fn non_negative(&self, errors: &mut ErrorList) {
        if self.int().is_some_and(|n| n < 0) {
            errors.push(self.invalid("must be greater than or equal to 0"));
        }
    }

    pub fn in_range(&self, errors: &mut ErrorList, min: i64, max: i64) {
        if self.int().is_some_and(|n| n < min || n > max) {
            errors.push(self.invalid(format!("must be between {min} and {max}, inclusive")));
        }
    }

    /// `port` of an IntOrString: a number from 1 to 65535 or an IANA service name.
    pub fn port_number_or_name(&self, errors: &mut ErrorList) {
        if self.is_string() {
            self.invalid_each(errors, super::names::port_name(self.str()));
        } else if !(1..=65535).contains(&self.int().unwrap_or(0)) {
            let value = self.int().unwrap_or(0);
            errors.push(Error::invalid(&self.path, value, "must be between 1 and 65535, inclusive"));
        }
    }

    /// Equal, or `Invalid: field is immutable` with the new value.
    pub fn immutable(&self, errors: &mut ErrorList, old: &At<'_>) {
        if self.value != old.value {
            errors.push(self.invalid("field is immutable"));
        }
    }
}
