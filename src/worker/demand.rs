//! The demand for a worker: who keeps it awake, and what its owner was last told to do. It sleeps while there is none.
//!
//! Waking and stopping the worker is its owner's business.

use super::change_signal::ChangeSignal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The demand for one worker, shared by its handles, its owner and the memory scheduler.
#[derive(Default)]
pub(super) struct Demand {
    /// Guards that are alive.
    guards: AtomicUsize,
    first: Notify,
    last: Notify,
    /// Rung when the first guard is taken and when the last one is dropped.
    bell: Arc<ChangeSignal>,
    /// The change that the owner has not taken yet.
    change: Mutex<Option<DemandChange>>,
    changed: Notify,
}

/// Keeps a worker awake until it is dropped.
pub struct DemandGuard(Arc<Demand>);

/// What the owner of a worker is told to do, other than by requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemandChange {
    /// Finish what it serves, then sleep until there is demand.
    PutAway,
    /// Load it, whether a request needs it or not.
    Wake,
}

impl Demand {
    /// Returns a demand without guards that rings `bell` as it begins and ends.
    pub(super) fn new(bell: Arc<ChangeSignal>) -> Self {
        Self { bell, ..Self::default() }
    }

    /// Takes a guard, which wakes the worker.
    pub(super) fn guard(demand: &Arc<Self>) -> DemandGuard {
        if demand.guards.fetch_add(1, Ordering::SeqCst) == 0 {
            demand.bell.notify();
        }
        demand.first.notify_one();
        DemandGuard(Arc::clone(demand))
    }

    /// Whether no guard is alive.
    pub(super) fn is_empty(&self) -> bool {
        self.guards.load(Ordering::SeqCst) == 0
    }

    /// Waits until a guard is alive.
    pub(super) async fn any(&self) {
        while self.is_empty() {
            // The permit may be of a guard that has been dropped since.
            self.first.notified().await;
        }
    }

    /// Waits until another guard is taken; one that was taken just before this call counts.
    pub(super) async fn more(&self) {
        loop {
            self.first.notified().await;
            if !self.is_empty() {
                return;
            }
        }
    }

    /// Waits until no guard is alive.
    pub(super) async fn none(&self) {
        while !self.is_empty() {
            // The permit may be of an earlier moment without guards.
            self.last.notified().await;
        }
    }

    /// Tells the owner what to do. Replaces a change that it has not taken yet.
    pub(super) fn tell(&self, change: DemandChange) {
        *self.change() = Some(change);
        self.changed.notify_one();
    }

    /// Waits for a change and takes it. May be cancelled. Only the owner waits.
    pub(super) async fn next_change(&self) -> DemandChange {
        loop {
            if let Some(change) = self.change().take() {
                return change;
            }
            self.changed.notified().await;
        }
    }

    fn change(&self) -> MutexGuard<'_, Option<DemandChange>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DemandGuard {
    fn drop(&mut self) {
        if self.0.guards.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.last.notify_one();
            self.0.bell.notify();
        }
    }
}

/// The demand for a worker as its owner keeps it: that of others, and its own reasons to have the worker loaded.
pub(super) struct OwnerDemand {
    shared: Arc<Demand>,
    /// Held from [`DemandChange::Wake`] until the worker is ready, or given up.
    woken: Option<DemandGuard>,
    /// Whether the worker is started without any demand.
    autostart: bool,
}

impl OwnerDemand {
    /// Returns the owner's side of `shared`.
    pub(super) fn new(shared: Arc<Demand>, autostart: bool) -> Self {
        Self { shared, woken: None, autostart }
    }

    /// The demand of others.
    pub(super) fn shared(&self) -> &Arc<Demand> {
        &self.shared
    }

    /// Whether the worker is started without any demand.
    pub(super) fn is_autostart(&self) -> bool {
        self.autostart
    }

    /// Has the worker started without any demand, until that is cancelled.
    pub(super) fn set_autostart(&mut self) {
        self.autostart = true;
    }

    /// Starts the worker for others alone from now on.
    pub(super) fn cancel_autostart(&mut self) {
        self.autostart = false;
    }

    /// Whether the worker is to be started.
    pub(super) fn is_needed(&self) -> bool {
        self.autostart || !self.shared.is_empty()
    }

    /// Keeps the worker awake until [`Self::release`].
    pub(super) fn hold(&mut self) {
        self.hold_by(Demand::guard(&self.shared));
    }

    /// Keeps the worker awake until [`Self::release`], by a guard of this demand.
    pub(super) fn hold_by(&mut self, guard: DemandGuard) {
        self.woken = Some(guard);
    }

    /// Keeps the worker awake no longer.
    pub(super) fn release(&mut self) {
        self.woken = None;
    }

    /// Leaves no reason to start the worker but the demand of others.
    pub(super) fn clear(&mut self) {
        self.release();
        self.cancel_autostart();
    }

    /// Does what a change means for a worker without a process.
    pub(super) fn apply(&mut self, change: DemandChange) {
        match change {
            DemandChange::Wake => self.hold(),
            DemandChange::PutAway => self.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_has_left_wakes_nobody() {
        let demand = Arc::new(Demand::default());
        drop(Demand::guard(&demand));
        tokio::select! {
            biased;
            () = demand.any() => panic!("nobody is left"),
            () = std::future::ready(()) => {}
        }
        let guard = Demand::guard(&demand);
        demand.any().await;
        assert!(!demand.is_empty());
        let (leaving, waits) = (guard, demand.none());
        tokio::join!(waits, async move { drop(leaving) });
        assert!(demand.is_empty());
    }

    #[tokio::test]
    async fn the_last_order_counts_and_each_is_followed_once() {
        let demand = Demand::default();
        demand.tell(DemandChange::PutAway);
        demand.tell(DemandChange::Wake);
        assert_eq!(demand.next_change().await, DemandChange::Wake);
        tokio::select! {
            biased;
            change = demand.next_change() => panic!("{change:?} came twice"),
            () = std::future::ready(()) => {}
        }
    }
}
