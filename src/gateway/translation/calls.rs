//! The calls to workers that are made for one translated request.
//!
//! A call is a request like any other, from the queue on: it waits for a slot of its model, may be tried again, and is
//! counted by a record that adds to that of its request. Only the first one is charged as a request. What the calls ask
//! and what their answers mean is not known here.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;

use crate::fleet::Model;
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::bounds::{CALL_ANSWER, CALL_ANSWERS, CALLS_AT_ONCE, RETRY_AFTER_LONGEST, RETRY_AFTER_UNKNOWN};
use crate::gateway::queue::ModelQueue;
use crate::gateway::request::body::RequestBody;
use crate::gateway::request::envelope::Envelope;
use crate::gateway::request::proxied_request::{ProxiedRequest, RequestRole};
use crate::gateway::request::worker_call::{WorkerCall, WriteCall};
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::error_cause;
use crate::gateway::response::served_by::ServedBy;
use crate::gateway::routes::route::Route;
use crate::models::ModelKind;
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use crate::retry_after::retry_after;

/// The header in which text-embeddings-inference says how many tokens it has read.
const COMPUTE_TOKENS: &str = "x-compute-tokens";

/// The response to a call that is being sent.
pub(crate) type SentCall<'a> =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, (Refusal, Record)>> + Send + 'a>>;

/// Sends one call through the queue to a worker. The pipeline implements it.
pub(crate) trait CallSender: Sync {
    /// Sends the request and returns the response as soon as its head has arrived. `arrival_guard` is dropped once the
    /// request is in a queue.
    fn send<'a>(
        &'a self,
        request: ProxiedRequest,
        caller: Caller,
        record: Record,
        arrival_guard: Option<Box<dyn Send>>,
    ) -> SentCall<'a>;
}

/// The successful answer to a call.
pub(crate) struct CallAnswer {
    pub(crate) body: Bytes,
    /// Tokens that were read, if a header says it.
    pub(crate) tokens_of_header: Option<u64>,
    pub(crate) served_by: ServedBy,
}

/// A successful answer to a call, whose body is still to be read. It holds its slot until then.
pub(crate) struct OpenAnswer {
    pub(crate) body: ResponseBody,
    /// The tokens that a header says, if the worker says them there.
    pub(crate) tokens_of_header: Option<u64>,
    pub(crate) served_by: ServedBy,
}

/// What the calls of one request have in common.
pub(crate) struct Calls<'a, S> {
    pub(crate) sender: &'a S,
    pub(crate) caller: &'a Caller,
    pub(crate) record: &'a Record,
    pub(crate) context: CallContext<'a>,
    /// The queue of the model that the calls go to first, or why there is none.
    pub(crate) queue: Result<Arc<ModelQueue>, Refusal>,
    pub(crate) state: CallsState,
}

/// What a call has of the client's request.
pub(crate) struct CallContext<'a> {
    /// The head of the client's request.
    pub(crate) parts: &'a Parts,
    /// Its body, for its share of the buffer budget and its fingerprint.
    pub(crate) body: &'a RequestBody,
    pub(crate) request_id: &'a HeaderValue,
    /// The model that it names.
    pub(crate) requested_model: Option<&'a str>,
    /// The kind of model that the client's route needs.
    pub(crate) required_kind: Option<ModelKind>,
}

impl CallContext<'_> {
    /// Returns a call of the request by this route.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if the text is ambiguous.
    pub(crate) async fn request(
        &self,
        route: &'static Route,
        body: CallBody,
        role: RequestRole,
        shared_deadline: Option<Arc<OnceLock<ActiveInstant>>>,
    ) -> Result<ProxiedRequest, Refusal> {
        let (call, text) = match body {
            CallBody::Text(text) => (None, text),
            CallBody::Written(writer) => {
                let (call, text) = WorkerCall::new(writer, self.requested_model.unwrap_or_default());
                (Some(call), text)
            }
        };
        let body = self.body.with_pieces([Bytes::from(text)].into());
        Ok(ProxiedRequest {
            route,
            required_kind: self.required_kind,
            parts: Box::new(head_of_call(self.parts, route)),
            request_id: self.request_id.clone(),
            requested_model: self.requested_model.map(Arc::from),
            envelope: Envelope::of_json(&body).await?,
            body,
            role,
            only_model: None,
            call,
            shared_deadline,
        })
    }
}

