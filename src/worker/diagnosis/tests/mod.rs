//! Checks the cause and the hint of every log of `tests/logs`, and of exits that leave no log.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;

use super::cause::FailureCause;
use super::ending::{is_ended_from_outside, not_started};
use super::evidence::KillReason;
use super::*;
use crate::os::oom_kills::{OomCounters, OomKill};
use crate::telemetry::files::LogTail;
use crate::worker::bounds::HINT_LENGTH;
use crate::worker::process::runtime_dir::RuntimeDirError;

/// How a process ended.
#[derive(Debug, Clone, Copy)]
enum ExitKind {
    Code(i32),
    Signal(i32),
}
use ExitKind::{Code, Signal};

struct Expected {
    log: &'static str,
    exit: ExitKind,
    has_served: bool,
    cause: FailureCause,
    hint_parts: &'static [&'static str],
}

const fn expected(
    log: &'static str,
    exit: ExitKind,
    cause: FailureCause,
    hint_parts: &'static [&'static str],
) -> Expected {
    Expected { log, exit, has_served: false, cause, hint_parts }
}

const fn at_work(
    log: &'static str,
    exit: ExitKind,
    cause: FailureCause,
    hint_parts: &'static [&'static str],
) -> Expected {
    Expected { has_served: true, ..expected(log, exit, cause, hint_parts) }
}

