//! Paths that are no resource's: what is served, by whom, in which version.

use api::{
    ApiError,
    registry::discovery::{self, Aggregated},
};
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{
    ApiServer,
    respond::{self, Body},
};

/// The Kubernetes version whose API this is.
const MINOR: u32 = 35;

/// The old OpenAPI document is asked for in this form alone, and only for kinds that the new ones do not have.
const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2";
const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A document without definitions: `swagger: "2.0"`, `info: {title: "Kubernetes", version: "v1.35.0"}`. With it kubectl
/// goes on and says that there is no such kind; without it, that it could not download something.
const EMPTY_V2: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.35.0";

pub fn answer(
    server: &ApiServer,
    method: &Method,
    path: &str,
    accept: &str,
) -> Result<Response<Body>, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let aggregated = Aggregated::negotiate(accept);
    let found = match (parts.as_slice(), aggregated) {
        (["openapi", "v3"], _) => return Ok(respond::json_bytes(StatusCode::OK, api::openapi::index())),
        (["openapi", "v3", rest @ ..], _) => {
            let document = api::openapi::document(&rest.join("/")).ok_or_else(ApiError::no_such_path)?;
            let mut response = respond::json_bytes(StatusCode::OK, document.json.as_bytes());
            if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", document.hash)) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            return Ok(response);
        }
        (["openapi", "v2"], _) if accept.contains(V2_ASKED) => {
            return Ok(respond::response(StatusCode::OK, V2, respond::full(EMPTY_V2)));
        }
        ([".well-known", "openid-configuration"], _) => {
            return Ok(public("application/json", &server.settings.tokens.discovery()));
        }
        (["openid", "v1", "jwks"], _) => {
            return Ok(public("application/jwk-set+json", &server.settings.tokens.key_set()));
        }
        ([], _) => Some(paths()),
        (["version"], _) => Some(version()),
        (["metrics"], _) => {
            const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
            return Ok(respond::response(StatusCode::OK, TEXT, respond::full(metrics(server))));
        }
        (["api"], Some(format)) => return Ok(aggregated_answer(format, &discovery::aggregated_core(format))),
        (["apis"], Some(format)) => {
            return Ok(aggregated_answer(format, &discovery::aggregated_groups(format)));
        }
        (["api"], None) => Some(discovery::api_versions(&server.settings.address)),
        (["apis"], None) => Some(discovery::api_group_list()),
        (["api", version], _) => discovery::api_resource_list("", version),
        (["apis", group], _) => discovery::api_group(group),
        (["apis", group, version], _) => discovery::api_resource_list(group, version),
        _ => None,
    };
    match found {
        Some(value) => Ok(respond::json_value(StatusCode::OK, &value)),
        None => Err(ApiError::no_such_path()),
    }
}

fn aggregated_answer(format: Aggregated, value: &Value) -> Response<Body> {
    let mut response = respond::json_value(StatusCode::OK, value);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// What verifiers of tokens may keep for an hour, as upstream says.
fn public(media: &'static str, value: &Value) -> Response<Body> {
    let mut response = respond::response(StatusCode::OK, media, respond::full(value.to_string()));
    let age = HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(header::CACHE_CONTROL, age);
    response
}

/// What is stored, in upstream's words.
fn metrics(server: &ApiServer) -> String {
    let mut out = String::from(
        "# HELP apiserver_storage_objects Number of stored objects at the time of last check split by kind.\n\
         # TYPE apiserver_storage_objects gauge\n",
    );
    for resource in api::registry::resources() {
        let kept = resource.qualified_resource();
        if resource.is_review() || resource.stored_as != (resource.group, resource.plural) {
            continue;
        }
        let count = server.store.list(&format!("/{kept}/"), None).map_or(0, |listed| listed.objects.len());
        out.push_str(&format!("apiserver_storage_objects{{resource=\"{kept}\"}} {count}\n"));
    }
    let revision = server.store.revision();
    out.push_str(&format!(
        "# HELP cofferdam_store_revision The revision of the last write.\n\
         # TYPE cofferdam_store_revision counter\ncofferdam_store_revision {revision}\n"
    ));
    out
}

fn paths() -> Value {
    let mut paths = vec!["/.well-known/openid-configuration".into(), "/api".to_owned(), "/apis".to_owned()];
    for gv in api::registry::group_versions() {
        let root = if gv.group.is_empty() { "/api" } else { "/apis" };
        paths.push(format!("{root}/{}", gv.api_version()));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]
            .map(str::to_owned),
    );
    json!({"paths": paths})
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR.to_string(),
        "gitVersion": format!("v1.{MINOR}.0+cofferdam-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
    })
}
