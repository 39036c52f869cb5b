//! A Valkey or Redis server of a test, and a proxy that makes it slow.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    gateway::valkey,
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

/// A proxy in front of a server, whose answers arrive late.
pub(crate) struct SlowProxy {
    pub(crate) port: u16,
    delay_ms: Arc<AtomicU64>,
}

impl SlowProxy {
    /// Starts a proxy in front of this port, which delays nothing yet.
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        // Ends with the process of the tests.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let (from_client, to_client) = (client.try_clone().expect("a socket"), client);
                let (from_server, to_server) = (server.try_clone().expect("a socket"), server);
                let delay = Arc::clone(&delay);
                thread::spawn(move || copy(from_client, to_server, || Duration::ZERO));
                thread::spawn(move || {
                    copy(from_server, to_client, || Duration::from_millis(delay.load(Ordering::SeqCst)))
                });
            }
        });
        Self { port, delay_ms }
    }

    /// Delays each piece of an answer by this time.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, delay: impl Fn() -> Duration) {
    let _ = to.set_nodelay(true);
    let mut piece = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        thread::sleep(delay());
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
