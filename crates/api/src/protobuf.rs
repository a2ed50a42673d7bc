//! Request bodies in Kubernetes' protobuf form (`application/vnd.kubernetes.protobuf`), which kubectl sends for `create
//! namespace`, `create deployment`, `create token`, `auth can-i` and drain's DELETE, and does not retry as JSON.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` that names the kind and holds the message. Messages are read
//! by the tags of the schema table, into the same [`Value`] that the JSON body would give; [`crate::strict`] then treats both
//! alike. As protobuf has it, unknown tags are skipped, and of a field that may stand once the last one counts.

use serde_json::{Map, Number, Value};

use crate::error::ApiError;
use crate::json::Parsed;
use crate::schema::{self, Field, Kind, Shape, Type};
use crate::strict::{Decoded, Expected, FieldValidation};
use crate::time::{Instant, Precision};

/// The media type of requests; parameters may follow it.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8; 4] = b"k8s\0";

/// Messages within each other; no Kubernetes type goes as deep.
const MAX_DEPTH: usize = 100;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoPrefix,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    VarintOverflow,
    #[error("proto: {ty}: wiretype {wire} for tag {tag}")]
    WireType { ty: &'static str, tag: u64, wire: u64 },
    #[error("proto: illegal tag {0}")]
    IllegalTag(u64),
    #[error("proto: {0}: invalid UTF-8")]
    Utf8(&'static str),
    #[error("proto: time out of range: {0} s")]
    Time(i64),
    #[error("messages are nested too deeply")]
    TooDeep,
    #[error("proto: {0}: not JSON: {1}")]
    Raw(&'static str, String),
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
    #[error("content encoding \"{0}\" is not supported")]
    Encoding(String),
}

/// What the envelope says: the kind, and the message within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// Empty where the sender left it out.
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Opens the envelope.
pub fn envelope(body: &[u8]) -> Result<Unknown<'_>, ProtobufError> {
    let mut reader =
        Reader { rest: body.strip_prefix(MAGIC).ok_or(ProtobufError::NoPrefix)?, ty: "runtime.Unknown" };
    let mut out = Unknown { api_version: String::new(), kind: String::new(), raw: &[] };
    while let Some((tag, wire)) = reader.key()? {
        match tag {
            1 => {
                let mut meta = Reader { rest: reader.bytes(tag, wire)?, ty: "runtime.TypeMeta" };
                while let Some((tag, wire)) = meta.key()? {
                    match tag {
                        1 => out.api_version = meta.string(tag, wire)?.to_owned(),
                        2 => out.kind = meta.string(tag, wire)?.to_owned(),
                        _ => meta.skip(tag, wire)?,
                    }
                }
            }
            2 => out.raw = reader.bytes(tag, wire)?,
            3 => match reader.string(tag, wire)? {
                "" => {}
                encoding => return Err(ProtobufError::Encoding(encoding.to_owned())),
            },
            _ => reader.skip(tag, wire)?,
        }
    }
    Ok(out)
}

/// Reads a body into the JSON form of the object that it says it is, `apiVersion` and `kind` included. `expected` is
/// taken where the envelope names neither.
pub fn to_json(body: &[u8], expected: Expected<'_>) -> Result<Value, ProtobufError> {
    let unknown = envelope(body)?;
    let or = |given: String, want: &str| if given.is_empty() { want.to_owned() } else { given };
    let api_version = or(unknown.api_version, expected.api_version);
    let kind = or(unknown.kind, expected.kind);
    let Some(ty) = schema::by_kind(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    message(unknown.raw, ty, 0, &mut object, MAX_DEPTH)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// Decodes a request body of the expected kind.
pub fn decode(body: &[u8], expected: Expected<'_>) -> Result<Decoded, ApiError> {
    let value = to_json(body, expected).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {error}",
            expected.kind
        ))
    })?;
    // What a message can hold has the right types; this checks kind, quantities and times, and leaves out what is empty.
    crate::strict::decode(Parsed { value, duplicates: Vec::new() }, expected, FieldValidation::Ignore)
}

/// Reads one message into `out`. `via` is not 0 for the message that stands for Go's inlined struct: its fields belong to
/// the object around it.
fn message(
    bytes: &[u8],
    ty: &'static Type,
    via: u8,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    let mut reader = Reader { rest: bytes, ty: ty.go_name() };
    while let Some((tag, wire)) = reader.key()? {
        if let Some(field) = ty.fields.iter().find(|f| u64::from(f.tag) == tag && f.via == via && f.tag != 0)
        {
            read_field(&mut reader, tag, wire, field, out, depth)?;
        } else if via == 0 && ty.fields.iter().any(|f| u64::from(f.via) == tag) {
            let inlined = reader.bytes(tag, wire)?;
            message(inlined, ty, tag as u8, out, depth)?;
        } else {
            reader.skip(tag, wire)?;
        }
    }
    Ok(())
}

