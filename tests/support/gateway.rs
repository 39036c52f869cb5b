//! The gateway as its users run it: a process of `llamagate serve`, with its own data folder.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    client::Client,
    fake_server,
    model_file::Kind,
    process::Process,
    resources,
    scripted::{Control, Journal, ScriptedModel},
    wait::{self, eventually, eventually_some},
};

/// The secrets of the default key file.
pub(crate) const ADMIN: &str = "admin-secret-0123456789";
pub(crate) const USER: &str = "user-secret-0123456789";
/// The secret of a key for two requests per minute.
pub(crate) const LIMITED: &str = "limited-secret-0123456789";
/// The secret of an expired key.
pub(crate) const EXPIRED: &str = "expired-secret-0123456789";

/// The llama-server behind the gateway.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// The fake llama-server, with a script of its faults.
    Fake { script: Value, kind: Kind },
    /// The real llama-server with a file of the test models' folder, such as `tiny-chat.gguf`.
    Real { model: &'static str },
    /// The models of a configuration file, each served by the fake: file name under MODELS_DIR, script and kind.
    Fakes { config: String, models: Vec<(String, Value, Kind)> },
    /// The models of a configuration file, served by the real llama-server; MODELS_DIR holds the test models.
    Reals { config: String },
}

/// The configuration of a gateway that a test starts.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    backend: Backend,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
    keys: Option<String>,
    /// The command that runs the gateway; empty if the gateway is started directly.
    under: Vec<String>,
    /// The size of a separate file system for LOG_DIR.
    log_disk_kib: Option<u32>,
}

/// A running gateway.
pub(crate) struct Gateway {
    process: Process,
    folder: Option<TempDir>,
    models: Vec<ScriptedModel>,
    url: String,
    health_url: String,
    is_real: bool,
}

impl Gateway {
    /// Begins the configuration: in front of a healthy fake, with the keys above.
    pub(crate) fn builder() -> Builder {
        Builder {
            backend: Backend::Fake { script: json!({}), kind: Kind::Chat },
            settings: BTreeMap::new(),
            arguments: Vec::new(),
            keys: Some(default_keys()),
            under: Vec::new(),
            log_disk_kib: None,
        }
    }

