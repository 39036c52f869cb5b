//! The `rpc-server`s of other machines: those that cannot be used, and those that ended while a llama-server used them.

use super::cause::{Diagnosis, FailureCause};
use super::log::{WorkerLog, plain_word};
use crate::worker::peers::fault::{PeerLoss, listed};

/// What llama-server logs before it aborts because a connection broke.
const BROKEN: &str = "Remote RPC server crashed or returned malformed response";
/// What it logs before the end if it and an `rpc-server` are of different versions.
const MISMATCH: &[&str] = &["RPC server version mismatch", "RPC handshake failed for"];
/// The source file in a line of ggml's own, which tells it from a text of a client.
const OF_RPC: &str = "ggml-rpc.cpp";
/// What follows there before the address of an `rpc-server` that it cannot connect to.
const NOT_CONNECTED: &str = "Failed to connect to ";

/// Returns the diagnosis for a llama-server that is not started, because these `rpc-server`s cannot be used.
pub(in crate::worker) fn unusable(losses: &[PeerLoss]) -> Diagnosis {
    let hint = format!(
        "it is not started, because other machines that compute its model (`rpc`) cannot be used: {}; it is tried again and \
         again",
        listed(losses)
    );
    Diagnosis::new(FailureCause::PeerUnusable, hint)
}

/// Returns a diagnosis if `rpc-server`s were found lost.
pub(super) fn lost(losses: &[PeerLoss]) -> Option<Diagnosis> {
    if losses.is_empty() {
        return None;
    }
    let hint = format!(
        "another machine that computes a part of its model (`rpc`) was lost: {}; a restart waits until that answers",
        listed(losses)
    );
    Some(Diagnosis::new(FailureCause::PeerLost, hint))
}

/// Returns a diagnosis if the log says that an `rpc-server` failed.
pub(super) fn failed(losses: &[PeerLoss], log: &WorkerLog) -> Option<Diagnosis> {
    if log.has_any(MISMATCH) {
        let hint =
            "it and an rpc-server of `rpc` are of different versions of llama.cpp: take the same build on all machines";
        return Some(Diagnosis::new(FailureCause::PeerMismatch, hint));
    }
    let unconnected = log.recent().map(|line| line.text).filter(|text| text.contains(OF_RPC));
    let unconnected = unconnected.rev().find_map(|text| text.split_once(NOT_CONNECTED)).map(|(_, address)| address);
    if !log.has_any(&[BROKEN]) && unconnected.is_none() {
        return None;
    }
    lost(losses).or_else(|| {
        let address = unconnected.and_then(|rest| log.quote(rest.split_whitespace().next()?));
        let what = match address {
            Some(address) => format!("it could not connect to {address}, another machine"),
            None => "the connection broke to another machine".to_owned(),
        };
        // One that is busy, or was not looked at in time, is not found lost either.
        let hint = format!(
            "{what} that computes a part of its model (`rpc`); none was found lost afterwards, so the log of each rpc-server \
             may tell more"
        );
        Some(Diagnosis::new(FailureCause::PeerLost, hint))
    })
}

/// Returns a diagnosis if an rpc-server on this machine said why it ended, which it does with exit code 0 too.
pub(super) fn rpc_server(log: &WorkerLog) -> Option<Diagnosis> {
    if log.has_any(&["Failed to create server socket"]) {
        let hint =
            "it cannot listen on its address: another program has the port, or the address is none of this machine";
        return Some(Diagnosis::new(FailureCause::PortInUse, hint));
    }
    if log.has_any(&["Failed to create cache directory"]) {
        let hint =
            "it cannot create the folder of its cache: set LLAMA_CACHE to one that it may write, or leave --cache out";
        return Some(Diagnosis::new(FailureCause::BadArgument, hint));
    }
    let bad_argument = |hint: String| Some(Diagnosis::new(FailureCause::BadArgument, hint));
    if let Some(rest) = log.after("error: unknown argument: ") {
        // A word without a dash may be the value of an option, such as a key.
        return bad_argument(match plain_word(rest).filter(|word| word.starts_with('-')) {
            Some(option) => format!("rpc-server does not know the argument {option}"),
            None => "rpc-server does not know one of its arguments".to_owned(),
        });
    }
    let unknown = |words: &str, what: &str| {
        let word = plain_word(log.after(words)?).map(|word| format!(" {word}")).unwrap_or_default();
        bad_argument(format!("rpc-server does not know the {what}{word}"))
    };
    unknown("error: unknown device: ", "device")
        .or_else(|| unknown("error: unknown device: ", "device"))
        .or_else(|| unknown("error: invalid number of threads: ", "number of threads"))
        .or_else(|| unknown("error: invalid memory size: ", "size of memory"))
}
