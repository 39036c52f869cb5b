//! The command line of one worker: program, arguments, scrubbed environment.
//!
//! Owns what llama-server, or a command of the user's, is told and by which way. Secrets go by file, never by argument or
//! environment.

use super::den::{Den, MARK};
use super::plan::{Plan, Program};
use super::process::CommandLine;
use crate::models::Kind;
use crate::settings::values::GpuLayers;
use nix::unistd::{SysconfVar, sysconf};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::available_parallelism;

/// What a process is started for.
pub(super) struct Launch<'a> {
    pub(super) plan: &'a Plan,
    pub(super) address: SocketAddr,
    pub(super) den: &'a Den,
}

impl Launch<'_> {
    pub(super) fn command_line(&self) -> CommandLine {
        match &self.plan.program {
            Program::LlamaServer { binary, file, kind } => self.llama_server(binary, file, *kind),
            Program::Command { argv, .. } => self.command(argv),
        }
    }

    fn llama_server(&self, binary: &Path, file: &Path, kind: Kind) -> CommandLine {
        let engine = &self.plan.engine;
        let slots = engine.parallel.get();
        let total_context = engine.ctx.0 as usize * slots;
        let mut arguments = Vec::new();
        let mut say = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        say(&["--host", &self.address.ip().to_string(), "--port", &self.address.port().to_string()]);
        say(&["--alias", &self.plan.model, "-np", &slots.to_string(), "-c", &total_context.to_string()]);
        match engine.ngl {
            // Given sizes are kept: fitting would shrink them when another process uses the GPU just then.
            GpuLayers::Count(layers) => say(&["-ngl", &layers.to_string(), "--fit", "off"]),
            GpuLayers::Auto => say(&["-ngl", "auto"]),
        }
        if let Some(threads) = threads(engine.threads, allowed_cpus(), cpus()) {
            say(&["-t", &threads.to_string()]);
        }
        match kind {
            Kind::Chat => {}
            // An input longer than the physical batch is refused, so the batch takes a whole slot.
            Kind::Embedding => say(&["--embedding", "-b", &engine.ctx.0.to_string(), "-ub", &engine.ctx.0.to_string()]),
            Kind::Rerank => say(&["--reranking", "-b", &engine.ctx.0.to_string(), "-ub", &engine.ctx.0.to_string()]),
        }
        say(&["--metrics", "--slots", "--no-webui", "--offline", "--log-colors", "off"]);
        arguments.extend([OsString::from("--api-key-file"), self.den.key_file().into()]);
        arguments.extend([OsString::from("-m"), file.into()]);
        arguments.extend(engine.extra_args.0.iter().map(OsString::from));

        let mut environment = self.inherited();
        environment.push(("HOME".to_owned(), self.den.home().into()));
        environment.push(("XDG_CONFIG_HOME".to_owned(), self.den.home().into()));
        // Without it an abort forks a debugger, which may hang with the GPU's memory still taken.
        environment.push(("GGML_NO_BACKTRACE".to_owned(), "1".into()));
        CommandLine { program: binary.to_owned(), arguments, environment }
    }

    fn command(&self, argv: &[String]) -> CommandLine {
        let port = self.address.port().to_string();
        let mut words = argv.iter().map(|word| OsString::from(word.replace("{port}", &port)));
        let program = words.next().unwrap_or_default().into();
        CommandLine { program, arguments: words.collect(), environment: self.inherited() }
    }

    fn inherited(&self) -> Vec<(String, OsString)> {
        let inherited = self.plan.environment.iter().map(|(name, value)| (name.clone(), value.into()));
        inherited.chain([(MARK.to_owned(), self.den.path().into())]).collect()
    }
}

/// How many threads llama-server is told to compute with, if it is told. By itself it starts one for each core of the
/// machine; where fewer may be used, they would only keep each other waiting.
fn threads(wanted: usize, allowed: Option<usize>, machine: Option<usize>) -> Option<usize> {
    if wanted > 0 { Some(wanted) } else { allowed.filter(|allowed| machine.is_some_and(|machine| *allowed < machine)) }
}

/// CPUs that this process may keep busy, by its affinity and its control groups.
fn allowed_cpus() -> Option<usize> {
    available_parallelism().ok().map(usize::from)
}

/// CPUs that the machine has.
fn cpus() -> Option<usize> {
    sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().and_then(|cpus| usize::try_from(cpus).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, Inputs, resolve};
    use crate::telemetry::files::Folder;
    use crate::worker::Need;
    use std::path::PathBuf;

    fn command_line(program: Program) -> (CommandLine, PathBuf) {
        let environment = Environment::from([("MODEL_PATH", "/m.gguf"), ("PATH", "/bin"), ("HOME", "/home/u")]);
        let platform = crate::platform::detect(|name| environment.get(name), Path::new("/nowhere"));
        let settings = resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap().settings;
        let plan = Plan {
            model: "m".to_owned(),
            number: 0,
            program,
            engine: settings.engine,
            environment: vec![("PATH".to_owned(), "/bin".to_owned()), ("HOME".to_owned(), "/home/u".to_owned())],
            logs: Folder::open("/nowhere".into(), 1),
            instance: String::new(),
            preload: true,
            pinned: false,
            need: Need::Estimated(0),
        };
        let den = Den::new().unwrap();
        let launch = Launch { plan: &plan, address: SocketAddr::from(([127, 0, 0, 1], 4321)), den: &den };
        (launch.command_line(), den.path().to_owned())
    }

    fn variable<'a>(line: &'a CommandLine, name: &str) -> Option<&'a OsString> {
        // The last one counts.
        line.environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    #[test]
    fn threads_are_those_wanted_else_those_that_a_container_allows() {
        assert_eq!(threads(6, Some(2), Some(8)), Some(6));
        assert_eq!(threads(0, Some(2), Some(8)), Some(2));
        // llama-server knows best which of the machine's own are worth a thread.
        assert_eq!(threads(0, Some(8), Some(8)), None);
        assert_eq!(threads(0, None, Some(8)), None);
        assert!(allowed_cpus() <= cpus(), "{:?} of {:?}", allowed_cpus(), cpus());
    }

    #[test]
    fn a_command_gets_the_port_the_users_home_and_no_word_of_ours() {
        let argv = ["serve", "--port={port}", "{port}", "--model", "{x}"].map(str::to_owned).to_vec();
        let (line, den) = command_line(Program::Command { argv, health: "/health".to_owned(), model: None });
        assert_eq!(line.program, Path::new("serve"));
        assert_eq!(line.arguments, ["--port=4321", "4321", "--model", "{x}"]);
        assert_eq!(variable(&line, "HOME").unwrap(), "/home/u");
        assert_eq!(variable(&line, MARK).unwrap(), &den);
    }

    #[test]
    fn llama_server_gets_a_home_of_its_own_and_its_key_by_file() {
        let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
        let (line, den) = command_line(Program::LlamaServer { binary, file, kind: Kind::Chat });
        let after = |word: &str| {
            let at = line.arguments.iter().position(|argument| argument == word).unwrap();
            PathBuf::from(&line.arguments[at + 1])
        };
        assert_eq!((after("--port"), after("-m")), ("4321".into(), "/m.gguf".into()));
        assert!(after("--api-key-file").starts_with(&den));
        assert_eq!(variable(&line, MARK).unwrap(), &den);
        assert!(Path::new(variable(&line, "HOME").unwrap()).starts_with(&den));
    }
}
