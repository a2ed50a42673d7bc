//! Turns the body of a request into an object of a kind, as Go's decoder would: unknown fields are dropped and named,
//! wrong types are refused, `null` and what `omitempty` leaves out are left out. So what is stored is what a Kubernetes API server
//! would store, and patches and comparisons see the same.

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::field::quote;
use crate::json::{Limits, Parsed, Place, parse, parse_yaml};
use crate::schema::{Field, Kind, Shape, Type};
use crate::time::Precision;

/// What is done about unknown and duplicate fields: the query parameter `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    /// Each is a `Warning` header. The default of the API server since 1.27.
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; empty is the default.
    pub fn from_query(value: &str) -> Result<Self, ApiError> {
        match value {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {}: supported values: \"\", \"Ignore\", \"Warn\", \"Strict\"",
                quote(other)
            ))),
        }
    }
}

/// The group, version and kind that a body is expected to hold.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// `v1`, `apps/v1`.
    pub api_version: &'a str,
    pub kind: &'a str,
}

/// An object whose every field has the type that its kind gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// For `Warning` headers; empty unless asked for.
    pub warnings: Vec<String>,
}

/// More of the same are not listed, as upstream's decoder does.
const MAX_FINDINGS: usize = 100;

/// Decodes a JSON body.
pub fn decode_json(
    body: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let parsed = parse(body, Limits::default()).map_err(|e| unreadable(expected, &e.to_string(), body))?;
    decode(parsed, expected, validation)
}

/// Decodes a YAML body.
pub fn decode_yaml(
    body: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let parsed =
        parse_yaml(body, Limits::default()).map_err(|e| unreadable(expected, &e.to_string(), body))?;
    decode(parsed, expected, validation)
}

fn unreadable(expected: Expected<'_>, why: &str, body: &[u8]) -> ApiError {
    let shown = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
    let rest = if body.len() > 30 { " ..." } else { "" };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown}{rest})",
        expected.kind
    ))
}

/// Decodes a document that was read already. A missing `apiVersion` or `kind` is taken to be what the path says.
pub fn decode(
    parsed: Parsed,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let Parsed { mut value, duplicates } = parsed;
    let Value::Object(object) = &mut value else {
        let words =
            format!("json: cannot unmarshal {} into Go value of type {}", go_word(&value), expected.kind);
        return Err(cannot_be_handled(expected, expected, &words));
    };
    for (key, want) in [("apiVersion", expected.api_version), ("kind", expected.kind)] {
        match object.get(key) {
            None | Some(Value::Null) => {
                object.insert(key.into(), want.into());
            }
            Some(Value::String(s)) if s.is_empty() => {
                object.insert(key.into(), want.into());
            }
            Some(Value::String(_)) => {}
            Some(other) => {
                let words = format!(
                    "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field \
                     .{key} of type string",
                    go_word(other)
                );
                return Err(ApiError::bad_request(words));
            }
        }
    }
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let given = Expected { api_version: &api_version, kind: &kind };
    let Some(ty) = crate::schema::by_kind(given.api_version, given.kind) else {
        return Err(ApiError::bad_request(format!(
            "no kind {} is registered for version {} in scheme \"cofferdam\"",
            quote(given.kind),
            quote(given.api_version)
        )));
    };
    if given.api_version != expected.api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            given.api_version, expected.api_version
        )));
    }
    if given.kind != expected.kind {
        let words = format!("converting ({}) to ({}): unknown conversion", ty.go_name(), expected.kind);
        return Err(cannot_be_handled(given, expected, &words));
    }

    let mut walk =
        Walk { findings: duplicates.iter().map(|p| format!("duplicate field {}", quote(p))).collect() };
    walk.object(&mut value, ty, &Place::Root).map_err(|wrong| cannot_be_handled(given, expected, &wrong))?;
    let warnings = match validation {
        _ if walk.findings.is_empty() => Vec::new(),
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn => walk.findings,
        FieldValidation::Strict => {
            let words = format!("strict decoding error: {}", walk.findings.join(", "));
            return Err(cannot_be_handled(given, expected, &words));
        }
    };
    Ok(Decoded { value, warnings })
}

/// Checks and cleans an object that did not come as a body of its own kind, such as the result of a patch. Returns what is
/// unknown in it; the error is the wrong type, in Go's words.
pub fn conform(value: &mut Value, ty: &'static Type) -> Result<Vec<String>, String> {
    let mut walk = Walk { findings: Vec::new() };
    walk.object(value, ty, &Place::Root)?;
    Ok(walk.findings)
}

fn cannot_be_handled(given: Expected<'_>, expected: Expected<'_>, why: &str) -> ApiError {
    let version = given.api_version.rsplit('/').next().unwrap_or_default();
    ApiError::bad_request(format!(
        "{} in version {} cannot be handled as a {}: {why}",
        given.kind,
        quote(version),
        expected.kind
    ))
}

