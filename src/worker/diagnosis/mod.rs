//! Why a llama-server ended: exit code, signal, log and the kernel's count of kills become one cause and one hint.
//!
//! It owns the order in which the evidence counts and what is known of each cause. It never quotes a path, a key or
//! what a client wrote, for hints are shown on `/health`. What is done about an end is the supervisor's.
//!
//! - `allocation.rs`: memory that could not be allocated
//! - `cause.rs`: the causes, their names in logs, and a cause with its hint
//! - `ending.rs`: what signals and exit codes say
//! - `evidence.rs`: what is known about the end of a process
//! - `log.rs`: the log of a process without what clients wrote, and what may be quoted of it
//! - `machine.rs`: libraries, GPU, port, threads, arguments
//! - `model.rs`: model files that llama-server refuses

mod allocation;
pub(super) mod cause;
pub(super) mod ending;
pub(super) mod evidence;
mod log;
mod machine;
pub(super) mod model;

use cause::Diagnosis;
use evidence::Evidence;
use log::WorkerLog;
use nix::sys::signal::Signal;

/// The most telling cause that the evidence has; [`cause::FailureCause::Unknown`] if it has none.
pub(super) fn diagnose(evidence: &Evidence) -> Diagnosis {
    let log = WorkerLog::of(evidence.tail, evidence.has_served);
    let signal = ending::signal(evidence);
    // A signal that nothing in a log explains, or that the log is too old for.
    if let Some(known) = ending::sudden(evidence, signal, &log) {
        return known;
    }
    // A clean end, or an end that somebody asked for, has no error in its log that counts.
    if evidence.code == Some(0) || ending::is_termination_request(signal) {
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
fn at_work(evidence: &Evidence, signal: Option<Signal>, log: &WorkerLog) -> Diagnosis {
    ending::crash(signal)
        .or_else(|| allocation::shortage(log))
        .or_else(|| machine::gpu_error(log))
        .or_else(|| machine::threads(log))
        .or_else(|| ending::abort(signal, log))
        .unwrap_or_else(|| ending::unknown(evidence, signal, log))
}

#[cfg(test)]
mod tests;
