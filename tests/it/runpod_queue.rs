//! Jobs from RunPod's queue: taken while they can be served, done as requests of our own, and answered as the platform
//! expects it. `tests/clients/runpod_worker.py` shows that the platform of these tests is one to RunPod's own SDK too.

use super::accounts::line;
use super::support::{
    gateway::{Backend, Builder, Gateway, runpod_python},
    process::Process,
    runpod::{Call, KEY, Platform, Route, Said},
    wait::{self, SOON, eventually, keeps},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{path::Path, process::Command};

const CHAT: &str = "/v1/chat/completions";
const TAKES: &[Route] = &[Route::Take, Route::TakeBatch];

/// A gateway that is to take jobs from this platform.
fn worker_of(platform: &Platform) -> Builder {
    let builder = Gateway::builder().set("DRAIN_TIMEOUT", "1s");
    platform.variables().into_iter().fold(builder, |builder, (name, value)| builder.set(name, value))
}

fn ready(platform: &Platform, script: Value) -> Gateway {
    worker_of(platform).script(script).start_ready()
}

fn job(id: &str, input: &Value) -> Value {
    json!({"id": id, "input": input, "webhook": null, "s3Config": {}})
}

fn chat(stream: bool) -> Value {
    json!({"openai_route": CHAT, "openai_input": chat_body(stream)})
}

fn chat_body(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

/// The text of a stream as it was put together.
fn whole(result: &Value) -> String {
    result["output"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect()
}

#[test]
fn a_job_is_taken_done_and_answered() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    let done = platform.wait_done("job-1");
    let output = done.json()["output"].clone();
    assert_eq!(output.as_array().map(Vec::len), Some(1), "{output}");
    assert_eq!(output[0]["choices"][0]["message"]["role"], "assistant");

    let take = &platform.calls(&[Route::Take])[0];
    assert_eq!(take.target(), "/v2/EP/job-take/pod-1?gpu=NVIDIA+GeForce+RTX+4090&job_in_progress=0");
    assert_eq!(take.method, "GET");
    assert_eq!(take.header("authorization"), Some(KEY), "as it is, without a scheme");
    assert_eq!(take.header("content-type"), Some("application/json"));
    assert_eq!(done.target(), "/v2/EP/job-done/pod-1/job-1?gpu=NVIDIA+GeForce+RTX+4090&isStream=true");
    assert_eq!(done.method, "POST");
    assert_eq!(done.header("authorization"), Some(KEY));
    assert_eq!(done.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(done.header("charset"), Some("utf-8"));
    assert_eq!(done.header("x-request-id"), Some("job-1"));
    let stop = &platform.wait_calls(&[Route::Stop], 1)[0];
    assert_eq!(stop.target(), "/v2/EP/job-stop/pod-1?gpu=NVIDIA+GeForce+RTX+4090");
    assert!(!gateway.output().contains(KEY));
}

#[test]
fn a_single_answer_is_a_piece_too() {
    let platform = Platform::start();
    let _gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    let done = platform.wait_done("job-1").json();
    let pieces = platform.pieces("job-1");
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].json()["output"], done["output"][0]);
}

#[test]
fn a_stream_is_posted_in_whole_events_in_order_and_put_together() {
    let platform = Platform::start();
    platform.hold(Route::Stream);
    let _gateway = ready(&platform, json!({"frames": 30}));
    platform.offer([job("job-1", &chat(true))]);
    // The first event goes out at once, and what comes meanwhile is put together behind it.
    platform.wait_calls(&[Route::Stream], 1);
    platform.release(Route::Stream);
    let done = platform.wait_done("job-1");
    let pieces = platform.pieces("job-1");
    assert!(pieces.len() >= 2 && pieces.len() < 30, "{}", pieces.len());
    let texts: Vec<String> = pieces.iter().map(|piece| piece.json()["output"].as_str().unwrap().to_owned()).collect();
    assert!(texts.iter().all(|text| text.starts_with("data: ") && text.ends_with("\n\n")), "{texts:?}");
    assert!(texts.last().unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(whole(&done.json()), texts.concat());
    assert_eq!(done.parameter("isStream"), Some("true"));
    assert_eq!(pieces[0].target(), "/v2/EP/job-stream/pod-1/job-1?gpu=NVIDIA+GeForce+RTX+4090&isStream=false");
    for (name, value) in
        [("content-type", "application/x-www-form-urlencoded"), ("charset", "utf-8"), ("x-request-id", "job-1")]
    {
        assert_eq!(pieces[0].header(name), Some(value));
    }
}

#[test]
fn pieces_stay_below_a_megabyte() {
    let platform = Platform::start();
    platform.hold(Route::Stream);
    let gateway = ready(&platform, json!({"frames": 30, "frame_bytes": 60_000}));
    platform.offer([job("job-1", &chat(true))]);
    let request = gateway.journal().wait_for_requests(CHAT, 1).remove(0);
    // While the first event is being posted all the others come.
    let is_it = |record: &Value| record["event"] == "finished" && record["n"] == request["n"];
    gateway.journal().wait_for("llama-server has sent its answer", is_it);
    platform.release(Route::Stream);
    let done = platform.wait_done("job-1");
    let pieces = platform.pieces("job-1");
    let sizes: Vec<usize> = pieces.iter().map(|piece| piece.body().len()).collect();
    assert!(sizes.iter().sum::<usize>() > 1_800_000 && sizes.iter().all(|size| *size < 1_000_000), "{sizes:?}");
    let texts: Vec<String> = pieces.iter().map(|piece| piece.json()["output"].as_str().unwrap().to_owned()).collect();
    assert!(texts.iter().all(|text| text.starts_with("data: ") && text.ends_with("\n\n")));
    assert_eq!(whole(&done.json()), texts.concat());
}

#[test]
fn a_list_of_models_can_be_looked_at() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &json!({"openai_route": "/v1/models", "openai_input": {}}))]);
    let done = platform.wait_done("job-1").json();
    assert_eq!(done["output"][0]["data"][0]["id"], "dummy");
    assert_eq!(line(&gateway, "job-1")["method"], "GET");
}

