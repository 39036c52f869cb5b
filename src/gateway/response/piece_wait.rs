//! The wait for the next piece of a response, and what ends it without one: the end of the drain, the end of the worker,
//! or the time.
//!
//! A stream waits before each of its frames. So what ends a wait is asked only after it has woken the task, or when
//! another task polls: a wait that is merely repeated reads one flag.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::stall_sweeper::StallSweeper;
use crate::fleet::Lease;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::pause_clock::{ActiveInstant, ActiveSleep};
use crate::refusal::Refusal;

/// The wait for the next piece of one response.
pub(super) struct PieceWait {
    deadline: ActiveInstant,
    idle_timeout: Option<Duration>,
    /// When the last piece of a stream arrived; `None` before its first byte.
    last_piece_at: Option<ActiveInstant>,
    sweeper: Arc<StallSweeper>,
    /// Made when a piece is waited for: many responses are at hand as a whole.
    alarms: Option<Box<Alarms>>,
}

/// What ends a wait, and the task that it wakes.
struct Alarms {
    bell: Arc<Bell>,
    /// Wakes by `bell`.
    waker: Waker,
    /// Ready when the drain is over.
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ready when the worker has ended or is being stopped, even if its connections stay open.
    worker_gone: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: ActiveSleep,
}

/// Wakes a task, and remembers that it did.
struct Bell {
    has_rung: AtomicBool,
    task: Waker,
}

impl PieceWait {
    /// Begins with the deadline of the first piece. A stream then waits for each piece for `idle_timeout`.
    pub(super) fn new(deadline: ActiveInstant, idle_timeout: Option<Duration>, sweeper: &Arc<StallSweeper>) -> Self {
        Self { deadline, idle_timeout, last_piece_at: None, sweeper: Arc::clone(sweeper), alarms: None }
    }

    /// Makes the deadline that of the whole response, for a stream that becomes a single event.
    pub(super) fn stop_idle_timeout(&mut self) {
        self.idle_timeout = None;
    }

    /// Records that a piece of a stream has arrived. The timer is moved only at the first one and whenever it fires,
    /// because moving it with each piece would cost more.
    pub(super) fn record_piece(&mut self, now: ActiveInstant) {
        let Some(idle_timeout) = self.idle_timeout else { return };
        if self.last_piece_at.replace(now).is_none() {
            self.deadline = now + idle_timeout;
            if let Some(alarms) = &mut self.alarms {
                alarms.timer.reset(self.deadline);
                alarms.bell.ring_silently();
            }
        }
    }

    /// Returns the reason when waiting for the next piece is pointless.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, lease: &Lease) -> Poll<Refusal> {
        let alarms = self.alarms.get_or_insert_with(|| {
            Box::new(Alarms::new(context.waker(), self.sweeper.aborted(), lease.gone(), self.deadline))
        });
        if !alarms.must_be_asked(context.waker()) {
            return Poll::Pending;
        }
        let due = self.idle_timeout.and_then(|idle_timeout| Some(self.last_piece_at? + idle_timeout));
        alarms.poll(due)
    }
}

impl Alarms {
    fn new(
        task: &Waker,
        aborted: WaitForCancellationFutureOwned,
        worker_gone: WaitForCancellationFutureOwned,
        deadline: ActiveInstant,
    ) -> Self {
        let bell = Bell::rung(task);
        Self {
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            aborted: Box::pin(aborted),
            worker_gone: Box::pin(worker_gone),
            timer: ActiveSleep::until(deadline),
        }
    }

    /// Returns whether one of them may have gone off since it was asked, or would wake another task than this one.
    fn must_be_asked(&mut self, task: &Waker) -> bool {
        if !self.bell.task.will_wake(task) {
            self.bell = Bell::rung(task);
            self.waker = Waker::from(Arc::clone(&self.bell));
        }
        // Acquire: what was done before the bell rang is seen by those who are asked now.
        self.bell.has_rung.load(Ordering::Relaxed) && self.bell.has_rung.swap(false, Ordering::Acquire)
    }

    /// Asks each of them. `due` is when the time is up, if that has moved since the timer was set.
    fn poll(&mut self, due: Option<ActiveInstant>) -> Poll<Refusal> {
        let context = &mut Context::from_waker(&self.waker);
        if self.aborted.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        if self.worker_gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::BackendError);
        }
        while Pin::new(&mut self.timer).poll(context).is_ready() {
            match due {
                Some(due) if due > ActiveInstant::now() => self.timer.reset(due),
                _ => return Poll::Ready(Refusal::BackendTimeout),
            }
        }
        Poll::Pending
    }
}

impl Bell {
    /// Returns a bell that has rung, so that everybody is asked once.
    fn rung(task: &Waker) -> Arc<Self> {
        Arc::new(Self { has_rung: AtomicBool::new(true), task: task.clone() })
    }

    /// Has the alarms asked at the next poll, without waking the task.
    fn ring_silently(&self) {
        self.has_rung.store(true, Ordering::Release);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring_silently();
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio_util::sync::CancellationToken;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct CountedTask(AtomicUsize);

    impl Wake for CountedTask {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn task() -> (Arc<CountedTask>, Waker) {
        let task = Arc::<CountedTask>::default();
        (Arc::clone(&task), Waker::from(task))
    }

    /// Polls as a task does that waits for a piece. Returns the code of the reason why waiting is pointless.
    fn poll(alarms: &mut Alarms, task: &Waker) -> Option<&'static str> {
        if !alarms.must_be_asked(task) {
            return None;
        }
        match alarms.poll(None) {
            Poll::Ready(refusal) => Some(refusal.code()),
            Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_end_of_a_wait_wakes_the_task_that_waits_last() {
        for end in ["abort", "worker", "time"] {
            let (abort, gone) = (CancellationToken::new(), CancellationToken::new());
            let ((former, former_waker), (latter, latter_waker)) = (task(), task());
            let deadline = ActiveInstant::now() + LONG;
            let mut alarms =
                Alarms::new(&former_waker, abort.clone().cancelled_owned(), gone.clone().cancelled_owned(), deadline);
            for waker in [&former_waker, &former_waker, &latter_waker, &latter_waker] {
                assert_eq!(poll(&mut alarms, waker), None, "{end}");
            }
            let expected = match end {
                "abort" => {
                    abort.cancel();
                    Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN)
                }
                "worker" => {
                    gone.cancel();
                    Refusal::BackendError
                }
                _ => {
                    tokio::time::sleep(2 * LONG).await;
                    Refusal::BackendTimeout
                }
            };
            assert_eq!((former.0.load(Ordering::SeqCst), latter.0.load(Ordering::SeqCst)), (0, 1), "{end}");
            assert_eq!(poll(&mut alarms, &latter_waker), Some(expected.code()), "{end}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_fires_too_early_is_moved() {
        let (token, (_, waker)) = (CancellationToken::new(), task());
        let start = ActiveInstant::now();
        let mut alarms =
            Alarms::new(&waker, token.clone().cancelled_owned(), token.clone().cancelled_owned(), start + LONG);
        let due = Some(start + 3 * LONG);
        assert!(alarms.must_be_asked(&waker) && alarms.poll(due).is_pending());
        tokio::time::sleep(2 * LONG).await;
        assert!(alarms.must_be_asked(&waker) && alarms.poll(due).is_pending());
        tokio::time::sleep(2 * LONG).await;
        assert!(alarms.must_be_asked(&waker) && alarms.poll(due).is_ready());
    }
}
