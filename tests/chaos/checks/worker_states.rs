//! The steps of a worker: each one, as the gateway's own log tells it, and which may follow which.

use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// When a step may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// As the first one, or by one that was put to sleep.
    Asleep,
    /// To sleep, where that is on, or for good.
    Unused,
    /// When the service is being stopped.
    AtTheEnd,
}

/// Every step there is. This is what `worker/state.rs` is held to, so it is not taken from there. None may fail for
/// good: the budget of restarts is as good as endless.
const STEPS: &[(&str, &str, &str, When)] = &[
    ("stopped", "StartBegun", "starting", When::Asleep),
    ("starting", "AnswersLoading", "loading", When::Always),
    ("starting", "AnswersReady", "ready", When::Always),
    ("starting", "Ended", "backoff", When::Always),
    ("starting", "StopAsked", "draining", When::AtTheEnd),
    ("loading", "AnswersReady", "ready", When::Always),
    ("loading", "Ended", "backoff", When::Always),
    ("loading", "StopAsked", "draining", When::AtTheEnd),
    ("ready", "ProbesFailed", "unhealthy", When::Always),
    ("ready", "Ended", "backoff", When::Always),
    ("ready", "StopAsked", "draining", When::Unused),
    ("unhealthy", "AnswersReady", "ready", When::Always),
    ("unhealthy", "Ended", "backoff", When::Always),
    ("unhealthy", "StopAsked", "draining", When::AtTheEnd),
    ("backoff", "StartBegun", "starting", When::Always),
    ("backoff", "StopAsked", "stopped", When::AtTheEnd),
    ("draining", "Stopped", "stopped", When::Always),
];

/// The steps of one gateway's worker so far.
#[derive(Debug)]
pub(crate) struct Steps {
    log: PathBuf,
    offset: u64,
    sleeps: bool,
    at: String,
    taken: u64,
    /// It has been told to stop for good.
    is_ending: bool,
    /// Starts after an end that was not wanted.
    pub(crate) restarts: u64,
    /// Starts of one that slept.
    pub(crate) wakes: usize,
}

impl Steps {
    /// Of the gateway that writes this log; whether it puts its worker to sleep.
    pub(crate) fn new(log: &Path, sleeps: bool) -> Self {
        let (log, at) = (log.to_owned(), "stopped".to_owned());
        Steps { log, offset: 0, sleeps, at, taken: 0, is_ending: false, restarts: 0, wakes: 0 }
    }

    /// Reads what has been logged since; an error tells of a step that must not be.
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
            self.take(from, event, to).map_err(|what| format!("{what}: {line}"))?;
        }
        Ok(())
    }

    fn take(&mut self, from: &str, event: &str, to: &str) -> Result<(), String> {
        if from != self.at {
            return Err(format!("a step from where it was not: it was {}", self.at));
        }
        let step = STEPS.iter().find(|step| (step.0, step.1, step.2) == (from, event, to));
        let Some((.., when)) = step else { return Err("a step that there is not".into()) };
        let in_time = match when {
            When::Always => !self.is_ending || to == "stopped",
            When::Asleep => !self.is_ending && (self.taken == 0 || self.sleeps),
            When::Unused => {
                self.is_ending = !self.sleeps;
                true
            }
            When::AtTheEnd => !std::mem::replace(&mut self.is_ending, true),
        };
        if !in_time {
            return Err("a step at the wrong time".into());
        }
        self.wakes += usize::from(*when == When::Asleep && self.taken > 0);
        self.restarts += u64::from((from, to) == ("backoff", "starting"));
        self.taken += 1;
        self.at = to.to_owned();
        Ok(())
    }

    /// Whether it has been told to stop, though nobody has told the service to.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Whether the last step left it stopped.
    pub(crate) fn has_ended(&self) -> bool {
        self.at == "stopped"
    }
}

#[test]
fn steps_that_must_not_be_are_found() {
    let walk = |sleeps: bool, steps: &[(&str, &str, &str)]| {
        let mut seen = Steps::new(Path::new("/nowhere"), sleeps);
        steps.iter().try_for_each(|(from, event, to)| seen.take(from, event, to)).map(|()| seen)
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
    for (sleeps, wrong) in [
        (false, &[BEGIN, READY, STOP, STOPPED, BEGIN][..]),
        (true, &[BEGIN, ("loading", "AnswersReady", "ready")]),
        (true, &[BEGIN, ("starting", "BudgetSpent", "failed")]),
        (true, &[BEGIN, ("starting", "StopAsked", "draining"), STOPPED, BEGIN]),
        (true, &[BEGIN, READY, ("ready", "StartBegun", "starting")]),
    ] {
        assert!(walk(sleeps, wrong).is_err(), "{wrong:?}");
    }
}
