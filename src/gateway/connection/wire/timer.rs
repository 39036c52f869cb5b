//! A deadline that is moved often and reached seldom.

use crate::pause_clock::{ActiveInstant, ActiveSleep};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Moving the deadline costs a look at the clock; the runtime's timer is made when it is first waited for, and moved
/// when it fires too early.
#[derive(Debug, Default)]
pub(super) struct LazyTimer {
    deadline: Option<ActiveInstant>,
    sleep: Option<ActiveSleep>,
}

impl LazyTimer {
    /// Sets the deadline so far from now.
    pub(super) fn start(&mut self, after: Duration) {
        self.deadline = Some(ActiveInstant::now() + after);
    }

    /// There is no deadline any more.
    pub(super) fn stop(&mut self) {
        self.deadline = None;
    }

    pub(super) fn is_running(&self) -> bool {
        self.deadline.is_some()
    }

    /// Ready once the deadline has passed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| ActiveSleep::until(deadline));
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
