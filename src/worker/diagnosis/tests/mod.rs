//! Every log of `tests/logs`, and the ends that have none: which cause, and what the hint says.

use super::cause::FailureCause;
use super::ending::not_started;
use super::evidence::KillReason;
use super::*;
use crate::telemetry::files::LogTail;
use crate::worker::bounds::HINT_LENGTH;
use crate::worker::memory::oom_kills::OomKill;
use crate::worker::process::runtime_dir::RuntimeDirError;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

/// How a process ended.
#[derive(Debug, Clone, Copy)]
enum How {
    Code(i32),
    Signal(i32),
}
use How::{Code, Signal};

struct Expected {
    log: &'static str,
    how: How,
    has_served: bool,
    cause: FailureCause,
    says: &'static [&'static str],
}

const fn expected(log: &'static str, how: How, cause: FailureCause, says: &'static [&'static str]) -> Expected {
    Expected { log, how, has_served: false, cause, says }
}

const fn at_work(log: &'static str, how: How, cause: FailureCause, says: &'static [&'static str]) -> Expected {
    Expected { has_served: true, ..expected(log, how, cause, says) }
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
    at_work("texts-of-clients", Signal(11), FailureCause::Crashed, &["segmentation fault"]),
    at_work("texts-of-clients", Signal(6), FailureCause::Aborted, &["it gave itself up (SIGABRT); try"]),
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

fn evidence(tail: &LogTail, how: How) -> Evidence<'_> {
    let (code, signal) = match how {
        Code(code) => (Some(code), None),
        Signal(signal) => (None, Some(signal)),
    };
    Evidence { code, signal, tail, has_served: false, killed: None, memory: OomKill::No }
}

fn found(lines: &[&str], how: How) -> Diagnosis {
    diagnose(&evidence(&tail(lines), how))
}

#[test]
fn every_recorded_log_tells_its_cause() {
    for Expected { log, how, has_served, cause, says } in EXPECTED {
        let text = fs::read_to_string(logs().join(format!("{log}.log"))).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# ")).collect();
        let tail = tail(&lines);
        let found = diagnose(&Evidence { has_served: *has_served, ..evidence(&tail, *how) });
        assert_eq!(found.cause, *cause, "{log}: {}", found.hint);
        for words in *says {
            assert!(found.hint.contains(words), "{log}: {words:?} is missing in {:?}", found.hint);
        }
        for secret in ["/", "secret", "own model", ".gguf"] {
            assert!(!found.hint.contains(secret), "{log}: {:?}", found.hint);
        }
    }
}

#[test]
fn every_recorded_log_is_expected() {
    let there: BTreeSet<String> = fs::read_dir(logs())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".log").map(str::to_owned))
        .collect();
    let named: BTreeSet<String> = EXPECTED.iter().map(|expected| expected.log.to_owned()).collect();
    assert_eq!(there, named);
}

#[test]
fn a_kill_is_what_the_kernel_counted() {
    let none = LogTail::default();
    let of = |memory| diagnose(&Evidence { memory, ..evidence(&none, Signal(9)) });
    let limited = of(OomKill::InGroup { limit_mib: Some(4096) });
    assert_eq!(limited.cause, FailureCause::OutOfHostMemory);
    assert!(limited.hint.contains("the memory limit of 4096 MiB") && limited.hint.contains("the kernel killed it"));
    assert_eq!(of(OomKill::InGroup { limit_mib: None }).cause, FailureCause::OutOfHostMemory);
    assert!(of(OomKill::OnMachine).hint.starts_with("out of host memory, most likely"));
    assert_eq!(
        of(OomKill::No),
        Diagnosis::new(
            FailureCause::Killed,
            "it was killed from outside (SIGKILL), by an operator, the platform or another program"
        )
    );
    assert!(of(OomKill::NotKnown).hint.contains("maybe because the machine ran out of memory"));
    // A script that starts llama-server reports the signal as a code.
    let memory = OomKill::InGroup { limit_mib: None };
    assert_eq!(diagnose(&Evidence { memory, ..evidence(&none, Code(137)) }).cause, FailureCause::OutOfHostMemory);
}