fn read_field(
    reader: &mut Reader<'_>,
    tag: u64,
    wire: u64,
    field: &'static Field,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match field.shape {
        Shape::One(kind) => {
            // A message that may stand once but stands twice is merged, as protobuf has it.
            let before = out.remove(field.name);
            let value = one(reader, tag, wire, kind, before, depth)?;
            out.insert(field.name.into(), value);
        }
        Shape::List(kind) => {
            let Value::Array(items) = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()))
            else {
                return Ok(());
            };
            // Numbers may come packed.
            if wire == 2 && matches!(kind, Kind::Int32 | Kind::Int64 | Kind::Bool) {
                let mut packed = Reader { rest: reader.bytes(tag, wire)?, ty: reader.ty };
                while !packed.rest.is_empty() {
                    items.push(one(&mut packed, tag, 0, kind, None, depth)?);
                }
            } else {
                items.push(one(reader, tag, wire, kind, None, depth)?);
            }
        }
        Shape::Map(kind) => {
            let (key, value) = entry(reader, tag, wire, |r, tag, wire| one(r, tag, wire, kind, None, depth))?;
            let value = match (value, kind) {
                (Some(value), _) => value,
                // An entry without a value has the value that is not written.
                (None, Kind::Quantity) => "0".into(),
                (None, Kind::String | Kind::Bytes) => "".into(),
                (None, _) => Value::Object(Map::new()),
            };
            if let Value::Object(map) = out.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                map.insert(key, value);
            }
        }
        Shape::MapOfLists(kind) => {
            let (key, value) = entry(reader, tag, wire, |r, tag, wire| {
                let mut list = Reader { rest: r.bytes(tag, wire)?, ty: "v1.ExtraValue" };
                let mut items = Vec::new();
                while let Some((tag, wire)) = list.key()? {
                    match tag {
                        1 => items.push(one(&mut list, tag, wire, kind, None, depth)?),
                        _ => list.skip(tag, wire)?,
                    }
                }
                Ok(Value::Array(items))
            })?;
            if let Value::Object(map) = out.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                map.insert(key, value.unwrap_or_else(|| Value::Array(Vec::new())));
            }
        }
    }
    Ok(())
}

