//! The supervision of llama-server: it is restarted after a failure, given up after RESTART_LIMIT, and leaves no
//! process, port or descriptor behind.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::support::{
    gateway::{Backend, Gateway, can_mount},
    resources::{pid_gone, port_is_free},
    wait::{PROBES_FAIL, READY, SOON, STOPS, eventually, eventually_some},
};

fn worker(gateway: &Gateway) -> u32 {
    eventually_some("llama-server runs", SOON, || gateway.child_pids().into_iter().next())
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn send_signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Returns the number of file descriptors of an idle gateway that has had no failure.
fn baseline_fds() -> usize {
    static BASELINE: OnceLock<usize> = OnceLock::new();
    *BASELINE.get_or_init(|| {
        let gateway = Gateway::builder().start();
        gateway.wait_ready();
        // The connections of the probes close shortly after their responses.
        eventually_some("the count of an idle gateway is stable", SOON, || {
            let first = gateway.open_fds();
            is_stable(|| gateway.open_fds() == first).then_some(first)
        })
    })
}

/// How long a count must be stable to be taken as the baseline.
const STILL: Duration = Duration::from_millis(200);

fn is_stable(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + STILL;
    while Instant::now() < end {
        if !holds() {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Asserts that the failures of a worker have leaked no descriptors, stops the gateway, and asserts that no child and
/// no bound port is left.
fn assert_nothing_leaks(mut gateway: Gateway) {
    let baseline = baseline_fds();
    // One idle connection to llama-server may stay in the pool for UPSTREAM_IDLE.
    eventually("file descriptors are back to the baseline", STOPS, || gateway.open_fds() <= baseline);
    let children = gateway.child_pids();
    let ports = [port_of(gateway.url()), port_of(gateway.health_url())];
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(children.into_iter().all(pid_gone));
    assert!(ports.into_iter().all(port_is_free));
}

#[test]
fn sigterm_ends_everything_with_exit_code_0() {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    let child = worker(&gateway);
    assert_nothing_leaks(gateway);
    assert!(pid_gone(child));
}

#[test]
fn kill_9_of_the_gateway_leaves_no_llama_server_behind() {
    for backend in [
        Backend::Fake { script: json!({}), kind: super::support::model_file::Kind::Chat },
        Backend::Real { model: "tiny-chat.gguf" },
    ] {
        let mut gateway = Gateway::builder().backend(backend).start();
        gateway.wait_ready();
        let child = worker(&gateway);
        gateway.signal(Signal::SIGKILL);
        gateway.wait_exit();
        eventually("llama-server is gone", STOPS, || pid_gone(child));
    }
}

#[test]
fn a_killed_llama_server_breaks_the_stream_in_band_and_serves_again_after_its_restart() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("CTX", 8192).start();
    gateway.wait_ready();
    let child = worker(&gateway);
    let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true, "max_tokens": 8000});
    let mut stream = gateway.client().stream("/v1/chat/completions", &body);
    assert!(stream.next_event().is_some());
    send_signal(child, Signal::SIGKILL);
    let events = stream.events();
    assert_eq!(events.last().unwrap().json()["error"]["code"], "backend_error");
    assert!(events.iter().all(|event| !event.is_done()));
    drop(stream);
    let short = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    eventually("llama-server serves again", READY, || {
        gateway.client().post_json("/v1/chat/completions", &short).status() == 200
    });
    let health = gateway.anonymous().get("/health").json();
    assert_eq!(health["models"][0]["restarts"], 1);
    assert_eq!(health["models"][0]["last_exit"]["signal"], 9);
    assert_ne!(worker(&gateway), child);
    assert_nothing_leaks(gateway);
}

#[test]
fn a_llama_server_that_always_exits_is_given_up_with_69_and_a_hint() {
    let script = json!({"exit_at_start": {"code": 1, "stderr": ["ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory"]}});
    let (status, output) = Gateway::builder().script(script).set("RESTART_LIMIT", 1).run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    assert!(output.contains("out of GPU memory: lower NGL"), "{output}");
}

#[test]
fn a_crash_while_loading_is_followed_by_a_good_start() {
    let gateway = Gateway::builder().script(json!({"starts": [{"exit_while_loading": {"code": 1}}, {}]})).start();
    gateway.wait_ready();
    assert_eq!(gateway.anonymous().get("/health").json()["models"][0]["restarts"], 1);
    assert_nothing_leaks(gateway);
}

#[test]
fn a_load_without_progress_ends_after_load_timeout() {
    let gateway =
        Gateway::builder().script(json!({"starts": [{"never_ready": true}, {}]})).set("LOAD_TIMEOUT", "500ms").start();
    gateway.wait_ready();
    assert_eq!(gateway.journal().starts().len(), 2);
    assert_nothing_leaks(gateway);
}

#[test]
fn a_llama_server_that_ignores_sigterm_is_killed() {
    let mut gateway = Gateway::builder().script(json!({"ignore_sigterm": true})).start();
    gateway.wait_ready();
    let child = worker(&gateway);
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(pid_gone(child));
}

#[test]
fn llama_server_writes_no_core_dump() {
    let gateway = Gateway::builder().start_ready();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker(&gateway))).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}

