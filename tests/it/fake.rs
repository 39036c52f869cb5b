//! Tests of the fake llama-server itself: it does what its scripts say, which the other tests rely on.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::{
    client::Client,
    fake_server::FakeServer,
    resources::{is_zombie, pid_gone},
    wait::{self, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn question(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "hello there"}], "stream": stream})
}

fn ready(script: Value) -> (FakeServer, Client) {
    let fake = FakeServer::start(&script, &[]);
    fake.wait_ready();
    let client = fake.client();
    (fake, client)
}

#[test]
fn the_fake_loads_until_released_and_answers_503_until_then() {
    let fake = FakeServer::start(&json!({"load": {"until_released": true}}), &[]);
    let client = fake.client();
    for path in ["/health", "/v1/models", "/nonsense"] {
        let answer = client.get(path);
        assert_eq!(answer.status(), 503, "{path}");
        assert_eq!(answer.json()["error"]["message"], "Loading model");
    }
    fake.model.control().release_load();
    fake.wait_ready();
    assert_eq!(client.get("/health").text(), r#"{"status":"ok"}"#);
}

#[test]
fn the_fake_requires_its_key_and_never_journals_it() {
    let (fake, client) = ready(json!({}));
    assert_eq!(client.get("/props").json()["total_slots"], 2);
    assert_eq!(client.get("/nonsense").status(), 404);
    let keyless = Client::new(&fake.url());
    assert_eq!(keyless.get("/health").status(), 200);
    assert_eq!(keyless.key("wrong").get("/props").status(), 401);
    let keyless = Client::new(&fake.url());
    assert_eq!(keyless.get("/v1/models").json()["error"]["type"], "authentication_error");
    let journal = std::fs::read_to_string(format!("{}.fake.journal", fake.model.path.display())).unwrap();
    assert!(!journal.contains(crate::support::fake_server::KEY), "{journal}");
}

#[test]
fn the_fake_answers_whole_and_streamed() {
    let (_fake, client) = ready(json!({"frames": 3}));
    let whole = client.post_json(CHAT, &question(false));
    assert!(whole.complete);
    assert_eq!(whole.json()["choices"][0]["message"]["content"], "tok0 tok1 tok2 ");
    assert_eq!(whole.json()["usage"]["total_tokens"], 6);

    let mut stream = client.stream(CHAT, &question(true));
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream"));
    let events = stream.events();
    assert_eq!(events.len(), 5, "three tokens, the end, [DONE]");
    assert_eq!(events[3].json()["timings"]["predicted_n"], 3);
    assert!(events[4].is_done() && stream.is_complete());

    let events = client.stream("/v1/messages", &question(true)).events();
    assert_eq!(events.last().unwrap().name.as_deref(), Some("message_stop"));
}

/// A token of 64 KiB ended the connection, and with it whatever was held.
#[test]
fn a_stream_of_large_tokens_can_be_held_in_its_middle() {
    let script = json!({"frames": 4, "frame_bytes": 64 * 1024, "hold_mid_stream": {"after_frames": 2}});
    let (fake, client) = ready(script);
    let mut stream = client.stream(CHAT, &question(true));
    let first = stream.next_event().unwrap().json();
    assert_eq!(first["choices"][0]["delta"]["content"].as_str().unwrap().len(), 64 * 1024);
    fake.model.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()));
    assert!(stream.is_complete());
}

#[test]
fn the_fake_speaks_every_dialect() {
    let fake = FakeServer::start(&json!({}), &["--reranking"]);
    fake.wait_ready();
    let client = fake.client();
    for (path, body, field) in [
        ("/v1/completions", json!({"prompt": "a"}), "choices"),
        ("/completion", json!({"prompt": "a"}), "content"),
        ("/infill", json!({"input_prefix": "a"}), "content"),
        ("/v1/messages", question(false), "content"),
        ("/v1/messages/count_tokens", question(false), "input_tokens"),
        ("/v1/responses", json!({"input": "a"}), "output"),
        ("/v1/embeddings", json!({"input": ["a", "b"]}), "data"),
        ("/v1/rerank", json!({"query": "a", "documents": ["a b", "c"]}), "results"),
        ("/tokenize", json!({"content": "a b"}), "tokens"),
        ("/detokenize", json!({"tokens": [1, 2]}), "content"),
        ("/apply-template", question(false), "prompt"),
        ("/v1/audio/transcriptions", json!("sound"), "text"),
    ] {
        let answer = client.post_json(path, &body);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        assert!(!answer.json()[field].is_null(), "{path}: {}", answer.text());
    }
    assert_eq!(client.send("POST", CHAT, b"{").json()["error"]["code"], 400);
    assert!(client.get("/metrics").text().contains("\nllamacpp:requests_processing 0\n"));
}

