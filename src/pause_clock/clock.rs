//! Instants, sleeps and timeouts that leave pauses of this program out.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::error::Elapsed;

use super::held_reading::{fresh_reading, held_reading};
use super::pauses;

/// Stands for "never" when a deadline would overflow: 30 years, as in tokio's own timers.
const FAR_FUTURE: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// An instant of tokio's clock less all pauses before it.
///
/// Not quite monotonic: when a pause is found, the clock may go back by up to [`BEAT_INTERVAL`](super::BEAT_INTERVAL).
/// Differences saturate at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActiveInstant(tokio::time::Instant);

/// A wait until an [`ActiveInstant`]. It uses one tokio timer, which [`reset`](Self::reset) reuses.
#[derive(Debug)]
pub struct ActiveSleep {
    deadline: ActiveInstant,
    timer: Pin<Box<tokio::time::Sleep>>,
}

/// Returns the sum of all pauses so far. Detects a pause that has just ended.
pub fn total_paused() -> Duration {
    pauses::read_clock().1
}

/// Returns the time on the kernel's clock, which runs on during a pause, by the same reading as [`ActiveInstant::now`].
pub fn kernel_now() -> tokio::time::Instant {
    held_reading().0
}

/// Returns the time on the kernel's clock, by the same reading as [`ActiveInstant::fresh`].
pub fn fresh_kernel_now() -> tokio::time::Instant {
    fresh_reading().0
}

/// Waits for this time, pauses not counted.
pub async fn sleep(duration: Duration) {
    let deadline = ActiveInstant::now() + duration;
    // A pause during the wait moves the deadline on tokio's clock, so one wait may not be enough.
    while !deadline.has_passed() {
        tokio::time::sleep_until(deadline.real()).await;
    }
}

/// Waits for the future, but no longer than this from now, pauses not counted.
///
/// # Errors
///
/// The time was up before the future was ready.
pub fn timeout<F: Future>(duration: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    timeout_at(ActiveInstant::now() + duration, future)
}

/// Waits for the future until the deadline. A future that is ready wins, even if the deadline has passed.
///
/// # Errors
///
/// The deadline passed before the future was ready.
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
    /// Returns the current time, or that of the first call in this poll within a
    /// [`OneReadingPerPoll`](super::OneReadingPerPoll). Detects a pause that has just ended.
    pub fn now() -> Self {
        let (now, paused) = held_reading();
        Self::of(now, paused)
    }

    /// Reads the clock, and returns the current time. Within a [`OneReadingPerPoll`](super::OneReadingPerPoll) it is the time
    /// of all later calls too. For what decides whether a wait goes on: it must not find that it is still too early.
    pub fn fresh() -> Self {
        let (now, paused) = fresh_reading();
        Self::of(now, paused)
    }

    /// Converts an instant of tokio's clock before which the pauses sum up to `paused`.
    pub(super) fn of(real: tokio::time::Instant, paused: Duration) -> Self {
        // Nearly always, there has been no pause.
        Self(if paused.is_zero() { real } else { real.checked_sub(paused).unwrap_or(real) })
    }

    /// Returns what tokio's clock will say at this instant if no further pause comes before it.
    pub fn real(self) -> tokio::time::Instant {
        let paused = pauses::known_paused();
        self.0.checked_add(paused).unwrap_or(self.0)
    }

    /// Returns the time since this instant, pauses not counted.
    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }

    fn has_passed(self) -> bool {
        Self::fresh() >= self
    }
}

impl Add<Duration> for ActiveInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.checked_add(duration).unwrap_or_else(|| self.0 + FAR_FUTURE))
    }
}

impl Sub for ActiveInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl ActiveSleep {
    /// Creates a wait until the deadline.
    pub fn until(deadline: ActiveInstant) -> Self {
        Self { deadline, timer: Box::pin(tokio::time::sleep_until(deadline.real())) }
    }

    /// Returns the deadline.
    pub fn deadline(&self) -> ActiveInstant {
        self.deadline
    }

    /// Sets another deadline.
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
            // The timer may be due only because of a pause. Then it is set again, later by that pause.
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
    use std::future::{pending, ready};

    use hyper::rt::Timer as _;

    use super::super::timer::ActiveTimer;
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// Returns how long the wait seconds_of, in whole seconds: tokio's timers round up to a millisecond.
    async fn seconds_of(wait: impl Future) -> Duration {
        let start = tokio::time::Instant::now();
        wait.await;
        Duration::from_secs(start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_without_a_pause_clock_is_not_a_pause() {
        let start = ActiveInstant::now();
        assert_eq!(seconds_of(sleep(LONG)).await, LONG);
        assert_eq!(seconds_of(timeout(LONG, pending::<()>())).await, LONG);
        assert_eq!((start.elapsed().as_secs(), total_paused()), (1200, Duration::ZERO));
        assert_eq!(ActiveInstant::now().real(), tokio::time::Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_future_wins_over_a_passed_deadline() {
        let past = ActiveInstant::now();
        sleep(LONG).await;
        assert_eq!(timeout_at(past, ready(1)).await.ok(), Some(1));
        assert!(timeout(Duration::MAX, sleep(LONG)).await.is_ok(), "the longest duration does not overflow");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_can_be_reset_directly_and_through_the_hyper_timer() {
        let mut wait = ActiveSleep::until(ActiveInstant::now() + LONG);
        wait.reset(ActiveInstant::now() + LONG / 2);
        assert_eq!(seconds_of(wait).await, LONG / 2);
        let mut wait = ActiveTimer.sleep(LONG);
        ActiveTimer.reset(&mut wait, ActiveTimer.now() + LONG / 2);
        assert_eq!(seconds_of(wait).await, LONG / 2);
        assert_eq!(seconds_of(ActiveTimer.sleep_until(ActiveTimer.now() + LONG)).await, LONG);
    }
}
