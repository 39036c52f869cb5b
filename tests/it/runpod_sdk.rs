//! A worker made with RunPod's own SDK and this service, both with the fake platform of the tests: the SDK accepts the
//! fake platform, and both send it the same calls.

use std::{path::Path, process::Command};

use nix::sys::signal::Signal;
use serde_json::json;

use super::runpod_queue::{TAKES, chat, job, joined_output, worker_of};
use super::support::{
    gateway::runpod_python,
    process::Process,
    runpod::{Call, Platform, Route, ScriptedResponse},
    wait::{self, eventually},
};

/// Starts a worker made with RunPod's SDK.
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

/// Returns the parts of a call that must be equal for both workers.
fn comparable(call: &Call) -> (Route, String, String, Vec<Option<String>>) {
    let headers = ["authorization", "content-type", "charset"];
    let headers = headers.iter().map(|name| call.header(name).map(str::to_owned)).collect();
    (call.route, call.method.clone(), call.target().to_owned(), headers)
}

/// Offers four jobs to a worker with three slots, and returns the calls that the platform gets.
fn run_four_jobs(platform: &Platform) -> Vec<(Route, String, String, Vec<Option<String>>)> {
    let mut calls = vec![platform.wait_calls(TAKES, 1).remove(0)];
    calls.push(platform.wait_calls(&[Route::Stop], 1).remove(0));
    calls.push(platform.wait_calls(&[Route::Ping], 1).remove(0));
    for (id, input) in [("stream", chat(true)), ("whole", chat(false)), ("refused", json!({"route": "/nothing"}))] {
        platform.offer([job(id, &input)]);
        let done = platform.wait_done(id);
        assert_eq!(done.header("x-request-id"), Some(id));
        let body = done.json();
        match id {
            "stream" => assert!(joined_output(&body).ends_with("data: [DONE]\n\n"), "{body}"),
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
        calls.push(done);
    }
    platform.offer([job("stopped", &json!({"prompt": "x"}))]);
    let is_in_progress = |ping: &Call| ping.parameter("job_id") == Some("stopped");
    eventually("the job is in progress", wait::READY, || platform.calls(&[Route::Ping]).iter().any(is_in_progress));
    calls.push(platform.calls(&[Route::Ping]).into_iter().find(is_in_progress).unwrap());
    platform.stop(&[json!("stopped")]);
    eventually("the job is stopped", wait::READY, || {
        platform.calls(&[Route::Ping]).last().is_some_and(|ping| ping.parameter("job_id").is_none())
    });
    assert!(platform.done("stopped").is_none());
    calls.iter().map(comparable).collect()
}

#[test]
fn the_service_sends_the_same_calls_as_a_worker_of_the_sdk() {
    let theirs = {
        let (platform, folder) = (Platform::start(), tempfile::tempdir().unwrap());
        let mut sdk = sdk_worker(&platform, None, folder.path());
        let calls = run_four_jobs(&platform);
        sdk.signal(Signal::SIGTERM);
        // The SDK ends only after all its open polls have been answered.
        for route in [Route::Stop, Route::Take, Route::TakeBatch] {
            platform.script_responses(route, [ScriptedResponse::status(204)]);
        }
        sdk.wait_exit();
        calls
    };
    let platform = Platform::start();
    let builder = worker_of(&platform).set("MAX_CONCURRENT_REQUESTS", 3);
    let _gateway = builder.script(json!({"hold_requests": ["/v1/completions"]})).start_ready();
    assert_eq!(run_four_jobs(&platform), theirs);
}

#[test]
fn a_failed_start_is_reported_in_the_form_of_the_sdk() {
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
