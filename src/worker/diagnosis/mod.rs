//! Diagnoses why a llama-server ended: exit code, signal, log and the kernel's OOM kill counters become one cause and
//! one hint.
//!
//! It owns the order in which the evidence counts, and the hint of each cause. It never quotes a path, a key or a
//! client's text, because hints are shown on `/health`. The supervisor decides what to do about it.
//!
//! - `allocation.rs`: failed memory allocations
//! - `cause.rs`: the causes, their names in logs, and a cause with its hint
//! - `ending.rs`: what signals and exit codes mean
//! - `evidence.rs`: what is known about the end of a process
//! - `gpu_use.rs`: whether a load found a GPU
//! - `log.rs`: the log of a process without the lines about requests, and what may be quoted of it
//! - `machine.rs`: libraries, GPU, port, threads, arguments
//! - `model.rs`: model files that llama-server rejects
//! - `peers.rs`: the `rpc-server`s of other machines

mod allocation;
pub(super) mod cause;
pub(super) mod ending;
pub(super) mod evidence;
pub(super) mod gpu_use;
pub(super) mod log;
mod machine;
pub(super) mod model;
pub(super) mod peers;

use nix::sys::signal::Signal;

use cause::Diagnosis;
use evidence::Evidence;
use log::WorkerLog;

/// Returns the most specific cause that the evidence supports; [`cause::FailureCause::Unknown`] if there is none.
pub(super) fn diagnose(evidence: &Evidence) -> Diagnosis {
    let log = WorkerLog::of(evidence.tail, evidence.has_served);
    let signal = ending::signal(evidence);
    // These signals come without a line in the log; earlier errors in it would mislead.
    if let Some(sudden) = ending::sudden(evidence, signal, &log) {
        return sudden;
    }
    if evidence.is_rpc_server
        && !evidence.has_served
        && let Some(refused) = peers::rpc_server(&log)
    {
        return refused;
    }
    // After a clean exit or a termination request, errors in the log are not the cause.
    if evidence.code == Some(0) || ending::is_termination_request(signal) {
        return ending::unknown(evidence, signal, &log);
    }
    if evidence.has_served {
        return diagnose_served(evidence, signal, &log);
    }
    // The order matters. A missing GPU, for instance, does not end llama-server by itself, so it comes near the end.
    machine::library(&log)
        .or_else(|| machine::argument(&log))
        .or_else(|| machine::port(&log))
        .or_else(|| peers::failed(evidence.lost_peers, &log))
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

/// Diagnoses a llama-server that was ready before. Leaves out the causes that only a start can have. A crash signal
/// counts more than any line of the log, because clients can make llama-server log almost any text.
fn diagnose_served(evidence: &Evidence, signal: Option<Signal>, log: &WorkerLog) -> Diagnosis {
    ending::crash(signal)
        .or_else(|| peers::lost(evidence.lost_peers))
        .or_else(|| allocation::shortage(log))
        .or_else(|| machine::gpu_error(log))
        .or_else(|| machine::threads(log))
        .or_else(|| peers::failed(evidence.lost_peers, log))
        .or_else(|| ending::abort(signal, log))
        .unwrap_or_else(|| ending::unknown(evidence, signal, log))
}

#[cfg(test)]
mod tests;
