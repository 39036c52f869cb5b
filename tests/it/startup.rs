//! The first second of a start: the ports answer even if the disk with the models hangs, and requests wait until the
//! models are known.

use std::time::Duration;

use serde_json::json;

use super::support::{
    client::Client, file_lease::FileLease, gateway::Gateway, model_file::Kind, scripted::ScriptedModel,
    wait::assert_throughout,
};

fn chat(client: &Client) -> u16 {
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2});
    client.post_json("/v1/chat/completions", &body).status()
}

#[test]
fn a_model_file_that_cannot_be_read_yet_delays_no_probe_and_loses_no_request() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = ScriptedModel::create(folder.path(), "slow.gguf", Kind::Chat, &json!({}));
    let lease = FileLease::take(&model.path);
    let gateway = Gateway::builder().set("MODEL_PATH", model.path.display()).start();
    let probe = |path: &str| gateway.health().get(path).status();
    assert_eq!((probe("/ping"), probe("/livez"), probe("/readyz")), (204, 200, 503));
    let health = gateway.health().get("/health");
    assert_eq!((health.status(), health.json()["status"].as_str()), (503, Some("loading")));
    std::thread::scope(|scope| {
        let early = scope.spawn(|| chat(&gateway.client()));
        let listed = scope.spawn(|| gateway.client().get("/v1/models").json()["data"][0]["id"].clone());
        assert_throughout("requests wait and are not refused", Duration::from_millis(200), || {
            probe("/ping") == 204 && !early.is_finished() && !listed.is_finished()
        });
        lease.release();
        assert_eq!(early.join().expect("an answer"), 200);
        assert_eq!(listed.join().expect("an answer"), "slow");
    });
    assert_eq!(probe("/ping"), 200);
}

#[test]
fn the_service_stops_before_its_models_are_known() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = ScriptedModel::create(folder.path(), "slow.gguf", Kind::Chat, &json!({}));
    let _lease = FileLease::take(&model.path);
    let mut gateway = Gateway::builder().set("MODEL_PATH", model.path.display()).start();
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.output());
    assert!(model.journal().starts().is_empty());
}

#[test]
fn a_broken_model_file_ends_the_service_with_69_and_one_fatal_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = ScriptedModel::create(folder.path(), "good.gguf", Kind::Chat, &json!({})).path;
    let good = std::fs::read(good).expect("a model");
    let path = folder.path().join("broken.gguf");
    for (bytes, words) in [(&b"this is no GGUF"[..], "is not a GGUF file"), (&good[..good.len() / 2], "is cut short")] {
        std::fs::write(&path, bytes).expect("a file");
        let (status, output) = Gateway::builder().set("MODEL_PATH", path.display()).run_to_exit();
        assert_eq!(status.code(), Some(69), "{output}");
        let fatal: Vec<&str> = output.lines().filter(|line| line.contains("fatal: ")).collect();
        assert!(matches!(*fatal, [line] if line.contains(words) && line.contains("broken.gguf")), "{output}");
        assert!(!output.contains("problem(s)"), "{output}");
    }
}

#[test]
fn a_missing_model_file_is_a_bad_configuration_though_the_ports_were_open() {
    let (status, output) = Gateway::builder().set("MODEL_PATH", "/nowhere/none.gguf").run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert_eq!(output.lines().filter(|line| line.contains("fatal: ")).count(), 1, "{output}");
}