#[test]
fn each_kind_of_input_reaches_its_route() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    for (id, input, path) in [
        ("openai", json!({"openai_input": chat_body(false)}), CHAT),
        ("route", json!({"route": "/tokenize", "body": {"content": "one three"}}), "/tokenize"),
        (
            "messages",
            json!({"messages": [{"role": "user", "content": "x"}], "sampling_params": {"max_tokens": 3}}),
            CHAT,
        ),
        ("prompt", json!({"prompt": "x", "sampling_params": {"max_tokens": 3}}), "/v1/completions"),
    ] {
        platform.offer([job(id, &input)]);
        let done = platform.wait_done(id).json();
        assert!(done["error"].is_null(), "{id}: {done}");
        assert_eq!(line(&gateway, id)["path"], path);
    }
    let asked = gateway.journal().requests("/v1/completions").pop().unwrap();
    assert!(asked.to_string().contains("max_tokens"), "{asked}");
}

#[test]
fn the_books_name_the_platform_in_place_of_a_key() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    let line = line(&gateway, "job-1");
    assert_eq!((line["key"].as_str(), line["status"].as_str()), ("runpod", "200"));
    let metrics = gateway.health().get("/metrics?format=prometheus").text();
    assert!(metrics.contains(r#"llamagate_key_requests_total{key="runpod",status_class="2xx"} 1"#), "{metrics}");
    assert!(metrics.contains("gateway_requests_success_total 1"), "{metrics}");
}

#[test]
fn a_job_that_is_refused_has_failed() {
    let platform = Platform::start();
    let gateway = ready(
        &platform,
        json!({"error_status": [{"path": "/v1/completions", "status": 400, "body": {"error": {"message": "no", "code": 400}}}]}),
    );
    for (id, input, expected) in [
        ("by-us", json!({"route": "/nothing"}), "route_not_found"),
        ("by-llama-server", json!({"prompt": "x"}), "\"no\""),
        ("admin", json!({"route": "/reload", "method": "POST"}), "scope_required"),
        ("unknown", json!({"text": "x"}), "asks for nothing"),
        ("elsewhere", json!({"route": "http://127.0.0.1/v1/models"}), "not a path"),
    ] {
        platform.offer([job(id, &input)]);
        let done = platform.wait_done(id);
        let body = done.json();
        assert!(body["error"].as_str().unwrap().contains(expected), "{id}: {body}");
        assert!(body["output"].is_null(), "{id}: {body}");
        assert_eq!(done.parameter("isStream"), Some("false"), "{id}");
    }
    assert_eq!(line(&gateway, "by-us")["status"], "404");
}

#[test]
fn a_job_without_an_input_has_failed_and_one_without_an_id_is_left_alone() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([json!({"input": {}}), json!({"id": "job-1"}), job("job-2", &chat(false))]);
    platform.wait_done("job-2");
    assert_eq!(platform.wait_done("job-1").json(), json!({"error": "Job has missing field(s): id or input."}));
    assert!(gateway.output().contains("Job has missing field(s): id or input."));
}

