//! The live feed: what is told of the service, to all who listen.
//!
//! One task looks at the service while clients listen: it begins with the first listener and ends with the last. What it
//! tells is kept for a while, once for all; each listener takes it at its own pace, and one that is too slow misses some
//! and is told so. Nothing is queued for a listener, so none holds another back.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::{HISTORY_BYTES, HISTORY_EVENTS, KEPT_FAILURES, LISTENERS_FULL_RETRY, MOST_LISTENERS};
use super::changes::{FeedChange, changes, failures, missed_acts};
use super::look::FeedSources;
use super::snapshot::FeedSnapshot;
use super::throughput::{Throughput, ThroughputHistory, WorkCounts};
use super::view::{ShownFailure, View};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::refusal::Refusal;

/// What a refusal for too many listeners says.
const LISTENERS: &str = "Too many clients listen to the feed";

/// The feed of one service.
pub(super) struct Feed {
    pub(super) sources: FeedSources,
    state: Mutex<FeedState>,
    /// The number of the last event.
    told: watch::Sender<u64>,
    /// Cancelled when the service stops.
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Runs the task that looks, beside what is no request.
    runtime: Handle,
}

struct FeedState {
    listeners: usize,
    /// Ends the task that looks; `None` while there is none.
    looking: Option<CancellationToken>,
    /// What listeners have been told of; `None` before the first look.
    view: Option<Arc<View>>,
    /// Whether the service was looked at since the first of the present listeners came. Before, `view` may be old.
    is_fresh: bool,
    throughput: Throughput,
    /// The last failures, the oldest first.
    failures: VecDeque<ShownFailure>,
    history: VecDeque<ToldEvent>,
    history_bytes: usize,
    /// The number of the last event.
    last: u64,
}

/// What one look has found.
struct News {
    /// What is told, without its numbers.
    events: Vec<String>,
    /// The failures that are new, the oldest first.
    failures: Vec<ShownFailure>,
    /// What was done in the last second, if that is told.
    throughput: Option<Throughput>,
    /// What has happened and cannot be told any more.
    missed: u64,
}

struct ToldEvent {
    id: u64,
    text: Bytes,
}

/// The place of a new listener.
pub(super) struct ListenerPlace {
    /// The event that it has seen, if all that followed is known.
    pub(super) seen: Option<u64>,
    /// The number of the last event.
    pub(super) told: watch::Receiver<u64>,
    /// Cancelled when the service stops.
    pub(super) stop: CancellationToken,
    /// For the first listener: until when the service has to be looked at.
    pub(super) must_look: Option<CancellationToken>,
}

/// What a listener gets next.
pub(super) enum Told {
    /// These events, up to the one with this number.
    Events(Vec<Bytes>, u64),
    /// Everything as it is now, in place of the events that the listener lacks; as of the event with this number.
    Snapshot(Box<FeedSnapshot>, u64),
    /// Nothing yet.
    Nothing,
}

impl Feed {
    /// Creates a feed without listeners.
    pub(super) fn new(sources: FeedSources) -> Self {
        // Numbers go on rising after a restart, so that one of before it is not mistaken for one of now. Microseconds fit
        // into the numbers of JavaScript for 200 years.
        let first = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let nothing = WorkCounts::default();
        let state = FeedState {
            listeners: 0,
            looking: None,
            view: None,
            is_fresh: false,
            throughput: Throughput::between(&nothing, &nothing, Duration::ZERO, Timestamp::now()),
            failures: VecDeque::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            last: first,
        };
        Self {
            sources,
            state: Mutex::new(state),
            told: watch::Sender::new(first),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }
    }

