//! The failure causes, their names in logs, and a cause with its hint.

use crate::worker::bounds::HINT_LENGTH;

/// Defines [`FailureCause`] from one row for each cause: its variant, and its name in logs, which is stable across
/// versions.
macro_rules! causes {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a llama-server ended or could not be started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailureCause {
            $($(#[$doc])+ $variant,)+
        }

        impl FailureCause {
            /// Every cause, once.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Returns its name in logs, which is stable across versions.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

causes! {
    /// The GPU's memory is too small for the model, its context or a computation.
    OutOfGpuMemory = "out_of_gpu_memory",
    /// The memory of the machine or of the control group is too small.
    OutOfHostMemory = "out_of_host_memory",
    /// The system refused another thread.
    OutOfThreads = "out_of_threads",
    /// The model file is missing or cannot be read.
    ModelNotFound = "model_not_found",
    /// The model file is not a GGUF file.
    ModelNotGguf = "model_not_gguf",
    /// The end of the model file is missing.
    ModelTruncated = "model_truncated",
    /// This llama-server does not know the model's architecture, version or tensors.
    ModelUnsupported = "model_unsupported",
    /// The model could not be loaded, and the log says no more.
    LoadFailed = "load_failed",
    /// An argument or its value is wrong.
    BadArgument = "bad_argument",
    /// Another program uses its port.
    PortInUse = "port_in_use",
    /// A shared library is missing or of the wrong version.
    LibraryMissing = "library_missing",
    /// The GPU's driver is older than llama-server needs.
    DriverTooOld = "driver_too_old",
    /// No GPU was found.
    NoGpu = "no_gpu",
    /// The build has no code for this GPU.
    GpuUnsupported = "gpu_unsupported",
    /// The GPU or its driver reported an error.
    GpuError = "gpu_error",
    /// The build uses instructions that this CPU lacks.
    IllegalInstruction = "illegal_instruction",
    /// llama-server crashed: segmentation fault, bus error or arithmetic error.
    Crashed = "crashed",
    /// llama-server aborted.
    Aborted = "aborted",
    /// It was ended from outside.
    Killed = "killed",
    /// It no longer answered its probes.
    Unresponsive = "unresponsive",
    /// Its load made no progress.
    LoadStalled = "load_stalled",
    /// It listens on another address than the one that it was told.
    ListensElsewhere = "listens_elsewhere",
    /// It stopped making progress.
    Hung = "hung",
    /// It failed to compute several requests in a row.
    CannotCompute = "cannot_compute",
    /// An `rpc-server` that it needs cannot be used.
    PeerUnusable = "peer_unusable",
    /// An `rpc-server` that computed a part of its model has ended.
    PeerLost = "peer_lost",
    /// It and an `rpc-server` are of different versions.
    PeerMismatch = "peer_mismatch",
    /// It does not fit beside the pinned models.
    NoRoom = "no_room",
    /// The program could not be executed.
    NotStarted = "not_started",
    /// The cause is unknown.
    Unknown = "unknown",
}

impl FailureCause {
    /// Whether a restart cannot help a worker that has never been ready: its settings must be changed first.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(self, Self::BadArgument | Self::ListensElsewhere)
    }
}

/// A cause, with a hint of one sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub(crate) cause: FailureCause,
    pub(crate) hint: String,
}

impl Diagnosis {
    /// Creates a diagnosis. The hint loses control characters and is cut to [`HINT_LENGTH`] characters.
    pub(super) fn new(cause: FailureCause, hint: impl AsRef<str>) -> Self {
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
        let names: HashSet<&str> = FailureCause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(names.len(), FailureCause::ALL.len());
        let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(names.iter().all(is_plain), "{names:?}");
    }
}
