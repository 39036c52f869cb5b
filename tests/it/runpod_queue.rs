//! Jobs from RunPod's queue: how a job is served as a request, and how its result is posted. How a worker takes jobs,
//! and how it starts and ends, is tested in `runpod_worker.rs`. `runpod_sdk.rs` checks that the fake platform of these
//! tests behaves as RunPod's own SDK expects.

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    gateway::{Backend, Builder, Gateway},
    runpod::{KEY, Platform, Route, ScriptedResponse},
    wait::{self, SOON, eventually},
};

pub(super) const CHAT: &str = "/v1/chat/completions";
pub(super) const TAKES: &[Route] = &[Route::Take, Route::TakeBatch];

/// A gateway that takes jobs from this platform.
pub(super) fn worker_of(platform: &Platform) -> Builder {
    let builder = Gateway::builder().set("DRAIN_TIMEOUT", "1s");
    platform.variables().into_iter().fold(builder, |builder, (name, value)| builder.set(name, value))
}

pub(super) fn ready(platform: &Platform, script: Value) -> Gateway {
    worker_of(platform).script(script).start_ready()
}

pub(super) fn job(id: &str, input: &Value) -> Value {
    json!({"id": id, "input": input, "webhook": null, "s3Config": {}})
}

pub(super) fn chat(stream: bool) -> Value {
    json!({"openai_route": CHAT, "openai_input": chat_body(stream)})
}

pub(super) fn chat_body(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

/// Returns the pieces of a result's output, joined.
pub(super) fn joined_output(result: &Value) -> String {
    result["output"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect()
}

#[test]
fn a_job_is_taken_and_its_result_is_posted() {
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
    assert_eq!(take.header("authorization"), Some(KEY), "the key alone, without a scheme");
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
fn an_answer_that_is_not_a_stream_is_posted_as_one_piece_too() {
    let platform = Platform::start();
    let _gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    let done = platform.wait_done("job-1").json();
    let pieces = platform.pieces("job-1");
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].json()["output"], done["output"][0]);
}

#[test]
fn a_stream_is_posted_in_whole_events_in_order_and_joined_in_the_result() {
    let platform = Platform::start();
    platform.hold(Route::Stream);
    let _gateway = ready(&platform, json!({"frames": 30}));
    platform.offer([job("job-1", &chat(true))]);
    // The first event is posted at once; the events that arrive while it is being posted are joined into one piece.
    platform.wait_calls(&[Route::Stream], 1);
    platform.release(Route::Stream);
    let done = platform.wait_done("job-1");
    let pieces = platform.pieces("job-1");
    assert!(pieces.len() >= 2 && pieces.len() < 30, "{}", pieces.len());
    let texts: Vec<String> = pieces.iter().map(|piece| piece.json()["output"].as_str().unwrap().to_owned()).collect();
    assert!(texts.iter().all(|text| text.starts_with("data: ") && text.ends_with("\n\n")), "{texts:?}");
    assert!(texts.last().unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(joined_output(&done.json()), texts.concat());
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
    // All other events arrive while the first one is being posted.
    let is_end = |record: &Value| record["event"] == "finished" && record["n"] == request["n"];
    gateway.journal().wait_for("llama-server has sent its answer", is_end);
    platform.release(Route::Stream);
    let done = platform.wait_done("job-1");
    let pieces = platform.pieces("job-1");
    let sizes: Vec<usize> = pieces.iter().map(|piece| piece.body().len()).collect();
    assert!(sizes.iter().sum::<usize>() > 1_800_000 && sizes.iter().all(|size| *size < 1_000_000), "{sizes:?}");
    let texts: Vec<String> = pieces.iter().map(|piece| piece.json()["output"].as_str().unwrap().to_owned()).collect();
    assert!(texts.iter().all(|text| text.starts_with("data: ") && text.ends_with("\n\n")));
    assert_eq!(joined_output(&done.json()), texts.concat());
}

#[test]
fn a_job_can_ask_for_the_list_of_models() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &json!({"openai_route": "/v1/models", "openai_input": {}}))]);
    let done = platform.wait_done("job-1").json();
    assert_eq!(done["output"][0]["data"][0]["id"], "dummy");
    assert_eq!(access_log_line(&gateway, "job-1")["method"], "GET");
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
        assert_eq!(access_log_line(&gateway, id)["path"], path);
    }
    let asked = gateway.journal().requests("/v1/completions").pop().unwrap();
    assert!(asked.to_string().contains("max_tokens"), "{asked}");
}

