//! What completes the response to a request, whichever stage produces it: the headers that every response has, and a body
//! that no stage has read.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use jiff::Timestamp;

use super::admission::budget::reservation::CallerBudgets;
use super::admission::cors::Cors;
use super::admission::rate::Meter;
use super::cache::answer_cache::{CacheMark, FlightLead};
use super::connection::discard::{InboundBody, UnreadBody};
use super::headers::{self, REQUEST_ID, X_REQUEST_ID};
use super::response::body::ResponseBody;
use crate::refusal::{ANTHROPIC_VERSION, Shape};
use crate::short_value::number_value;

/// [`ANTHROPIC_VERSION`], which need not be parsed for each request.
static VERSION_HEADER: HeaderName = HeaderName::from_static(ANTHROPIC_VERSION);

/// How many tokens are left of the caller's budgets.
const X_BUDGET_REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-budget-remaining-tokens");

/// What completes the response to a request, whichever stage produces it.
pub(super) struct ResponseContext {
    pub(super) request_id: HeaderValue,
    pub(super) shape: Shape,
    origin: Option<HeaderValue>,
    /// What to know if the body is not read; `None` if it has arrived already.
    unread: Option<UnreadBody>,
    /// The request's body, until a stage reads it.
    pub(super) body: Option<InboundBody>,
    /// The caller's meter, once the caller is known.
    pub(super) meter: Option<Meter>,
    /// The caller's budgets, if they limit tokens.
    pub(super) budgets: Option<CallerBudgets>,
    /// Held for a job until its request is counted in a queue.
    pub(super) arrival_guard: Option<Box<dyn Send>>,
    /// The lead of the flight whose answer other requests may share, until its work begins.
    pub(super) lead: Option<FlightLead>,
    /// What the cache had for the request.
    pub(super) cache_mark: Option<CacheMark>,
}

impl ResponseContext {
    /// Remembers from a request what its response will need.
    pub(super) fn new(
        parts: &Parts,
        body: InboundBody,
        cors: &Cors,
        arrived: Timestamp,
        arrival_guard: Option<Box<dyn Send>>,
    ) -> Self {
        Self {
            request_id: headers::request_id(&parts.headers, arrived),
            shape: Shape::of(parts.uri.path(), headers::has_rare_header(&parts.headers, &VERSION_HEADER)),
            origin: cors.origin(&parts.headers),
            unread: matches!(body, InboundBody::Streamed(_)).then(|| UnreadBody::of(parts)),
            body: Some(body),
            meter: None,
            budgets: None,
            arrival_guard,
            lead: None,
            cache_mark: None,
        }
    }

    /// Adds the headers that every response has, and deals with a request body that no stage has read.
    pub(super) async fn complete(
        self: Box<Self>,
        mut response: Response<ResponseBody>,
        cors: &Cors,
    ) -> Response<ResponseBody> {
        drop((self.arrival_guard, self.lead));
        let headers = response.headers_mut();
        if self.shape == Shape::Anthropic {
            headers.insert(REQUEST_ID, self.request_id.clone());
        }
        headers.insert(X_REQUEST_ID, self.request_id);
        headers::prepare_stream(headers);
        cors.insert_headers(self.origin.as_ref(), headers);
        if let Some(mark) = self.cache_mark {
            mark.insert_headers(headers);
        }
        let shared_left = self.meter.as_ref().and_then(|meter| meter.share()?.tokens_left());
        if let Some(meter) = self.meter {
            meter.insert_headers(headers);
        }
        if let Some(left) = self.budgets.and_then(|budgets| budgets.tokens_left(Timestamp::now())) {
            let left = shared_left.map_or(left, |of_all| left.min(of_all));
            headers.insert(X_BUDGET_REMAINING_TOKENS, number_value(left));
        }
        if let (Some(body), Some(unread)) = (self.body, self.unread) {
            Box::pin(unread.discard_or_close(body, headers)).await;
        }
        response
    }
}
