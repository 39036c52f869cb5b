//! The meaning of signals and exit codes.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::cause::{Diagnosis, FailureCause};
use super::evidence::{Evidence, KillReason};
use super::log::{WorkerLog, says_it_was_told_to_end};
use super::machine::lost_gpu;
use super::peers;
use crate::os::oom_kills::{OomCounters, OomKill};
use crate::telemetry::files::LogTail;
use crate::worker::peers::fault::PeerLoss;
use crate::worker::process::runtime_dir::RuntimeDirError;

/// A shell reports a child that a signal ended with this exit code plus the signal's number.
const SHELL_SIGNAL: i32 = 128;
/// The exit code of a shell that found the program but could not execute it.
const NOT_EXECUTABLE: i32 = 126;
/// The exit code of a shell that did not find the program, and of the dynamic loader if a library is missing.
const NOT_FOUND: i32 = 127;

/// Returns the signal, also if llama-server is started by a script that reports it as an exit code.
pub(super) fn signal(evidence: &Evidence) -> Option<Signal> {
    signal_of(evidence.code, evidence.signal)
}

fn signal_of(code: Option<i32>, signal: Option<i32>) -> Option<Signal> {
    let of_shell = code.map(|code| code.saturating_sub(SHELL_SIGNAL)).filter(|number| *number > 0);
    Signal::try_from(signal.or(of_shell)?).ok()
}

/// Whether another program or an operator ended the llama-server that has ended with this exit code or signal, so that,
/// as a rule, no request has caused it: by a signal that asks programs to end, which it follows with a line in its log
/// and exit code 0, or by SIGKILL. A SIGKILL that may be the kernel's, because memory ran out, may be due to a request;
/// `before` and `now` are the kernel's counters from before the start and from after the end. Exit code 0 alone may be
/// that of a script whose llama-server has crashed.
pub(in crate::worker) fn is_ended_from_outside(
    (code, signal): (Option<i32>, Option<i32>),
    (before, now): (&OomCounters, &OomCounters),
    tail: &LogTail,
) -> bool {
    match signal_of(code, signal) {
        Some(Signal::SIGKILL) => now.show_no_kill_since(before),
        None if code == Some(0) => says_it_was_told_to_end(tail),
        signal => is_termination_request(signal),
    }
}

/// Whether the signal is one that asks a program to end.
pub(super) fn is_termination_request(signal: Option<Signal>) -> bool {
    matches!(signal, Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT))
}

/// Returns a diagnosis for signals that leave no line in the log.
pub(super) fn sudden(evidence: &Evidence, signal: Option<Signal>, log: &WorkerLog) -> Option<Diagnosis> {
    match signal? {
        Signal::SIGILL => {
            let hint = "it used an instruction that this CPU lacks: take a llama.cpp build for this CPU";
            Some(Diagnosis::new(FailureCause::IllegalInstruction, hint))
        }
        // The owner's reason counts only after SIGKILL: the process may have crashed by itself just before the kill.
        Signal::SIGKILL => Some(match evidence.killed {
            Some(killed) => killed_by_owner(killed, evidence.lost_peers),
            None => killed_by_others(evidence.memory, log),
        }),
        Signal::SIGSYS => {
            let hint = "a system call was forbidden to it: check the seccomp profile of the container";
            Some(Diagnosis::new(FailureCause::Killed, hint))
        }
        _ => None,
    }
}

/// Returns the diagnosis for a SIGKILL that its owner sent.
fn killed_by_owner(killed: KillReason, lost_peers: &[PeerLoss]) -> Diagnosis {
    // A llama-server without its other machines neither loads nor computes nor answers.
    if let Some(lost) = peers::lost(lost_peers) {
        return lost;
    }
    match killed {
        KillReason::Stranger => Diagnosis::new(
            FailureCause::PortInUse,
            "another server answered on its port; the next start takes another one",
        ),
        KillReason::Silent => {
            Diagnosis::new(FailureCause::Unresponsive, "it no longer answered its probes and was killed")
        }
        KillReason::Closed => {
            let hint = "it closed its port and waited for its clients to leave, so it was killed; another program has \
                        probably asked it to end (SIGTERM)";
            Diagnosis::new(FailureCause::Killed, hint)
        }
        KillReason::LoadStalled(time) => {
            let hint = format!(
                "its load made no progress for {} and it was killed: raise LOAD_TIMEOUT if the disk is slow",
                seconds(time)
            );
            Diagnosis::new(FailureCause::LoadStalled, hint)
        }
        KillReason::ListensElsewhere { found, expected } => {
            let hint = format!(
                "it listens on {found} and not on {expected}, so no request can reach it, and it was killed: a script \
                 that starts it must pass on --host and --port as they are"
            );
            Diagnosis::new(FailureCause::ListensElsewhere, hint)
        }
        KillReason::Hung(time) => {
            let hint = format!(
                "it hung: it worked for {}, nothing came of it, and it was killed; if batches take that long here, \
                 raise HANG_TIMEOUT or lower --batch-size in EXTRA_ARGS",
                seconds(time)
            );
            Diagnosis::new(FailureCause::Hung, hint)
        }
        KillReason::Mute(time) => {
            let hint =
                format!("it hung: it had nothing to do, did not answer /metrics for {}, and was killed", seconds(time));
            Diagnosis::new(FailureCause::Hung, hint)
        }
        KillReason::CannotCompute => {
            let hint = "it failed to compute one request after the other and was killed; its log says why, and often \
                        the GPU has failed or has no memory left";
            Diagnosis::new(FailureCause::CannotCompute, hint)
        }
        KillReason::PeerLost => {
            let hint = "another machine that computes a part of its model (`rpc`) was lost";
            Diagnosis::new(FailureCause::PeerLost, hint)
        }
    }
}

