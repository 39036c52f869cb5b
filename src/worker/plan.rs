//! The configuration of one worker: which program serves which model, with which options, and the memory that it needs.
//!
//! The command line is built from it in `process/command.rs`.

use std::borrow::Cow;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use crate::models::ModelKind;
use crate::settings::catalogue::{LoadMode, SpeculativeSetting};
use crate::settings::options::Engine;
use crate::telemetry::files::LogFolder;
use crate::worker::served_files::ServedFiles;

/// What hints call the arguments that a user gives an rpc-server.
const OWN_ARGUMENTS: &str = "the arguments after `--`";

/// Everything that one worker is started with, for its whole life.
pub struct Plan {
    /// The model's id.
    pub model: String,
    /// The number of the worker among those of its model.
    pub number: u32,
    /// The program that is started.
    pub program: Program,
    /// The engine's options.
    pub engine: Engine,
    /// How llama-server keeps the model file in memory.
    pub load_mode: LoadMode,
    /// The multimodal projector that llama-server gets.
    pub projector: Option<PathBuf>,
    /// What else llama-server gets with the model.
    pub companions: CompanionFiles,
    /// The files that its answers depend on, as they were found.
    pub files: ServedFiles,
    /// Whether llama-server gives the vectors of all tokens in place of one for each text.
    pub gives_token_vectors: bool,
    /// Environment variables that the process inherits.
    pub environment: Vec<(String, String)>,
    /// The folder of its log files.
    pub logs: LogFolder,
    /// The part of the log file names that tells instances of the service apart.
    pub instance: String,
    /// Whether it is started at once; otherwise it sleeps until there is demand.
    pub preload: bool,
    /// Whether it is never evicted for another model.
    pub pinned: bool,
    /// The memory that it needs while it is loaded.
    pub need: Need,
}

impl Plan {
    /// Returns the files that llama-server loads besides the model: its projector, its adapters and its draft model.
    pub(super) fn files_beside(&self) -> impl Iterator<Item = &Path> {
        let CompanionFiles { adapters, draft, .. } = &self.companions;
        let adapters = adapters.iter().map(|(path, _)| path);
        self.projector.iter().chain(adapters).chain(draft).map(PathBuf::as_path)
    }

    /// Returns the program's name for the model, where it differs from the id. llama-server takes a comma for the end of
    /// a name.
    pub(super) fn backend_name(&self) -> Option<String> {
        match &self.program {
            Program::LlamaServer { .. } => self.model.contains(',').then(|| self.model.replace(',', "_")),
            Program::Command { model, .. } => model.clone(),
            Program::RpcServer(_) => None,
        }
    }
}

/// What llama-server gets with a model besides its projector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompanionFiles {
    /// The adapters, in the order of their numbers, each with its scale for requests that name none.
    pub adapters: Vec<(PathBuf, f32)>,
    /// The draft model.
    pub draft: Option<PathBuf>,
    /// How tokens are drafted.
    pub speculative: SpeculativeSetting,
    /// The chat template.
    pub chat_template: Option<ChatTemplate>,
    /// Other machines that compute, as `HOST:PORT`.
    pub rpc: Vec<String>,
}

impl CompanionFiles {
    /// Returns the files on this machine.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let template = match &self.chat_template {
            Some(ChatTemplate::File(path)) => Some(path),
            Some(ChatTemplate::BuiltIn(_)) | None => None,
        };
        let adapters = self.adapters.iter().map(|(path, _)| path);
        adapters.chain(&self.draft).chain(template).map(PathBuf::as_path)
    }
}

/// A chat template in place of that of the model's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatTemplate {
    /// A file.
    File(PathBuf),
    /// One that llama-server has, by its name.
    BuiltIn(String),
}

/// The program that is started for a worker.
#[derive(Debug, Clone)]
pub enum Program {
    /// llama-server.
    LlamaServer {
        /// The binary.
        binary: PathBuf,
        /// The model file.
        file: PathBuf,
        /// The kind of the model that llama-server is started for: chat, embedding or rerank.
        kind: ModelKind,
    },
    /// Any server with an OpenAI-compatible API.
    Command {
        /// Program and arguments; `{port}` stands for the port on 127.0.0.1 that it must listen on.
        argv: Vec<String>,
        /// The path that responds with 200 when the program can serve.
        health: String,
        /// The program's name for the model, where it differs from the id.
        model: Option<String>,
    },
    /// llama.cpp's rpc-server, which computes for llama-servers of other machines.
    RpcServer(RpcServerProgram),
}