const EXPECTED: &[Expected] = &[
    expected("abort-in-warmup", Signal(6), FailureCause::Aborted, &["get_sub_batch: failed to add token"]),
    expected("adapter-missing", Code(1), FailureCause::LoadFailed, &["llama_adapter_lora_init: failed to open"]),
    expected("argument-bad-choice", Code(1), FailureCause::BadArgument, &["--flash-attn", "'perhaps'", "EXTRA_ARGS"]),
    expected("argument-chat-template", Code(1), FailureCause::BadArgument, &["chat template"]),
    expected("argument-no-number", Code(1), FailureCause::BadArgument, &["--ctx-size", "a number is expected"]),
    expected("argument-no-such-device", Code(1), FailureCause::BadArgument, &["--device", "invalid device: CUDA0"]),
    expected("argument-unknown", Code(1), FailureCause::BadArgument, &["--no-such-flag", "EXTRA_ARGS"]),
    expected("argument-without-value", Code(1), FailureCause::BadArgument, &["--ctx-size", "expected value"]),
    expected("assertion-at-work", Signal(6), FailureCause::Aborted, &["GGML_ASSERT(cell.has_seq_id(seq_id)) failed"]),
    at_work("assertion-at-work", Signal(6), FailureCause::Aborted, &["(SIGABRT): an assertion failed"]),
    expected(
        "cuda-driver-library-missing",
        Code(127),
        FailureCause::LibraryMissing,
        &["libcuda.so.1", "driver", "container"],
    ),
    expected("cuda-driver-too-old", Signal(6), FailureCause::DriverTooOld, &["driver is older"]),
    expected("cuda-driver-unsupported", Code(1), FailureCause::BadArgument, &["--device", "its driver is too old"]),
    expected("cuda-illegal-access", Signal(6), FailureCause::GpuError, &["an illegal memory access was encountered"]),
    at_work("cuda-illegal-access", Signal(6), FailureCause::GpuError, &["an illegal memory access was encountered"]),
    expected("cuda-library-missing", Code(127), FailureCause::LibraryMissing, &["CUDA library libcudart.so.12"]),
    at_work(
        "cuda-memory-at-work",
        Signal(6),
        FailureCause::OutOfGpuMemory,
        &["out of GPU memory: lower NGL, CTX or PARALLEL"],
    ),
    expected(
        "cuda-memory-compute",
        Code(1),
        FailureCause::OutOfGpuMemory,
        &["out of GPU memory: lower CTX", "needed 14136.04 MiB on device 0 for computing"],
    ),
    expected(
        "cuda-memory-kv-cache",
        Code(1),
        FailureCause::OutOfGpuMemory,
        &[
            "out of GPU memory: lower CTX or PARALLEL, then NGL, or take a smaller quantisation",
            "needed 204800.00 MiB on device 0 for the KV cache, the model took 118334.10 MiB",
        ],
    ),
    expected("cuda-memory-overcome", Signal(11), FailureCause::Crashed, &["segmentation fault"]),
    expected(
        "cuda-memory-weights",
        Code(1),
        FailureCause::OutOfGpuMemory,
        &[
            "out of GPU memory: lower NGL or take a smaller quantisation, then lower CTX",
            "needed 144817.04 MiB on device 0 for the model, 44912 MiB were free before",
        ],
    ),
    expected("cuda-no-device", Code(1), FailureCause::NoGpu, &["no GPU was found", "nvidia-smi"]),
    expected("cuda-no-kernel", Signal(6), FailureCause::GpuUnsupported, &["no code for this GPU"]),
    expected("glibc-too-old", Code(1), FailureCause::LibraryMissing, &["newer system", "GLIBC_2.38"]),
    expected("host-memory-assertion", Signal(6), FailureCause::OutOfHostMemory, &["out of host memory: raise"]),
    expected(
        "host-memory-compute",
        Code(1),
        FailureCause::OutOfHostMemory,
        &["needed 149.14 MiB for computing", "-ub"],
    ),
    expected(
        "host-memory-kv-cache",
        Code(1),
        FailureCause::OutOfHostMemory,
        &["out of host memory: lower CTX or PARALLEL", "needed 8791.88 MiB for the KV cache"],
    ),
    expected(
        "host-memory-weights",
        Code(1),
        FailureCause::OutOfHostMemory,
        &["needed 92.10 MiB for the model", "a smaller quantisation"],
    ),
    expected(
        "illegal-instruction",
        Code(132),
        FailureCause::IllegalInstruction,
        &["this CPU lacks", "build for this CPU"],
    ),
    expected("library-missing", Code(127), FailureCause::LibraryMissing, &["the library libllama-server-impl.so"]),
    expected("model-cut-in-header", Code(1), FailureCause::ModelTruncated, &["cut short", "download it again"]),
    expected("model-cut-in-tiny", Code(1), FailureCause::ModelTruncated, &["cut short"]),
    expected("model-cut-in-weights", Code(1), FailureCause::ModelTruncated, &["cut short"]),
    expected("model-empty", Code(1), FailureCause::ModelTruncated, &["cut short"]),
    expected("model-missing", Code(1), FailureCause::ModelNotFound, &["cannot be opened", "MODEL_PATH"]),
    expected("model-missing-tensor", Code(1), FailureCause::ModelUnsupported, &["'output_norm.weight' not found"]),
    expected("model-newer-gguf", Code(1), FailureCause::ModelUnsupported, &["newer GGUF version", "update llama.cpp"]),
    expected("model-text-file", Code(1), FailureCause::ModelNotGguf, &["the model file is not a GGUF file"]),
    expected("model-unknown-architecture", Code(1), FailureCause::ModelUnsupported, &["'zorgk'", "update llama.cpp"]),
    expected("model-unreadable", Code(1), FailureCause::ModelNotFound, &["permissions"]),
    expected("model-wrong-shape", Code(1), FailureCause::ModelUnsupported, &["has wrong shape"]),
    expected("port-in-use", Code(1), FailureCause::PortInUse, &["its port was taken by another program"]),
    expected("program-of-another-cpu", Code(126), FailureCause::NotStarted, &["no program for this machine"]),
    expected(
        "projector-not-gguf",
        Code(1),
        FailureCause::ModelNotGguf,
        &["the multimodal projector (mmproj) is not a GGUF"],
    ),
    expected(
        "projector-of-another-model",
        Code(1),
        FailureCause::ModelUnsupported,
        &["the multimodal projector (mmproj) belongs to another model", "`mmproj: none`"],
    ),
    expected("rpc-server-argument-unknown", Code(0), FailureCause::BadArgument, &["the argument --no-such-flag"]),
    expected("rpc-server-lost", Signal(6), FailureCause::PeerLost, &["the connection broke to another machine"]),
    at_work("rpc-server-lost", Signal(6), FailureCause::PeerLost, &["the connection broke to another machine"]),
    expected(
        "rpc-server-of-another-version",
        Signal(6),
        FailureCause::PeerMismatch,
        &["the same build on all machines"],
    ),
    expected("rpc-server-port-in-use", Code(0), FailureCause::PortInUse, &["it cannot listen on its address"]),
    expected(
        "rpc-server-unreachable",
        Signal(6),
        FailureCause::PeerLost,
        &["could not connect to 127.0.0.1:41003", "none was found lost"],
    ),
    at_work("texts-of-clients", Signal(11), FailureCause::Crashed, &["segmentation fault"]),
    at_work("texts-of-clients", Signal(6), FailureCause::Aborted, &["it aborted (SIGABRT); try"]),
    expected("threads-refused-at-start", Signal(6), FailureCause::OutOfThreads, &["limit on processes"]),
    expected("threads-refused-by-openmp", Code(1), FailureCause::OutOfThreads, &["THREADS"]),
    expected("vulkan-memory", Code(1), FailureCause::OutOfGpuMemory, &["needed 113.01 MiB for the model"]),
];

