//! The real llama-server, started by a test itself: a remote backend.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{
    client::Client,
    gateway::{real_llama_server, test_models},
    process::Process,
    wait::{self, eventually},
};

/// A running llama-server.
pub(crate) struct RealServer {
    url: String,
    _process: Process,
    _folder: TempDir,
}

impl RealServer {
    /// Starts llama-server with one of the test models and further arguments, and waits until it is ready.
    pub(crate) fn start(model: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(real_llama_server());
        command.arg("-m").arg(test_models().join(model)).args(arguments);
        Self::start_command(command)
    }

    /// Starts llama-server without the network, with a model of a cache by its name on the hub. `variable` names the cache.
    pub(crate) fn start_of_cache(variable: &str, cache: &Path, name: &str) -> Self {
        let mut command = Command::new(real_llama_server());
        for other in ["HF_HUB_CACHE", "HF_HOME", "LLAMA_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT"] {
            command.env_remove(other);
        }
        command.env(variable, cache).args(["-hf", name, "--offline"]);
        Self::start_command(command)
    }

    fn start_command(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        command.args(["--host", "127.0.0.1", "--port", "0"]);
        command.args(["-c", "512", "-b", "64", "-ub", "64", "-np", "1", "-t", "1", "-ngl", "0", "--no-ui"]);
        let mut process = Process::start("llama-server", &mut command, folder.path());
        let line = process.wait_for_line("listening on http://");
        let url = line[line.find("http://").expect("the line has been found by it")..].trim().to_owned();
        let client = Client::new(&url);
        eventually("the second llama-server is ready", wait::REAL_MODEL_READY, || {
            client.get("/health").status() == 200
        });
        Self { url, _process: process, _folder: folder }
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}