/// The word of Go's `encoding/json` for what stood in the document.
fn go_word(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

/// Where a value stands, for the words of a wrong type: Go names the innermost struct and the path without indexes.
struct Spot<'a> {
    ty: &'a Type,
    place: &'a Place<'a>,
}

impl Spot<'_> {
    fn wrong(&self, got: &str, want: &str) -> String {
        format!(
            "json: cannot unmarshal {got} into Go struct field {}.{} of type {want}",
            self.ty.short_name(),
            go_path(self.place)
        )
    }
}

fn go_path(place: &Place<'_>) -> String {
    match place {
        Place::Root => String::new(),
        Place::Field(Place::Root, name) => (*name).to_owned(),
        Place::Field(parent, name) => format!("{}.{name}", go_path(parent)),
        Place::Index(parent, _) | Place::Key(parent, _) => go_path(parent),
    }
}

struct Walk {
    findings: Vec<String>,
}

impl Walk {
    fn object(&mut self, value: &mut Value, ty: &'static Type, place: &Place<'_>) -> Result<(), String> {
        let Value::Object(map) = value else { return Ok(()) };
        let mut drop: Vec<String> = Vec::new();
        for (name, field_value) in map.iter_mut() {
            let place = Place::Field(place, name);
            let Some(field) = ty.field(name) else {
                if self.findings.len() < MAX_FINDINGS {
                    self.findings.push(format!("unknown field {}", quote(&place.to_string())));
                }
                drop.push(name.clone());
                continue;
            };
            if field_value.is_null() {
                drop.push(name.clone());
                continue;
            }
            self.shape(field_value, field.shape, &Spot { ty, place: &place })?;
            if is_omitted(field_value, field) && !is_reset(field_value, &place) {
                drop.push(name.clone());
            }
        }
        for name in drop {
            map.remove(&name);
        }
        Ok(())
    }

    fn shape(&mut self, value: &mut Value, shape: Shape, spot: &Spot<'_>) -> Result<(), String> {
        match shape {
            Shape::One(kind) => self.one(value, kind, spot),
            Shape::List(kind) => self.list(value, kind, spot, &format_list(kind)),
            Shape::Map(kind) => {
                self.map(value, spot, &|| format!("map[string]{}", go_type(kind)), |walk, v, spot| {
                    if v.is_null() {
                        *v = zero(kind);
                    }
                    walk.one(v, kind, spot)
                })
            }
            Shape::MapOfLists(kind) => {
                self.map(value, spot, &|| format!("map[string][]{}", go_type(kind)), |walk, v, spot| {
                    if v.is_null() {
                        *v = Value::Array(Vec::new());
                    }
                    walk.list(v, kind, spot, &format_list(kind))
                })
            }
        }
    }