    /// Adds a listener that has seen the event with this number, if it says one. [`Feed::leave`] removes it.
    ///
    /// # Errors
    /// There are too many listeners, or the service stops.
    pub(super) fn join(&self, seen: Option<u64>) -> Result<ListenerPlace, Refusal> {
        if self.stop.is_cancelled() {
            return Err(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        let mut state = self.lock();
        if state.listeners >= MOST_LISTENERS {
            return Err(Refusal::TooManyListeners(LISTENERS, LISTENERS_FULL_RETRY));
        }
        state.listeners += 1;
        self.count_listeners(&state);
        let mut must_look = None;
        if state.looking.is_none() {
            // What was done while others listened is long ago.
            let counts = self.sources.counts();
            state.throughput = Throughput::between(&counts, &counts, Duration::ZERO, Timestamp::now());
            let over = self.stop.child_token();
            state.looking = Some(over.clone());
            state.is_fresh = false;
            must_look = Some(over);
        }
        let seen = seen.filter(|seen| state.has_all_after(*seen));
        Ok(ListenerPlace { seen, told: self.told.subscribe(), stop: self.stop.clone(), must_look })
    }

    /// Runs the task that looks, beside what is no request.
    pub(super) fn run(&self, looking: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(looking, &self.runtime);
    }

    /// Removes a listener.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.listeners = state.listeners.saturating_sub(1);
        self.count_listeners(&state);
        if state.listeners == 0
            && let Some(over) = state.looking.take()
        {
            over.cancel();
        }
    }

    /// Tells what has changed since the last look, unless the task that has looked is over. Only that task calls it.
    pub(super) fn publish(&self, view: View, throughput: Option<Throughput>, over: &CancellationToken) {
        let before = self.lock().view.clone();
        // Not under the lock: this takes a while with many models.
        let news = News::of(before.as_deref(), &view, throughput);
        let mut state = self.lock();
        if !over.is_cancelled() {
            state.view = Some(Arc::new(view));
            let was_fresh = std::mem::replace(&mut state.is_fresh, true);
            news.add_to(&mut state);
            // The first look is waited for, also if it has found nothing new.
            let last = state.last;
            self.told.send_if_modified(|told| std::mem::replace(told, last) != last || !was_fresh);
        }
    }

    /// Returns what a listener gets next that has the events up to `seen`, or none.
    pub(super) fn next(&self, seen: Option<u64>, most_bytes: usize, most_behind: u64) -> Told {
        let state = self.lock();
        if !state.is_fresh {
            return Told::Nothing;
        }
        match seen {
            Some(seen) if seen == state.last => Told::Nothing,
            Some(seen) if state.last - seen <= most_behind && state.has_all_after(seen) => {
                let (mut bytes, mut last) = (0, seen);
                let mut events = Vec::new();
                for event in state.history.iter().filter(|event| event.id > seen) {
                    bytes += event.text.len();
                    if bytes > most_bytes && !events.is_empty() {
                        break;
                    }
                    events.push(event.text.clone());
                    last = event.id;
                }
                Told::Events(events, last)
            }
            _ => match state.snapshot() {
                Some(snapshot) => Told::Snapshot(Box::new(snapshot), state.last),
                None => Told::Nothing,
            },
        }
    }

    /// Returns the time since the start, in seconds.
    pub(super) fn uptime(&self) -> f64 {
        self.sources.accounting.metrics.uptime()
    }

    /// Returns what was done in the last minutes.
    pub(super) fn history(&self) -> ThroughputHistory {
        let metrics = &self.sources.accounting.metrics;
        ThroughputHistory::of(&metrics.recent_work.steps(Instant::now()), Timestamp::now())
    }

    /// Ends all listeners and the task that looks.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn count_listeners(&self, state: &FeedState) {
        self.sources.accounting.metrics.feed_listeners.set(i64::try_from(state.listeners).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedState {
    fn snapshot(&self) -> Option<FeedSnapshot> {
        let (throughput, failures) = (self.throughput.clone(), self.failures.iter().cloned().collect());
        Some(FeedSnapshot { view: Arc::clone(self.view.as_ref()?), throughput, failures })
    }

    /// Returns whether every event after the one with this number is kept.
    fn has_all_after(&self, seen: u64) -> bool {
        let first = self.history.front().map_or(self.last + 1, |event| event.id);
        seen <= self.last && seen + 1 >= first
    }

    fn push(&mut self, event: &str) {
        self.last += 1;
        let text = Bytes::from(format!("id: {}\n{event}", self.last));
        self.history_bytes += text.len();
        self.history.push_back(ToldEvent { id: self.last, text });
        while self.history.len() > HISTORY_EVENTS || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else { return };
            self.history_bytes -= oldest.text.len();
        }
    }
}

impl News {
    fn of(before: Option<&View>, view: &View, throughput: Option<Throughput>) -> Self {
        let mut changes = before.map(|before| changes(before, view)).unwrap_or_default();
        let failures = match before {
            Some(_) => changes.iter().filter_map(FeedChange::failure).cloned().collect(),
            None => failures(view),
        };
        changes.extend(throughput.clone().map(FeedChange::Throughput));
        let missed = before.map_or(0, |before| missed_acts(before, view));
        Self { events: changes.iter().map(FeedChange::text).collect(), failures, throughput, missed }
    }

    fn add_to(self, state: &mut FeedState) {
        let Self { events, failures, throughput, missed } = self;
        events.iter().for_each(|event| state.push(event));
        if missed > 0 {
            // No listener has it, so each gets a snapshot.
            state.last += missed;
            state.history.clear();
            state.history_bytes = 0;
        }
        state.failures.extend(failures);
        let too_many = state.failures.len().saturating_sub(KEPT_FAILURES);
        state.failures.drain(..too_many);
        if let Some(throughput) = throughput {
            state.throughput = throughput;
        }
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
