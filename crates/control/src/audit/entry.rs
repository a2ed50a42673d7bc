//! One line of the log.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use api::ApiError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::apiserver::{User, user_info};

/// When in a request's life its entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The head of the answer is out and its body goes on.
    ResponseStarted,
    ResponseComplete,
}

/// What a request is for; "" for what does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub resource: Cow<'static, str>,
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub subresource: Cow<'static, str>,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// HTTP status; 0 where the client went before there was one.
    pub code: u16,
    pub error: Option<ApiError>,
}

pub struct Entry {
    pub(super) stage: Stage,
    pub(super) id: String,
    pub(super) uri: String,
    pub(super) verb: String,
    pub(super) user: Option<Arc<User>>,
    pub(super) impersonated: Option<Arc<User>>,
    pub(super) source: Option<IpAddr>,
    pub(super) agent: String,
    pub(super) target: Option<Target>,
    pub(super) outcome: Outcome,
    pub(super) received: Timestamp,
    pub(super) at: Timestamp,
    pub(super) annotations: BTreeMap<String, String>,
}

fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

impl Entry {
    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        let stage = match self.stage {
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
        };
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": self.id,
            "stage": stage,
            "requestURI": self.uri,
            "verb": self.verb,
            "user": self.user.as_deref().map_or_else(|| json!({}), user_info),
            "requestReceivedTimestamp": micro_time(self.received),
            "stageTimestamp": micro_time(self.at),
        });
        let mut set = |field: &str, value: Value| event[field] = value;
        if let Some(user) = &self.impersonated {
            set("impersonatedUser", user_info(user));
        }
        if let Some(source) = self.source {
            set("sourceIPs", json!([source]));
        }
        if !self.agent.is_empty() {
            set("userAgent", self.agent.as_str().into());
        }
        if let Some(target) = &self.target {
            set("objectRef", object_ref(target));
        }
        if self.outcome.code != 0 {
            set("responseStatus", self.status());
        }
        if !self.annotations.is_empty() {
            set("annotations", json!(self.annotations));
        }
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    fn status(&self) -> Value {
        let Some(error) = &self.outcome.error else {
            return json!({"metadata": {}, "code": self.outcome.code});
        };
        let mut status = error.to_status();
        if let Some(map) = status.as_object_mut() {
            map.remove("kind");
            map.remove("apiVersion");
        }
        status
    }
}

fn object_ref(target: &Target) -> Value {
    let fields = [
        ("resource", &*target.resource),
        ("namespace", &target.namespace),
        ("name", &target.name),
        ("apiGroup", &target.group),
        ("apiVersion", &target.version),
        ("subresource", &target.subresource),
    ];
    let said = fields.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(field, value)| (field.to_owned(), value.into())).collect::<serde_json::Map<_, _>>().into()
}
