//! READ THIS FIRST: what happens to a request, from top to bottom.
//!
//! Each stage returns what the next one needs, or a [`Refusal`] that ends the request. No stage goes back to an earlier
//! one, except that a failed attempt returns to a queue. What the stages use is in `service.rs`.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use jiff::Timestamp;

use super::accounting::record::Record;
use super::admission::auth::{Caller, RequestSource};
use super::admission::rate::Meter;
use super::cache::answer_cache::FlightLead;
use super::connection::discard::InboundBody;
use super::connection::handshake::ClientCertificate;
use super::headers;
use super::prepared_request::{Admitted, PreparedRequest, Queued, ReceivedRequest, RequestWithBody, Translated};
use super::queue::ticket::QueueEntry;
use super::request::body::{self, arriving_body};
use super::request::envelope::Envelope;
use super::request::parameters;
use super::request::proxied_request::{ProxiedRequest, RequestRole, requested_model};
use super::response::body::ResponseBody;
use super::response::heartbeat;
use super::response::shared::SharedAnswer;
use super::response_context::ResponseContext;
use super::routes::route::RouteTarget;
use super::service::Gateway;
use super::stages::own_answers::OwnRequest;
use super::translation::{self, DialectRequest};
use super::upstream::attempt::Attempt;
use super::upstream::forward::OutgoingRequest;
use super::upstream::retry::{self, Retry};
use crate::boxed::{boxed, boxed_future};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::Refusal;

impl Gateway {
    /// Answers one request on the gateway port, which arrived on a connection of this peer.
    pub fn serve(
        self: Arc<Self>,
        request: Request<InboundBody>,
        peer: IpAddr,
    ) -> Pin<Box<impl Future<Output = Response<ResponseBody>> + Send + use<>>> {
        let client = self.client_addresses.of(request.headers(), peer);
        self.respond(request, RequestSource::Client(client), None)
    }

    /// Answers one job from the queue of the platform with this name; records name the platform in place of a key.
    /// `arrival_guard` is dropped once [`Gateway::job_capacity`] counts the request, or never will.
    pub async fn serve_job(
        self: &Arc<Self>,
        request: Request<Bytes>,
        platform: &'static str,
        arrival_guard: impl Send + 'static,
    ) -> Response<ResponseBody> {
        let request = request.map(InboundBody::Job);
        let source = RequestSource::Platform(platform);
        Arc::clone(self).respond(request, source, Some(Box::new(arrival_guard))).await
    }

    /// Opens the record of a request. Returns the future that runs all stages. Boxed, because it is some kilobytes large
    /// and is moved several times.
    fn respond(
        self: Arc<Self>,
        request: Request<InboundBody>,
        source: RequestSource,
        arrival_guard: Option<Box<dyn Send>>,
    ) -> Pin<Box<impl Future<Output = Response<ResponseBody>> + Send + use<>>> {
        let (parts, body) = request.into_parts();
        let parts = boxed(|| parts);
        let arrived = Timestamp::now();
        let context = boxed(|| ResponseContext::new(&parts, body, &self.cors, arrived, arrival_guard));
        let path = headers::logged_path(&parts.headers, parts.uri.path());
        let (id, method) = (context.request_id.clone(), parts.method.clone());
        let mut record = Record::open(Arc::clone(&self.accounting), arrived, id, method, path);
        record.client = match source {
            RequestSource::Client(client) => Some(client.address),
            RequestSource::Platform(_) => None,
        };
        record.certificate = parts.extensions.get::<ClientCertificate>().map(|shown| Arc::clone(&shown.0));
        record.begin_trace(&parts.headers);
        boxed_future(|| self.run_stages(parts, source, record, context))
    }

    /// Runs all stages, and turns a refusal into a response.
    async fn run_stages(
        self: Arc<Self>,
        parts: Box<Parts>,
        source: RequestSource,
        mut record: Record,
        mut context: Box<ResponseContext>,
    ) -> Response<ResponseBody> {
        let outcome = match self.prepare(parts, source, &mut record, &mut context).await {
            Ok(PreparedRequest::Answered(response)) => {
                record.status = Some(response.status());
                Ok(response.map(|body| ResponseBody::local(body, record)))
            }
            Ok(PreparedRequest::Made(response)) => {
                record.status = Some(response.status());
                Ok(response.map(|next| ResponseBody::made(next, record, &self.forwarder.sweeper)))
            }
            Ok(PreparedRequest::Shared(response)) => {
                record.status = Some(response.status());
                Ok((*response).map(|answer| ResponseBody::shared(answer, Some(record), &self.forwarder.sweeper)))
            }
            Ok(PreparedRequest::Queued(queued)) => self.serve_queued(queued, record, context.lead.take()).await,
            Ok(PreparedRequest::Translated(translated)) => {
                let (lead, shape) = (context.lead.take(), context.shape);
                Box::pin(self.serve_translated_as_lead(translated, record, lead, shape)).await
            }
            Err(refusal) => Err((refusal, record)),
        };
        let response = outcome.unwrap_or_else(|(refusal, mut record)| {
            record.status = Some(refusal.status());
            record.code = Some(refusal.code());
            retry::refusal_response(&refusal, context.shape, &mut record).map(|body| ResponseBody::local(body, record))
        });
        context.complete(response, &self.cors).await
    }