#[test]
fn the_fake_defers_requests_beyond_its_slots_and_holds_until_released() {
    let (fake, client) = ready(json!({"hold_requests": [CHAT]}));
    let journal = fake.model.journal();
    let mut waiting: Vec<_> =
        (0..3).map(|_| client.begin("POST", CHAT, question(true).to_string().as_bytes()).unwrap()).collect();
    journal.wait_for_requests(CHAT, 3);
    eventually("two requests run, one is deferred", wait::SOON, || {
        let metrics = client.get("/metrics").text();
        metrics.contains("requests_processing 2\n") && metrics.contains("requests_deferred 1\n")
    });
    drop(waiting.remove(0)); // its slot goes to the deferred request
    journal.wait_for_event("disconnect");
    eventually("two requests run, none is deferred", wait::SOON, || {
        let metrics = client.get("/metrics").text();
        metrics.contains("requests_processing 2\n") && metrics.contains("requests_deferred 0\n")
    });
    fake.model.control().release_requests(2);
    for mut held in waiting {
        assert!(held.read_response().unwrap().complete);
    }
}

#[test]
fn a_stream_can_break_in_every_way() {
    for (script, events, complete, ends) in [
        (json!({"exit_mid_stream": {"after_frames": 2, "code": 7}}), 2, false, true),
        (json!({"exit_mid_stream": {"after_frames": 2, "signal": 9}}), 2, false, true),
        (json!({"half_event_then_die": {"after_frames": 2}}), 2, false, true),
        (json!({"truncate_mid_stream": {"after_frames": 2}}), 2, true, false),
        (json!({"truncate_mid_stream": {"after_frames": 2, "end_chunk": false}}), 2, false, false),
        (json!({"error_mid_stream": {"after_frames": 2}}), 3, true, false),
    ] {
        let (mut fake, client) = ready(script.clone());
        let mut stream = client.stream(CHAT, &question(true));
        let seen = stream.events();
        assert_eq!(seen.len(), events, "{script}");
        assert!(!seen.iter().any(|event| event.is_done()), "{script}");
        assert_eq!(stream.is_complete(), complete, "{script}");
        assert_eq!(stream.rest().is_empty(), script.get("half_event_then_die").is_none(), "{script}");
        if ends {
            fake.process.wait_exit();
        }
    }
    let (_fake, client) = ready(json!({"reset_mid_stream": {"after_frames": 0}}));
    let mut stream = client.stream(CHAT, &question(true));
    assert!(stream.next_event().is_none() && !stream.is_complete());
}

#[test]
fn a_whole_answer_can_lie_about_its_length() {
    for script in [json!({"wrong_content_length": 10}), json!({"truncate_body": 5})] {
        let (_fake, client) = ready(script);
        assert!(!client.post_json(CHAT, &question(false)).complete);
        assert!(client.get("/health").complete);
    }
}

#[test]
fn a_connection_serves_many_requests() {
    let (_fake, client) = ready(json!({}));
    let mut connection = client.begin("GET", "/health", b"").unwrap();
    for _ in 0..3 {
        assert_eq!(connection.read_response().unwrap().status(), 200);
        connection.write(&client.request("GET", "/health", b"")).unwrap();
    }
}

#[test]
fn each_start_has_its_script_and_a_misspelt_field_ends_the_fake() {
    let starts = json!({"starts": [{"exit_at_start": {"code": 3, "stderr": ["out of memory"]}}]});
    let mut fake = FakeServer::start(&starts, &[]);
    assert_eq!(fake.process.wait_exit().code(), Some(3));
    fake.process.wait_for_line("out of memory");
    assert_eq!(fake.model.journal().events("exit")[0]["code"], 3);

    let mut fake = FakeServer::start(&json!({"lode_ms": 3}), &[]);
    assert_eq!(fake.process.wait_exit().code(), Some(1));
    fake.process.wait_for_line("unknown field `lode_ms`");
}

#[test]
fn sigterm_ends_the_fake_unless_the_script_ignores_it() {
    let (mut fake, _) = ready(json!({}));
    fake.process.signal(Signal::SIGTERM);
    assert!(fake.process.wait_exit().success());

    let (mut fake, client) = ready(json!({"ignore_sigterm": true}));
    fake.process.signal(Signal::SIGTERM);
    fake.model.journal().wait_for_event("sigterm");
    assert_eq!(client.get("/health").status(), 200);
    fake.process.signal(Signal::SIGKILL);
    assert_eq!(fake.process.wait_exit().signal(), Some(9));
}

