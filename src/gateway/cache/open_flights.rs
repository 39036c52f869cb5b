//! The answers in flight that an equal request may join, and the answers that were kept of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;

use super::answer_store::AnswerStore;
use super::flight_terms::FlightTerms;
use super::kept_answer::{KeptAnswer, SharedHead};
use super::key::CacheKey;
use super::shared_pieces::SharedPieces;

/// Answers that are kept, and answers in flight.
pub(super) struct OpenFlights<F> {
    pub(super) store: AnswerStore,
    /// The readers of an answer own its flight. `MAX_CONNECTIONS` and `HTTP2_STREAMS` bound the number of entries.
    flights: Mutex<HashMap<CacheKey, Weak<F>, RandomState>>,
}

/// What there is for a request.
pub(super) enum Found<F> {
    /// An answer that is kept.
    Kept(Arc<KeptAnswer>),
    /// An answer in flight.
    Open(Arc<F>),
    /// Nothing: this flight was opened for the request.
    New(Arc<F>),
}

impl<F> OpenFlights<F> {
    /// Knows no flight yet.
    pub(super) fn new(store: AnswerStore) -> Arc<Self> {
        Arc::new(Self { store, flights: Mutex::default() })
    }

    /// Finds the answer to a request with this key, or opens a flight for it. An answer that is kept is only taken if
    /// `is_wanted` says so.
    pub(super) fn find_or_open(
        &self,
        key: CacheKey,
        is_wanted: impl Fn(&KeptAnswer) -> bool,
        open: impl FnOnce() -> Arc<F>,
    ) -> Found<F> {
        let mut flights = self.lock();
        // Under the lock: an answer is kept before its flight leaves the map, so that one of the two is found.
        if let Some(kept) = self.store.get(&key).filter(|kept| is_wanted(kept)) {
            return Found::Kept(kept);
        }
        if let Some(known) = flights.get(&key).and_then(Weak::upgrade) {
            return Found::Open(known);
        }
        let new = open();
        flights.insert(key, Arc::downgrade(&new));
        Found::New(new)
    }

    /// Keeps the answer of a flight, if it is small enough.
    pub(super) fn keep(&self, terms: &FlightTerms, head: &SharedHead, pieces: &SharedPieces) {
        let Some(pieces) = pieces.whole().filter(|_| terms.is_current()) else { return };
        self.store.put(terms.key, KeptAnswer::new((terms.model.id(), terms.revision), head, pieces));
    }

    /// Has no further request join this flight.
    pub(super) fn close(&self, key: &CacheKey, flight: &F) {
        let mut flights = self.lock();
        if flights.get(key).is_some_and(|known| std::ptr::eq(known.as_ptr(), flight)) {
            flights.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Weak<F>, RandomState>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
