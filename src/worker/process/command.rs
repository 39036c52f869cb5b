//! The command line of one worker: program, arguments, scrubbed environment.
//!
//! Secrets are passed by file, never by argument or environment, because other users can read the arguments of a
//! process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use super::cpus::Cpus;
use super::runtime_dir::{RUNTIME_DIR_VARIABLE, RuntimeDir};
use super::spawner::CommandLine;
use crate::models::ModelKind;
use crate::settings::values::GpuLayers;
use crate::worker::arguments::help::LlamaHelp;
use crate::worker::arguments::own_flags::{PROJECTOR_FLAG, http_threads, load_mode, may_take};
use crate::worker::plan::{Plan, Program, RpcServerProgram};

/// The inputs of a command line.
pub(crate) struct Launch<'a> {
    pub(crate) plan: &'a Plan,
    /// The address that the process must listen on.
    pub(crate) address: SocketAddr,
    pub(crate) runtime_dir: &'a RuntimeDir,
    pub(crate) cpus: Cpus,
    /// The arguments that its llama-server knows, if it says so.
    pub(crate) help: Option<&'a LlamaHelp>,
}

impl Launch<'_> {
    /// Returns the command line.
    pub(crate) fn command_line(&self) -> CommandLine {
        match &self.plan.program {
            Program::LlamaServer { binary, file, kind } => self.llama_server(binary, file, *kind),
            Program::Command { argv, .. } => self.command(argv),
            Program::RpcServer(program) => self.rpc_server(program),
        }
    }

    fn llama_server(&self, binary: &Path, file: &Path, kind: ModelKind) -> CommandLine {
        let (engine, help) = (&self.plan.engine, self.help);
        let slots = engine.parallel.get();
        let total_context = engine.ctx.0 as usize * slots;
        let mut arguments = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        add(&["--host", &self.address.ip().to_string(), "--port", &self.address.port().to_string()]);
        let name = self.plan.backend_name();
        let name = name.as_deref().unwrap_or(&self.plan.model);
        add(&["--alias", name, "-np", &slots.to_string(), "-c", &total_context.to_string()]);
        match engine.ngl {
            // With `--fit`, llama-server would shrink the given sizes when another process uses the GPU at that moment.
            GpuLayers::Count(layers) => {
                add(&["-ngl", &layers.to_string()]);
                if may_take(help, "--fit") {
                    add(&["--fit", "off"]);
                }
            }
            GpuLayers::Auto => add(&["-ngl", "auto"]),
        }
        add(load_mode(help, self.plan.load_mode));
        if let Some(threads) = Some(engine.threads).filter(|threads| *threads > 0).or_else(|| self.cpus.limit()) {
            add(&["-t", &threads.to_string()]);
        }
        // llama-server refuses an input of these kinds that is longer than the physical batch, so the batch is at least as
        // large as a slot.
        let (context, batch) = (engine.ctx.0.to_string(), engine.batch.max(engine.ctx.0 as usize).to_string());
        match kind {
            ModelKind::Chat if engine.batch == 0 => {}
            ModelKind::Chat => add(&["-b", &engine.batch.to_string()]),
            ModelKind::Embedding => add(&["--embedding", "-b", &batch, "-ub", &context]),
            ModelKind::Rerank => add(&["--reranking", "-b", &batch, "-ub", &context]),
        }
        if self.plan.gives_token_vectors {
            add(&["--pooling", "none"]);
        }
        add(&["--metrics", "--slots"]);
        let connections = http_threads(help, slots, &engine.extra_args.words);
        add(&connections.iter().map(String::as_str).collect::<Vec<_>>());
        // The name that older builds know comes first.
        let page = ["--no-webui", "--no-ui"].into_iter().find(|flag| may_take(help, flag));
        let offline = Some("--offline").filter(|flag| may_take(help, flag));
        add(&[page, offline].into_iter().flatten().collect::<Vec<_>>());
        if may_take(help, "--log-colors") {
            add(&["--log-colors", "off"]);
        }
        arguments.extend([OsString::from("--api-key-file"), self.runtime_dir.key_file().into()]);
        arguments.extend([OsString::from("-m"), file.into()]);
        // One that `mmproj` names is refused before the start if llama-server takes none.
        let projector = self.plan.projector.as_ref().filter(|_| may_take(help, PROJECTOR_FLAG));
        arguments.extend(projector.iter().flat_map(|path| [OsString::from(PROJECTOR_FLAG), path.into()]));
        arguments.extend(self.plan.companions.arguments(help));
        arguments.extend(engine.extra_args.words.iter().map(OsString::from));

        let mut environment = self.inherited();
        environment.push(("HOME".to_owned(), self.runtime_dir.home().into()));
        environment.push(("XDG_CONFIG_HOME".to_owned(), self.runtime_dir.home().into()));
        environment.push(no_backtrace());
        CommandLine { program: binary.to_owned(), arguments, environment }
    }

    fn command(&self, argv: &[String]) -> CommandLine {
        let port = self.address.port().to_string();
        let mut words = argv.iter().map(|word| OsString::from(word.replace("{port}", &port)));
        let program = words.next().unwrap_or_default().into();
        CommandLine { program, arguments: words.collect(), environment: self.inherited() }
    }

    fn rpc_server(&self, program: &RpcServerProgram) -> CommandLine {
        let RpcServerProgram { binary, address, devices, memory, keeps_cache, takes_threads, arguments } = program;
        let mut words =
            vec!["--host".to_owned(), address.ip().to_string(), "--port".to_owned(), address.port().to_string()];
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        let threads = self.plan.engine.threads;
        if let Some(threads) = Some(threads).filter(|threads| *threads > 0).or_else(|| self.cpus.limit())
            && *takes_threads
        {
            add("--threads", threads.to_string());
        }
        devices.iter().for_each(|devices| add("--device", devices.clone()));
        memory.iter().for_each(|memory| add("--mem", memory.clone()));
        words.extend(keeps_cache.then(|| "--cache".to_owned()));
        words.extend(arguments.iter().cloned());
        let mut environment = self.inherited();
        environment.push(no_backtrace());
        CommandLine { program: binary.clone(), arguments: words.into_iter().map(OsString::from).collect(), environment }
    }

    /// Returns the inherited variables, and the one that marks the process for `leftovers.rs`.
    fn inherited(&self) -> Vec<(String, OsString)> {
        let inherited = self.plan.environment.iter().map(|(name, value)| (name.clone(), value.into()));
        inherited.chain([(RUNTIME_DIR_VARIABLE.to_owned(), self.runtime_dir.path().into())]).collect()
    }
}

