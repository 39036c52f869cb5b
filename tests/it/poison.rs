//! Poison requests, which kill llama-server each time, and a llama-server that is alive but can no longer compute.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::{RawClient, Response},
    gateway::{ADMIN, Backend, Gateway, LIMITED},
    wait::{PROBES_FAIL, READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// `COMPUTE_ERRORS_UNTIL_RESTART`.
const ENOUGH: usize = 3;

const TOO_LARGE: &str =
    "input (700 tokens) is too large to process. increase the physical batch size (current batch size: 512)";

fn ready(script: Value, settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().script(script).set_all(settings).start_ready()
}

fn saying(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

fn streaming(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "stream": true})
}

fn begin(gateway: &Gateway, text: &str) -> RawClient {
    gateway.client().begin("POST", CHAT, saying(text).to_string().as_bytes()).unwrap()
}

fn say(gateway: &Gateway, text: &str) -> Response {
    gateway.client().post_json(CHAT, &saying(text))
}

fn code(answer: &Response) -> (u16, String) {
    (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or("none").to_owned())
}

fn backend_died() -> (u16, String) {
    (502, "backend_error".to_owned())
}

fn refused() -> (u16, String) {
    (502, "request_kills_backend".to_owned())
}

fn worker(gateway: &Gateway) -> Value {
    gateway.health().get("/health").json()["models"][0].clone()
}

/// Sends a signal to llama-server, as another program does.
fn signal_worker(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.child_pids()[0] as i32), signal).unwrap();
}

/// Waits until llama-server has been restarted `times` times and is ready.
#[track_caller]
fn wait_restarted(gateway: &Gateway, times: u64) {
    eventually(&format!("llama-server is ready after restart {times}"), READY, || {
        let worker = worker(gateway);
        worker["restarts"] == times && worker["state"] == "ready"
    });
    assert_eq!(gateway.journal().starts().len() as u64, times + 1);
}

/// Returns how many requests for `path` reached the first llama-server process.
fn requests_of_first_process(gateway: &Gateway, path: &str) -> usize {
    let pid = gateway.journal().starts()[0]["pid"].clone();
    gateway.journal().requests(path).iter().filter(|request| request["pid"] == pid).count()
}

#[test]
fn a_request_that_has_killed_llama_server_twice_is_refused_without_a_slot() {
    let deadly = json!({"die_on": "poison"});
    let holding = json!({"die_on": "poison", "hold_requests": [CHAT]});
    let gateway = ready(json!({"starts": [deadly, deadly, holding]}), &[]);
    for times in 1..=2 {
        assert_eq!(code(&say(&gateway, "poison")), backend_died());
        wait_restarted(&gateway, times);
    }
    let mut innocent = begin(&gateway, "harmless");
    gateway.journal().wait_for_requests(CHAT, 3);
    let third = gateway.client().header("X-Request-Id", "third").post_json(CHAT, &saying("poison"));
    assert_eq!(code(&third), refused(), "the request is refused without a wait for the only slot");
    gateway.control().release_all_requests();
    assert_eq!(innocent.read_response().unwrap().status(), 200);
    assert_eq!(say(&gateway, "poisonous too, but not yet known").status(), 502, "another body is another request");
    wait_restarted(&gateway, 3);
    assert_eq!(gateway.journal().requests(CHAT).len(), 4);
    assert_eq!(access_log_line(&gateway, "third")["code"], "request_kills_backend");
}

/// Regression: a request that is safe to retry was sent to one replica after the other before their deaths were
/// recorded.
#[test]
fn a_killer_that_is_safe_to_retry_kills_two_replicas_and_no_third() {
    let config = "models: {e: {file: e.gguf, kind: embedding, replicas: 3, preload: true}}\n";
    let gateway = Gateway::builder().fakes(config, &[("e.gguf", json!({"die_on": "poison"}))]).start_ready();
    let journal = gateway.model_file("e.gguf").journal();
    eventually("all replicas serve", READY, || journal.events("ready").len() == 3);
    let embed = |text: &str| gateway.client().post_json("/v1/embeddings", &json!({"model": "e", "input": text}));
    let first = embed("poison");
    assert_eq!((code(&first), first.header("x-llamagate-attempts")), (backend_died(), Some("2")));
    assert_eq!(embed("harmless").status(), 200, "the third replica lives");
    assert_eq!(journal.requests("/v1/embeddings").len(), 3);
    eventually("all replicas serve again", READY, || journal.events("ready").len() == 5);
    assert_eq!(code(&embed("poison")), refused());
}

