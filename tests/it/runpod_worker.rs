//! The worker of RunPod's queue: when it takes jobs and how many, what it reports about itself, and how it ends.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::runpod_queue::{CHAT, TAKES, chat, chat_body, job, joined_output, ready, worker_of};
use super::support::{
    gateway::Gateway,
    runpod::{KEY, Platform, Route, ScriptedResponse},
    wait::{self, SOON, assert_throughout, eventually},
};
use llamagate::runpod::bounds::LAST_POLL_GRACE;

#[test]
fn a_worker_asks_for_at_most_16_jobs_at_once() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 40);
    let gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer((0..20).map(|number| job(&number.to_string(), &chat(false))));
    gateway.journal().wait_for_requests(CHAT, 20);
    let takes = platform.wait_calls(TAKES, 3);
    assert_eq!(takes[..3].iter().map(|take| take.parameter("batch_size")).collect::<Vec<_>>(), [Some("16"); 3]);
    gateway.control().release_all_requests();
    for number in 0..20 {
        platform.wait_done(&number.to_string());
    }
}

#[test]
fn no_job_is_taken_before_the_model_is_loaded() {
    let platform = Platform::start();
    platform.offer([job("job-1", &chat(false))]);
    let gateway = worker_of(&platform).script(json!({"load": {"until_released": true}})).start();
    gateway.journal().wait_for_event("bound");
    // The first pings and stop lists show that the worker runs; without the check it would have asked for jobs by now.
    platform.wait_calls(&[Route::Stop, Route::Ping], 2);
    assert!(platform.calls(TAKES).is_empty());
    gateway.control().release_load();
    platform.wait_done("job-1");
}

#[test]
fn a_worker_takes_as_many_jobs_as_it_has_free_slots() {
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

/// Regression: slots that requests over HTTP held counted as free.
#[test]
fn slots_that_requests_over_http_hold_are_not_free() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 3);
    let gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.wait_calls(TAKES, 1);
    let body = chat_body(false).to_string();
    let _clients = [(); 2].map(|()| gateway.client().begin("POST", CHAT, body.as_bytes()).unwrap());
    gateway.journal().wait_for_requests(CHAT, 2);
    platform.offer([job("a", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 3);
    gateway.control().release_requests(1);
    let second = &platform.wait_calls(TAKES, 2)[1];
    assert_eq!(second.route, Route::Take, "one slot is free: {}", second.target());
    gateway.control().release_all_requests();
    platform.wait_done("a");
}

/// Regression: the free slots of all models were added up, so that jobs for one model waited in this worker's queue
/// while other workers were idle.
#[test]
fn with_two_models_at_most_one_job_waits_in_the_worker() {
    let platform = Platform::start();
    let config = "models:\n\x20 a: {file: a.gguf, preload: true}\n\x20 b: {file: b.gguf, preload: true}\n";
    let holds = json!({"hold_requests": [CHAT]});
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 2);
    let gateway = builder.fakes(config, &[("a.gguf", holds), ("b.gguf", json!({}))]).start_ready();
    eventually("both are loaded", wait::READY, || {
        let models = gateway.health().get("/health").json()["models"].clone();
        models.as_array().is_some_and(|models| models.iter().all(|model| model["state"] == "ready"))
    });
    let ask = |model: &str| json!({"openai_input": {"model": model, "messages": [{"role": "user", "content": "x"}]}});
    platform.offer(["1", "2", "3", "4"].map(|id| job(id, &ask("a"))));
    let a = gateway.model_file("a.gguf");
    a.journal().wait_for_requests(CHAT, 2);
    eventually("a third job waits", SOON, || {
        gateway.health().get("/metrics?format=prometheus").text().contains("gateway_queue_depth 1")
    });
    let takes = platform.calls(TAKES);
    let counts: Vec<_> = takes.iter().map(|take| take.parameter("batch_size")).collect();
    assert_eq!(counts, [Some("2"), None], "first as many jobs as one model has slots, then one at a time");
    assert!(platform.done("4").is_none());
    a.control().release_requests(2);
    a.journal().wait_for_requests(CHAT, 4);
    a.control().release_all_requests();
    for id in ["1", "2", "3", "4"] {
        platform.wait_done(id);
    }
}