/// Formats a time for a hint: `0.8 s`, `120 s`.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{seconds} s"),
    }
}

/// Returns the diagnosis for a SIGKILL that its owner did not send.
fn killed_by_others(memory: OomKill, log: &WorkerLog) -> Diagnosis {
    let gpu = lost_gpu(log).map(|gpu| format!(", {gpu}")).unwrap_or_default();
    match memory {
        OomKill::InGroup { limit_mib } => {
            let limit = limit_mib.map(|mib| format!(" of {mib} MiB")).unwrap_or_default();
            let advice = "lower CTX or PARALLEL, or take a smaller quantisation";
            let hint = format!(
                "out of host memory: raise the memory limit{limit}, {advice} (the kernel killed it: out of memory{gpu})"
            );
            Diagnosis::new(FailureCause::OutOfHostMemory, hint)
        }
        OomKill::OnMachine => {
            let advice = "lower CTX or PARALLEL, take a smaller quantisation, or free memory on the machine";
            let killed = "the kernel killed a process while it ran";
            let hint = format!("out of host memory, most likely: {advice} ({killed}: out of memory{gpu})");
            Diagnosis::new(FailureCause::OutOfHostMemory, hint)
        }
        OomKill::No => Diagnosis::new(
            FailureCause::Killed,
            "it was killed from outside (SIGKILL), by an operator, the platform or another program",
        ),
        OomKill::NotKnown => {
            let hint = "it was killed (SIGKILL), maybe because the machine ran out of memory: look at the kernel's log";
            Diagnosis::new(FailureCause::Killed, hint)
        }
    }
}

/// Returns a diagnosis for a crash signal, about which llama-server itself cannot log anything.
pub(super) fn crash(signal: Option<Signal>) -> Option<Diagnosis> {
    let hint = match signal? {
        Signal::SIGSEGV => {
            "it crashed (segmentation fault): try another llama.cpp version; the last lines of its log may tell more"
        }
        Signal::SIGBUS => "it crashed (bus error): the model file was changed, or its disk failed, while it was in use",
        Signal::SIGFPE => "it crashed (arithmetic error): try another llama.cpp version",
        _ => return None,
    };
    Some(Diagnosis::new(FailureCause::Crashed, hint))
}

/// Returns a diagnosis for an abort that no line of the log explained.
pub(super) fn abort(signal: Option<Signal>, log: &WorkerLog) -> Option<Diagnosis> {
    signal.filter(|signal| *signal == Signal::SIGABRT)?;
    let words = abort_message(log).or_else(|| abort_kind(log).map(str::to_owned));
    let quote = words.map(|words| format!(": {words}")).unwrap_or_default();
    let hint = format!("it aborted (SIGABRT){quote}; try another llama.cpp version, or other EXTRA_ARGS");
    Some(Diagnosis::new(FailureCause::Aborted, hint))
}

/// Returns the kind of an abort, for logs that may not be quoted.
fn abort_kind(log: &WorkerLog) -> Option<&'static str> {
    if log.has_any(&["GGML_ASSERT("]) {
        Some("an assertion failed, which the end of its log names")
    } else if log.has_any(&["terminate called"]) {
        Some("an exception was not caught, which the end of its log names")
    } else {
        None
    }
}

/// Returns what llama-server or the C++ library logged when it aborted.
fn abort_message(log: &WorkerLog) -> Option<String> {
    // `FILE:LINE: words`. The file is a path and is not quoted.
    let assertion = log.recent().rev().find_map(|line| {
        let (location, words) = line.text.split_once(": ")?;
        let (file, number) = location.rsplit_once(':')?;
        let is_location = file.contains('.') && !file.contains(' ') && number.parse::<u32>().is_ok();
        if is_location { log.quote(words) } else { None }
    });
    let message = || log.after("what():").and_then(|words| log.quote(words));
    let type_name = || log.after("terminate called after throwing an instance of").and_then(|name| log.quote(name));
    assertion.or_else(message).or_else(type_name)
}

