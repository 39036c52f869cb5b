//! Points in the time in which this program ran, and waits in it.

use super::pauses;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::error::Elapsed;

/// A wait longer than this has no end; the runtime's own view of that.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// A point in the time in which this program ran. It may go back by a beat where a pause is found: differences are
/// never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActiveInstant(tokio::time::Instant);

/// A wait until an [`ActiveInstant`]. It costs one timer of the runtime, kept for all that it is set to.
#[derive(Debug)]
pub struct ActiveSleep {
    deadline: ActiveInstant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

/// How long this program did not run so far, as far as anybody has noticed.
pub fn paused() -> Duration {
    pauses::read_clock().1
}

/// Waits for so long.
pub async fn sleep(duration: Duration) {
    let deadline = ActiveInstant::now() + duration;
    while !deadline.has_passed() {
        tokio::time::sleep_until(deadline.real()).await;
    }
}

/// Waits for the future, but no longer than this from now.
pub fn timeout<F: Future>(duration: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    timeout_at(ActiveInstant::now() + duration, future)
}

/// Waits for the future until then. A future that is ready wins, however late.
pub async fn timeout_at<F: Future>(deadline: ActiveInstant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    loop {
        let outcome = tokio::time::timeout_at(deadline.real(), future.as_mut()).await;
        if outcome.is_ok() || deadline.has_passed() {
            return outcome;
        }
    }
}

impl ActiveInstant {
    /// The present. Notices a pause that nobody has noticed before.
    pub fn now() -> Self {
        let (now, paused) = pauses::read_clock();
        Self::of(now, paused)
    }

    pub(super) fn of(real: tokio::time::Instant, paused: Duration) -> Self {
        Self(real.checked_sub(paused).unwrap_or(real))
    }

    /// What the runtime's clock says then, if there is no pause before.
    pub fn real(self) -> tokio::time::Instant {
        let paused = pauses::found();
        self.0.checked_add(paused).unwrap_or(self.0)
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }

    fn has_passed(self) -> bool {
        Self::now() >= self
    }
}

impl Add<Duration> for ActiveInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.checked_add(duration).unwrap_or_else(|| self.0 + FOR_EVER))
    }
}

impl Sub for ActiveInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl ActiveSleep {
    /// Waits until then.
    pub fn until(deadline: ActiveInstant) -> Self {
        Self { deadline, timer: Box::pin(tokio::time::sleep_until(deadline.real())) }
    }

    /// What it waits for.
    pub fn deadline(&self) -> ActiveInstant {
        self.deadline
    }

    /// Waits until then instead.
    pub fn reset(&mut self, deadline: ActiveInstant) {
        self.deadline = deadline;
        self.timer.as_mut().reset(deadline.real());
    }
}

impl Future for ActiveSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.deadline.has_passed() {
                return Poll::Ready(());
            }
            let deadline = self.deadline;
            self.reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::timer::ActiveTimer;
    use super::*;
    use hyper::rt::Timer as _;
    use std::future::{pending, ready};

    const LONG: Duration = Duration::from_secs(600);

    /// How long it takes, to the millisecond of the runtime's timers.
    async fn takes(wait: impl Future) -> Duration {
        let start = tokio::time::Instant::now();
        wait.await;
        Duration::from_secs(start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_beats_a_long_wait_is_no_pause() {
        let start = ActiveInstant::now();
        assert_eq!(takes(sleep(LONG)).await, LONG);
        assert_eq!(takes(timeout(LONG, pending::<()>())).await, LONG);
        assert_eq!((start.elapsed().as_secs(), paused()), (1200, Duration::ZERO));
        assert_eq!(ActiveInstant::now().real(), tokio::time::Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_is_never_too_late() {
        let past = ActiveInstant::now();
        sleep(LONG).await;
        assert_eq!(timeout_at(past, ready(1)).await.ok(), Some(1));
        assert!(timeout(Duration::MAX, sleep(LONG)).await.is_ok(), "a wait without end is one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_can_be_set_anew_by_us_and_by_hyper() {
        let mut wait = ActiveSleep::until(ActiveInstant::now() + LONG);
        wait.reset(ActiveInstant::now() + LONG / 2);
        assert_eq!(takes(wait).await, LONG / 2);
        let mut wait = ActiveTimer.sleep(LONG);
        ActiveTimer.reset(&mut wait, ActiveTimer.now() + LONG / 2);
        assert_eq!(takes(wait).await, LONG / 2);
        assert_eq!(takes(ActiveTimer.sleep_until(ActiveTimer.now() + LONG)).await, LONG);
    }
}
