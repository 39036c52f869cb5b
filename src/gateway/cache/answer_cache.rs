//! Finds the answer to a request: one that is kept, one in flight, or none yet, which the request then makes for others too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::answer_store::AnswerStore;
use super::cacheable::{answer_kind, has_effects, may_be_kept};
use super::directives::CacheDirectives;
use super::flight::Flight;
pub(in crate::gateway) use super::flight_reader::{FlightLead, FlightReader};
use super::flight_terms::FlightTerms;
use super::kept_answer::{KeptAnswer, KeptReader};
use super::key::{CacheKey, KeyParts};
use super::open_flights::{Found, OpenFlights};
use crate::fleet::Model;
use crate::gateway::admission::auth::Caller;
use crate::gateway::prepared_request::ReceivedRequest;
use crate::gateway::queue::model_queues::Snapshot;
use crate::gateway::response::shared::PieceSource;
use crate::keys::secret::Digest;
use crate::refusal::Shape;
use crate::settings::options::Caching;
use crate::settings::values::CacheMode;
use crate::short_value::number_value;
use crate::telemetry::metrics::Metrics;

/// What the cache had for a request.
const X_LLAMAGATE_CACHE: HeaderName = HeaderName::from_static("x-llamagate-cache");

/// The answers that are kept, and those in flight.
pub(in crate::gateway) struct AnswerCache {
    mode: CacheMode,
    /// `CACHE_SHARED`
    is_shared: bool,
    flights: Arc<OpenFlights<Flight>>,
    metrics: Arc<Metrics>,
}

/// What there is for a request.
pub(in crate::gateway) enum CacheLookup {
    /// The request has nothing to do with the cache, or will be refused.
    None,
    /// Nothing was looked for; if the answer is to be kept, the request leads a flight.
    Bypass(Option<FlightLead>),
    /// Nothing. The request leads a flight, unless that has readers enough.
    Miss(Option<FlightLead>),
    /// An answer of this model that was kept for this time.
    Kept(Arc<Model>, Response<Box<dyn PieceSource>>, Duration),
    /// An answer of this model in flight.
    Open(Arc<Model>, FlightReader),
}

/// What a response says of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum CacheMark {
    /// The answer was kept for this time.
    Kept(Duration),
    /// The answer was in flight.
    Joined,
    Miss,
    Bypass,
}

impl CacheMark {
    /// Adds the headers that say it.
    pub(in crate::gateway) fn insert_headers(self, headers: &mut HeaderMap) {
        let word = match self {
            Self::Kept(age) => {
                headers.insert(http::header::AGE, number_value(age.as_secs()));
                "hit"
            }
            Self::Joined => {
                headers.insert(http::header::AGE, number_value(0));
                "hit"
            }
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        };
        headers.insert(X_LLAMAGATE_CACHE, HeaderValue::from_static(word));
    }
}

impl AnswerCache {
    /// Creates the cache; `None` with `CACHE=off`. `file` is where answers outlive the service, if they are to.
    pub(in crate::gateway) fn new(settings: &Caching, file: Option<PathBuf>, metrics: &Arc<Metrics>) -> Option<Self> {
        (settings.cache != CacheMode::Off).then(|| Self {
            mode: settings.cache,
            is_shared: settings.cache_shared,
            flights: OpenFlights::new(AnswerStore::new(settings, file, metrics)),
            metrics: Arc::clone(metrics),
        })
    }

    /// Looks for the answer to a request among those of these models.
    pub(in crate::gateway) fn look_up(
        &self,
        asked: &ReceivedRequest<'_>,
        caller: &Caller,
        models: &Arc<Snapshot>,
    ) -> CacheLookup {
        let ReceivedRequest { route, parts, envelope, body, .. } = *asked;
        let Some(kind) = answer_kind(route) else { return CacheLookup::None };
        let name = asked.requested_model;
        let name = if route.shape == Shape::Ollama { name.map(|name| models.without_default_tag(name)) } else { name };
        let Ok(entry) = models.resolve(name, asked.required_kind, caller) else { return CacheLookup::None };
        let model = &entry.model;
        if caller.check_model_as(&model.info(), name).is_err() {
            return CacheLookup::None;
        }
        self.flights.store.drop_former(models);
        let directives = CacheDirectives::of(&parts.headers);
        // Which adapters a request means by their numbers, and whether its caller may use them, is found out later.
        let is_passed_over = directives.no_store || has_effects(route, envelope) || envelope.has("lora");
        if is_passed_over || !may_be_kept(self.mode, kind, route, (envelope, body), model) {
            return CacheLookup::Bypass(None);
        }
        let is_stream = route.may_stream && envelope.stream() == Some(true);
        let revision = model.revision();
        let key_parts = KeyParts {
            key_id: caller.key_id().filter(|_| !self.is_shared),
            secret: caller.secret().filter(|_| !self.is_shared).map(Digest::as_bytes),
            path: route.path,
            query: parts.uri.query(),
            model: model.id(),
            revision,
            requested_model: asked.requested_model,
            is_stream,
        };
        let Some(key) = CacheKey::of(&key_parts, &parts.headers, envelope, body) else { return CacheLookup::None };
        let terms = FlightTerms { key, model: Arc::clone(model), revision, is_stream };
        if directives.no_cache {
            // No other request joins it.
            return CacheLookup::Bypass(FlightLead::of(Flight::open(terms, &self.flights)));
        }
        self.find(terms, |kept| directives.max_age.is_none_or(|longest| kept.age() <= longest))
    }

    fn find(&self, terms: FlightTerms, is_wanted: impl Fn(&KeptAnswer) -> bool) -> CacheLookup {
        let model = Arc::clone(&terms.model);
        match self.flights.find_or_open(terms.key, is_wanted, || Flight::open(terms, &self.flights)) {
            Found::Kept(kept) => {
                let (age, response) = (kept.age(), kept.head.replayed());
                let source: Box<dyn PieceSource> = Box::new(KeptReader::new(kept));
                CacheLookup::Kept(model, response.map(|()| source), age)
            }
            Found::Open(flight) => match FlightReader::join(flight) {
                Some(reader) => CacheLookup::Open(model, reader),
                None => CacheLookup::Miss(None),
            },
            Found::New(flight) => CacheLookup::Miss(FlightLead::of(flight)),
        }
    }

    /// Counts what the cache had for a request.
    pub(in crate::gateway) fn count(&self, mark: CacheMark) {
        match mark {
            CacheMark::Kept(_) | CacheMark::Joined => _ = self.metrics.cache_hits.inc(),
            CacheMark::Miss => _ = self.metrics.cache_misses.inc(),
            CacheMark::Bypass => {}
        }
    }

    /// Writes what is to outlive the service, and waits for that, up to a bound. Blocks.
    pub(in crate::gateway) fn close(&self) {
        self.flights.store.close();
    }
}
