//! What the hub has, over HTTP: the search, the models of a repository, and whether they fit.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::client::{Client, Response};
use super::support::gateway::{ADMIN, Builder, Gateway, smollm, test_models};
use super::support::mock_hub::{HubFaults, MockHub};
use super::support::wait::{REAL_MODEL_ANSWERS, eventually};

const TOKEN: &str = "hf_8Qn2mylongtokenZ";
const SMOL: &str = "Org/Smol-GGUF";

/// A hub, and an empty cache of it.
struct Setup {
    hub: MockHub,
    cache: TempDir,
}

impl Setup {
    fn new() -> Self {
        let hub = MockHub::start();
        let tiny = fs::read(test_models().join("tiny-chat.gguf")).unwrap();
        hub.add(SMOL, "Smol-Q4_1.gguf", fs::read(smollm()).unwrap());
        hub.add(SMOL, "Smol-Q2_K.gguf", tiny.clone());
        hub.add(SMOL, "README.md", b"# Smol".to_vec());
        hub.add("Org/Tiny-GGUF", "Tiny-Q8_0.gguf", tiny);
        Self { hub, cache: tempfile::tempdir().unwrap() }
    }

    fn gateway(&self) -> Builder {
        Gateway::builder()
            .reals("models:\n  mine: {file: tiny-chat.gguf, ctx: 512, parallel: 3}\n")
            .set("HF_HUB_CACHE", self.cache.path().display())
            .set("HF_ENDPOINT", self.hub.url())
            .set("HF_HUB_OFFLINE", false)
            .set("DOWNLOAD_RETRIES", 0)
    }
}

fn admin(gateway: &Gateway) -> Client {
    gateway.client_with(ADMIN)
}

#[track_caller]
fn get(gateway: &Gateway, path: &str) -> Value {
    let answer = admin(gateway).get(path);
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    answer.json()
}