#[test]
fn a_stream_that_breaks_has_failed_and_says_so_in_band_too() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({"exit_mid_stream": {"after_frames": 2}}));
    platform.offer([job("job-1", &chat(true))]);
    let done = platform.wait_done("job-1");
    assert!(done.json()["error"].as_str().unwrap().contains("backend_error"), "{}", done.body());
    assert_eq!(done.parameter("isStream"), Some("true"));
    let last = platform.pieces("job-1").pop().unwrap().json();
    assert!(last["output"].as_str().unwrap().contains("data: {\"error\""), "whoever reads the stream can tell: {last}");
    assert_eq!(line(&gateway, "job-1")["code"], "backend_error");
}

#[test]
fn no_job_is_taken_before_the_model_is_loaded() {
    let platform = Platform::start();
    platform.offer([job("job-1", &chat(false))]);
    let gateway = worker_of(&platform).script(json!({"load": {"until_released": true}})).start();
    gateway.journal().wait_for_event("bound");
    // By then it would have asked: it asks which jobs to stop from the first moment on.
    platform.wait_calls(&[Route::Stop, Route::Ping], 2);
    assert!(platform.calls(TAKES).is_empty());
    gateway.control().release_load();
    platform.wait_done("job-1");
}

#[test]
fn as_many_jobs_are_taken_as_there_are_free_slots() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 3);
    let gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    let first = &platform.wait_calls(TAKES, 1)[0];
    assert_eq!(
        first.target(),
        "/v2/EP/job-take-batch/pod-1?gpu=NVIDIA+GeForce+RTX+4090&batch_size=3&job_in_progress=0"
    );
    platform.offer([job("a", &chat(false)), job("b", &chat(false))]);
    let second = &platform.wait_calls(TAKES, 2)[1];
    assert_eq!((second.route, second.parameter("job_in_progress")), (Route::Take, Some("1")), "one slot is left");
    platform.offer([job("c", &chat(false)), job("d", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 3);
    assert_eq!(platform.calls(TAKES).len(), 2, "all slots are taken");
    gateway.control().release_requests(1);
    platform.wait_calls(TAKES, 3);
    gateway.control().release_all_requests();
    for id in ["a", "b", "c", "d"] {
        platform.wait_done(id);
    }
}

#[test]
fn a_job_that_comes_twice_is_done_once() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 3);
    let gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("a", &chat(false)), job("a", &chat(false)), job("b", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 2);
    gateway.control().release_all_requests();
    platform.wait_done("a");
    platform.wait_done("b");
    assert_eq!(gateway.journal().requests(CHAT).len(), 2);
    assert!(gateway.output().contains("a job that is in hand came again"));
}

#[test]
fn a_model_that_sleeps_is_woken_by_a_job_which_is_told_of_it() {
    let platform = Platform::start();
    let gateway = worker_of(&platform).set("IDLE_UNLOAD", "300ms").script(json!({})).start_ready();
    eventually("the model sleeps", wait::READY, || gateway.health().get("/readyz").status() == 503);
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    let progress = &platform.calls(&[Route::Done])[0];
    assert_eq!(progress.json(), json!({"status": "IN_PROGRESS", "output": "The model is being loaded"}));
    assert_eq!(progress.parameter("isStream"), Some("false"));
    assert_eq!(gateway.journal().starts().len(), 2);
}

#[test]
fn what_is_no_job_is_asked_for_again() {
    let platform = Platform::start();
    let odd = |content_type, body: &str| Said { status: 200, content_type, body: body.to_owned() };
    let answers = [
        Said::status(204),
        Said::status(400),
        odd("text/html", "<html>"),
        odd("application/json", ""),
        odd("application/json", "{"),
        odd("application/json", "null"),
        Said::json(&json!({"input": {}})),
    ];
    let count = answers.len();
    platform.says(Route::Take, answers);
    let gateway = ready(&platform, json!({}));
    platform.wait_calls(TAKES, count + 1);
    assert!(!gateway.output().contains("no jobs can be taken"), "none of them is an error of the platform's");
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
}

