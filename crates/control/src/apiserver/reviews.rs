//! Reviews: who am I, may I, may they. Answered, never stored.

use std::sync::Arc;

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
};
use http::{Response, StatusCode};
use policy::rbac::{Request, Rule, Target};
use serde_json::{Map, Value, json};

use super::{
    ApiServer, Context,
    auth::User,
    authenticate::user_info,
    request::Route,
    respond::{self, Body},
    text, write,
};
use crate::authorization::{Decision, Question};

impl ApiServer {
    pub(super) async fn review(
        &self,
        route: &Route,
        context: &mut Context,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        if route.resource.plural == "bindings" {
            return self.bind(route, context, media, body).await;
        }
        let mut review = write::decode_body(route, context, media, body)?;
        let user = context.user.clone();
        review["status"] = match route.resource.plural {
            "selfsubjectreviews" => json!({"userInfo": user_info(&user)}),
            "selfsubjectaccessreviews" | "subjectaccessreviews" | "localsubjectaccessreviews" => {
                let errors = wrong(route, &review);
                if !errors.is_empty() {
                    let (group, kind) = (route.resource.group, route.resource.kind);
                    return Err(ApiError::invalid(group, kind, text(&review, "/metadata/name"), &errors));
                }
                let whom = if is_about_asker(route) { user } else { subject(&review) };
                self.verdict(&whom, &review)
            }
            "selfsubjectrulesreviews" => self.rules(&user, &review)?,
            "tokenreviews" => self.review_token(&review)?,
            _ => return Err(ApiError::method_not_allowed()),
        };
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        Ok(respond::json_value(StatusCode::CREATED, &review))
    }

    fn verdict(&self, user: &User, review: &Value) -> Value {
        let asked = |pointer: &'static str| text(review, pointer);
        let request = if review["spec"]["resourceAttributes"].is_object() {
            let target = Target::Resource {
                group: asked("/spec/resourceAttributes/group"),
                resource: asked("/spec/resourceAttributes/resource"),
                subresource: asked("/spec/resourceAttributes/subresource"),
                namespace: asked("/spec/resourceAttributes/namespace"),
                name: asked("/spec/resourceAttributes/name"),
            };
            Request { verb: asked("/spec/resourceAttributes/verb"), target }
        } else {
            let target = Target::Path(asked("/spec/nonResourceAttributes/path"));
            Request { verb: asked("/spec/nonResourceAttributes/verb"), target }
        };
        let question = Question { request, selected_node: selected_node(review) };
        let (allowed, why) = match self.authorizer.decide(user, &question) {
            Decision::Allowed(why) => (true, why),
            Decision::Refused(why) => (false, why),
        };
        let mut status = json!({"allowed": allowed});
        if !why.is_empty() {
            status["reason"] = why.into();
        }
        status
    }

    /// Everything the user may do in a namespace.
    fn rules(&self, user: &User, review: &Value) -> Result<Value, ApiError> {
        let namespace = text(review, "/spec/namespace");
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let held = self.authorizer.held(user, namespace);
        let all = || vec!["*".to_owned()];
        let everything = [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ];
        // Masters may do everything also where no role says so.
        let own = everything.iter().filter(|rule| user.is_master() && !held.rules.contains(rule));
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in own.chain(&held.rules) {
            let mut out = Map::new();
            for (field, list) in [
                ("verbs", &rule.verbs),
                ("apiGroups", &rule.api_groups),
                ("resources", &rule.resources),
                ("resourceNames", &rule.resource_names),
                ("nonResourceURLs", &rule.non_resource_urls),
            ] {
                if !list.is_empty() {
                    out.insert(field.to_owned(), json!(list));
                }
            }
            if rule.non_resource_urls.is_empty() { &mut resources } else { &mut paths }
                .push(Value::from(out));
        }
        // What a node reaches through its pods is no list of rules.
        let is_node = user.node_name().is_some();
        let mut errors: Vec<String> = held.missing.iter().map(ToString::to_string).collect();
        errors.extend(is_node.then(|| "node authorizer does not support user rule resolution".to_owned()));
        let mut status = json!({
            "resourceRules": resources,
            "nonResourceRules": paths,
            "incomplete": !errors.is_empty(),
        });
        if !errors.is_empty() {
            status["evaluationError"] = errors.join(", ").into();
        }
        Ok(status)
    }
}

fn is_about_asker(route: &Route) -> bool {
    route.resource.plural == "selfsubjectaccessreviews"
}

/// What is wrong with an access review (upstream's `pkg/apis/authorization/validation`).
fn wrong(route: &Route, review: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = Path::new("spec");
    let (resource, other) = (&review["spec"]["resourceAttributes"], &review["spec"]["nonResourceAttributes"]);
    if resource.is_object() && other.is_object() {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(Error::invalid(&spec.child("nonResourceAttributes"), other.clone(), why));
    }
    if !resource.is_object() && !other.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(&spec.child("resourceAttributes"), resource.clone(), why));
    }
    let no_groups = review["spec"]["groups"].as_array().is_none_or(Vec::is_empty);
    if !is_about_asker(route) && text(review, "/spec/user").is_empty() && no_groups {
        let why = "at least one of user or group must be specified";
        errors.push(Error::invalid(&spec.child("user"), "", why));
    }
    if route.resource.namespaced() {
        if other.is_object() {
            let why = "disallowed on this kind of request";
            errors.push(Error::invalid(&spec.child("nonResourceAttributes"), other.clone(), why));
        }
        let namespace = text(review, "/spec/resourceAttributes/namespace");
        if resource.is_object() && namespace != route.namespace {
            let path = spec.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&path, namespace, "must match metadata.namespace"));
        }
    }
    errors
}

/// The user a review is about: what it says of it and nothing else.
fn subject(review: &Value) -> Arc<User> {
    let spec = &review["spec"];
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    Arc::new(User {
        name: text(review, "/spec/user").to_owned(),
        uid: text(review, "/spec/uid").to_owned(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.to_lowercase(), strings(values))).collect(),
    })
}

/// What the review's field selector requires of `spec.nodeName`.
fn selected_node(review: &Value) -> &str {
    let selector = &review["spec"]["resourceAttributes"]["fieldSelector"];
    let required = selector["requirements"].as_array().into_iter().flatten().find(|one| {
        one["key"] == "spec.nodeName"
            && one["operator"] == "In"
            && one["values"].as_array().is_some_and(|values| values.len() == 1)
    });
    let by_text = || {
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        raw.split(',').find_map(|part| {
            let value = part.trim().strip_prefix("spec.nodeName=")?;
            Some(value.strip_prefix('=').unwrap_or(value))
        })
    };
    required.and_then(|one| one["values"][0].as_str()).or_else(by_text).unwrap_or_default()
}
