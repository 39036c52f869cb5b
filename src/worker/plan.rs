//! What one worker is: which program serves which model, how it runs, and what it may take.

use crate::models::ModelKind;
use crate::settings::options::Engine;
use crate::telemetry::files::LogFolder;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Everything that one worker is started with, for its whole life.
pub struct Plan {
    /// The model's id.
    pub model: String,
    /// The number of the worker among those of its model.
    pub number: u32,
    /// What is started.
    pub program: Program,
    /// How it is to run.
    pub engine: Engine,
    /// Environment variables that it inherits.
    pub environment: Vec<(String, String)>,
    /// Where its logs go.
    pub logs: LogFolder,
    /// Used in log file names.
    pub instance: String,
    /// Whether it is started at once; else it sleeps until somebody wants it.
    pub preload: bool,
    /// Whether it is never stopped to make room for another.
    pub pinned: bool,
    /// The memory that it needs while it is loaded.
    pub need: Need,
}

/// What is started for a worker.
#[derive(Debug, Clone)]
pub enum Program {
    /// llama-server.
    LlamaServer {
        /// The binary.
        binary: PathBuf,
        /// The model file.
        file: PathBuf,
        /// What the model is for.
        kind: ModelKind,
    },
    /// Any server that speaks OpenAI's API.
    Command {
        /// Program and arguments; `{port}` stands for the port on 127.0.0.1 that it is to listen on.
        argv: Vec<String>,
        /// The path that answers 200 when it can serve.
        health: String,
        /// The name that it knows the model by, where that differs from the id.
        model: Option<String>,
    },
}

impl Program {
    /// What it is called in logs and hints: of a path no more than the file.
    pub(super) fn name(&self) -> Cow<'_, str> {
        match self {
            Self::LlamaServer { .. } => Cow::Borrowed("llama-server"),
            Self::Command { argv, .. } => {
                let file = argv.first().and_then(|program| Path::new(program).file_name());
                file.map_or(Cow::Borrowed("the command"), |file| file.to_string_lossy())
            }
        }
    }

    /// The name that it knows the model by, where that differs from the id.
    pub(super) fn model(&self) -> Option<&str> {
        match self {
            Self::LlamaServer { .. } => None,
            Self::Command { model, .. } => model.as_deref(),
        }
    }

    /// A hint on llama-server as it is told of this program: it has neither LLAMA_SERVER nor EXTRA_ARGS nor `args`.
    pub(super) fn told(&self, hint: String) -> String {
        match self {
            Self::LlamaServer { .. } => hint,
            Self::Command { .. } => {
                let name = self.name();
                let hint = hint.replace("llama-server", &name);
                let hint = hint.replace("EXTRA_ARGS or `args`", "`command`").replace("EXTRA_ARGS", "`command`");
                hint.replace("LLAMA_SERVER", &format!("`command` ({name})"))
            }
        }
    }
}

/// How many bytes a worker needs while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The configuration says so, and that holds.
    Configured(u64),
    /// A guess, which holds until a load has shown what it really takes.
    Estimated(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_called_by_its_file_and_its_hints_name_no_setting_of_llama_servers() {
        let command = |argv: &[&str]| Program::Command {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            health: "/health".to_owned(),
            model: None,
        };
        let serve = command(&["/opt/secret/serve", "--port"]);
        assert_eq!(serve.name(), "serve");
        assert_eq!(command(&[]).name(), "the command");
        let hint = "LLAMA_SERVER may not be executed; llama-server does not know --x: check EXTRA_ARGS or `args`";
        let told = "`command` (serve) may not be executed; serve does not know --x: check `command`";
        assert_eq!(serve.told(hint.to_owned()), told);
        let (binary, file) = (PathBuf::new(), PathBuf::new());
        let llama = Program::LlamaServer { binary, file, kind: ModelKind::Chat };
        assert_eq!((llama.name().as_ref(), llama.told(hint.to_owned()).as_str()), ("llama-server", hint));
    }
}
