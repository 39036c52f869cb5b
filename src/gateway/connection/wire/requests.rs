//! Counts the requests of a connection that have begun and ended, so that the wire knows when no response is on its
//! way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::pause_clock::ActiveInstant;

/// The requests of one connection. Shared by the wire, which is below hyper, and the service, which is above it.
pub(crate) struct ConnectionRequests {
    opened: ActiveInstant,
    begun: AtomicU32,
    ended: AtomicU32,
    /// Whether the ends of requests are timed. Only with HTTP/2, where the wire sees no end of a response.
    times_ends: AtomicBool,
    /// Nanoseconds from `opened` to the end of the last request that was timed.
    last_end: AtomicU64,
    /// The HTTP/2 responses on their way.
    pub(super) responses: Http2Responses,
}

/// The HTTP/2 responses of a connection that are on their way, by number.
#[derive(Default)]
pub(super) struct Http2Responses(pub(super) Mutex<BTreeMap<u32, Weak<dyn StallCheck>>>);

/// Marks a request as in flight. Held by the request, and then by its response until hyper has taken the last byte.
pub(crate) struct RequestGuard(pub(super) Arc<ConnectionRequests>);

pub(super) trait StallCheck: Send + Sync {
    /// Abandons the response if its client has not read on for `stall`. Otherwise returns the time left until then, or
    /// `None` if the response is not waiting for its client.
    fn abandon_if_stalled(&self, stall: Duration) -> Option<Duration>;
}

impl ConnectionRequests {
    /// Counts a request that hyper has passed to the service.
    pub(crate) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.begun.fetch_add(1, Ordering::AcqRel);
        RequestGuard(Arc::clone(self))
    }

    /// Returns the number of requests that have begun; wraps around.
    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Acquire)
    }

    /// Returns the number of requests whose responses have ended; wraps around.
    pub(super) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }

    /// Times the ends of requests from now on, for [`Self::idle_time`].
    pub(super) fn time_ends(&self) {
        self.times_ends.store(true, Ordering::Relaxed);
    }

    /// Returns for how long no request has been in flight; `None` while one is.
    pub(super) fn idle_time(&self) -> Option<Duration> {
        let is_idle = self.begun() == self.ended();
        is_idle
            .then(|| self.opened.elapsed().saturating_sub(Duration::from_nanos(self.last_end.load(Ordering::Acquire))))
    }
}

impl Default for ConnectionRequests {
    fn default() -> Self {
        Self {
            opened: ActiveInstant::now(),
            begun: AtomicU32::default(),
            ended: AtomicU32::default(),
            times_ends: AtomicBool::default(),
            last_end: AtomicU64::default(),
            responses: Http2Responses::default(),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // Set before hyper got the first byte of the connection.
        if self.0.times_ends.load(Ordering::Relaxed) {
            let now = u64::try_from(self.0.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
            // The time before the count: a reader that sees the count (`idle_time`) then sees this time too. `fetch_max`,
            // since guards of other requests may be dropped at the same moment.
            self.0.last_end.fetch_max(now, Ordering::AcqRel);
        }
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Http2Responses {
    /// Abandons the responses whose clients have not read on for `stall`. Returns the time until the next one may have
    /// stalled, if any is waiting for its client.
    pub(super) fn abandon_stalled(&self, stall: Duration) -> Option<Duration> {
        // Outside of the lock: a response that is dropped removes itself from the map.
        let all: Vec<_> = lock(&self.0).values().filter_map(Weak::upgrade).collect();
        all.iter().filter_map(|response| response.abandon_if_stalled(stall)).min()
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
