use super::*;
use std::sync::atomic::AtomicBool;

const STALL: Duration = Duration::from_secs(60);

/// Tells when it was taken and dropped.
struct Thing(Arc<Mutex<Vec<TerminationReason>>>, Arc<AtomicBool>);

impl Sweepable for Thing {
    fn terminate(&mut self, why: TerminationReason) {
        self.0.lock().unwrap().push(why);
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

struct Watched {
    handle: SweepHandle<Thing>,
    taken: Arc<Mutex<Vec<TerminationReason>>>,
    dropped: Arc<AtomicBool>,
}

fn watched(holdings: &Arc<StallSweeper>, deadline: Option<ActiveInstant>) -> Watched {
    let (taken, dropped) = (Arc::default(), Arc::default());
    let hold = SweepHandle::new(holdings, Thing(Arc::clone(&taken), Arc::clone(&dropped)), deadline);
    Watched { handle: hold, taken, dropped }
}

impl Watched {
    fn termination(&self) -> Option<TerminationReason> {
        assert_eq!(self.taken.lock().unwrap().is_empty(), !self.dropped.load(Ordering::SeqCst));
        self.taken.lock().unwrap().first().copied()
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
    let holdings = StallSweeper::new(STALL, CancellationToken::new());
    let (untouched, moving, waiting) = (watched(&holdings, None), watched(&holdings, None), watched(&holdings, None));
    waiting.wait();
    let start = ActiveInstant::now();
    for second in 0..=60 {
        moving.give();
        holdings.sweep_once(start + Duration::from_secs(second));
        assert_eq!(untouched.termination(), (second == 60).then_some(TerminationReason::Stalled), "{second}");
    }
    assert_eq!((moving.termination(), waiting.termination()), (None, None));
    assert!(matches!(
        untouched.handle.poll_with(|_| PollStep::Item(())),
        Poll::Ready(PollOutcome::Ended(Some(TerminationReason::Stalled)))
    ));
}

#[test]
fn a_client_that_reads_on_has_until_the_deadline() {
    let holdings = StallSweeper::new(STALL, CancellationToken::new());
    let start = ActiveInstant::now();
    let (moving, waiting) = (watched(&holdings, Some(start + STALL)), watched(&holdings, Some(start + STALL)));
    waiting.wait();
    for second in 0..=60 {
        assert_eq!(moving.termination(), None);
        moving.give();
        holdings.sweep_once(start + Duration::from_secs(second));
    }
    assert_eq!(
        (moving.termination(), waiting.termination()),
        (Some(TerminationReason::TimedOut), None),
        "who waits has a clock of its own"
    );
}

#[test]
fn the_abort_terminates_all_responses_but_one_that_is_being_polled() {
    let holdings = StallSweeper::new(STALL, CancellationToken::new());
    let (one, looked_at) = (watched(&holdings, None), watched(&holdings, None));
    holdings.abort.cancel();
    let sweeps = looked_at.handle.poll_with(|_| {
        holdings.sweep_once(ActiveInstant::now());
        PollStep::Item(())
    });
    assert!(matches!(sweeps, Poll::Ready(PollOutcome::Item(()))));
    assert_eq!((one.termination(), looked_at.termination()), (Some(TerminationReason::ShutDown), None));
    holdings.sweep_once(ActiveInstant::now());
    assert_eq!(looked_at.termination(), Some(TerminationReason::ShutDown));
}

#[test]
fn a_value_that_ends_or_is_dropped_is_dropped_at_once_and_its_index_is_reused() {
    let holdings = StallSweeper::new(STALL, CancellationToken::new());
    let ends = watched(&holdings, None);
    assert!(matches!(ends.handle.poll_with(|_| PollStep::Last(())), Poll::Ready(PollOutcome::Last(()))));
    assert!(ends.dropped.load(Ordering::SeqCst));
    assert!(matches!(ends.handle.poll_with(|_| PollStep::Item(())), Poll::Ready(PollOutcome::Ended(None))));
    for _ in 0..100 {
        let Watched { handle: hold, dropped, .. } = watched(&holdings, None);
        drop(hold);
        assert!(dropped.load(Ordering::SeqCst));
    }
    assert_eq!(holdings.lock().entries.len(), 2);
}

/// A thing that holds another one, as a wait does that has just become an answer.
struct Nest(#[expect(dead_code, reason = "held for its drop")] SweepHandle<Thing>);

impl Sweepable for Nest {
    fn terminate(&mut self, _: TerminationReason) {}
}

#[test]
fn a_terminated_value_may_itself_own_a_handle() {
    let holdings = StallSweeper::new(STALL, CancellationToken::new());
    let Watched { handle: inner, dropped, .. } = watched(&holdings, None);
    inner.poll_with(|_| PollStep::<()>::Pending).is_pending();
    let _outer = SweepHandle::new(&holdings, Nest(inner), None);
    holdings.abort.cancel();
    holdings.sweep_once(ActiveInstant::now());
    assert!(dropped.load(Ordering::SeqCst));
}