fn code(answer: &Response) -> (u16, String) {
    (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Returns the model of a repository with this name.
fn model_of(repository: &Value, name: &str) -> Value {
    let models = repository["models"].as_array().unwrap();
    models.iter().find(|model| model["model"] == name).unwrap_or_else(|| panic!("{repository}")).clone()
}

#[test]
fn a_search_finds_repositories_with_what_a_chooser_needs() {
    let setup = Setup::new();
    let gateway = setup.gateway().set("HF_TOKEN", TOKEN).start();
    let found = get(&gateway, "/hub/models?q=smol%20gguf");
    let expected = json!({
        "id": SMOL, "downloads": 1000, "likes": 7, "updated_at": "2026-01-02T03:04:05Z", "gated": false,
        "parameters": 134_515_008, "architecture": "llama", "context_length": 8192,
    });
    assert_eq!(found, json!({"object": "list", "data": [expected], "has_more": false}));
    let asked = setup.hub.requests();
    assert!(asked.iter().all(|request| request.authorization.as_deref() == Some(&format!("Bearer {TOKEN}"))));
    assert!(asked[0].path.contains("filter=gguf") && asked[0].path.contains("limit=21"), "{}", asked[0].path);
    let all = get(&gateway, "/hub/models?limit=1");
    assert_eq!((all["data"].as_array().unwrap().len(), &all["has_more"]), (1, &json!(true)));
    assert_eq!(get(&gateway, "/hub/models?q=nothing-like-it")["data"], json!([]));
    // Regression: the gateway connected to any host that a question named.
    let address = format!("/fit?model=https://127.0.0.1:9/m.gguf%23sha256={}", "a".repeat(64));
    for (path, named) in [
        ("/hub/models?limit=0", "limit"),
        ("/hub/models?words=a", "'words'"),
        ("/hub/models/Org?fit=true", "ORG/NAME"),
        ("/fit", "model is missing"),
        ("/fit?model=mine&memory=lots", "memory"),
        ("/fit?model=/etc/passwd", "/etc/passwd"),
        ("/fit?model=../secret.gguf", "../secret.gguf"),
        (address.as_str(), "no addresses of files"),
    ] {
        let refused = admin(&gateway).get(path);
        assert_eq!(refused.status(), 400, "{path}: {}", refused.text());
        assert!(refused.text().contains(named), "{path}: {}", refused.text());
    }
    for path in ["/hub/models", "/hub/models/Org/Smol-GGUF", "/fit?model=mine"] {
        assert_eq!(code(&gateway.client().get(path)), (403, "scope_required".to_owned()), "{path}");
        assert_eq!(gateway.anonymous().get(path).status(), 401, "{path}");
    }
}

#[test]
fn the_models_of_a_repository_are_told_with_sizes_and_what_fits_from_one_header() {
    let setup = Setup::new();
    let gateway = setup.gateway().start();
    let path = format!("/hub/models/{SMOL}");
    let plain = get(&gateway, &path);
    assert_eq!(setup.hub.bytes_sent(), 0, "sizes need no bytes of files");
    let size = fs::metadata(smollm()).unwrap().len();
    let listed = model_of(&plain, "Org/Smol-GGUF:Q4_1");
    assert_eq!((&listed["size_bytes"], &listed["here"]), (&json!(size), &json!(false)), "{plain}");
    assert_eq!((&listed["quantization"], &listed["files"]), (&json!("Q4_1"), &json!(["Smol-Q4_1.gguf"])));
    assert!(listed["fit"].is_null() && plain["models"].as_array().unwrap().len() == 2, "{plain}");
    let with_fit = get(&gateway, &(path.clone() + "?fit=true"));
    let told = model_of(&with_fit, "Org/Smol-GGUF:Q4_1")["fit"].clone();
    assert_eq!((&told["verdict"], &told["ways"]), (&json!("fits"), &json!([])), "{told}");
    assert!((setup.hub.bytes_sent() as u64) < size, "only a header was read");
    // Brought to the disk, it is shown as being here.
    let ordered = admin(&gateway).post_json("/v1/models/download", &json!({"model": "Org/Smol-GGUF:Q4_1"}));
    assert_eq!(ordered.status(), 202, "{}", ordered.text());
    eventually("the model is here", REAL_MODEL_ANSWERS, || {
        model_of(&get(&gateway, &path), "Org/Smol-GGUF:Q4_1")["here"] == true
    });
}

/// Runs `llamagate fit --json` with the settings of a gateway.
fn fit_of_program(setup: &Setup, name: &str, memory: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.args(["fit", name, "--memory", memory, "--json", "--ctx", "4096"]).env_clear().stderr(Stdio::inherit());
    command.env("HF_ENDPOINT", setup.hub.url()).env("HF_HUB_CACHE", setup.cache.path());
    command.env("MODELS_DIR", setup.cache.path()).env("DATA_DIR", setup.cache.path()).env("NGL", "0");
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

#[test]
fn what_fits_is_what_the_program_says() {
    let setup = Setup::new();
    let gateway = setup.gateway().set("NGL", 0).start();
    let name = "Org/Smol-GGUF:Q4_1";
    for (memory, verdict) in [("8GiB", "fits"), ("150MiB", "partly"), ("8MiB", "no")] {
        let over_http = get(&gateway, &format!("/fit?model={name}&memory={memory}&ctx=4096"));
        assert_eq!(over_http["verdict"], verdict, "{over_http}");
        assert_eq!(over_http["ways"].as_array().unwrap().is_empty(), verdict != "partly", "{over_http}");
        let mut by_program = fit_of_program(&setup, name, memory);
        by_program["asked"] = over_http["asked"].clone();
        assert_eq!(over_http, by_program, "{memory}");
    }
    // A served model by its id, a file of the folder by its name, with the memory that the service may use.
    let mine = get(&gateway, "/fit?model=mine");
    assert_eq!((&mine["fits"], &mine["memory_source"]), (&json!(true), &json!("the memory budget of the service")));
    // Regression: a served model was compared with the settings for all models.
    assert_eq!(mine["asked"], json!({"ctx": 512, "parallel": 3}), "{mine}");
    assert_eq!(get(&gateway, "/fit?model=mine&ctx=256")["asked"], json!({"ctx": 256, "parallel": 3}));
    assert_eq!(get(&gateway, "/fit?model=tiny-embedding")["fits"], true);
    let refused = admin(&gateway).get("/fit?model=no-such-model");
    assert_eq!(code(&refused).0, 400, "{}", refused.text());
    assert!(!refused.text().contains(&setup.cache.path().display().to_string()), "{}", refused.text());
}

#[test]
fn a_fault_of_the_hub_is_named() {
    let setup = Setup::new();
    let gateway = setup.gateway().set("HF_TOKEN", TOKEN).start();
    let ask = |path: &str| admin(&gateway).get(path);
    assert_eq!(code(&ask("/hub/models/Org/None-GGUF")), (404, "repository_not_found".to_owned()));
    assert_eq!(code(&ask("/fit?model=Org/None-GGUF:Q8_0")), (404, "repository_not_found".to_owned()));
    assert_eq!(code(&ask("/fit?model=Org/Smol-GGUF:Q9_9")), (404, "repository_not_found".to_owned()));
    for (head, body, expected, word) in [
        ("200 OK", "<html>", (502, "hub_error"), "not readable"),
        ("401 Unauthorized", r#"{"error":"Invalid credentials"}"#, (502, "hub_error"), "rejects the token"),
        ("429 Too Many Requests", "", (503, "hub_unavailable"), "limits how often"),
        ("503 Service Unavailable", "down", (503, "hub_unavailable"), "answers 503"),
        ("302 Found\r\nLocation: /api/models", "", (502, "hub_error"), "redirects in a circle"),
    ] {
        setup
            .hub
            .set_faults(HubFaults { hub_answer: Some((head.to_owned(), body.to_owned())), ..HubFaults::default() });
        let refused = ask("/hub/models?q=smol");
        assert_eq!(code(&refused), (expected.0, expected.1.to_owned()), "{head}: {}", refused.text());
        assert!(refused.text().contains(word) && !refused.text().contains(TOKEN), "{head}: {}", refused.text());
    }
    setup.hub.set_faults(HubFaults { token: Some("another".to_owned()), ..HubFaults::default() });
    for path in ["/hub/models/Org/Smol-GGUF", "/fit?model=Org/Smol-GGUF:Q4_1"] {
        let gated = ask(path);
        assert_eq!(code(&gated), (403, "repository_gated".to_owned()), "{path}: {}", gated.text());
        assert!(gated.text().contains("Org/Smol-GGUF"), "{}", gated.text());
    }
}

/// Regression: a smallest file that could not be read refused the whole question, and a later one ended it.
#[test]
fn a_file_that_cannot_be_read_leaves_the_other_models_of_a_repository_compared() {
    let setup = Setup::new();
    let smol = fs::read(smollm()).unwrap();
    setup.hub.add("Org/Mixed-GGUF", "Broken-Q2_K.gguf", b"no model".to_vec());
    setup.hub.add("Org/Mixed-GGUF", "Damaged-Q2_K.gguf", vec![0; smol.len() - 1]);
    setup.hub.add("Org/Mixed-GGUF", "Smol-Q4_1.gguf", smol);
    setup.hub.add("Org/Broken-GGUF", "Broken-Q2_K.gguf", b"no model".to_vec());
    let gateway = setup.gateway().start();
    let mixed = get(&gateway, "/hub/models/Org/Mixed-GGUF?fit=true");
    let models = mixed["models"].as_array().unwrap();
    let compared: Vec<_> =
        models.iter().map(|one| (one["files"][0].as_str().unwrap(), one["fit"].is_object())).collect();
    let expected = [("Broken-Q2_K.gguf", false), ("Damaged-Q2_K.gguf", false), ("Smol-Q4_1.gguf", true)];
    assert_eq!(compared, expected, "{mixed}");
    let none = admin(&gateway).get("/hub/models/Org/Broken-GGUF?fit=true");
    assert_eq!(code(&none), (502, "hub_error".to_owned()), "{}", none.text());
}

/// Regression: without keys any page and any machine could make the gateway ask the hub.
#[test]
fn without_keys_the_hub_is_asked_for_this_machine_alone() {
    let setup = Setup::new();
    let gateway = setup.gateway().without_keys().start();
    for path in ["/hub/models?q=smol", "/hub/models/Org/Smol-GGUF?fit=true", "/fit?model=Org/Smol-GGUF:Q4_1"] {
        for (name, value, expected) in [
            ("Sec-Fetch-Site", "cross-site", "origin_not_allowed"),
            ("Origin", "https://evil.example", "origin_not_allowed"),
            ("X-Forwarded-For", "192.0.2.1", "loopback_required"),
        ] {
            let refused = gateway.anonymous().header(name, value).get(path);
            assert_eq!(code(&refused), (403, expected.to_owned()), "{path} {name}: {}", refused.text());
        }
    }
    assert!(setup.hub.requests().is_empty());
    let own = gateway.anonymous().header("Sec-Fetch-Site", "same-origin").get("/hub/models?q=smol");
    assert_eq!(own.status(), 200, "{}", own.text());
}

#[test]
fn without_the_network_the_hub_is_not_asked() {
    let setup = Setup::new();
    let gateway = setup.gateway().set("HF_HUB_OFFLINE", true).start();
    for path in ["/hub/models?q=smol", "/hub/models/Org/Smol-GGUF", "/fit?model=Org/Smol-GGUF:Q4_1"] {
        let refused = admin(&gateway).get(path);
        assert_eq!(code(&refused), (403, "downloads_off".to_owned()), "{path}: {}", refused.text());
        assert!(refused.text().contains("HF_HUB_OFFLINE"), "{}", refused.text());
    }
    assert!(setup.hub.requests().is_empty());
    assert_eq!(get(&gateway, "/fit?model=mine")["fits"], true, "what is here needs no network");
}
