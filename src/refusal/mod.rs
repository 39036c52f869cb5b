//! Every error that the gateway answers in its own name: one closed enum, one table.
//!
//! Owns how a row of the table becomes a response: body, headers, and the last event of a stream. Errors of
//! llama-server are passed through and never come here, except for those that have no body.
//!
//! - `backend_errors.rs`: errors of backends in the shape that a client expects
//! - `bodies.rs`: the body of an error in each shape
//! - `shape.rs`: the shapes in which clients expect errors
//! - `table.rs`: the refusals with status, type, code, message, and whether and when to retry
//! - `testing.rs`: sample values for tests that need one refusal of each kind

mod backend_errors;
mod bodies;
mod shape;
mod table;
#[cfg(test)]
mod testing;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

pub use backend_errors::{body_of_backend_error, event_of_backend};
pub use shape::{ANTHROPIC_VERSION, Shape};
pub use table::{CODES, MODELS_NAMED, QUEUE_FULL, REPEATED_TEXT, Refusal};

use crate::short_value::number_value;
use bodies::{ErrorFacts, error_body};
use shape::error_event;
use table::RETRY_AFTER_LEAST;

/// Whether a client should repeat the request.
pub const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Headers of a refusal, with those that every response has: the map has room for them, and need not grow. No smaller map
/// holds as many, and one for more takes a block of memory that the allocator is slow with.
const REFUSAL_HEADERS: usize = 6;
/// Headers of a refusal that says when to come back, with those that a limited key gets.
const WAITING_REFUSAL_HEADERS: usize = 12;
/// `Retry-After` in milliseconds.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

impl Refusal {
    /// Creates a refusal for a request that cannot be understood, with the reason.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::BadRequest(reason.into())
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Returns the stable code that clients may act on.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// Returns the whole response.
    pub fn response(&self, shape: Shape) -> Response<Bytes> {
        let row = self.row();
        let mut response = Response::new(Bytes::from(self.body(shape)));
        *response.status_mut() = row.status;
        let wait = self.retry_after();
        let headers = response.headers_mut();
        headers.reserve(if wait.is_some() { WAITING_REFUSAL_HEADERS } else { REFUSAL_HEADERS });
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if row.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if row.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 15.5.2: a 401 must carry a challenge.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // OpenAI's and Anthropic's clients read this. Without it they repeat every 408, 409, 429 and 5xx.
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static(if row.should_retry { "true" } else { "false" }));
        match self {
            Self::UpgradeRequired => {
                // RFC 9110, section 15.5.22: a 426 names a protocol that would do.
                headers.insert(UPGRADE, HeaderValue::from_static("HTTP/2.0"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            }
            Self::UnsupportedContentEncoding { accepted, .. } => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            }
            _ => {}
        }
        if let Some(wait) = wait {
            let wait = if wait.is_zero() { RETRY_AFTER_LEAST } else { wait };
            // Whole seconds (RFC 9110, section 10.2.3), and for those clients the exact time.
            headers.insert(RETRY_AFTER, number_value(wait.as_secs_f64().ceil() as u64));
            headers.insert(RETRY_AFTER_MS, number_value(wait.as_micros().div_ceil(1000) as u64));
        }
        response
    }

    /// Returns the last event of a stream whose status has already been sent. No `[DONE]` follows it.
    pub fn event(&self, shape: Shape) -> Bytes {
        error_event(shape, self.body(shape))
    }

    fn body(&self, shape: Shape) -> String {
        let row = self.row();
        let param = match self {
            Self::InvalidParameter { field, .. } => Some(field.as_str()),
            Self::ModelNotFound { .. } | Self::ModelRemoved(_) | Self::WrongKind { .. } => Some("model"),
            _ => (row.status == StatusCode::UNAUTHORIZED).then_some("authorization"),
        };
        error_body(shape, &ErrorFacts { status: row.status, kind: row.kind, code: row.code, param, message: self })
    }
}

/// Why a client gets another body than that of a backend's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SilentError {
    /// The error has no body.
    NoReason,
    /// Its body has a secret in it, such as the key with which the backend was asked.
    HasSecret,
}