/// Regression: six requests of one key, each with other bytes, spent the restart budget and ended the service with 69.
#[test]
fn a_key_whose_requests_kill_llama_server_is_suspended_and_the_service_goes_on() {
    for limit in ["1", "5"] {
        let gateway = ready(json!({"die_on": "poison"}), &[("RESTART_LIMIT", limit)]);
        let deaths = if limit == "1" { 2 } else { 3 };
        for times in 1..=deaths {
            assert_eq!(code(&say(&gateway, &format!("poison {times}"))), backend_died());
            wait_restarted(&gateway, times);
        }
        let suspended = |text: &str| (429, "key_suspended".to_owned()) == code(&say(&gateway, text));
        let refused = say(&gateway, "poison again");
        assert_eq!(code(&refused), (429, "key_suspended".to_owned()), "RESTART_LIMIT={limit}");
        assert!((590..=600).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
        assert!(suspended("harmless"), "every request of the key is refused");
        let admin = gateway.client_with(ADMIN);
        assert_eq!(admin.post_json(CHAT, &saying("harmless")).status(), 200, "other keys are served");
        assert_eq!(gateway.client().get("/v1/models").status(), 200, "what needs no worker is answered");

        assert_eq!(admin.get("/lb/stats").json()["suspended_keys"][0]["id"], "user");
        let metrics = || gateway.health().get("/metrics?format=prometheus").text();
        assert!(metrics().contains("llamagate_key_suspended{key=\"user\"} 1"));
        assert_eq!(gateway.client().send("POST", "/keys/user/resume", b"").status(), 403, "this is for admins");
        assert_eq!(admin.send("POST", "/keys/user/resume", b"").json(), json!({"id": "user", "status": "resumed"}));
        assert!(!metrics().contains("llamagate_key_suspended{"));
        assert_eq!(code(&admin.send("POST", "/keys/user/resume", b"")), (404, "key_not_suspended".to_owned()));
        assert_eq!(say(&gateway, "harmless").status(), 200);

        // The deaths so far are not charged, so the same key may be suspended again.
        for times in deaths + 1..=2 * deaths {
            assert_eq!(code(&say(&gateway, &format!("poison {times}"))), backend_died());
            wait_restarted(&gateway, times);
        }
        assert!(suspended("harmless"), "RESTART_LIMIT={limit}");
    }
}

#[test]
fn requests_of_a_key_that_is_suspended_while_they_wait_are_refused() {
    let gateway = ready(json!({"die_on": "poison"}), &[("MAX_CONCURRENT_REQUESTS", "1")]);
    let mut waiting: Vec<RawClient> = (0..8).map(|n| begin(&gateway, &format!("poison {n}"))).collect();
    let mut codes: Vec<String> = waiting.iter_mut().map(|client| code(&client.read_response().unwrap()).1).collect();
    codes.sort();
    assert_eq!(codes, [vec!["backend_error".to_owned(); 3], vec!["key_suspended".to_owned(); 5]].concat());
    assert_eq!(gateway.client_with(ADMIN).post_json(CHAT, &saying("harmless")).status(), 200);
    assert_eq!(gateway.journal().starts().len(), 4);
}

#[test]
fn a_client_that_leaves_before_its_request_kills_llama_server_is_suspended_all_the_same() {
    let gateway = ready(json!({"hold_requests": [CHAT]}), &[]);
    for times in 1..=3 {
        let client = begin(&gateway, &format!("poison {times}"));
        gateway.journal().wait_for_requests(CHAT, times);
        drop(client);
        eventually("the request has left the gateway", SOON, || {
            gateway.health().get("/health").json()["queue"]["active"] == 0
        });
        gateway.control().die_with_code(1);
        wait_restarted(&gateway, times as u64);
    }
    assert_eq!(code(&say(&gateway, "harmless")), (429, "key_suspended".to_owned()));
}

#[test]
fn deaths_with_requests_of_several_keys_in_flight_suspend_none_of_them() {
    let script = json!({"die_on": "poison", "hold_requests": [CHAT]});
    let gateway = ready(script, &[("MAX_CONCURRENT_REQUESTS", "2")]);
    for times in 1..=3 {
        let mut neighbour = gateway
            .client_with(ADMIN)
            .begin("POST", CHAT, saying(&format!("hello {times}")).to_string().as_bytes())
            .unwrap();
        gateway.journal().wait_for_requests(CHAT, 2 * times - 1);
        assert_eq!(code(&say(&gateway, &format!("poison {times}"))), backend_died());
        assert_eq!(code(&neighbour.read_response().unwrap()), backend_died());
        wait_restarted(&gateway, times as u64);
    }
    gateway.control().release_all_requests();
    assert_eq!(say(&gateway, "harmless").status(), 200);
}

#[test]
fn a_stream_that_kills_llama_server_ends_with_an_error_and_is_then_refused_in_its_dialect() {
    let gateway = ready(json!({"die_on": "poison"}), &[]);
    for times in 1..=2 {
        let mut stream = gateway.client().stream(MESSAGES, &streaming("poison"));
        assert_eq!(stream.head.status, 200);
        assert_eq!(stream.events().last().unwrap().name.as_deref(), Some("error"));
        wait_restarted(&gateway, times);
    }
    let third = gateway.client().post_json(MESSAGES, &streaming("poison"));
    assert_eq!((third.status(), &third.json()["type"]), (502, &json!("error")));
    let error = &third.json()["error"];
    assert_eq!(error["type"], "api_error");
    assert!(error["message"].as_str().unwrap().contains("died each time"), "{error}");
    assert_eq!(gateway.client().post_json(CHAT, &streaming("fine")).status(), 200);
    assert_eq!(worker(&gateway)["restarts"], 2);
}

#[test]
fn a_refused_killer_does_not_count_against_the_rate_limit() {
    let gateway = ready(json!({"die_on": "poison"}), &[]);
    for times in 1..=2 {
        assert_eq!(code(&gateway.client_with(ADMIN).post_json(CHAT, &saying("poison"))), backend_died());
        wait_restarted(&gateway, times);
    }
    let remaining = |text: &str, status: u16| {
        let answer = gateway.client_with(LIMITED).post_json(CHAT, &saying(text));
        assert_eq!(answer.status(), status);
        answer.header("x-ratelimit-remaining-requests").unwrap().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(remaining("poison", 502), "2");
    }
    assert_eq!(remaining("fine", 200), "1");
}

#[test]
fn a_neighbour_that_was_served_between_two_deaths_is_not_taken_for_the_killer() {
    let script = json!({"die_on": "poison", "hold_requests": [CHAT]});
    let gateway = ready(script, &[("MAX_CONCURRENT_REQUESTS", "2")]);
    let innocent = |life: usize| {
        let held = gateway.journal().requests(CHAT).len() + 1;
        let client = begin(&gateway, "innocent");
        gateway.journal().wait_for_requests(CHAT, held);
        assert_eq!(gateway.journal().starts().len(), life);
        client
    };
    let served = |mut client: RawClient| {
        gateway.control().release_requests(1);
        assert_eq!(client.read_response().unwrap().status(), 200);
    };
    for times in 1..=2 {
        let mut neighbour = innocent(times);
        assert_eq!(code(&say(&gateway, "poison")), backend_died());
        assert_eq!(code(&neighbour.read_response().unwrap()), backend_died());
        wait_restarted(&gateway, times as u64);
        served(innocent(times + 1));
    }
    assert_eq!(code(&say(&gateway, "poison")), refused());
    served(innocent(3));
}

/// Starts a gateway whose llama-server holds the requests "one" and "other".
fn with_two_in_flight(settings: &[(&str, &str)]) -> (Gateway, [RawClient; 2]) {
    let gateway = Gateway::builder()
        .script(json!({"hold_requests": [CHAT]}))
        .set("MAX_CONCURRENT_REQUESTS", "2")
        .set_all(settings)
        .start_ready();
    // One that was told to end has some seconds to do it.
    let patient = gateway.client().patience(PROBES_FAIL);
    let begin = |text| patient.begin("POST", CHAT, saying(text).to_string().as_bytes()).unwrap();
    let clients = ["one", "other"].map(begin);
    gateway.journal().wait_for_requests(CHAT, 2);
    (gateway, clients)
}

/// Starts a gateway whose llama-server has died once, with the requests "one" and "other" in flight: both are suspects.
fn with_two_suspects(settings: &[(&str, &str)]) -> Gateway {
    let (gateway, mut clients) = with_two_in_flight(settings);
    gateway.control().die_with_code(1);
    for client in &mut clients {
        assert_eq!(code(&client.read_response().unwrap()), backend_died());
    }
    wait_restarted(&gateway, 1);
    gateway
}

/// Returns how many processes of this machine the kernel has killed because memory ran out. `None` if it does not tell.
fn oom_kills() -> Option<String> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find(|line| line.starts_with("oom_kill ")).map(str::to_owned)
}

