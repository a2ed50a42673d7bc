//! `POST /cofferdam/v1/nodes/<node>/addresses`: a node's agent tells another node's of its new pods' addresses. The body is
//! between the two; who speaks is known here, and stands in the path that the other agent sees.

use api::ApiError;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use super::{
    ApiServer, User, decode, logs,
    respond::{self, Body, Failure},
};

/// The node that a request tells, if it is such a request.
pub fn target<'a>(method: &Method, path: &'a str) -> Option<&'a str> {
    let node = path.strip_prefix("/cofferdam/v1/nodes/")?.strip_suffix("/addresses")?;
    (method == Method::POST && !node.contains('/')).then_some(node)
}

/// # Errors
/// Forbidden for all but nodes; what the agent answers, or that it does not.
pub async fn answer(
    server: &ApiServer,
    user: &User,
    node: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let Some(from) = user.node_name() else {
        let why = format!("User {:?} is no node: only nodes tell of their pods' addresses", user.name);
        return Err(ApiError::new(403, api::error::Reason::Forbidden, why));
    };
    let path = format!("/addresses/{from}");
    let body = decode::read(request.into_body()).await?;
    let mut agent = logs::connect(server, node).await?;
    let asked = Request::post(path)
        .header(header::HOST, "agent")
        .body(Full::from(body))
        .map_err(|error| ApiError::internal(format!("tell the agent: {error}")))?;
    let response = agent
        .send_request(asked)
        .await
        .map_err(|error| ApiError::internal(format!("tell the agent of node {node}: {error}")))?;
    if response.status() != StatusCode::OK {
        return Err(logs::refusal(response).await);
    }
    let body = response.into_body().map_err(|error| -> Failure { Box::new(error) }).boxed_unsync();
    Ok(respond::response(StatusCode::OK, "application/json", body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_path_is_meant() {
        assert_eq!(target(&Method::POST, "/cofferdam/v1/nodes/node-2/addresses"), Some("node-2"));
        for path in [
            "/cofferdam/v1/nodes/a/b/addresses",
            "/cofferdam/v1/nodes/node-2",
            "/api/v1/nodes/node-2/addresses",
        ] {
            assert_eq!(target(&Method::POST, path), None, "{path}");
        }
        assert_eq!(target(&Method::GET, "/cofferdam/v1/nodes/node-2/addresses"), None);
    }
}
