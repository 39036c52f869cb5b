//! The demand for a worker: the guards that keep it loaded, and the last order to its owner. A worker without demand
//! may be stopped.
//!
//! Starting and stopping the worker is done by its owner, in `supervisor/`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::bounds::SHORTEST_IDLE_TIME;
use super::change_signal::ChangeSignal;
use super::pin::Pin;

/// The demand for one worker, shared by its handles, its owner and the memory scheduler.
#[derive(Default)]
pub(super) struct Demand {
    /// Guards that are alive.
    guards: AtomicUsize,
    /// Notified when a guard is taken.
    taken: Notify,
    /// Notified when the last guard is dropped.
    emptied: Notify,
    /// Notified when the first guard is taken and when the last one is dropped.
    signal: Arc<ChangeSignal>,
    /// The order that the owner has not taken yet.
    change: Mutex<Option<DemandChange>>,
    changed: Notify,
    /// How long the worker stays loaded without a request, if a client has said so.
    idle_time: Mutex<Option<IdleTime>>,
    pin: Mutex<Pin>,
    /// Notified when the idle time or the pin is set.
    idle_time_changed: Notify,
}

/// How long a worker stays loaded without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleTime {
    /// This long, but at least [`SHORTEST_IDLE_TIME`].
    For(Duration),
    /// Until its memory is needed.
    Forever,
}

/// Keeps a worker awake until it is dropped.
pub struct DemandGuard(Arc<Demand>);

/// An order to the owner of a worker, beside the demand of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemandChange {
    /// Finish the requests in flight, then stop the worker until there is demand.
    PutAway,
    /// Load the worker, whether a request needs it or not.
    Wake,
}

impl Demand {
    /// Returns a demand without guards that notifies `signal` when it begins and when it ends.
    pub(super) fn new(signal: Arc<ChangeSignal>, pin: Pin) -> Self {
        Self { signal, pin: Mutex::new(pin), ..Self::default() }
    }

    /// Returns whether, and why, the worker keeps its memory.
    pub(super) fn pin(&self) -> Pin {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether the worker keeps its memory. Loads that wait for memory look again.
    pub(super) fn set_pin(&self, pin: Pin) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin;
        self.idle_time_changed.notify_one();
        self.signal.notify();
    }

    /// Takes a guard, which wakes the worker.
    pub(super) fn guard(demand: &Arc<Self>) -> DemandGuard {
        if demand.guards.fetch_add(1, Ordering::SeqCst) == 0 {
            demand.signal.notify();
        }
        demand.taken.notify_one();
        DemandGuard(Arc::clone(demand))
    }

    /// Returns whether no guard is alive.
    pub(super) fn is_empty(&self) -> bool {
        self.guards.load(Ordering::SeqCst) == 0
    }

    /// Waits until a guard is alive.
    pub(super) async fn wait_for_guard(&self) {
        while self.is_empty() {
            // `Notify` keeps one permit, which may come from a guard that has been dropped since.
            self.taken.notified().await;
        }
    }

    /// Waits until another guard is taken. A guard that was taken just before this call counts.
    pub(super) async fn wait_for_new_guard(&self) {
        loop {
            self.taken.notified().await;
            if !self.is_empty() {
                return;
            }
        }
    }

    /// Waits until no guard is alive.
    pub(super) async fn wait_until_empty(&self) {
        while !self.is_empty() {
            // The permit may come from an earlier moment without guards.
            self.emptied.notified().await;
        }
    }

    /// Gives the owner an order. Replaces an order that it has not taken yet.
    pub(super) fn tell(&self, change: DemandChange) {
        *self.change() = Some(change);
        self.changed.notify_one();
    }

    /// Sets how long the worker stays loaded without a request, in place of `IDLE_UNLOAD`.
    pub(super) fn set_idle_time(&self, time: IdleTime) {
        *self.idle_time.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
        self.idle_time_changed.notify_one();
    }

    /// Returns how long the worker stays loaded without a request, where this is the time of `IDLE_UNLOAD`; `None` if no
    /// time ends it.
    pub(super) fn idle_time(&self, configured: Option<Duration>) -> Option<Duration> {
        match *self.idle_time.lock().unwrap_or_else(PoisonError::into_inner) {
            _ if self.pin().outlasts_idle_time() => None,
            None => configured,
            Some(IdleTime::Forever) => None,
            Some(IdleTime::For(time)) => Some(time.max(SHORTEST_IDLE_TIME)),
        }
    }