/// Regression: whatever ended llama-server, the requests in flight were suspected of it.
#[test]
fn requests_were_suspected_when_another_program_ended_llama_server() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let oom_kills_before = oom_kills();
        let (gateway, mut clients) = with_two_in_flight(&[]);
        // After SIGTERM it closes its port and waits for both clients, and is killed.
        signal_worker(&gateway, signal);
        for client in &mut clients {
            assert_eq!(code(&client.read_response().unwrap()), backend_died());
        }
        wait_restarted(&gateway, 1);
        let hint = worker(&gateway)["last_exit"]["hint"].as_str().unwrap().to_owned();
        if signal == Signal::SIGKILL && (hint.contains("out of host memory") || oom_kills() != oom_kills_before) {
            eprintln!("skipped: meanwhile the kernel has killed a process because memory ran out");
            continue;
        }
        // Where the kernel has no counter, memory may have run out.
        let are_suspected = hint.contains("maybe because the machine ran out of memory");
        assert!(are_suspected || hint.contains("another program"), "{signal}: {hint}");
        let mut one = begin(&gateway, "one");
        gateway.journal().wait_for_requests(CHAT, 3);
        let mut other = begin(&gateway, "other");
        wait_active(&gateway, 2);
        if are_suspected {
            assert_eq!(gateway.journal().requests(CHAT).len(), 3, "of two suspects, one waits for the other");
        } else {
            gateway.journal().wait_for_requests(CHAT, 4);
        }
        gateway.control().release_all_requests();
        for client in [&mut one, &mut other] {
            assert_eq!(client.read_response().unwrap().status(), 200);
        }
    }
}

