//! `pods/log`: the node's agent answers, over its unix socket.

use api::{ApiError, field::quote};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{
    ApiServer, pods,
    request::{Query, Route},
    respond::{self, Body, Failure},
    text,
};

/// The parameters an agent is told; what else stands in the query is not for it.
const PARAMETERS: [&str; 8] =
    ["follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "previous", "limitBytes", "stream"];

/// A connection to the agent of `node`, for one request.
pub async fn connect<B>(
    server: &ApiServer,
    node: &str,
) -> Result<hyper::client::conn::http1::SendRequest<B>, ApiError>
where
    B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    // The name comes from an object: it must not lead elsewhere.
    if node.is_empty() || node.contains('/') || node.starts_with('.') {
        return Err(ApiError::internal(format!("{} is no node's name", quote(node))));
    }
    let path = server.settings.run_dir.join("nodes").join(node).join("agent.sock");
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::internal(format!("connect to the agent of node {node} at {}: {error}", path.display()))
    };
    let stream = UnixStream::connect(&path).await.map_err(|error| failed(&error))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the response, or with the upgraded stream; whoever reads that sees the error.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}

/// An agent's refusal, as the client is to see it.
pub async fn refusal(response: Response<Incoming>) -> ApiError {
    let status = response.status();
    match Limited::new(response.into_body(), pods::REFUSAL).collect().await {
        Ok(body) => pods::agent_refused(status, &String::from_utf8_lossy(&body.to_bytes())),
        Err(error) => ApiError::internal(format!("read the agent's answer: {error}")),
    }
}

/// Encodes what may not stand in a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

pub async fn answer(server: &ApiServer, route: &Route, query: &Query) -> Result<Response<Body>, ApiError> {
    let pod = server.pod(route)?;
    let container = pods::container(&pod, query.get("container"))?;
    for name in ["tailLines", "sinceSeconds", "limitBytes"] {
        query.number(name)?;
    }
    let node = text(&pod, "/spec/nodeName");
    const PLAIN: &str = "text/plain; charset=utf-8";
    if node.is_empty() {
        return Ok(respond::response(StatusCode::OK, PLAIN, respond::full("")));
    }
    let parameters: Vec<String> =
        PARAMETERS.iter().filter_map(|name| Some(format!("{name}={}", encode(query.find(name)?)))).collect();
    let path =
        format!("/containerLogs/{}/{}/{container}?{}", route.namespace, route.name, parameters.join("&"));
    let mut agent = connect(server, node).await?;
    let request = Request::get(path)
        .header(header::HOST, "agent")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ApiError::internal(format!("ask the agent: {error}")))?;
    let response = agent
        .send_request(request)
        .await
        .map_err(|error| ApiError::internal(format!("ask the agent of node {node} for logs: {error}")))?;
    if response.status() != StatusCode::OK {
        let refused = refusal(response).await;
        return Err(waiting(&pod, &container).unwrap_or(refused));
    }
    let body = response.into_body().map_err(|error| -> Failure { Box::new(error) }).boxed_unsync();
    Ok(respond::response(StatusCode::OK, PLAIN, body))
}

/// Why a container that never ran has no logs, in the kubelet's words (`validateContainerLogStatus`).
fn waiting(pod: &Value, container: &str) -> Option<ApiError> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    let status = all.find(|status| status["name"] == container)?;
    let reason = status["state"]["waiting"]["reason"].as_str()?;
    if status["lastState"]["terminated"].is_object() {
        return None;
    }
    let why = match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    let name = text(pod, "/metadata/name");
    Some(ApiError::bad_request(format!(
        "container {} in pod {} is waiting to start: {why}",
        quote(container),
        quote(name)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_that_never_ran_says_what_it_waits_for() {
        let pod = |state: Value, last: Value| {
            json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
                {"name": "other"}, {"name": "a", "state": state, "lastState": last},
            ]}})
        };
        let table = [
            ("ErrImagePull", "image can't be pulled"),
            ("ImagePullBackOff", "trying and failing to pull image"),
            ("CreateContainerConfigError", "CreateContainerConfigError"),
        ];
        for (reason, words) in table {
            let error = waiting(&pod(json!({"waiting": {"reason": reason}}), json!({})), "a").unwrap();
            assert_eq!(error.message, format!("container \"a\" in pod \"p\" is waiting to start: {words}"));
            assert_eq!(error.code, 400);
        }
        // One that ran, or runs, has logs: the agent knows better why they cannot be had.
        let crashed =
            pod(json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"terminated": {"exitCode": 1}}));
        assert_eq!(waiting(&crashed, "a"), None);
        assert_eq!(waiting(&pod(json!({"running": {}}), json!({})), "a"), None);
        assert_eq!(waiting(&crashed, "missing"), None);
    }
}
