//! Detection of hangs: a llama-server that answers its probes but makes no progress is killed; one that is only slow is
//! not.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};

use super::support::{
    gateway::{Backend, Gateway, real_llama_server, smollm},
    wait::{READY, REAL_MODEL_READY, assert_throughout, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn hint(gateway: &Gateway) -> String {
    let health = gateway.anonymous().get("/health").json();
    health["models"][0]["last_exit"]["hint"].as_str().unwrap_or_default().to_owned()
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

#[test]
fn a_hung_llama_server_is_killed_its_streams_end_with_an_error_and_the_next_request_is_served() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"hold_mid_stream": {"after_frames": 1}}, {}]}))
        .set_all(&[("HANG_TIMEOUT", "1s"), ("MAX_CONCURRENT_REQUESTS", "2")])
        .start_ready();
    let mut streams = [(); 2].map(|()| gateway.client().stream(CHAT, &chat(true)));
    for stream in &mut streams {
        let events = stream.events();
        assert_eq!(events.last().unwrap().json()["error"]["code"], "backend_error");
        assert!(events.iter().all(|event| !event.is_done()));
    }
    eventually("llama-server serves again", READY, || gateway.client().post_json(CHAT, &chat(false)).status() == 200);
    assert!(hint(&gateway).contains("it hung"), "{}", hint(&gateway));
    assert_eq!(gateway.journal().starts().len(), 2);
}

#[test]
fn a_request_gets_502_when_llama_server_hangs_before_its_first_byte() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"hold_requests": [CHAT]}, {}]}))
        .set("HANG_TIMEOUT", "1s")
        .start_ready();
    let answer = gateway.client().post_json(CHAT, &chat(false));
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (502, Some("backend_error")));
}

#[test]
fn a_llama_server_that_does_not_answer_metrics_is_killed_though_its_health_is_ok() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"silent_paths": ["/metrics"]}, {}]}))
        .set("HANG_TIMEOUT", "1s")
        .start_ready();
    eventually("llama-server has been restarted", READY, || gateway.journal().starts().len() == 2);
    assert!(hint(&gateway).contains("it hung: it had nothing to do"), "{}", hint(&gateway));
}

#[test]
fn a_llama_server_that_is_slow_or_idle_or_without_metrics_is_not_killed() {
    let drip = json!({"drip": {"interval_ms": 150, "frames": 20}});
    let slow = Gateway::builder().script(drip).set("HANG_TIMEOUT", "1s").start_ready();
    let no_metrics = json!({"error_status": [{"path": "/metrics", "status": 501, "body": "no"}]});
    let without_metrics = Gateway::builder().script(no_metrics).set("HANG_TIMEOUT", "300ms").start_ready();
    let idle = Gateway::builder().set("HANG_TIMEOUT", "300ms").start_ready();
    let events = slow.client().stream(CHAT, &chat(true)).events();
    assert!(events.last().unwrap().is_done(), "the stream takes longer than HANG_TIMEOUT, but makes progress");
    for gateway in [slow, without_metrics, idle] {
        assert_eq!(gateway.journal().starts().len(), 1);
    }
}

#[test]
fn without_hang_timeout_no_llama_server_is_killed() {
    let gateway = Gateway::builder().script(json!({"hold_requests": [CHAT]})).set("HANG_TIMEOUT", "0").start_ready();
    let mut client = gateway.client().begin("POST", CHAT, chat(false).to_string().as_bytes()).unwrap();
    assert_throughout("llama-server is not restarted", Duration::from_secs(2), || {
        gateway.journal().starts().len() == 1
    });
    gateway.control().release_all_requests();
    assert_eq!(client.read_response().unwrap().status(), 200);
}

#[test]
fn a_hung_llama_server_is_killed_though_clients_give_up_and_retry() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"hang_on": [CHAT]}, {}]}))
        .set_all(&[("HANG_TIMEOUT", "1s"), ("PARALLEL", "1")])
        .start_ready();
    let is_restarted = || gateway.journal().starts().len() == 2;
    eventually("llama-server is killed", READY, || {
        let arrived = gateway.journal().requests(CHAT).len();
        let abandoned = gateway.client().begin("POST", CHAT, chat(false).to_string().as_bytes()).unwrap();
        eventually("the request arrives", READY, || gateway.journal().requests(CHAT).len() > arrived || is_restarted());
        drop(abandoned);
        is_restarted()
    });
    assert!(gateway.journal().requests(CHAT).len() > 2, "several requests have been abandoned");
    assert!(hint(&gateway).contains("it hung: it worked"), "{}", hint(&gateway));
}

#[test]
fn no_new_request_is_sent_to_a_llama_server_that_seems_to_hang() {
    let gateway = Gateway::builder()
        .script(json!({"starts": [{"hold_requests": [CHAT]}, {}]}))
        .set_all(&[("HANG_TIMEOUT", "2s"), ("MAX_CONCURRENT_REQUESTS", "2"), ("PARALLEL", "2")])
        .start_ready();
    let mut hung = gateway.client().begin("POST", CHAT, chat(false).to_string().as_bytes()).unwrap();
    eventually("llama-server seems to hang", READY, || gateway.output().contains("new requests wait"));
    assert_eq!(gateway.journal().starts().len(), 1, "llama-server has not been killed yet");
    assert_eq!(gateway.client().post_json(CHAT, &chat(false)).status(), 200);
    assert_eq!(hung.read_response().unwrap().status(), 502);
    let served_by: Vec<Value> = gateway.journal().requests(CHAT).iter().map(|record| record["pid"].clone()).collect();
    let started: Vec<Value> = gateway.journal().starts().iter().map(|record| record["pid"].clone()).collect();
    assert_eq!(served_by, started, "each process gets one request");
}

