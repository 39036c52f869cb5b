//! hyper's timer on the pause clock.

use std::pin::Pin;
use std::time::Duration;

use super::clock::{ActiveInstant, ActiveSleep, total_paused};

/// A timer for hyper whose waits leave pauses out.
///
/// [`now`](hyper::rt::Timer::now) is the kernel's clock, because hyper's interface wants a `std::time::Instant`. So use
/// it only for waits; whether a connection has been idle too long must be measured on the clock that the peer sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActiveTimer;

impl hyper::rt::Timer for ActiveTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(ActiveSleep::until(ActiveInstant::now() + duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(ActiveSleep::until(to_active(deadline)))
    }

    fn now(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<ActiveSleep>() {
            Some(sleep) => sleep.get_mut().reset(to_active(deadline)),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl hyper::rt::Sleep for ActiveSleep {}

/// Converts a deadline that hyper has just computed from [`now`](hyper::rt::Timer::now).
fn to_active(deadline: std::time::Instant) -> ActiveInstant {
    // No pause lies between that `now` and this call, or at most one that the wait then counts as time.
    ActiveInstant::of(deadline.into(), total_paused())
}
