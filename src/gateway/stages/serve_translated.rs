//! Requests that are served by calls to workers: which these are, and how each call goes through stages 5 to 8 of the pipeline.
//!
//! Owns how the calls of one request share its record, its caller and its end. What is called, and what the answers mean,
//! is decided in `translation/`.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use crate::boxed::boxed;
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::prepared_request::{Queued, ReceivedRequest, Translated};
use crate::gateway::request::proxied_request::{ProxiedRequest, RequestRole};
use crate::gateway::response::body::ResponseBody;
use crate::gateway::service::Gateway;
use crate::gateway::translation::calls::{CallBody, CallContext, CallSender, Calls, CallsState, SentCall};
use crate::gateway::translation::keep_alive::KeptAlive;
use crate::gateway::translation::{self, DialectRequest, StreamedCall, tei_info};
use crate::models::ModelKind;
use crate::refusal::{Refusal, Shape};

impl Gateway {
    /// Reads a request in a dialect that is served by calls; `None` if it goes to a worker as it is. `shape` becomes that of
    /// the dialect's errors.
    ///
    /// # Errors
    /// The request is not as its dialect has it.
    pub(in crate::gateway) fn read_dialect(
        &self,
        request: &ReceivedRequest<'_>,
        caller: &Caller,
        shape: &mut Shape,
    ) -> Result<Option<DialectRequest>, Refusal> {
        let ReceivedRequest { route, required_kind, parts, envelope, body, requested_model } = *request;
        let needs_reading = || self.translates_embeddings(requested_model, required_kind, caller);
        DialectRequest::read(route, &parts.headers, (envelope, body), needs_reading, self.translation_limits, shape)
    }

    /// Returns whether requests for embeddings of the model with this name and kind have to be read even if a llama-server's
    /// answer to them would be right: the model has a default length of its vectors, or it, or one that may take over,
    /// has workers with other APIs.
    fn translates_embeddings(&self, name: Option<&str>, kind: Option<ModelKind>, caller: &Caller) -> bool {
        let snapshot = self.model_queues.snapshot();
        let Ok(found) = snapshot.resolve(name, kind, caller) else { return snapshot.has_other_embeddings() };
        let (model, info) = (&found.model, found.model.info());
        let may_move = info.pool.is_some() || !model.policy().fallbacks.is_empty();
        translation::changes_answers_of(&info)
            || model.has_other_embeddings()
            || may_move && snapshot.has_other_embeddings()
    }

    /// Serves a request in a dialect of its own by calls to workers, each of which goes through stages 5 to 8.
    pub(in crate::gateway) async fn serve_translated(
        self: &Arc<Self>,
        translated: Box<Translated>,
        mut record: Record,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        let Translated { translation, required_kind, parts, body, request_id, requested_model, caller, arrival_guard } =
            *translated;
        let table = self.model_queues.snapshot();
        // Clients of text-embeddings-inference name no model: they mean the one that `/info` describes.
        let requested_model = match translation.is_of_tokens() {
            true => requested_model.or_else(|| tei_info::default_model(&caller, &table).map(Arc::from)),
            false => requested_model,
        };
        let requested_model = match translation.is_of_ollama() {
            true => requested_model.as_deref().map(|name| table.without_default_tag(name)),
            false => requested_model.as_deref(),
        };
        let context =
            CallContext { parts: &parts, body: &body, request_id: &request_id, requested_model, required_kind };
        match translation.streamed_call(requested_model) {
            Ok(None) => {}
            Ok(Some(call)) => return self.serve_as_lines(call, &context, caller, arrival_guard, record).await,
            Err(refusal) => return Err((refusal, record)),
        }
        record.begin_calls();
        let queue = table.resolve(requested_model, required_kind, &caller).map(Arc::clone);
        let state = CallsState::new(arrival_guard);
        let calls = Calls { sender: self, caller: &caller, record: &record, context, queue, state };
        let answer = translation.answer(&calls).await;
        let headers = calls.into_headers();
        record.take_calls();
        match answer {
            Ok(text) => {
                record.status = Some(StatusCode::OK);
                let mut response = Response::new(ResponseBody::local(text, record));
                response.headers_mut().extend(headers);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(response)
            }
            Err(refusal) => {
                if !headers.is_empty() {
                    record.failure_headers.get_or_insert_with(|| Box::new(headers));
                }
                Err((refusal, record))
            }
        }
    }

    /// Serves a request of Ollama's API by one call, whose answer is passed on as lines while it comes.
    async fn serve_as_lines(
        self: &Arc<Self>,
        call: StreamedCall,
        context: &CallContext<'_>,
        caller: Caller,
        arrival_guard: Option<Box<dyn Send>>,
        mut record: Record,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        let StreamedCall { route, text, mut lines, keep_alive } = call;
        let request = match context.request(route, CallBody::Text(text), RequestRole::Whole, None).await {
            Ok(request) => request,
            Err(refusal) => return Err((refusal, record)),
        };
        let (retry, queue_entry) = match self.enqueue(&request, &caller, &mut record) {
            Ok(queued) => queued,
            Err(refusal) => return Err((refusal, record)),
        };
        drop(arrival_guard);
        if let Some(time) = keep_alive {
            lines.end_guard = Some(Arc::new(KeptAlive { model: Arc::clone(&retry.model_queue().model), time }));
        }
        let form = Some(lines.clone());
        let queued = boxed(|| Queued { request, caller, retry, queue_entry, shown_model: None, lines: form });
        let response = self.queue_and_forward(queued, record).await?;
        Ok(translation::as_lines(response, &lines).await)
    }
}

impl CallSender for Arc<Gateway> {
    fn send<'a>(
        &'a self,
        request: ProxiedRequest,
        caller: Caller,
        mut record: Record,
        arrival_guard: Option<Box<dyn Send>>,
    ) -> SentCall<'a> {
        Box::pin(async move {
            match self.enqueue(&request, &caller, &mut record) {
                Ok((retry, queue_entry)) => {
                    drop(arrival_guard);
                    let queued =
                        boxed(|| Queued { request, caller, retry, queue_entry, shown_model: None, lines: None });
                    self.queue_and_forward(queued, record).await
                }
                Err(refusal) => Err((refusal, record)),
            }
        })
    }
}
