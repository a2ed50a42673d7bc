//! Reviews: who am I, may I, may they. Answered, never stored.

use std::sync::Arc;

use api::ApiError;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ApiServer, Context,
    auth::{self, User},
    authenticate::user_info,
    request::{Route, Verb},
    respond::{self, Body},
    text, write,
};

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
            "selfsubjectaccessreviews" => verdict(&user, &review),
            "subjectaccessreviews" | "localsubjectaccessreviews" => verdict(&subject(&review), &review),
            "selfsubjectrulesreviews" => rules(&user),
            "tokenreviews" => self.review_token(&review)?,
            _ => return Err(ApiError::method_not_allowed()),
        };
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        Ok(respond::json_value(StatusCode::CREATED, &review))
    }
}

fn subject(review: &Value) -> Arc<User> {
    let groups = review["spec"]["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str());
    Arc::new(User::new(text(review, "/spec/user"), groups.map(str::to_owned)))
}

fn verdict(user: &User, review: &Value) -> Value {
    let asked = &review["spec"]["resourceAttributes"];
    if user.is_master() {
        return json!({"allowed": true});
    }
    let refused = json!({"allowed": false});
    let field = |name: &str| asked[name].as_str().unwrap_or_default();
    let verb = match field("verb") {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => return refused,
    };
    let Some(resource) = api::registry::resources()
        .iter()
        .find(|r| r.group == field("group") && r.plural == field("resource"))
    else {
        return refused;
    };
    let subresource = match field("subresource") {
        "" => None,
        name => match resource.subresource(name) {
            None => return refused,
            found => found,
        },
    };
    let route = Route {
        resource,
        namespace: field("namespace").into(),
        name: field("name").into(),
        subresource,
        verb,
    };
    json!({"allowed": auth::authorize(user, &route).is_ok()})
}

fn rules(user: &User) -> Value {
    let (mut resources, mut paths) =
        (Vec::new(), vec![json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz"]})]);
    if user.is_master() {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths = vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})];
    }
    // A node's rights are not a list of rules.
    let incomplete = user.node_name().is_some();
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete})
}
