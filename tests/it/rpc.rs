//! Models that several machines compute: `rpc:` of a model, and `llamagate rpc` on the other machines. All with
//! llama.cpp's own rpc-server; where there is none, the tests say so and pass.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::thread;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    client::Client,
    gateway::{Gateway, backend_port, rpc_programs},
    process::Process,
    resources::{self, pid_gone},
    wait::{READY, REAL_MODEL_READY, SOON, STOPS, eventually, eventually_some},
};

/// A greeting of the protocol, without data of its own, and its longest answer.
const GREETING: [u8; 33] = {
    let mut bytes = [0; 33];
    (bytes[0], bytes[1]) = (14, 24);
    bytes
};

/// Returns the folder of the programs; says so if there is none.
fn programs() -> Option<PathBuf> {
    let folder = rpc_programs();
    if folder.is_none() {
        eprintln!("skipped: there is no rpc-server; scripts/get-rpc-server.sh says why");
    }
    folder
}

fn new_address() -> String {
    format!("127.0.0.1:{}", backend_port())
}

fn send_signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// `llamagate rpc`, running.
struct Role {
    process: Process,
    folder: TempDir,
    health: Client,
}

impl Role {
    fn command(folder: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.arg("rpc").args(arguments).env_clear().current_dir(folder.path());
        command.env("DATA_DIR", folder.path()).env("HOME", folder.path()).env("PATH", "/usr/bin:/bin");
        command.envs([("HOST", "127.0.0.1"), ("PORT_HEALTH", "0")]).envs(variables.iter().copied());
        command
    }

    fn start(programs: &std::path::Path, address: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = programs.join("rpc-server");
        let variables = [("RPC_SERVER", program.to_str().unwrap()), ("THREADS", "1")];
        let arguments = [&["--bind", address], arguments].concat();
        let mut process =
            Process::start("llamagate", &mut Self::command(&folder, &arguments, &variables), folder.path());
        let line = process.wait_for_line("health port listens on ");
        let url = line.split("listens on ").nth(1).unwrap().trim().to_owned();
        Self { process, folder, health: Client::new(&url) }
    }

    fn wait_ready(&self) {
        eventually("/readyz answers 200", READY, || self.health.get("/readyz").status() == 200);
    }

    /// Returns the process id of the rpc-server.
    fn rpc_server(&self) -> u32 {
        let serves = |pid: &u32| resources::cmdline(*pid).iter().any(|word| word == "--port");
        eventually_some("rpc-server runs", SOON, || resources::children(self.process.pid()).into_iter().find(serves))
    }

    fn report(&self) -> Value {
        self.health.get("/health").json()["models"][0].clone()
    }

    fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM);
        self.process.wait_exit()
    }

    /// Runs `llamagate rpc` with arguments and variables that end it; returns the exit code and the output.
    fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start("llamagate", &mut Self::command(&folder, arguments, variables), folder.path());
        let status = process.wait_exit();
        (status.code(), process.output())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// Starts a gateway with a model of these rpc-servers.
fn gateway(programs: &std::path::Path, addresses: &[&str]) -> Gateway {
    let config = format!("models: {{m: {{file: tiny-chat.gguf, preload: true, rpc: {addresses:?}}}}}\n");
    let program = programs.join("llama-server");
    Gateway::builder().reals(&config).set("NGL", 99).set("LLAMA_SERVER", program.display()).start()
}

fn model(gateway: &Gateway) -> Value {
    gateway.anonymous().get("/health").json()["models"][0].clone()
}

fn hint(report: &Value) -> String {
    report["last_exit"]["hint"].as_str().unwrap_or_default().to_owned()
}

fn answers(gateway: &Gateway) -> bool {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    gateway.client().post_json("/v1/chat/completions", &body).status() == 200
}