fn logs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/logs")
}

fn tail(lines: &[impl AsRef<str>]) -> LogTail {
    let mut tail = LogTail::default();
    lines.iter().for_each(|line| tail.push(line.as_ref().as_bytes()));
    tail
}

fn code_and_signal(exit: ExitKind) -> (Option<i32>, Option<i32>) {
    match exit {
        Code(code) => (Some(code), None),
        Signal(signal) => (None, Some(signal)),
    }
}

fn evidence(tail: &LogTail, exit: ExitKind) -> Evidence<'_> {
    let (code, signal) = code_and_signal(exit);
    let (memory, is_rpc_server) = (OomKill::No, false);
    Evidence { is_rpc_server, code, signal, tail, has_served: false, killed: None, memory, lost_peers: &[] }
}

fn found(lines: &[&str], exit: ExitKind) -> Diagnosis {
    diagnose(&evidence(&tail(lines), exit))
}

#[test]
fn every_recorded_log_tells_its_cause() {
    for Expected { log, exit, has_served, cause, hint_parts } in EXPECTED {
        let text = fs::read_to_string(logs().join(format!("{log}.log"))).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# ")).collect();
        let tail = tail(&lines);
        let is_rpc_server = matches!(*log, "rpc-server-argument-unknown" | "rpc-server-port-in-use");
        let evidence = Evidence { is_rpc_server, has_served: *has_served, ..evidence(&tail, *exit) };
        let found = diagnose(&evidence);
        assert_eq!(found.cause, *cause, "{log}: {}", found.hint);
        for words in *hint_parts {
            assert!(found.hint.contains(words), "{log}: {words:?} is missing in {:?}", found.hint);
        }
        for secret in ["/", "secret", "own model", ".gguf"] {
            assert!(!found.hint.contains(secret), "{log}: {:?}", found.hint);
        }
    }
}

#[test]
fn every_recorded_log_has_an_expected_cause() {
    let recorded: BTreeSet<String> = fs::read_dir(logs())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".log").map(str::to_owned))
        .collect();
    let expected: BTreeSet<String> = EXPECTED.iter().map(|expected| expected.log.to_owned()).collect();
    assert_eq!(recorded, expected);
}

#[test]
fn a_kill_is_explained_by_the_oom_counters_of_the_kernel() {
    let empty = LogTail::default();
    let with_counter = |memory| diagnose(&Evidence { memory, ..evidence(&empty, Signal(9)) });
    let limited = with_counter(OomKill::InGroup { limit_mib: Some(4096) });
    assert_eq!(limited.cause, FailureCause::OutOfHostMemory);
    assert!(limited.hint.contains("the memory limit of 4096 MiB") && limited.hint.contains("the kernel killed it"));
    assert_eq!(with_counter(OomKill::InGroup { limit_mib: None }).cause, FailureCause::OutOfHostMemory);
    assert!(with_counter(OomKill::OnMachine).hint.starts_with("out of host memory, most likely"));
    assert_eq!(
        with_counter(OomKill::No),
        Diagnosis::new(
            FailureCause::Killed,
            "it was killed from outside (SIGKILL), by an operator, the platform or another program"
        )
    );
    assert!(with_counter(OomKill::NotKnown).hint.contains("maybe because the machine ran out of memory"));
    // A script that starts llama-server reports the signal as a code.
    let memory = OomKill::InGroup { limit_mib: None };
    assert_eq!(diagnose(&Evidence { memory, ..evidence(&empty, Code(137)) }).cause, FailureCause::OutOfHostMemory);
}

/// The line of llama-server's log that says that it was told to end.
const CLEANING_UP: &str = "0.00.042.492 I srv    operator(): operator(): cleaning up before exit...";

fn counters(group: Option<u64>, machine: Option<u64>) -> OomCounters {
    OomCounters { group, machine, limit: None }
}

fn from_outside(exit: ExitKind, now: OomCounters, tail: &LogTail) -> bool {
    is_ended_from_outside(code_and_signal(exit), (&counters(Some(1), Some(7)), &now), tail)
}

