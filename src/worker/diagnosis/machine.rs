//! Failures of the environment of a llama-server: libraries, GPU and driver, port, threads, arguments.

use super::cause::{Diagnosis, FailureCause};
use super::log::{WorkerLog, plain_word};

/// How the errors of GPU libraries begin.
const GPU_ERRORS: &[&str] = &["CUDA error: ", "ROCm error: ", "MUSA error: ", "CUDA error", "ErrorDeviceLost"];

/// The names that CUDA, ROCm and their libraries give to errors at work. These may be quoted even if a client wrote
/// them.
const GPU_ERROR_NAMES: &[&str] = &[
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "too many resources requested for launch",
    "device-side assert triggered",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "invalid configuration argument",
    "invalid resource handle",
    "invalid device context",
    "invalid argument",
    "operation not permitted when stream is capturing",
    "operation not supported",
    "the GPU program failed to execute",
    "an internal operation failed",
    "the library was not initialized",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unknown error",
];

/// Returns a diagnosis if the dynamic loader did not find a library.
pub(super) fn library(log: &WorkerLog) -> Option<Diagnosis> {
    let diagnosis = |hint: String| Some(Diagnosis::new(FailureCause::LibraryMissing, hint));
    if let Some(rest) = log.after("error while loading shared libraries:") {
        let Some(name) = plain_word(rest) else {
            return diagnosis("a library that llama-server needs is missing on this machine: install it".to_owned());
        };
        return diagnosis(match name {
            name if name.starts_with("libcuda.") || name.starts_with("libnvidia") => {
                format!("{name} of the NVIDIA driver is missing: install the driver, or give the container the GPU")
            }
            name if name.starts_with("libcu") || name.starts_with("libnccl") => {
                format!(
                    "the CUDA library {name} is missing: install CUDA of that version, or take another llama-server"
                )
            }
            name => format!("the library {name} is missing: install it, or take a llama-server for this system"),
        });
    }
    if let Some(text) = log.find("' not found (required by") {
        let version = text.split_once("version `").and_then(|(_, rest)| plain_word(rest));
        let version = version.map(|version| format!(": it needs {version}")).unwrap_or_default();
        return diagnosis(format!("this llama-server was built for a newer system than this one{version}"));
    }
    log.find("symbol lookup error")?;
    diagnosis("llama-server and its libraries are of different versions: install them together".to_owned())
}

/// Returns a diagnosis if llama-server rejected an argument.
pub(super) fn argument(log: &WorkerLog) -> Option<Diagnosis> {
    let diagnosis = |hint: String| Some(Diagnosis::new(FailureCause::BadArgument, hint));
    let after_prefix = |words: &str| log.recent().rev().find_map(|line| line.text.strip_prefix(words));
    if let Some(rest) = after_prefix("error: invalid argument:").or_else(|| after_prefix("error: unknown argument:")) {
        // A word without a dash may be the value of an option, such as a key.
        return diagnosis(match plain_word(rest).filter(|word| word.starts_with('-')) {
            Some(option) => format!("llama-server does not know the argument {option}: check EXTRA_ARGS or `args`"),
            None => "llama-server does not know one of its arguments: check EXTRA_ARGS or `args`".to_owned(),
        });
    }
    if let Some(rest) = after_prefix("error while handling argument ") {
        let option = plain_word(rest).unwrap_or("of unknown name");
        let reason = rest.split_once("\": ").map(|(_, reason)| reason.trim_start_matches("error: "));
        let is_secret = ["key", "token", "password"].iter().any(|word| option.contains(word));
        let reason = match reason {
            _ if is_secret => None,
            Some("stoi" | "stof" | "stol" | "stoul" | "stoull") => Some("a number is expected".to_owned()),
            Some(reason) => log.quote(reason),
            None => None,
        };
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let gpu = if option == "--device" { lost_gpu(log) } else { None };
        let gpu = gpu.map(|gpu| format!("; {gpu}")).unwrap_or_default();
        return diagnosis(format!(
            "llama-server does not take the value of {option}{reason}: check EXTRA_ARGS or `args`{gpu}"
        ));
    }
    after_prefix("error: the supplied chat template is not supported")?;
    diagnosis("llama-server cannot use the chat template that it was given: check EXTRA_ARGS or `args`".to_owned())
}

