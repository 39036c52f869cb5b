//! Tells whoever waits for memory that a worker may have become idle, wanted, or gone. It costs next to nothing while
//! nobody waits: it is rung at the end of requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Rung whenever something changes that a wait for memory may depend on.
#[derive(Default)]
pub(super) struct Bell {
    listeners: AtomicUsize,
    rung: Notify,
}

/// Somebody who listens, until this is dropped.
pub(super) struct Listener<'a>(&'a Bell);

impl Bell {
    /// Wakes all who listen.
    pub(super) fn ring(&self) {
        if self.listeners.load(Ordering::SeqCst) > 0 {
            self.rung.notify_waiters();
        }
    }

    /// From now on the bell is heard. What has changed before must be looked at after this call.
    pub(super) fn listen(&self) -> Listener<'_> {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Listener(self)
    }
}

impl Listener<'_> {
    /// The next time that it rings, once the future has been enabled.
    pub(super) fn rung(&self) -> Notified<'_> {
        self.0.rung.notified()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}
