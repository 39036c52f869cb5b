//! One reading of the clock for all that a task does in one poll.
//!
//! Between two waits, a request asks for the time in a dozen places, and the kernel takes about as long for each answer as
//! the gateway does for a hundred instructions. Does not own the waits: what decides whether a wait goes on reads the clock,
//! and its reading is held from then on.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::pauses::read_clock;

/// What the current thread does when it is asked for the time.
#[derive(Clone, Copy)]
enum Reading {
    /// Reads the clock.
    Fresh,
    /// Reads the clock, and keeps the reading for those who ask later.
    Wanted,
    /// Returns the reading that is kept.
    Held((Instant, Duration)),
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::Fresh) };
}

/// A future within each of whose polls [`ActiveInstant::now`](super::ActiveInstant::now) stands still.
pub struct OneReadingPerPoll<F>(Pin<Box<F>>);

impl<F: Future> OneReadingPerPoll<F> {
    /// Wraps the future.
    pub fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for OneReadingPerPoll<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _until_the_end = Restored(READING.replace(Reading::Wanted));
        self.0.as_mut().poll(context)
    }
}

/// Puts back what was there before a poll, also after a panic.
struct Restored(Reading);

impl Drop for Restored {
    fn drop(&mut self) {
        READING.set(self.0);
    }
}

/// Returns what [`read_clock`] does, or has returned before in the current poll.
pub(super) fn held_reading() -> (Instant, Duration) {
    match READING.get() {
        Reading::Fresh => read_clock(),
        Reading::Held(reading) => reading,
        Reading::Wanted => {
            let reading = read_clock();
            READING.set(Reading::Held(reading));
            reading
        }
    }
}

/// Reads the clock. Within a [`OneReadingPerPoll`], the reading replaces the one that is held.
pub(super) fn fresh_reading() -> (Instant, Duration) {
    let reading = read_clock();
    if !matches!(READING.get(), Reading::Fresh) {
        READING.set(Reading::Held(reading));
    }
    reading
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::pause_clock::{ActiveInstant, ActiveSleep, sleep};

    const STEP: Duration = Duration::from_secs(1);

    /// Time goes on between the polls of a future, not within one, and within its siblings as before.
    #[tokio::test(start_paused = true)]
    async fn the_time_stands_still_within_a_poll_alone() {
        let start = ActiveInstant::now();
        let held = OneReadingPerPoll::new(async move {
            let first = ActiveInstant::now();
            assert_eq!(first, start);
            // Ready at once, so it is the same poll.
            advance_now(STEP);
            assert_eq!((ActiveInstant::now(), first.elapsed()), (first, Duration::ZERO));
            tokio::task::yield_now().await;
            assert_eq!(ActiveInstant::now(), start + STEP);
            let nested = OneReadingPerPoll::new(async {
                advance_now(STEP);
                ActiveInstant::now()
            });
            assert_eq!(nested.await, start + STEP * 2, "a poll within a poll has its own reading");
            assert_eq!(ActiveInstant::now(), start + STEP);
        });
        held.await;
        assert_eq!(ActiveInstant::now(), start + STEP * 2);
    }

    /// Regression: what waits until the time at which something is allowed, and then still finds it too early, would wait
    /// again and again within one poll.
    #[tokio::test(start_paused = true)]
    async fn after_a_wait_in_the_same_poll_its_deadline_has_passed() {
        let start = Instant::now();
        OneReadingPerPoll::new(async {
            let first = ActiveInstant::now();
            advance_now(STEP);
            ActiveSleep::until(first + STEP).await;
            assert!(ActiveInstant::now() >= first + STEP);
            let second = ActiveInstant::now();
            advance_now(STEP);
            sleep(second + STEP - ActiveInstant::now()).await;
            assert!(ActiveInstant::now() >= second + STEP);
        })
        .await;
        assert!(start.elapsed() >= STEP * 2);
    }

    #[test]
    fn a_panic_within_a_poll_does_not_hold_the_time_for_ever() {
        let panicking = std::panic::catch_unwind(|| {
            let mut future = OneReadingPerPoll::new(async { panic!("on purpose") });
            _ = Pin::new(&mut future).poll(&mut Context::from_waker(std::task::Waker::noop()));
        });
        assert!(panicking.is_err() && matches!(READING.get(), Reading::Fresh));
    }

    /// Moves the paused clock of the test without a wait.
    fn advance_now(step: Duration) {
        let mut advance = std::pin::pin!(advance(step));
        // The clock moves at the first poll; what follows is a yield.
        _ = advance.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
    }
}