/// Regression: exit code 0 alone was taken for the end of a llama-server that was told to end.
#[test]
fn a_request_whose_crash_a_script_reports_as_exit_code_0_is_refused_all_the_same() {
    let gateway = ready(json!({"hold_requests": [CHAT]}), &[]);
    for times in 1..=2 {
        let mut client = begin(&gateway, "poison");
        gateway.journal().wait_for_requests(CHAT, times);
        gateway.control().die_with_code(0);
        assert_eq!(code(&client.read_response().unwrap()), backend_died());
        wait_restarted(&gateway, times as u64);
    }
    assert_eq!(worker(&gateway)["last_exit"]["code"], 0);
    assert_eq!(code(&say(&gateway, "poison")), refused());
}

/// Regression: the second one made a request refused, and the third one suspended its key.
#[test]
fn a_request_was_refused_and_its_key_suspended_because_another_program_had_ended_llama_server() {
    let gateway = ready(json!({"hold_mid_stream": {"after_frames": 1}}), &[]);
    for times in 1..=3 {
        let mut stream = gateway.client().stream(CHAT, &streaming("hello"));
        assert!(stream.next_event().is_some(), "it is served after {} ends", times - 1);
        // It cuts streams and ends with exit code 0.
        signal_worker(&gateway, Signal::SIGTERM);
        assert_eq!(stream.events().last().unwrap().json()["error"]["code"], "backend_error");
        wait_restarted(&gateway, times);
    }
    assert_eq!(worker(&gateway)["last_exit"]["code"], 0);
    assert_eq!(say(&gateway, "hello").status(), 200);
}