    /// Returns `http://127.0.0.1:PORT` of the gateway, or `https` if it has TLS.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns `http://127.0.0.1:PORT` of the health port.
    pub(crate) fn health_url(&self) -> &str {
        &self.health_url
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns DATA_DIR.
    pub(crate) fn data_dir(&self) -> &Path {
        self.folder.as_ref().expect("the folder is kept until the drop").path()
    }

    /// Returns AUTH_KEYS_FILE.
    pub(crate) fn keys_file(&self) -> PathBuf {
        self.data_dir().join("api_keys.txt")
    }

    /// Returns a client of the gateway with the user's key.
    pub(crate) fn client(&self) -> Client {
        self.client_with(USER)
    }

    pub(crate) fn client_with(&self, secret: &str) -> Client {
        self.anonymous().key(secret)
    }

    /// Returns a client of the gateway without a key.
    pub(crate) fn anonymous(&self) -> Client {
        let patience = if self.is_real { wait::REAL_MODEL_ANSWERS } else { wait::ANSWERS };
        Client::new(&self.url).patience(patience)
    }

    /// Returns a client of the health port.
    pub(crate) fn health(&self) -> Client {
        Client::new(&self.health_url)
    }

    /// Waits until /ping on the health port answers 200: a request would be served.
    #[track_caller]
    pub(crate) fn wait_ready(&self) {
        let deadline = if self.is_real { wait::REAL_MODEL_READY } else { wait::READY };
        let health = self.health();
        eventually("/ping on the health port answers 200", deadline, || {
            health.try_send("GET", "/ping", b"").is_ok_and(|answer| answer.status() == 200)
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }

    /// Sends SIGTERM and waits until the gateway has ended.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// Returns the output so far.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Returns the children of the gateway, but for a llama-server that only prints its help, which each start asks for, and the
    /// shell that ends the others where the kernel does not.
    pub(crate) fn child_pids(&self) -> Vec<u32> {
        let serves = |pid: &u32| {
            let words = resources::cmdline(*pid);
            !words.is_empty() && words.iter().all(|word| word != "--help" && word != "llamagate-guard")
        };
        resources::children(self.pid()).into_iter().filter(serves).collect()
    }

    pub(crate) fn open_fds(&self) -> usize {
        resources::fds(self.pid())
    }

    /// Returns the first model of the fake; panics with the real llama-server.
    pub(crate) fn model(&self) -> &ScriptedModel {
        self.models.first().expect("only the fake has a script and a journal")
    }

    /// Returns the fake's model with this file name.
    #[track_caller]
    pub(crate) fn model_file(&self, name: &str) -> &ScriptedModel {
        self.models.iter().find(|model| model.path.ends_with(name)).expect("there is a model of that name")
    }

    /// Replaces the configuration file by rename.
    pub(crate) fn rewrite_config(&self, config: &str) {
        let path = self.data_dir().join("llamagate.yaml");
        fs::write(path.with_extension("new"), config).expect("the configuration can be written");
        fs::rename(path.with_extension("new"), path).expect("the configuration can be replaced");
    }

    pub(crate) fn journal(&self) -> Journal {
        self.model().journal()
    }

    /// Connects to the control socket of the fake that was started last.
    #[track_caller]
    pub(crate) fn control(&self) -> Control {
        self.model().control()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let workers = self.child_pids();
        self.process.kill();
        for worker in workers {
            let _ = kill(Pid::from_raw(worker as i32), Signal::SIGKILL); // in case the gateway has failed to end them
        }
        if let Some(folder) = self.folder.take()
            && thread::panicking()
        {
            eprintln!("the gateway's folder is kept: {}", folder.keep().display());
        }
    }
}

impl Builder {
    /// Sets an environment variable.
    pub(crate) fn set(mut self, variable: &str, value: impl ToString) -> Self {
        self.settings.insert(variable.into(), value.to_string());
        self
    }

    /// Serves over TLS, with a certificate of its own.
    pub(crate) fn secure(self) -> Self {
        self.set("TLS_SELF_SIGNED", true)
    }

    /// Sets several environment variables.
    pub(crate) fn set_all(self, settings: &[(&str, &str)]) -> Self {
        settings.iter().fold(self, |builder, (variable, value)| builder.set(variable, value))
    }

    /// Adds an argument after `serve`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Uses the fake with this script.
    pub(crate) fn script(self, script: Value) -> Self {
        self.backend(Backend::Fake { script, kind: Kind::Chat })
    }

    /// Uses a configuration file whose models are served by the fake: the file, and the script for each model file that
    /// it names.
    pub(crate) fn fakes(self, config: &str, models: &[(&str, Value)]) -> Self {
        let models = models.iter().map(|(name, script)| ((*name).to_owned(), script.clone(), Kind::Chat)).collect();
        self.backend(Backend::Fakes { config: config.into(), models })
    }

    /// Uses a configuration file whose models are served by the real llama-server.
    pub(crate) fn reals(self, config: &str) -> Self {
        self.backend(Backend::Reals { config: config.into() })
    }

    pub(crate) fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Sets the text of the key file.
    pub(crate) fn keys(mut self, text: &str) -> Self {
        self.keys = Some(text.into());
        self
    }

    /// Writes no key file and sets AUTH_ENABLED=false.
    pub(crate) fn without_keys(mut self) -> Self {
        self.keys = None;
        self.set("AUTH_ENABLED", false)
    }

    /// Sets the soft and the hard limit on open files.
    pub(crate) fn open_files(self, soft: u32, hard: u32) -> Self {
        self.under(&["/bin/sh", "-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"")])
    }

    /// Runs the gateway through this command, which gets the gateway's program and arguments after its own.
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Mounts a tmpfs of `kib` KiB on LOG_DIR, in the gateway's mount namespace only. `can_mount` says whether this
    /// machine allows it.
    pub(crate) fn log_disk(mut self, kib: u32) -> Self {
        self.log_disk_kib = Some(kib);
        self
    }

    /// Starts the gateway and waits until it listens; the model may still be loading.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        let is_real = matches!(self.backend, Backend::Real { .. } | Backend::Reals { .. });
        let has_tls = ["TLS_CERT", "TLS_SELF_SIGNED", "TLS_ACME_DOMAINS"]
            .iter()
            .any(|&variable| self.settings.contains_key(variable));
        let has_tls =
            has_tls || matches!(&self.backend, Backend::Fakes { config, .. } if config.contains("tls_acme_domains"));
        let (mut process, folder, models) = self.spawn();
        let port = eventually_some("the gateway writes PORT_FILE", wait::STARTS, || {
            let status = process.try_exit_status();
            assert!(status.is_none(), "the gateway ended at its start: {status:?}\n{}", process.output());
            fs::read_to_string(folder.path().join(".port")).ok()?.trim().parse::<u16>().ok()
        });
        let line = process.wait_for_line("health port listens on http");
        let health_url = line.split("listens on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let health_url = health_url.expect("the line names the address").trim_end_matches(['"', '}', ',']).to_owned();
        let url = format!("{}://127.0.0.1:{port}", if has_tls { "https" } else { "http" });
        Gateway { process, folder: Some(folder), models, url, health_url, is_real }
    }

    /// Starts the gateway and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_ready(self) -> Gateway {
        let gateway = self.start();
        gateway.wait_ready();
        gateway
    }

    /// Starts a gateway with plain HTTP and waits until it is ready; after it has ended, the same with TLS.
    pub(crate) fn start_over_both(self) -> impl Iterator<Item = Gateway> {
        [self.clone(), self.secure()].into_iter().map(Self::start_ready)
    }

    /// Starts the gateway without waiting.
    pub(crate) fn launch(self) -> (Process, TempDir) {
        let (process, folder, _) = self.spawn();
        (process, folder)
    }

    /// Starts a gateway that is expected to end by itself; returns its status and its output.
    #[track_caller]
    pub(crate) fn run_to_exit(self) -> (ExitStatus, String) {
        let (mut process, _folder) = self.launch();
        let status = process.wait_exit();
        (status, process.output())
    }

    fn spawn(self) -> (Process, TempDir, Vec<ScriptedModel>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path();
        let models = data.join("models");
        fs::create_dir(&models).expect("a folder in the temporary folder");
        let mut settings: BTreeMap<String, String> = BTreeMap::new();
        let mut default = |variable: &str, value: &str| _ = settings.insert(variable.into(), value.into());
        default("DATA_DIR", &text(data));
        default("HOME", &text(data));
        default("PATH", &std::env::var("PATH").unwrap_or_default());
        // Nothing outside this machine is asked.
        default("HF_HUB_OFFLINE", "true");
        default("HOST", "127.0.0.1");
        default("PORT", "0");
        default("PORT_HEALTH", "0");
        default("PORT_BACKEND", &backend_port().to_string());
        default("PORT_FILE", &text(&data.join(".port")));
        default("AUTH_KEYS_FILE", &text(&data.join("api_keys.txt")));
        let scripted = match &self.backend {
            Backend::Fake { script, kind } => {
                let model = ScriptedModel::create(&models, "dummy.gguf", *kind, script);
                default("LLAMA_SERVER", fake_server::program());
                default("MODEL_PATH", &text(&model.path));
                vec![model]
            }
            Backend::Real { model } => {
                default("LLAMA_SERVER", &text(&real_llama_server()));
                default("MODEL_PATH", &text(&test_models().join(model)));
                default("NGL", "0");
                default("CTX", "1024");
                default("THREADS", "1");
                Vec::new()
            }
            Backend::Fakes { config, models: fakes } => {
                default("LLAMA_SERVER", fake_server::program());
                fs::write(data.join("llamagate.yaml"), config).expect("the configuration can be written");
                let create =
                    |(name, script, kind): &(String, Value, Kind)| ScriptedModel::create(&models, name, *kind, script);
                fakes.iter().map(create).collect()
            }
            Backend::Reals { config } => {
                default("LLAMA_SERVER", &text(&real_llama_server()));
                default("MODELS_DIR", &text(&test_models()));
                default("NGL", "0");
                default("CTX", "512");
                default("THREADS", "1");
                fs::write(data.join("llamagate.yaml"), config).expect("the configuration can be written");
                Vec::new()
            }
        };
        settings.extend(self.settings);
        if let Some(keys) = &self.keys {
            let path = data.join("api_keys.txt");
            fs::write(&path, keys).expect("the key file can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        }
        let mut under = self.under;
        if let Some(kib) = self.log_disk_kib {
            let logs = data.join("logs");
            fs::create_dir(&logs).expect("a folder in the temporary folder");
            under.extend(in_own_mounts(&format!("mount -t tmpfs -o size={kib}k none {}", text(&logs))));
        }
        let words: Vec<&str> = under.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_llamagate")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("serve").args(&self.arguments).env_clear().envs(settings).current_dir(data);
        (Process::start("llamagate", &mut command, data), folder, scripted)
    }
}

/// Whether this machine allows a mount in a new mount namespace.
pub(crate) fn can_mount() -> bool {
    let words = in_own_mounts("mount -t tmpfs -o size=64k none /mnt");
    let mount = Command::new(&words[0]).args(&words[1..]).arg("true").env_clear().output();
    mount.is_ok_and(|output| output.status.success())
}

/// Returns the prefix of a command that runs in a new mount namespace, after this line of shell.
fn in_own_mounts(line: &str) -> [String; 5] {
    ["unshare", "-Urm", "/bin/sh", "-c", &format!("{line} && exec \"$0\" \"$@\"")].map(str::to_owned)
}

/// Returns the real llama-server: LLAMA_SERVER, else the one that scripts/test.sh keeps in the checkout.
pub(crate) fn real_llama_server() -> PathBuf {
    given_or_cached("LLAMA_SERVER", "llama-server/llama-server")
}

/// Returns the folder of the tiny test models: LLAMAGATE_TEST_MODELS, else the one in the checkout.
pub(crate) fn test_models() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_MODELS", "models")
}

/// Returns a small model that generates real text: LLAMAGATE_TEST_SMOLLM, else the one in the checkout.
pub(crate) fn smollm() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_SMOLLM", "models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Returns a Python with the client libraries: LLAMAGATE_TEST_PYTHON, else the one in the checkout.
pub(crate) fn python() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_PYTHON", "venv/bin/python")
}

/// Returns a Python with RunPod's SDK: LLAMAGATE_TEST_RUNPOD, else the one in the checkout.
pub(crate) fn runpod_python() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_RUNPOD", "runpod/bin/python")
}

/// Returns a Python with LiteLLM's SDK: LLAMAGATE_TEST_LITELLM, else the one in the checkout.
pub(crate) fn litellm_python() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_LITELLM", "litellm/bin/python")
}

/// Returns a Python with Ollama's client: LLAMAGATE_TEST_OLLAMA, else the one in the checkout.
pub(crate) fn ollama_python() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_OLLAMA", "ollama/bin/python")
}

