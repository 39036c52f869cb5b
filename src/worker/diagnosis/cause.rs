//! The causes there are, the names that logs give them, and a cause with its hint.

use crate::worker::bounds::HINT_LENGTH;

/// Why a llama-server ended, or could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The GPU has no room for the model, its context or a computation.
    OutOfGpuMemory,
    /// The machine, or the control group, has no room for it.
    OutOfHostMemory,
    /// It may not start another thread.
    OutOfThreads,
    /// The model file is not there or cannot be read.
    ModelNotFound,
    /// The model file is something else.
    ModelNotGguf,
    /// The end of the model file is missing.
    ModelTruncated,
    /// This llama-server does not know the model's architecture, version or tensors.
    ModelUnsupported,
    /// The model could not be loaded, and the log says no more.
    LoadFailed,
    /// An argument or its value is wrong.
    BadArgument,
    /// Another program has its port.
    PortInUse,
    /// A shared library is missing or of the wrong version.
    LibraryMissing,
    /// The GPU's driver is older than llama-server needs.
    DriverTooOld,
    /// No GPU is to be seen.
    NoGpu,
    /// The build has no code for this GPU.
    GpuUnsupported,
    /// The GPU or its driver reported an error.
    GpuError,
    /// The build uses instructions that this CPU lacks.
    IllegalInstruction,
    /// A memory error in llama-server.
    Crashed,
    /// llama-server gave itself up.
    Aborted,
    /// Somebody else ended it.
    Killed,
    /// It no longer answered its probes.
    Unresponsive,
    /// Its load made no progress.
    LoadStalled,
    /// It worked, and nothing came of it.
    Hung,
    /// It failed one request after the other for want of a result.
    CannotCompute,
    /// The models that are pinned leave no room for it.
    NoRoom,
    /// The program could not be executed.
    NotStarted,
    /// Nothing is known.
    Unknown,
}

impl Cause {
    /// Every cause, once.
    pub const ALL: [Self; 26] = [
        Self::OutOfGpuMemory,
        Self::OutOfHostMemory,
        Self::OutOfThreads,
        Self::ModelNotFound,
        Self::ModelNotGguf,
        Self::ModelTruncated,
        Self::ModelUnsupported,
        Self::LoadFailed,
        Self::BadArgument,
        Self::PortInUse,
        Self::LibraryMissing,
        Self::DriverTooOld,
        Self::NoGpu,
        Self::GpuUnsupported,
        Self::GpuError,
        Self::IllegalInstruction,
        Self::Crashed,
        Self::Aborted,
        Self::Killed,
        Self::Unresponsive,
        Self::LoadStalled,
        Self::Hung,
        Self::CannotCompute,
        Self::NoRoom,
        Self::NotStarted,
        Self::Unknown,
    ];

    /// Whether one that has never been ready will end of it each time: what it is started with has to be changed.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(self, Self::BadArgument)
    }

    /// Its name in logs, which stays the same from one version to the next.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfGpuMemory => "out_of_gpu_memory",
            Self::OutOfHostMemory => "out_of_host_memory",
            Self::OutOfThreads => "out_of_threads",
            Self::ModelNotFound => "model_not_found",
            Self::ModelNotGguf => "model_not_gguf",
            Self::ModelTruncated => "model_truncated",
            Self::ModelUnsupported => "model_unsupported",
            Self::LoadFailed => "load_failed",
            Self::BadArgument => "bad_argument",
            Self::PortInUse => "port_in_use",
            Self::LibraryMissing => "library_missing",
            Self::DriverTooOld => "driver_too_old",
            Self::NoGpu => "no_gpu",
            Self::GpuUnsupported => "gpu_unsupported",
            Self::GpuError => "gpu_error",
            Self::IllegalInstruction => "illegal_instruction",
            Self::Crashed => "crashed",
            Self::Aborted => "aborted",
            Self::Killed => "killed",
            Self::Unresponsive => "unresponsive",
            Self::LoadStalled => "load_stalled",
            Self::Hung => "hung",
            Self::CannotCompute => "cannot_compute",
            Self::NoRoom => "no_room",
            Self::NotStarted => "not_started",
            Self::Unknown => "unknown",
        }
    }
}

/// One cause and one sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub(crate) cause: Cause,
    pub(crate) hint: String,
}

impl Diagnosis {
    pub(super) fn new(cause: Cause, hint: impl AsRef<str>) -> Self {
        let hint = hint.as_ref().chars().filter(|c| !c.is_control()).take(HINT_LENGTH).collect();
        Self { cause, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_cause_has_a_name_of_its_own() {
        let names: HashSet<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(names.iter().all(is_plain), "{names:?}");
    }
}
