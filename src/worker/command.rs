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
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
pub(super) struct Den(PathBuf);

impl Den {
    /// Makes the folder, in memory where there is a file system for that. Folders of processes that ended without
    /// removing theirs are removed.
    pub(super) fn new() -> io::Result<Self> {
        let candidates = [PathBuf::from("/dev/shm"), std::env::temp_dir(), PathBuf::from("/var/tmp")];
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in candidates {
            remove_abandoned(&parent);
            let name = format!("{PREFIX}{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
            let den = Self(parent.join(name));
            let made = DirBuilder::new()
                .mode(0o700)
                .create(&den.0)
                .and_then(|()| DirBuilder::new().mode(0o700).create(den.home()));
            match made {
                Ok(()) => return Ok(den),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.0.join("backend.key")
    }

    fn home(&self) -> PathBuf {
        self.0.join("home")
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
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PREFIX: &str = "llamagate-";

fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if let Some(pid) = pid
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