/// Returns a Python with the clients of rerankers and embeddings: LLAMAGATE_TEST_RETRIEVAL, else the one in the checkout.
pub(crate) fn retrieval_python() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_RETRIEVAL", "retrieval/bin/python")
}

/// Returns the folder of the packages for Node.js: LLAMAGATE_TEST_NODE, else the one in the checkout.
pub(crate) fn node_packages() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_NODE", "node/node_modules")
}

/// Returns the folder of an rpc-server and of a llama-server that can use it: LLAMAGATE_TEST_RPC, else the one in the
/// checkout; none where there is none.
pub(crate) fn rpc_programs() -> Option<PathBuf> {
    let cached = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/rpc-server");
    let folder = std::env::var_os("LLAMAGATE_TEST_RPC").map_or_else(cached, PathBuf::from);
    Some(folder).filter(|folder| folder.join("rpc-server").is_file())
}

/// Returns Chromium: LLAMAGATE_TEST_CHROMIUM, else the one on PATH; none where there is none.
pub(crate) fn chromium() -> Option<PathBuf> {
    let on_path = || {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join("chromium")).find(|program| program.is_file())
    };
    std::env::var_os("LLAMAGATE_TEST_CHROMIUM").map(PathBuf::from).or_else(on_path)
}

/// Returns nginx: LLAMAGATE_TEST_NGINX, else the one that scripts/get-nginx.sh keeps in the checkout.
pub(crate) fn nginx() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_NGINX", "nginx/nginx")
}

