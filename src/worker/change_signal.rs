//! Wakes loads that wait for memory when a worker may have become idle, wanted, or gone.
//!
//! It is notified at the end of every request, so it costs almost nothing while no load waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Notified whenever something changes that a wait for memory may depend on.
#[derive(Default)]
pub(super) struct ChangeSignal {
    /// Listeners that are alive.
    listeners: AtomicUsize,
    changed: Notify,
}

/// Receives the notifications of a [`ChangeSignal`] until it is dropped.
pub(super) struct ChangeListener<'a>(&'a ChangeSignal);

impl ChangeSignal {
    /// Wakes all listeners.
    pub(super) fn notify(&self) {
        // Sequentially consistent with `listen`: either this sees the new listener, or the listener, which looks at the
        // state after it has registered, sees the change that came before this call.
        if self.listeners.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// Registers a listener. The caller must check the state after this call, because earlier changes are not reported.
    pub(super) fn listen(&self) -> ChangeListener<'_> {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        ChangeListener(self)
    }
}

impl ChangeListener<'_> {
    /// Waits for the next notification. The future counts from when it is enabled or first polled.
    pub(super) fn notified(&self) -> Notified<'_> {
        self.0.changed.notified()
    }
}

impl Drop for ChangeListener<'_> {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}
