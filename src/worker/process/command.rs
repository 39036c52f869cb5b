//! The command line of one worker: program, arguments, scrubbed environment.
//!
//! Owns what llama-server, or a command of the user's, is told and by which way. Secrets go by file, never by argument or
//! environment.

use super::cpus::Cpus;
use super::runtime_dir::{MARK, RuntimeDir};
use super::spawner::CommandLine;
use crate::models::ModelKind;
use crate::settings::values::GpuLayers;
use crate::worker::plan::{Plan, Program};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

/// What a process is started for.
pub(crate) struct Launch<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) address: SocketAddr,
    pub(crate) den: &'a RuntimeDir,
    pub(crate) cpus: Cpus,
}

impl Launch<'_> {
    pub(crate) fn command_line(&self) -> CommandLine {
        match &self.plan.program {
            Program::LlamaServer { binary, file, kind } => self.llama_server(binary, file, *kind),
            Program::Command { argv, .. } => self.command(argv),
        }
    }

    fn llama_server(&self, binary: &Path, file: &Path, kind: ModelKind) -> CommandLine {
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
        if let Some(threads) = Some(engine.threads).filter(|threads| *threads > 0).or_else(|| self.cpus.limit()) {
            say(&["-t", &threads.to_string()]);
        }
        match kind {
            ModelKind::Chat => {}
            // An input longer than the physical batch is refused, so the batch takes a whole slot.
            ModelKind::Embedding => {
                say(&["--embedding", "-b", &engine.ctx.0.to_string(), "-ub", &engine.ctx.0.to_string()])
            }
            ModelKind::Rerank => {
                say(&["--reranking", "-b", &engine.ctx.0.to_string(), "-ub", &engine.ctx.0.to_string()])
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, Inputs, resolve};
    use crate::telemetry::files::LogFolder;
    use crate::worker::plan::Need;
    use std::path::PathBuf;

    const ALL: Cpus = Cpus { allowed: 16, there: 16 };

    fn command_line(program: Program) -> (CommandLine, PathBuf) {
        command_line_on(ALL, "0", program)
    }

    fn command_line_on(cpus: Cpus, threads: &str, program: Program) -> (CommandLine, PathBuf) {
        let environment = Environment::from([("MODEL_PATH", "/m.gguf"), ("THREADS", threads)]);
        let platform = crate::platform::detect(|name| environment.get(name), Path::new("/nowhere"));
        let settings = resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap().config.settings;
        let plan = Plan {
            model: "m".to_owned(),
            number: 0,
            program,
            engine: settings.engine,
            environment: vec![("PATH".to_owned(), "/bin".to_owned()), ("HOME".to_owned(), "/home/u".to_owned())],
            logs: LogFolder::open("/nowhere".into(), 1),
            instance: String::new(),
            preload: true,
            pinned: false,
            need: Need::Estimated(0),
        };
        let den = RuntimeDir::new().unwrap();
        let launch = Launch { plan: &plan, address: SocketAddr::from(([127, 0, 0, 1], 4321)), den: &den, cpus };
        (launch.command_line(), den.path().to_owned())
    }

    fn variable<'a>(line: &'a CommandLine, name: &str) -> Option<&'a OsString> {
        // The last one counts.
        line.environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
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
    fn llama_server_gets_no_more_threads_than_a_control_group_allows_cpus() {
        let few = Cpus { allowed: 3, there: 16 };
        for (cpus, threads, expected) in
            [(ALL, "0", None), (ALL, "5", Some("5")), (few, "0", Some("3")), (few, "5", Some("5"))]
        {
            let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
            let program = Program::LlamaServer { binary, file, kind: ModelKind::Chat };
            let line = command_line_on(cpus, threads, program).0;
            let at = line.arguments.iter().position(|argument| argument == "-t");
            let said = at.and_then(|at| line.arguments[at + 1].to_str());
            assert_eq!(said, expected, "{cpus:?}, THREADS={threads}");
        }
    }

    #[test]
    fn llama_server_gets_a_home_of_its_own_and_its_key_by_file() {
        let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
        let (line, den) = command_line(Program::LlamaServer { binary, file, kind: ModelKind::Chat });
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