#[test]
fn a_job_wakes_a_sleeping_model_and_gets_a_progress_update() {
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
fn an_answer_without_a_job_is_followed_by_another_request_for_jobs() {
    let platform = Platform::start();
    let odd = |content_type, body: &str| ScriptedResponse { status: 200, content_type, body: body.to_owned() };
    let answers = [
        ScriptedResponse::status(204),
        ScriptedResponse::status(400),
        odd("text/html", "<html>"),
        odd("application/json", ""),
    ];
    let count = answers.len();
    platform.script_responses(Route::Take, answers);
    let gateway = ready(&platform, json!({}));
    platform.wait_calls(TAKES, count + 1);
    assert!(!gateway.output().contains("no jobs can be taken"), "none of these answers is an error of the platform");
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
}

/// Regression: after an answer that is not a job, the worker asked again four times a second, with a warning each time.
#[test]
fn a_malformed_job_is_logged_once_as_an_error_of_the_platform() {
    let platform = Platform::start();
    let odd = |body: &str| ScriptedResponse { status: 200, content_type: "application/json", body: body.to_owned() };
    platform.script_responses(Route::Take, [odd("{"), odd("null"), ScriptedResponse::json(&json!({"input": {}}))]);
    let gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    // Another task logs the line, perhaps after the job is done.
    eventually("the recovery is logged", SOON, || gateway.output().contains("jobs can be taken again"));
    let output = gateway.output();
    assert_eq!(output.matches("no jobs can be taken: RunPod's response contains no valid job").count(), 1, "{output}");
}

#[test]
fn requests_to_a_platform_that_answers_429_or_5xx_are_sent_again() {
    let platform = Platform::start();
    platform.script_responses(
        Route::Take,
        [ScriptedResponse::status(500), ScriptedResponse::status(502), ScriptedResponse::status(429)],
    );
    platform.script_responses(Route::Stop, [ScriptedResponse::status(500), ScriptedResponse::status(502)]);
    platform.script_responses(Route::Ping, [ScriptedResponse::status(500), ScriptedResponse::status(502)]);
    let mut gateway = ready(&platform, json!({}));
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    assert!(platform.calls(TAKES).len() >= 4);
    platform.wait_calls(&[Route::Stop], 3);
    platform.wait_calls(&[Route::Ping], 3);
    platform.stop(&[json!("unknown")]);
    for (trouble, again) in [
        ("no jobs can be taken: RunPod answers 500", "jobs can be taken again"),
        ("the list of jobs to stop cannot be fetched: RunPod answers 500", "the list of jobs to stop is fetched again"),
        ("pings to RunPod fail: RunPod answers 500", "pings to RunPod succeed again"),
    ] {
        eventually(again, SOON, || gateway.output().contains(again));
        assert_eq!(gateway.output().matches(trouble).count(), 1, "{trouble}");
    }
    assert!(
        !gateway.output().contains("RunPod answers 502"),
        "of several failures in a row only the first is reported"
    );
    platform.script_responses(Route::Take, [ScriptedResponse::status(204)]);
    assert_eq!(gateway.stop().code(), Some(0));
}

/// The path and the query of the address may contain secrets; the log must not.
#[test]
fn an_unreachable_platform_is_named_by_host_and_port_alone() {
    let platform = Platform::start();
    let nowhere = "http://127.0.0.1:1/s3cret/job-take/$ID?token=s3cret";
    let gateway = worker_of(&platform).set("RUNPOD_WEBHOOK_GET_JOB", nowhere).start_ready();
    eventually("the failure is logged", SOON, || {
        gateway.output().contains("no jobs can be taken: 127.0.0.1:1 refuses connections")
    });
    assert!(!gateway.output().contains("s3cret") && !gateway.output().contains(KEY));
}

#[test]
fn pings_name_the_jobs_in_progress() {
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
    platform.script_responses(Route::Ping, [ScriptedResponse::status(500), ScriptedResponse::status(429)]);
    let _gateway = worker_of(&platform).set("RUNPOD_PING_INTERVAL", 3_600_000).start();
    platform.wait_calls(&[Route::Ping], 3);
}

#[test]
fn no_ping_is_sent_without_a_key_a_name_or_an_address() {
    for missing in ["RUNPOD_AI_API_KEY", "RUNPOD_POD_ID", "RUNPOD_WEBHOOK_PING"] {
        let platform = Platform::start();
        let gateway = worker_of(&platform).set("RUNPOD_PING_INTERVAL", 10).set(missing, "").start_ready();
        platform.offer([job("job-1", &chat(false))]);
        let done = platform.wait_done("job-1");
        assert!(platform.calls(&[Route::Ping]).is_empty(), "{missing}");
        assert_eq!(done.header("authorization").is_none(), missing == "RUNPOD_AI_API_KEY");
        let worker = done.target().split('/').nth(4).unwrap();
        assert_eq!(worker == "pod-1", missing != "RUNPOD_POD_ID", "{worker}");
        eventually("the log says so", SOON, || gateway.output().contains("pings=false"));
    }
}

#[test]
fn a_worker_finishes_its_job_after_sigterm_and_takes_no_more() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("DRAIN_TIMEOUT", "10m");
    let mut gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("the worker is stopping", SOON, || gateway.health().get("/ping").status() == 503);
    platform.offer([job("job-2", &chat(false))]);
    let refused = gateway.client().post_json(CHAT, &chat_body(false));
    assert_eq!((refused.status(), refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    gateway.control().release_all_requests();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(platform.done("job-1").unwrap().json()["output"].is_array());
    assert_eq!(platform.calls(TAKES).len(), 1, "the other job stays in the platform's queue");
}

#[test]
fn a_job_that_arrives_while_the_worker_stops_is_done() {
    let platform = Platform::start();
    let mut gateway = worker_of(&platform).set("DRAIN_TIMEOUT", "10m").start_ready();
    platform.wait_calls(TAKES, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("the worker is stopping", SOON, || gateway.health().get("/ping").status() == 503);
    platform.offer([job("job-1", &chat(true))]);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(joined_output(&platform.done("job-1").unwrap().json()).ends_with("data: [DONE]\n\n"));
}

/// If the open poll were dropped while another job is being finished, the job that it returns would be lost.
#[test]
fn a_job_that_arrives_while_another_is_finished_after_sigterm_is_done() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("DRAIN_TIMEOUT", "10m").set("MAX_CONCURRENT_REQUESTS", 2);
    let mut gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    platform.wait_calls(TAKES, 2);
    gateway.signal(Signal::SIGTERM);
    eventually("the worker is stopping", SOON, || gateway.health().get("/ping").status() == 503);
    assert_throughout("the worker finishes its job", LAST_POLL_GRACE + SOON / 8, || {
        gateway.health().get("/ping").status() == 503
    });
    platform.offer([job("job-2", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 2);
    gateway.control().release_all_requests();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    for id in ["job-1", "job-2"] {
        assert!(platform.done(id).unwrap().json()["output"].is_array(), "{id}");
    }
}

#[test]
fn a_job_that_outlives_the_drain_fails() {
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
fn an_open_poll_delays_the_exit_by_no_more_than_the_drain() {
    let platform = Platform::start();
    let mut gateway = worker_of(&platform).set("DRAIN_TIMEOUT", "200ms").start_ready();
    platform.wait_calls(TAKES, 1);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_worker_whose_llama_server_cannot_start_reports_it_and_ends_with_69() {
    let platform = Platform::start();
    let ending = json!({"exit_at_start": {"code": 1, "stderr": ["error: invalid argument: --nonsense"]}});
    let builder = worker_of(&platform).set("RESTART_LIMIT", 0).set("DRAIN_TIMEOUT", "10m");
    let (status, output) = builder.script(ending).run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    let pings = platform.calls(&[Route::Ping]);
    let report =
        pings.iter().find(|ping| ping.parameter("status") == Some("unhealthy")).expect("the failure is reported");
    assert_eq!(report.parameter("check"), Some("llama-server"));
    let reason = report.parameter("reason").unwrap();
    assert!(!reason.is_empty() && reason.len() <= 3 * 256, "{reason}");
    assert_eq!(report.parameter("runpod_version"), Some("1.12.0"));
    assert!(platform.calls(TAKES).is_empty());
}

/// Regression: a worker with wrong settings reported nothing, and the platform started it again and again.
#[test]
fn a_worker_that_fails_to_start_reports_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (variable, value, code, expected) in [
        ("CTX", "0", 78, "the configuration is not usable: 1 problem(s)"),
        ("RUNPOD_PING_INTERVAL", "soon", 78, ""),
        ("MODEL_PATH", "/nowhere/none.gguf", 78, "its configuration is not usable"),
        ("PORT", &*port, 1, "gateway cannot listen on"),
    ] {
        let platform = Platform::start();
        let (status, output) = worker_of(&platform).set(variable, value).run_to_exit();
        assert_eq!(status.code(), Some(code), "{output}");
        let pings = platform.calls(&[Route::Ping]);
        let report = pings.iter().find(|ping| ping.parameter("status") == Some("unhealthy"));
        let reason = report.and_then(|report| report.parameter("reason")).unwrap_or_default().replace('+', " ");
        let reason = reason.replace("%20", " ").replace("%3A", ":").replace("%28", "(").replace("%29", ")");
        assert!(reason.contains(expected), "{variable}: {reason:?}");
        assert_eq!(report.is_none(), expected.is_empty(), "without a valid ping interval no ping can be sent");
    }
}

#[test]
fn a_worker_whose_llama_server_dies_fails_its_job_reports_it_and_ends_with_69() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("RESTART_LIMIT", 0).set("DRAIN_TIMEOUT", "10m");
    let mut gateway = builder.script(json!({"hold_requests": [CHAT]})).start_ready();
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.control().die_with_code(1);
    assert_eq!(gateway.wait_exit().code(), Some(69));
    assert!(platform.done("job-1").unwrap().json()["error"].is_string());
    assert_eq!(platform.calls(&[Route::Ping]).last().unwrap().parameter("status"), Some("unhealthy"));
}

/// Regression: a regular ping followed the report that the worker is unhealthy.
#[test]
fn the_last_ping_of_a_worker_whose_llama_server_died_is_unhealthy() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("RESTART_LIMIT", 0).set("RUNPOD_PING_INTERVAL", 1);
    let mut gateway = builder.start_ready();
    platform.wait_calls(&[Route::Ping], 3);
    gateway.control().die_with_code(1);
    assert_eq!(gateway.wait_exit().code(), Some(69));
    assert_eq!(platform.calls(&[Route::Ping]).last().unwrap().parameter("status"), Some("unhealthy"));
}

/// Regression: a worker without a job waited for the whole DRAIN_TIMEOUT.
#[test]
fn a_worker_without_a_job_ends_soon_despite_an_open_poll() {
    let platform = Platform::start();
    let mut gateway = worker_of(&platform).set("DRAIN_TIMEOUT", "10m").start_ready();
    platform.wait_calls(TAKES, 1);
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.output());
    assert!(!gateway.output().contains("requests in flight are cut"), "{}", gateway.output());
}

#[test]
fn without_a_key_file_jobs_are_done_and_http_requests_get_401() {
    let platform = Platform::start();
    let without_keys = worker_of(&platform).set("AUTH_KEYS_FILE", "/nowhere/keys.txt");
    let gateway = without_keys.start_ready();
    platform.offer([job("job-1", &chat(false))]);
    platform.wait_done("job-1");
    for client in [gateway.anonymous(), gateway.client()] {
        assert_eq!(client.post_json(CHAT, &chat_body(false)).status(), 401);
    }
    eventually("the log says so", SOON, || gateway.output().contains("WARN there is no key file"));
    let with_keys = worker_of(&platform).start_ready();
    assert!(!with_keys.output().contains("there is no key file"));
}

#[test]
fn in_http_mode_no_job_is_taken() {
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
fn a_worker_does_not_shut_down_as_unused_while_it_does_a_job() {
    let platform = Platform::start();
    let builder = worker_of(&platform).set("SHUTDOWN_TIMEOUT", "300ms").set("MAX_CONCURRENT_REQUESTS", 2);
    let script = json!({"load": {"until_released": true}, "hold_requests": [CHAT]});
    let mut gateway = builder.script(script).start();
    gateway.journal().wait_for_event("bound");
    // Until the job arrives, a request of a client keeps the worker in use.
    let mut client = gateway.client().begin("POST", CHAT, chat_body(false).to_string().as_bytes()).unwrap();
    eventually("the client waits", SOON, || {
        gateway.health().get("/metrics?format=prometheus").text().contains("gateway_queue_depth 1")
    });
    gateway.control().release_load();
    gateway.journal().wait_for_requests(CHAT, 1);
    platform.offer([job("job-1", &chat(false))]);
    gateway.journal().wait_for_requests(CHAT, 2);
    gateway.control().release_requests(1);
    assert_eq!(client.read_response().unwrap().status(), 200);
    assert_throughout("the worker keeps serving", Duration::from_millis(600), || {
        gateway.health().get("/ping").status() == 200
    });
    gateway.control().release_all_requests();
    platform.wait_done("job-1");
    assert_eq!(gateway.wait_exit().code(), Some(0), "the unused worker stops");
}