#[test]
fn a_process_that_llama_server_forked_ends_with_it() {
    let gateway = Gateway::builder().script(json!({"fork_grandchild": true})).start();
    gateway.wait_ready();
    let grandchild = gateway.journal().wait_for_event("grandchild")["grandchild"].as_u64().unwrap() as u32;
    send_signal(worker(&gateway), Signal::SIGKILL);
    eventually("the grandchild is gone", STOPS, || pid_gone(grandchild));
    assert_nothing_leaks(gateway);
}

#[test]
fn a_server_of_another_program_on_the_port_is_not_taken_for_llama_server() {
    let gateway = Gateway::builder().script(json!({"starts": [{"wrong_key": true}, {}]})).start();
    gateway.wait_ready();
    assert_eq!(gateway.journal().starts().len(), 2, "the first one was rejected");
    assert_nothing_leaks(gateway);
}

#[test]
fn llama_server_gets_a_scrubbed_environment_and_its_own_home() {
    let gateway = Gateway::builder()
        .set("LLAMA_ARG_HOST", "0.0.0.0")
        .set("HF_TOKEN", "hf_x")
        .set("CUDA_VISIBLE_DEVICES", "0")
        .start();
    gateway.wait_ready();
    let start = gateway.journal().starts().remove(0);
    let environment = start["env"].as_object().unwrap();
    assert!(!environment.contains_key("LLAMA_ARG_HOST") && !environment.contains_key("HF_TOKEN"));
    assert_eq!(environment["CUDA_VISIBLE_DEVICES"], "0");
    assert!(environment["HOME"].as_str().unwrap().contains("llamagate-"));
    assert_nothing_leaks(gateway);
}

#[test]
fn a_flood_on_standard_error_blocks_neither_llama_server_nor_the_gateway() {
    let gateway = Gateway::builder()
        .script(json!({"stderr_flood": {"lines": 20000, "bytes": 200}, "long_log_line": 1_000_000}))
        .start();
    gateway.wait_ready();
    let latest = std::fs::read_to_string(gateway.data_dir().join("logs/llama/latest.txt")).unwrap();
    assert!(gateway.data_dir().join("logs/llama").join(latest.trim()).exists());
    assert_nothing_leaks(gateway);
}

#[test]
fn lines_of_llama_server_that_are_lost_to_a_full_disk_are_reported() {
    if !can_mount() {
        println!("skipped: this machine does not allow a mount namespace");
        return;
    }
    let flood = json!({"stderr_flood": {"lines": 5000, "bytes": 200}});
    let mut gateway = Gateway::builder().script(flood).log_disk(64).start_ready();
    assert_eq!(gateway.client().get("/props").status(), 200, "requests are served all the same");
    assert_eq!(gateway.stop().code(), Some(0));
    let output = gateway.output();
    // The access log is on that disk too.
    let mut reports = output.lines().filter(|line| line.contains("could not be written to"));
    assert!(reports.any(|line| line.contains("logs/llama") && line.contains("No space left")), "{output}");
}