/// Returns a Valkey or Redis server: LLAMAGATE_TEST_VALKEY, else the one that scripts/get-valkey.sh keeps in the checkout.
pub(crate) fn valkey() -> PathBuf {
    given_or_cached("LLAMAGATE_TEST_VALKEY", "valkey/server")
}

fn given_or_cached(variable: &str, cached: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(given) => PathBuf::from(given),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache").join(cached),
    };
    assert!(path.exists(), "{} is missing: run scripts/test.sh, or set {variable}", path.display());
    path
}

/// Returns the first port for workers. Each gateway of a test run gets 100 ports, because that many are tried, so that
/// two gateways that look for a free port at the same moment do not find the same one. All are below the kernel's
/// ephemeral ports.
pub(crate) fn backend_port() -> u32 {
    static GATEWAYS: AtomicU32 = AtomicU32::new(0);
    let nth = std::process::id().wrapping_add(GATEWAYS.fetch_add(1, Ordering::Relaxed));
    10_000 + nth % 220 * 100
}

fn default_keys() -> String {
    format!(
        "# keys of a test\n\
         admin:{ADMIN}:100000 scope=inference,admin,metrics\n\
         user:{USER}:100000\n\
         limited:{LIMITED}:2\n\
         expired:{EXPIRED}:100:2020-01-01\n"
    )
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}