/// Waits until `count` requests have a slot.
#[track_caller]
fn wait_active(gateway: &Gateway, count: u64) {
    eventually(&format!("{count} requests have a slot"), SOON, || {
        gateway.health().get("/health").json()["queue"]["active"] == count
    });
}

#[test]
fn of_two_requests_that_are_retried_after_each_crash_only_the_killer_is_refused() {
    let script = json!({"die_on": "poison", "hold_requests": [CHAT]});
    let gateway = ready(script, &[("MAX_CONCURRENT_REQUESTS", "2")]);
    let mut innocent = begin(&gateway, "innocent");
    gateway.journal().wait_for_requests(CHAT, 1);
    assert_eq!(code(&say(&gateway, "poison")), backend_died());
    assert_eq!(code(&innocent.read_response().unwrap()), backend_died());
    wait_restarted(&gateway, 1);
    // Both are sent again, as client libraries do.
    let mut innocent = begin(&gateway, "innocent");
    gateway.journal().wait_for_requests(CHAT, 3);
    let mut guilty = begin(&gateway, "poison");
    wait_active(&gateway, 2);
    assert_eq!(gateway.journal().requests(CHAT).len(), 3, "the second suspect has a slot, but is not sent");
    gateway.control().release_requests(1);
    assert_eq!(innocent.read_response().unwrap().status(), 200);
    assert_eq!(code(&guilty.read_response().unwrap()), backend_died());
    wait_restarted(&gateway, 2);
    assert_eq!(code(&say(&gateway, "poison")), refused());
    gateway.control().release_all_requests();
    assert_eq!(say(&gateway, "innocent").status(), 200);
}

#[test]
fn a_suspect_that_waits_for_the_killer_is_served_by_the_next_llama_server() {
    let gateway = with_two_suspects(&[]);
    let mut guilty = begin(&gateway, "one");
    gateway.journal().wait_for_requests(CHAT, 3);
    let mut innocent = begin(&gateway, "other");
    wait_active(&gateway, 2);
    gateway.control().die_with_code(1);
    assert_eq!(code(&guilty.read_response().unwrap()), backend_died());
    gateway.journal().wait_for_requests(CHAT, 4);
    gateway.control().release_all_requests();
    assert_eq!(innocent.read_response().unwrap().status(), 200);
    assert_eq!(code(&say(&gateway, "one")), refused());
}

#[test]
fn a_suspect_waits_for_another_for_at_most_queue_timeout_and_delays_no_other_request() {
    let gateway = with_two_suspects(&[("QUEUE_TIMEOUT", "500ms"), ("MAX_CONCURRENT_REQUESTS", "3")]);
    let mut one = begin(&gateway, "one");
    gateway.journal().wait_for_requests(CHAT, 3);
    let mut late = begin(&gateway, "other");
    wait_active(&gateway, 2);
    let mut third = begin(&gateway, "third");
    gateway.journal().wait_for_requests(CHAT, 4);
    assert_eq!(code(&late.read_response().unwrap()), (503, "queue_timeout".to_owned()));
    let abandoned = begin(&gateway, "other");
    wait_active(&gateway, 3);
    drop(abandoned);
    wait_active(&gateway, 2);
    gateway.control().release_all_requests();
    for client in [&mut one, &mut third] {
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
    assert_eq!(say(&gateway, "other").status(), 200);
}

#[test]
fn a_suspect_that_waits_gets_heartbeats() {
    let gateway = with_two_suspects(&[("SSE_HEARTBEAT", "100ms")]);
    let mut one = begin(&gateway, "one");
    gateway.journal().wait_for_requests(CHAT, 3);
    let body = streaming("other").to_string();
    let mut bystander = gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 4);
    gateway.control().die_with_code(1);
    assert_eq!(code(&one.read_response().unwrap()), backend_died());
    bystander.read_response().unwrap();
    wait_restarted(&gateway, 2);
    let mut innocent = begin(&gateway, "other");
    gateway.journal().wait_for_requests(CHAT, 5);
    let mut stream = gateway.client().stream(CHAT, &streaming("other"));
    assert_eq!(gateway.journal().requests(CHAT).len(), 5, "the stream has begun though its request has not been sent");
    gateway.control().release_all_requests();
    assert!(stream.events().last().unwrap().is_done());
    assert_eq!(innocent.read_response().unwrap().status(), 200);
}

