//! Whose turn it is to write: how the wire knows which requests have been answered, and since when there are none.

use crate::pause_clock::ActiveInstant;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The requests of one connection, counted from both sides of hyper.
pub(crate) struct ConnectionRequests {
    opened: ActiveInstant,
    begun: AtomicU32,
    ended: AtomicU32,
    /// Nanoseconds from the connection's begin to the end of the last turn.
    last_end: AtomicU64,
    /// Those of HTTP/2 that are on their way.
    pub(super) responses: Http2Responses,
}

/// The answers of a connection that are on their way.
#[derive(Default)]
pub(super) struct Http2Responses(pub(super) Mutex<BTreeMap<u32, Weak<dyn StallCheck>>>);

/// Held by a request, and then by its answer, until hyper has taken the answer's last byte.
pub(crate) struct RequestGuard(pub(super) Arc<ConnectionRequests>);

pub(super) trait StallCheck: Send + Sync {
    /// Gives the answer up if nobody has read on for so long; else says when that may be.
    fn give_up(&self, stall: Duration) -> Option<Duration>;
}

impl ConnectionRequests {
    /// A request has come out of hyper.
    pub(crate) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.begun.fetch_add(1, Ordering::AcqRel);
        RequestGuard(Arc::clone(self))
    }

    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }

    /// How long it is nobody's turn; None while it is somebody's.
    pub(super) fn idle_time(&self) -> Option<Duration> {
        let none = self.begun() == self.ended();
        none.then(|| self.opened.elapsed().saturating_sub(Duration::from_nanos(self.last_end.load(Ordering::Acquire))))
    }
}

impl Default for ConnectionRequests {
    fn default() -> Self {
        Self {
            opened: ActiveInstant::now(),
            begun: AtomicU32::default(),
            ended: AtomicU32::default(),
            last_end: AtomicU64::default(),
            responses: Http2Responses::default(),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.last_end.fetch_max(now, Ordering::AcqRel);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Http2Responses {
    /// Gives up what nobody has read on for so long; says when to look again, if an answer is waiting to be read.
    pub(super) fn give_up(&self, stall: Duration) -> Option<Duration> {
        // Answers end outside of the lock: they take themselves off the list.
        let all: Vec<_> = lock(&self.0).values().filter_map(Weak::upgrade).collect();
        all.iter().filter_map(|answer| answer.give_up(stall)).min()
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