#[test]
fn log_and_metrics_name_the_platform_instead_of_a_key() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    let line = access_log_line(&gateway, "job-1");
    assert_eq!((line["key"].as_str(), line["status"].as_str()), ("runpod", "200"));
    let metrics = gateway.health().get("/metrics?format=prometheus").text();
    assert!(metrics.contains(r#"llamagate_key_requests_total{key="runpod",status_class="2xx"} 1"#), "{metrics}");
    assert!(metrics.contains("gateway_requests_success_total 1"), "{metrics}");
}

#[test]
fn a_job_that_is_refused_fails() {
    let platform = Platform::start();
    let gateway = ready(
        &platform,
        json!({"error_status": [{"path": "/v1/completions", "status": 400, "body": {"error": {"message": "no", "code": 400}}}]}),
    );
    for (id, input, expected) in [
        ("by-us", json!({"route": "/nothing"}), "route_not_found"),
        ("by-llama-server", json!({"prompt": "x"}), "\"no\""),
        ("admin", json!({"route": "/reload", "method": "POST"}), "scope_required"),
        ("stats", json!({"route": "/lb/stats"}), "scope_required"),
        ("slots", json!({"route": "/slots"}), "scope_required"),
        ("metrics", json!({"route": "/metrics"}), "scope_required"),
        ("load", json!({"route": "/v1/models/dummy/load", "method": "POST"}), "scope_required"),
        ("unload", json!({"route": "/v1/models/dummy/unload", "method": "POST"}), "scope_required"),
        ("unknown", json!({"text": "x"}), "asks for nothing"),
        ("elsewhere", json!({"route": "http://127.0.0.1/v1/models"}), "not a path"),
    ] {
        platform.offer([job(id, &input)]);
        let done = platform.wait_done(id);
        let body = done.json();
        assert!(body["error"].as_str().unwrap().contains(expected), "{id}: {body}");
        assert!(body["output"].is_null(), "{id}: {body}");
        assert_eq!(done.parameter("isStream"), Some("true"), "{id}");
    }
    assert_eq!(access_log_line(&gateway, "by-us")["status"], "404");
}

#[test]
fn a_job_without_an_input_fails_and_a_job_without_an_id_is_ignored() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.offer([json!({"input": {}}), json!({"id": "job-1"}), job("job-2", &chat(false))]);
    platform.wait_done("job-2");
    assert_eq!(platform.wait_done("job-1").json(), json!({"error": "Job has missing field(s): id or input."}));
    eventually("the log says so", SOON, || gateway.output().contains("Job has missing field(s): id or input."));
}

#[test]
fn a_job_whose_stream_breaks_fails_and_the_stream_ends_with_an_error() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({"exit_mid_stream": {"after_frames": 2}}));
    platform.offer([job("job-1", &chat(true))]);
    let done = platform.wait_done("job-1");
    assert!(done.json()["error"].as_str().unwrap().contains("backend_error"), "{}", done.body());
    assert_eq!(done.parameter("isStream"), Some("true"));
    let last = platform.pieces("job-1").pop().unwrap().json();
    assert!(last["output"].as_str().unwrap().contains("data: {\"error\""), "the stream has an error event: {last}");
    assert_eq!(access_log_line(&gateway, "job-1")["code"], "backend_error");
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
    eventually("the log says so", SOON, || gateway.output().contains("a job that is in flight was delivered again"));
}

#[test]
fn a_result_is_posted_again_after_500_and_429_but_not_after_404() {
    let platform = Platform::start();
    let _gateway = ready(&platform, json!({}));
    platform.script_responses(Route::Done, [ScriptedResponse::status(500), ScriptedResponse::status(429)]);
    platform.offer([job("job-1", &chat(false))]);
    let calls = platform.wait_calls(&[Route::Done], 3);
    assert!(calls.iter().all(|call| call.body() == calls[0].body()));
    // A result that gets 404 is not posted again, and the next job is still done.
    platform.script_responses(Route::Done, [ScriptedResponse::status(404)]);
    platform.offer([job("job-2", &chat(false))]);
    platform.wait_done("job-2");
    platform.offer([job("job-3", &chat(false))]);
    platform.wait_done("job-3");
    assert_eq!(platform.calls(&[Route::Done]).len(), 5);
}

/// Regression: a result that RunPod refused left its job without any answer.
#[test]
fn a_result_that_is_refused_makes_its_job_fail() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    platform.script_responses(Route::Done, [ScriptedResponse::status(413)]);
    platform.offer([job("job-1", &chat(false))]);
    let calls = platform.wait_calls(&[Route::Done], 2);
    let expected = format!("RunPod refuses the result (413, {} bytes)", calls[0].body().len());
    assert_eq!(calls[1].json(), json!({"error": expected}));
    assert_eq!(calls[1].target(), calls[0].target());
    // The error is posted once, even if that is refused too.
    platform.script_responses(Route::Done, [ScriptedResponse::status(400), ScriptedResponse::status(400)]);
    platform.offer([job("job-2", &chat(false))]);
    platform.wait_calls(&[Route::Done], 4);
    platform.offer([job("job-3", &chat(false))]);
    platform.wait_done("job-3");
    assert_eq!(platform.calls(&[Route::Done]).len(), 5);
    eventually("the log says so", SOON, || gateway.output().contains("RunPod answers 413"));
}