#[test]
fn an_end_is_from_outside_only_if_no_request_can_have_caused_it() {
    let (told, calm) = (tail(&[CLEANING_UP]), counters(Some(1), Some(7)));
    for (exit, expected) in [
        (Signal(15), true),
        (Signal(2), true),
        (Code(0), true),
        (Signal(9), true),
        // A script that starts llama-server reports the signal as a code.
        (Code(143), true),
        (Code(137), true),
        (Code(1), false),
        (Signal(4), false),
        (Signal(6), false),
        (Code(134), false),
        (Signal(11), false),
        (Signal(31), false),
    ] {
        assert_eq!(from_outside(exit, calm, &told), expected, "{exit:?}");
    }
    let of_unknown_status = is_ended_from_outside((None, None), (&calm, &calm), &told);
    assert!(!of_unknown_status, "its exit status is unknown");
}

#[test]
fn a_kill_is_from_outside_only_if_the_kernel_shows_that_it_has_killed_nothing() {
    let empty = LogTail::default();
    for (group, machine, expected) in [
        (Some(1), Some(7), true),
        (Some(1), None, true),
        (None, Some(7), true),
        (Some(2), Some(8), false),
        (Some(2), None, false),
        (Some(1), Some(8), false),
        (None, Some(8), false),
        (None, None, false),
    ] {
        for exit in [Signal(9), Code(137)] {
            let found = from_outside(exit, counters(group, machine), &empty);
            assert_eq!(found, expected, "{exit:?} {group:?} {machine:?}");
        }
        assert!(from_outside(Signal(15), counters(group, machine), &empty), "it was asked to end");
    }
}

#[test]
fn exit_code_0_is_from_outside_only_if_llama_server_says_that_it_was_told_to_end() {
    let calm = counters(Some(1), Some(7));
    for (lines, expected) in [
        (vec![], false),
        (vec!["0.00.042.492 I srv  llama_server: model loaded"], false),
        (vec!["0.00.042.492 I srv  llama_server: model loaded", CLEANING_UP], true),
        // Versions that write no timestamp.
        (vec!["srv    operator(): operator(): cleaning up before exit...", "~llama_context: freed"], true),
        // The text of a client, which may have line ends.
        (vec![CLEANING_UP, "0.00.042.492 I slot launch_slot_: id  0 | task 5 | processing task"], false),
    ] {
        assert_eq!(from_outside(Code(0), calm, &tail(&lines)), expected, "{lines:?}");
    }
}

#[test]
fn an_oom_kill_says_that_no_gpu_was_in_use() {
    let tail = tail(&["ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"]);
    let memory = OomKill::InGroup { limit_mib: None };
    let found = diagnose(&Evidence { memory, ..evidence(&tail, Signal(9)) });
    assert!(found.hint.contains("no GPU was in use, because none was found"), "{}", found.hint);
}

#[test]
fn a_kill_by_the_owner_is_not_taken_for_an_oom_kill() {
    let empty = LogTail::default();
    let memory = OomKill::InGroup { limit_mib: None };
    for (killed, cause, words) in [
        (KillReason::Stranger, FailureCause::PortInUse, "another server"),
        (KillReason::Silent, FailureCause::Unresponsive, "no longer answered"),
        (KillReason::LoadStalled(Duration::from_secs(900)), FailureCause::LoadStalled, "LOAD_TIMEOUT"),
        (
            KillReason::ListensElsewhere {
                found: "[::1]:8080".parse().unwrap(),
                expected: "127.0.0.1:8080".parse().unwrap(),
            },
            FailureCause::ListensElsewhere,
            "it listens on [::1]:8080 and not on 127.0.0.1:8080",
        ),
        (KillReason::Hung(Duration::from_millis(840)), FailureCause::Hung, "it worked for 0.8 s"),
        (KillReason::Hung(Duration::from_millis(120_900)), FailureCause::Hung, "it worked for 120 s"),
        (KillReason::Mute(Duration::from_secs(2)), FailureCause::Hung, "did not answer /metrics for 2.0 s"),
    ] {
        let found = diagnose(&Evidence { killed: Some(killed), memory, ..evidence(&empty, Signal(9)) });
        assert_eq!(found.cause, cause);
        assert!(found.hint.contains(words), "{}", found.hint);
    }
    let died_first = diagnose(&Evidence { killed: Some(KillReason::Silent), ..evidence(&empty, Signal(11)) });
    assert_eq!(died_first.cause, FailureCause::Crashed);
}

