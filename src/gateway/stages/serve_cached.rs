//! Requests that the cache answers, and those whose answer it shares.
//!
//! Owns what such a request costs its caller, and what its response says of the cache. Which requests are equal, and how an
//! answer is read by several, is decided in `cache/`.

use std::sync::Arc;

use http::Response;

use crate::fleet::Model;
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::rate;
use crate::gateway::cache::answer_cache::{AnswerCache, CacheLookup, CacheMark, FlightLead};
use crate::gateway::prepared_request::{ReceivedRequest, Translated};
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::heartbeat::PendingResponse;
use crate::gateway::response::shared::PieceSource;
use crate::gateway::response_context::ResponseContext;
use crate::gateway::service::Gateway;
use crate::refusal::{Refusal, Shape};

impl Gateway {
    /// Returns the answer to a request if it is kept, or on its way for an equal request; waits for its head then. `None` if
    /// a worker has to be asked; `context` then holds the lead of the flight that others may join.
    ///
    /// # Errors
    /// The refusal of the request that was joined, or that the limits of the key are reached.
    pub(in crate::gateway) async fn answer_from_cache(
        &self,
        cache: &AnswerCache,
        asked: &ReceivedRequest<'_>,
        caller: &Caller,
        context: &mut ResponseContext,
        record: &mut Record,
    ) -> Result<Option<Response<Box<dyn PieceSource>>>, Refusal> {
        let (mark, found) = match cache.look_up(asked, caller, &self.model_queues.snapshot()) {
            CacheLookup::None => return Ok(None),
            CacheLookup::Bypass(lead) => (CacheMark::Bypass, self.lead(lead, context, record)),
            CacheLookup::Miss(lead) => (CacheMark::Miss, self.lead(lead, context, record)),
            CacheLookup::Kept(model, response, age) => {
                self.charge_hit(asked, caller, &model, record)?;
                (CacheMark::Kept(age), Some(response))
            }
            // Nothing says here that it waits, which a client with heartbeats is promised.
            CacheLookup::Open(_, reader) if self.heartbeat.is_some() && !reader.has_head() => (CacheMark::Miss, None),
            CacheLookup::Open(model, reader) => {
                // It is counted in no queue.
                context.arrival_guard = None;
                record.set_model(model.id());
                match reader.response().await? {
                    Some(response) => {
                        self.charge_hit(asked, caller, &model, record)?;
                        (CacheMark::Joined, Some(response))
                    }
                    None => (CacheMark::Miss, None),
                }
            }
        };
        cache.count(mark);
        context.cache_mark = Some(mark);
        Ok(found)
    }

    /// Keeps the lead of a flight until the stages that do its work.
    fn lead<T>(&self, lead: Option<FlightLead>, context: &mut ResponseContext, record: &mut Record) -> Option<T> {
        record.verdict = lead.as_ref().map(FlightLead::verdict);
        context.lead = lead;
        None
    }

    /// Charges a request that no worker is asked for as one request, and counts it as use of the service.
    fn charge_hit(
        &self,
        asked: &ReceivedRequest<'_>,
        caller: &Caller,
        model: &Arc<Model>,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        record.set_model(model.id());
        if asked.route.needs_slot {
            rate::charge(caller.meter())?;
        }
        record.activity_guard = Some(self.activity.begin());
        Ok(())
    }

    /// Does the stages of a request from the queue on; if it leads a flight, others read the answer too.
    pub(in crate::gateway) async fn serve_as_lead(
        &self,
        work: PendingResponse,
        lead: Option<FlightLead>,
        shape: Shape,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        match lead {
            Some(lead) => lead.run(work, shape, Arc::clone(&self.forwarder.sweeper)).await,
            None => work.await,
        }
    }

    /// Serves a translated request, and lets others read the answer if it leads a flight.
    pub(in crate::gateway) async fn serve_translated_as_lead(
        self: &Arc<Self>,
        translated: Box<Translated>,
        record: Record,
        lead: Option<FlightLead>,
        shape: Shape,
    ) -> Result<Response<ResponseBody>, (Refusal, Record)> {
        let gateway = Arc::clone(self);
        let work = Box::pin(async move { gateway.serve_translated(translated, record).await });
        self.serve_as_lead(work, lead, shape).await
    }
}
