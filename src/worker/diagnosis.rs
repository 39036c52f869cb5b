//! Why a llama-server ended: exit code, signal, log and the kernel's count of kills become one cause and one hint.
//!
//! It owns the order in which the evidence counts and what is known of each cause. It never quotes a path, a key or
//! what a client wrote, for hints are shown on `/health`. What is done about an end is `supervisor.rs`'s.

mod allocation;
mod cause;
mod ending;
mod log;
mod machine;
mod model;

use super::memory::OomKill;
use crate::telemetry::files::Tail;
use crate::worker::bounds::HINT_LENGTH;
use log::Log;
use nix::sys::signal::Signal;
use std::time::Duration;

pub use cause::Cause;
pub(super) use ending::{crowded_out, not_started};
pub(super) use model::{unfit_file, unread_file};

/// All that is known about the end of a process.
pub(super) struct Evidence<'a> {
    /// The exit code, unless a signal ended it.
    pub(super) code: Option<i32>,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
    /// What it wrote last.
    pub(super) tail: &'a Tail,
    /// Whether it was ready before: then its log may hold what clients wrote, and nothing of it is quoted.
    pub(super) has_served: bool,
    /// Why its owner killed it, if it did.
    pub(super) killed: Option<Killed>,
    /// What the kernel's counters say.
    pub(super) memory: OomKill,
}

/// Why the owner of a process killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// Another server answered on its port.
    Stranger,
    /// It no longer answered its probes.
    Silent,
    /// It closed its port, and ran on.
    Closed,
    /// Its load made no progress for so long.
    LoadStalled(Duration),
    /// It worked for so long, and nothing came of it.
    Hung(Duration),
    /// It had nothing to do, and did not say for so long what it was doing.
    Mute(Duration),
    /// It failed one request after the other for want of a result.
    CannotCompute,
}

/// One cause and one sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) cause: Cause,
    pub(super) hint: String,
}

impl Diagnosis {
    fn new(cause: Cause, hint: impl AsRef<str>) -> Self {
        let hint = hint.as_ref().chars().filter(|c| !c.is_control()).take(HINT_LENGTH).collect();
        Self { cause, hint }
    }
}

/// The most telling cause that the evidence has; [`Cause::Unknown`] if it has none.
pub(super) fn diagnose(evidence: &Evidence) -> Diagnosis {
    let log = Log::of(evidence.tail, evidence.has_served);
    let signal = ending::signal(evidence);
    // A signal that nothing in a log explains, or that the log is too old for.
    if let Some(known) = ending::sudden(evidence, signal, &log) {
        return known;
    }
    // A clean end, or an end that somebody asked for, has no error in its log that counts.
    if evidence.code == Some(0) || ending::is_polite(signal) {
        return ending::unknown(evidence, signal, &log);
    }
    if evidence.has_served {
        return at_work(evidence, signal, &log);
    }
    machine::library(&log)
        .or_else(|| machine::argument(&log))
        .or_else(|| machine::port(&log))
        .or_else(|| allocation::shortage(&log))
        .or_else(|| machine::gpu_error(&log))
        .or_else(|| model::file(&log))
        .or_else(|| machine::threads(&log))
        .or_else(|| ending::crash(signal))
        .or_else(|| ending::abort(signal, &log))
        .or_else(|| machine::no_gpu(&log))
        .or_else(|| ending::not_executable(evidence, &log))
        .unwrap_or_else(|| ending::unknown(evidence, signal, &log))
}

/// Of one that was ready before. What only a start can fail of is left out, and a crash is believed before any line:
/// clients can make llama-server write almost any.
fn at_work(evidence: &Evidence, signal: Option<Signal>, log: &Log) -> Diagnosis {
    ending::crash(signal)
        .or_else(|| allocation::shortage(log))
        .or_else(|| machine::gpu_error(log))
        .or_else(|| machine::threads(log))
        .or_else(|| ending::abort(signal, log))
        .unwrap_or_else(|| ending::unknown(evidence, signal, log))
}

#[cfg(test)]
mod tests;