/// An rpc-server, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcServerProgram {
    /// The binary.
    pub binary: PathBuf,
    /// The address that it listens on.
    pub address: SocketAddrV4,
    /// The devices that compute; by default all GPUs, or the CPU if there is none.
    pub devices: Option<String>,
    /// The memory of each device that it offers, in MiB; by default all that is free.
    pub memory: Option<String>,
    /// Whether it keeps large tensors on the disk.
    pub keeps_cache: bool,
    /// Whether it can be told the number of its threads.
    pub takes_threads: bool,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Program {
    /// Returns its name for logs and hints: of a path only the file name.
    pub(super) fn name(&self) -> Cow<'_, str> {
        match self {
            Self::LlamaServer { .. } => Cow::Borrowed("llama-server"),
            Self::RpcServer(_) => Cow::Borrowed("rpc-server"),
            Self::Command { argv, .. } => {
                let file = argv.first().and_then(|program| Path::new(program).file_name());
                file.map_or(Cow::Borrowed("the command"), |file| file.to_string_lossy())
            }
        }
    }

    /// Rewrites a hint about llama-server for this program, which has neither LLAMA_SERVER nor EXTRA_ARGS nor `args`.
    pub(super) fn adapt_hint(&self, hint: String) -> String {
        match self {
            Self::LlamaServer { .. } => hint,
            Self::RpcServer(_) => {
                let hint = hint.replace("llama-server", "rpc-server").replace("LLAMA_SERVER", "RPC_SERVER");
                hint.replace("EXTRA_ARGS or `args`", OWN_ARGUMENTS).replace("EXTRA_ARGS", OWN_ARGUMENTS)
            }
            Self::Command { .. } => {
                let name = self.name();
                let hint = hint.replace("llama-server", &name);
                let hint = hint.replace("EXTRA_ARGS or `args`", "`command`").replace("EXTRA_ARGS", "`command`");
                hint.replace("LLAMA_SERVER", &format!("`command` ({name})"))
            }
        }
    }
}

/// The bytes of memory that a worker needs while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Set in the configuration; it is never replaced by a measurement.
    Configured(u64),
    /// An estimate, which the first load replaces with the memory that the process really used.
    Estimated(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_named_after_its_file_and_its_hints_name_no_setting_of_llama_server() {
        let command = |argv: &[&str]| Program::Command {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            health: "/health".to_owned(),
            model: None,
        };
        let serve = command(&["/opt/secret/serve", "--port"]);
        assert_eq!(serve.name(), "serve");
        assert_eq!(command(&[]).name(), "the command");
        let hint = "LLAMA_SERVER may not be executed; llama-server does not know --x: check EXTRA_ARGS or `args`";
        let adapted = "`command` (serve) may not be executed; serve does not know --x: check `command`";
        assert_eq!(serve.adapt_hint(hint.to_owned()), adapted);
        let (binary, file) = (PathBuf::new(), PathBuf::new());
        let llama = Program::LlamaServer { binary, file, kind: ModelKind::Chat };
        let rpc_server = Program::RpcServer(RpcServerProgram {
            binary: PathBuf::new(),
            address: SocketAddrV4::new([127, 0, 0, 1].into(), 50_052),
            devices: None,
            memory: None,
            keeps_cache: false,
            takes_threads: false,
            arguments: Vec::new(),
        });
        let adapted = "RPC_SERVER may not be executed; rpc-server does not know --x: check the arguments after `--`";
        assert_eq!(
            (rpc_server.name().as_ref(), rpc_server.adapt_hint(hint.to_owned()).as_str()),
            ("rpc-server", adapted)
        );
        assert_eq!((llama.name().as_ref(), llama.adapt_hint(hint.to_owned()).as_str()), ("llama-server", hint));
    }
}
