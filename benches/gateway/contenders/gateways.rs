//! The gateway as a contender: its builds, settings, keys and model file.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::contender::Contender;
use crate::measure;
use crate::measure::free_port;
use crate::model_file::{self, Kind};
use crate::pinned::{self, DRIVER_CPU, PROXY_CPU};
use crate::plan::Expected;
use crate::traffic::ModelName;

/// The secret of a key whose rate limit is never reached.
pub(crate) const KEY: &str = "benchmark-key-without-limits";

/// The secret of a key with 60 requests per minute.
pub(crate) const LIMITED_KEY: &str = "benchmark-key-sixty-a-minute";

/// The secret of an expired key. A wrong key would not do: after some attempts its address gets 429 instead of 401.
pub(crate) const EXPIRED_KEY: &str = "benchmark-key-of-the-year-2020";

/// The gateway's programs.
pub(crate) struct Builds {
    pub(crate) on: PathBuf,
    pub(crate) bare: PathBuf,
    /// Whether they have the release profile. Programs that are given are taken for such.
    pub(crate) is_optimised: bool,
}

impl Builds {
    /// Returns the unoptimised program that Cargo builds for tests, in the place of both.
    pub(crate) fn of_tests() -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_llamagate"));
        Self { on: program.clone(), bare: program, is_optimised: false }
    }

    /// Builds the programs in one folder, so that they share the builds of their dependencies. Without `with_bare` the first
    /// one is in the place of both.
    pub(crate) fn make(with_bare: bool) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let build = |name: &str, features: &[&str]| {
            println!("building {name} ...");
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "--quiet", "--release", "--locked", "--bin", "llamagate"]).args(features);
            cargo.arg("--target-dir").arg(folder.join("build")).current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(cargo.status().expect("cargo runs").success(), "{name} cannot be built");
            let path = folder.join(name);
            fs::copy(folder.join("build/release/llamagate"), &path).expect("the program can be copied");
            path
        };
        let on = build("llamagate", &[]);
        let bare = if with_bare { build("llamagate-bare", &["--features", "bare"]) } else { on.clone() };
        Self { on, bare, is_optimised: true }
    }
}

/// A setting: environment variable and value.
pub(crate) type Setting = (&'static str, &'static str);

/// Settings that turn off all features that settings can turn off.
pub(crate) const OFF: &[Setting] = &[("AUTH_ENABLED", "false")];

/// How a gateway is started. It starts its own mock as llama-server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) settings: &'a [Setting],
    /// Number of models in the configuration file; the last of them is loaded.
    pub(crate) models: u16,
    /// The program that runs the gateway, such as valgrind, with its arguments.
    pub(crate) outer: &'a [String],
    /// The CPUs of the gateway, and that of its mock.
    pub(crate) cpus: &'a [usize],
    pub(crate) mock_cpu: usize,
}

impl<'a> Setup<'a> {
    /// Returns a gateway with one model and all features on.
    pub(crate) fn new(name: &'static str, program: &'a Path) -> Self {
        let (cpus, mock_cpu): (&[usize], _) = (&[PROXY_CPU], DRIVER_CPU);
        Self { name, program, settings: &[], models: 1, outer: &[], cpus, mock_cpu }
    }

    /// Starts the gateway and waits until it has answered a request.
    pub(crate) fn start(&self) -> Contender {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = match self.outer {
            [] => pinned::command_on(self.cpus, self.program),
            [first, rest @ ..] => {
                let mut command = pinned::command_on(self.cpus, first);
                command.args(rest).arg(self.program);
                command
            }
        };
        self.prepare(&mut command, &folder, address);
        let output = fs::File::create(folder.path().join("output")).expect("a file for its output");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let mut gateway =
            Contender::start(self.name, &mut command, address, folder).unwrap_or_else(|error| panic!("{error}"));
        (gateway.key, gateway.expected) = (Some(KEY.to_owned()), Expected::Renamed);
        let model = ModelName::Id(self.models - 1);
        let served = gateway.wait_until("serves requests", |gateway| gateway.has_answered(model));
        served.unwrap_or_else(|error| panic!("{error}"));
        gateway.proxy = vec![gateway.pid()];
        gateway.mock =
            measure::children(gateway.pid()).first().copied().expect("the gateway has started its llama-server");
        gateway
    }

    /// Sets the environment and the files of the gateway.
    pub(crate) fn prepare(&self, command: &mut Command, folder: &TempDir, address: SocketAddr) {
        let data = folder.path();
        let model = data.join("bench.gguf");
        model_file::write(&model, Kind::Chat);
        let keys = data.join("api_keys.txt");
        let lines = format!("bench:{KEY}:1000000000\nslow:{LIMITED_KEY}:60\nold:{EXPIRED_KEY}::2020-01-01\n");
        fs::write(&keys, lines).expect("the key file can be written");
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        let path = |path: &Path| path.to_str().expect("temporary folders have plain names").to_owned();
        command.arg("serve").env_clear().current_dir(data).envs([
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("HOME", path(data)),
            ("DATA_DIR", path(data)),
            ("AUTH_KEYS_FILE", path(&keys)),
            ("LLAMA_SERVER", path(&pinned::own_program())),
            ("EXTRA_ARGS", format!("--mock-cpu {}", self.mock_cpu)),
            ("HOST", address.ip().to_string()),
            ("PORT", address.port().to_string()),
            ("PORT_HEALTH", "0".to_owned()),
            ("PORT_BACKEND", free_port().to_string()),
            ("MAX_CONCURRENT_REQUESTS", "512".to_owned()),
            ("MAX_CONNECTIONS", "4096".to_owned()),
            ("LOG_LEVEL", "warn".to_owned()),
        ]);
        command.envs(self.settings.iter().copied());
        let config =
            (0..self.models).map(|number| entry(&model, number, number + 1 == self.models)).collect::<String>();
        fs::write(data.join("llamagate.yaml"), format!("models:\n{config}")).expect("the configuration");
    }
}

/// Returns the entry of one model for the configuration file.
fn entry(file: &Path, number: u16, preload: bool) -> String {
    let [id, alias] = [ModelName::Id(number), ModelName::Alias(number)].map(ModelName::text);
    let file = file.display();
    format!("  {id}: {{file: \"{file}\", aliases: [other-{number:04}, {alias}], tier: light, preload: {preload}}}\n")
}
