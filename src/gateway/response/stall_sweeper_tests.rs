use super::*;
use std::sync::atomic::AtomicBool;

const STALL: Duration = Duration::from_secs(60);

/// Tells when it was taken and dropped.
struct Thing(Arc<Mutex<Vec<Taken>>>, Arc<AtomicBool>);

impl Held for Thing {
    fn is_taken(&mut self, why: Taken) {
        self.0.lock().unwrap().push(why);
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

struct Watched {
    hold: Hold<Thing>,
    taken: Arc<Mutex<Vec<Taken>>>,
    dropped: Arc<AtomicBool>,
}

fn hold(holdings: &Arc<Holdings>, deadline: Option<ActiveInstant>) -> Watched {
    let (taken, dropped) = (Arc::default(), Arc::default());
    let hold = Hold::new(holdings, Thing(Arc::clone(&taken), Arc::clone(&dropped)), deadline);
    Watched { hold, taken, dropped }
}

impl Watched {
    fn is_gone(&self) -> Option<Taken> {
        assert_eq!(self.taken.lock().unwrap().is_empty(), !self.dropped.load(Ordering::SeqCst));
        self.taken.lock().unwrap().first().copied()
    }

    fn gives(&self) {
        assert!(matches!(self.hold.step(|_| Step::Gives(())), Poll::Ready(Given::One(()))));
    }

    fn waits(&self) {
        assert!(self.hold.step(|_| Step::<()>::Waits).is_pending());
    }
}

#[test]
fn only_what_its_client_leaves_untouched_is_taken() {
    let holdings = Holdings::new(STALL, CancellationToken::new());
    let (untouched, moving, waiting) = (hold(&holdings, None), hold(&holdings, None), hold(&holdings, None));
    waiting.waits();
    let start = ActiveInstant::now();
    for second in 0..=60 {
        moving.gives();
        holdings.sweep_once(start + Duration::from_secs(second));
        assert_eq!(untouched.is_gone(), (second == 60).then_some(Taken::Stalled), "{second}");
    }
    assert_eq!((moving.is_gone(), waiting.is_gone()), (None, None));
    assert!(matches!(untouched.hold.step(|_| Step::Gives(())), Poll::Ready(Given::Gone(Some(Taken::Stalled)))));
}

#[test]
fn a_client_that_moves_has_until_the_deadline() {
    let holdings = Holdings::new(STALL, CancellationToken::new());
    let start = ActiveInstant::now();
    let (moving, waiting) = (hold(&holdings, Some(start + STALL)), hold(&holdings, Some(start + STALL)));
    waiting.waits();
    for second in 0..=60 {
        assert_eq!(moving.is_gone(), None);
        moving.gives();
        holdings.sweep_once(start + Duration::from_secs(second));
    }
    assert_eq!((moving.is_gone(), waiting.is_gone()), (Some(Taken::Late), None), "who waits has a clock of its own");
}

#[test]
fn the_end_takes_all_but_what_is_being_looked_at() {
    let holdings = Holdings::new(STALL, CancellationToken::new());
    let (one, looked_at) = (hold(&holdings, None), hold(&holdings, None));
    holdings.cut.cancel();
    let sweeps = looked_at.hold.step(|_| {
        holdings.sweep_once(ActiveInstant::now());
        Step::Gives(())
    });
    assert!(matches!(sweeps, Poll::Ready(Given::One(()))));
    assert_eq!((one.is_gone(), looked_at.is_gone()), (Some(Taken::Cut), None));
    holdings.sweep_once(ActiveInstant::now());
    assert_eq!(looked_at.is_gone(), Some(Taken::Cut));
}

#[test]
fn what_ends_or_is_dropped_is_dropped_at_once_and_its_place_is_used_again() {
    let holdings = Holdings::new(STALL, CancellationToken::new());
    let ends = hold(&holdings, None);
    assert!(matches!(ends.hold.step(|_| Step::Ends(())), Poll::Ready(Given::Last(()))));
    assert!(ends.dropped.load(Ordering::SeqCst));
    assert!(matches!(ends.hold.step(|_| Step::Gives(())), Poll::Ready(Given::Gone(None))));
    for _ in 0..100 {
        let Watched { hold, dropped, .. } = hold(&holdings, None);
        drop(hold);
        assert!(dropped.load(Ordering::SeqCst));
    }
    assert_eq!(holdings.lock().entries.len(), 2);
}

/// A thing that holds another one, as a wait does that has just become an answer.
struct Nest(#[expect(dead_code, reason = "held for its drop")] Hold<Thing>);

impl Held for Nest {
    fn is_taken(&mut self, _: Taken) {}
}

#[test]
fn what_is_taken_may_itself_hold_something() {
    let holdings = Holdings::new(STALL, CancellationToken::new());
    let Watched { hold: inner, dropped, .. } = hold(&holdings, None);
    inner.step(|_| Step::<()>::Waits).is_pending();
    let _outer = Hold::new(&holdings, Nest(inner), None);
    holdings.cut.cancel();
    holdings.sweep_once(ActiveInstant::now());
    assert!(dropped.load(Ordering::SeqCst));
}