/// What a call says.
pub(crate) enum CallBody {
    /// A JSON object in OpenAI's API.
    Text(Vec<u8>),
    /// Something that is written for the worker that gets it.
    Written(Arc<dyn WriteCall>),
}

/// What changes from call to call.
pub(crate) struct CallsState {
    /// Whether the request has been charged with a call.
    is_charged: AtomicBool,
    /// When `REQUEST_TIMEOUT` ends, which counts from the first attempt at the first call.
    deadline: Arc<OnceLock<ActiveInstant>>,
    /// Held until the first call is in a queue.
    arrival_guard: Mutex<Option<Box<dyn Send>>>,
    /// The headers of the last answer that name its model and its worker.
    headers: Mutex<HeaderMap>,
    answer_bytes: AnswerBytes,
}

/// Counts the bytes of the answers to the calls of one request.
#[derive(Default)]
pub(super) struct AnswerBytes(AtomicUsize);

impl CallsState {
    /// Returns the state before the first call, which is in a queue before `arrival_guard` is dropped.
    pub(crate) fn new(arrival_guard: Option<Box<dyn Send>>) -> Self {
        Self {
            is_charged: AtomicBool::new(false),
            deadline: Arc::default(),
            arrival_guard: Mutex::new(arrival_guard),
            headers: Mutex::default(),
            answer_bytes: AnswerBytes::default(),
        }
    }
}