#[test]
fn two_machines_compute_a_model_and_one_that_dies_is_named_before_any_request_fails() {
    let Some(programs) = programs() else { return };
    let (first, second) = (new_address(), new_address());
    let roles = [&first, &second].map(|address| Role::start(&programs, address, &[]));
    roles.iter().for_each(Role::wait_ready);
    let gateway = gateway(&programs, &[&first, &second]);
    gateway.wait_ready();
    assert!(answers(&gateway));
    let metric = |address: &str| {
        let text = gateway.health().header("accept", "text/plain").get("/metrics").text();
        let series = format!("llamagate_rpc_server_up{{model=\"m\",worker=\"0\",rpc_server=\"{address}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u8>().ok())
    };
    assert_eq!((metric(&first), metric(&second)), (Some(1), Some(1)));
    // No request comes meanwhile: llama-server itself would notice it only at the next one.
    send_signal(roles[1].rpc_server(), Signal::SIGKILL);
    let named = eventually_some("the rpc-server is named", READY, || {
        let report = model(&gateway);
        hint(&report).contains(&second).then_some(report)
    });
    assert!(!hint(&named).contains(&first), "{named}");
    eventually("the model is loaded again", REAL_MODEL_READY, || answers(&gateway));
    assert_eq!(model(&gateway)["restarts"], 1);
    eventually("the log says so", SOON, || gateway.output().contains("cause=\"peer_lost\""));
    assert_eq!(roles.each_ref().map(|role| role.report()["restarts"].as_u64()), [Some(0), Some(1)]);
    assert_eq!(metric(&second), Some(1));
}

#[test]
fn a_model_whose_machines_were_away_crashed_until_it_was_given_up() {
    let Some(programs) = programs() else { return };
    let refused = new_address();
    // Another server answers here, as one of HTTP does.
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let strange = stranger.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in stranger.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 33]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    // Another llama-server uses this one.
    let busy = new_address();
    let role = Role::start(&programs, &busy, &[]);
    role.wait_ready();
    let mut other = TcpStream::connect(&busy).unwrap();
    other.write_all(&GREETING).unwrap();
    other.read_exact(&mut [0; 11]).unwrap();

    let gateway = gateway(&programs, &[&refused, &strange, &busy]);
    let report = eventually_some("the machines are named", READY, || {
        let report = model(&gateway);
        (!hint(&report).is_empty()).then_some(report)
    });
    for (address, words) in [
        (&refused, "connection refused"),
        (&strange, "what answers there is no rpc-server"),
        (&busy, "another llama-server uses it"),
    ] {
        assert!(hint(&report).contains(address.as_str()) && hint(&report).contains(words), "{report}");
    }
    assert_eq!(report["restarts"], 0);
    assert_eq!(gateway.child_pids(), [0; 0], "no llama-server is started in vain");
    eventually("the log says so", SOON, || gateway.output().contains("cause=\"peer_unusable\""));
    // One after the other they can be used; the model is loaded without an order.
    drop(other);
    gateway.rewrite_config(&format!(
        "models: {{m: {{file: tiny-chat.gguf, preload: true, rpc: [{refused:?}, {busy:?}]}}}}\n"
    ));
    let _late = Role::start(&programs, &refused, &[]);
    eventually("the model is loaded", REAL_MODEL_READY, || answers(&gateway));
    assert_eq!(model(&gateway)["restarts"], 0);
}

