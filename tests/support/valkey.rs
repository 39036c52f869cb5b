//! A Valkey or Redis server of a test.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{
    gateway::valkey,
    hostile_proxy::{HostileProxy, Troubles},
    process::Process,
    wait::{STARTS, eventually_some},
};

/// A server without persistence, on a port of its own.
pub(crate) struct Valkey {
    process: Process,
    folder: TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
    password: Option<String>,
}

impl Valkey {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], None)
    }

    /// Starts a server that needs this password.
    pub(crate) fn start_with_password(password: &str) -> Self {
        Self::start_with(&["--requirepass", password], Some(password))
    }

    fn start_with(arguments: &[&str], password: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        // Port 0 would switch its listener off. Another process may take the port in between, so it is tried again.
        let (port, process) = eventually_some("a server has a port", STARTS, || {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
            Self::launch(port, &arguments, folder.path()).map(|process| (port, process))
        });
        Self { process, folder, port, arguments, password: password.map(str::to_owned) }
    }

    /// Starts a server that speaks TLS with this certificate and its key. Commands of tests cannot reach it.
    pub(crate) fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let [certificate, key] = [certificate, key].map(|path| path.to_str().expect("plain names"));
        let authorities = ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"];
        let arguments = [&["--tls-cert-file", certificate, "--tls-key-file", key][..], &authorities].concat();
        Self::start_with(&arguments, None)
    }

    /// Starts a server that was killed again, with no data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let start = || Self::launch(self.port, &self.arguments, self.folder.path());
        self.process = eventually_some("the server starts again", STARTS, start);
    }

    fn launch(port: u16, arguments: &[String], folder: &Path) -> Option<Process> {
        let mut command = Command::new(valkey());
        let is_secure = arguments.iter().any(|word| word == "--tls-cert-file");
        let port = port.to_string();
        match is_secure {
            true => command.args(["--port", "0", "--tls-port", &port]),
            false => command.args(["--port", &port]),
        };
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(arguments).arg("--dir").arg(folder);
        let mut process = Process::start("valkey", &mut command, folder);
        eventually_some("the server listens, or ends", STARTS, || match process.try_exit_status() {
            Some(_) => Some(false),
            None => process.output().contains("eady to accept connections").then_some(true),
        })
        .then_some(process)
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Returns LIMITS_STORE for this server, with its password.
    pub(crate) fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("valkey://:{password}@127.0.0.1:{}/0", self.port),
            None => format!("valkey://127.0.0.1:{}/0", self.port),
        }
    }

    /// Starts a proxy in front of it. Returns the proxy, and LIMITS_STORE for the way through it.
    pub(crate) fn behind_proxy(&self) -> (HostileProxy, String) {
        let proxy = HostileProxy::start(&format!("tcp://127.0.0.1:{}", self.port), Troubles::NONE);
        let url = format!("redis://{}/0", proxy.address());
        (proxy, url)
    }

    pub(crate) fn connect(&self) -> redis::Connection {
        let url = self.url().replace("valkey://", "redis://");
        redis::Client::open(url).and_then(|client| client.get_connection()).expect("the server is there")
    }

    /// Runs a command whose answer does not matter.
    pub(crate) fn run(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec(&mut self.connect()).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    /// Returns how often a script was called.
    pub(crate) fn script_calls(&self) -> u64 {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut self.connect()).expect("it answers");
        let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
        stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(calls).sum()
    }

    /// Returns the keys, with the time that each is kept, in milliseconds; -1 for one that is kept for ever.
    pub(crate) fn keys(&self) -> Vec<(String, i64)> {
        let mut connection = self.connect();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).expect("it answers");
        let kept = |key: String| {
            let time = redis::cmd("PTTL").arg(&key).query(&mut connection).expect("it answers");
            (key, time)
        };
        keys.into_iter().map(kept).collect()
    }
}
