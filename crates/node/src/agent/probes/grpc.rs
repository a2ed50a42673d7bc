//! gRPC: `grpc.health.v1.Health/Check` over plain HTTP/2 (kubelet `pkg/probe/grpc`). The two messages are one field each, so
//! they are written and read by hand.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout as within;

use super::{
    LONGEST_OUTPUT, PROBE_AGENT,
    once::{at, dial},
};

/// Codes of gRPC that have words of their own here.
const OK: u32 = 0;
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const UNIMPLEMENTED: u32 = 12;

/// Asks whether `service` serves; the error is what kubelet would say.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let address = at(host, port);
    let deadline = tokio::time::Instant::now() + timeout;
    let connected = match tokio::time::timeout_at(deadline, dial(host, port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("error: failed to connect service at {address:?}: {error}")),
        Err(_) => {
            return Err(format!(
                "timeout: failed to connect service {address:?} within {timeout:?}: context deadline exceeded"
            ));
        }
    };
    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
    let late = || format!("timeout: health rpc did not complete within {timeout:?}");
    match within(left, call(connected, &address, service)).await {
        Err(_) => Err(late()),
        Ok(Err(error)) => Err(format!("error: health rpc probe failed: {error}")),
        Ok(Ok(Answer::Refused { code: DEADLINE_EXCEEDED, .. })) => Err(late()),
        Ok(Ok(Answer::Refused { code: UNIMPLEMENTED, message })) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(Answer::Refused { code, message })) => Err(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            code_name(code)
        )),
        Ok(Ok(Answer::Status(1))) => Ok(()),
        Ok(Ok(Answer::Status(status))) => {
            Err(format!("service unhealthy (responded with {:?})", status_name(status)))
        }
    }
}

enum Answer {
    /// `HealthCheckResponse.status`.
    Status(u64),
    Refused {
        code: u32,
        message: String,
    },
}

async fn call(stream: tokio::net::TcpStream, address: &str, service: &str) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, PROBE_AGENT)
        .body(Full::new(Bytes::from(frame(service))))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        // An answer without a body says how it ended in its header.
        if let Some(refused) = refusal(&head.headers) {
            return Ok(refused);
        }
        if head.status != 200 {
            let message = format!("unexpected HTTP status code received from server: {}", head.status);
            return Ok(Answer::Refused { code: UNKNOWN, message });
        }
        let body = Limited::new(body, LONGEST_OUTPUT).collect().await.map_err(|error| error.to_string())?;
        if let Some(refused) = body.trailers().and_then(refusal) {
            return Ok(refused);
        }
        status(&body.to_bytes())
            .map(Answer::Status)
            .ok_or_else(|| "a malformed HealthCheckResponse".to_owned())
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

fn refusal(headers: &HeaderMap) -> Option<Answer> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?.parse().unwrap_or(UNKNOWN);
    let message = decoded(text("grpc-message").unwrap_or_default());
    (code != OK).then_some(Answer::Refused { code, message })
}

/// `grpc-message` is percent-encoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match encoded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `HealthCheckRequest { string service = 1 }` in gRPC's frame: not compressed, length, message.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// `HealthCheckResponse { ServingStatus status = 1 }`: 0 when the field is not there. None: no such message.
fn status(frame: &[u8]) -> Option<u64> {
    let (head, rest) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    let mut message = rest.get(..usize::try_from(length).ok()?).filter(|_| head[0] == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skip = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skip..)?;
    }
    Some(status)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn status_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        1 => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// As Go's gRPC prints its codes.
fn code_name(code: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|code| NAMES.get(code))
        .map_or_else(|| format!("Code({code})"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_framed_and_read() {
        assert_eq!(frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        for (bytes, expected) in [
            (&[0_u8, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            // An unknown field before it.
            (&[0, 0, 0, 0, 5, 0x12, 1, b'x', 8, 2], Some(2)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[], None),
        ] {
            assert_eq!(status(bytes), expected, "{bytes:?}");
        }
        assert_eq!(decoded("a%20b%zz%"), "a b%zz%");
    }

    proptest! {
        #[test]
        fn reading_an_answer_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            status(&bytes);
        }
    }
}