    /// The stages before the wait for a slot.
    async fn prepare(
        &self,
        parts: Box<Parts>,
        source: RequestSource,
        record: &mut Record,
        context: &mut ResponseContext,
    ) -> Result<PreparedRequest, Refusal> {
        // Stage 1, limits: a head that is too large, or a body that announces too large a length, is never read.
        body::check_head(&parts, &self.head_limits)?;
        body::check_content_length(&parts.headers, &self.body_limits)?;
        if parts.method == Method::OPTIONS && self.cors.is_enabled() {
            return Ok(PreparedRequest::Answered(self.cors.preflight(&parts.headers)));
        }
        // Stages 2 and 3, route and authentication.
        let mut admitted = self.admit(parts, source, record, context)?;
        let route = admitted.route;
        // Downloads are told of while the start waits for one.
        if matches!(route.target, RouteTarget::Models(_) | RouteTarget::Worker(_)) {
            self.model_queues.models_known().await?;
        }
        let RouteTarget::Worker(required_kind) = route.target else {
            let Admitted { parts, caller, .. } = &admitted;
            let own = OwnRequest { route, parts, body: &mut context.body, caller, record };
            return Ok(Box::pin(self.answer_itself(own)).await?.into());
        };
        // Stage 4, body: what can be refused without it is refused before it is read, at no cost to either side.
        self.check_before_body(route, required_kind, source, &mut admitted.caller, record)?;
        // In a block, so that the future has no room for the codings later.
        let body = {
            let codings = body::take_request_codings(&mut admitted.parts.headers)?;
            arriving_body::read_body(context.body.take(), route, &codings, &self.body_limits).await?
        };
        record.bytes_in = body.length();
        // Stage 5, model, cache and queue.
        let envelope = Envelope::read(route.path, &admitted.parts.headers, &body).await?;
        let named_model = requested_model(&envelope, &admitted.parts)?;
        // An empty name is none.
        let requested_model = admitted.deployment.take().map(Arc::from).or(named_model).filter(|name| !name.is_empty());
        if let Some(name) = requested_model.as_deref() {
            self.model_queues.scan_for(Some(name)).await;
        }
        let received = ReceivedRequest {
            route,
            required_kind,
            parts: &admitted.parts,
            envelope: &envelope,
            body: &body,
            requested_model: requested_model.as_deref(),
        };
        context.budgets = self.book(&received, &mut admitted.caller, record)?;
        if self.shares_limits {
            Box::pin(self.take_shared(route, &admitted.caller, record)).await?;
        }
        // An answer that is kept, or on its way for an equal request, needs no slot and no worker.
        if let Some(cache) = &self.cache
            && let Some(found) =
                Box::pin(self.answer_from_cache(cache, &received, &admitted.caller, context, record)).await?
        {
            let shared = found.map(|source| SharedAnswer { source, caller: Some(admitted.caller) });
            return Ok(PreparedRequest::Shared(Box::new(shared)));
        }
        let translation = self.read_dialect(&received, &admitted.caller, &mut context.shape)?;
        let request = RequestWithBody { admitted, required_kind, body, envelope, requested_model };
        self.enqueue_or_translate(request, translation, record, context)
    }

    /// Enters the queue of the model that a request means, or leaves it to calls if it was read from a dialect.
    fn enqueue_or_translate(
        &self,
        request: RequestWithBody,
        translation: Option<DialectRequest>,
        record: &mut Record,
        context: &mut ResponseContext,
    ) -> Result<PreparedRequest, Refusal> {
        let RequestWithBody { admitted, required_kind, body, envelope, requested_model } = request;
        let Admitted { route, mut parts, caller, .. } = admitted;
        let request_id = context.request_id.clone();
        if let Some(translation) = translation {
            let arrival_guard = context.arrival_guard.take();
            return Ok(PreparedRequest::Translated(boxed(|| Translated {
                translation,
                required_kind,
                parts,
                body,
                request_id,
                requested_model,
                caller,
                arrival_guard,
            })));
        }
        let route = translation::meant_route(route, &envelope, &mut parts.uri)?;
        if self.checks_parameters {
            parameters::check(route, &envelope, &body)?;
        }
        let request = ProxiedRequest {
            route,
            required_kind,
            parts,
            request_id,
            requested_model,
            envelope,
            body,
            role: RequestRole::Whole,
            only_model: None,
            call: None,
            shared_deadline: None,
        };
        let (retry, queue_entry) = self.enqueue(&request, &caller, record)?;
        context.arrival_guard = None;
        let queued = boxed(|| Queued { request, caller, retry, queue_entry, shown_model: None, lines: None });
        Ok(PreparedRequest::Queued(queued))
    }