/// Returns a diagnosis if another program took the port between its selection and its use.
pub(super) fn port(log: &WorkerLog) -> Option<Diagnosis> {
    let taken = ["couldn't bind HTTP server socket", "couldn't bind to server socket"];
    let hint = "its port was taken by another program; the next start takes another one";
    log.has_any(&taken).then(|| Diagnosis::new(FailureCause::PortInUse, hint))
}

/// Returns a diagnosis if the system refused a thread.
pub(super) fn threads(log: &WorkerLog) -> Option<Diagnosis> {
    // `std::thread` throws `std::system_error` with the text of EAGAIN. libgomp writes its own line.
    let is_system_error = log.has_any(&["std::system_error"]);
    let is_refused = log.has_any(&["Resource temporarily unavailable"]);
    let hint = "it was not allowed to start a thread: raise the limit on processes (pids.max, TasksMax or ulimit -u) \
                or on memory, or lower THREADS";
    (log.has_any(&["Thread creation failed"]) || is_system_error && is_refused)
        .then(|| Diagnosis::new(FailureCause::OutOfThreads, hint))
}

/// Returns a diagnosis if a GPU error ended llama-server.
pub(super) fn gpu_error(log: &WorkerLog) -> Option<Diagnosis> {
    let reason = GPU_ERRORS.iter().find_map(|words| log.after(words))?;
    Some(solvable_gpu_error(reason).unwrap_or_else(|| {
        let name = GPU_ERROR_NAMES.iter().find(|name| reason.contains(*name)).map(|name| (*name).to_owned());
        let quote = name.or_else(|| log.quote(reason)).map(|reason| format!(": {reason}")).unwrap_or_default();
        let hint = "look for it in the kernel's log (Xid), and update driver and llama.cpp";
        Diagnosis::new(FailureCause::GpuError, format!("the GPU reported an error{quote}; {hint}"))
    }))
}

/// Returns a diagnosis if no GPU could be used. This alone does not end llama-server.
pub(super) fn no_gpu(log: &WorkerLog) -> Option<Diagnosis> {
    let reason = log.after("failed to initialize CUDA: ").or_else(|| log.after("failed to initialize ROCm: "))?;
    solvable_gpu_error(reason)
}

/// Returns why no GPU was in use though llama-server was built for one. Hints about the consequences mention it.
pub(super) fn lost_gpu(log: &WorkerLog) -> Option<&'static str> {
    let text = log.load().rev().find(|text| text.contains("failed to initialize "))?;
    match solvable_gpu_error(text).map(|diagnosis| diagnosis.cause) {
        Some(FailureCause::DriverTooOld) => Some("no GPU was in use, because its driver is too old"),
        Some(FailureCause::NoGpu) => Some("no GPU was in use, because none was found"),
        _ => Some("no GPU was in use, because CUDA could not be initialised"),
    }
}

/// Returns a diagnosis for the text of a GPU library if an operator can solve the problem.
fn solvable_gpu_error(text: &str) -> Option<Diagnosis> {
    let has = |words: &[&str]| words.iter().any(|words| text.contains(words));
    if has(&["driver version is insufficient", "unsupported display driver", "unsupported toolchain"]) {
        let hint =
            "the NVIDIA driver is older than this llama-server needs: update it, or take a build for an older CUDA";
        return Some(Diagnosis::new(FailureCause::DriverTooOld, hint));
    }
    if has(&["CUDA-capable device", "ROCm-capable device", "invalid device ordinal"]) {
        let hint = "no GPU was found: check nvidia-smi and CUDA_VISIBLE_DEVICES, and give the container the GPU";
        return Some(Diagnosis::new(FailureCause::NoGpu, hint));
    }
    if has(&["no kernel image", "kernel image is invalid", "invalid device function"]) {
        let hint = "this llama-server has no code for this GPU: take a build for its compute capability";
        return Some(Diagnosis::new(FailureCause::GpuUnsupported, hint));
    }
    None
}
