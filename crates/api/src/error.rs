//! The refusals of the API: a metav1 `Status`, worded as apimachinery's `api/errors` words them, because users search
//! for those words and clients decide by `reason`, `code` and `details`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::field::{ErrorList, quote};
use crate::registry::Resource;

/// `reason` of a failed `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    ServiceUnavailable,
    /// No word for it; printed as no reason at all.
    #[serde(other)]
    Unknown,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Expired => "Expired",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Unknown => "",
        }
    }
}

/// One of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `details`: what the refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural of the resource; for `Invalid`, the kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds; the header `Retry-After` says the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A refusal. `Display` is the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// A group and plural: `pods`, `deployments.apps`. Made from a [`Resource`] or by hand.
#[derive(Debug, Clone, Copy)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl<'a> From<&'a Resource> for GroupResource<'a> {
    fn from(r: &'a Resource) -> Self {
        GroupResource { group: r.group, resource: r.plural }
    }
}

impl<'a> From<(&'a str, &'a str)> for GroupResource<'a> {
    /// `(group, plural)`.
    fn from((group, resource): (&'a str, &'a str)) -> Self {
        GroupResource { group, resource }
    }
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// What a writer who lost the race is told.
pub const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl ApiError {
    /// A refusal with no details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        ApiError { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, r: GroupResource<'_>, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = r.group.into();
        details.kind = r.resource.into();
        details.name = name.into();
        self
    }

    fn cause(mut self, reason: &str, message: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: String::new() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// `pods "x" not found`
    pub fn not_found<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let r = resource.into();
        Self::new(404, Reason::NotFound, format!("{r} {} not found", quote(name))).about(r, name)
    }

    /// A path that is not served at all.
    pub fn no_such_path() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .about(("", "").into(), "")
    }

    /// `pods "x" already exists`
    pub fn already_exists<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let r = resource.into();
        Self::new(409, Reason::AlreadyExists, format!("{r} {} already exists", quote(name))).about(r, name)
    }

    /// A generated name was taken; the client may try again.
    pub fn generate_name_conflict<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let r = resource.into();
        let message = format!(
            "{r} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::new(409, Reason::AlreadyExists, message).about(r, name).retry_after(1)
    }

    /// `Operation cannot be fulfilled on pods "x": {why}`
    pub fn conflict<'a>(resource: impl Into<GroupResource<'a>>, name: &str, why: &str) -> Self {
        let r = resource.into();
        let message = format!("Operation cannot be fulfilled on {r} {}: {why}", quote(name));
        Self::new(409, Reason::Conflict, message).about(r, name)
    }

    /// The conflict of a stale `resourceVersion`.
    pub fn modified<'a>(resource: impl Into<GroupResource<'a>>, name: &str) -> Self {
        Self::conflict(resource, name, OBJECT_MODIFIED)
    }

    /// A server-side apply that would take fields from other managers: one cause per field.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut error = Self::new(409, Reason::Conflict, message);
        error.details.get_or_insert_default().causes = causes;
        error
    }

    /// `Pod "x" is invalid: spec.containers: Required value`; several errors in brackets. `group` and `kind` are the
    /// object's; `name` is `metadata.name`, or `generateName` where there is none.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Self {
        let qualified = GroupResource { group, resource: kind };
        let mut message = format!("{qualified} {} is invalid", quote(name));
        if !errors.is_empty() {
            message.push_str(&format!(": {errors}"));
        }
        let mut error = Self::new(422, Reason::Invalid, message).about(qualified, name);
        error.details.get_or_insert_default().causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.cause().into(), message: e.body(), field: e.field.clone() })
            .collect();
        error
    }

    /// A patch that cannot be applied to the object it is sent for. Upstream keeps the reason to itself.
    pub fn unprocessable_patch(why: &str) -> Self {
        let message = format!("the server rejected our request due to an error in our request ({why})");
        Self::new(422, Reason::Invalid, message).about(("", "").into(), "")
    }

    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, why)
    }

    pub fn unauthorized(why: &str) -> Self {
        Self::new(401, Reason::Unauthorized, if why.is_empty() { "Unauthorized" } else { why })
    }

    /// `pods "x" is forbidden: {why}`; without a name, `pods is forbidden: {why}`.
    pub fn forbidden<'a>(resource: impl Into<GroupResource<'a>>, name: &str, why: &str) -> Self {
        let r = resource.into();
        let message = match (r.resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{r} is forbidden: {why}"),
            _ => format!("{r} {} is forbidden: {why}", quote(name)),
        };
        Self::new(403, Reason::Forbidden, message).about(r, name)
    }

    /// `{verb} is not supported on resources of kind "pods"`
    pub fn method_not_supported<'a>(resource: impl Into<GroupResource<'a>>, verb: &str) -> Self {
        let r = resource.into();
        let message = format!("{verb} is not supported on resources of kind {}", quote(&r.to_string()));
        Self::new(405, Reason::MethodNotAllowed, message).about(r, "")
    }

    /// A path that is there, asked with a method it does not have.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .about(("", "").into(), "")
    }

    /// A watch or list from a version that is no longer (or not yet) known.
    pub fn expired(why: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, why)
    }

    /// The words of a watch that asks for a compacted version.
    pub fn too_old_resource_version(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// The words of a list that continues from a version no longer kept.
    pub fn continue_expired() -> Self {
        Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new \
             list without the continue parameter.",
        )
    }

    pub fn gone(why: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, why)
    }

    /// A body above `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    /// A request body in a format we cannot read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// An `Accept` header we cannot serve.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", offered.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// Come back in `seconds`; `why` is the message.
    pub fn too_many_requests(why: impl Into<String>, seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, why).retry_after(seconds)
    }

    pub fn internal(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {why}")).cause("", &why)
    }

    /// The request took too long and may or may not have been done.
    pub fn timeout(why: &str) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {why}"))
    }

    pub fn service_unavailable(why: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, why)
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same refusal with `details.uid`.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details.get_or_insert_default().uid = uid.into();
        self
    }

    /// The `Status` object to answer with.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if self.reason != Reason::Unknown {
            status["reason"] = self.reason.as_str().into();
        }
        if let Some(details) = &self.details {
            status["details"] = json!(details);
        }
        status["code"] = self.code.into();
        status
    }

    /// Reads a failed `Status` back; `None` for anything else.
    pub fn from_status(status: &Value) -> Option<Self> {
        if status["kind"] != "Status" || status["status"] == "Success" {
            return None;
        }
        Some(ApiError {
            code: status["code"].as_u64().and_then(|c| u16::try_from(c).ok()).unwrap_or(500),
            reason: Reason::deserialize(&status["reason"]).unwrap_or(Reason::Unknown),
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            details: Option::<Box<Details>>::deserialize(&status["details"]).ok().flatten(),
        })
    }
}

