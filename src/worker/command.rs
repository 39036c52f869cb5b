//! The command line of one llama-server: arguments, scrubbed environment, key file.
//!
//! Owns what llama-server is told and by which way. Secrets go by file, never by argument or environment.

use super::process::CommandLine;
use crate::models::Kind;
use crate::settings::options::Engine;
use crate::settings::values::GpuLayers;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a llama-server is started for.
pub(super) struct Launch<'a> {
    pub(super) engine: &'a Engine,
    pub(super) program: &'a Path,
    pub(super) model: &'a Path,
    pub(super) id: &'a str,
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    pub(super) den: &'a Den,
    pub(super) inherited: &'a [(String, String)],
}

impl Launch<'_> {
    pub(super) fn command_line(&self) -> CommandLine {
        let engine = self.engine;
        let slots = engine.parallel.get();
        let total_context = engine.ctx.0 as usize * slots;
        let mut arguments = Vec::new();
        let mut say = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        say(&["--host", &self.address.ip().to_string(), "--port", &self.address.port().to_string()]);
        say(&["--alias", self.id, "-np", &slots.to_string(), "-c", &total_context.to_string()]);
        match engine.ngl {
            // Given sizes are kept: fitting would shrink them when another process uses the GPU just then.
            GpuLayers::Count(layers) => say(&["-ngl", &layers.to_string(), "--fit", "off"]),
            GpuLayers::Auto => say(&["-ngl", "auto"]),
        }
        if engine.threads > 0 {
            say(&["-t", &engine.threads.to_string()]);
        }
        match self.kind {
            Kind::Chat => {}
            // An input longer than the physical batch is refused, so the batch takes a whole slot.
            Kind::Embedding => say(&["--embedding", "-b", &engine.ctx.0.to_string(), "-ub", &engine.ctx.0.to_string()]),
            Kind::Rerank => say(&["--reranking", "-b", &engine.ctx.0.to_string(), "-ub", &engine.ctx.0.to_string()]),
        }
        say(&["--metrics", "--slots", "--no-webui", "--offline", "--log-colors", "off"]);
        arguments.extend([OsString::from("--api-key-file"), self.den.key_file().into()]);
        arguments.extend([OsString::from("-m"), self.model.into()]);
        arguments.extend(engine.extra_args.0.iter().map(OsString::from));

        let mut environment: Vec<(String, OsString)> =
            self.inherited.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        environment.push(("HOME".to_owned(), self.den.home().into()));
        environment.push(("XDG_CONFIG_HOME".to_owned(), self.den.home().into()));
        // Without it an abort forks a debugger, which may hang with the GPU's memory still taken.
        environment.push(("GGML_NO_BACKTRACE".to_owned(), "1".into()));
        CommandLine { program: self.program.to_owned(), arguments, environment }
    }
}

/// A private folder for one worker: the key file, and a HOME without anybody's llama.cpp configuration.
///
/// It is locked while it is in use, so that whoever tidies up after a killed gateway can tell; process ids would not
/// do, for containers may share the folder above and not the ids.
pub(super) struct Den {
    path: PathBuf,
    _lock: File,
}

impl Den {
    /// Makes the folder, in memory where there is a file system for that. Folders of processes that ended without
    /// removing theirs are removed.
    pub(super) fn new() -> io::Result<Self> {
        let candidates = [PathBuf::from("/dev/shm"), std::env::temp_dir(), PathBuf::from("/var/tmp")];
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in candidates {
            remove_abandoned(&parent);
            match Self::make(parent.join(format!("{PREFIX}{}", uuid::Uuid::now_v7().simple()))) {
                Ok(den) => return Ok(den),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn make(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        let den = Self { path, _lock: lock };
        DirBuilder::new().mode(0o700).create(den.home())?;
        Ok(den)
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.path.join("backend.key")
    }

    fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// Draws a new key, writes it for llama-server to read, and gives the header that it will ask for.
    pub(super) fn write_new_key(&self) -> io::Result<HeaderValue> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let key = format!("gateway-{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        let path = self.key_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.as_bytes())?;
        let mut header = HeaderValue::try_from(format!("Bearer {key}")).map_err(io::Error::other)?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

const PREFIX: &str = "llamagate-den-";

/// A folder younger than this may not be locked yet by whoever makes it.
const YOUNG: Duration = Duration::from_secs(60);

fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let ours = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
    for entry in entries.flatten().filter(ours) {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
        let abandoned = age.is_some_and(|age| age > YOUNG)
            && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_den_in_use_is_kept_and_an_abandoned_one_goes() {
        let parent = tempfile::tempdir().unwrap();
        let den = Den::make(parent.path().join(format!("{PREFIX}live"))).unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}dead"));
        let young = parent.path().join(format!("{PREFIX}young"));
        let foreign = parent.path().join("someone-elses");
        for path in [&abandoned, &young, &foreign] {
            fs::create_dir(path).unwrap();
        }
        let old = SystemTime::now() - 2 * YOUNG;
        for path in [&den.path, &abandoned, &foreign] {
            File::open(path).unwrap().set_modified(old).unwrap();
        }
        remove_abandoned(parent.path());
        assert!(den.path.exists() && young.exists() && foreign.exists());
        assert!(!abandoned.exists());
    }
}
