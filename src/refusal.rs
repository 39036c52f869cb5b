//! Every answer that the gateway gives in its own name: one closed enum, one table (contract, section 4).
//!
//! Owns status, type, code, words and headers of an error. How either kind of client reads it is `refusal/shape.rs`'s.
//! Errors that llama-server gives are passed on and never come here.

mod shape;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use shape::error_event;
pub use shape::{Shape, event_of_backend};
use std::fmt;
use std::time::Duration;

/// Most models that an error names.
pub const MODELS_NAMED: usize = 50;

/// Longest part of a client's own text that an error repeats, in characters.
pub const REPEATED_TEXT: usize = 128;

/// The code of [`Refusal::QueueFull`].
pub const QUEUE_FULL: &str = "queue_full";

/// Why the gateway does not pass a request on, or cannot finish an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The request cannot be understood; says why.
    BadRequest(String),
    /// No key was sent.
    MissingKey,
    /// The key is not one of ours.
    InvalidKey,
    /// The key was one of ours until it expired.
    ExpiredKey,
    /// The key lacks the scope named.
    ScopeRequired(&'static str),
    /// The key may not use the model named.
    ModelNotAllowed(String),
    /// There is no model of this name; says which the key may use.
    ModelNotFound {
        /// What was asked for, if anything was.
        name: Option<String>,
        /// The ids of those that there are.
        known: Vec<String>,
        /// Whether the query is where it would be named.
        in_query: bool,
    },
    /// The model of this id was taken out of the configuration, and its requests had their time to be finished.
    ModelRemoved(String),
    /// The model is not of the kind that the route needs.
    WrongKind {
        /// Its id.
        model: String,
        /// What it is for.
        is: &'static str,
        /// What the route is for.
        needs: &'static str,
    },
    /// No such route, or not with this method.
    RouteNotFound,
    /// The client was too slow to send its request.
    RequestTimeout,
    /// The body is larger than so many bytes.
    PayloadTooLarge(usize),
    /// The request line is longer than so many bytes.
    UriTooLong(usize),
    /// The head has more lines, a longer line or more bytes than allowed; says which.
    HeaderFieldsTooLarge(String),
    /// The key, or the client's address, has to wait so long for its next request; says for what.
    RateLimited(&'static str, Duration),
    /// So many requests wait already; a place is free again in about this time.
    QueueFull(Duration),
    /// The request has waited as long as it may.
    QueueTimeout(Duration),
    /// The model is being loaded.
    ModelLoading(Duration),
    /// No backend can take the request now.
    BackendUnavailable(Duration),
    /// All backends of the model have failed for good.
    BackendFailed,
    /// The service is being stopped.
    ShuttingDown(Duration),
    /// The backend broke the connection.
    BackendError,
    /// The backend does not take the key that the gateway was given for it.
    BackendRefusesKey,
    /// The backend died each time it served this request.
    RequestKillsBackend,
    /// The backend took too long.
    BackendTimeout,
    /// Something in the gateway itself failed; says what, for the operator's own routes.
    Internal(String),
}

/// One row of the table of errors.
struct Row {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    /// Whether the connection ends with the answer, because the rest of the request was not read.
    closes: bool,
}

impl Refusal {
    /// Refuses a request that cannot be understood, for this reason.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::BadRequest(reason.into())
    }

    fn row(&self) -> Row {
        let row = |status, kind, code| Row { status, kind, code, closes: false };
        let closing = |status, kind, code| Row { status, kind, code, closes: true };
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::BadRequest(_) => closing(StatusCode::BAD_REQUEST, INVALID, "bad_request"),
            Self::MissingKey => row(StatusCode::UNAUTHORIZED, INVALID, "missing_api_key"),
            Self::InvalidKey => row(StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key"),
            Self::ExpiredKey => row(StatusCode::UNAUTHORIZED, INVALID, "api_key_expired"),
            Self::ScopeRequired(_) => row(StatusCode::FORBIDDEN, "permission_error", "scope_required"),
            Self::ModelNotAllowed(_) => row(StatusCode::FORBIDDEN, "permission_error", "model_not_allowed"),
            Self::ModelNotFound { .. } | Self::ModelRemoved(_) => {
                row(StatusCode::NOT_FOUND, INVALID, "model_not_found")
            }
            Self::WrongKind { .. } => row(StatusCode::BAD_REQUEST, INVALID, "wrong_model_kind"),
            Self::RouteNotFound => row(StatusCode::NOT_FOUND, INVALID, "route_not_found"),
            Self::RequestTimeout => closing(StatusCode::REQUEST_TIMEOUT, "timeout_error", "request_timeout"),
            Self::PayloadTooLarge(_) => closing(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "payload_too_large"),
            Self::UriTooLong(_) => closing(StatusCode::URI_TOO_LONG, INVALID, "uri_too_long"),
            Self::HeaderFieldsTooLarge(_) => {
                closing(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID, "header_fields_too_large")
            }
            Self::RateLimited(..) => row(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded"),
            Self::QueueFull(_) => row(StatusCode::SERVICE_UNAVAILABLE, "server_error", QUEUE_FULL),
            Self::QueueTimeout(_) => row(StatusCode::SERVICE_UNAVAILABLE, "server_error", "queue_timeout"),
            Self::ModelLoading(_) => row(StatusCode::SERVICE_UNAVAILABLE, "server_error", "model_loading"),
            Self::BackendUnavailable(_) | Self::BackendFailed => {
                row(StatusCode::SERVICE_UNAVAILABLE, "server_error", "backend_unavailable")
            }
            Self::ShuttingDown(_) => closing(StatusCode::SERVICE_UNAVAILABLE, "server_error", "shutting_down"),
            Self::BackendError | Self::BackendRefusesKey => {
                row(StatusCode::BAD_GATEWAY, "server_error", "backend_error")
            }
            Self::RequestKillsBackend => row(StatusCode::BAD_GATEWAY, "server_error", "request_kills_backend"),
            Self::BackendTimeout => row(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "backend_timeout"),
            Self::Internal(_) => row(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error"),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The stable code that clients may act on.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(_, wait)
            | Self::QueueFull(wait)
            | Self::QueueTimeout(wait)
            | Self::ModelLoading(wait)
            | Self::BackendUnavailable(wait)
            | Self::ShuttingDown(wait) => Some(*wait),
            _ => None,
        }
    }

    /// The whole answer.
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
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after() {
            // Whole seconds, at least one: a client that is told 0 comes back at once.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        response
    }

    /// The last event of a stream whose status has already gone out. No `[DONE]` follows it.
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

/// The beginning of a client's text.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REPEATED_TEXT).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) => write!(f, "Bad request: {why}"),
            Self::MissingKey => f.write_str("No API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"),
            Self::InvalidKey => f.write_str("Invalid API key"),
            Self::ExpiredKey => f.write_str("This API key has expired"),
            Self::ScopeRequired(scope) => write!(f, "This needs an API key with the scope '{scope}'"),
            Self::ModelNotAllowed(model) => write!(f, "This API key may not use the model '{model}'"),
            Self::ModelNotFound { name, known, in_query } => {
                match name {
                    None if *in_query => f.write_str("The request names no model: name one with ?model=ID")?,
                    Some(name) => write!(f, "The model '{}' does not exist", printable(name))?,
                    None => f.write_str("The request names no model")?,
                }
                match known.len() {
                    0 => Ok(()),
                    count if count > MODELS_NAMED => {
                        let more = count - MODELS_NAMED;
                        write!(f, "; known are: {} and {more} more", known[..MODELS_NAMED].join(", "))
                    }
                    _ => write!(f, "; known are: {}", known.join(", ")),
                }
            }
            Self::ModelRemoved(model) => write!(f, "The model '{model}' is no longer served"),
            Self::WrongKind { model, is, needs } => {
                write!(f, "The model '{model}' is for {is}, and this route is for {needs}")
            }
            Self::RouteNotFound => f.write_str("No such route, or not with this method"),
            Self::RequestTimeout => f.write_str("The request took too long to arrive"),
            Self::PayloadTooLarge(limit) => write!(f, "The request body is larger than {limit} bytes"),
            Self::UriTooLong(limit) => write!(f, "The request line is longer than {limit} bytes"),
            Self::HeaderFieldsTooLarge(what) => write!(f, "The request head is too large: {what}"),
            Self::RateLimited(what, _) => write!(f, "Rate limit reached for {what}, try again later"),
            Self::QueueFull(_) => f.write_str("Too many requests are waiting, try again later"),
            Self::QueueTimeout(_) => f.write_str("The request has waited too long for its turn, try again later"),
            Self::ModelLoading(_) => f.write_str("The model is being loaded, try again later"),
            Self::BackendUnavailable(_) => f.write_str("No backend can take the request now, try again later"),
            Self::BackendFailed => f.write_str(
                "The model has failed and is not tried again before POST /v1/models/{id}/load asks for it, or a restart",
            ),
            Self::ShuttingDown(_) => f.write_str("The service is shutting down"),
            Self::BackendError => f.write_str("The backend ended the connection before its answer was complete"),
            Self::BackendRefusesKey => f.write_str("The backend does not accept the gateway's key"),
            Self::RequestKillsBackend => f.write_str(
                "The backend died each time it served this request, so it is not tried again for some minutes",
            ),
            Self::BackendTimeout => f.write_str("The backend took too long to answer"),
            Self::Internal(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Refusal> {
        let wait = Duration::from_millis(1_200);
        vec![
            Refusal::BadRequest("x".into()),
            Refusal::MissingKey,
            Refusal::InvalidKey,
            Refusal::ExpiredKey,
            Refusal::ScopeRequired("admin"),
            Refusal::ModelNotAllowed("m".into()),
            Refusal::ModelNotFound { name: Some("x".into()), known: vec!["m".into()], in_query: false },
            Refusal::ModelRemoved("m".into()),
            Refusal::WrongKind { model: "m".into(), is: "chat", needs: "rerank" },
            Refusal::RouteNotFound,
            Refusal::RequestTimeout,
            Refusal::PayloadTooLarge(1),
            Refusal::UriTooLong(1),
            Refusal::HeaderFieldsTooLarge("x".into()),
            Refusal::RateLimited("x", wait),
            Refusal::QueueFull(wait),
            Refusal::QueueTimeout(wait),
            Refusal::ModelLoading(wait),
            Refusal::BackendUnavailable(wait),
            Refusal::BackendFailed,
            Refusal::ShuttingDown(wait),
            Refusal::BackendError,
            Refusal::BackendRefusesKey,
            Refusal::RequestKillsBackend,
            Refusal::BackendTimeout,
            Refusal::Internal("x".into()),
        ]
    }

    #[test]
    fn codes_are_stable_and_unique() {
        let codes: std::collections::BTreeSet<_> = all().iter().map(Refusal::code).collect();
        // Details of an error are not: a backend's trouble with our key, that it will not come back by itself, that a
        // model was there once.
        assert_eq!(codes.len(), all().len() - 3);
        assert_eq!(Refusal::BackendRefusesKey.code(), Refusal::BackendError.code());
        let wait = Duration::from_secs(1);
        assert_eq!(Refusal::BackendFailed.code(), Refusal::BackendUnavailable(wait).code());
    }

    #[test]
    fn nobody_is_told_when_to_come_back_to_what_does_not_come_back_by_itself() {
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
    fn both_shapes_are_json_and_every_401_says_how_to_authenticate() {
        for refusal in all() {
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
}