#[test]
fn a_suspect_that_waits_is_refused_when_the_service_stops() {
    let mut gateway = with_two_suspects(&[]);
    let mut one = begin(&gateway, "one");
    gateway.journal().wait_for_requests(CHAT, 3);
    let mut other = begin(&gateway, "other");
    wait_active(&gateway, 2);
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(code(&other.read_response().unwrap()), (503, "shutting_down".to_owned()));
    gateway.control().release_all_requests();
    assert_eq!(one.read_response().unwrap().status(), 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_request_that_hangs_llama_server_is_recorded_though_its_client_left_before() {
    let gateway = Gateway::builder()
        .script(json!({"hold_requests": [CHAT], "silent_paths": ["/metrics"]}))
        .set_all(&[("HANG_TIMEOUT", "3s"), ("REQUEST_TIMEOUT", "500ms")])
        .start_ready();
    for times in 1..=2 {
        let answer = say(&gateway, "hangs it");
        assert_eq!(code(&answer), (504, "backend_timeout".to_owned()));
        wait_restarted(&gateway, times);
    }
    assert_eq!(code(&say(&gateway, "hangs it")), refused());
}

#[test]
fn of_many_killers_in_the_queue_two_are_tried() {
    let deadly = json!({"die_on": "poison"});
    let holding = json!({"die_on": "poison", "hold_requests": [CHAT]});
    let gateway = ready(json!({"starts": [holding, deadly]}), &[("MAX_CONCURRENT_REQUESTS", "1")]);
    let mut first = begin(&gateway, "fine");
    gateway.journal().wait_for_requests(CHAT, 1);
    let mut killers: Vec<RawClient> = std::iter::repeat_with(|| begin(&gateway, "poison")).take(6).collect();
    let are_waiting = |count: u64| gateway.health().get("/health").json()["queue"]["waiting"] == count;
    eventually("all killers wait", SOON, || are_waiting(6));
    gateway.control().release_all_requests();
    assert_eq!(first.read_response().unwrap().status(), 200);
    let answers: Vec<_> = killers.iter_mut().map(|client| code(&client.read_response().unwrap())).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == backend_died()).count(), 2, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == refused()).count(), 4, "{answers:?}");
    assert_eq!(say(&gateway, "fine").status(), 200, "the slots of the killers are free");
    wait_restarted(&gateway, 2);
}