impl<S: CallSender> Calls<'_, S> {
    /// Returns the model that the request names.
    pub(crate) fn requested_model(&self) -> Option<&str> {
        self.context.requested_model
    }

    /// Returns the model that the calls go to first; `None` if that cannot be told, which the first call will say.
    pub(crate) fn model(&self) -> Option<&Arc<Model>> {
        self.queue.as_ref().ok().map(|queue| &queue.model)
    }

    /// Returns how many calls are made at the same time: as many as a llama-server of the model has slots, and at most
    /// [`CALLS_AT_ONCE`]. Each waits in the queue for its turn, so no more than find a place there.
    pub(crate) fn at_once(&self) -> usize {
        let slots = self.model().and_then(|model| model.info().slots);
        let places = self.queue.as_ref().map_or(1, |queue| queue.queue.places());
        slots.unwrap_or(CALLS_AT_ONCE).min(CALLS_AT_ONCE).min(places.max(1))
    }

    /// Returns the model that the request means.
    ///
    /// # Errors
    /// There is none that the caller may use.
    pub(crate) fn find_model(&self) -> Result<&Arc<Model>, Refusal> {
        let model = &self.queue.as_ref().map_err(Clone::clone)?.model;
        self.caller.check_model_as(&model.info(), self.requested_model())?;
        Ok(model)
    }

    /// Sends a call to a worker by this route, and returns the whole answer.
    ///
    /// # Errors
    /// The refusal of any stage, or that of a worker's error (see [`error_of`]); [`Refusal::BadBackendAnswer`] for an
    /// answer of more than [`CALL_ANSWER`] bytes, or with which those of the request have more than [`CALL_ANSWERS`].
    pub(crate) async fn call(&self, route: &'static Route, body: CallBody) -> Result<CallAnswer, Refusal> {
        self.call_model(None, route, body).await
    }

    /// As [`Self::call`], but if a model is given, its workers alone are asked.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) async fn call_model(
        &self,
        only_model: Option<&str>,
        route: &'static Route,
        body: CallBody,
    ) -> Result<CallAnswer, Refusal> {
        let OpenAnswer { body, tokens_of_header, served_by } = self.open(only_model, route, body).await?;
        Ok(CallAnswer { body: self.read(body).await?, tokens_of_header, served_by })
    }

    /// Sends a call to a worker by this route, if a model is given to one of that, and returns its answer before it is read.
    ///
    /// # Errors
    /// As [`Calls::call`], but for the length of the answer.
    pub(crate) async fn open(
        &self,
        only_model: Option<&str>,
        route: &'static Route,
        body: CallBody,
    ) -> Result<OpenAnswer, Refusal> {
        // A call that needs no slot is not charged, and so does not count as the first.
        let is_first = route.needs_slot && !self.state.is_charged.swap(true, Ordering::Relaxed);
        let role = if is_first { RequestRole::FirstCall } else { RequestRole::LaterCall };
        // The wait for a slot after texts were counted is no part of it.
        let deadline = route.needs_slot.then(|| Arc::clone(&self.state.deadline));
        let mut request = self.context.request(route, body, role, deadline).await?;
        request.only_model = only_model.map(str::to_owned);
        let guard = self.state.arrival_guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut record = self.record.open_call();
        // Tokens that a worker does not report are estimated by it.
        record.bytes_in = request.body.length();
        let sent = self.sender.send(request, self.caller.for_call(), record, guard).await;
        self.check(sent.map_err(|(refusal, _)| refusal)?).await
    }

    /// Reads an answer to its end, which releases its slot.
    ///
    /// # Errors
    /// As [`Calls::call`].
    pub(crate) async fn read(&self, body: ResponseBody) -> Result<Bytes, Refusal> {
        read_answer(body, &self.state.answer_bytes).await
    }

    /// Returns the headers that say of the last answer which model and which worker gave it.
    pub(crate) fn into_headers(self) -> HeaderMap {
        self.state.headers.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a successful response, and the refusal for any other one.
    async fn check(&self, response: Response<ResponseBody>) -> Result<OpenAnswer, Refusal> {
        let (mut head, body) = response.into_parts();
        let named = |(name, value): (&http::HeaderName, &HeaderValue)| {
            name.as_str().starts_with("x-llamagate-").then(|| (name.clone(), value.clone()))
        };
        *self.state.headers.lock().unwrap_or_else(PoisonError::into_inner) =
            head.headers.iter().filter_map(named).collect();
        match (head.status.is_success(), head.extensions.remove::<ServedBy>()) {
            (true, Some(served_by)) => {
                let tokens = head.headers.get(COMPUTE_TOKENS).and_then(|tokens| tokens.to_str().ok()?.parse().ok());
                Ok(OpenAnswer { body, tokens_of_header: tokens, served_by })
            }
            (true, None) => Err(Refusal::Internal("a call was answered by no worker".to_owned())),
            (false, _) => Err(error_of(head.status, &head.headers, &self.read(body).await?)),
        }
    }
}

/// Returns the head of a call by this route: that of the client's request, with another path and without what described
/// its body.
fn head_of_call(client: &Parts, route: &'static Route) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri) = (Method::POST, Uri::from_static(route.path));
    parts.headers = client.headers.clone();
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, ACCEPT] {
        parts.headers.remove(name);
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts
}