#[test]
fn a_log_that_cannot_be_written_was_no_warning() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.log");
    std::fs::create_dir_all(folder.path().join("logs/llama")).unwrap();
    std::fs::write(folder.path().join("logs/access"), "in the way").unwrap();
    std::os::unix::fs::symlink("/dev/full", &own).unwrap();
    let gateway = Gateway::builder()
        .set("LOG_DIR", folder.path().join("logs").to_str().unwrap())
        .set("LOG_FILE", own.to_str().unwrap())
        .start_ready();
    let warnings = || gateway.health().get("/health").json()["warnings"].to_string();
    let has = |about: &str| warnings().contains(about);
    eventually("both are told", SOON, || {
        has("the access log cannot be written (") && has("LOG_FILE cannot be written (No space left")
    });
    assert!(!has(folder.path().to_str().unwrap()), "{}", warnings());
    std::fs::remove_file(folder.path().join("logs/access")).unwrap();
    eventually("the access log is written again", SOON, || {
        gateway.client().get("/props");
        !has("the access log")
    });
    assert!(has("LOG_FILE"), "{}", warnings());
}

#[test]
fn a_llama_server_that_stops_answering_is_unhealthy_until_it_answers_again() {
    let gateway = Gateway::builder().start();
    gateway.wait_ready();
    let state_is = |state: &str| gateway.anonymous().get("/health").json()["models"][0]["state"] == state;
    let mut control = gateway.control();
    control.stop_answering();
    eventually("the worker is unhealthy", PROBES_FAIL, || state_is("unhealthy"));
    let answer = gateway.client().get("/props");
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("backend_unavailable")));
    control.resume();
    eventually("the worker is ready again", PROBES_FAIL, || state_is("ready"));
    assert_eq!(gateway.client().get("/props").status(), 200);
    assert_eq!(gateway.journal().starts().len(), 1, "llama-server was not restarted");
    assert_nothing_leaks(gateway);
}

/// Less than the interval of the regular probes, of which the next is due 5 s after llama-server became ready. This
/// time begins when one probe has timed out after 2 s.
const BEFORE_THE_REGULAR_PROBE: Duration = Duration::from_secs(2);

/// A gateway whose llama-server has broken a connection and no longer answers.
fn suspected() -> Gateway {
    let frame = json!({"after_frames": 1});
    let gateway = Gateway::builder().script(json!({"hold_mid_stream": frame, "reset_mid_stream": frame})).start();
    gateway.wait_ready();
    let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let mut stream = gateway.client().stream("/v1/chat/completions", &body);
    assert!(stream.next_event().is_some());
    let mut control = gateway.control();
    control.stop_answering();
    control.release_all_requests();
    assert_eq!(stream.events().last().unwrap().json()["error"]["code"], "backend_error");
    gateway
}

#[test]
fn a_request_without_a_slot_waits_for_the_probe_of_a_suspected_llama_server() {
    let gateway = suspected();
    let mut helper = gateway.client().begin("GET", "/props", b"").unwrap();
    let chat = json!({"messages": [{"role": "user", "content": "x"}]}).to_string();
    let mut queued = gateway.client().begin("POST", "/v1/chat/completions", chat.as_bytes()).unwrap();
    eventually("one request waits in the queue", SOON, || {
        gateway.anonymous().get("/health").json()["queue"]["waiting"] == 1
    });
    gateway.control().resume();
    assert_eq!(helper.read_response().unwrap().status(), 200);
    assert_eq!(queued.read_response().unwrap().status(), 200);
}

#[test]
fn a_suspected_llama_server_that_stays_silent_is_soon_unhealthy_and_soon_probed_again() {
    let gateway = suspected();
    eventually("readiness is withdrawn before three probes are due", SOON, || {
        gateway.health().get("/readyz").status() == 503
    });
    let health = gateway.anonymous().get("/health");
    assert_eq!((health.status(), &health.json()["models"][0]["state"]), (503, &json!("unhealthy")));
    let answer = gateway.client().get("/props");
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (503, Some("backend_unavailable")));
    gateway.control().resume();
    eventually("the worker is ready again", BEFORE_THE_REGULAR_PROBE, || {
        gateway.health().get("/readyz").status() == 200
    });
    assert_eq!(gateway.client().get("/props").status(), 200);
    assert_eq!(gateway.journal().starts().len(), 1, "llama-server was not restarted");
    assert_nothing_leaks(gateway);
}
