//! The process: start, load, serve, stop. Log lines are those of the real llama-server.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::task::TaskTracker;

use super::{
    arguments::Arguments,
    connection, control,
    journal::Journal,
    resources,
    script::{Daemon, Ending, Script, Sign, Signs},
    server::{Phase, Server},
};

/// The argument that makes this program the grandchild of the script's `fork_grandchild` and `daemon`.
pub(super) const GRANDCHILD: &str = "--grandchild";

/// The argument that makes this program the parent of a daemon; the next argument is the daemon's program.
pub(super) const DAEMON: &str = "--daemon";

/// A grandchild that was not killed ends after this time.
const GRANDCHILD_LIFE: Duration = Duration::from_secs(600);

/// Runs as a grandchild: sleeps.
pub(super) fn sleep_as_grandchild() {
    std::thread::sleep(GRANDCHILD_LIFE);
}

/// Runs the fake; returns the exit code of a clean stop.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    let (journal, start) = Journal::open(&beside(&arguments.model, ".fake.journal")).expect("the journal opens");
    let script = match Script::read(&beside(&arguments.model, ".fake.json"), start) {
        Ok(script) => script,
        Err(problem) => {
            eprintln!("error: the fake cannot read its script: {problem}");
            journal.record("script_error", json!({ "problem": problem }));
            return ExitCode::FAILURE;
        }
    };
    let control = std::net::TcpListener::bind("127.0.0.1:0").expect("a control port is free");
    let server = Arc::new(Server::new(arguments, script, journal));
    let control_port = control.local_addr().expect("the control port is bound").port();
    let environment: BTreeMap<String, String> = std::env::vars_os().map(|(k, v)| (lossy(k), lossy(v))).collect();
    server.journal.record(
        "start",
        json!({
            "start": start,
            "beside": siblings(),
            "argv": std::env::args().collect::<Vec<_>>(),
            "env": environment,
            "cwd": std::env::current_dir().unwrap_or_default(),
            "control": control_port,
        }),
    );
    // One that never binds listens nowhere else either: the gateway would rightly find that, and give it up.
    match server.script.no_bind {
        true => drop(control),
        false => control::serve(control, server.clone()),
    }
    // One thread, so that the order of events is always the same.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(serve(server));
    ExitCode::SUCCESS
}

async fn serve(server: Arc<Server>) {
    let script = &server.script;
    if script.ignore_sigterm {
        ignore_sigterm(server.clone());
    }
    if script.fork_grandchild {
        fork_grandchild(&server);
    }
    if let Some(daemon) = script.daemon {
        fork_daemon(&server, daemon);
    }
    if let Some(signal) = script.abort_at_start {
        server.end(&Ending { signal: Some(signal), ..Ending::default() });
    }
    if let Some(ending) = &script.exit_at_start {
        server.end(ending);
    }
    log("I srv  llama_server: initializing ...");
    if script.no_bind {
        std::future::pending::<()>().await;
    }
    let (host, port) = (server.arguments.host.clone(), server.arguments.port);
    let Ok(listener) = TcpListener::bind((host.as_str(), port)).await else {
        log(&format!("E srv         start: couldn't bind HTTP server socket, hostname: {host}, port: {port}"));
        log("E srv  llama_server: exiting due to HTTP server error");
        server.end(&Ending::default())
    };
    let address = listener.local_addr().expect("the listener is bound");
    server.journal.record("bound", json!({"port": address.port()}));
    let connections = TaskTracker::new();
    let accepting = tokio::spawn(accept(server.clone(), listener, connections.clone()));

    load(&server).await;
    // Until here SIGTERM kills the process, like the real llama-server during its load.
    let mut sigterm = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut sigint = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    server.phase.send_replace(Phase::Ready);
    log("I srv  llama_server: model loaded");
    log(&format!("I srv  llama_server: listening on http://{address}"));
    server.journal.record("ready", json!({"port": address.port()}));

    if script.ignore_sigterm {
        std::future::pending::<()>().await;
    }
    let mut stop_asked = async || tokio::select! { _ = sigterm.recv() => (), _ = sigint.recv() => () };
    stop_asked().await;
    server.journal.record("sigterm", json!({}));
    log("I srv    operator(): operator(): cleaning up before exit...");
    accepting.abort();
    server.phase.send_replace(Phase::Stopping);
    connections.close();
    tokio::select! {
        () = connections.wait() => (),
        () = stop_asked() => server.end(&Ending::default()), // a second signal ends the process at once
    }
    server.journal.record("exit", json!({"code": 0}));
}

