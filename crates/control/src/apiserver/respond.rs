//! Answers: which representation a client wants (`Accept`), and objects, lists, refusals and streams as HTTP responses.
//! Stored bytes are sent as they are wherever the client takes plain JSON.

use std::collections::HashSet;

use api::{
    ApiError,
    printer::{self, IncludeObject},
    registry::Resource,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::request::Query;
use crate::store::Object;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Failure>;

const JSON: &str = "application/json";

/// How objects are written for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    Json,
    /// `meta.k8s.io/<version>` Table.
    Table {
        version: &'static str,
        include: IncludeObject,
    },
    /// `PartialObjectMetadata`: no spec, no status.
    Metadata,
}

impl Representation {
    /// The first of the client's media ranges that is served.
    ///
    /// # Errors
    /// NotAcceptable; BadRequest for an `includeObject` that is none.
    pub fn negotiate(accept: &str, query: &Query) -> Result<Representation, ApiError> {
        if accept.trim().is_empty() {
            return Ok(Representation::Json);
        }
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
                continue;
            }
            let (mut kind, mut version, mut group) = ("", "", "");
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key {
                    "as" => kind = value,
                    "v" => version = value,
                    "g" => group = value,
                    _ => {}
                }
            }
            let version = match version {
                "v1" => "v1",
                "v1beta1" => "v1beta1",
                _ => "",
            };
            match (kind, group, version) {
                ("", ..) => return Ok(Representation::Json),
                ("Table", "meta.k8s.io", "v1" | "v1beta1") => {
                    let include = IncludeObject::parse(query.get("includeObject")).ok_or_else(|| {
                        ApiError::bad_request(
                            "unrecognized includeObject value: must be 'Metadata', 'Object', 'None', or empty",
                        )
                    })?;
                    return Ok(Representation::Table { version, include });
                }
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                    return Ok(Representation::Metadata);
                }
                _ => {}
            }
        }
        Err(ApiError::not_acceptable(&[JSON]))
    }

    /// One object.
    pub fn object(self, resource: &Resource, value: Value) -> Value {
        match self {
            Representation::Json => value,
            Representation::Metadata => metadata_only(&value),
            Representation::Table { .. } => {
                let revision = value["metadata"]["resourceVersion"].clone();
                self.table(resource, &[value], json!({"resourceVersion": revision}))
            }
        }
    }

    fn table(self, resource: &Resource, values: &[Value], metadata: Value) -> Value {
        let Representation::Table { version, include } = self else { return Value::Null };
        let mut table = printer::table(resource, values, now(), include);
        table["metadata"] = metadata;
        table["apiVersion"] = format!("meta.k8s.io/{version}").into();
        table
    }
}

fn metadata_only(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// `metadata.creationTimestamp` and its kin: RFC 3339 in seconds.
pub fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What stands in a list beside its items.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub revision: u64,
    pub token: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut out = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.token {
            out["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            out["remainingItemCount"] = remaining.into();
        }
        out
    }
}

/// A list as the client wants it. `shape` gives the stored objects the form of the resource that is asked.
pub fn list(
    representation: Representation,
    resource: &Resource,
    objects: &[std::sync::Arc<Object>],
    meta: &ListMeta,
    shape: Option<fn(Value) -> Value>,
) -> Bytes {
    let values =
        || objects.iter().map(|object| shape.map_or_else(|| object.value(), |shape| shape(object.value())));
    match representation {
        Representation::Table { .. } => {
            let values: Vec<Value> = values().collect();
            representation.table(resource, &values, meta.value()).to_string().into()
        }
        Representation::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta.value(),
            "items": values().map(|value| metadata_only(&value)).collect::<Vec<_>>(),
        })
        .to_string()
        .into(),
        Representation::Json => {
            let head = format!(
                r#"{{"kind":"{}","apiVersion":"{}","metadata":{},"items":["#,
                resource.list_kind(),
                resource.api_version(),
                meta.value()
            );
            let size: usize = objects.iter().map(|object| object.bytes().len() + 1).sum();
            let mut out = Vec::with_capacity(head.len() + size + 2);
            out.extend_from_slice(head.as_bytes());
            for (at, object) in objects.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                match shape {
                    None => out.extend_from_slice(object.bytes()),
                    Some(shape) => out.extend_from_slice(shape(object.value()).to_string().as_bytes()),
                }
            }
            out.extend_from_slice(b"]}");
            out.into()
        }
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a body of `content_type`.
pub fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn json_bytes(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    response(status, JSON, full(bytes))
}

