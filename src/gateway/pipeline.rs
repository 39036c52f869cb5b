//! READ THIS FIRST: what happens to a request, from top to bottom.
//!
//! Each stage returns what the next one demands, or a [`Refusal`] that ends the journey. Nothing jumps back.

use super::auth::Gatekeeper;
use super::body::Answer;
use super::forward::Forwarder;
use super::headers::{self, X_REQUEST_ID};
use super::limits::{self, BodyLimits};
use super::queue::Queue;
use super::record::{Books, Record};
use super::route::{self, Local, Route, Target};
use crate::fleet::{Fleet, Model, Unavailable};
use crate::refusal::{Refusal, Shape};
use crate::settings::bounds::RETRY_AFTER_UNKNOWN;
use crate::settings::options::{Limits, Settings};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// How the routes that the gateway answers itself get their answers; `app.rs` says who gives them.
pub type LocalAnswer =
    Box<dyn Fn(Local, &Parts) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, Refusal>> + Send>> + Send + Sync>;

/// Everything that a request meets on its way.
pub struct Gateway {
    gatekeeper: Gatekeeper,
    limits: BodyLimits,
    queue: Queue,
    fleet: Arc<Fleet>,
    forwarder: Forwarder,
    books: Arc<Books>,
    local: LocalAnswer,
    health_check_path: String,
    /// Whether this listener is the health port too.
    is_health_port: bool,
}

impl Gateway {
    /// Puts the stages together.
    pub fn new(
        settings: &Settings,
        gatekeeper: Gatekeeper,
        queue: Queue,
        fleet: Arc<Fleet>,
        books: Arc<Books>,
        local: LocalAnswer,
    ) -> Self {
        let Limits { max_request_body_size, client_body_timeout, .. } = &settings.limits;
        Self {
            gatekeeper,
            limits: BodyLimits { size: max_request_body_size.0, silence: client_body_timeout.0 },
            queue,
            fleet,
            forwarder: Forwarder::new(&settings.limits),
            books,
            local,
            health_check_path: settings.listen.health_check_path.clone(),
            is_health_port: settings.listen.port == settings.listen.port_health && settings.listen.port != 0,
        }
    }

    /// Refuses every request from now on, those in the queue too, and waits until those in flight have ended.
    pub async fn drain(&self) {
        self.queue.close();
        self.queue.drained().await;
    }

    /// Ends what is still in flight: a stream with an error as its last event, anything else by a cut.
    pub fn cut(&self) {
        self.forwarder.cut();
    }

    /// Answers one request on the gateway port.
    pub async fn serve(&self, request: Request<Incoming>) -> Response<Answer> {
        let (request_id, id_header) = headers::request_id(request.headers());
        let path = request.uri().path();
        let record = Record::open(Arc::clone(&self.books), request_id, request.method().clone(), path.to_owned());
        let shape = if path.starts_with("/v1/messages") { Shape::Anthropic } else { Shape::OpenAi };
        let mut response = match self.journey(request, &id_header, record).await {
            Ok(response) => response,
            Err((refusal, mut record)) => {
                record.status = Some(refusal.status());
                record.code = Some(refusal.code());
                refusal.response(shape).map(|body| Answer::own(body, *record))
            }
        };
        response.headers_mut().insert(X_REQUEST_ID, id_header);
        response
    }

    /// The journey itself. A refusal brings the record back, so that it is closed with the answer.
    async fn journey(
        &self,
        request: Request<Incoming>,
        request_id: &HeaderValue,
        mut record: Record,
    ) -> Result<Response<Answer>, (Refusal, Box<Record>)> {
        macro_rules! stage {
            ($outcome:expr) => {
                match $outcome {
                    Ok(token) => token,
                    Err(refusal) => return Err((refusal, Box::new(record))),
                }
            };
        }
        let (parts, body) = request.into_parts();
        // accept -> limits: nothing is read that is too large by its own account.
        stage!(limits::check_announced(&parts.headers, self.limits));
        let route = stage!(self.find_route(&parts));
        record.route = Some(route.path);
        record.counted = route.target == Target::Worker;
        // who is calling -> may they: before a byte of the body is read.
        let caller = stage!(self.gatekeeper.admit(&parts.headers, route));
        record.comes_from(caller.key_id());
        if let Target::Gateway(local) = route.target {
            let answer = stage!((self.local)(local, &parts).await);
            record.status = Some(answer.status());
            return Ok(answer.map(|body| Answer::own(body, record)));
        }
        let model = stage!(self.fleet.model().ok_or(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)));
        record.is_for(&model.id);
        stage!(caller.may_use(&model.id));
        stage!(self.queue.is_open());
        stage!(may_be_served(model));
        let body = stage!(limits::read_body(body, self.limits).await);
        record.bytes_in = body.length();
        // wait in line -> which worker -> forward.
        let (ticket, lease) = stage!(if route.needs_slot {
            let place = stage!(self.queue.enter(caller.turn(), || Ok(())));
            self.queue.wait(place, caller.turn(), model).await
        } else {
            self.queue.pass(model)
        });
        record.queued = Some(ticket.waited);
        self.forwarder.forward(route, parts, request_id, body, caller, ticket, lease, record).await
        // The answer streams back, and the record closes with it: `body.rs`.
    }

    fn find_route(&self, parts: &Parts) -> Result<&'static Route, Refusal> {
        let (method, path) = (&parts.method, parts.uri.path());
        match route::find(method, path) {
            Err(refusal) if !self.is_health_port => Err(refusal),
            found => match route::find_on_health_port(method, path, &self.health_check_path) {
                Some(local) if self.is_health_port => Ok(route::of_health_port(local)),
                _ => found,
            },
        }
    }

    /// Answers one request on a health port of its own.
    pub async fn serve_health(&self, request: Request<Incoming>) -> Response<Answer> {
        let (parts, _) = request.into_parts();
        let (_, id_header) = headers::request_id(&parts.headers);
        let local = route::find_on_health_port(&parts.method, parts.uri.path(), &self.health_check_path);
        let answer = match local {
            None => Err(Refusal::RouteNotFound),
            Some(Local::Metrics) => match self.gatekeeper.admit_to_metrics(&parts.headers) {
                Ok(()) => (self.local)(Local::Metrics, &parts).await,
                Err(refusal) => Err(refusal),
            },
            Some(Local::Ping) => (self.local)(Local::Probe, &parts).await,
            Some(local) => (self.local)(local, &parts).await,
        };
        let answer = answer.unwrap_or_else(|refusal| refusal.response(Shape::OpenAi));
        let mut response = answer.map(Answer::unrecorded);
        response.headers_mut().insert(X_REQUEST_ID, id_header);
        response
    }
}

/// Whether a request for the model may go on: to a worker that is ready, or into the line for one that will be.
fn may_be_served(model: &Model) -> Result<(), Refusal> {
    match model.available() {
        Ok(()) | Err(Unavailable::Loading) => Ok(()),
        Err(_) => Err(Refusal::BackendUnavailable(RETRY_AFTER_UNKNOWN)),
    }
}