#[test]
fn a_platform_in_trouble_is_asked_again() {
    let platform = Platform::start();
    platform.says(Route::Take, [Said::status(500), Said::status(502), Said::status(429)]);
    platform.says(Route::Stop, [Said::status(500)]);
    let mut gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    assert!(platform.calls(TAKES).len() >= 4);
    platform.wait_calls(&[Route::Stop], 2);
    assert!(gateway.output().contains("no jobs can be taken: RunPod answers 500"));
    platform.says(Route::Take, [Said::status(204)]);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_result_is_posted_again_where_that_may_help() {
    let platform = Platform::start();
    let _gateway = ready(&platform, json!({}));
    platform.says(Route::Done, [Said::status(500), Said::status(429)]);
    platform.offer([job("job-1", &chat(false))]);
    let calls = platform.wait_calls(&[Route::Done], 3);
    assert!(calls.iter().all(|call| call.body() == calls[0].body()));
    // What is refused for good is not, and the next job is done all the same.
    platform.says(Route::Done, [Said::status(404)]);
    platform.offer([job("job-2", &chat(false))]);
    platform.wait_done("job-2");
    platform.offer([job("job-3", &chat(false))]);
    platform.wait_done("job-3");
    assert_eq!(platform.calls(&[Route::Done]).len(), 5);
}

#[test]
fn a_piece_is_posted_three_times_at_most_and_stays_in_the_result() {
    let platform = Platform::start();
    let _gateway = ready(&platform, json!({}));
    platform.says(Route::Stream, [500; 3].map(Said::status));
    platform.offer([job("job-1", &chat(true))]);
    let done = platform.wait_done("job-1");
    let pieces = platform.pieces("job-1");
    assert!(pieces[..3].iter().all(|piece| piece.body() == pieces[0].body()));
    assert!(pieces[3..].iter().all(|piece| piece.body() != pieces[0].body()));
    let text = whole(&done.json());
    assert!(text.starts_with(pieces[0].json()["output"].as_str().unwrap()) && text.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_job_that_is_stopped_frees_its_slot_and_nothing_is_posted() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({"hold_requests": [CHAT]}));
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    platform.stop(&[json!(5), json!("unknown"), json!("job-1")]);
    gateway.journal().wait_for_event("disconnect");
    assert_eq!(line(&gateway, "job-1")["status"], "499");
    // The slot is free for the next.
    platform.offer([job("job-2", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 2);
    gateway.control().release_all_requests();
    platform.wait_done("job-2");
    assert!(platform.done("job-1").is_none() && platform.pieces("job-1").is_empty());
}

#[test]
fn a_stream_that_is_stopped_ends() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({"hold_mid_stream": {"after_frames": 1}}));
    platform.offer([job("job-1", &chat(true))]);
    platform.wait_calls(&[Route::Stream], 1);
    platform.stop(&[json!("job-1")]);
    gateway.journal().wait_for_event("disconnect");
    assert_eq!(line(&gateway, "job-1")["code"], "client_closed");
    platform.wait_calls(TAKES, 2);
    assert_eq!((platform.done("job-1").is_none(), platform.pieces("job-1").len()), (true, 1));
}

#[test]
fn stops_that_make_no_sense_stop_nothing() {
    let platform = Platform::start();
    let answers = [json!({"jobsToStop": null}), json!(["job-1"]), json!({"jobsToStop": "job-1"}), json!(null)];
    platform.says(Route::Stop, answers.iter().map(Said::json).chain([Said::status(204)]));
    let gateway = ready(&platform, json!({"hold_requests": [CHAT]}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_calls(&[Route::Stop], 6);
    gateway.control().release_all_requests();
    platform.wait_done("job-1");
}

#[test]
fn pings_name_the_jobs_in_hand() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 2).set("RUNPOD_PING_INTERVAL", 20);
    let gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    let first = &platform.wait_calls(&[Route::Ping], 3)[2];
    assert_eq!(first.target(), "/v2/EP/ping/pod-1?gpu=NVIDIA+GeForce+RTX+4090&runpod_version=1.12.0");
    assert_eq!(first.header("authorization"), Some(KEY));
    platform.offer([job("a", &chat(false)), job("b", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 2);
    eventually("a ping names both", SOON, || {
        let calls = platform.calls(&[Route::Ping]);
        calls.last().is_some_and(|ping| ping.parameter("job_id") == Some("a%2Cb"))
    });
    gateway.control().release_all_requests();
    platform.wait_done("a");
    platform.wait_done("b");
    eventually("a ping names none", SOON, || {
        platform.calls(&[Route::Ping]).last().is_some_and(|ping| ping.parameter("job_id").is_none())
    });
}

#[test]
fn a_ping_that_fails_is_sent_again() {
    let platform = Platform::start();
    platform.says(Route::Ping, [Said::status(500), Said::status(429)]);
    let _gateway = worker_of(&platform).set("RUNPOD_PING_INTERVAL", 3_600_000).start();
    platform.wait_calls(&[Route::Ping], 3);
}

#[test]
fn nobody_is_pinged_without_a_key_or_a_name() {
    for missing in ["RUNPOD_AI_API_KEY", "RUNPOD_POD_ID", "RUNPOD_WEBHOOK_PING"] {
        let platform = Platform::start();
        let gateway = worker_of(&platform).set("RUNPOD_PING_INTERVAL", 10).set(missing, "").start_ready();
        platform.offer([job("job-1", &chat(false))]);
        let done = platform.wait_done("job-1");
        assert!(platform.calls(&[Route::Ping]).is_empty(), "{missing}");
        assert_eq!(done.header("authorization").is_none(), missing == "RUNPOD_AI_API_KEY");
        let worker = done.target().split('/').nth(4).unwrap();
        assert_eq!(worker == "pod-1", missing != "RUNPOD_POD_ID", "{worker}");
        assert!(gateway.output().contains("pings=false"));
    }
}

#[test]
fn a_worker_that_is_told_to_stop_finishes_its_job_and_takes_no_more() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("DRAIN_TIMEOUT", "10m");
    let mut gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", SOON, || gateway.health().get("/ping").status() == 503);
    platform.offer([job("job-2", &chat(false))]);
    gateway.control().release_all_requests();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(platform.done("job-1").unwrap().json()["output"].is_array());
    assert_eq!(platform.calls(TAKES).len(), 1, "the other is left in the queue");
}

#[test]
fn a_job_that_arrives_while_the_worker_stops_is_done() {
    let platform = Platform::start();
    let mut gateway = worker_of(&platform).set("DRAIN_TIMEOUT", "10m").start_ready();
    platform.wait_calls(TAKES, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", SOON, || gateway.health().get("/ping").status() == 503);
    platform.offer([job("job-1", &chat(true))]);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(whole(&platform.done("job-1").unwrap().json()).ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_job_that_outlives_the_drain_has_failed() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("DRAIN_TIMEOUT", "200ms");
    let mut gateway = builder.script(json!({"hold_mid_stream": {"after_frames": 1}})).start_ready();
    platform.offer([job("job-1", &chat(true))]);
    platform.wait_calls(&[Route::Stream], 1);
    assert_eq!(gateway.stop().code(), Some(0));
    let done = platform.done("job-1").unwrap().json();
    assert!(done["error"].as_str().unwrap().contains("shutting_down"), "{done}");
}

#[test]
fn a_question_that_brings_nothing_keeps_a_worker_no_longer_than_its_drain() {
    let platform = Platform::start();
    let mut gateway = worker_of(&platform).set("DRAIN_TIMEOUT", "200ms").start_ready();
    platform.wait_calls(TAKES, 1);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_worker_that_cannot_work_says_so_and_ends_with_69() {
    let platform = Platform::start();
    let ending = json!({"exit_at_start": {"code": 1, "stderr": ["error: invalid argument: --nonsense"]}});
    let builder = worker_of(&platform).set("RESTART_LIMIT", 0).set("DRAIN_TIMEOUT", "10m");
    let (status, output) = builder.script(ending).run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    let pings = platform.calls(&[Route::Ping]);
    let report = pings.iter().find(|ping| ping.parameter("status") == Some("unhealthy")).expect("it is reported");
    assert_eq!(report.parameter("check"), Some("llama-server"));
    let reason = report.parameter("reason").unwrap();
    assert!(!reason.is_empty() && reason.len() <= 3 * 256, "{reason}");
    assert_eq!(report.parameter("runpod_version"), Some("1.12.0"));
    assert!(platform.calls(TAKES).is_empty());
}

#[test]
fn a_worker_that_breaks_down_fails_its_job_says_so_and_ends_with_69() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("RESTART_LIMIT", 0).set("DRAIN_TIMEOUT", "10m");
    let mut gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.control().die_with_code(1);
    assert_eq!(gateway.wait_exit().code(), Some(69));
    assert!(platform.done("job-1").unwrap().json()["error"].is_string());
    assert!(platform.calls(&[Route::Ping]).iter().any(|ping| ping.parameter("status") == Some("unhealthy")));
}

#[test]
fn without_keys_jobs_are_done_and_the_door_stays_shut() {
    let platform = Platform::start();
    let nowhere = worker_of(&platform).set("AUTH_KEYS_FILE", "/nowhere/keys.txt");
    let gateway = nowhere.start_ready();
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    for client in [gateway.anonymous(), gateway.client()] {
        assert_eq!(client.post_json(CHAT, &chat_body(false)).status(), 401);
    }
}

#[test]
fn with_http_mode_no_job_is_taken() {
    let platform = Platform::start();
    let gateway = worker_of(&platform).set("RUNPOD_MODE", "http").start_ready();
    assert_eq!(gateway.client().post_json(CHAT, &chat_body(false)).status(), 200);
    assert!(platform.calls(&[Route::Take, Route::Stop, Route::Ping]).is_empty());
}

#[test]
fn a_queue_without_its_addresses_is_a_problem_of_the_configuration() {
    let (status, output) = Gateway::builder().set("RUNPOD_MODE", "queue").run_to_exit();
    assert_eq!(status.code(), Some(78));
    assert!(output.contains("RUNPOD_WEBHOOK_GET_JOB") && output.contains("hint: RunPod sets it"), "{output}");
}

#[test]
fn a_worker_in_use_by_jobs_does_not_stop_for_want_of_them() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("SHUTDOWN_TIMEOUT", "300ms");
    let mut gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    keeps("it serves", std::time::Duration::from_millis(600), || gateway.health().get("/ping").status() == 200);
    gateway.control().release_all_requests();
    platform.wait_done("job-1");
    assert_eq!(gateway.wait_exit().code(), Some(0), "unused, it stops");
}

#[test]
fn a_real_model_answers_jobs() {
    let platform = Platform::start();
    let real = worker_of(&platform).backend(Backend::Real { model: "tiny-chat.gguf" });
    let gateway = real.set("NGL", 0).set("CTX", 2048).set("PARALLEL", 2).set("MAX_CONCURRENT_REQUESTS", 2).start();
    let ask = |stream: bool| json!({"openai_input": {"messages": [{"role": "user", "content": "äöü 🦙"}], "max_tokens": 40, "stream": stream}});
    platform.offer([job("whole", &ask(false)), job("stream", &ask(true))]);
    let done = platform.wait_done_for("whole", wait::REAL_MODEL_ANSWERS).json();
    assert!(done["output"][0]["choices"][0]["message"]["content"].is_string(), "{done}");
    let done = platform.wait_done_for("stream", wait::REAL_MODEL_ANSWERS).json();
    let text = whole(&done);
    assert!(text.starts_with("data: {") && text.ends_with("data: [DONE]\n\n"), "{text}");
    let pieces = platform.pieces("stream");
    assert_eq!(
        text,
        pieces.iter().map(|piece| piece.json()["output"].as_str().unwrap().to_owned()).collect::<String>()
    );
    platform.offer([job("models", &json!({"openai_route": "/v1/models"}))]);
    assert_eq!(platform.wait_done("models").json()["output"][0]["object"], "list");
    assert_eq!(line(&gateway, "stream")["status"], "200");
}

/// A worker made with RunPod's SDK before this platform.
fn sdk_worker(platform: &Platform, fails: Option<&str>, folder: &Path) -> Process {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/runpod_worker.py");
    let mut command = Command::new(runpod_python());
    command.arg(script).env_clear().envs(platform.variables()).env("HOME", folder);
    command.env("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true").env("RUNPOD_SKIP_GPU_CHECK", "true");
    if let Some(reason) = fails {
        command.env("FAIL", reason);
    }
    Process::start("runpod-sdk", &mut command, folder)
}

/// What the platform sees of a call that does not depend on who calls.
fn seen(call: &Call) -> (Route, String, String, Vec<Option<String>>) {
    let headers = ["authorization", "content-type", "charset"];
    let headers = headers.iter().map(|name| call.header(name).map(str::to_owned)).collect();
    (call.route, call.method.clone(), call.target().to_owned(), headers)
}

/// What a worker of three slots does with four jobs, as the platform sees it.
fn four_jobs(platform: &Platform) -> Vec<(Route, String, String, Vec<Option<String>>)> {
    let mut calls = vec![platform.wait_calls(TAKES, 1).remove(0)];
    calls.push(platform.wait_calls(&[Route::Stop], 1).remove(0));
    calls.push(platform.wait_calls(&[Route::Ping], 1).remove(0));
    for (id, input) in [("stream", chat(true)), ("whole", chat(false)), ("refused", json!({"route": "/nothing"}))] {
        platform.offer([job(id, &input)]);
        let done = platform.wait_done(id);
        assert_eq!(done.header("x-request-id"), Some(id));
        let body = done.json();
        match id {
            "stream" => assert!(whole(&body).ends_with("data: [DONE]\n\n"), "{body}"),
            "whole" => assert!(body["output"][0]["choices"].is_array(), "{body}"),
            _ => assert!(body["error"].as_str().unwrap().contains("route_not_found"), "{body}"),
        }
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        let pieces = platform.pieces(id);
        assert_eq!(pieces.is_empty(), id == "refused");
        if let Some(last) = pieces.last() {
            assert_eq!(Some(&last.json()["output"]), body["output"].as_array().unwrap().last());
            calls.push(last.clone());
        }
        if id != "refused" {
            calls.push(done);
        }
    }
    platform.offer([job("stopped", &json!({"prompt": "x"}))]);
    let is_in_hand = |ping: &Call| ping.parameter("job_id") == Some("stopped");
    eventually("it is in hand", wait::READY, || platform.calls(&[Route::Ping]).iter().any(is_in_hand));
    calls.push(platform.calls(&[Route::Ping]).into_iter().find(is_in_hand).unwrap());
    platform.stop(&[json!("stopped")]);
    eventually("it is stopped", wait::READY, || {
        platform.calls(&[Route::Ping]).last().is_some_and(|ping| ping.parameter("job_id").is_none())
    });
    assert!(platform.done("stopped").is_none());
    calls.iter().map(seen).collect()
}

#[test]
fn the_platform_sees_no_difference_to_a_worker_of_its_own_sdk() {
    let theirs = {
        let (platform, folder) = (Platform::start(), tempfile::tempdir().unwrap());
        let mut sdk = sdk_worker(&platform, None, folder.path());
        let seen = four_jobs(&platform);
        sdk.signal(Signal::SIGTERM);
        // It ends when nothing that it has asked is open any more.
        for route in [Route::Stop, Route::Take, Route::TakeBatch] {
            platform.says(route, [Said::status(204)]);
        }
        sdk.wait_exit();
        seen
    };
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 3);
    let _gateway = builder.script(json!({"hold_requests": ["/v1/completions"]})).start_ready();
    assert_eq!(four_jobs(&platform), theirs);
}

#[test]
fn a_worker_that_cannot_work_says_so_in_the_words_of_the_sdk() {
    let (platform, folder) = (Platform::start(), tempfile::tempdir().unwrap());
    let mut sdk = sdk_worker(&platform, Some("out of memory"), folder.path());
    assert_eq!(sdk.wait_exit().code(), Some(1));
    let theirs = platform.wait_calls(&[Route::Ping], 1).remove(0);
    let platform = Platform::start();
    let ending = json!({"exit_at_start": {"code": 1, "stderr": ["x"]}});
    worker_of(&platform).set("RESTART_LIMIT", 0).script(ending).run_to_exit();
    let is_report = |ping: &Call| ping.parameter("status").is_some();
    let ours = platform.calls(&[Route::Ping]).into_iter().find(is_report).unwrap();
    let names = |call: &Call| -> Vec<String> {
        let query = call.target().split_once('?').unwrap().1.to_owned();
        query.split('&').map(|pair| pair.split('=').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!(ours.parameter("runpod_version"), theirs.parameter("runpod_version"));
    assert_eq!(ours.header("authorization"), theirs.header("authorization"));
}