#[test]
fn signals_and_exit_codes_give_the_cause_without_a_log() {
    for (exit, cause, words) in [
        (Signal(4), FailureCause::IllegalInstruction, "this CPU lacks"),
        (Signal(6), FailureCause::Aborted, "SIGABRT"),
        (Signal(7), FailureCause::Crashed, "its disk failed"),
        (Signal(11), FailureCause::Crashed, "segmentation fault"),
        (Signal(15), FailureCause::Killed, "SIGTERM"),
        (Signal(31), FailureCause::Killed, "seccomp"),
        (Signal(40), FailureCause::Unknown, "signal 40"),
        (Code(0), FailureCause::Unknown, "exit code 0"),
        (Code(3), FailureCause::Unknown, "exit code 3"),
        (Code(126), FailureCause::NotStarted, "may not be executed"),
        (Code(127), FailureCause::NotStarted, "is missing"),
    ] {
        let found = found(&["hello"], exit);
        assert_eq!(found.cause, cause, "{exit:?}");
        assert!(found.hint.contains(words), "{exit:?}: {}", found.hint);
    }
}

#[test]
fn the_first_error_of_an_unknown_log_is_quoted_up_to_a_path() {
    let lines = [
        "0.00.01 E cmn  something new: the flux is 12 too low",
        "0.00.02 E srv  load_model: failed to load model, '/srv/secret/m.gguf'",
    ];
    assert_eq!(
        found(&lines, Code(1)).hint,
        "it ended with exit code 1; its log says: cmn  something new: the flux is 12 too low"
    );
    assert_eq!(found(&lines[1..], Code(1)).hint, "it ended with exit code 1");
}

#[test]
fn the_log_of_a_worker_that_has_served_clients_is_not_quoted() {
    let lines = ["0.01.0 E srv  something: cannot parse 'my diary'"];
    let tail = tail(&lines);
    let hint = |has_served| diagnose(&Evidence { has_served, ..evidence(&tail, Code(1)) }).hint;
    assert!(hint(false).contains("my diary"), "the test shows the difference");
    assert_eq!(hint(true), "it ended with exit code 1");
}

#[test]
fn a_rejected_argument_that_is_not_an_option_is_not_quoted() {
    let hint = |line: &str| found(&[line], Code(1)).hint;
    assert!(!hint("error: invalid argument: hunter2").contains("hunter2"));
    assert!(!hint("error: invalid argument: --api-key=hunter2").contains("hunter2"));
    assert!(!hint("error: unknown argument: hunter2").contains("hunter2"));
    assert!(!hint("error while handling argument \"--api-key\": bad value hunter2").contains("hunter2"));
    assert!(hint("error while handling argument \"--api-key\": bad value hunter2").contains("--api-key"));
}

#[test]
fn an_error_before_the_load_succeeded_is_not_the_cause_of_a_later_exit() {
    let lines = ["CUDA error: out of memory", "0.02.0 I srv  llama_server: model loaded"];
    assert_eq!(found(&lines, Code(1)).cause, FailureCause::Unknown);
    assert_eq!(found(&lines[..1], Code(1)).cause, FailureCause::OutOfGpuMemory);
}

#[test]
fn a_start_that_fails_says_what_is_wrong_with_the_program() {
    let runtime_dir_error = io::Error::from(RuntimeDirError(io::Error::from(Errno::ENOSPC)));
    let found = not_started(&runtime_dir_error);
    assert_eq!(found.cause, FailureCause::NotStarted);
    assert!(found.hint.contains("key") && found.hint.contains("No space left on device"), "{}", found.hint);
    assert!(!found.hint.contains('/'), "{}", found.hint);
    for (errno, words) in [
        (Errno::ENOENT, "is missing"),
        (Errno::EACCES, "may not be executed"),
        (Errno::ENOEXEC, "no program for this machine"),
        (Errno::EAGAIN, "limit on processes"),
        (Errno::EMFILE, "limit on open files"),
        (Errno::ELOOP, "could not be started"),
    ] {
        let found = not_started(&io::Error::from(errno));
        assert_eq!(found.cause, FailureCause::NotStarted);
        assert!(found.hint.contains(words) && !found.hint.contains('/'), "{}", found.hint);
    }
}

/// Random logs.
mod made_up;
mod rpc_servers;
