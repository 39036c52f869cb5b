//! Who wants a worker at present: it is not put to sleep as long as there is anybody, and woken when somebody comes.

use super::change_signal::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// How many want a worker.
#[derive(Default)]
pub(super) struct Wants {
    count: AtomicUsize,
    first: Notify,
    last: Notify,
    /// Rung when somebody is there after nobody was, and the other way round.
    bell: Arc<Bell>,
}

/// Somebody who wants a worker, until it is dropped.
pub struct Want(Arc<Wants>);

impl Wants {
    /// Nobody yet.
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { bell, ..Self::default() }
    }

    pub(super) fn want(wants: &Arc<Self>) -> Want {
        if wants.count.fetch_add(1, Ordering::SeqCst) == 0 {
            wants.bell.ring();
        }
        wants.first.notify_one();
        Want(Arc::clone(wants))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Waits until there is anybody.
    pub(super) async fn any(&self) {
        while self.is_empty() {
            // May tell of somebody who has left since.
            self.first.notified().await;
        }
    }

    /// Waits until somebody more has come, be it just before this call.
    pub(super) async fn more(&self) {
        loop {
            self.first.notified().await;
            if !self.is_empty() {
                return;
            }
        }
    }

    /// Waits until there is nobody.
    pub(super) async fn none(&self) {
        while !self.is_empty() {
            // May tell of a time at which there was nobody, before somebody came again.
            self.last.notified().await;
        }
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.last.notify_one();
            self.0.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_has_left_wakes_nobody() {
        let wants = Arc::new(Wants::default());
        drop(Wants::want(&wants));
        tokio::select! {
            biased;
            () = wants.any() => panic!("nobody is left"),
            () = std::future::ready(()) => {}
        }
        let want = Wants::want(&wants);
        wants.any().await;
        assert!(!wants.is_empty());
        let (leaving, waits) = (want, wants.none());
        tokio::join!(waits, async move { drop(leaving) });
        assert!(wants.is_empty());
    }
}
