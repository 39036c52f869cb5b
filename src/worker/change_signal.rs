//! Tells whoever waits for memory that a worker may have become idle, wanted, or gone. It costs next to nothing while
//! nobody waits: it is rung at the end of requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Rung whenever something changes that a wait for memory may depend on.
#[derive(Default)]
pub(super) struct ChangeSignal {
    listeners: AtomicUsize,
    rung: Notify,
}

/// Somebody who listens, until this is dropped.
pub(super) struct ChangeListener<'a>(&'a ChangeSignal);

impl ChangeSignal {
    /// Wakes all who listen.
    pub(super) fn notify(&self) {
        if self.listeners.load(Ordering::SeqCst) > 0 {
            self.rung.notify_waiters();
        }
    }

    /// From now on the bell is heard. What has changed before must be looked at after this call.
    pub(super) fn listen(&self) -> ChangeListener<'_> {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        ChangeListener(self)
    }
}

impl ChangeListener<'_> {
    /// The next time that it rings, once the future has been enabled.
    pub(super) fn notified(&self) -> Notified<'_> {
        self.0.rung.notified()
    }
}

impl Drop for ChangeListener<'_> {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}
