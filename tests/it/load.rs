//! The load of a model: LOAD_TIMEOUT counts only silence, the phases are logged, the file can be prefetched and may
//! change.

use std::{
    fs::{self, File},
    path::Path,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::support::{
    fake_server,
    gateway::{Backend, Gateway, smollm},
    model_file::{self, Kind},
    scripted::ScriptedModel,
    wait::{READY, SOON, eventually, eventually_some},
};

/// Starts a gateway whose load takes twice LOAD_TIMEOUT, with a sign of life of this kind every 100 ms.
fn slow_load(kind: &str) -> Gateway {
    let signs = json!({"kind": kind, "interval_ms": 100, "times": 40});
    // A logged probe would end the line of dots.
    let signs = json!({"load_signs": signs, "log_requests": kind != "dots"});
    Gateway::builder().script(json!({"starts": [signs, {}]})).set("LOAD_TIMEOUT", "2s").start_ready()
}

#[test]
fn load_timeout_counts_only_silence() {
    thread::scope(|scope| {
        for kind in ["lines", "dots", "memory", "reads"] {
            scope.spawn(move || {
                let gateway = slow_load(kind);
                assert_eq!(gateway.journal().starts().len(), 1, "{kind} are progress\n{}", gateway.output());
            });
        }
        scope.spawn(|| {
            let gateway = slow_load("none");
            assert_eq!(gateway.journal().starts().len(), 2, "answers to probes are no progress\n{}", gateway.output());
        });
    });
}

/// Returns the value after `name=` in a line of the log.
fn field(line: &str, name: &str) -> Option<f64> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// Waits for the line of the log that contains `words`.
fn logged(gateway: &Gateway, words: &str) -> String {
    eventually_some(&format!("the log says {words:?}"), SOON, || {
        gateway.output().lines().find(|line| line.contains(words)).map(str::to_owned)
    })
}

/// Returns the value of a series in the text format of Prometheus.
fn series(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn phase(gateway: &Gateway, phase: &str) -> Option<f64> {
    let model = "SmolLM2-135M-Instruct.Q4_1";
    series(&metrics(gateway), &format!("llamagate_model_load_phase_seconds{{model=\"{model}\",phase=\"{phase}\"}}"))
}

fn metrics(gateway: &Gateway) -> String {
    gateway.health().header("Accept", "text/plain").get("/metrics").text()
}

/// Starts a gateway with the real llama-server and a model that takes a moment to load.
fn real(prefetch: bool) -> Gateway {
    let backend = Backend::Real { model: "tiny-chat.gguf" };
    let builder = Gateway::builder().backend(backend).set("MODEL_PATH", smollm().display());
    builder.set("PREFETCH", prefetch).start_ready()
}

#[test]
fn the_phases_of_a_real_load_are_in_the_log_and_in_the_metrics() {
    let gateway = real(false);
    let line = logged(&gateway, "llama-server is ready");
    let phases = ["start", "weights", "warm_up"];
    let sum: f64 = phases.iter().map(|name| phase(&gateway, name).unwrap_or_else(|| panic!("no {name}"))).sum();
    let load =
        series(&metrics(&gateway), "llamagate_model_load_seconds{model=\"SmolLM2-135M-Instruct.Q4_1\"}").unwrap();
    assert!((sum - load).abs() < 1e-6, "{sum} is not {load}");
    assert!(phases.iter().all(|name| phase(&gateway, name).unwrap() > 0.0), "{}", metrics(&gateway));
    let logged: f64 = phases.iter().map(|name| field(&line, &format!("{name}_ms")).expect(name)).sum();
    let load_ms = field(&line, "load_ms").unwrap();
    assert!((logged - load_ms).abs() <= 3.0, "each value is rounded down: {line}");
    assert_eq!((phase(&gateway, "prefetch"), field(&line, "prefetch_ms")), (None, None), "no prefetch was configured");
}

#[test]
fn prefetch_reads_the_whole_model_before_the_start() {
    let gateway = real(true);
    let line = logged(&gateway, "the model has been read");
    let size = fs::metadata(smollm()).unwrap().len();
    assert_eq!(field(&line, "bytes"), Some(size as f64), "{line}");
    assert_eq!(field(&line, "percent"), Some(100.0), "{line}");
    assert!(field(&line, "mib_per_s").is_some() && field(&line, "seconds").is_some(), "{line}");
    let output = gateway.output();
    assert!(output.find("the model has been read").unwrap() < output.find("llama-server started").unwrap(), "{output}");
    assert!(phase(&gateway, "prefetch").unwrap() > 0.0);
    assert!(field(&logged(&gateway, "llama-server is ready"), "prefetch_ms").is_some());
    let body = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    assert_eq!(gateway.client().post_json("/v1/chat/completions", &body).status(), 200);
}

/// The size in bytes of a sparse model file: reading it takes longer than the test needs to send SIGTERM, but no disk
/// space.
const LONG: u64 = 4 << 30;

#[test]
fn sigterm_during_a_prefetch_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let model = ScriptedModel::create(folder.path(), "large.gguf", Kind::Chat, &json!({}));
    File::options().write(true).open(&model.path).unwrap().set_len(LONG).unwrap();
    let mut gateway = Gateway::builder().set("MODEL_PATH", model.path.display()).set("PREFETCH", true).start();
    logged(&gateway, "the model is read once before the start");
    assert_eq!(gateway.health().get("/ping").status(), 204, "the prefetch is under way");
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(!gateway.output().contains("the model has been read"), "{}", gateway.output());
    assert_eq!(model.journal().starts(), Vec::<Value>::new(), "llama-server was not started");
}

fn kill_worker(gateway: &Gateway) {
    let worker = eventually_some("llama-server runs", SOON, || gateway.child_pids().into_iter().next());
    kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
}

/// Waits until the `last_exit.hint` on `/health` contains `words`, and returns the health.
fn wait_for_hint(gateway: &Gateway, words: &str) -> Value {
    eventually_some(&format!("/health says {words:?}"), READY, || {
        let health = gateway.anonymous().get("/health").json();
        health["models"][0]["last_exit"]["hint"].as_str()?.contains(words).then(|| health.clone())
    })
}

type Damage = fn(&Path);

#[test]
fn a_damaged_model_file_is_reported_without_its_path_and_serves_again_once_it_is_restored() {
    // A short window, so that the restarts of this test never reach RESTART_LIMIT.
    let gateway = Gateway::builder().set("RESTART_WINDOW", "1s").start_ready();
    let file = gateway.model().path.clone();
    let damages: [(&str, Damage); 3] = [
        ("cannot be read: No such file", |file| fs::remove_file(file).unwrap()),
        ("is not a GGUF file", |file| fs::write(file, "<html>404</html>").unwrap()),
        ("is cut short", |file| File::options().write(true).open(file).unwrap().set_len(40).unwrap()),
    ];
    for (words, damage) in damages {
        damage(&file);
        let starts = gateway.journal().starts().len();
        kill_worker(&gateway);
        let health = wait_for_hint(&gateway, words);
        assert!(!health.to_string().contains(gateway.data_dir().to_str().unwrap()), "{health}");
        assert!(["backoff", "starting"].contains(&health["models"][0]["state"].as_str().unwrap()), "{health}");
        assert_eq!(gateway.journal().starts().len(), starts, "llama-server is not started with such a file");
        model_file::write(&file, Kind::Chat);
        let chat = json!({"messages": [{"role": "user", "content": "x"}]});
        eventually("the model serves again", READY, || {
            gateway.client().post_json("/v1/chat/completions", &chat).status() == 200
        });
    }
}

#[test]
fn a_model_file_that_stays_away_is_given_up_with_69_and_the_reason() {
    let mut gateway = Gateway::builder().set("RESTART_LIMIT", 2).start_ready();
    fs::remove_file(&gateway.model().path).unwrap();
    kill_worker(&gateway);
    assert_eq!(gateway.wait_exit().code(), Some(69), "{}", gateway.output());
    let reason = "could not be kept running: the model file cannot be read";
    assert!(gateway.output().contains(reason), "{}", gateway.output());
    assert_eq!(gateway.journal().starts().len(), 1);
}

#[test]
fn a_part_that_is_missing_at_a_restart_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = ScriptedModel::create(folder.path(), "big-00001-of-00002.gguf", Kind::Chat, &json!({}));
    let second = folder.path().join("big-00002-of-00002.gguf");
    model_file::write(&second, Kind::Chat);
    let builder =
        Gateway::builder().set("MODEL_PATH", model.path.display()).set("LLAMA_SERVER", fake_server::program());
    let gateway = builder.start_ready();
    fs::remove_file(&second).unwrap();
    kill_worker(&gateway);
    let health = wait_for_hint(&gateway, "part 2 of 2 is missing");
    assert!(!health.to_string().contains(folder.path().to_str().unwrap()), "{health}");
    model_file::write(&second, Kind::Chat);
    gateway.wait_ready();
    assert_eq!(model.journal().starts().len(), 2);
}