#[test]
fn a_llama_server_that_can_no_longer_compute_is_restarted_with_a_hint() {
    for (path, message) in [(CHAT, "Compute error."), (MESSAGES, "Invalid input batch.")] {
        let gateway = ready(json!({"starts": [{"fail_on": [{"text": "x", "message": message}]}, {}]}), &[]);
        for _ in 0..ENOUGH {
            let answer = gateway.client().post_json(path, &saying("x"));
            assert_eq!(
                (answer.status(), &answer.json()["error"]["message"]),
                (500, &json!(message)),
                "the response is forwarded unchanged"
            );
        }
        // The next request waits for the restart.
        assert_eq!(gateway.client().post_json(path, &saying("x")).status(), 200);
        wait_restarted(&gateway, 1);
        assert_eq!(requests_of_first_process(&gateway, path), ENOUGH);
        let hint = worker(&gateway)["last_exit"]["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains("failed to compute"), "{hint}");
    }
}

#[test]
fn streams_that_end_with_a_compute_error_count_too() {
    for path in [CHAT, MESSAGES] {
        let gateway = ready(json!({"starts": [{"fail_on": [{"text": "x", "message": "Compute error."}]}, {}]}), &[]);
        for _ in 0..ENOUGH {
            let mut stream = gateway.client().stream(path, &streaming("x"));
            let event = stream.events().pop().unwrap();
            assert!(stream.head.status == 200 && event.data.contains("Compute error."), "{event:?}");
        }
        assert!(gateway.client().stream(path, &streaming("x")).events().len() > 1);
        wait_restarted(&gateway, 1);
        assert_eq!(requests_of_first_process(&gateway, path), ENOUGH);
    }
}

#[test]
fn a_request_in_flight_at_a_restart_for_compute_errors_is_not_taken_for_a_killer() {
    let broken = json!({"fail_on": [{"text": "fail", "message": "Compute error."}], "hold_requests": ["/completion"]});
    let gateway = ready(json!({"starts": [broken, broken, {}]}), &[("MAX_CONCURRENT_REQUESTS", "2")]);
    let prompt = json!({"prompt": "fine"});
    for times in 1..=2 {
        let mut bystander = gateway.client().begin("POST", "/completion", prompt.to_string().as_bytes()).unwrap();
        gateway.journal().wait_for_requests("/completion", times);
        for _ in 0..ENOUGH {
            assert_eq!(say(&gateway, "fail").status(), 500);
        }
        assert_eq!(code(&bystander.read_response().unwrap()), backend_died());
        wait_restarted(&gateway, times as u64);
    }
    assert_eq!(gateway.client().post_json("/completion", &prompt).status(), 200);
}

#[test]
fn only_an_answer_that_took_computing_resets_the_count_of_compute_errors() {
    let gateway = ready(json!({"starts": [{"fail_on": [{"text": "fail", "message": "Compute error."}]}, {}]}), &[]);
    let fails = |times| (0..times).for_each(|_| assert_eq!(say(&gateway, "fail").status(), 500));
    fails(ENOUGH - 1);
    assert_eq!(say(&gateway, "fine").status(), 200);
    fails(ENOUGH - 1);
    assert_eq!(gateway.client().get("/props").status(), 200);
    assert_eq!(gateway.client().post_json("/tokenize", &json!({"content": "x"})).status(), 200);
    fails(1);
    wait_restarted(&gateway, 1);
    assert_eq!(requests_of_first_process(&gateway, CHAT), 2 * ENOUGH);
}

#[test]
fn mistakes_of_the_client_cause_no_restart() {
    let too_large = json!({"text": "large", "message": TOO_LARGE});
    let full = json!({"text": "full", "message": "Context size has been exceeded."});
    let fails = json!({"text": "fail", "message": "Compute error."});
    let gateway = ready(json!({"starts": [{"fail_on": [too_large, full, fails]}, {}]}), &[]);
    for text in ["large", "full"].repeat(2 * ENOUGH) {
        let answer = say(&gateway, text);
        assert_eq!((answer.status(), &answer.json()["error"]["code"]), (400, &json!("bad_request")));
    }
    assert_eq!(worker(&gateway)["restarts"], 0);
    // Only these failures count, so the first restart is due to them.
    for _ in 0..ENOUGH {
        assert_eq!(say(&gateway, "fail").status(), 500);
    }
    wait_restarted(&gateway, 1);
    assert_eq!(requests_of_first_process(&gateway, CHAT), 5 * ENOUGH);
}

#[test]
fn the_real_llama_server_is_not_restarted_for_inputs_that_are_too_large() {
    let backend = Backend::Real { model: "tiny-embedding.gguf" };
    let gateway = Gateway::builder().backend(backend).set("EXTRA_ARGS", "--batch-size 64 --ubatch-size 64").start();
    gateway.wait_ready();
    let children = gateway.child_pids();
    let embed = |words: usize| gateway.client().post_json("/v1/embeddings", &json!({"input": "word ".repeat(words)}));
    for _ in 0..2 * ENOUGH {
        let answer = embed(100);
        assert_eq!(answer.status(), 400, "{}", answer.text());
        assert!(answer.text().contains("is too large to process"), "{}", answer.text());
    }
    assert_eq!(embed(2).status(), 200);
    assert_eq!((gateway.child_pids(), &worker(&gateway)["restarts"]), (children, &json!(0)));
}
