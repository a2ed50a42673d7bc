//! Changes an object by a patch: JSON patch (RFC 6902), merge patch (RFC 7386), or Kubernetes' strategic merge patch, which knows
//! from the schema table which lists are merged by which key. What comes out is decoded like a body, so a patch can
//! bring in nothing that a create could not.

mod json_patch;
mod merge;
mod strategic;

use serde_json::Value;

use crate::error::ApiError;
use crate::field::{self, ErrorList, Path, quote};
use crate::json::{Limits, parse};
use crate::schema::Type;
use crate::strict::{Decoded, FieldValidation, conform};

/// The media types that a PATCH may have.
pub const MEDIA_TYPES: [&str; 4] = [JSON, MERGE, STRATEGIC, APPLY];
/// Server-side apply ([`crate::apply`]): what is sent is no change but what is to be so.
pub const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A patch that was read but not yet applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    body: Body,
    /// Fields that stood twice in the patch.
    duplicates: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Body {
    Json(Vec<json_patch::Operation>),
    Merge(Value),
    Strategic(serde_json::Map<String, Value>),
}

impl Patch {
    /// Reads a patch, which is no apply; `content_type` may have parameters.
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Patch, ApiError> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media == APPLY || !MEDIA_TYPES.contains(&media) {
            return Err(ApiError::unsupported_media_type(&MEDIA_TYPES));
        }
        let undecodable =
            |why: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding patch: {why}"));
        let parsed = parse(body, Limits::default()).map_err(|e| undecodable(&e))?;
        let body = match (media, parsed.value) {
            (JSON, value) => Body::Json(json_patch::operations(value)?),
            (MERGE, value @ Value::Object(_)) => Body::Merge(value),
            (STRATEGIC, Value::Object(map)) => Body::Strategic(map),
            (_, other) => return Err(undecodable(&format!("expected an object, found {other}"))),
        };
        Ok(Patch { body, duplicates: parsed.duplicates })
    }

    /// Applies the patch to an object of the type; the object given is not changed.
    pub fn apply(
        &self,
        object: &Value,
        ty: &'static Type,
        validation: FieldValidation,
    ) -> Result<Decoded, ApiError> {
        let mut value = match &self.body {
            Body::Json(operations) => json_patch::apply(object.clone(), operations)?,
            Body::Merge(patch) => {
                let mut value = object.clone();
                merge::apply(&mut value, patch);
                value
            }
            Body::Strategic(patch) => {
                let Value::Object(mut map) = object.clone() else {
                    return Err(ApiError::internal("the object to patch is not a JSON object"));
                };
                strategic::apply(&mut map, patch.clone(), ty)
                    .map_err(|e| ApiError::bad_request(e.to_string()))?;
                Value::Object(map)
            }
        };
        if !value.is_object() {
            return Err(invalid(&value, "the result of the patch is not an object"));
        }
        // Whatever was unknown before the patch cannot be there: the object was decoded when it came.
        let unknown = conform(&mut value, ty).map_err(|wrong| invalid(&value, &wrong))?;
        let mut findings: Vec<String> =
            self.duplicates.iter().map(|p| format!("duplicate field {}", quote(p))).collect();
        findings.extend(unknown);
        let warnings = match validation {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn => findings,
            FieldValidation::Strict if findings.is_empty() => findings,
            FieldValidation::Strict => {
                return Err(invalid(&value, &format!("strict decoding error: {}", findings.join(", "))));
            }
        };
        Ok(Decoded { value, warnings })
    }
}

/// What upstream says of a patch whose result cannot be decoded: it names neither kind nor object.
fn invalid(result: &Value, why: &str) -> ApiError {
    let mut errors = ErrorList::new();
    errors.push(field::Error::invalid(&Path::new("patch"), result.to_string(), why));
    ApiError::invalid("", "", "", &errors)
}

#[cfg(test)]
mod tests;
