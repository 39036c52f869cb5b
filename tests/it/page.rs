//! The page for browsers: its files over HTTP, and the page as a person uses it in Chromium.

use std::{fs, process::Command, time::Duration};

use serde_json::json;

use super::support::{
    client::{RawClient, Response},
    client_program::{self, run_client},
    gateway::{ADMIN, Gateway, USER, chromium, node_packages, python, smollm, test_models},
    mock_hub::{HubFaults, MockHub},
};
use super::{feed, openapi};

/// What a browser sends with `Accept` for a document.
const DOCUMENT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn code(answer: &Response) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_files_of_the_page_need_no_key_and_are_sent_packed_with_what_protects_them() {
    let gateway = Gateway::builder().start();
    let files = [
        ("/ui/", "text/html; charset=utf-8"),
        ("/ui/app.js", "text/javascript; charset=utf-8"),
        ("/ui/style.css", "text/css; charset=utf-8"),
    ];
    for (path, content_type) in files {
        let client = gateway.anonymous().header("Accept-Encoding", "gzip, br");
        let answer = client.get(path);
        assert_eq!((answer.status(), answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let etag = answer.header("etag").unwrap();
        let known = gateway.anonymous().header("Accept-Encoding", "gzip").header("If-None-Match", etag).get(path);
        assert_eq!((known.status(), known.text().len(), known.header("etag")), (304, 0, Some(etag)), "{path}");
        let plain = gateway.anonymous().get(path);
        assert_eq!((plain.status(), plain.header("content-encoding")), (200, None), "{path}");
        assert_ne!(plain.header("etag"), Some(etag), "{path}: another form has another ETag");
        assert_eq!(gateway.anonymous().send("HEAD", path, b"").status(), 200, "{path}");
    }
    for path in ["/ui/none.js", "/ui/..%2fCargo.toml", "/ui/%2e%2e/Cargo.toml"] {
        assert_eq!(gateway.anonymous().get(path).status(), 404, "{path}");
    }
    assert_eq!(gateway.anonymous().post_json("/ui/", &json!({})).status(), 404);
}

#[test]
fn a_browser_is_led_to_the_page_and_other_clients_get_what_they_got() {
    let gateway = Gateway::builder().start();
    for path in ["/", "/ui"] {
        let led = gateway.anonymous().header("Accept", DOCUMENT).get(path);
        assert_eq!((led.status(), led.header("location")), (307, Some("ui/")), "{path}");
    }
    for accept in ["*/*", "application/json"] {
        let answer = gateway.anonymous().header("Accept", accept).get("/");
        assert_eq!((answer.status(), &answer.json()["name"]), (200, &json!("llamagate")), "{accept}");
    }
    let health = Gateway::builder().start();
    assert_eq!(health.health().header("Accept", DOCUMENT).get("/").status(), 200, "the health port has no page");
}

#[test]
fn a_page_that_is_switched_off_is_not_there() {
    let gateway = Gateway::builder().set("UI_ENABLED", false).start();
    for path in ["/ui", "/ui/", "/ui/app.js"] {
        let answer = gateway.anonymous().header("Accept", DOCUMENT).get(path);
        assert_eq!((answer.status(), code(&answer)), (404, "route_not_found".to_owned()), "{path}");
    }
    assert_eq!(gateway.anonymous().header("Accept", DOCUMENT).get("/").json()["name"], "llamagate");
}

#[test]
fn without_keys_the_page_is_served_under_names_of_this_machine_only() {
    let gateway = Gateway::builder().without_keys().set("UI_HOSTS", "gpu.example.org, .lab.example").start();
    let ask = |path: &str, host: &str| {
        let mut raw = RawClient::connect(gateway.url());
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {DOCUMENT}\r\n\r\n").as_bytes()).unwrap();
        raw.read_response().unwrap()
    };
    for path in ["/ui/", "/ui/app.js", "/usage", "/lb/stats", "/slots"] {
        let answer = ask(path, "evil.example:8000");
        assert_eq!((answer.status(), code(&answer)), (403, "origin_not_allowed".to_owned()), "{path}");
    }
    for host in ["localhost:8000", "127.0.0.1", "box", "box.local", "GPU.example.org:8000", "a.lab.example"] {
        assert_eq!(ask("/ui/", host).status(), 200, "{host}");
        assert_eq!(ask("/lb/stats", host).status(), 200, "{host}");
    }
    assert_eq!(ask("/", "evil.example").status(), 403, "nothing leads a browser on");
    assert_eq!(ask("/v1/models", "evil.example").status(), 200, "clients use any name");
}

/// With a model of each kind.
const FLEET: &str = "
models:
  tiny: {file: tiny-chat.gguf}
  vectors: {file: tiny-embedding.gguf}
  ranks: {file: tiny-rerank.gguf}
";

#[test]
fn an_administrator_chats_loads_and_looks_at_every_page() {
    let config = format!("{FLEET}  smol: {{file: {}, aliases: [gpt-4o-mini]}}\n", smollm().display());
    let gateway = Gateway::builder().reals(&config).set("CTX", 2048).set("MAX_CONCURRENT_REQUESTS", 2).start();
    use_page(&gateway, "admin", ADMIN);
}

#[test]
fn a_key_for_inference_sees_what_it_may() {
    let gateway = Gateway::builder().reals(FLEET).set("CTX", 2048).start();
    use_page(&gateway, "inference", USER);
}

#[test]
fn without_keys_no_key_is_asked_for_and_the_page_may_load() {
    let gateway = Gateway::builder().reals(FLEET).set("CTX", 2048).without_keys().start();
    use_page(&gateway, "keyless", "");
}

#[test]
fn a_model_is_fetched_cancelled_and_deleted() {
    let hub = MockHub::start();
    hub.add("Org/Smol-GGUF", "Smol-Q4_1.gguf", fs::read(smollm()).unwrap());
    hub.add("Org/Gated-Tiny-GGUF", "Gated-Tiny-Q8_0.gguf", fs::read(test_models().join("tiny-chat.gguf")).unwrap());
    hub.add("Org/Tiny-GGUF", "Tiny-Q8_0.gguf", fs::read(test_models().join("tiny-chat.gguf")).unwrap());
    // Slow enough that a person can cancel.
    hub.set_faults(HubFaults { pause: Duration::from_millis(20), ..HubFaults::default() });
    let cache = tempfile::tempdir().unwrap();
    let builder = Gateway::builder().reals("").set("SERVE_MODELS_DIR", true).set("CTX", 2048);
    let builder = builder.set("HF_HUB_CACHE", cache.path().display()).set("HF_ENDPOINT", hub.url());
    let gateway = builder.set("HF_HUB_OFFLINE", false).set("DOWNLOAD_RETRIES", 0).start();
    use_page(&gateway, "fetch", ADMIN);
}

#[test]
fn a_load_is_followed_with_its_bytes_and_the_time_that_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let model = feed::large_model(folder.path());
    let gateway = Gateway::builder().set("MODEL_PATH", model.path.display()).start();
    use_page(&gateway, "loading", ADMIN);
}

#[test]
fn a_call_is_tried_out_on_the_page_of_the_api_with_a_key() {
    let gateway = Gateway::builder().reals(openapi::MODELS).set("CTX", 2048).start();
    gateway.wait_ready();
    run_in_browser("api_pages.js", &[gateway.url(), USER]);
}

/// Uses the page as `tests/clients/node/page.js` does in this role.
#[track_caller]
fn use_page(gateway: &Gateway, role: &str, key: &str) {
    run_in_browser("page.js", &[role, gateway.url(), key]);
}

/// Runs a program of `tests/clients/node` that uses a browser. Says so where there is none.
#[track_caller]
fn run_in_browser(program: &str, arguments: &[&str]) {
    let Some(chromium) = chromium() else {
        eprintln!("no Chromium here: the page was not looked at");
        return;
    };
    let mut node = Command::new("node");
    node.env("NODE_PATH", node_packages()).env("CHROMIUM", chromium).env("PYTHON", python());
    node.arg(client_program::script("node").join(program)).args(arguments);
    run_client(&mut node);
}
