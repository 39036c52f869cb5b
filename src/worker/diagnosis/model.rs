//! Model files that llama-server rejects.

use std::time::Duration;

use super::cause::{Diagnosis, FailureCause};
use super::log::{WorkerLog, plain_word};
use crate::models::{FileProblem, GgufError, ModelError};

/// Log texts that mean that the end of the file is missing.
const TRUNCATED: &[&str] = &[
    "data is not within the file bounds",
    "exceeds remaining file size",
    "failed to read magic",
    "failed to read header",
    "failed to read key-value pairs",
    "failed to read tensor info",
    "unexpectedly reached end of file",
    "file is truncated",
];

/// Log texts that mean that this llama-server does not support the model.
const UNSUPPORTED: &[&str] = &[
    "unknown pre-tokenizer type",
    "has invalid ggml type",
    "wrong number of tensors",
    "has wrong shape",
    "check_tensor_dims: tensor",
    "key not found in model",
    "missing tensor",
    "unknown (magic, version) combination",
];

/// Returns the diagnosis for a model file that failed our own check before the start.
pub(crate) fn unfit_file(problem: &ModelError) -> Diagnosis {
    let cause = match problem {
        ModelError::File { problem, .. } => match &**problem {
            FileProblem::Gguf(error) | FileProblem::Part { source: error, .. } => cause_of(error),
            FileProblem::NoModel { .. }
            | FileProblem::NoProjector
            | FileProblem::NoAdapter
            | FileProblem::OtherArchitecture { .. }
            | FileProblem::Draft => FailureCause::ModelUnsupported,
            FileProblem::MissingParts { .. } | FileProblem::NotFirst { .. } | FileProblem::Renamed { .. } => {
                FailureCause::ModelNotFound
            }
        },
        _ => FailureCause::ModelNotFound,
    };
    Diagnosis::new(cause, problem.sentence())
}

fn cause_of(error: &GgufError) -> FailureCause {
    match error {
        GgufError::Io(_) => FailureCause::ModelNotFound,
        GgufError::Version { .. } | GgufError::BigEndian => FailureCause::ModelUnsupported,
        GgufError::TruncatedHeader { .. } | GgufError::Truncated { .. } => FailureCause::ModelTruncated,
        GgufError::Folder
        | GgufError::NotAFile
        | GgufError::NotGguf { .. }
        | GgufError::TooLarge { .. }
        | GgufError::Malformed(_) => FailureCause::ModelNotGguf,
    }
}

/// Returns the diagnosis for a model file that could not be read within `time`.
pub(crate) fn unread_file(time: Duration) -> Diagnosis {
    let hint = format!(
        "the model file could not be read for {} s; check that the disk or volume is mounted and answers",
        time.as_secs()
    );
    Diagnosis::new(FailureCause::ModelNotFound, hint)
}

/// Returns what is wrong with the model file, if the log says so.
pub(super) fn file(log: &WorkerLog) -> Option<Diagnosis> {
    let label = file_label(log);
    if let Some(text) = log.find("failed to open GGUF file") {
        let hint = if text.contains("Permission denied") {
            format!("{label} may not be read by this user: check its permissions")
        } else {
            format!("{label} cannot be opened: check MODEL_PATH and that the file is still there")
        };
        return Some(Diagnosis::new(FailureCause::ModelNotFound, hint));
    }
    if let Some(rest) = log.after("unknown model architecture:") {
        let name = plain_word(rest).map(|name| format!(" '{name}'")).unwrap_or_default();
        let hint = format!("this llama-server does not know the architecture{name} of {label}: update llama.cpp");
        return Some(Diagnosis::new(FailureCause::ModelUnsupported, hint));
    }
    if log.has_any(&["invalid magic characters", "bad GGUF magic"]) {
        let hint = format!("{label} is not a GGUF file: download it again, or convert it");
        return Some(Diagnosis::new(FailureCause::ModelNotGguf, hint));
    }
    if log.has_any(&["but this software only supports up to version"]) {
        let hint = format!("{label} is of a newer GGUF version than this llama-server knows: update llama.cpp");
        return Some(Diagnosis::new(FailureCause::ModelUnsupported, hint));
    }
    if log.has_any(&["you may be using wrong mmproj"]) {
        let hint = format!(
            "{label} belongs to another model: name the right one under mmproj: of the model in llamagate.yaml, or set `mmproj: none`"
        );
        return Some(Diagnosis::new(FailureCause::ModelUnsupported, hint));
    }
    if log.has_any(TRUNCATED) {
        let hint = format!("{label} is cut short: download it again, and check that the disk has room");
        return Some(Diagnosis::new(FailureCause::ModelTruncated, hint));
    }
    let text = UNSUPPORTED.iter().find_map(|words| log.find(words))?;
    let text = text.split_once("error loading model: ").map_or(text, |(_, rest)| rest);
    let quote = log.quote(text).map(|text| format!(" ({text})")).unwrap_or_default();
    let hint = format!("{label} does not suit this llama-server: update llama.cpp, or download the model again{quote}");
    Some(Diagnosis::new(FailureCause::ModelUnsupported, hint))
}

/// Returns which of llama-server's model files the log is about.
fn file_label(log: &WorkerLog) -> &'static str {
    if log.has_any(&["CLIP model", "multimodal model"]) {
        "the multimodal projector (mmproj)"
    } else if log.has_any(&["draft model"]) {
        "the draft model"
    } else {
        "the model file"
    }
}