/// Returns a diagnosis for the exit codes of a shell, if llama-server is started by a script.
pub(super) fn not_executable(evidence: &Evidence, log: &WorkerLog) -> Option<Diagnosis> {
    let hint = match evidence.code? {
        _ if log.has_any(&["Exec format error", "cannot execute binary file"]) => WRONG_FORMAT,
        NOT_EXECUTABLE => "LLAMA_SERVER may not be executed, or is no program: check the file and its permissions",
        NOT_FOUND => "LLAMA_SERVER, or a program or a library that it starts, is missing: check the file",
        _ => return None,
    };
    Some(Diagnosis::new(FailureCause::NotStarted, hint))
}

const WRONG_FORMAT: &str = "LLAMA_SERVER is no program for this machine: take a build for its kind of CPU";

/// Returns the diagnosis for a process that could not be started.
pub(in crate::worker) fn not_started(error: &io::Error) -> Diagnosis {
    // `RuntimeDirError` arrives converted to an `io::Error`.
    if let Some(runtime_dir_error) = error.get_ref().and_then(|inner| inner.downcast_ref::<RuntimeDirError>()) {
        let RuntimeDirError(reason) = runtime_dir_error;
        let reason = reason.raw_os_error().map(|code| format!(" ({})", Errno::from_raw(code).desc()));
        let hint = format!(
            "a private folder for llama-server's key could not be made in shared memory or in a temporary \
             folder{}; free some room there, or point TMPDIR to where there is some",
            reason.unwrap_or_default()
        );
        return Diagnosis::new(FailureCause::NotStarted, hint);
    }
    let hint = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => "LLAMA_SERVER, or the interpreter that it names, is missing: check the file".to_owned(),
        Some(Errno::EACCES | Errno::EPERM) => {
            "LLAMA_SERVER may not be executed: check its permissions, and that its disk is not mounted noexec"
                .to_owned()
        }
        Some(Errno::ENOEXEC) => WRONG_FORMAT.to_owned(),
        Some(Errno::ETXTBSY) => "LLAMA_SERVER is being written to: the next start may find it complete".to_owned(),
        Some(Errno::EAGAIN) => {
            "no more processes are allowed: raise the limit on processes (pids.max, TasksMax or ulimit -u)".to_owned()
        }
        Some(Errno::ENOMEM) => "the machine has no memory for another process".to_owned(),
        Some(Errno::EMFILE | Errno::ENFILE) => "no more files can be opened: raise the limit on open files".to_owned(),
        Some(errno) => format!("llama-server could not be started: {}", errno.desc()),
        None => "llama-server could not be started".to_owned(),
    };
    Diagnosis::new(FailureCause::NotStarted, hint)
}

/// Returns the diagnosis for a load that does not fit beside these pinned models.
pub(in crate::worker) fn crowded_out(pinned: &[String]) -> Diagnosis {
    let names = pinned.join(", ");
    let hint = format!("it does not fit beside the pinned models ({names}); raise memory_budget or unpin one");
    Diagnosis::new(FailureCause::NoRoom, hint)
}

/// Returns the diagnosis if no cause is found: how the process ended, and the first error of its log if it may be
/// quoted.
pub(super) fn unknown(evidence: &Evidence, signal: Option<Signal>, log: &WorkerLog) -> Diagnosis {
    let how = match (signal, evidence.code, evidence.signal) {
        (Some(signal), _, _) => format!("a signal ended it ({signal})"),
        (None, Some(0), _) => "it ended by itself with exit code 0".to_owned(),
        (None, Some(code), _) => format!("it ended with exit code {code}"),
        (None, None, Some(number)) => format!("signal {number} ended it"),
        (None, None, None) => "it ended in an unknown way".to_owned(),
    };
    let was_requested = is_termination_request(signal);
    let error = if was_requested || evidence.code == Some(0) { None } else { log.first_error() };
    let quote = error.map(|error| format!("; its log says: {error}")).unwrap_or_default();
    let did_not_load = !evidence.has_served && log.has_any(&["exiting due to model loading error"]);
    match (was_requested, did_not_load) {
        (true, _) => Diagnosis::new(FailureCause::Killed, format!("{how} that came from outside")),
        (false, true) => Diagnosis::new(FailureCause::LoadFailed, format!("the model could not be loaded{quote}")),
        (false, false) => Diagnosis::new(FailureCause::Unknown, format!("{how}{quote}")),
    }
}
