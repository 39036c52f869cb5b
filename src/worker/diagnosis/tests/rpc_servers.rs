//! rpc-servers: those that are lost, and the one of this machine.

use super::*;
use crate::worker::peers::fault::{PeerFault, PeerLoss};

#[test]
fn a_lost_rpc_server_is_named_however_llama_server_ended() {
    let lost = [PeerLoss { address: "10.0.0.2:50052".to_owned(), fault: PeerFault::Refused }];
    let empty = LogTail::default();
    let killed = |why| Evidence { killed: Some(why), ..evidence(&empty, Signal(9)) };
    let stalled = killed(KillReason::LoadStalled(Duration::from_secs(900)));
    let at_work = Evidence { has_served: true, ..evidence(&empty, Signal(6)) };
    for evidence in [killed(KillReason::PeerLost), stalled, at_work] {
        let found = diagnose(&Evidence { lost_peers: &lost, ..evidence });
        assert_eq!(found.cause, FailureCause::PeerLost);
        assert!(found.hint.contains("10.0.0.2:50052 (connection refused)"), "{}", found.hint);
        assert!(!found.hint.contains("started again"), "the budget of restarts may be spent: {}", found.hint);
    }
    let crashed = Evidence { has_served: true, lost_peers: &lost, ..evidence(&empty, Signal(11)) };
    assert_eq!(diagnose(&crashed).cause, FailureCause::Crashed, "its own crash counts more");
    let unsaid = diagnose(&evidence(&tail(&["Failed to connect to 10.0.0.2:50052"]), Signal(6)));
    assert_eq!(unsaid.cause, FailureCause::Aborted, "only a line of ggml-rpc tells of rpc-servers");
}

/// Each program's unknown argument was once told as one of rpc-server.
#[test]
fn only_an_rpc_server_is_told_that_it_does_not_know_an_argument_as_one() {
    let hint = |is_rpc_server, line: &str| {
        let tail = tail(&[line]);
        let found = diagnose(&Evidence { is_rpc_server, ..evidence(&tail, Code(1)) });
        assert_eq!(found.cause, FailureCause::BadArgument, "{line}");
        found.hint
    };
    let flag = "error: unknown argument: --no-such-flag";
    assert!(hint(false, flag).contains("llama-server does not know the argument --no-such-flag"));
    assert_eq!(hint(true, flag), "rpc-server does not know the argument --no-such-flag");
    assert_eq!(hint(true, "error: unknown argument: hunter2"), "rpc-server does not know one of its arguments");
    let no_cache = "Failed to create cache directory: /nonexistent/.cache/llama.cpp/rpc/";
    assert!(hint(true, no_cache).contains("set LLAMA_CACHE"));
    assert_eq!(hint(true, "error: unknown device: CUDA7"), "rpc-server does not know the device CUDA7");
}
