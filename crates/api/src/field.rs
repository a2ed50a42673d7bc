//! What is wrong with one field of an object: the shape and the words of apimachinery's `field.Error`, because
//! users search for those words and clients read the causes.

use std::fmt;

use serde_json::Value;

/// The path of a field from the object's root, written as Kubernetes writes it: `spec.containers[0].name`,
/// `metadata.labels[a/b]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    pub fn new(first: &str) -> Path {
        Path(first.to_owned())
    }

    /// The object itself; its children have no leading dot.
    pub fn root() -> Path {
        Path::default()
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, at: usize) -> Path {
        Path(format!("{}[{at}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("<nil>") } else { f.write_str(&self.0) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
    /// Invalid, of a value that is not shown.
    InvalidUnshown,
}

impl ErrorType {
    /// The words before the value in a message.
    pub fn words(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid | ErrorType::InvalidUnshown => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::Internal => "Internal error",
        }
    }

    /// `reason` of the StatusCause.
    pub fn cause(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid | ErrorType::InvalidUnshown => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorType,
    pub field: String,
    /// Shown for the kinds that show a value.
    pub bad_value: Value,
    pub detail: String,
}

impl Error {
    fn make(kind: ErrorType, path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error { kind, field: path.to_string(), bad_value: value.into(), detail: detail.into() }
    }

    pub fn not_found(path: &Path, value: impl Into<Value>) -> Error {
        Error::make(ErrorType::NotFound, path, value, "")
    }

    pub fn required(path: &Path, detail: impl Into<String>) -> Error {
        Error::make(ErrorType::Required, path, "", detail)
    }

    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Error {
        Error::make(ErrorType::Duplicate, path, value, "")
    }

    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error::make(ErrorType::Invalid, path, value, detail)
    }

    pub fn invalid_unshown(path: &Path, detail: impl Into<String>) -> Error {
        Error::make(ErrorType::InvalidUnshown, path, Value::Null, detail)
    }

    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Error {
        Error::make(ErrorType::TypeInvalid, path, value, detail)
    }

    /// `supported` is printed in the order given; upstream sorts it.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Error {
        let detail = match supported {
            [] => String::new(),
            _ => {
                let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
                format!("supported values: {}", quoted.join(", "))
            }
        };
        Error::make(ErrorType::NotSupported, path, value, detail)
    }

    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Error {
        Error::make(ErrorType::Forbidden, path, "", detail)
    }

    /// The value is not kept: it is what was too long.
    pub fn too_long(path: &Path, max_bytes: usize) -> Error {
        Error::make(ErrorType::TooLong, path, "", format!("may not be more than {max_bytes} bytes"))
    }

    pub fn too_many(path: &Path, actual: usize, max: usize) -> Error {
        Error::make(ErrorType::TooMany, path, actual, format!("must have at most {max} items"))
    }

    pub fn internal(path: &Path, detail: impl Into<String>) -> Error {
        Error::make(ErrorType::Internal, path, Value::Null, detail)
    }

    /// The message without the field: `message` of the StatusCause.
    pub fn body(&self) -> String {
        let mut out = self.kind.words().to_owned();
        let shows_value = !matches!(
            self.kind,
            ErrorType::Required
                | ErrorType::Forbidden
                | ErrorType::TooLong
                | ErrorType::Internal
                | ErrorType::InvalidUnshown
        );
        if shows_value {
            out.push_str(": ");
            match &self.bad_value {
                Value::String(s) => out.push_str(&quote(s)),
                other => out.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

/// All that is wrong with one object, in the order it was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(pub Vec<Error>);

impl ErrorList {
    pub fn new() -> ErrorList {
        ErrorList::default()
    }

    pub fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    pub fn append(&mut self, mut other: ErrorList) {
        self.0.append(&mut other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }
}

impl IntoIterator for ErrorList {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Extend<Error> for ErrorList {
    fn extend<T: IntoIterator<Item = Error>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

/// As `ToAggregate`: equal messages once; one message bare, several in brackets.
impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen: Vec<String> = Vec::new();
        for error in &self.0 {
            let text = error.to_string();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        match seen.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

/// Go's `%q`: what a Go program prints for a string in a message.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_worded_as_upstream_words_them() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        let table = [
            (Error::required(&path, ""), "spec.containers[0].name: Required value"),
            (Error::not_found(&path, "x"), "spec.containers[0].name: Not found: \"x\""),
            (
                Error::invalid(&path, 70000, "must be between 1 and 65535, inclusive"),
                "spec.containers[0].name: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                Error::not_supported(&path, "A\"b", &["Always", "Never"]),
                "spec.containers[0].name: Unsupported value: \"A\\\"b\": supported values: \"Always\", \"Never\"",
            ),
            (Error::too_long(&path, 63), "spec.containers[0].name: Too long: may not be more than 63 bytes"),
            (
                Error::invalid(&path, json!({"app": "x"}), "field is immutable"),
                "spec.containers[0].name: Invalid value: {\"app\":\"x\"}: field is immutable",
            ),
        ];
        for (error, want) in table {
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn a_list_prints_each_message_once() {
        let path = Path::root().child("a").key("b/c");
        let mut list = ErrorList::new();
        list.push(Error::required(&path, ""));
        list.push(Error::required(&path, ""));
        assert_eq!(list.to_string(), "a[b/c]: Required value");
        list.push(Error::forbidden(&path, "no"));
        assert_eq!(list.to_string(), "[a[b/c]: Required value, a[b/c]: Forbidden: no]");
    }
}
