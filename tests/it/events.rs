//! What people look at while the service works: the live feed, the places in the queue, the logs.

use std::time::Instant;

use serde_json::{Value, json};

use super::downloads::{self, SMOL, Setup};
use super::support::client::{Client, Event, RawClient, Response, Stream};
use super::support::gateway::{ADMIN, Backend, Builder, Gateway, USER};
use super::support::wait::{REAL_MODEL_ANSWERS, SOON, STARTS, eventually, eventually_some, patient};

const CHAT: &str = "/v1/chat/completions";
pub(super) const EVENTS: &str = "/events";

/// The most listeners, as docs/EVENTS.md says.
const MOST_LISTENERS: usize = 32;

pub(super) fn admin(gateway: &Gateway) -> Client {
    gateway.client_with(ADMIN)
}

/// Listens to the feed. Returns also the first event.
#[track_caller]
pub(super) fn listen(client: &Client) -> (Stream, Event) {
    let mut stream = client.stream_of(EVENTS);
    assert_eq!((stream.head.status, stream.head.header("content-type")), (200, Some("text/event-stream")));
    let first = stream.next_event().expect("there is a first event");
    (stream, first)
}

/// Waits for an event of this name.
#[track_caller]
pub(super) fn await_event(stream: &mut Stream, name: &str, is_it: impl Fn(&Value) -> bool) -> Event {
    let (mut heard, begin) = (Vec::new(), Instant::now());
    while let Some(event) = stream.next_event() {
        assert!(begin.elapsed() < patient(REAL_MODEL_ANSWERS), "no event '{name}': {heard:?}");
        if event.name.as_deref() == Some(name) && is_it(&event.json()) {
            return event;
        }
        heard.push(event);
    }
    panic!("no event '{name}': {heard:?}");
}

pub(super) fn id_of(event: &Event) -> u64 {
    event.id.as_ref().expect("it has an id").parse().expect("its id is a number")
}

fn code(answer: &Response) -> (u16, String) {
    (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16, "stream": true})
}

fn begin_chat(gateway: &Gateway, secret: &str) -> RawClient {
    gateway.client_with(secret).begin("POST", CHAT, chat().to_string().as_bytes()).unwrap()
}

fn holding() -> Builder {
    Gateway::builder().script(json!({"hold_requests": [CHAT]}))
}

