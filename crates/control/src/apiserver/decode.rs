//! Request bodies: read with a bound, and decoded by their media type into the object the path expects.

use api::{
    ApiError,
    json::Limits,
    protobuf,
    strict::{self, Decoded, Expected, FieldValidation},
};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::respond::Body;

/// The largest request body, as upstream's `MaxRequestBodyBytes`.
pub const MAX_BODY: usize = 3 << 20;

const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// Reads the whole body.
///
/// # Errors
/// RequestEntityTooLarge; BadRequest where the client stops in the middle.
pub async fn read(mut body: Body) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("read the request's body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > MAX_BODY {
                return Err(ApiError::too_large(MAX_BODY));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.into())
}

/// The media type without parameters; JSON where there is none, as upstream.
pub fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.split(';').next().map(str::trim) {
        None | Some("") => "application/json",
        Some(media) => media,
    }
}

/// Decodes a body into the kind that is expected.
///
/// # Errors
/// UnsupportedMediaType; BadRequest for anything that is not such an object.
pub fn object(
    media: &str,
    body: &[u8],
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    match media {
        "application/json" => strict::decode_json(body, expected, validation),
        "application/yaml" | "text/yaml" | "application/x-yaml" => {
            strict::decode_yaml(body, expected, validation)
        }
        protobuf::MEDIA_TYPE => protobuf::decode(body, expected),
        _ => Err(ApiError::unsupported_media_type(&ACCEPTED)),
    }
}

/// The options of a delete: a body of kind `DeleteOptions` in any version, or none.
///
/// # Errors
/// As [`object`].
pub fn delete_options(media: &str, body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("decode DeleteOptions: {error}"));
    let expected = Expected { api_version: "v1", kind: "DeleteOptions" };
    let value = match media {
        "application/json" => api::json::parse(body, Limits::default()).map_err(|e| bad(&e))?.value,
        "application/yaml" => api::json::parse_yaml(body, Limits::default()).map_err(|e| bad(&e))?.value,
        protobuf::MEDIA_TYPE => protobuf::to_json(body, expected).map_err(|e| bad(&e))?,
        _ => return Err(ApiError::unsupported_media_type(&ACCEPTED)),
    };
    let version = value["apiVersion"].as_str().filter(|v| !v.is_empty()).unwrap_or("v1").to_owned();
    let parsed = api::json::Parsed { value, duplicates: Vec::new() };
    let expected = Expected { api_version: &version, kind: "DeleteOptions" };
    Ok(strict::decode(parsed, expected, FieldValidation::Ignore)?.value)
}