    /// Finds the model of a request, and enters its queue.
    pub(super) fn enqueue(
        &self,
        request: &ProxiedRequest,
        caller: &Caller,
        record: &mut Record,
    ) -> Result<(Retry, QueueEntry), Refusal> {
        let (retry, queue_entry) = Retry::enqueue(self.retry_policy, &self.model_queues, request, caller, record)?;
        record.begin_wait();
        record.activity_guard = request.route.is_post().then(|| self.activity.begin());
        // With MOCK_BACKEND no model has a worker: keys and limits are checked, and nothing is forwarded.
        match retry.model_queue().model.has_worker() {
            true => Ok((retry, queue_entry)),
            false => Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)),
        }
    }

    /// Stages 6 to 8 with heartbeats (`SSE_HEARTBEAT`) for a client that asked for a stream and has to wait for it.
    async fn serve_queued(
        self: &Arc<Self>,
        queued: Box<Queued>,
        record: Record,
        lead: Option<FlightLead>,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        let Queued { request, retry, queue_entry, .. } = &*queued;
        let (route, model) = (request.route, &retry.model_queue().model);
        let has_to_wait =
            || queue_entry.is_waiting() || request.fingerprint().is_some_and(|one| model.is_suspected(one));
        let asks_for_stream = route.may_stream && request.envelope.stream() == Some(true);
        let heartbeat = self.heartbeat.filter(|_| asks_for_stream && has_to_wait());
        if heartbeat.is_none() && lead.is_none() {
            return boxed_future(|| self.queue_and_forward(queued, record)).await;
        }
        let gateway = Arc::clone(self);
        let work = Box::pin(async move { gateway.queue_and_forward(queued, record).await });
        let Some(interval) = heartbeat else { return self.serve_as_lead(work, lead, route.shape).await };
        let gateway = Arc::clone(self);
        let rest = Box::pin(async move { gateway.serve_as_lead(work, lead, route.shape).await });
        Box::pin(heartbeat::respond_with_heartbeats(rest, interval, route.shape, &self.forwarder.sweeper)).await
    }

    /// Waits for a slot and a worker, and forwards the request; tries again where `retry` allows it.
    pub(super) async fn queue_and_forward(
        &self,
        mut queued: Box<Queued>,
        mut record: Record,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        loop {
            // What a wait and the begin of an attempt need is in a block, so that the state of the request has no room for it
            // later.
            let forwarding = {
                // Stage 6, slot and worker.
                let (request, retry) = (&mut queued.request, &mut queued.retry);
                let wait = self.wait_for_worker(request, &queued.caller, retry, queued.queue_entry, &mut record);
                let (ticket, lease) = match wait.await {
                    Ok(tokens) => tokens,
                    Err(refusal) => return Err((refusal, record)),
                };
                // Stage 7, forward.
                let is_last = retry.is_last_attempt();
                let limits_tokens = queued.caller.meter().is_some_and(Meter::limits_tokens);
                let model = &retry.model_queue().model;
                let adapted = request.adapt_to_worker(model, retry.adapter(), &lease, limits_tokens, is_last);
                queued.shown_model = adapted.client_model_name;
                let outgoing = OutgoingRequest {
                    route: request.route,
                    path_at_remote: request.path_at_remote(),
                    parts: &request.parts,
                    request_id: &request.request_id,
                    client_model_name: queued.shown_model.as_deref(),
                    hides_usage: adapted.hides_usage,
                    facts: adapted.facts,
                    lines: queued.lines.clone(),
                    is_call: request.role != RequestRole::Whole,
                };
                let attempt = Attempt::begin(queued.caller, ticket, lease, record, retry);
                self.forwarder.forward(outgoing, adapted.body, attempt, retry)
            };
            let failed = match forwarding.await {
                // Stage 8: the response streams to the client, and its end closes the record (`response/body.rs`).
                Ok(response) => return Ok(response),
                Err(failed) => *failed,
            };
            let ticket;
            (queued.caller, ticket, record) = failed.tokens;
            queued.retry.record_failure(&mut record);
            match Box::pin(queued.retry.next_after_failure(failed.retry, ticket, &queued.caller)).await {
                Some(next) => {
                    record.set_model(queued.retry.model_queue().model.id());
                    record.begin_wait();
                    queued.queue_entry = next;
                }
                None => return Err((failed.refusal, record)),
            }
        }
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