#[test]
fn the_feed_tells_of_a_load_of_tokens_and_of_acts_in_their_order() {
    let gateway = Gateway::builder().script(json!({"load": {"until_released": true}, "frames": 30})).start();
    let client = admin(&gateway);
    let control = eventually_some("llama-server loads", STARTS, || {
        (!gateway.journal().starts().is_empty()).then(|| gateway.control())
    });
    let mut control = control;
    let (mut stream, snapshot) = listen(&client);
    assert_eq!(snapshot.name.as_deref(), Some("snapshot"));
    let data = snapshot.json();
    let worker = &data["models"][0]["workers"][0];
    assert_eq!((&worker["kind"], &data["status"]), (&json!("local"), &json!("loading")), "{data}");
    assert!(data["queues"][0]["waiters"].is_array() && data["memory"]["used_bytes"].is_number(), "{data}");
    control.release_load();
    let ready = await_event(&mut stream, "model", |model| model["state"] == "ready");
    let model = ready.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    let pace = await_event(&mut stream, "throughput", |pace| pace["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(pace.json()["models"][0]["model"], model, "{pace:?}");
    let idle = await_event(&mut stream, "throughput", |pace| pace["tokens_per_second"] == 0.0);
    let unload = format!("/v1/models/{model}/unload");
    assert_eq!(client.post_json(&unload, &json!({})).status(), 202);
    // The act is recorded when its answer has been sent, so what follows from it may be told first.
    let (mut act, mut stopped) = (None, None);
    let mut last = id_of(&idle);
    while act.is_none() || stopped.is_none() {
        let event = stream.next_event().expect("the feed goes on");
        if event.name.is_none() {
            continue;
        }
        assert_eq!(id_of(&event), last + 1, "ids rise by one");
        last = id_of(&event);
        match event.name.as_deref() {
            Some("act") => act = Some(event.json()),
            Some("model") if event.json()["state"] == "stopped" => stopped = Some(event),
            _ => {}
        }
    }
    let act = act.unwrap();
    assert_eq!((&act["act"], &act["status"]), (&json!("POST /v1/models/{id}/unload"), &json!(202)), "{act}");
    assert_eq!((&act["key"], &act["target"], &act["outcome"]), (&json!("admin"), &json!(model), &json!("ok")));
}

#[test]
fn a_listener_that_comes_late_gets_what_was_done_before() {
    let gateway = Gateway::builder().script(json!({"frames": 30})).start_ready();
    let client = admin(&gateway);
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    let history = eventually_some("the answer is counted", SOON, || {
        let history = listen(&client).1.json()["throughput_history"].clone();
        let sum = |member: &str| history[member].as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>();
        (sum("tokens_per_second") > 0.0 && sum("time_to_first_byte_ms") > 0.0).then_some(history)
    });
    assert_eq!(history["step_seconds"], 10, "{history}");
    let steps = |member: &str| history[member].as_array().unwrap().len();
    assert!(steps("tokens_per_second") == steps("requests_per_second") && history["until"].is_string(), "{history}");
}

#[test]
fn those_who_listen_are_counted() {
    let gateway = Gateway::builder().start_ready();
    let listeners = |expected: usize| {
        let line = format!("\nllamagate_feed_listeners {expected}\n");
        eventually(&line, SOON, || gateway.anonymous().get("/metrics?format=prometheus").text().contains(&line));
    };
    listeners(0);
    let streams = [listen(&admin(&gateway)).0, listen(&admin(&gateway)).0];
    listeners(2);
    drop(streams);
    listeners(0);
}

#[test]
fn a_listener_that_comes_back_gets_only_what_it_missed() {
    let gateway = Gateway::builder().start_ready();
    let client = admin(&gateway);
    let (mut other, _) = listen(&client);
    let (stream, snapshot) = listen(&client);
    drop(stream);
    assert_eq!(client.post_json("/reload", &json!({})).status(), 200);
    let act = await_event(&mut other, "act", |act| act["act"] == "POST /reload");
    let after = |id: &str| listen(&client.clone().header("Last-Event-ID", id)).1;
    let missed = after(&snapshot.id.clone().unwrap());
    assert_eq!(id_of(&missed), id_of(&snapshot) + 1, "{missed:?}");
    assert!(id_of(&missed) <= id_of(&act));
    for unknown in ["1", "18446744073709551615", "x", "-1"] {
        assert_eq!(after(unknown).name.as_deref(), Some("snapshot"), "{unknown}");
    }
}

#[test]
fn the_crash_of_a_worker_is_told_with_its_cause_and_hint() {
    let gateway = Gateway::builder().set("RESTART_LIMIT", 5).start_ready();
    let client = admin(&gateway);
    let (mut stream, snapshot) = listen(&client);
    assert_eq!(snapshot.json()["failures"], json!([]));
    gateway.control().die_with_code(7);
    let failure = await_event(&mut stream, "failure", |_| true).json();
    assert_eq!((&failure["what"], &failure["code"]), (&json!("worker"), &json!(7)), "{failure}");
    assert!(failure["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{failure}");
    let again = await_event(&mut stream, "model", |model| model["state"] == "ready").json();
    assert_eq!(again["workers"][0]["restarts"], 1, "{again}");
    let failures = listen(&client).1.json()["failures"].clone();
    assert_eq!((failures.as_array().unwrap().len(), &failures[0]["hint"]), (1, &failure["hint"]));
}

#[test]
fn a_key_sees_its_own_places_in_the_queue_and_an_administrator_all() {
    let gateway = holding().set("PARALLEL", 1).start_ready();
    let client = admin(&gateway);
    let (mut stream, _) = listen(&client);
    let running = begin_chat(&gateway, USER);
    gateway.journal().wait_for_requests(CHAT, 1);
    let waiting: Vec<RawClient> = [USER, USER, ADMIN].map(|secret| begin_chat(&gateway, secret)).into();
    let full = await_event(&mut stream, "queue", |queue| queue["waiting"] == 3).json();
    assert_eq!((&full["active"], &full["slots"]), (&json!(1), &json!(1)), "{full}");
    let keys: Vec<&str> = full["waiters"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!(keys.iter().filter(|key| **key == "user").count(), 2, "{full}");
    let of = |secret: &str| gateway.client_with(secret).get("/v1/queue").json();
    let (all, own) = (of(ADMIN), of(USER));
    assert_eq!(all["data"].as_array().unwrap().len(), 3, "{all}");
    let own = own["data"].as_array().unwrap();
    assert!(own.len() == 2 && own.iter().all(|place| place["key"] == "user" && place["waiting"] == 3), "{own:?}");
    let positions: Vec<u64> =
        all["data"].as_array().unwrap().iter().map(|one| one["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, [1, 2, 3]);
    assert!(own[0]["since"].is_string() && own[0]["waiting_seconds"].is_number() && own[0]["person"].is_null());
    assert_eq!(code(&gateway.anonymous().get("/v1/queue")), (401, "missing_api_key".to_owned()));
    gateway.control().release_all_requests();
    await_event(&mut stream, "queue", |queue| queue["waiting"] == 0);
    drop((running, waiting));
}

#[test]
fn only_administrators_listen_and_only_as_many_as_there_is_room_for() {
    let gateway = Gateway::builder().start_ready();
    for path in [EVENTS, "/logs", "/logs/access"] {
        assert_eq!(code(&gateway.client().get(path)), (403, "scope_required".to_owned()), "{path}");
        assert_eq!(code(&gateway.anonymous().get(path)).0, 401, "{path}");
    }
    let client = admin(&gateway);
    for (path, parameter) in [("/events?model=m", "model"), ("/v1/queue?all=1", "all"), ("/logs/access?tail=1", "tail")]
    {
        let refused = client.get(path);
        assert_eq!(refused.status(), 400);
        assert!(refused.text().contains(&format!("'{parameter}'")), "{}", refused.text());
    }
    let mut streams: Vec<Stream> = (0..MOST_LISTENERS).map(|_| listen(&client).0).collect();
    let refused = client.get(EVENTS);
    assert_eq!(code(&refused), (503, "too_many_listeners".to_owned()));
    assert!(refused.header("retry-after").is_some());
    streams.pop();
    eventually("a place is free", SOON, || client.stream_of(EVENTS).head.status == 200);
}

#[test]
fn without_keys_a_web_page_of_another_name_cannot_listen() {
    let gateway = Gateway::builder().without_keys().start_ready();
    for path in [EVENTS, "/logs", "/logs/access"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        let mut client = RawClient::connect(gateway.url());
        client.write(request.as_bytes()).unwrap();
        assert_eq!(code(&client.read_response().unwrap()), (403, "origin_not_allowed".to_owned()), "{path}");
    }
    assert_eq!(listen(&gateway.anonymous()).1.name.as_deref(), Some("snapshot"));
}

#[test]
fn listeners_hear_the_end_of_the_service() {
    let mut gateway = Gateway::builder().start_ready();
    let client = admin(&gateway);
    let (mut stream, _) = listen(&client);
    let mut log = client.stream_of("/logs/access?follow=true");
    assert!(gateway.stop().success());
    for stream in [&mut stream, &mut log] {
        let last = stream.events().pop().unwrap();
        assert_eq!((last.name.as_deref(), last.json()), (Some("end"), json!({"reason": "shutting_down"})));
        assert!(stream.is_complete());
    }
}

#[test]
fn a_download_is_told_from_its_order_to_its_end() {
    let setup = Setup::with_smol();
    setup.slow();
    let gateway = setup.gateway().start();
    let client = admin(&gateway).patience(REAL_MODEL_ANSWERS);
    let (mut stream, _) = listen(&client);
    let ordered = downloads::order(&client, SMOL);
    let is_it = |state: &'static str| {
        let id = ordered["id"].clone();
        move |download: &Value| download["id"] == id && download["state"] == state
    };
    let first = await_event(&mut stream, "download", is_it("downloading")).json();
    let more = await_event(&mut stream, "download", |download| {
        download["bytes"].as_u64() > first["bytes"].as_u64() && download["total"].as_u64() > Some(0)
    });
    assert!(more.json()["bytes_per_second"].is_number(), "{more:?}");
    let done = await_event(&mut stream, "download", is_it("done")).json();
    assert_eq!(done["bytes"], done["total"]);
    // It is served before the download counts as done.
    let models = listen(&client).1.json()["models"].clone();
    assert!(models.as_array().unwrap().iter().any(|model| model["id"] == "Smol-Q4_1"), "{models}");
}

#[test]
fn the_log_of_a_worker_is_read_and_followed_over_rotation() {
    let gateway = Gateway::builder().set("LOG_MAX_SIZE", "1MiB").start_ready();
    let client = admin(&gateway);
    let logs = client.get("/logs").json();
    let logs = logs["data"].as_array().unwrap();
    let worker = logs.iter().find(|log| log["kind"] == "worker").unwrap_or_else(|| panic!("{logs:?}"));
    assert_eq!(logs[0]["name"], "access");
    assert!(worker["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && worker["modified_at"].is_string(), "{worker}");
    let path = format!("/logs/{}", worker["name"].as_str().unwrap());
    let mut control = gateway.control();
    control.log("the line before");
    let tail = eventually_some("the line is in the log", SOON, || {
        let tail = client.get(&format!("{path}?lines=1"));
        tail.text().contains("the line before").then_some(tail)
    });
    assert_eq!(tail.text().lines().count(), 1, "{}", tail.text());
    assert_eq!(tail.header("content-type"), Some("text/plain; charset=utf-8"));
    let mut stream = client.stream_of(&format!("{path}?follow=true&lines=1"));
    let begin = stream.next_event().unwrap();
    assert!(begin.name.as_deref() == Some("lines") && begin.data.contains("the line before"), "{begin:?}");
    let first_file = client.get("/logs").json()["data"].clone();
    let long = "x".repeat(1000);
    let lines: Vec<String> = (0..1500).map(|number| format!("{long} number {number}.")).collect();
    // A few at a time: of more than 1 MiB between two looks, the first part would be left out.
    for lines in lines.chunks(300) {
        lines.iter().for_each(|line| control.log(line));
        let mut wanted = lines.iter().peekable();
        while wanted.peek().is_some() {
            let event = stream.next_event().expect("the log goes on");
            if event.name.is_none() {
                continue;
            }
            assert_eq!(event.name.as_deref(), Some("lines"));
            let json = event.json();
            let come = json["lines"].as_array().unwrap().iter().filter_map(Value::as_str);
            come.for_each(|line| _ = wanted.next_if(|wanted| line.contains(wanted.as_str())));
        }
    }
    let size =
        |logs: &Value| logs.as_array().unwrap().iter().find(|log| log["kind"] == "worker").unwrap()["bytes"].as_u64();
    let now = client.get("/logs").json()["data"].clone();
    assert!(size(&now).unwrap() < 1 << 20, "it was rotated: {first_file} {now}");
    let accept = client.clone().header("Accept", "text/event-stream");
    assert_eq!(accept.stream_of(&path).head.header("content-type"), Some("text/event-stream"));
}

#[test]
fn the_access_log_is_read_by_its_name_and_no_file_is_reached_by_a_path() {
    let gateway = Gateway::builder().start_ready();
    let client = admin(&gateway);
    let marked = client.clone().header("X-Request-Id", "marked-request");
    assert_eq!(marked.get("/v1/models").status(), 200);
    eventually("the line is in the log", SOON, || client.get("/logs/access").text().contains("req=marked-request"));
    assert!(client.get("/logs/access?lines=2").text().lines().count() <= 2);
    assert_eq!(client.get("/logs/access?lines=0").text(), "");
    for name in ["other", "workers/other", "..%2f..%2fapi_keys.txt", "access/latest.txt", "%2Fetc%2Fpasswd", "_boot"] {
        assert_eq!(code(&client.get(&format!("/logs/{name}"))), (404, "log_not_found".to_owned()), "{name}");
    }
}

#[test]
fn the_real_llama_server_is_seen_loading_and_generating() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).start_ready();
    let client = admin(&gateway);
    let (mut stream, snapshot) = listen(&client);
    let snapshot = snapshot.json();
    let model = snapshot["models"][0]["id"].as_str().unwrap().to_owned();
    assert!(snapshot["models"][0]["size_bytes"].as_u64().is_some_and(|size| size > 0), "{snapshot}");
    let order = |what: &str| client.post_json(&format!("/v1/models/{model}/{what}"), &json!({})).status();
    assert_eq!(order("unload"), 202);
    await_event(&mut stream, "model", |model| model["state"] == "stopped");
    assert_eq!(order("load"), 202);
    await_event(&mut stream, "model", |model| model["state"] == "ready");
    assert_eq!(gateway.client().post_json(CHAT, &chat()).status(), 200);
    await_event(&mut stream, "throughput", |pace| pace["tokens_per_second"].as_f64().unwrap() > 0.0);
    let log = client.get(&format!("/logs/workers/{model}?lines=10000")).text();
    assert!(log.contains("model loaded") || log.contains("listening"), "{log}");
}

/// Runs a command that asks a gateway. Returns whether it succeeded, and what it printed.
fn command(gateway: &Gateway, secret: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.args(arguments).env_clear().env("LLAMAGATE_URL", gateway.url()).env("LLAMAGATE_KEY", secret);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.success(), text)
}

#[test]
fn commands_show_the_models_and_the_logs_of_a_service() {
    let gateway = Gateway::builder().start_ready();
    let (is_done, table) = command(&gateway, ADMIN, &["ps"]);
    assert!(is_done && table.contains("MODEL") && table.contains("ready") && table.contains("0/"), "{table}");
    let (is_done, json) = command(&gateway, ADMIN, &["ps", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(is_done && json["models"][0]["state"] == "ready", "{json}");
    let model = json["models"][0]["id"].as_str().unwrap();
    gateway.control().log("a line of the log");
    eventually("the line is shown", STARTS, || {
        command(&gateway, ADMIN, &["logs", model, "-n", "1"])
            == (true, command(&gateway, ADMIN, &["logs", "-n", "1"]).1)
            && command(&gateway, ADMIN, &["logs"]).1.contains("a line of the log")
    });
    let (is_done, access) = command(&gateway, ADMIN, &["logs", "--access", "--json"]);
    assert!(is_done && access.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["line"].is_string()));
    let (is_done, refused) = command(&gateway, ADMIN, &["logs", "another"]);
    assert!(!is_done && refused.contains("there is no log of 'another'") && refused.contains(model), "{refused}");
    let (is_done, refused) = command(&gateway, ADMIN, &["top"]);
    assert!(!is_done && refused.contains("terminal"), "{refused}");
    let (is_done, refused) = command(&gateway, USER, &["ps"]);
    assert!(!is_done && refused.contains("scope") && refused.contains("request id: "), "{refused}");
}