#[test]
fn sigterm_cuts_a_stream_and_leaves_other_clients_waiting() {
    let (mut fake, client) =
        ready(json!({"hold_mid_stream": {"after_frames": 1}, "hold_requests": ["/v1/completions"]}));
    let mut stream = client.stream(CHAT, &question(true));
    assert!(stream.next_event().is_some());
    let whole = client.begin("POST", "/v1/completions", br#"{"prompt":"a"}"#).unwrap();
    fake.model.journal().wait_for_requests("/v1/completions", 1);
    fake.process.signal(Signal::SIGTERM);
    assert!(stream.next_event().is_none() && !stream.is_complete());
    assert!(fake.process.try_exit_status().is_none());
    drop(whole);
    assert!(fake.process.wait_exit().success());
}

#[test]
fn a_grandchild_outlives_the_fake() {
    let (mut fake, _) = ready(json!({"fork_grandchild": true}));
    let record = fake.model.journal().wait_for_event("grandchild");
    let grandchild = u32::try_from(record["grandchild"].as_u64().unwrap()).unwrap();
    fake.process.signal(Signal::SIGKILL);
    fake.process.wait_exit();
    assert!(!pid_gone(grandchild) && !is_zombie(grandchild));
    kill(nix::unistd::Pid::from_raw(grandchild as i32), Signal::SIGKILL).unwrap();
    eventually("the grandchild is gone", wait::SOON, || pid_gone(grandchild));
}

#[test]
fn the_fake_hangs_and_dies_on_command() {
    let (mut fake, client) = ready(json!({}));
    let mut control = fake.model.control();
    control.stop_answering();
    let mut unanswered = client.begin("GET", "/health", b"").unwrap();
    fake.model.journal().wait_for_requests("/health", 1);
    control.resume();
    assert_eq!(unanswered.read_response().unwrap().status(), 200);
    control.die_of_signal(Signal::SIGABRT);
    assert_eq!(fake.process.wait_exit().signal(), Some(6));
}

#[test]
fn the_fake_fails_requests_while_it_looks_healthy() {
    let (_fake, client) = ready(json!({"healthy_but_500": true, "oversized_response_headers": 9000}));
    assert_eq!(client.get("/health").header("x-padding").map(str::len), Some(9000));
    assert_eq!(client.post_json(CHAT, &question(true)).json()["error"]["message"], "Compute error.");

    let fixed = json!({"path": CHAT, "status": 418, "body": "tea"});
    let (mut fake, client) =
        ready(json!({"error_status": [fixed], "exit_after_requests": 2, "stderr_flood": {"lines": 3, "bytes": 5}}));
    assert_eq!(client.post_json(CHAT, &question(true)).text(), "tea");
    assert_eq!(client.post_json("/tokenize", &json!({"content": "a"})).status(), 200);
    assert_eq!(fake.process.wait_exit().code(), Some(1));
    assert_eq!(fake.process.output().matches("fffff\n").count(), 3);
}

#[test]
fn the_fake_can_fail_before_it_is_ready() {
    for (script, code, signal) in [
        (json!({"abort_at_start": 6}), None, Some(6)),
        (json!({"exit_while_loading": {"code": 1}, "load_ms": 10}), Some(1), None),
    ] {
        let mut fake = FakeServer::start(&script, &[]);
        let status = fake.process.wait_exit();
        assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
    }
    let mut fake = FakeServer::start(&json!({"never_ready": true}), &[]);
    assert_eq!(fake.client().get("/health").status(), 503);
    fake.process.signal(Signal::SIGTERM); // the real llama-server does not handle it while it loads
    assert_eq!(fake.process.wait_exit().signal(), Some(15));
}

#[test]
fn the_fake_dies_and_fails_on_the_texts_of_its_script_and_on_no_other() {
    let says = |text: &str, stream: bool| json!({"messages": [{"role": "user", "content": text}], "stream": stream});
    let (mut fake, client) =
        ready(json!({"die_on": "poison", "fail_on": [{"text": "fail", "message": "Compute error."}]}));
    assert_eq!(client.post_json(CHAT, &says("x", false)).status(), 200);
    let answer = client.post_json(CHAT, &says("fail", false));
    let error = json!({"error": {"code": 500, "message": "Compute error.", "type": "server_error"}});
    assert_eq!((answer.status(), answer.json()), (500, error.clone()));
    assert_eq!(client.stream(CHAT, &says("fail", true)).events()[0].json(), error);
    let event = client.stream("/v1/messages", &says("fail", true)).events().remove(0);
    assert_eq!((event.name.as_deref(), event.json()), (Some("error"), error["error"].clone()));
    let mut stream = client.stream(CHAT, &says("poison", true));
    assert!(stream.head.status == 200 && stream.next_event().is_none() && !stream.is_complete());
    assert_eq!(fake.process.wait_exit().code(), Some(1));
}
