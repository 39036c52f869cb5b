//! The command line of one llama-server: arguments, scrubbed environment.
//!
//! Owns what llama-server is told and by which way. Secrets go by file, never by argument or environment.

use super::den::Den;
use super::process::CommandLine;
use crate::models::Kind;
use crate::settings::options::Engine;
use crate::settings::values::GpuLayers;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

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