/// Without this variable an abort forks a debugger, which may hang while the GPU memory is still allocated.
fn no_backtrace() -> (String, OsString) {
    ("GGML_NO_BACKTRACE".to_owned(), "1".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::catalogue::LoadMode;
    use crate::settings::{Environment, Inputs, resolve};
    use crate::telemetry::files::{LogFolder, LogRules};
    use crate::worker::plan::{CompanionFiles, Need};
    use crate::worker::served_files::ServedFiles;
    use std::path::PathBuf;

    const ALL: Cpus = Cpus { allowed: 16, online: 16 };

    fn command_line(program: Program) -> (CommandLine, PathBuf) {
        command_line_on(ALL, "0", program)
    }

    fn command_line_on(cpus: Cpus, threads: &str, program: Program) -> (CommandLine, PathBuf) {
        command_line_with(cpus, &[("THREADS", threads)], program)
    }

    fn command_line_with(cpus: Cpus, variables: &[(&str, &str)], program: Program) -> (CommandLine, PathBuf) {
        command_line_for(cpus, variables, program, None)
    }

    fn command_line_for(
        cpus: Cpus,
        variables: &[(&str, &str)],
        program: Program,
        help: Option<&LlamaHelp>,
    ) -> (CommandLine, PathBuf) {
        command_line_of(cpus, variables, help, |plan| Plan { program, ..plan })
    }

    fn command_line_of(
        cpus: Cpus,
        variables: &[(&str, &str)],
        help: Option<&LlamaHelp>,
        change: impl FnOnce(Plan) -> Plan,
    ) -> (CommandLine, PathBuf) {
        let environment: Environment = variables.iter().copied().chain([("MODEL_PATH", "/m.gguf")]).collect();
        let platform = crate::platform::detect(|name| environment.get(name), Path::new("/nowhere"));
        let settings = resolve(&Inputs { environment, ..Inputs::default() }, &platform).unwrap().config.settings;
        let plan = Plan {
            model: "m".to_owned(),
            number: 0,
            program: Program::Command { argv: Vec::new(), health: String::new(), model: None },
            engine: settings.engine,
            load_mode: LoadMode::default(),
            projector: Some("/mmproj.gguf".into()),
            companions: CompanionFiles::default(),
            files: ServedFiles::default(),
            gives_token_vectors: false,
            environment: vec![("PATH".to_owned(), "/bin".to_owned()), ("HOME".to_owned(), "/home/u".to_owned())],
            logs: LogFolder::open("/nowhere".into(), LogRules { is_written: false, keep: 1, part_size: None }),
            instance: String::new(),
            preload: true,
            pinned: false,
            need: Need::Estimated(0),
        };
        let plan = change(plan);
        let runtime_dir = RuntimeDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 4321));
        let launch = Launch { plan: &plan, address, runtime_dir: &runtime_dir, cpus, help };
        (launch.command_line(), runtime_dir.path().to_owned())
    }

    fn variable<'a>(line: &'a CommandLine, name: &str) -> Option<&'a OsString> {
        // The last value of a variable counts.
        line.environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    #[test]
    fn a_command_gets_the_port_and_the_users_home_and_no_argument_of_llama_server() {
        let argv = ["serve", "--port={port}", "{port}", "--model", "{x}"].map(str::to_owned).to_vec();
        let (line, runtime_dir) = command_line(Program::Command { argv, health: "/health".to_owned(), model: None });
        assert_eq!(line.program, Path::new("serve"));
        assert_eq!(line.arguments, ["--port=4321", "4321", "--model", "{x}"]);
        assert_eq!(variable(&line, "HOME").unwrap(), "/home/u");
        assert_eq!(variable(&line, RUNTIME_DIR_VARIABLE).unwrap(), &runtime_dir);
    }

    #[test]
    fn an_rpc_server_gets_its_address_and_what_it_may_take() {
        let least = RpcServerProgram {
            binary: "/bin/rpc-server".into(),
            address: "10.0.0.2:50052".parse().unwrap(),
            devices: None,
            memory: None,
            keeps_cache: false,
            takes_threads: false,
            arguments: Vec::new(),
        };
        let all = RpcServerProgram {
            devices: Some("CUDA0,CUDA1".to_owned()),
            memory: Some("8192,4096".to_owned()),
            keeps_cache: true,
            takes_threads: true,
            arguments: vec!["--verbose".to_owned()],
            ..least.clone()
        };
        let words = |program| command_line_on(Cpus { allowed: 3, online: 16 }, "0", Program::RpcServer(program)).0;
        assert_eq!(words(least).arguments, ["--host", "10.0.0.2", "--port", "50052"]);
        let line = words(all);
        let expected =
            "--host 10.0.0.2 --port 50052 --threads 3 --device CUDA0,CUDA1 --mem 8192,4096 --cache --verbose";
        assert_eq!(line.arguments, expected.split(' ').collect::<Vec<_>>());
        assert_eq!(variable(&line, "HOME").unwrap(), "/home/u", "its cache is there");
        assert_eq!(variable(&line, "GGML_NO_BACKTRACE").unwrap(), "1");
    }

    #[test]
    fn llama_server_gets_no_more_threads_than_a_control_group_allows_cpus() {
        let few = Cpus { allowed: 3, online: 16 };
        for (cpus, threads, expected) in
            [(ALL, "0", None), (ALL, "5", Some("5")), (few, "0", Some("3")), (few, "5", Some("5"))]
        {
            let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
            let program = Program::LlamaServer { binary, file, kind: ModelKind::Chat };
            let line = command_line_on(cpus, threads, program).0;
            let at = line.arguments.iter().position(|argument| argument == "-t");
            let actual = at.and_then(|at| line.arguments[at + 1].to_str());
            assert_eq!(actual, expected, "{cpus:?}, THREADS={threads}");
        }
    }

    #[test]
    fn a_small_batch_made_embedding_and_rerank_models_refuse_longer_inputs() {
        for (kind, batch, expected) in [
            (ModelKind::Chat, "0", [None, None]),
            (ModelKind::Chat, "64", [Some("64"), None]),
            (ModelKind::Embedding, "0", [Some("512"), Some("512")]),
            (ModelKind::Embedding, "64", [Some("512"), Some("512")]),
            (ModelKind::Rerank, "4096", [Some("4096"), Some("512")]),
        ] {
            let program = Program::LlamaServer { binary: "/bin/llama-server".into(), file: "/m.gguf".into(), kind };
            let line = command_line_with(ALL, &[("BATCH", batch), ("CTX", "512")], program).0;
            let value = |word: &str| {
                let at = line.arguments.iter().position(|argument| argument == word)?;
                line.arguments[at + 1].to_str()
            };
            assert_eq!(["-b", "-ub"].map(value), expected, "{kind}, BATCH={batch}");
        }
    }

    #[test]
    fn a_model_with_heads_gives_the_vectors_of_all_tokens() {
        for (gives_token_vectors, expected) in [(false, None), (true, Some("none"))] {
            let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
            let program = Program::LlamaServer { binary, file, kind: ModelKind::Embedding };
            let line = command_line_of(ALL, &[], None, |plan| Plan { program, gives_token_vectors, ..plan }).0;
            let at = line.arguments.iter().position(|argument| argument == "--pooling");
            assert_eq!(at.and_then(|at| line.arguments[at + 1].to_str()), expected);
        }
    }

    #[test]
    fn a_projector_that_was_found_ended_every_start_of_a_build_that_takes_none() {
        let words = "--host H\n--port N\n-c, --ctx-size N\n-m, --model F\n";
        for (help, is_passed) in [(words.to_owned(), false), (format!("{words}-mm, --mmproj F\n"), true)] {
            let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
            let program = Program::LlamaServer { binary, file, kind: ModelKind::Chat };
            let help = LlamaHelp::parse(&help).unwrap();
            let line = command_line_for(ALL, &[], program, Some(&help)).0;
            assert_eq!(line.arguments.iter().any(|word| word == "--mmproj"), is_passed, "{:?}", line.arguments);
        }
    }

    #[test]
    fn llama_server_gets_a_home_of_its_own_and_its_key_by_file() {
        let (binary, file) = ("/bin/llama-server".into(), "/m.gguf".into());
        let (line, runtime_dir) = command_line(Program::LlamaServer { binary, file, kind: ModelKind::Chat });
        let after = |word: &str| {
            let at = line.arguments.iter().position(|argument| argument == word).unwrap();
            PathBuf::from(&line.arguments[at + 1])
        };
        assert_eq!((after("--port"), after("-m")), ("4321".into(), "/m.gguf".into()));
        assert_eq!(after("--mmproj"), Path::new("/mmproj.gguf"));
        assert!(after("--api-key-file").starts_with(&runtime_dir));
        assert_eq!(variable(&line, RUNTIME_DIR_VARIABLE).unwrap(), &runtime_dir);
        assert!(Path::new(variable(&line, "HOME").unwrap()).starts_with(&runtime_dir));
    }
}