/// Reads the body of an answer to its end, which releases its slot.
///
/// # Errors
/// The refusal for an answer that broke off; [`Refusal::BadBackendAnswer`] for one of more than [`CALL_ANSWER`] bytes, or
/// with which those that were `read` before have more than [`CALL_ANSWERS`].
pub(super) async fn read_answer(mut body: ResponseBody, read: &AnswerBytes) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|aborted| aborted.refusal())?.into_data() else { continue };
        if whole.len() + piece.len() > CALL_ANSWER {
            return Err(Refusal::BadBackendAnswer(format!("it has more than {CALL_ANSWER} bytes")));
        }
        if read.0.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > CALL_ANSWERS {
            return Err(Refusal::BadBackendAnswer(format!(
                "the answers to the parts of this request have more than {CALL_ANSWERS} bytes together: send fewer inputs at \
                 once"
            )));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Returns the refusal for a worker's error. Statuses that clients of these APIs act on stay: 404 (no such model), 413
/// (too long, in text-embeddings-inference) and 422 (in servers that check requests with pydantic); other errors that name
/// the request as their cause are 400. 424 is what text-embeddings-inference answers if its own backend fails.
pub(crate) fn error_of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let words = error_cause::words_of_error(body);
    let said = || words.clone().unwrap_or_else(|| format!("The backend answers {}", status.as_u16()));
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let wait = retry_after(headers, jiff::Timestamp::now(), RETRY_AFTER_LONGEST);
            Refusal::BackendUnavailable(wait.unwrap_or(RETRY_AFTER_UNKNOWN))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Refusal::BackendTimeout,
        StatusCode::NOT_IMPLEMENTED => Refusal::RouteNotAtBackend(words),
        StatusCode::NOT_FOUND => Refusal::NotAtBackend(said()),
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLongForBackend(said()),
        StatusCode::UNPROCESSABLE_ENTITY => Refusal::UnprocessableAtBackend(said()),
        status if status.is_client_error() && status != StatusCode::FAILED_DEPENDENCY => Refusal::RequestFault(said()),
        _ => words.map_or(Refusal::BackendError, Refusal::FailedBackend),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(status: u16, body: &str) -> Refusal {
        error_of(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    /// Regression: sixteen calls at the same time could hold a gigabyte.
    #[tokio::test]
    async fn the_answers_to_all_calls_of_a_request_have_a_bound_together() {
        let answer = || ResponseBody::unrecorded(Bytes::from_static(b"12345"));
        let read = AnswerBytes(AtomicUsize::new(CALL_ANSWERS - 12));
        assert_eq!(read_answer(answer(), &read).await.unwrap(), "12345");
        assert_eq!(read_answer(answer(), &read).await.unwrap(), "12345");
        let refused = read_answer(answer(), &read).await.unwrap_err();
        assert!(matches!(&refused, Refusal::BadBackendAnswer(why) if why.contains("fewer inputs")), "{refused:?}");
        assert_eq!(read_answer(answer(), &AnswerBytes::default()).await.unwrap(), "12345", "each request has its own");
    }

    #[test]
    fn the_words_of_a_workers_error_are_found_in_every_usual_shape() {
        for body in [
            r#"{"error":{"code":400,"message":"too long","type":"x"}}"#,
            r#"{"error":"too long","error_type":"Validation"}"#,
            r#"{"message":"too long"}"#,
            r#"{"detail":"too long"}"#,
            r#"{"detail":[{"loc":["body"],"msg":"too long"}]}"#,
        ] {
            assert_eq!(error(400, body), Refusal::RequestFault("too long".to_owned()), "{body}");
        }
    }

    #[test]
    fn statuses_that_clients_act_on_stay_and_others_become_the_nearest() {
        let body = r#"{"error":"w"}"#;
        let statuses =
            |given: &[u16]| given.iter().map(|given| error(*given, body).status().as_u16()).collect::<Vec<_>>();
        assert_eq!(statuses(&[400, 404, 413, 422]), [400, 404, 413, 422]);
        assert_eq!(statuses(&[402, 403, 409, 415, 451]), [400; 5]);
        assert_eq!(statuses(&[408, 504]), [504; 2]);
        assert_eq!(statuses(&[429, 503]), [503; 2]);
        assert_eq!(statuses(&[424, 500, 502, 507, 301]), [502; 5]);
        assert_eq!(statuses(&[501]), [404]);
        let all = [400, 404, 413, 422, 424, 500, 501];
        assert!(all.iter().all(|status| error(*status, body).to_string().ends_with('w')), "the words stay");
        assert_eq!(error(422, ""), Refusal::UnprocessableAtBackend("The backend answers 422".to_owned()));
        assert_eq!(error(500, ""), Refusal::BackendError);
    }

    #[test]
    fn a_busy_worker_says_when_to_come_back() {
        let wait = |headers: &[(http::HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            error_of(StatusCode::TOO_MANY_REQUESTS, &headers.collect(), b"{}")
        };
        assert_eq!(wait(&[]), Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN));
        let seven = Refusal::BackendUnavailable(Duration::from_secs(7));
        assert_eq!(wait(&[(http::header::RETRY_AFTER, "7")]), seven);
        let longest = Refusal::BackendUnavailable(RETRY_AFTER_LONGEST);
        assert_eq!(wait(&[(http::header::RETRY_AFTER, "999999")]), longest);
    }
}
