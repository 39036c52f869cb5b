use std::sync::atomic::AtomicBool;

use super::*;

const STALL: Duration = Duration::from_secs(60);

/// A value that records its termination and its drop.
struct TestValue(Arc<Mutex<Vec<TerminationReason>>>, Arc<AtomicBool>);

impl Sweepable for TestValue {
    fn terminate(&mut self, reason: TerminationReason) {
        self.0.lock().unwrap().push(reason);
    }
}

impl Drop for TestValue {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

struct Watched {
    handle: SweepHandle<TestValue>,
    terminations: Arc<Mutex<Vec<TerminationReason>>>,
    dropped: Arc<AtomicBool>,
}

fn watched(sweeper: &Arc<StallSweeper>, deadline: Option<ActiveInstant>) -> Watched {
    let (terminations, dropped) = (Arc::default(), Arc::default());
    let handle = SweepHandle::new(sweeper, TestValue(Arc::clone(&terminations), Arc::clone(&dropped)), deadline);
    Watched { handle, terminations, dropped }
}

impl Watched {
    fn termination(&self) -> Option<TerminationReason> {
        assert_eq!(self.terminations.lock().unwrap().is_empty(), !self.dropped.load(Ordering::SeqCst));
        self.terminations.lock().unwrap().first().copied()
    }

    fn give(&self) {
        assert!(matches!(self.handle.poll_with(|_| PollStep::Item(())), Poll::Ready(PollOutcome::Item(()))));
    }

    fn wait(&self) {
        assert!(self.handle.poll_with(|_| PollStep::<()>::Pending).is_pending());
    }
}

#[test]
fn only_a_response_that_its_client_leaves_unread_is_terminated() {
    let sweeper = StallSweeper::new(STALL, CancellationToken::new());
    let (untouched, moving, waiting) = (watched(&sweeper, None), watched(&sweeper, None), watched(&sweeper, None));
    waiting.wait();
    let start = ActiveInstant::now();
    for second in 0..=60 {
        moving.give();
        sweeper.sweep_once(start + Duration::from_secs(second));
        assert_eq!(untouched.termination(), (second == 60).then_some(TerminationReason::Stalled), "{second}");
    }
    assert_eq!((moving.termination(), waiting.termination()), (None, None));
    assert!(matches!(
        untouched.handle.poll_with(|_| PollStep::Item(())),
        Poll::Ready(PollOutcome::Ended(Some(TerminationReason::Stalled)))
    ));
}

#[test]
fn a_client_that_keeps_reading_has_until_the_deadline() {
    let sweeper = StallSweeper::new(STALL, CancellationToken::new());
    let start = ActiveInstant::now();
    let (moving, waiting) = (watched(&sweeper, Some(start + STALL)), watched(&sweeper, Some(start + STALL)));
    waiting.wait();
    for second in 0..=60 {
        assert_eq!(moving.termination(), None);
        moving.give();
        sweeper.sweep_once(start + Duration::from_secs(second));
    }
    assert_eq!(
        (moving.termination(), waiting.termination()),
        (Some(TerminationReason::TimedOut), None),
        "a response that waits for llama-server has its own timer"
    );
}

#[test]
fn the_abort_terminates_all_responses_but_one_that_is_being_polled() {
    let sweeper = StallSweeper::new(STALL, CancellationToken::new());
    let (idle, polled) = (watched(&sweeper, None), watched(&sweeper, None));
    sweeper.abort.cancel();
    let sweeps = polled.handle.poll_with(|_| {
        sweeper.sweep_once(ActiveInstant::now());
        PollStep::Item(())
    });
    assert!(matches!(sweeps, Poll::Ready(PollOutcome::Item(()))));
    assert_eq!((idle.termination(), polled.termination()), (Some(TerminationReason::ShutDown), None));
    sweeper.sweep_once(ActiveInstant::now());
    assert_eq!(polled.termination(), Some(TerminationReason::ShutDown));
}

#[test]
fn a_value_that_ends_or_is_dropped_is_dropped_at_once_and_its_index_is_reused() {
    let sweeper = StallSweeper::new(STALL, CancellationToken::new());
    let ends = watched(&sweeper, None);
    assert!(matches!(ends.handle.poll_with(|_| PollStep::Last(())), Poll::Ready(PollOutcome::Last(()))));
    assert!(ends.dropped.load(Ordering::SeqCst));
    assert!(matches!(ends.handle.poll_with(|_| PollStep::Item(())), Poll::Ready(PollOutcome::Ended(None))));
    for _ in 0..100 {
        let Watched { handle, dropped, .. } = watched(&sweeper, None);
        drop(handle);
        assert!(dropped.load(Ordering::SeqCst));
    }
    assert_eq!(sweeper.lock().entries.len(), 2);
}

/// A value that owns another handle, like a heartbeat whose wait has just become a response.
struct OuterValue(#[expect(dead_code, reason = "held for its drop")] SweepHandle<TestValue>);

impl Sweepable for OuterValue {
    fn terminate(&mut self, _: TerminationReason) {}
}

#[test]
fn a_terminated_value_may_itself_own_a_handle() {
    let sweeper = StallSweeper::new(STALL, CancellationToken::new());
    let Watched { handle: inner, dropped, .. } = watched(&sweeper, None);
    inner.poll_with(|_| PollStep::<()>::Pending).is_pending();
    let _outer = SweepHandle::new(&sweeper, OuterValue(inner), None);
    sweeper.abort.cancel();
    sweeper.sweep_once(ActiveInstant::now());
    assert!(dropped.load(Ordering::SeqCst));
}