    /// Waits until [`Self::idle_time`] may have changed. Safe to cancel. Only the owner may wait.
    pub(super) async fn idle_time_changed(&self) {
        self.idle_time_changed.notified().await;
    }

    /// Waits for an order and takes it. Safe to cancel. Only the owner may wait.
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
            self.0.emptied.notify_one();
            self.0.signal.notify();
        }
    }
}

/// The owner's view of the demand: the guards of others, and the owner's own reasons to load the worker.
pub(super) struct OwnerDemand {
    shared: Arc<Demand>,
    /// Held from [`DemandChange::Wake`] until the worker is ready or failed.
    woken: Option<DemandGuard>,
    /// Whether the worker is started without any guard.
    autostart: bool,
}

impl OwnerDemand {
    /// Returns the owner's side of `shared`.
    pub(super) fn new(shared: Arc<Demand>, autostart: bool) -> Self {
        Self { shared, woken: None, autostart }
    }

    /// Returns the demand that handles and the memory scheduler share.
    pub(super) fn shared(&self) -> &Arc<Demand> {
        &self.shared
    }

    /// Returns whether the worker is started without any guard.
    pub(super) fn is_autostart(&self) -> bool {
        self.autostart
    }

    /// Makes the worker start without any guard, until [`Self::cancel_autostart`].
    pub(super) fn set_autostart(&mut self) {
        self.autostart = true;
    }

    /// Makes the worker start only for guards from now on.
    pub(super) fn cancel_autostart(&mut self) {
        self.autostart = false;
    }

    /// Returns whether the worker is to be started.
    pub(super) fn is_needed(&self) -> bool {
        self.autostart || !self.shared.is_empty()
    }

    /// Keeps the worker loaded until [`Self::release`].
    pub(super) fn hold(&mut self) {
        self.hold_by(Demand::guard(&self.shared));
    }

    /// Keeps the worker loaded until [`Self::release`], by a guard that was taken of this demand before.
    pub(super) fn hold_by(&mut self, guard: DemandGuard) {
        self.woken = Some(guard);
    }

    /// Drops the guard of [`Self::hold`].
    pub(super) fn release(&mut self) {
        self.woken = None;
    }

    /// Drops the owner's own reasons to load the worker; only the guards of others count then.
    pub(super) fn clear(&mut self) {
        self.release();
        self.cancel_autostart();
    }

    /// Applies an order to a worker without a process.
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
    async fn a_dropped_guard_is_no_demand() {
        let demand = Arc::new(Demand::default());
        drop(Demand::guard(&demand));
        tokio::select! {
            biased;
            () = demand.wait_for_guard() => panic!("no guard is alive"),
            () = std::future::ready(()) => {}
        }
        let guard = Demand::guard(&demand);
        demand.wait_for_guard().await;
        assert!(!demand.is_empty());
        tokio::join!(demand.wait_until_empty(), async move { drop(guard) });
        assert!(demand.is_empty());
    }

    #[test]
    fn what_a_client_says_about_idle_time_replaces_the_configured_one() {
        let (demand, hour) = (Demand::default(), Duration::from_secs(3600));
        assert_eq!((demand.idle_time(None), demand.idle_time(Some(hour))), (None, Some(hour)));
        demand.set_idle_time(IdleTime::For(Duration::from_secs(60)));
        assert_eq!(demand.idle_time(None), Some(Duration::from_secs(60)));
        demand.set_idle_time(IdleTime::For(Duration::from_nanos(1)));
        assert_eq!(demand.idle_time(Some(hour)), Some(SHORTEST_IDLE_TIME));
        demand.set_idle_time(IdleTime::Forever);
        assert_eq!(demand.idle_time(Some(hour)), None);
        demand.set_idle_time(IdleTime::For(hour));
        demand.set_pin(Pin::Ordered);
        assert_eq!(demand.idle_time(Some(hour)), None, "an ordered pin is above what clients say");
        for pin in [Pin::Configured, Pin::Off] {
            demand.set_pin(pin);
            assert_eq!(demand.idle_time(None), Some(hour), "{pin:?}");
        }
    }

    #[tokio::test]
    async fn the_last_order_replaces_earlier_ones_and_is_taken_once() {
        let demand = Demand::default();
        demand.tell(DemandChange::PutAway);
        demand.tell(DemandChange::Wake);
        assert_eq!(demand.next_change().await, DemandChange::Wake);
        tokio::select! {
            biased;
            change = demand.next_change() => panic!("{change:?} was returned twice"),
            () = std::future::ready(()) => {}
        }
    }
}
