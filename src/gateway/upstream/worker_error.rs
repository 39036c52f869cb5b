//! What a worker's error says, and what of it the client may see.
//!
//! Reads the beginning of an error before it is passed on: whose fault it is, and whether the backend lacks the route. An
//! error without a body gets one, and the key with which a remote backend was asked is taken out. `error_cause.rs` knows
//! the words; `forward.rs` acts on what they mean.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode, response};
use memchr::memmem;

use crate::dial::DialTarget;
use crate::fleet::WorkerKind;
use crate::gateway::bounds::{ERROR_BODY, ERROR_BODY_WAIT, LEAST_KEY_LENGTH};
use crate::gateway::headers;
use crate::gateway::response::error_cause::{self, ErrorCause};
use crate::gateway::response::upstream_body::UpstreamBody;
use crate::gateway::routes::route::Route;
use crate::pause_clock::ActiveInstant;
use crate::refusal::{Shape, SilentError, X_SHOULD_RETRY, body_of_backend_error, body_of_silent_error};

/// What stands in place of a backend's key.
const MASK: &[u8] = b"[api_key]";

/// The request that a worker has answered, as far as it matters for an error.
pub(super) struct Asked<'a> {
    pub(super) route: &'static Route,
    pub(super) target: &'a DialTarget,
    pub(super) kind: WorkerKind,
    /// Whether the gateway has asked for token counts by itself.
    pub(super) asks_for_usage: bool,
    pub(super) is_head: bool,
    /// Whether the worker certainly has the route, so that what is missing is its model.
    pub(super) has_route: bool,
    /// When the whole response must have arrived.
    pub(super) deadline: ActiveInstant,
}

/// What an error says. All is `false` or `None` for a response that is no error.
#[derive(Default)]
pub(super) struct WorkerError {
    /// Whose fault it is, and the worker's words for it.
    pub(super) cause: Option<(ErrorCause, String)>,
    /// What the worker says if it lacks the route, in words that the client could not read.
    pub(super) missing_route: Option<Option<String>>,
    /// Whether the status may mean that the worker lacks the route.
    pub(super) may_lack_route: bool,
    /// Whether the worker rejects the key that the gateway is configured with for it.
    pub(super) rejects_key: bool,
    /// Whether the worker objects to the question for token counts.
    pub(super) rejects_usage: bool,
}

impl WorkerError {
    /// Reads the beginning of a response if it is an error, and changes head and body to what the client may see.
    pub(super) async fn read(head: &mut response::Parts, body: &mut UpstreamBody, asked: &Asked<'_>) -> Self {
        BackendKey::of(asked.target).strip_headers(&mut head.headers);
        match head.status.is_client_error() || head.status.is_server_error() {
            // Boxed, because few responses are errors, and each request would carry its size.
            true => Box::pin(Self::read_error(head, body, asked)).await,
            false => Self::default(),
        }
    }

    async fn read_error(head: &mut response::Parts, body: &mut UpstreamBody, asked: &Asked<'_>) -> Self {
        let (status, key) = (head.status, BackendKey::of(asked.target));
        let may_lack_route = asked.kind != WorkerKind::Local
            && matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        // Of a llama-server's 4xx it only matters whether it has a body, unless that is put into another shape.
        let is_read =
            status.is_server_error() || asked.kind != WorkerKind::Local || asked.route.shape == Shape::Anthropic;
        let length = if is_read { ERROR_BODY } else { 1 };
        let deadline = asked.deadline.min(ActiveInstant::now() + ERROR_BODY_WAIT);
        let start = body.read_start(length, deadline).await;
        let masked = key.mask(&start);
        let quotes_key = masked.is_some();
        let words = masked.as_ref().unwrap_or(&start);
        let asks_to_wait = head.headers.contains_key(RETRY_AFTER);
        let found = Self {
            cause: error_cause::read(status, asks_to_wait, words).filter(|_| status.is_server_error()),
            missing_route: error_cause::missing_route(words).filter(|_| {
                let is_of_model = asked.has_route && words.trim_ascii_start().starts_with(b"{");
                may_lack_route && !is_of_model
            }),
            may_lack_route,
            rejects_key: asked.target.is_remote
                && (status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN && quotes_key),
            rejects_usage: asked.asks_for_usage
                && status == StatusCode::BAD_REQUEST
                && memmem::find(words, b"stream_options").is_some(),
        };
        match masked {
            Some(masked) if body.has_ended() => {
                headers::describe_replaced_body(&mut head.headers, masked.len());
                body.replace(masked);
            }
            // The rest of the body may have the key too.
            Some(_) => describe(head, body, asked, SilentError::HasSecret),
            None if body.is_known_empty() && !asked.is_head => describe(head, body, asked, SilentError::NoReason),
            None => {}
        }
        put_into_shape(head, body, asked);
        // As of the gateway's own 504: the repetition would be computed up to a limit again.
        if status == StatusCode::GATEWAY_TIMEOUT && !asked.route.is_idempotent {
            head.headers.entry(X_SHOULD_RETRY).or_insert(HeaderValue::from_static("false"));
        }
        found
    }
}

/// Puts an error of a backend that has OpenAI's shape, or none that is known, into Anthropic's where its client expects
/// that.
///
/// Needed with llama-server b11669, which answers `/v1/messages` in OpenAI's shape; and with remote backends whose servers
/// have errors of their own.
fn put_into_shape(head: &mut response::Parts, body: &mut UpstreamBody, asked: &Asked<'_>) {
    let whole = body.whole_start();
    if let Some(text) = whole.and_then(|text| body_of_backend_error(asked.route.shape, head.status, &text)) {
        headers::describe_replaced_body(&mut head.headers, text.len());
        body.replace(text);
    }
}

/// Gives an error a body in the shape that the client expects. Clients that read a reason from JSON would fail at none.
fn describe(head: &mut response::Parts, body: &mut UpstreamBody, asked: &Asked<'_>, why: SilentError) {
    let text = body_of_silent_error(head.status, asked.route.shape, why);
    headers::describe_json(&mut head.headers, text.len());
    body.replace(text);
}

/// The key with which a remote backend was asked. No client may see it, although backends repeat it in their errors.
struct BackendKey<'a>(Option<&'a [u8]>);

impl<'a> BackendKey<'a> {
    fn of(target: &'a DialTarget) -> Self {
        let authorization = target.authorization.as_ref().filter(|_| target.is_remote).map(HeaderValue::as_bytes);
        let key = authorization.map(|value| value.strip_prefix(b"Bearer ").unwrap_or(value));
        // A shorter one is no secret, and would be found in any text.
        Self(key.filter(|key| key.len() >= LEAST_KEY_LENGTH))
    }

    fn strip_headers(&self, headers: &mut HeaderMap) {
        let Some(key) = self.0 else { return };
        let quoting = headers.iter().filter(|(_, value)| memmem::find(value.as_bytes(), key).is_some());
        let quoting: Vec<_> = quoting.map(|(name, _)| name.clone()).collect();
        for name in quoting {
            headers.remove(name);
        }
    }

    /// Returns the text with [`MASK`] in place of the key; `None` if the key is not in it.
    fn mask(&self, text: &[u8]) -> Option<Bytes> {
        let key = self.0?;
        let (mut masked, mut at) = (Vec::new(), 0);
        for found in memmem::find_iter(text, key) {
            masked.extend_from_slice(&text[at..found]);
            masked.extend_from_slice(MASK);
            at = found + key.len();
        }
        (at > 0).then(|| {
            masked.extend_from_slice(&text[at..]);
            masked.into()
        })
    }
}