async fn accept(server: Arc<Server>, listener: TcpListener, connections: TaskTracker) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection::serve(server.clone(), stream));
        }
    }
}

async fn load(server: &Server) {
    let script = &server.script;
    log(&format!("I srv    load_model: loading model '{}'", server.arguments.model.display()));
    if let Some(flood) = script.stderr_flood {
        for _ in 0..flood.lines {
            eprintln!("{}", "f".repeat(flood.bytes));
        }
    }
    if script.long_log_line > 0 {
        eprintln!("{}", "l".repeat(script.long_log_line));
    }
    if let Some(signs) = script.load_signs {
        show_progress(signs).await;
    }
    if script.never_ready {
        std::future::pending::<()>().await;
    }
    if script.load_ms > 0 {
        tokio::time::sleep(Duration::from_millis(script.load_ms)).await;
    }
    if script.load.until_released {
        server.load_gate.pass().await;
    }
    if let Some(ending) = &script.exit_while_loading {
        server.end(ending);
    }
    let (slots, context) = (server.arguments.slots, server.arguments.context);
    log(&format!(
        "I srv    load_model: initializing, n_slots = {slots}, n_ctx_slot = {}, kv_unified = 'false'",
        context / slots.max(1) as u64
    ));
}

/// Bytes of memory or of a file for one sign of progress.
const SIGN_BYTES: usize = 1 << 20;

async fn show_progress(signs: Signs) {
    let mut memory = Vec::new();
    let mut piece = vec![1; SIGN_BYTES];
    let mut file = std::env::current_exe().and_then(std::fs::File::open).expect("the fake can read itself");
    for _ in 0..signs.times {
        tokio::time::sleep(Duration::from_millis(signs.interval_ms)).await;
        match signs.kind {
            Sign::Lines => log("I srv    load_model: still loading"),
            Sign::Dots => eprint!("."),
            Sign::Memory => memory.push(piece.clone()),
            Sign::Reads => {
                file.seek(SeekFrom::Start(0)).expect("a file can be read again");
                file.read_exact(&mut piece).expect("this program is larger than one sign");
            }
            Sign::None => {}
        }
    }
}

/// Journals each SIGTERM and ignores it otherwise.
fn ignore_sigterm(server: Arc<Server>) {
    let mut sigterm = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    tokio::spawn(async move {
        while sigterm.recv().await.is_some() {
            server.journal.record("sigterm", json!({"ignored": true}));
        }
    });
}

#[expect(clippy::zombie_processes, reason = "the script asks for a child that is not waited for")]
fn fork_grandchild(server: &Server) {
    let this = std::env::current_exe().expect("the fake knows its own path");
    let child = Command::new(this).arg(GRANDCHILD).spawn().expect("a grandchild starts");
    server.journal.record("grandchild", json!({"grandchild": child.id()}));
}

/// Starts a daemon through a child that begins a new session, starts the daemon there, prints its process id and ends.
fn fork_daemon(server: &Server, daemon: Daemon) {
    let this = std::env::current_exe().expect("the fake knows its own path");
    let program = match daemon {
        Daemon::Lingers => this.clone(),
        Daemon::Ends => "true".into(),
    };
    let child = Command::new(this).arg(DAEMON).arg(program).stderr(Stdio::inherit()).output();
    let printed = String::from_utf8(child.expect("the child starts").stdout).expect("the child prints a number");
    let pid: u32 = printed.trim().parse().expect("the child prints a number");
    server.journal.record("grandchild", json!({"grandchild": pid}));
}

/// Runs as the parent of the daemon: begins a session, starts the daemon, prints its process id.
#[expect(clippy::zombie_processes, reason = "a daemon is a child that is not waited for")]
pub(super) fn start_daemon(program: &str) {
    nix::unistd::setsid().expect("the child leads no process group");
    let daemon = Command::new(program).arg(GRANDCHILD).stdout(Stdio::null()).spawn().expect("the daemon starts");
    println!("{}", daemon.id());
}

fn log(message: &str) {
    eprintln!("0.00.042.492 {message}");
}

/// Returns the other llama-servers of the same parent that still run.
fn siblings() -> Vec<u32> {
    let children = resources::children(std::os::unix::process::parent_id());
    let is_worker = |pid: &u32| {
        *pid != std::process::id()
            && !resources::pid_gone(*pid)
            && resources::cmdline(*pid).iter().any(|word| word == "--port")
    };
    children.into_iter().filter(is_worker).collect()
}

fn beside(model: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(model);
    path.push(suffix);
    path.into()
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}
