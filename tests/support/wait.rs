//! Waiting for conditions: every wait has a name and a deadline.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// A process has started and listens.
pub(crate) const STARTS: Duration = Duration::from_secs(10);
/// The fake has loaded its model and the gateway is ready.
pub(crate) const READY: Duration = Duration::from_secs(15);
/// The real llama-server has loaded a tiny model.
pub(crate) const REAL_MODEL_READY: Duration = Duration::from_secs(60);
/// A process has ended after a request to stop.
pub(crate) const STOPS: Duration = Duration::from_secs(15);
/// The next piece of a response has arrived.
pub(crate) const ANSWERS: Duration = Duration::from_secs(15);
/// The next piece of a response of the real llama-server has arrived, on a busy machine.
pub(crate) const REAL_MODEL_ANSWERS: Duration = Duration::from_secs(120);
/// An immediate effect has happened: a journal record, a released slot.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Enough probes in a row have failed or succeeded: three probes of 2 s, 5 s apart.
pub(crate) const PROBES_FAIL: Duration = Duration::from_secs(60);

/// The polling interval.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// Multiplies `deadline` by LLAMAGATE_TEST_PATIENCE, for slow machines.
pub(crate) fn patient(deadline: Duration) -> Duration {
    static PATIENCE: OnceLock<f64> = OnceLock::new();
    let patience = PATIENCE.get_or_init(|| match std::env::var("LLAMAGATE_TEST_PATIENCE") {
        Ok(factor) => factor.parse().expect("LLAMAGATE_TEST_PATIENCE is a number"),
        Err(_) => 1.0,
    });
    deadline.mul_f64(*patience)
}

/// Waits until `condition` holds; panics with `what` after the deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, deadline, || condition().then_some(()));
}

/// Waits until `find` returns `Some`, and returns the value; panics with `what` after the deadline.
#[track_caller]
pub(crate) fn eventually_some<T>(what: &str, deadline: Duration, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = patient(deadline);
    let begin = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begin.elapsed() < deadline, "not true within {deadline:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Asserts that `condition` holds for the whole `window`. It takes that time: prefer to wait for an event.
#[track_caller]
pub(crate) fn assert_throughout(what: &str, window: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < window {
        assert!(condition(), "no longer true after {:?}: {what}", begin.elapsed());
        thread::sleep(POLL);
    }
}