/// Returns the body for an error of a backend that was sent with this status.
pub fn body_of_silent_error(status: StatusCode, shape: Shape, why: SilentError) -> Bytes {
    let why = match why {
        SilentError::NoReason => "gave no reason",
        SilentError::HasSecret => "gave a reason with a secret in it, which is not shown",
    };
    let message = format!("The backend answered with status {} and {why}", status.as_u16());
    let (kind, code) = (table::kind_of(status), table::BACKEND_ERROR);
    Bytes::from(error_body(shape, &ErrorFacts { status, kind, code, param: None, message: &message }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn codes_are_stable_and_unique() {
        let codes: std::collections::BTreeSet<_> = Refusal::all().iter().map(Refusal::code).collect();
        // Twelve refusals share the code of another one: a backend that rejects the gateway's key, that fails, or whose
        // answer cannot be used, a model that has failed for good, one that is not loaded, one that was removed or
        // replaced, a request that the backend finds fault with or finds too long, a route or a model that it lacks, and
        // a host that a web page may have chosen.
        assert_eq!(codes.len(), Refusal::all().len() - 12);
        assert_eq!(Refusal::BackendRefusesKey.code(), Refusal::BackendError.code());
        let wait = Duration::from_secs(1);
        assert_eq!(Refusal::BackendFailed.code(), Refusal::BackendUnavailable(wait).code());
    }

    #[test]
    fn a_model_that_has_failed_for_good_gives_no_retry_after() {
        let response = Refusal::BackendFailed.response(Shape::OpenAi);
        assert_eq!((response.status(), response.headers().get(RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, None));
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        let response = Refusal::ModelLoading(Duration::from_millis(1_200)).response(Shape::OpenAi);
        assert_eq!(response.headers()["retry-after"], "2");
        let response = Refusal::ModelLoading(Duration::ZERO).response(Shape::OpenAi);
        assert_eq!(response.headers()["retry-after"], "1");
    }

    /// Regression: OpenAI's client repeated a 504, and each repetition was computed up to the time limit.
    #[test]
    fn every_refusal_says_whether_to_repeat_the_request_and_when() {
        for refusal in Refusal::all() {
            let response = refusal.response(Shape::OpenAi);
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            let should_retry = header("x-should-retry").unwrap() == "true";
            let has_wait = should_retry || matches!(refusal.code(), "key_suspended" | "budget_exceeded");
            assert_eq!(header("retry-after").is_some(), has_wait, "{refusal:?}");
            assert_eq!(header("retry-after-ms").is_some(), has_wait, "{refusal:?}");
            let expected = match (refusal.status().as_u16(), refusal.code()) {
                (_, "key_suspended" | "budget_exceeded") => false,
                (408 | 429, _) => true,
                (502, "backend_error") => matches!(refusal, Refusal::BackendError | Refusal::FailedBackend(_)),
                (503, _) => !matches!(refusal, Refusal::BackendFailed | Refusal::ModelNotLoaded(_)),
                _ => false,
            };
            assert_eq!(should_retry, expected, "{refusal:?}");
        }
        for (wait, seconds, millis) in
            [(0, "1", "1000"), (1, "1", "1"), (1_200_000, "2", "1200"), (999_001, "1", "1000")]
        {
            let response = Refusal::QueueFull(Duration::from_micros(wait)).response(Shape::OpenAi);
            assert_eq!(response.headers()["retry-after"], seconds);
            assert_eq!(response.headers()["retry-after-ms"], millis, "{wait} microseconds");
        }
    }

    #[test]
    fn all_shapes_are_json_and_every_401_has_www_authenticate() {
        for refusal in Refusal::all() {
            let message = refusal.to_string();
            for shape in [Shape::OpenAi, Shape::Anthropic, Shape::Retrieval, Shape::Voyage, Shape::Tei, Shape::Ollama] {
                let response = refusal.response(shape);
                let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
                match shape {
                    Shape::Tei | Shape::Ollama => assert_eq!(body["error"], message),
                    Shape::Voyage => assert_eq!(body, serde_json::json!({"detail": message})),
                    _ => assert!(body["error"]["message"] == message && body["error"]["type"].is_string(), "{body}"),
                }
                if shape == Shape::Retrieval {
                    assert_eq!((&body["message"], &body["detail"]), (&body["error"]["message"], &body["message"]));
                }
                assert_eq!(response.headers().contains_key("www-authenticate"), response.status() == 401);
            }
        }
    }

    #[test]
    fn a_stream_ends_with_an_error_event_in_the_clients_own_shape() {
        assert!(Refusal::BackendError.event(Shape::OpenAi).starts_with(b"data: {\"error\":"));
        assert!(Refusal::BackendError.event(Shape::Anthropic).starts_with(b"event: error\ndata: {"));
    }

    #[test]
    fn the_list_of_codes_is_that_of_the_refusals() {
        let listed: Vec<_> = Refusal::all().iter().map(|refusal| (refusal.status().as_u16(), refusal.code())).collect();
        assert_eq!(listed, CODES);
    }
}
