//! The state transitions of a worker, read from the gateway's log: which ones exist, and when each is allowed.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// When a transition is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    /// As the first transition, or after the worker was put to sleep.
    FirstOrAfterSleep,
    /// When the worker is put to sleep or is not needed after a failed start, where IDLE_UNLOAD is on; or at shutdown.
    SleepOrShutdown,
    /// When the service is stopped.
    Shutdown,
}

/// All transitions: from, event, to. A table of its own, because it checks the one of `worker/state.rs`. No transition
/// leads to `failed`: RESTART_LIMIT is too high to be reached.
const TRANSITIONS: &[(&str, &str, &str, Condition)] = &[
    ("stopped", "StartBegun", "starting", Condition::FirstOrAfterSleep),
    ("starting", "AnswersLoading", "loading", Condition::Always),
    ("starting", "AnswersReady", "ready", Condition::Always),
    ("starting", "Ended", "backoff", Condition::Always),
    // The clients that woke the worker may all be gone before its process is started.
    ("starting", "StopAsked", "draining", Condition::SleepOrShutdown),
    ("loading", "AnswersReady", "ready", Condition::Always),
    ("loading", "Ended", "backoff", Condition::Always),
    ("loading", "StopAsked", "draining", Condition::Shutdown),
    ("ready", "ProbesFailed", "unhealthy", Condition::Always),
    ("ready", "Ended", "backoff", Condition::Always),
    ("ready", "StopAsked", "draining", Condition::SleepOrShutdown),
    ("unhealthy", "AnswersReady", "ready", Condition::Always),
    ("unhealthy", "Ended", "backoff", Condition::Always),
    ("unhealthy", "StopAsked", "draining", Condition::Shutdown),
    ("backoff", "StartBegun", "starting", Condition::Always),
    // The clients that woke the worker may all be gone when its backoff is over.
    ("backoff", "StopAsked", "stopped", Condition::SleepOrShutdown),
    ("draining", "Stopped", "stopped", Condition::Always),
];

/// The transitions of one gateway's worker so far.
#[derive(Debug)]
pub(crate) struct WorkerStates {
    log: PathBuf,
    offset: u64,
    unloads_idle: bool,
    at: String,
    taken: u64,
    /// Whether the worker has been told to stop for good.
    is_ending: bool,
    /// Starts after an unexpected exit.
    pub(crate) restarts: u64,
    /// Starts after the worker was put to sleep.
    pub(crate) wakes: usize,
}

impl WorkerStates {
    /// Follows the log of a gateway; `unloads_idle` says whether IDLE_UNLOAD is on.
    pub(crate) fn new(log: &Path, unloads_idle: bool) -> Self {
        let (log, at) = (log.to_owned(), "stopped".to_owned());
        WorkerStates { log, offset: 0, unloads_idle, at, taken: 0, is_ending: false, restarts: 0, wakes: 0 }
    }

    /// Reads the new lines of the log; returns an error for a transition that is not allowed.
    pub(crate) fn read(&mut self) -> Result<(), String> {
        let mut text = String::new();
        let mut log = File::open(&self.log).map_err(|e| e.to_string())?;
        log.seek(SeekFrom::Start(self.offset)).map_err(|e| e.to_string())?;
        log.read_to_string(&mut text).map_err(|e| e.to_string())?;
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.offset += whole.len() as u64;
        for line in whole.lines().filter(|line| line.contains("\"worker state\"")) {
            let step: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
            let [from, event, to] = ["from", "event", "to"].map(|name| step[name].as_str().unwrap_or_default());
            self.apply(from, event, to).map_err(|what| format!("{what}: {line}"))?;
        }
        Ok(())
    }

    fn apply(&mut self, from: &str, event: &str, to: &str) -> Result<(), String> {
        if from != self.at {
            return Err(format!("the transition does not begin at the current state, {}", self.at));
        }
        let step = TRANSITIONS.iter().find(|step| (step.0, step.1, step.2) == (from, event, to));
        let Some((.., when)) = step else { return Err("there is no such transition".into()) };
        let in_time = match when {
            Condition::Always => !self.is_ending || to == "stopped",
            Condition::FirstOrAfterSleep => !self.is_ending && (self.taken == 0 || self.unloads_idle),
            Condition::SleepOrShutdown => {
                self.is_ending = !self.unloads_idle;
                true
            }
            Condition::Shutdown => !std::mem::replace(&mut self.is_ending, true),
        };
        if !in_time {
            return Err("a transition at the wrong time".into());
        }
        self.wakes += usize::from(*when == Condition::FirstOrAfterSleep && self.taken > 0);
        self.restarts += u64::from((from, to) == ("backoff", "starting"));
        self.taken += 1;
        self.at = to.to_owned();
        Ok(())
    }

    /// Whether the worker has been told to stop for good.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Whether the worker is stopped.
    pub(crate) fn has_ended(&self) -> bool {
        self.at == "stopped"
    }
}

#[test]
fn transitions_that_are_not_allowed_are_found() {
    let walk = |unloads_idle: bool, steps: &[(&str, &str, &str)]| {
        let mut seen = WorkerStates::new(Path::new("/nowhere"), unloads_idle);
        steps.iter().try_for_each(|(from, event, to)| seen.apply(from, event, to)).map(|()| seen)
    };
    const BEGIN: (&str, &str, &str) = ("stopped", "StartBegun", "starting");
    const READY: (&str, &str, &str) = ("starting", "AnswersReady", "ready");
    const STOP: (&str, &str, &str) = ("ready", "StopAsked", "draining");
    const STOPPED: (&str, &str, &str) = ("draining", "Stopped", "stopped");
    let died = [BEGIN, READY, ("ready", "Ended", "backoff"), ("backoff", "StartBegun", "starting"), READY];
    assert_eq!(walk(false, &died).unwrap().restarts, 1);
    let slept = walk(true, &[BEGIN, READY, STOP, STOPPED, BEGIN, READY]).unwrap();
    assert_eq!((slept.restarts, slept.wakes), (0, 1));
    assert!(walk(false, &[BEGIN, READY, STOP, STOPPED]).unwrap().has_ended());
    let given_up = [BEGIN, ("starting", "Ended", "backoff"), ("backoff", "StopAsked", "stopped"), BEGIN];
    let not_needed = walk(true, &given_up).unwrap();
    assert_eq!((not_needed.restarts, not_needed.wakes), (0, 1));
    for (unloads_idle, wrong) in [
        (false, &[BEGIN, READY, STOP, STOPPED, BEGIN][..]),
        (false, &given_up),
        (true, &[BEGIN, ("loading", "AnswersReady", "ready")]),
        (true, &[BEGIN, ("starting", "BudgetSpent", "failed")]),
        (false, &[BEGIN, ("starting", "StopAsked", "draining"), STOPPED, BEGIN]),
        (true, &[BEGIN, READY, ("ready", "StartBegun", "starting")]),
    ] {
        assert!(walk(unloads_idle, wrong).is_err(), "{wrong:?}");
    }
}
