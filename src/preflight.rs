//! What must hold before anything is started: the model file, llama-server, the keys, enough file descriptors. Problems
//! come all at once.

use crate::descriptors::{self, Descriptors};
use crate::keys::Store;
use crate::models::{self, Kind};
use crate::settings::{Problem, Settings};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// What was found good.
pub struct Ready {
    /// The model to serve and the program to serve it with; none with `MOCK_BACKEND`.
    pub backend: Option<Backend>,
    /// The keys, where any route asks for one.
    pub keys: Option<Store>,
    /// Who gets how many file descriptors.
    pub descriptors: Descriptors,
}

/// A model file and the program that serves it.
pub struct Backend {
    /// The model file.
    pub file: PathBuf,
    /// What the model is for.
    pub kind: Kind,
    /// The llama-server binary.
    pub program: PathBuf,
}

/// Looks at everything; starts nothing.
pub fn inspect(settings: &Settings) -> Result<Ready, Vec<Problem>> {
    let mut problems = Vec::new();
    let backend = if settings.engine.mock_backend {
        None
    } else {
        let model = model(settings).map_err(|problem| problems.push(problem)).ok();
        let program = program(settings).map_err(|problem| problems.push(problem)).ok();
        model.zip(program).map(|((file, kind), program)| Backend { file, kind, program })
    };
    let keys = if settings.access.auth_enabled || settings.access.metrics_auth_enabled {
        keys(settings).map_err(|problem| problems.push(problem)).ok()
    } else {
        None
    };
    let descriptors = descriptors::share_out(settings).map_err(|problem| problems.push(problem)).ok();
    match descriptors {
        Some(descriptors) if problems.is_empty() => Ok(Ready { backend, keys, descriptors }),
        _ => Err(problems),
    }
}

fn model(settings: &Settings) -> Result<(PathBuf, Kind), Problem> {
    let files = &settings.files;
    let problem = |subject: String, error: models::ModelError| {
        let hint = error.hint();
        Problem { subject, fault: error.to_string(), hint: (!hint.is_empty()).then(|| hint.to_owned()) }
    };
    let (subject, path) = match (&files.model_path, &files.model_name) {
        (Some(path), _) => (format!("MODEL_PATH={:?}", path.display().to_string()), path.clone()),
        (None, Some(name)) => {
            let subject = format!("MODEL_NAME={name:?}");
            let path = models::resolve(&files.models_dir, name).map_err(|error| problem(subject.clone(), error))?;
            (subject, path)
        }
        (None, None) => {
            return Err(Problem {
                subject: "MODEL_NAME".to_owned(),
                fault: "no model is named".to_owned(),
                hint: Some("say `llamagate serve FILE.gguf`, or set MODEL_NAME or MODEL_PATH".to_owned()),
            });
        }
    };
    let model = models::check_readable(&path).map_err(|error| problem(subject, error))?;
    Ok((path, model.kind()))
}

fn program(settings: &Settings) -> Result<PathBuf, Problem> {
    let problem = |subject: String, fault: &str| {
        Problem {
        subject,
        fault: fault.to_owned(),
        hint: Some("install llama.cpp (brew install llama.cpp, your distribution's package, or a release build) and put llama-server on PATH, or set LLAMA_SERVER".to_owned()),
    }
    };
    match &settings.engine.llama_server {
        None => {
            Err(problem("LLAMA_SERVER".to_owned(), "no llama-server was found on PATH, beside the gateway or in /app"))
        }
        Some(path) if !crate::settings::is_executable(path) => Err(problem(
            format!("LLAMA_SERVER={:?}", path.display().to_string()),
            "there is no executable file of this name",
        )),
        // The system would take any text for a shell script.
        Some(path) if !is_program(path) => {
            Err(problem(format!("LLAMA_SERVER={:?}", path.display().to_string()), "this file is no program"))
        }
        // The working directory of a child may differ.
        Some(path) => Ok(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
    }
}

/// Whether a file begins as programs do, or as scripts that name their interpreter. One that cannot be read may be one.
fn is_program(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => start.starts_with(b"#!") || start == *b"\x7fELF",
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

fn keys(settings: &Settings) -> Result<Store, Problem> {
    Store::open(&settings.access.auth_keys_file).map_err(|error| Problem {
        subject: format!("AUTH_KEYS_FILE={:?}", settings.access.auth_keys_file.display().to_string()),
        fault: error.to_string(),
        hint: Some(error.hint()),
    })
}
