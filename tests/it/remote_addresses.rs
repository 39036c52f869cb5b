//! Addresses of remote backends: which URL a request asks, and the probe.

use serde_json::json;

use super::support::{
    gateway::{ADMIN, Gateway},
    remote::{Remote, Reply},
    wait::{READY, SOON, eventually},
};

/// Starts a gateway with one remote backend, whose address has this path and whose entry has these parameters.
fn ready(remote: &Remote, path: &str, params: &str) -> Gateway {
    let base = remote.url();
    let config =
        format!("model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{base}{path}\"{params}}}}}\n");
    let gateway = Gateway::builder().fakes(&config, &[]).set("HEALTH_CHECK_INTERVAL", "1h").start_ready();
    eventually("the backend is ready", READY, || {
        gateway.client_with(ADMIN).get("/lb/stats").json()["models"][0]["workers"][0]["state"] == "ready"
    });
    gateway
}

/// Regression: `/api/paas/v4` was asked at `/api/paas/v4/v1/chat/completions`, and twins of llama-server's routes arrived
/// as they came.
#[test]
fn a_backend_is_asked_below_its_own_path_by_the_routes_that_every_server_has() {
    let body = json!({"model": "m", "messages": [], "prompt": "x", "input": "x", "query": "x", "documents": ["a"], "max_tokens": 1});
    for (path, params, api, root) in [
        ("", "", "/v1", ""),
        ("/", "", "/v1", ""),
        ("/v1", "", "/v1", ""),
        ("/v1/", "", "/v1", ""),
        ("/api/paas/v4", "", "/api/paas/v4", "/api/paas"),
        ("/v1beta/openai/", "", "/v1beta/openai", "/v1beta/openai"),
        ("/api/v3", "", "/api/v3", "/api"),
        ("/openai", "", "/openai", "/openai"),
        ("", ", api_path: /", "", ""),
        ("/", ", api_path: \"\"", "", ""),
        ("", ", model: infinity/bge", "", ""),
        ("/x", ", api_path: /v2", "/x/v2", "/x"),
    ] {
        let remote = Remote::start(Reply::Serve);
        let gateway = ready(&remote, path, params);
        let probed = if params.contains("infinity") { "/health".to_owned() } else { format!("{api}/models") };
        assert_eq!(remote.probed(), [probed], "{path} {params}");
        for (asked, route) in [
            ("/v1/chat/completions", "/chat/completions"),
            ("/chat/completions?a=%20b", "/chat/completions?a=%20b"),
            ("/v1/completions", "/completions"),
            ("/completions", "/completions"),
            ("/v1/embeddings", "/embeddings"),
            ("/embeddings", "/embeddings"),
            ("/v1/rerank", "/rerank"),
            ("/rerank", "/rerank"),
            ("/reranking?x", "/rerank"),
            ("/v1/reranking", "/rerank"),
            ("/v1/responses", "/responses"),
            ("/responses", "/responses"),
            ("/v1/messages", "/messages"),
        ] {
            let ranks = json!({"model": "m", "query": "x", "documents": ["a"]});
            let answer = gateway.client().post_json(asked, if route == "/rerank" { &ranks } else { &body });
            assert_eq!(answer.status(), 200, "{path} {params} {asked}: {}", answer.text());
            assert_eq!(remote.received().last().unwrap().path, format!("{api}{route}"), "{path} {params} {asked}");
        }
        gateway.client().post_json("/tokenize", &body);
        assert_eq!(remote.received().last().unwrap().path, format!("{root}/tokenize"), "{path} {params}");
    }
}

/// Regression: the 404 of a probe at a wrong address counted as ready, without a word.
#[test]
fn a_probe_that_is_answered_with_404_is_logged_once() {
    let remote = Remote::start(Reply::Serve);
    remote.set_probe_status(404);
    let base = remote.url();
    let config = format!("model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{base}/wrong\"}}}}\n");
    let gateway = Gateway::builder().fakes(&config, &[]).set("HEALTH_CHECK_INTERVAL", "1s").start_ready();
    eventually("it is probed a few times", READY, || remote.probed().len() > 2);
    let told = || {
        let log = gateway.output();
        log.lines()
            .filter(|line| line.contains(" WARN ") && line.contains("/wrong/models") && line.contains("api_base"))
            .count()
    };
    eventually("it is logged", SOON, || told() > 0);
    assert_eq!(told(), 1, "{}", gateway.output());
    assert_eq!(
        gateway.client().post_json("/v1/chat/completions", &json!({"model": "m", "messages": []})).status(),
        200
    );
}
