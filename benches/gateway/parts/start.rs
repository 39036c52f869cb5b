//! How soon a gateway serves: from the start of the process to the first answer to `/ping`, and to the first answer to a
//! request that waits for llama-server, beside a llama-server that is started without the gateway.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contenders::gateways::{Builds, KEY, Setup};
use crate::measure;
use crate::pinned;
use crate::report::Report;
use crate::statistics::Spread;

const PART: &str = "start";

/// Starts of each kind.
const STARTS: usize = 5;

/// Time between two tries to connect.
const STEP: Duration = Duration::from_micros(200);

/// How long a start may take, with a model that is loaded from the disk.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A request that every model answers soon.
const CHAT: &str = r#"{"max_tokens":1,"messages":[{"role":"user","content":"Hi"}]}"#;

/// A process that is stopped at the end.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Measures starts with the mock, and with the llama-server and the model that the environment names.
pub(crate) fn measure(builds: &Builds, report: &mut Report) {
    println!("{PART}");
    compare("mock", &pinned::own_program(), None, builds, report);
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    match (path("LLAMA_SERVER"), path("LLAMAGATE_TEST_SMOLLM")) {
        (Some(server), Some(model)) => compare("llama-server", &server, Some(&model), builds, report),
        _ => println!("without llama-server: LLAMA_SERVER and LLAMAGATE_TEST_SMOLLM name a program and a model"),
    }
}

fn compare(what: &str, server: &Path, model: Option<&Path>, builds: &Builds, report: &mut Report) {
    let (mut pings, mut firsts, mut bares, mut differences) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let (ping, first, arguments) = start_gateway(server, model, builds);
        let bare = start_bare(server, &arguments);
        pings.push(ping);
        firsts.push(first);
        bares.push(bare);
        differences.push(first - bare);
    }
    let mut note = |name: &str, values: Vec<f64>| {
        let spread = Spread::of(values).expect("starts");
        println!("  {what}: {name}: {spread}");
        report.note(PART, &format!("{what}: {name}"), spread.median);
    };
    note("process start to /ping, ms", pings);
    note("process start to the first answer, ms", firsts);
    note("llama-server alone: process start to the first answer, ms", bares);
    note("first answer, more than llama-server alone, ms", differences);
}

/// Starts a gateway; returns the milliseconds to the first answer to `/ping` and to that to a request, and the arguments of
/// its llama-server.
fn start_gateway(server: &Path, model: Option<&Path>, builds: &Builds) -> (f64, f64, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = SocketAddr::from(([127, 0, 0, 1], measure::free_port()));
    let mut command = Command::new(&builds.on);
    Setup::new("on", &builds.on).prepare(&mut command, &folder, address);
    command.env("LLAMA_SERVER", server).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(model) = model {
        let config = format!("models:\n  model-0000: {{file: \"{}\", preload: true}}\n", model.display());
        fs::write(folder.path().join("llamagate.yaml"), config).expect("the configuration");
        command.env("EXTRA_ARGS", "").env("MAX_CONCURRENT_REQUESTS", "1");
    }
    let begin = Instant::now();
    let gateway = Started(command.spawn().expect("the gateway"));
    let ping = until_answered(begin, address, "GET /ping");
    // The gateway keeps the request until its llama-server is ready.
    let first = until_answered(begin, address, "POST /v1/chat/completions");
    let worker = measure::children(gateway.0.id()).first().copied().expect("its llama-server");
    let arguments = fs::read_to_string(format!("/proc/{worker}/cmdline")).expect("its arguments");
    // A program that is a script may run another one with arguments of its own before those of the gateway.
    let arguments: Vec<String> =
        arguments.split_terminator('\0').skip_while(|it| *it != "--host").map(str::to_owned).collect();
    (ping, first, arguments)
}

/// Starts llama-server with the arguments that the gateway gave it, but without a key; returns the milliseconds to the first
/// answer to a request.
fn start_bare(server: &Path, arguments: &[String]) -> f64 {
    let at = |name: &str| arguments.iter().position(|argument| argument == name);
    let key = at("--api-key-file").map_or(usize::MAX, |at| at);
    let kept = arguments.iter().enumerate().filter(|(at, _)| *at != key && *at != key.wrapping_add(1));
    let port = at("--port").and_then(|at| arguments.get(at + 1)?.parse().ok()).expect("a port");
    let mut command = Command::new(server);
    command.args(kept.map(|(_, argument)| argument)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let _server = Started(command.spawn().expect("llama-server"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until_answered(begin, address, "GET /health");
    until_answered(begin, address, "POST /v1/chat/completions")
}

/// Asks until the answer is a success; returns the milliseconds since `begin`.
fn until_answered(begin: Instant, address: SocketAddr, what: &str) -> f64 {
    loop {
        if matches!(status(address, what), Some(200..300)) {
            return begin.elapsed().as_secs_f64() * 1e3;
        }
        assert!(begin.elapsed() < TIMEOUT, "no answer to {what} within {TIMEOUT:?}");
        sleep(STEP);
    }
}

/// Sends one request on a connection of its own; returns the status, or `None` if there is no answer.
fn status(address: SocketAddr, what: &str) -> Option<u16> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(TIMEOUT)).ok()?;
    let body = if what.starts_with("POST") { CHAT } else { "" };
    let length = body.len();
    let head = format!("{what} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n");
    let rest = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    socket.write_all(format!("{head}{rest}").as_bytes()).ok()?;
    let mut start = [0; "HTTP/1.1 200".len()];
    socket.read_exact(&mut start).ok()?;
    std::str::from_utf8(&start[9..]).ok()?.parse().ok()
}
