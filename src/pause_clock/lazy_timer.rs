//! A timer for a deadline that is moved often and reached seldom.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::clock::{ActiveInstant, ActiveSleep};

/// A timer that is cheap to restart: that only reads the clock. The runtime's timer is created when the deadline is
/// first polled, and is moved when it fires too early.
#[derive(Debug, Default)]
pub struct LazyTimer {
    deadline: Option<ActiveInstant>,
    sleep: Option<ActiveSleep>,
}

impl LazyTimer {
    /// Sets the deadline to `after` from now.
    pub fn start(&mut self, after: Duration) {
        self.start_at(ActiveInstant::now() + after);
    }

    /// Sets the deadline.
    pub fn start_at(&mut self, deadline: ActiveInstant) {
        self.deadline = Some(deadline);
    }

    /// Removes the deadline.
    pub fn stop(&mut self) {
        self.deadline = None;
    }

    /// Whether there is a deadline.
    pub fn is_running(&self) -> bool {
        self.deadline.is_some()
    }

    /// Ready once the deadline has passed.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| ActiveSleep::until(deadline));
        // A sleep that ends too early is corrected below. One that ends too late would miss the deadline.
        if sleep.deadline() > deadline {
            sleep.reset(deadline);
        }
        loop {
            ready!(Pin::new(&mut *sleep).poll(context));
            if sleep.deadline() == deadline {
                return Poll::Ready(());
            }
            sleep.reset(deadline);
        }
    }
}
