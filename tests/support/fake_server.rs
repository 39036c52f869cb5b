//! The fake llama-server as a child of the test, without a gateway.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{client::Client, model_file::Kind, process::Process, scripted::ScriptedModel};

/// The API key of this server.
pub(crate) const KEY: &str = "fake-worker-key";

/// A running fake.
pub(crate) struct FakeServer {
    pub(crate) process: Process,
    pub(crate) model: ScriptedModel,
    _folder: TempDir,
}

impl FakeServer {
    /// Starts the fake with a script, and with `arguments` after the usual ones.
    pub(crate) fn start(script: &Value, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = ScriptedModel::create(folder.path(), "dummy.gguf", Kind::Chat, script);
        let keys = folder.path().join("key");
        std::fs::write(&keys, format!("# the worker's key\n{KEY}\n")).expect("the key file can be written");
        let mut command = Command::new(program());
        command.arg("-m").arg(&model.path).args(["--host", "127.0.0.1", "--alias", "dummy"]);
        command.args(["--port", "0"]).arg("--api-key-file").arg(keys);
        command.args(["-c", "4096", "-np", "2", "--metrics", "--fit", "off", "--no-ui"]).args(arguments);
        let process = Process::start("fake-llama-server", command.env_clear(), folder.path());
        FakeServer { process, model, _folder: folder }
    }

    /// Returns a client with the right key. Waits until the port is bound, not for the load.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url()).key(KEY)
    }

    /// Waits until the fake is ready.
    pub(crate) fn wait_ready(&self) {
        self.model.journal().wait_for_event("ready");
    }

    /// Returns `http://127.0.0.1:PORT`. Waits until the port is bound.
    pub(crate) fn url(&self) -> String {
        let bound = self.model.journal().wait_for_event("bound");
        format!("http://127.0.0.1:{}", bound["port"])
    }
}

/// Returns the path of the fake's program.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_fake-llama-server")
}
