//! Runs `llama-server --help`, once for each binary.
//!
//! A program that has no help, or takes too long, is no error: its arguments are then passed unchecked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::spawner::{CommandLine, Spawner};
use crate::worker::arguments::help::LlamaHelp;
use crate::worker::bounds::{HELP_BINARIES, HELP_PATIENCE, HELP_SIZE};

/// A home that is never there: llama-server would read a configuration file in it.
const NO_HOME: &str = "/nonexistent";

/// Reads the help of llama-servers, and remembers it.
#[derive(Clone)]
pub struct HelpReader {
    spawner: Spawner,
    /// Locked while a help is read, so that workers that start together read it once.
    known: Arc<Mutex<Vec<KnownHelp>>>,
}

/// What one binary says; `None` if it has no help.
struct KnownHelp {
    stamp: BinaryStamp,
    help: Option<Arc<LlamaHelp>>,
}

/// Identifies one state of a binary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BinaryStamp {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
}

impl HelpReader {
    /// Creates a reader that starts processes with `spawner`.
    pub fn new(spawner: Spawner) -> Self {
        Self { spawner, known: Arc::default() }
    }

    /// Returns the help of a llama-server; `None` if the program prints none in [`HELP_PATIENCE`]. `environment` is what
    /// a worker inherits.
    pub async fn read(&self, binary: &Path, environment: &[(String, String)]) -> Option<Arc<LlamaHelp>> {
        let mut known = self.known.lock().await;
        let metadata = tokio::time::timeout(HELP_PATIENCE, tokio::fs::metadata(binary)).await.ok()?.ok()?;
        let stamp = BinaryStamp { path: binary.to_owned(), size: metadata.len(), modified: metadata.modified().ok() };
        if let Some(same) = known.iter().find(|known| known.stamp == stamp) {
            return same.help.clone();
        }
        let text = tokio::time::timeout(HELP_PATIENCE, self.run(binary, environment)).await;
        let text = text.unwrap_or_else(|_| {
            let seconds = HELP_PATIENCE.as_secs();
            warn!(seconds, "llama-server --help did not end in time: arguments are passed to it unchecked");
            None
        });
        let help = text.as_deref().and_then(LlamaHelp::parse).map(Arc::new);
        debug!(is_known = help.is_some(), "the help of llama-server was read");
        if known.len() >= HELP_BINARIES {
            known.remove(0);
        }
        known.push(KnownHelp { stamp, help: help.clone() });
        help
    }

    /// Returns what a program prints when it is asked for its help; `None` if it prints nothing in [`HELP_PATIENCE`].
    pub async fn text(&self, binary: &Path, environment: &[(String, String)]) -> Option<String> {
        tokio::time::timeout(HELP_PATIENCE, self.run(binary, environment)).await.ok()?.filter(|text| !text.is_empty())
    }

    /// Runs the program and returns its output; `None` if it cannot be started or its output is too long. If this is
    /// cancelled, the program is killed with everything that it started.
    async fn run(&self, binary: &Path, environment: &[(String, String)]) -> Option<String> {
        let own = [("HOME", NO_HOME), ("XDG_CONFIG_HOME", NO_HOME), ("GGML_NO_BACKTRACE", "1")];
        let inherited = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let environment = inherited.chain(own).map(|(name, value)| (name.to_owned(), value.into())).collect();
        let line = CommandLine { program: binary.to_owned(), arguments: vec!["--help".into()], environment };
        let mut process = self.spawner.spawn(line).await.ok()?;
        let mut output = Vec::new();
        process.take_output()?.take(HELP_SIZE + 1).read_to_end(&mut output).await.ok()?;
        // Dropping the process kills what is still running of it.
        (output.len() as u64 <= HELP_SIZE).then(|| String::from_utf8_lossy(&output).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::arguments::help::tests::{CURRENT, OLDER};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// Writes a shell script, and a file beside it with `text`.
    fn script(folder: &Path, text: &str, commands: &str) -> PathBuf {
        fs::write(folder.join("help.txt"), text).unwrap();
        let path = folder.join("llama-server");
        fs::write(&path, format!("#!/bin/sh\necho x >> {0}/runs\n{commands}\n", folder.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn reader() -> HelpReader {
        HelpReader::new(Spawner::start(tokio::runtime::Handle::current(), None).unwrap())
    }

    fn path() -> [(String, String); 1] {
        [("PATH".to_owned(), "/usr/bin:/bin".to_owned())]
    }

    #[tokio::test]
    async fn the_help_is_read_once_for_each_state_of_a_binary() {
        let folder = tempfile::tempdir().unwrap();
        let print = format!("[ \"$*\" = --help ] && cat {}/help.txt", folder.path().display());
        let binary = script(folder.path(), CURRENT, &print);
        let reader = reader();
        for _ in 0..3 {
            assert!(reader.read(&binary, &path()).await.unwrap().has("--load-mode"));
        }
        let runs = || fs::read_to_string(folder.path().join("runs")).unwrap().lines().count();
        assert_eq!(runs(), 1);
        script(folder.path(), OLDER, &format!("{print} # replaced"));
        assert!(!reader.read(&binary, &path()).await.unwrap().has("--load-mode"), "it was replaced");
        assert_eq!(runs(), 2);
        assert!(reader.read(&folder.path().join("none"), &path()).await.is_none());
    }

    #[tokio::test]
    async fn a_program_without_a_help_is_no_error() {
        for commands in ["exit 1", "echo 'usage: none'", "yes", "cat help.txt | head -3; kill -9 $$"] {
            let folder = tempfile::tempdir().unwrap();
            let binary = script(folder.path(), CURRENT, commands);
            assert!(reader().read(&binary, &path()).await.is_none(), "{commands}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_goes_on_is_left_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let binary = script(folder.path(), CURRENT, "exec sleep 1000");
        let reader = reader();
        let begun = tokio::time::Instant::now();
        assert!(reader.read(&binary, &path()).await.is_none());
        assert!(begun.elapsed() >= HELP_PATIENCE);
        assert!(reader.read(&binary, &path()).await.is_none());
        assert!(begun.elapsed() < 2 * HELP_PATIENCE, "it is not run again");
    }
}
