//! A service whose model is not on the disk: it comes from the hub while the ports are open.

use std::fs;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::gateway::{ADMIN, Builder, Gateway, smollm};
use super::support::mock_hub::{HubFaults, MockHub};
use super::support::wait::{ANSWERS, STARTS, eventually, eventually_some};

const MODEL: &str = "Org/Smol-GGUF:Q4_1";

/// Returns a hub with the real model, whose host of files holds its answers, and a gateway that names it.
fn hub_and_gateway() -> (MockHub, Builder) {
    let hub = MockHub::start();
    hub.add("Org/Smol-GGUF", "Smol-Q4_1.gguf", fs::read(smollm()).unwrap());
    hub.set_faults(HubFaults { holds: true, ..HubFaults::default() });
    let gateway = Gateway::builder()
        .reals(&format!("models:\n  smol: {{file: '{MODEL}', preload: true, ctx: 512}}\n"))
        .set("HF_ENDPOINT", hub.url())
        .set("HF_HUB_OFFLINE", false)
        .set("DOWNLOAD_RETRIES", 0);
    (hub, gateway)
}

/// Waits until the service has asked the host of files.
fn wait_for_download(hub: &MockHub) {
    eventually("the model is asked for", STARTS, || hub.requests().iter().any(|request| request.is_of_files));
}

#[test]
fn a_model_of_the_hub_comes_at_the_first_start_and_answers() {
    let (hub, gateway) = hub_and_gateway();
    let gateway = gateway.start();
    wait_for_download(&hub);
    assert_eq!(gateway.health().get("/ping").status(), 204, "the ports are open meanwhile");
    let size = fs::metadata(smollm()).unwrap().len();
    let download = gateway.anonymous().get("/health").json()["download"].clone();
    assert_eq!((download["model"].as_str(), download["total"].as_u64()), (Some(MODEL), Some(size)), "{download}");
    let client = gateway.client();
    let waiting = thread::spawn(move || {
        let messages = json!([{"role": "user", "content": "Say hello."}]);
        client.post_json("/v1/chat/completions", &json!({"model": "smol", "messages": messages, "max_tokens": 4}))
    });
    hub.release();
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    gateway.wait_ready();
    assert_eq!(gateway.anonymous().get("/health").json().get("download"), None);
    assert_eq!(hub.bytes_sent() as u64, size);
    let output = gateway.output();
    assert!(output.contains("it is downloaded") && output.contains("the model is downloaded"), "{output}");
}

#[test]
fn a_stop_in_the_middle_of_the_download_keeps_what_has_arrived() {
    let (hub, gateway) = hub_and_gateway();
    let mut gateway = gateway.start();
    wait_for_download(&hub);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0), "{}", gateway.output());
    let blobs = gateway.data_dir().join("huggingface-cache/hub/models--Org--Smol-GGUF/blobs");
    let names: Vec<_> = fs::read_dir(blobs).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(names.len() == 1 && names[0].to_string_lossy().ends_with(".incomplete"), "{names:?}");
}

#[test]
fn a_model_that_the_hub_does_not_have_ends_the_start_as_a_wrong_setting() {
    let (hub, gateway) = hub_and_gateway();
    let mut gateway = gateway.reals("models:\n  gone: {file: 'Org/None', preload: true}\n").start();
    assert_eq!(gateway.wait_exit().code(), Some(78), "{}", gateway.output());
    let output = gateway.output();
    assert!(output.contains("models.gone.file: \"Org/None\"") && output.contains("has no repository"), "{output}");
    assert!(hub.requests().iter().all(|request| !request.is_of_files));
}

#[test]
fn a_hub_that_gives_nothing_ends_the_start_so_that_a_platform_tries_again() {
    let (hub, gateway) = hub_and_gateway();
    let busy = (1000, "503 Service Unavailable".to_owned(), "busy".to_owned());
    hub.set_faults(HubFaults { file_answer: Some(busy), ..HubFaults::default() });
    let mut gateway = gateway.start();
    assert_eq!(gateway.wait_exit().code(), Some(69), "{}", gateway.output());
    assert!(gateway.output().contains("the model could not be downloaded"), "{}", gateway.output());
}

#[test]
fn check_says_what_a_start_would_download_and_offline_means_that_it_cannot() {
    let check = |offline: bool| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.env_clear().args(["check", MODEL]).env("DATA_DIR", folder.path()).env("AUTH_ENABLED", "false");
        command.env("LLAMA_SERVER", "/bin/true").env("HF_HUB_OFFLINE", offline.to_string());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check(false);
    assert!(code == Some(0) && said.contains("the start downloads it"), "{said}");
    let (code, said) = check(true);
    assert!(code == Some(78) && said.contains("the Hugging Face cache"), "{said}");
}

#[test]
fn a_reload_waits_for_no_download() {
    let hub = MockHub::start();
    let config = |more: &str| format!("models:\n  a: {{file: a.gguf}}\n{more}");
    let gateway = Gateway::builder()
        .fakes(&config(""), &[("a.gguf", json!({}))])
        .set("HF_ENDPOINT", hub.url())
        .set("HF_HUB_OFFLINE", false)
        .start_ready();
    gateway.rewrite_config(&config("  b: {file: Org/Smol-GGUF}\n"));
    let answer = eventually_some("the reload is refused", ANSWERS, || {
        let answer = gateway.client_with(ADMIN).post_json("/reload", &Value::Null);
        (answer.status() != 200).then_some(answer)
    });
    assert!(answer.text().contains("llamagate pull Org/Smol-GGUF"), "{}", answer.text());
    assert!(hub.requests().is_empty());
}

fn run_without_network(arguments: &[&str], variables: &[(&str, &str)], config: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("llamagate.yaml"), config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.env_clear().args(arguments).env("DATA_DIR", folder.path()).env("AUTH_ENABLED", "false");
    command.env("LLAMA_SERVER", "/bin/true").env("PORT", "0").env("HEALTH_PORT", "0").env("DOWNLOAD_RETRIES", "0");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_name_of_the_hub_that_failed_was_said_to_be_no_path() {
    let hub = MockHub::start();
    let (code, said) = run_without_network(&["serve", "Org/None"], &[("HF_ENDPOINT", &hub.url())], "");
    assert_eq!(code, Some(78), "{said}");
    let fault = said.find("has no repository Org/None").unwrap_or_else(|| panic!("{said}"));
    assert!(said[..fault].lines().last().unwrap().len() < 120, "{said}");
    assert!(said.contains("for a private repository set HF_TOKEN") && !said.contains("give the path"), "{said}");
    let (code, said) = run_without_network(&["check", MODEL], &[("HF_HUB_OFFLINE", "1")], "");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("unset HF_HUB_OFFLINE") && !said.contains("llamagate pull"), "{said}");
}

#[test]
fn of_several_companions_that_are_not_there_only_the_projector_was_named() {
    let model = super::support::gateway::test_models().join("tiny-chat.gguf");
    let config = format!(
        "models:\n  a: {{file: '{}', mmproj: no-mmproj.gguf, draft: no-draft.gguf, lora: no-lora.gguf}}\n",
        model.display()
    );
    let (code, said) = run_without_network(&["check"], &[("HF_HUB_OFFLINE", "1")], &config);
    assert_eq!(code, Some(78), "{said}");
    for key in ["mmproj", "draft", "lora[0]"] {
        assert!(said.contains(&format!("models.a.{key}")), "{key}: {said}");
    }
}
