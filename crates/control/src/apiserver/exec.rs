//! `pods/exec`, `attach` and `portforward`: the client's upgrade is handed to the node's agent as it is, and then bytes
//! are copied both ways. Which protocol they speak (WebSocket or SPDY) is between client and agent.

use std::sync::Arc;

use api::ApiError;
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use super::{
    ApiServer, User, logs, pods,
    request::{Query, Route},
    respond::{self, Body},
    text,
};
use crate::{
    admission::{self, Operation},
    apiserver::stored,
    audit::Record,
};

/// Whether a request's header is part of the upgrade.
fn is_passed_on(name: &HeaderName) -> bool {
    let text = name.as_str();
    name == header::UPGRADE
        || name == header::CONNECTION
        || text.starts_with("sec-websocket-")
        || text.starts_with("x-stream-protocol-version")
}

pub async fn answer(
    server: &ApiServer,
    route: &Route,
    query: &Query,
    user: &Arc<User>,
    mut request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let pod = server.pod(route)?;
    let record = request.extensions_mut().remove::<Arc<Record>>();
    let noted = admission::Audit::default();
    let admitted = admission::Request {
        operation: Operation::Connect,
        resource: stored(route.resource),
        subresource: route.subresource_name(),
        namespace: &route.namespace,
        name: &route.name,
        user,
        old: Some(&pod),
        store: &server.store,
        audit: &noted,
    };
    let verdict = admission::validate(&server.admission, &admitted, None, &mut Vec::new());
    if let Some(record) = &record {
        record.annotated(noted.take());
    }
    verdict?;
    let subresource = route.subresource_name();
    let phase = text(&pod, "/status/phase");
    if subresource != "portforward" && matches!(phase, "Succeeded" | "Failed") {
        return Err(ApiError::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let place = match subresource {
        "portforward" => format!("/portForward/{}/{}", route.namespace, route.name),
        subresource => {
            let container = pods::container(&pod, query.get("container"))?;
            format!("/{subresource}/{}/{}/{container}", route.namespace, route.name)
        }
    };
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", route.name)));
    }
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }

    let mut asked = Request::builder()
        .method(request.method().clone())
        .uri(format!("{place}?{}", request.uri().query().unwrap_or_default()))
        .header(header::HOST, "agent");
    for (name, value) in request.headers().iter().filter(|(name, _)| is_passed_on(name)) {
        asked = asked.header(name, value);
    }
    let asked = asked
        .body(Empty::<Bytes>::new())
        .map_err(|error| ApiError::internal(format!("ask the agent: {error}")))?;
    let mut agent = logs::connect(server, node).await?;
    let mut answer = agent.send_request(asked).await.map_err(|error| {
        ApiError::internal(format!("ask the agent of node {node} for {subresource}: {error}"))
    })?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(logs::refusal(answer).await);
    }
    let client = hyper::upgrade::on(&mut request);
    let agent = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        // The session's end is the request's.
        let _record = record;
        // Either side may go away at any time, which ends the other; there is nobody to tell.
        if let Ok((client, agent)) = futures::future::try_join(client, agent).await {
            let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
            drop(tokio::io::copy_bidirectional(&mut client, &mut agent).await);
        }
    });
    let mut response = Response::new(respond::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in answer.headers().iter().filter(|(name, _)| is_passed_on(name)) {
        response.headers_mut().append(name, value.clone());
    }
    Ok(response)
}