#[test]
fn a_kill_for_want_of_memory_says_that_no_gpu_was_in_use() {
    let tail = tail(&["ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"]);
    let memory = OomKill::InGroup { limit_mib: None };
    let found = diagnose(&Evidence { memory, ..evidence(&tail, Signal(9)) });
    assert!(found.hint.contains("no GPU was in use, because none was found"), "{}", found.hint);
}

#[test]
fn a_kill_by_its_owner_is_not_taken_for_another() {
    let none = LogTail::default();
    let memory = OomKill::InGroup { limit_mib: None };
    for (killed, cause, words) in [
        (KillReason::Stranger, FailureCause::PortInUse, "another server"),
        (KillReason::Silent, FailureCause::Unresponsive, "no longer answered"),
        (KillReason::LoadStalled(Duration::from_secs(900)), FailureCause::LoadStalled, "LOAD_TIMEOUT"),
        (KillReason::Hung(Duration::from_millis(840)), FailureCause::Hung, "it worked for 0.8 s"),
        (KillReason::Hung(Duration::from_millis(120_900)), FailureCause::Hung, "it worked for 120 s"),
        (KillReason::Mute(Duration::from_secs(2)), FailureCause::Hung, "did not answer /metrics for 2.0 s"),
    ] {
        let found = diagnose(&Evidence { killed: Some(killed), memory, ..evidence(&none, Signal(9)) });
        assert_eq!(found.cause, cause);
        assert!(found.hint.contains(words), "{}", found.hint);
    }
    let died_first = diagnose(&Evidence { killed: Some(KillReason::Silent), ..evidence(&none, Signal(11)) });
    assert_eq!(died_first.cause, FailureCause::Crashed);
}

#[test]
fn signals_and_codes_tell_where_the_log_does_not() {
    for (how, cause, words) in [
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
        let found = found(&["hello"], how);
        assert_eq!(found.cause, cause, "{how:?}");
        assert!(found.hint.contains(words), "{how:?}: {}", found.hint);
    }
}

#[test]
fn a_log_that_tells_nothing_known_is_quoted_where_it_may_be() {
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
fn a_log_of_clients_is_not_quoted() {
    let lines = ["0.01.0 E srv  something: cannot parse 'my diary'"];
    let tail = tail(&lines);
    let of = |has_served| diagnose(&Evidence { has_served, ..evidence(&tail, Code(1)) }).hint;
    assert!(of(false).contains("my diary"), "the test shows the difference");
    assert_eq!(of(true), "it ended with exit code 1");
}

#[test]
fn a_word_that_is_no_option_may_be_a_secret() {
    let of = |line: &str| found(&[line], Code(1)).hint;
    assert!(!of("error: invalid argument: hunter2").contains("hunter2"));
    assert!(!of("error: invalid argument: --api-key=hunter2").contains("hunter2"));
    assert!(!of("error while handling argument \"--api-key\": bad value hunter2").contains("hunter2"));
    assert!(of("error while handling argument \"--api-key\": bad value hunter2").contains("--api-key"));
}

#[test]
fn what_went_wrong_before_it_served_is_no_cause_of_a_later_end() {
    let lines = ["CUDA error: out of memory", "0.02.0 I srv  llama_server: model loaded"];
    assert_eq!(found(&lines, Code(1)).cause, FailureCause::Unknown);
    assert_eq!(found(&lines[..1], Code(1)).cause, FailureCause::OutOfGpuMemory);
}

#[test]
fn a_start_that_fails_says_what_of_the_program_is_wrong() {
    let no_den = io::Error::from(RuntimeDirError(io::Error::from(Errno::ENOSPC)));
    let found = not_started(&no_den);
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

/// Logs that nobody has seen yet.
mod made_up;
