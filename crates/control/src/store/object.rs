//! A stored object: its JSON bytes, encoded once when it was written, which GET, LIST and watch send as they are.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

/// What a watch says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// What stands before the object in a line of a watch.
    pub fn line_start(self) -> &'static [u8] {
        match self {
            Change::Added => br#"{"type":"ADDED","object":"#,
            Change::Modified => br#"{"type":"MODIFIED","object":"#,
            Change::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }
}

/// What stands after the object in a line of a watch.
pub const LINE_END: &[u8] = b"}\n";

/// One version of one object. The bytes are a whole line of a watch; the object is a slice of it, so that the event
/// of its write needs no second copy.
#[derive(Debug)]
pub struct Object {
    pub key: Arc<str>,
    /// `metadata.resourceVersion`.
    pub revision: u64,
    line: Bytes,
    json_at: usize,
    /// Where the digits of the resource version begin in the JSON, so that a deletion can be given another.
    revision_at: usize,
    attributes: OnceLock<Value>,
}

impl Object {
    /// The object as it is served.
    pub fn json(&self) -> Bytes {
        self.line.slice(self.json_at..self.line.len() - LINE_END.len())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.line[self.json_at..self.line.len() - LINE_END.len()]
    }

    /// The line of a watch that tells of the write that made this version.
    pub fn line(&self) -> Bytes {
        self.line.clone()
    }

    /// The object parsed; the bytes were written by us, so null means a damaged store.
    pub fn value(&self) -> Value {
        serde_json::from_slice(self.bytes()).unwrap_or(Value::Null)
    }

    /// What selectors look at: a part of the object, taken out by `read` the first time.
    pub fn attributes(&self, read: impl FnOnce(&Value) -> Value) -> &Value {
        self.attributes.get_or_init(|| read(&self.value()))
    }

    /// What the engine keeps: revision, place of the revision's digits, JSON.
    pub(super) fn record(&self) -> Vec<u8> {
        let json = self.bytes();
        let mut out = Vec::with_capacity(json.len() + 12);
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.revision_at).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(json);
        out
    }

    /// The reverse of [`record`](Self::record); None for what no version of this program wrote.
    pub(super) fn from_record(key: &str, record: &[u8]) -> Option<Object> {
        let (revision, rest) = record.split_first_chunk::<8>()?;
        let (at, json) = rest.split_first_chunk::<4>()?;
        let start = Change::Added.line_start();
        Some(Object {
            key: key.into(),
            revision: u64::from_be_bytes(*revision),
            line: [start, json, LINE_END].concat().into(),
            json_at: start.len(),
            revision_at: u32::from_be_bytes(*at) as usize,
            attributes: OnceLock::new(),
        })
    }

    /// The last state of an object that is gone (for a watcher, or for all), under the revision at which it went.
    pub fn at_revision(&self, revision: u64) -> Object {
        let json = self.bytes();
        let digits = self.revision.to_string().len();
        splice(
            self.key.clone(),
            Change::Deleted,
            &json[..self.revision_at],
            revision,
            &json[self.revision_at + digits..],
            self.attributes.clone(),
        )
    }
}

fn splice(
    key: Arc<str>,
    change: Change,
    before: &[u8],
    revision: u64,
    after: &[u8],
    attributes: OnceLock<Value>,
) -> Object {
    let start = change.line_start();
    let digits = revision.to_string();
    let mut line =
        Vec::with_capacity(start.len() + before.len() + digits.len() + after.len() + LINE_END.len());
    for part in [start, before, digits.as_bytes(), after, LINE_END] {
        line.extend_from_slice(part);
    }
    Object { key, revision, line: line.into(), json_at: start.len(), revision_at: before.len(), attributes }
}

/// An object encoded by the request that writes it, waiting for the revision the commit gives it.
#[derive(Debug)]
pub struct Encoded {
    json: Vec<u8>,
    revision_at: usize,
    attributes: OnceLock<Value>,
}

impl Encoded {
    /// Encodes `object`; its resource version, whatever it says, becomes that of the commit.
    pub fn new(object: &mut Value) -> Encoded {
        let mark = mark();
        if let Some(root) = object.as_object_mut() {
            let metadata = root.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
            metadata["resourceVersion"] = mark.into();
        }
        let json = object.to_string().into_bytes();
        let revision_at = json.windows(mark.len()).position(|part| part == mark.as_bytes()).unwrap_or(0);
        Encoded { json, revision_at, attributes: OnceLock::new() }
    }

    /// With what selectors look at, which the writer knows without parsing.
    #[must_use]
    pub fn with_attributes(self, attributes: Value) -> Encoded {
        Encoded { attributes: attributes.into(), ..self }
    }

    pub fn len(&self) -> usize {
        self.json.len()
    }

    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    pub(super) fn commit(self, key: Arc<str>, change: Change, revision: u64) -> Object {
        let (before, after) = self.json.split_at(self.revision_at);
        splice(key, change, before, revision, &after[mark().len()..], self.attributes)
    }
}

/// Stands for the revision until there is one. Random, so that no user's text can be taken for it.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| crate::random::hex(32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_spliced_into_the_bytes() {
        let mut value =
            json!({"metadata": {"name": "a", "annotations": {"resourceVersion": "7"}}, "data": {"x": "}\n"}});
        let added = Encoded::new(&mut value).commit("/k/a".into(), Change::Added, 9);
        assert_eq!(added.value()["metadata"]["resourceVersion"], "9");
        assert_eq!(added.value()["metadata"]["annotations"]["resourceVersion"], "7");
        let line: Value = serde_json::from_slice(&added.line()).unwrap();
        assert_eq!((&line["type"], &line["object"]), (&json!("ADDED"), &added.value()));

        let loaded = Object::from_record("/k/a", &added.record()).unwrap();
        assert_eq!(loaded.bytes(), added.bytes());
        let deleted = loaded.at_revision(1234);
        assert_eq!(deleted.value()["metadata"]["resourceVersion"], "1234");
        assert_eq!(deleted.value()["data"], added.value()["data"]);
        let line: Value = serde_json::from_slice(&deleted.line()).unwrap();
        assert_eq!(line["type"], "DELETED");
    }
}
