//! The response to a malformed request head: one whole HTTP/1.1 response, after which the connection is closed.
//!
//! It looks like any other refusal, with a request id and an access-log line. `connection/wire/` decides when to send
//! it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, ORIGIN};
use http::{HeaderValue, Method};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tracing::warn;

use super::accounting::record::{Accounting, Record};
use super::admission::cors::Cors;
use super::connection::handshake::begins_handshake;
use super::connection::head;
use super::headers::{self, X_REQUEST_ID};
use crate::refusal::{ANTHROPIC_VERSION, Refusal, Shape};
use crate::telemetry::throttled_warning::ThrottledWarning;

/// Written to the access log where a head does not show its method or path.
const UNKNOWN: &str = "-";

/// Returns the bytes of the response to `raw`, the part of the head that has arrived. The refusal is recorded in
/// `account`, with the address of the client; without one it is not, as on the health port.
pub(super) fn refusal_bytes(
    raw: &[u8],
    refusal: &Refusal,
    cors: &Cors,
    account: Option<(&Arc<Accounting>, IpAddr)>,
) -> Bytes {
    let request_id = headers::request_id_of_raw(raw);
    let (method, path) = head::method_and_path(raw);
    let has_version = head::header_values(raw, ANTHROPIC_VERSION).next().is_some();
    let shape = Shape::of(path.unwrap_or(UNKNOWN), has_version);
    let mut response = refusal.response(shape);
    let body = if method == Some(Method::HEAD) { Bytes::new() } else { response.body().clone() };
    let length = HeaderValue::from(response.body().len());
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(X_REQUEST_ID, request_id.clone());
    let origin = head::header_value(raw, ORIGIN.as_str()).and_then(|origin| HeaderValue::from_str(origin).ok());
    cors.insert_headers(origin.as_ref(), headers);
    if let Some(date) = date() {
        headers.insert(DATE, date);
    }
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        head::add_line(&mut bytes, name.as_str().as_bytes(), value.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    if let Some((accounting, client)) = account {
        let method = method.or_else(|| Method::from_bytes(UNKNOWN.as_bytes()).ok()).unwrap_or_default();
        let path = headers::logged_path_of_raw(raw, path.unwrap_or(UNKNOWN));
        let mut record = Record::open(Arc::clone(accounting), jiff::Timestamp::now(), request_id, method, path.into());
        record.client = Some(client);
        record.status = Some(refusal.status());
        record.code = Some(refusal.code());
        record.add_bytes_out(body.len());
        record.complete = true;
    }
    Bytes::from(bytes)
}

/// Warns of clients that begin a TLS handshake on a port without TLS, at most once a minute.
#[derive(Default)]
pub(super) struct HandshakeHint(Mutex<ThrottledWarning>);

impl HandshakeHint {
    /// Looks at the first bytes of a connection that was refused.
    pub(super) fn note(&self, raw: &[u8]) {
        if !begins_handshake(raw) {
            return;
        }
        if let Some(times) = self.0.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
            warn!(
                times,
                "a client speaks TLS to a port without it: use http://, or set TLS_CERT and TLS_KEY, or TLS_SELF_SIGNED=true"
            );
        }
    }
}

fn date() -> Option<HeaderValue> {
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).ok()?;
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::Origins;

    #[test]
    fn the_refusal_of_a_head_is_a_whole_response_in_the_clients_shape_with_its_id() {
        let raw = b"POST /v1/messages?x HTTP/1.1\r\nX-Request-Id: mine-1\r\n";
        let bytes = refusal_bytes(raw, &Refusal::RequestTimeout("x"), &Cors::new(&Origins::Any), None);
        let (head, body) = std::str::from_utf8(&bytes).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("\r\nx-request-id: mine-1") && head.contains("\r\nconnection: close"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(head.contains("\r\naccess-control-allow-origin: *\r\n"), "{head}");
        assert!(head.contains("\r\ndate: ") && head.contains(" GMT"), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["type"], "error");
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let bytes = refusal_bytes(
            b"HEAD /ping HTTP/1.1\r\n\r\n",
            &Refusal::BadRequest("x".into()),
            &Cors::new(&Origins::Off),
            None,
        );
        assert!(bytes.ends_with(b"\r\n\r\n"));
    }
}
