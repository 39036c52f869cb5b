//! What the first stages of the pipeline make of a request.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response};

use super::admission::auth::Caller;
use super::queue::ticket::QueueEntry;
use super::request::body::RequestBody;
use super::request::envelope::Envelope;
use super::request::proxied_request::ProxiedRequest;
use super::response::line_stream::LineForm;
use super::response::local_answer::LocalAnswer;
use super::response::made::NextMade;
use super::response::shared::SharedAnswer;
use super::routes::route::Route;
use super::translation::DialectRequest;
use super::upstream::retry::Retry;
use crate::models::ModelKind;

/// What `prepare` makes of a request.
pub(super) enum PreparedRequest {
    /// The gateway answers the request itself.
    Answered(Response<Bytes>),
    /// The gateway answers the request itself, piece by piece.
    Made(Response<NextMade>),
    /// The answer is kept, or is on its way for an equal request. Boxed, because each request has room for any of these.
    Shared(Box<Response<SharedAnswer>>),
    /// The request has an entry in the queue of a model.
    Queued(Box<Queued>),
    /// The request is served by calls.
    Translated(Box<Translated>),
}

impl From<LocalAnswer> for PreparedRequest {
    fn from(answer: LocalAnswer) -> Self {
        match answer {
            LocalAnswer::Whole(response) => Self::Answered(response),
            LocalAnswer::Made(response) => Self::Made(response),
        }
    }
}

/// A request whose caller may make it. Its body is not read yet.
pub(super) struct Admitted {
    pub(super) route: &'static Route,
    /// The model that the path names.
    pub(super) deployment: Option<String>,
    pub(super) parts: Box<Parts>,
    pub(super) caller: Caller,
}

/// A request for a worker whose body has been read: owns what [`ReceivedRequest`] shows.
pub(super) struct RequestWithBody {
    pub(super) admitted: Admitted,
    pub(super) required_kind: Option<ModelKind>,
    pub(super) body: RequestBody,
    pub(super) envelope: Envelope,
    /// The model that the path or the body names.
    pub(super) requested_model: Option<Arc<str>>,
}

/// A request whose body has arrived, as the stages see it that decide what becomes of it.
#[derive(Clone, Copy)]
pub(super) struct ReceivedRequest<'a> {
    pub(super) route: &'static Route,
    pub(super) required_kind: Option<ModelKind>,
    pub(super) parts: &'a Parts,
    pub(super) envelope: &'a Envelope,
    pub(super) body: &'a RequestBody,
    /// The model's name as the client wrote it.
    pub(super) requested_model: Option<&'a str>,
}

/// A request that was read from its dialect, with what its calls need.
pub(super) struct Translated {
    pub(super) translation: DialectRequest,
    pub(super) required_kind: Option<ModelKind>,
    pub(super) parts: Box<Parts>,
    pub(super) body: RequestBody,
    pub(super) request_id: HeaderValue,
    /// The model that the path or the body names.
    pub(super) requested_model: Option<Arc<str>>,
    pub(super) caller: Caller,
    pub(super) arrival_guard: Option<Box<dyn Send>>,
}

/// A request with an entry in the queue of a model. It stays in its box through every later stage, which takes out what an
/// attempt holds and puts back what it leaves.
pub(super) struct Queued {
    pub(super) request: ProxiedRequest,
    pub(super) caller: Caller,
    pub(super) retry: Retry,
    pub(super) queue_entry: QueueEntry,
    /// The model's name that the response of the attempt must show, if the worker may use another.
    pub(super) shown_model: Option<String>,
    /// How a stream is written as lines, for a client of Ollama's API.
    pub(super) lines: Option<LineForm>,
}
