//! `serviceaccounts/token`: a TokenRequest is answered with a token, and nothing is stored
//! (`pkg/registry/core/serviceaccount/storage/token.go`).

use api::{
    ApiError,
    field::{Error, ErrorList, Path, quote},
    registry,
};
use http::{Response, StatusCode};
use serde_json::Value;

use super::{
    ApiServer, Context, key,
    request::Route,
    respond::{self, Body},
    text, write,
};
use crate::{
    admission::{self, Operation},
    random,
    tokens::{Claims, ISSUER, Kubernetes, Reference, account_name},
};

/// Seconds a token lives where the request says nothing.
const USUAL: i64 = 60 * 60;
/// Seconds: the shortest and the longest life that may be asked for.
const SHORTEST: i64 = 10 * 60;
const LONGEST: i64 = 1 << 32;

/// What admission puts into pods asks for this life, so that it is known again: such a token for the API itself lives a year,
/// and says when it should have been replaced. Clients that read their token once are not broken by its rotation.
const PROJECTED: i64 = 60 * 60 + 7;
const EXTENDED: i64 = 365 * 24 * 60 * 60;

/// What a token is bound to.
#[derive(Default)]
struct Bound {
    pod: Option<Reference>,
    secret: Option<Reference>,
    node: Option<Reference>,
}

fn validate(request: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(USUAL);
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < SHORTEST {
        errors.push(Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > LONGEST {
        errors.push(Error::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    errors
}

/// A field that may be left out, and else must be what the URL says.
fn settle(request: &mut Value, field: &str, want: &str, what: &str, name: &str) -> Result<(), ApiError> {
    let given = request["metadata"][field].as_str().unwrap_or_default();
    if !given.is_empty() && given != want {
        let mut errors = ErrorList::new();
        let detail = format!("must match the service account {what} if specified");
        errors.push(Error::invalid(&Path::new("metadata").child(field), given, detail));
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &errors));
    }
    request["metadata"][field] = want.into();
    Ok(())
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: text(object, "/metadata/name").to_owned(),
        uid: text(object, "/metadata/uid").to_owned(),
    }
}

impl ApiServer {
    pub(super) async fn request_token(
        &self,
        route: &Route,
        context: &mut Context,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let mut request = write::decode_body(route, context, media, body)?;
        if !request["metadata"].is_object() {
            request["metadata"] = serde_json::json!({});
        }
        settle(&mut request, "name", &route.name, "name", &route.name)?;
        settle(&mut request, "namespace", &route.namespace, "namespace", &route.name)?;
        let account = self
            .store
            .get(&key(route.resource, &route.namespace, &route.name))
            .ok_or_else(|| ApiError::not_found(route.resource, &route.name))?
            .value();
        if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
            request["spec"]["audiences"] = serde_json::json!([ISSUER]);
        }
        if request["spec"]["expirationSeconds"].is_null() {
            request["spec"]["expirationSeconds"] = USUAL.into();
        }
        let now = respond::now();
        request["metadata"]["creationTimestamp"] = stamp(now)?.into();
        let errors = validate(&request);
        if !errors.is_empty() {
            return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &errors));
        }

        let asked = self.admission_request(Operation::Create, route, context, &route.name, None);
        admission::mutate(&self.admission, &asked, &mut request)?;
        let mut warnings = Vec::new();
        let verdict = admission::validate(&self.admission, &asked, Some(&request), &mut warnings);
        context.warnings.extend(warnings);
        verdict?;

        let bound = self.bound_object(route, &request)?;
        let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
        let audiences: Vec<String> = audiences.filter_map(|one| Some(one.as_str()?.to_owned())).collect();
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(USUAL);
        let extends = bound.pod.is_some() && seconds == PROJECTED && audiences == [ISSUER];
        let claims = Claims {
            aud: audiences,
            exp: now + if extends { EXTENDED } else { seconds },
            iat: now,
            iss: ISSUER.to_owned(),
            jti: random::uuid(),
            kubernetes: Kubernetes {
                namespace: route.namespace.clone(),
                node: bound.node,
                pod: bound.pod,
                secret: bound.secret,
                serviceaccount: reference(&account),
                warnafter: extends.then_some(now + seconds),
            },
            nbf: now,
            sub: account_name(&route.namespace, &route.name),
        };
        let issued = format!("JTI={}", claims.jti);
        context.record.annotate("authentication.kubernetes.io/issued-credential-id", issued);
        let token = self.settings.tokens.sign(&claims).map_err(|e| ApiError::internal(e.to_string()))?;
        request["status"] = serde_json::json!({"token": token, "expirationTimestamp": stamp(now + seconds)?});
        Ok(respond::json_value(StatusCode::CREATED, &request))
    }

    /// The object of `spec.boundObjectRef`, which must be there, and be the one that is meant.
    fn bound_object(&self, route: &Route, request: &Value) -> Result<Bound, ApiError> {
        let asked = &request["spec"]["boundObjectRef"];
        if !asked.is_object() {
            return Ok(Bound::default());
        }
        let field = |name: &str| asked[name].as_str().unwrap_or_default();
        let (version, kind, name) = (field("apiVersion"), field("kind"), field("name"));
        let plural = match (version, kind) {
            ("v1", "Pod") => "pods",
            ("v1", "Secret") => "secrets",
            ("v1", "Node") => "nodes",
            _ => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
                return Err(ApiError::bad_request(why));
            }
        };
        let find = |plural: &str, name: &str| {
            let resource = registry::by_plural("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
            let found = self.store.get(&key(resource, &route.namespace, name));
            found.map(|object| object.value()).ok_or_else(|| ApiError::not_found(resource, name))
        };
        let object = find(plural, name)?;
        let mut bound = Bound::default();
        match plural {
            "pods" => {
                if text(&object, "/spec/serviceAccountName") != route.name {
                    let why = format!(
                        "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                        quote(&route.name)
                    );
                    return Err(ApiError::bad_request(why));
                }
                let node = text(&object, "/spec/nodeName");
                bound.node = match (node, find("nodes", node)) {
                    ("", _) => None,
                    (_, Ok(node)) => Some(reference(&node)),
                    // Its name still says where the pod was.
                    (node, Err(_)) => Some(Reference { name: node.to_owned(), uid: String::new() }),
                };
                bound.pod = Some(reference(&object));
            }
            "secrets" => bound.secret = Some(reference(&object)),
            _ => bound.node = Some(reference(&object)),
        }
        let (uid, there) = (field("uid"), text(&object, "/metadata/uid"));
        if !uid.is_empty() && uid != there {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(ApiError::conflict(("", kind), name, &why));
        }
        Ok(bound)
    }
}

/// # Errors
/// A moment beyond the calendar.
fn stamp(seconds: i64) -> Result<String, ApiError> {
    let at = jiff::Timestamp::from_second(seconds).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(respond::timestamp(at))
}
