//! hyper's own waits in this time.

use super::clock::{ActiveInstant, ActiveSleep, paused};
use std::pin::Pin;
use std::time::Duration;

/// A timer for hyper, whose waits leave pauses out. It reckons with the kernel's clock, so it is for waits alone: what is
/// idle with others who went on must be measured by theirs.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActiveTimer;

impl hyper::rt::Timer for ActiveTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(ActiveSleep::until(ActiveInstant::now() + duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(ActiveSleep::until(awake(deadline)))
    }

    fn now(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<ActiveSleep>() {
            Some(sleep) => sleep.get_mut().reset(awake(deadline)),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl hyper::rt::Sleep for ActiveSleep {}

/// The point that a deadline means which was just reckoned.
fn awake(deadline: std::time::Instant) -> ActiveInstant {
    ActiveInstant::of(deadline.into(), paused())
}
