//! `llamagate start`, `stop`, `restart` and `status`: a service in the background, from its start to its end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    client::Client,
    fake_server,
    gateway::backend_port,
    model_file::Kind,
    resources,
    scripted::ScriptedModel,
    wait::{SOON, STOPS, eventually},
};

/// A folder with a model and the settings of a service that may be started in the background.
struct Background {
    folder: TempDir,
    model: ScriptedModel,
    /// A folder for `PATH`, in which there is no systemctl.
    programs: PathBuf,
}

impl Background {
    fn new(script: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (models, programs) = (folder.path().join("models"), folder.path().join("bin"));
        fs::create_dir(&models).unwrap();
        fs::create_dir(&programs).unwrap();
        let model = ScriptedModel::create(&models, "dummy.gguf", Kind::Chat, script);
        Self { folder, model, programs }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.args(arguments).env_clear().current_dir(self.folder.path());
        command.env("DATA_DIR", self.folder.path()).env("HOME", self.folder.path()).env("PATH", &self.programs);
        command.env("LLAMA_SERVER", fake_server::program());
        command.envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("PORT_HEALTH", "0"), ("AUTH_ENABLED", "false")]);
        command.envs([("HF_HUB_OFFLINE", "true"), ("USAGE_DB", "off")]);
        command.env("PORT_BACKEND", backend_port().to_string());
        command
    }

    /// Runs a command and reads what it prints as JSON.
    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn model_path(&self) -> String {
        self.model.path.display().to_string()
    }

    /// Returns the only service that runs.
    fn service(&self) -> Value {
        let status: Value = serde_json::from_slice(&self.run(&["status", "--json"]).stdout).unwrap();
        status["services"][0].clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Only if a test has failed in between.
        if let Some(pid) = self.service()["pid"].as_i64() {
            let workers = resources::children(pid as u32);
            for pid in [pid as u32].into_iter().chain(workers) {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_service_in_the_background_is_started_once_told_of_restarted_and_stopped() {
    let background = Background::new(&json!({}));
    assert_eq!(background.run(&["status"]).status.code(), Some(3));
    let started = background.ask(&["start", &background.model_path()]);
    let url = started["url"].as_str().unwrap();
    let client = Client::new(url);
    eventually("the model is ready", STOPS, || client.get("/health").json()["models"][0]["state"] == "ready");
    let again = background.run(&["start", &background.model_path()]);
    assert!(text(&again.stdout).starts_with("llamagate runs already at http://127.0.0.1:"), "{again:?}");
    let service = background.service();
    assert_eq!((&service["url"], &service["pid"]), (&started["url"], &started["pid"]));
    assert_eq!(service["health"]["models"][0]["id"], "dummy");
    let shown = background.run(&["status"]);
    let shown = (shown.status.code(), text(&shown.stdout));
    assert!(shown.0 == Some(0) && shown.1.contains("): ok\n  dummy  ready\n"), "{shown:?}");
    // Without arguments it is started as before.
    let restarted = background.ask(&["restart"]);
    assert_ne!(restarted["pid"], started["pid"]);
    assert_eq!(background.service()["health"]["models"][0]["id"], "dummy");
    let stopped = background.run(&["stop"]);
    assert_eq!(text(&stopped.stdout), format!("stopped (pid {})\n", restarted["pid"]));
    assert_eq!(background.run(&["status"]).status.code(), Some(3));
    assert_eq!(text(&background.run(&["stop"]).stdout), "no service runs with this DATA_DIR\n");
}

/// A broken configuration once was noticed only after the stop, and told nowhere.
#[test]
fn a_restart_with_a_broken_configuration_says_why_and_stops_nothing() {
    let background = Background::new(&json!({}));
    let started = background.ask(&["start", &background.model_path()]);
    let config = background.folder.path().join("llamagate.yaml");
    fs::write(&config, "models: [\n").unwrap();
    let refused = background.run(&["restart"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(text(&refused.stderr).contains("llamagate.yaml"), "{refused:?}");
    assert_eq!(background.service()["pid"], started["pid"], "it still runs");
    fs::remove_file(&config).unwrap();
    fs::remove_file(background.model_path()).unwrap();
    let refused = background.run(&["restart"]);
    assert!(refused.status.code() == Some(78) && text(&refused.stderr).contains("dummy.gguf"), "{refused:?}");
    assert_eq!(background.service()["pid"], started["pid"], "it still runs");
    background.ask(&["stop"]);
}

#[test]
fn a_restart_without_arguments_takes_those_of_before_their_folder_and_the_environment_of_its_shell() {
    let background = Background::new(&json!({}));
    let log = background.folder.path().join("own.log");
    let log_file = format!("--log-file={}", log.display());
    let started = background.ask(&["start", "./models/dummy.gguf", &log_file]);
    let mut restart = background.command(&["restart", "--json"]);
    let restarted = restart.current_dir(&background.programs).env("HOST", "127.0.0.2").output().unwrap();
    assert!(restarted.status.success(), "{restarted:?}");
    let restarted: Value = serde_json::from_slice(&restarted.stdout).unwrap();
    assert!(restarted["url"].as_str().unwrap().starts_with("http://127.0.0.2:"), "{restarted}");
    assert_ne!(restarted["pid"], started["pid"]);
    assert_eq!(background.service()["health"]["models"][0]["id"], "dummy");
    let starts = fs::read_to_string(&log).unwrap().matches("llamagate starts").count();
    assert_eq!(starts, 2, "both write to the log of the arguments");
    background.ask(&["stop"]);
}

#[test]
fn a_service_that_was_killed_is_no_longer_told_of_and_may_be_started_again() {
    let background = Background::new(&json!({}));
    let started = background.ask(&["start", &background.model_path()]);
    let pid = Pid::from_raw(started["pid"].as_i64().unwrap() as i32);
    kill(pid, Signal::SIGKILL).unwrap();
    eventually("its note is stale", SOON, || background.run(&["status"]).status.code() == Some(3));
    assert_ne!(background.ask(&["start", &background.model_path()])["pid"], started["pid"]);
    background.ask(&["stop"]);
}

#[test]
fn a_start_that_fails_says_why() {
    let background = Background::new(&json!({}));
    let wrong = background.run(&["start", "no-such.gguf"]);
    assert_eq!(wrong.status.code(), Some(78), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("no-such.gguf"), "{wrong:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("--port={}", taken.local_addr().unwrap().port());
    let ended = background.run(&["start", &background.model_path(), &port]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let shown = text(&ended.stderr);
    assert!(shown.contains("has ended at its start") && shown.contains("gateway cannot listen on"), "{shown}");
    let misplaced = background.run(&["--ctx", "1", "status"]);
    assert!(text(&misplaced.stderr).contains("--ctx has no effect on this subcommand"), "{misplaced:?}");
}

#[test]
fn stop_waits_for_requests_and_stop_now_cuts_them() {
    for now in [false, true] {
        let background = Background::new(&json!({"hold_mid_stream": {"after_frames": 2}}));
        let started = background.ask(&["start", &background.model_path()]);
        let client = Client::new(started["url"].as_str().unwrap());
        eventually("the model is ready", STOPS, || client.get("/health").json()["models"][0]["state"] == "ready");
        let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
        let mut stream = client.stream("/v1/chat/completions", &body);
        assert!(stream.next_event().is_some());
        let mut command = background.command(if now { &["stop", "--now"] } else { &["stop"] });
        let stopping = thread::spawn(move || command.output().unwrap());
        if !now {
            eventually("new requests are refused", STOPS, || {
                client.post_json("/v1/chat/completions", &body).status() == 503
            });
            assert!(!stopping.is_finished(), "it waits for the request in flight");
            background.model.control().release_all_requests();
        }
        let output = stopping.join().unwrap();
        assert!(output.status.success(), "{output:?}");
        let events = stream.events();
        assert_eq!(events.iter().any(|event| event.is_done()), !now, "{events:?}");
    }
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_unit_of_systemd_decides_what_runs() {
    let background = Background::new(&json!({}));
    let orders = background.folder.path().join("orders");
    let script = format!("#!/bin/sh\n[ \"$2\" = cat ] || echo \"$@\" >> {}\n[ \"$2\" != restart ]\n", orders.display());
    write_program(&background.programs.join("systemctl"), &script);
    assert_eq!(background.ask(&["start"]), json!({"unit": "llamagate.service", "order": "start"}));
    assert!(background.run(&["stop"]).status.success());
    let failed = background.run(&["restart"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed.stderr).contains("systemctl --user restart llamagate.service has failed"), "{failed:?}");
    let refused = background.run(&["start", &background.model_path()]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let given = fs::read_to_string(orders).unwrap();
    assert_eq!(
        given,
        "--user start llamagate.service\n--user stop llamagate.service\n--user restart llamagate.service\n"
    );
}