/// One entry of a map: a message of key and value.
fn entry(
    reader: &mut Reader<'_>,
    tag: u64,
    wire: u64,
    mut value: impl FnMut(&mut Reader<'_>, u64, u64) -> Result<Value, ProtobufError>,
) -> Result<(String, Option<Value>), ProtobufError> {
    let mut entry = Reader { rest: reader.bytes(tag, wire)?, ty: reader.ty };
    let (mut key, mut found) = (String::new(), None);
    while let Some((tag, wire)) = entry.key()? {
        match tag {
            1 => key = entry.string(tag, wire)?.to_owned(),
            2 => found = Some(value(&mut entry, tag, wire)?),
            _ => entry.skip(tag, wire)?,
        }
    }
    Ok((key, found))
}

fn one(
    reader: &mut Reader<'_>,
    tag: u64,
    wire: u64,
    kind: Kind,
    before: Option<Value>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    Ok(match kind {
        Kind::String => reader.string(tag, wire)?.into(),
        Kind::Bytes => crate::base64::encode(reader.bytes(tag, wire)?).into(),
        // Go keeps the low 32 bits of what was written as 64 with its sign.
        Kind::Int32 => (reader.number(tag, wire)? as i32).into(),
        Kind::Int64 => (reader.number(tag, wire)? as i64).into(),
        Kind::Bool => (reader.number(tag, wire)? != 0).into(),
        Kind::Number => Number::from_f64(reader.double(tag, wire)?).map_or(Value::Null, Value::Number),
        Kind::Quantity => {
            let mut inner = Reader { rest: reader.bytes(tag, wire)?, ty: "resource.Quantity" };
            let mut text = "";
            while let Some((tag, wire)) = inner.key()? {
                match tag {
                    1 => text = inner.string(tag, wire)?,
                    _ => inner.skip(tag, wire)?,
                }
            }
            if text.is_empty() { "0".into() } else { text.into() }
        }
        Kind::IntOrString => {
            let mut inner = Reader { rest: reader.bytes(tag, wire)?, ty: "intstr.IntOrString" };
            let (mut is_string, mut number, mut text) = (false, 0, "");
            while let Some((tag, wire)) = inner.key()? {
                match tag {
                    1 => is_string = inner.number(tag, wire)? == 1,
                    2 => number = inner.number(tag, wire)? as i32,
                    3 => text = inner.string(tag, wire)?,
                    _ => inner.skip(tag, wire)?,
                }
            }
            if is_string { text.into() } else { number.into() }
        }
        Kind::Time | Kind::MicroTime => {
            let mut inner = Reader { rest: reader.bytes(tag, wire)?, ty: "v1.Timestamp" };
            let (mut seconds, mut nanos, mut empty) = (0i64, 0i32, true);
            while let Some((tag, wire)) = inner.key()? {
                empty = false;
                match tag {
                    1 => seconds = inner.number(tag, wire)? as i64,
                    2 => nanos = inner.number(tag, wire)? as i32,
                    _ => inner.skip(tag, wire)?,
                }
            }
            let precision = if kind == Kind::MicroTime { Precision::Micros } else { Precision::Seconds };
            let nanos = nanos.clamp(0, 999_999_999).unsigned_abs();
            match empty {
                true => Value::Null,
                false => {
                    Instant::new(seconds, nanos).ok_or(ProtobufError::Time(seconds))?.print(precision).into()
                }
            }
        }
        Kind::Raw => {
            let mut inner = Reader { rest: reader.bytes(tag, wire)?, ty: "runtime.RawExtension" };
            let mut raw: &[u8] = b"{}";
            while let Some((tag, wire)) = inner.key()? {
                match tag {
                    1 => raw = inner.bytes(tag, wire)?,
                    _ => inner.skip(tag, wire)?,
                }
            }
            crate::json::parse(raw, crate::json::Limits::default())
                .map_err(|e| ProtobufError::Raw(inner.ty, e.to_string()))?
                .value
        }
        Kind::Object(_) => {
            let bytes = reader.bytes(tag, wire)?;
            let mut object = match before {
                Some(Value::Object(object)) => object,
                _ => Map::new(),
            };
            if let Some(ty) = Shape::One(kind).object() {
                message(bytes, ty, 0, &mut object, depth)?;
            }
            Value::Object(object)
        }
    })
}

/// Reads a message's bytes from the front.
struct Reader<'a> {
    rest: &'a [u8],
    /// Whose message it is, for errors.
    ty: &'static str,
}

impl<'a> Reader<'a> {
    /// Tag and wire type of the next field; `None` at the end.
    fn key(&mut self) -> Result<Option<(u64, u64)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        match key >> 3 {
            tag @ 1..=0x1fff_ffff => Ok(Some((tag, key & 7))),
            tag => Err(ProtobufError::IllegalTag(tag)),
        }
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut out = 0u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            if at == 9 && *byte > 1 {
                return Err(ProtobufError::VarintOverflow);
            }
            out |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(out);
            }
        }
        Err(if self.rest.len() < 10 { ProtobufError::Truncated } else { ProtobufError::VarintOverflow })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(length).map_err(|_| ProtobufError::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn expect(&self, tag: u64, wire: u64, want: u64) -> Result<(), ProtobufError> {
        if wire == want { Ok(()) } else { Err(ProtobufError::WireType { ty: self.ty, tag, wire }) }
    }

    fn number(&mut self, tag: u64, wire: u64) -> Result<u64, ProtobufError> {
        self.expect(tag, wire, 0)?;
        self.varint()
    }

    fn double(&mut self, tag: u64, wire: u64) -> Result<f64, ProtobufError> {
        self.expect(tag, wire, 1)?;
        let bytes = self.take(8)?;
        Ok(f64::from_le_bytes(bytes.try_into().map_err(|_| ProtobufError::Truncated)?))
    }

    fn bytes(&mut self, tag: u64, wire: u64) -> Result<&'a [u8], ProtobufError> {
        self.expect(tag, wire, 2)?;
        let length = self.varint()?;
        self.take(length)
    }

    fn string(&mut self, tag: u64, wire: u64) -> Result<&'a str, ProtobufError> {
        let ty = self.ty;
        std::str::from_utf8(self.bytes(tag, wire)?).map_err(|_| ProtobufError::Utf8(ty))
    }

    fn skip(&mut self, tag: u64, wire: u64) -> Result<(), ProtobufError> {
        match wire {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.bytes(tag, wire).map(drop),
            5 => self.take(4).map(drop),
            // Groups (3, 4) are not used by Kubernetes.
            _ => Err(ProtobufError::WireType { ty: self.ty, tag, wire }),
        }
    }
}

#[cfg(test)]
mod tests;