/// Regression: after the platform had refused a piece of a stream, each further piece was posted, with a warning each
/// time.
#[test]
fn after_a_piece_that_is_refused_with_404_no_other_is_posted() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({"hold_mid_stream": {"after_frames": 1}}));
    platform.script_responses(Route::Stream, [ScriptedResponse::status(404)]);
    platform.offer([job("job-1", &chat(true))]);
    platform.wait_calls(&[Route::Stream], 1);
    eventually("the refusal is reported", SOON, || gateway.output().contains("RunPod answers 404"));
    gateway.control().release_all_requests();
    let text = joined_output(&platform.wait_done("job-1").json());
    assert!(text.ends_with("data: [DONE]\n\n"), "the result has the whole stream: {text}");
    assert_eq!(platform.pieces("job-1").len(), 1);
}

/// Regression: a progress update that the platform did not accept delayed the result.
#[test]
fn a_progress_update_that_is_not_accepted_does_not_delay_the_result() {
    let platform = Platform::start();
    let gateway = worker_of(&platform).set("IDLE_UNLOAD", "300ms").script(json!({})).start_ready();
    eventually("the model sleeps", wait::READY, || gateway.health().get("/readyz").status() == 503);
    platform.hold(Route::Done);
    platform.offer([job("job-1", &chat(false))]);
    // The piece is posted once the response is there, while the progress update is still being posted.
    platform.wait_calls(&[Route::Stream], 1);
    platform.release(Route::Done);
    platform.wait_done("job-1");
}

#[test]
fn a_large_job_reaches_llama_server_complete() {
    let platform = Platform::start();
    let gateway = ready(&platform, json!({}));
    let large = json!({"messages": [{"role": "user", "content": "\u{1f999}x".repeat(1_500_000)}]});
    platform.offer([job("large", &large)]);
    assert!(platform.wait_done("large").json()["output"].is_array());
    assert_eq!(gateway.journal().requests(CHAT)[0]["body_bytes"], large.to_string().len());
    // RunPod accepts larger jobs than this service does.
    let larger = json!({"messages": [{"role": "user", "content": "x".repeat(11 * 1024 * 1024)}]});
    platform.offer([job("larger", &larger)]);
    assert!(platform.wait_done("larger").json()["error"].as_str().unwrap().contains("payload_too_large"));
}

#[test]
fn a_piece_is_posted_at_most_three_times_and_stays_in_the_result() {
    let platform = Platform::start();
    let _gateway = ready(&platform, json!({}));
    platform.script_responses(Route::Stream, [500; 3].map(ScriptedResponse::status));
    platform.offer([job("job-1", &chat(true))]);
    let done = platform.wait_done("job-1");
    let pieces = platform.pieces("job-1");
    assert!(pieces[..3].iter().all(|piece| piece.body() == pieces[0].body()));
    assert!(pieces[3..].iter().all(|piece| piece.body() != pieces[0].body()));
    let text = joined_output(&done.json());
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
    assert_eq!(access_log_line(&gateway, "job-1")["status"], "499");
    // The slot is free for the next job.
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
    assert_eq!(access_log_line(&gateway, "job-1")["code"], "client_closed");
    platform.wait_calls(TAKES, 2);
    assert_eq!((platform.done("job-1").is_none(), platform.pieces("job-1").len()), (true, 1));
}

#[test]
fn malformed_stop_lists_stop_no_job() {
    let platform = Platform::start();
    let answers = [json!({"jobsToStop": null}), json!(["job-1"]), json!({"jobsToStop": "job-1"}), json!(null)];
    platform.script_responses(
        Route::Stop,
        answers.iter().map(ScriptedResponse::json).chain([ScriptedResponse::status(204)]),
    );
    let gateway = ready(&platform, json!({"hold_requests": [CHAT]}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_calls(&[Route::Stop], 6);
    gateway.control().release_all_requests();
    platform.wait_done("job-1");
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
    let text = joined_output(&done);
    assert!(text.starts_with("data: {") && text.ends_with("data: [DONE]\n\n"), "{text}");
    let pieces = platform.pieces("stream");
    assert_eq!(
        text,
        pieces.iter().map(|piece| piece.json()["output"].as_str().unwrap().to_owned()).collect::<String>()
    );
    platform.offer([job("models", &json!({"openai_route": "/v1/models"}))]);
    assert_eq!(platform.wait_done("models").json()["output"][0]["object"], "list");
    assert_eq!(access_log_line(&gateway, "stream")["status"], "200");
}
