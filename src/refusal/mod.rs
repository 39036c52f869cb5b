//! Every error that the gateway answers in its own name: one closed enum, one table.
//!
//! Owns how a row of the table becomes a response: body, headers, and the last event of a stream. Errors of
//! llama-server are passed through and never come here.
//!
//! - `shape.rs`: the two shapes in which clients expect errors
//! - `table.rs`: the refusals with status, type, code, message and `Retry-After`
//! - `testing.rs`: sample values for tests that need one refusal of each kind

mod shape;
mod table;
#[cfg(test)]
mod testing;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

pub use shape::{Shape, event_of_backend};
pub use table::{CODES, MODELS_NAMED, QUEUE_FULL, REPEATED_TEXT, Refusal};

use shape::error_event;

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
        let mut response = Response::new(Bytes::from(self.body(shape).to_string()));
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if row.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if row.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 15.5.2: a 401 must carry a challenge.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after() {
            // Whole seconds (RFC 9110, section 10.2.3), at least one: a client that is told 0 retries immediately.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        response
    }

    /// Returns the last event of a stream whose status has already been sent. No `[DONE]` follows it.
    pub fn event(&self, shape: Shape) -> Bytes {
        error_event(shape, &self.body(shape))
    }

    fn body(&self, shape: Shape) -> serde_json::Value {
        let row = self.row();
        let param = match self {
            Self::ModelNotFound { .. } | Self::ModelRemoved(_) | Self::WrongKind { .. } => Some("model"),
            _ => (row.status == StatusCode::UNAUTHORIZED).then_some("authorization"),
        };
        shape.error(row.status, row.kind, row.code, param, &self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn codes_are_stable_and_unique() {
        let codes: std::collections::BTreeSet<_> = Refusal::all().iter().map(Refusal::code).collect();
        // Three refusals share the code of another one: a backend that rejects the gateway's key, a model that has
        // failed for good, and a model that was removed.
        assert_eq!(codes.len(), Refusal::all().len() - 3);
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

    #[test]
    fn both_shapes_are_json_and_every_401_has_www_authenticate() {
        for refusal in Refusal::all() {
            for shape in [Shape::OpenAi, Shape::Anthropic] {
                let response = refusal.response(shape);
                let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
                assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string());
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