/// The `Status` that answers a delete: what was deleted, and its uid.
pub fn deleted<'a>(resource: impl Into<GroupResource<'a>>, name: &str, uid: &str) -> Value {
    let r = resource.into();
    let details = Details {
        name: name.into(),
        group: r.group.into(),
        kind: r.resource.into(),
        uid: uid.into(),
        ..Details::default()
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{self, Path};
    use crate::registry;

    fn pods() -> &'static Resource {
        registry::by_plural("", "v1", "pods").unwrap()
    }

    #[test]
    fn refusals_are_worded_as_upstream_words_them() {
        let deployments = registry::by_plural("apps", "v1", "deployments").unwrap();
        let table = [
            (ApiError::not_found(pods(), "x"), 404, "NotFound", r#"pods "x" not found"#),
            (
                ApiError::already_exists(deployments, "web"),
                409,
                "AlreadyExists",
                r#"deployments.apps "web" already exists"#,
            ),
            (
                ApiError::modified(pods(), "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes \
                 to the latest version and try again",
            ),
            (ApiError::forbidden(pods(), "x", "no"), 403, "Forbidden", r#"pods "x" is forbidden: no"#),
            (ApiError::forbidden(pods(), "", "no"), 403, "Forbidden", "pods is forbidden: no"),
            (
                ApiError::method_not_supported(deployments, "deletecollection"),
                405,
                "MethodNotAllowed",
                r#"deletecollection is not supported on resources of kind "deployments.apps""#,
            ),
            (
                ApiError::too_large(3145728),
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            ),
            (ApiError::too_old_resource_version(5, 9), 410, "Expired", "too old resource version: 5 (9)"),
            (ApiError::internal("boom"), 500, "InternalError", "Internal error occurred: boom"),
        ];
        for (error, code, reason, message) in table {
            let status = error.to_status();
            assert_eq!(status["code"], code, "{message}");
            assert_eq!(status["reason"], reason);
            assert_eq!(status["message"], message);
            assert_eq!(ApiError::from_status(&status), Some(error));
        }
    }

    #[test]
    fn invalid_lists_every_field_as_a_cause() {
        let path = Path::new("spec").child("containers");
        let mut errors = ErrorList::new();
        errors.push(field::Error::required(&path, ""));
        let one = ApiError::invalid("", "Pod", "x", &errors);
        assert_eq!(one.message, r#"Pod "x" is invalid: spec.containers: Required value"#);
        errors.push(field::Error::not_supported(&Path::new("spec").child("restartPolicy"), "x", &["Always"]));
        let two = ApiError::invalid("apps", "Deployment", "x", &errors);
        assert_eq!(
            two.message,
            "Deployment.apps \"x\" is invalid: [spec.containers: Required value, spec.restartPolicy: Unsupported \
             value: \"x\": supported values: \"Always\"]"
        );
        let status = two.to_status();
        assert_eq!(status["details"]["kind"], "Deployment");
        assert_eq!(status["details"]["group"], "apps");
        assert_eq!(status["details"]["causes"][1]["reason"], "FieldValueNotSupported");
        assert_eq!(status["details"]["causes"][1]["field"], "spec.restartPolicy");
    }

    #[test]
    fn a_success_is_no_error() {
        assert_eq!(ApiError::from_status(&deleted(pods(), "x", "u")), None);
        assert_eq!(deleted(pods(), "x", "u")["details"]["uid"], "u");
    }
}