#[test]
fn a_llama_server_that_only_seemed_to_hang_gets_the_requests_that_have_waited() {
    let gateway = Gateway::builder()
        .script(json!({"hold_requests": [CHAT]}))
        .set_all(&[("HANG_TIMEOUT", "10s"), ("MAX_CONCURRENT_REQUESTS", "2"), ("PARALLEL", "2")])
        .start_ready();
    let begin = || gateway.client().begin("POST", CHAT, chat(false).to_string().as_bytes()).unwrap();
    let mut slow = begin();
    eventually("llama-server seems to hang", READY, || gateway.output().contains("new requests wait"));
    let mut waiting = begin();
    gateway.control().release_all_requests();
    assert_eq!(slow.read_response().unwrap().status(), 200);
    assert_eq!(waiting.read_response().unwrap().status(), 200);
    assert_eq!(gateway.journal().starts().len(), 1);
}

/// Stops the main thread of a llama-server by ptrace, which leaves its HTTP threads running (SIGSTOP would stop them
/// all). Returns false if this machine does not allow ptrace.
fn stop_main_thread(llama_server: Pid) -> bool {
    let stopped = ptrace::attach(llama_server);
    assert!(matches!(stopped, Ok(()) | Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS)), "{stopped:?}");
    stopped.is_ok()
}

/// Longer than two intervals between probes with a HANG_TIMEOUT of 4 s.
const TWO_PROBES: Duration = Duration::from_millis(2500);

#[test]
fn the_real_llama_server_is_killed_when_its_loop_stops_though_clients_give_up_and_retry() {
    for (is_busy, expected) in [(true, "it hung: it worked for"), (false, "did not answer /metrics for")] {
        let gateway = Gateway::builder()
            .backend(Backend::Real { model: "tiny-chat.gguf" })
            .set_all(&[("MODEL_PATH", smollm().to_str().unwrap()), ("PARALLEL", "1"), ("HANG_TIMEOUT", "4s")])
            .start_ready();
        let llama_server = Pid::from_raw(gateway.child_pids()[0] as i32);
        let body = json!({"prompt": "x", "max_tokens": 1000, "stream": true, "ignore_eos": true});
        let busy_stream = is_busy.then(|| {
            let mut stream = gateway.client().stream("/v1/completions", &body);
            // A probe has to find it at work, or it is found to hang with nothing to do.
            while stream.next_event().unwrap().after < TWO_PROBES {}
            stream
        });
        if !stop_main_thread(llama_server) {
            eprintln!("skipped: this machine does not allow ptrace");
            return;
        }
        drop(busy_stream);
        // The HTTP threads notice within a second that a client has left.
        eventually("llama-server is restarted", REAL_MODEL_READY, || {
            // The kernel reports the end of a traced process to the tracer first; its parent learns of it only after
            // that.
            let _ = waitpid(llama_server, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
            let abandoned = gateway.client().begin("POST", "/v1/completions", body.to_string().as_bytes()).unwrap();
            let health = gateway.anonymous().get("/health").json();
            drop(abandoned);
            health["models"][0]["restarts"] == 1
        });
        assert!(hint(&gateway).contains(expected), "{}", hint(&gateway));
        let logs = fs::read_dir(gateway.data_dir().join("logs/llama")).unwrap().flatten();
        let log: String = logs.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
        assert!(log.contains("cancel task"), "clients left while llama-server hung: {log}");
    }
}

/// A HANG_TIMEOUT that is shorter than one batch of the test takes. The limit is five times as much CPU time of each
/// thread, which the batch does not reach.
const SHORTER_THAN_A_BATCH: &str = "800ms";

#[test]
fn a_long_prompt_on_the_real_llama_server_is_not_taken_for_a_hang() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("llama-server");
    // The shell does not exec, so llama-server is a grandchild of the gateway.
    fs::write(&script, format!("#!/bin/sh\n'{}' \"$@\"\nexit $?\n", real_llama_server().display())).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    for (program, threads, words) in
        [(&real_llama_server(), "2", 350), (&real_llama_server(), "1", 250), (&script, "1", 250)]
    {
        let gateway = Gateway::builder()
            .backend(Backend::Real { model: "tiny-chat.gguf" })
            .set_all(&[("MODEL_PATH", smollm().to_str().unwrap()), ("CTX", "2048"), ("THREADS", threads)])
            .set("LLAMA_SERVER", program.display())
            .set("HANG_TIMEOUT", SHORTER_THAN_A_BATCH)
            .start_ready();
        let body = json!({"prompt": "word ".repeat(words), "max_tokens": 1});
        let answer = gateway.client().post_json("/v1/completions", &body);
        assert_eq!(answer.status(), 200, "{} on {threads} threads: {}", program.display(), answer.text());
        let health = gateway.anonymous().get("/health").json();
        assert_eq!(health["models"][0]["restarts"], 0, "{health}");
        assert!(!gateway.output().contains("new requests wait"), "llama-server computes, so it still gets requests");
    }
}
