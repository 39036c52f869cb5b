//! Waiting for something to become true, with a name and a deadline for every wait.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// A process is up and listens.
pub(crate) const STARTS: Duration = Duration::from_secs(10);
/// A fake model has been loaded and the gateway says ready.
pub(crate) const READY: Duration = Duration::from_secs(15);
/// A real (tiny) model has been loaded.
pub(crate) const REAL_MODEL_READY: Duration = Duration::from_secs(60);
/// A process has ended after it was told to.
pub(crate) const STOPS: Duration = Duration::from_secs(15);
/// The next piece of an answer has come.
pub(crate) const ANSWERS: Duration = Duration::from_secs(15);
/// The same of a real model, which computes on a machine that does other things too.
pub(crate) const REAL_MODEL_ANSWERS: Duration = Duration::from_secs(120);
/// Something that follows at once has followed: a journal record, a released slot.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Enough probes in a row have failed, or passed again: three of 2 s, 5 s apart.
pub(crate) const PROBES_FAIL: Duration = Duration::from_secs(60);

/// The pause between two looks.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// `deadline` on this machine: LLAMAGATE_TEST_PATIENCE times as long.
pub(crate) fn patient(deadline: Duration) -> Duration {
    static PATIENCE: OnceLock<f64> = OnceLock::new();
    let patience = PATIENCE.get_or_init(|| match std::env::var("LLAMAGATE_TEST_PATIENCE") {
        Ok(factor) => factor.parse().expect("LLAMAGATE_TEST_PATIENCE is a number"),
        Err(_) => 1.0,
    });
    deadline.mul_f64(*patience)
}

/// Waits until `condition` holds; panics with `what` past the deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, deadline, || condition().then_some(()));
}

/// Waits until `look` finds something, and returns it; panics with `what` past the deadline.
#[track_caller]
pub(crate) fn eventually_some<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = patient(deadline);
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        thread::sleep(POLL);
    }
}

/// Watches for the whole `window` that `condition` keeps holding. Costs that time: prefer an event.
#[track_caller]
pub(crate) fn keeps(what: &str, window: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < window {
        assert!(condition(), "no longer true after {:?}: {what}", begin.elapsed());
        thread::sleep(POLL);
    }
}