pub fn json_value(status: StatusCode, value: &Value) -> Response<Body> {
    json_bytes(status, value.to_string())
}

/// A refusal, as a `Status`.
pub fn refusal(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_value(status, &error.to_status());
    // For the audit log.
    response.extensions_mut().insert(error.clone());
    if let Some(seconds) =
        error.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0)
    {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A stream of lines, each sent as soon as it is there.
pub fn stream(lines: impl futures::Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    use futures::StreamExt;
    let body = StreamBody::new(lines.map(|line| Ok::<_, Failure>(Frame::data(line))));
    response(StatusCode::OK, JSON, body.boxed_unsync())
}

/// The body, which keeps something until it ends.
pub fn keeping(body: Body, kept: impl Send + 'static) -> Body {
    body.map_frame(move |frame| {
        let _ = &kept;
        frame
    })
    .boxed_unsync()
}

/// Adds `Warning: 299 - "…"` headers (RFC 7234), which kubectl prints.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in shortened(warnings) {
        let mut text = String::with_capacity(warning.len() + 10);
        for c in warning.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => text.push(' '),
                c => text.push(c),
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Characters of all warnings of an answer, beyond which each is cut to [`ITEM`] and what goes beyond even then is left out:
/// a client refuses an answer whose head is too large (upstream's `filters/warning.go`).
const TOTAL: usize = 4 << 10;
const ITEM: usize = 256;

/// Each once, and no more than a client takes.
fn shortened(warnings: &[String]) -> Vec<&str> {
    let mut said = HashSet::new();
    let all = warnings.iter().map(String::as_str);
    let once: Vec<&str> = all.filter(|warning| !warning.is_empty() && said.insert(*warning)).collect();
    if once.iter().map(|warning| warning.chars().count()).sum::<usize>() <= TOTAL {
        return once;
    }
    let mut written = 0;
    let mut cut = Vec::new();
    for warning in once {
        if written >= TOTAL {
            break;
        }
        let end = warning.char_indices().nth(ITEM).map_or(warning.len(), |(at, _)| at);
        written += warning[..end].chars().count();
        cut.push(&warning[..end]);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_that_is_served_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let table = |version| Some(Representation::Table { version, include: IncludeObject::Metadata });
        let cases = [
            ("", Some(Representation::Json)),
            ("*/*", Some(Representation::Json)),
            (kubectl, table("v1")),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", table("v1beta1")),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some(Representation::Json),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some(Representation::Metadata),
            ),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
        ];
        for (accept, want) in cases {
            assert_eq!(Representation::negotiate(accept, &Query::default()).ok(), want, "{accept}");
        }
    }

    #[test]
    fn many_warnings_are_cut_and_the_same_is_said_once() {
        let lengths = |warnings: &[String]| -> Vec<usize> {
            shortened(warnings).iter().map(|warning| warning.chars().count()).collect()
        };
        let fits = ["a".repeat(4000), "b".into(), "b".into(), String::new(), "ñ".repeat(95)];
        assert_eq!(lengths(&fits), [4000, 1, 95], "4096 characters, whatever their bytes");
        let more = ["a".repeat(4000), "b".into(), "ñ".repeat(300)];
        assert_eq!(lengths(&more), [256, 1, 256]);
        let many: Vec<String> = (0..40).map(|n| format!("{n:02}{}", "x".repeat(300))).collect();
        assert_eq!(lengths(&many), vec![256; 16]);
    }

    #[test]
    fn warnings_are_quoted() {
        let mut response = json_bytes(StatusCode::OK, "{}");
        warn(&mut response, &[r#"unknown field "spec.x""#.to_owned()]);
        assert_eq!(response.headers()["warning"], r#"299 - "unknown field \"spec.x\"""#);
    }
}