    fn list(
        &mut self,
        value: &mut Value,
        kind: Kind,
        spot: &Spot<'_>,
        go: &dyn Fn() -> String,
    ) -> Result<(), String> {
        let Value::Array(items) = value else { return Err(spot.wrong(&go_word(value), &go())) };
        for (at, item) in items.iter_mut().enumerate() {
            if item.is_null() {
                *item = zero(kind);
            }
            let place = Place::Index(spot.place, at);
            self.one(item, kind, &Spot { ty: spot.ty, place: &place })?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        value: &mut Value,
        spot: &Spot<'_>,
        go: &dyn Fn() -> String,
        mut each: impl FnMut(&mut Self, &mut Value, &Spot<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Value::Object(entries) = value else { return Err(spot.wrong(&go_word(value), &go())) };
        for (key, entry) in entries.iter_mut() {
            let place = Place::Key(spot.place, key);
            each(self, entry, &Spot { ty: spot.ty, place: &place })?;
        }
        Ok(())
    }

    fn one(&mut self, value: &mut Value, kind: Kind, spot: &Spot<'_>) -> Result<(), String> {
        let wrong = |value: &Value| Err(spot.wrong(&go_word(value), &go_type(kind)));
        match kind {
            Kind::String => match value {
                Value::String(_) => Ok(()),
                other => wrong(other),
            },
            Kind::Bool => match value {
                Value::Bool(_) => Ok(()),
                other => wrong(other),
            },
            Kind::Int32 | Kind::Int64 => match value {
                Value::Number(n) => match n.as_i64() {
                    Some(n) if kind == Kind::Int64 || i32::try_from(n).is_ok() => Ok(()),
                    _ => Err(spot.wrong(&format!("number {n}"), &go_type(kind))),
                },
                other => wrong(other),
            },
            Kind::Number => match value {
                Value::Number(_) => Ok(()),
                other => wrong(other),
            },
            Kind::Quantity => quantity(value),
            Kind::IntOrString => match value {
                Value::String(_) => Ok(()),
                Value::Number(n) => match n.as_i64() {
                    Some(n) if i32::try_from(n).is_ok() => Ok(()),
                    _ => Err(format!("json: cannot unmarshal number {n} into Go value of type int32")),
                },
                other => {
                    Err(format!("json: cannot unmarshal {} into Go value of type string", go_word(other)))
                }
            },
            Kind::Time | Kind::MicroTime => match value {
                Value::String(s) if kind == Kind::Time => time(s, Precision::Seconds),
                Value::String(s) => time(s, Precision::Micros),
                other => {
                    Err(format!("json: cannot unmarshal {} into Go value of type string", go_word(other)))
                }
            },
            Kind::Bytes => match value {
                Value::String(s) => match crate::base64::check(s) {
                    Ok(()) => Ok(()),
                    Err(at) => Err(format!("illegal base64 data at input byte {at}")),
                },
                other => wrong(other),
            },
            Kind::Raw => match value {
                Value::Object(_) => Ok(()),
                other => wrong(other),
            },
            Kind::Object(_) => match (Shape::One(kind).object(), &value) {
                (Some(ty), Value::Object(_)) => self.object(value, ty, spot.place),
                (_, other) => wrong(other),
            },
        }
    }
}

fn format_list(kind: Kind) -> impl Fn() -> String {
    move || format!("[]{}", go_type(kind))
}

/// How Go prints the type; named string types are printed as `string`, because OpenAPI does not know their names.
fn go_type(kind: Kind) -> String {
    match kind {
        Kind::String => "string".into(),
        Kind::Int32 => "int32".into(),
        Kind::Int64 => "int64".into(),
        Kind::Bool => "bool".into(),
        Kind::Number => "float64".into(),
        Kind::Quantity => "resource.Quantity".into(),
        Kind::IntOrString => "intstr.IntOrString".into(),
        Kind::Time => "v1.Time".into(),
        Kind::MicroTime => "v1.MicroTime".into(),
        Kind::Bytes => "[]uint8".into(),
        Kind::Raw => "runtime.RawExtension".into(),
        Kind::Object(_) => Shape::One(kind).object().map_or("object", Type::go_name).into(),
    }
}

/// What Go makes of a `null` that stands in a list or map.
fn zero(kind: Kind) -> Value {
    match kind {
        Kind::String | Kind::Bytes | Kind::Time | Kind::MicroTime => "".into(),
        Kind::Int32 | Kind::Int64 | Kind::Number | Kind::IntOrString => 0.into(),
        Kind::Bool => false.into(),
        Kind::Quantity => "0".into(),
        Kind::Raw | Kind::Object(_) => Value::Object(Map::new()),
    }
}

/// An object's own empty `managedFields` say something: that nobody owns anything of it. Whoever takes the object in puts the owners
/// into it anew.
fn is_reset(value: &Value, place: &Place<'_>) -> bool {
    value.is_array() && matches!(place, Place::Field(Place::Field(Place::Root, "metadata"), "managedFields"))
}

/// What `omitempty` leaves out.
fn is_omitted(value: &Value, field: &Field) -> bool {
    field.omit_empty
        && match value {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(s) => s.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
        }
}

/// A quantity in the words of apimachinery's parser. Numbers become strings; the rest of the canonical form is the business of
/// defaulting.
fn quantity(value: &mut Value) -> Result<(), String> {
    let text = match value {
        Value::String(s) => s.trim().to_owned(),
        Value::Number(n) => n.to_string(),
        // A quantity is its own text to Go's parser, whatever it is.
        ref other => other.to_string(),
    };
    if is_quantity(&text) {
        *value = Value::String(text);
        return Ok(());
    }
    Err(if text.is_empty() {
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into()
    } else if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.contains(|c: char| c.is_ascii_digit())
        && matches_loosely(&text)
    {
        "unable to parse quantity's suffix".into()
    } else {
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into()
    })
}

/// Splits a sign and number from the suffix.
fn split_quantity(text: &str) -> Option<(&str, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    (digits > 0 && number.bytes().filter(|b| *b == b'.').count() <= 1).then_some((number, suffix))
}

fn matches_loosely(text: &str) -> bool {
    split_quantity(text).is_some_and(|(_, suffix)| {
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
        digits.bytes().all(|b| b.is_ascii_digit())
    })
}

fn is_quantity(text: &str) -> bool {
    const SUFFIXES: &[&str] =
        &["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let Some((_, suffix)) = split_quantity(text) else { return false };
    if SUFFIXES.contains(&suffix) {
        return true;
    }
    let Some(exponent) = suffix.strip_prefix(['e', 'E']) else { return false };
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

/// RFC 3339, as Go's `time.Parse` with that layout takes it; kept as Kubernetes prints it, in UTC and cut to `precision`.
fn time(text: &mut String, precision: Precision) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    match crate::time::Instant::parse(text) {
        Some(instant) => {
            *text = instant.print(precision);
            Ok(())
        }
        None => Err(format!(
            "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {} as \"2006\"",
            quote(text),
            quote(text)
        )),
    }
}

#[cfg(test)]
mod tests;
