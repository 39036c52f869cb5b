//! What one worker is: which program serves which model, how it runs, and what it may take.

use crate::models::Kind;
use crate::settings::options::Engine;
use crate::telemetry::files::Folder;
use std::path::PathBuf;

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
    pub logs: Folder,
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
        kind: Kind,
    },
    /// Any server that speaks OpenAI's API.
    Command {
        /// Program and arguments; `{port}` stands for the port on 127.0.0.1 that it is to listen on.
        argv: Vec<String>,
        /// The path that answers 200 when it can serve.
        health: String,
    },
}

/// How many bytes a worker needs while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The configuration says so, and that holds.
    Configured(u64),
    /// A guess, which holds until a load has shown what it really takes.
    Estimated(u64),
}