#[test]
fn llamagate_rpc_supervises_an_rpc_server_like_a_llama_server() {
    let Some(programs) = programs() else { return };
    let address = new_address();
    let mut role = Role::start(&programs, &address, &["--cache"]);
    role.wait_ready();
    let (port, child) = (address.rsplit(':').next().unwrap(), role.rpc_server());
    let words = resources::cmdline(child).join(" ");
    assert!(words.contains(&format!("--host 127.0.0.1 --port {port} --threads 1 --cache")), "{words}");
    for path in ["/livez", "/readyz", "/ping", "/health", "/metrics"] {
        assert_eq!(role.health.get(path).status(), 200, "{path}");
    }
    assert_eq!(role.health.get("/v1/models").status(), 404);
    send_signal(child, Signal::SIGKILL);
    eventually("it is restarted", READY, || role.report()["restarts"] == 1 && role.report()["state"] == "ready");
    assert!(hint(&role.report()).contains("killed from outside"), "{}", role.report());
    let metrics = role.health.clone().header("accept", "text/plain").get("/metrics").text();
    assert!(metrics.contains("llamagate_worker_restarts_total{model=\"rpc-server\",worker=\"0\"} 1"), "{metrics}");
    let logs = fs::read_dir(role.folder.path().join("logs/rpc-server")).unwrap();
    let is_log = |name: &str| name.ends_with(".log");
    let logs = logs.filter(|entry| is_log(&entry.as_ref().unwrap().file_name().to_string_lossy()));
    assert_eq!(logs.count(), 2, "a log file for each process");
    let second = role.rpc_server();
    assert_ne!(second, child);
    assert_eq!(role.stop().code(), Some(0));
    assert!(pid_gone(second));

    let mut role = Role::start(&programs, &address, &[]);
    role.wait_ready();
    let child = role.rpc_server();
    role.process.signal(Signal::SIGKILL);
    role.process.wait_exit();
    eventually("rpc-server does not outlive llamagate", STOPS, || pid_gone(child));
}

#[test]
fn every_address_is_taken_only_with_a_flag_and_a_warning() {
    let Some(programs) = programs() else { return };
    let address = format!("0.0.0.0:{}", backend_port());
    let role = Role::start(&programs, &address, &["--every-address"]);
    role.wait_ready();
    let warnings = role.health.get("/health").json()["warnings"].to_string();
    assert!(warnings.contains("neither keys nor encryption") && warnings.contains(&address), "{warnings}");
    eventually("the log says so", SOON, || role.process.output().contains("neither keys nor encryption"));
}

#[test]
fn what_rpc_cannot_do_is_said_before_the_start() {
    let Some(programs) = programs() else { return };
    let program = programs.join("rpc-server");
    let known = [("RPC_SERVER", program.to_str().unwrap())];
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let (held, free) = (holder.local_addr().unwrap().to_string(), new_address());
    for (arguments, code, words) in [
        (&["--bind", "0.0.0.0:50052"][..], 78, "add --every-address"),
        (&["--bind", "gpu1:50052"], 78, "expected IPV4:PORT, such as 10.0.0.2:50052"),
        (&["--bind", "127.0.0.1:0"], 78, "rpc-server needs a port that the other machines know"),
        (&["--bind", &held], 1, "another program has the port"),
        (&["--bind", "192.0.2.1:50052"], 1, "it is no address of this machine"),
        (&["--bind", "127.0.0.1:50052", "--memory", "lots"], 78, "--memory: expected a size for each device"),
        (&["--bind", &free, "--memory", "1GiB"], 78, "this rpc-server does not know --mem"),
        (&["--bind", "127.0.0.1:50052", "--", "-p", "1"], 78, "-p after `--`: llamagate sets it itself; use --bind"),
        (&[], 2, "--bind"),
    ] {
        let (status, output) = Role::refused(arguments, &known);
        assert!(status == Some(code) && output.contains(words), "{arguments:?}: {status:?} {output}");
    }
    let (status, output) = Role::refused(&["--bind", &new_address(), "--", "--no-such-flag"], &known);
    assert!(status == Some(69) && output.contains("does not know the argument --no-such-flag"), "{status:?} {output}");
    let ignored = [("METRICS_AUTH_ENABLED", "true"), ("TLS_HEALTH", "true"), ("IDLE_UNLOAD", "5m")];
    let (_, output) = Role::refused(&["--bind", "127.0.0.1:0"], &ignored);
    for (name, _) in ignored {
        assert!(output.contains(&format!("{name} has no effect on `llamagate rpc`")), "{output}");
    }
    let (status, output) = Role::refused(&["--bind", &new_address()], &[("RPC_SERVER", "/nowhere/rpc-server")]);
    assert!(status == Some(78) && output.contains("RPC_SERVER=\"/nowhere/rpc-server\": there is no"), "{output}");
    assert!(output.contains("llama.cpp-tools-extra"), "it says where to get one: {output}");
}
