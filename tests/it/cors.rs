//! CORS: the headers for pages from other origins, on every kind of response.

use serde_json::{Value, json};

use super::support::{
    client::{Head, RawClient},
    gateway::{ADMIN, Gateway, LIMITED},
};

const CHAT: &str = "/v1/chat/completions";
const PAGE: &str = "https://app.example.org";

fn ready(origins: &str) -> Gateway {
    let gateway = Gateway::builder().set("CORS_ORIGINS", origins).set("MAX_REQUEST_BODY_SIZE", "1000").start();
    gateway.wait_ready();
    gateway
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

fn assert_readable(head: &Head, what: &str) {
    assert_eq!(head.header("access-control-allow-origin"), Some(PAGE), "{what}: {head:?}");
    assert_eq!(head.header("access-control-allow-credentials"), Some("true"), "{what}");
    assert_eq!(head.header("vary"), Some("Origin"), "{what}");
    assert!(head.header("access-control-expose-headers").is_some_and(|names| names.contains("Retry-After")), "{what}");
}

#[test]
fn every_kind_of_response_can_be_read_by_a_page_of_an_allowed_origin() {
    let gateway = ready("https://app.example.org, http://localhost:3000");
    let from = |client: super::support::client::Client| client.header("Origin", PAGE);
    let client = from(gateway.client());
    assert_readable(&client.post_json(CHAT, &chat(false)).head, "a response");
    assert_readable(&client.stream(CHAT, &chat(true)).head, "a stream");
    assert_readable(&client.get("/health").head, "/health");
    assert_readable(&client.get("/nothing").head, "404");
    assert_readable(&client.send("POST", CHAT, &[b'x'; 1001]).head, "413");
    assert_readable(&from(gateway.anonymous()).get("/v1/models").head, "401");
    assert_readable(&client.post_json("/v1/embeddings", &json!({"input": "x"})).head, "an error of llama-server");
    let limited = from(gateway.client_with(LIMITED));
    let answers: Vec<_> = (0..3).map(|_| limited.get("/v1/models")).collect();
    assert_eq!(answers[2].status(), 429);
    assert_readable(&answers[2].head, "429");
    let mut raw = RawClient::connect(gateway.url());
    let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\n\r\n", "x".repeat(9_000));
    raw.write(head.as_bytes()).unwrap();
    let answer = raw.read_response().unwrap();
    assert_eq!(answer.status(), 414);
    // The request line is too long, so the Origin header behind it was never read.
    assert_eq!(answer.header("vary"), Some("Origin"));
}

#[test]
fn a_preflight_needs_no_key_and_gets_the_allowed_methods_and_headers() {
    let gateway = ready(PAGE);
    let preflight = gateway
        .anonymous()
        .header("Origin", PAGE)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type,x-stainless-os")
        .send("OPTIONS", CHAT, b"");
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization,content-type,x-stainless-os"));
    assert!(preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert!(preflight.header("access-control-max-age").is_some());
    for origin in ["https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null"] {
        let preflight = gateway.anonymous().header("Origin", origin).send("OPTIONS", CHAT, b"");
        assert_eq!(preflight.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(preflight.header("access-control-allow-headers"), None, "{origin}");
        assert_eq!(preflight.header("vary"), Some("Origin"));
        let answer = gateway.client().header("Origin", origin).get("/v1/models");
        assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (200, None), "{origin}");
    }
}

#[test]
fn with_any_origin_credentials_are_not_allowed() {
    let gateway = ready("*");
    let answer = gateway.client().header("Origin", PAGE).get("/v1/models");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn without_cors_origins_no_cors_header_is_sent_and_a_preflight_gets_404() {
    let gateway = ready("");
    let answer = gateway.client().header("Origin", PAGE).get("/v1/models");
    assert!(answer.head.headers.iter().all(|(name, _)| !name.to_lowercase().starts_with("access-control-")));
    assert_eq!(gateway.anonymous().header("Origin", PAGE).send("OPTIONS", CHAT, b"").status(), 404);
}

/// Regression: with AUTH_ENABLED=false a page of any origin could chat, unload models and reload the configuration.
#[test]
fn without_keys_a_page_of_another_origin_can_neither_chat_nor_give_orders() {
    let gateway = Gateway::builder().without_keys().set("CORS_ORIGINS", PAGE).start_ready();
    let orders = ["/v1/models/dummy/unload", "/v1/models/dummy/load", "/reload"];
    // What a page can send without a preflight.
    let page = |origin| gateway.anonymous().header("Content-Type", "text/plain").header("Origin", origin);
    let code = |answer: &super::support::client::Response| answer.json()["error"]["code"].clone();
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1", "https://app.example.org.evil.example"] {
        for path in orders.into_iter().chain([CHAT]) {
            let answer = page(origin).post_json(path, &chat(false));
            assert_eq!((answer.status(), code(&answer)), (403, json!("origin_not_allowed")), "{origin} {path}");
        }
        assert_eq!(page(origin).get("/v1/models").status(), 200, "{origin}: reading is left to CORS");
    }
    let cross_site = gateway.anonymous().header("Sec-Fetch-Site", "cross-site");
    assert_eq!(cross_site.post_json(CHAT, &chat(false)).status(), 403);
    assert!(gateway.journal().requests(CHAT).is_empty(), "nothing reached llama-server");

    let own = gateway.url().to_owned();
    for origin in [PAGE, &own] {
        let answer = page(origin).post_json(CHAT, &chat(false));
        assert_eq!(answer.status(), 200, "{origin}: {}", answer.text());
    }
    for path in orders {
        let answer = page(PAGE).post_json(path, &json!({}));
        assert_eq!((answer.status(), code(&answer)), (403, json!("origin_not_allowed")), "{path}");
        let answer = page(&own).post_json(path, &json!({}));
        assert!(matches!(answer.status(), 200 | 202), "{path}: the page of the gateway itself: {}", answer.text());
    }
    // The name of a page whose name server says that it is this machine.
    let rebound = format!("POST {} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", orders[0]);
    let mut raw = RawClient::connect(gateway.url());
    raw.write(rebound.as_bytes()).unwrap();
    let answer = raw.read_response().unwrap();
    assert_eq!((answer.status(), code(&answer)), (403, json!("loopback_required")));
    let proxied = gateway.anonymous().header("X-Forwarded-For", "192.0.2.1").post_json(orders[0], &json!({}));
    assert_eq!((proxied.status(), code(&proxied)), (403, json!("loopback_required")));

    assert_eq!(gateway.anonymous().post_json("/reload", &json!({})).status(), 200);
    assert_eq!(gateway.anonymous().post_json(orders[0], &json!({})).status(), 202);
}

/// Regression: a page whose name server said that its name is this machine's was of the same origin, so that it could read
/// what is for operators.
#[test]
fn without_keys_a_page_that_gives_its_own_name_to_this_machine_is_refused() {
    let gateway = Gateway::builder().without_keys().start_ready();
    let ask = |url: &str, method: &str, path: &str, host: &str| {
        let body = chat(false).to_string();
        let length = if method == "POST" { body.len() } else { 0 };
        let mut raw = RawClient::connect(url);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{}",
            &body[..length]
        );
        raw.write(head.as_bytes()).unwrap();
        raw.read_response().unwrap()
    };
    for (method, path) in [("GET", "/slots"), ("GET", "/lb/stats")] {
        let answer = ask(gateway.url(), method, path, "evil.example:8000");
        assert_eq!((answer.status(), &answer.json()["error"]["code"]), (403, &json!("origin_not_allowed")), "{path}");
        let text = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(text.contains("'evil.example'") && text.contains("CORS_ORIGINS"), "{text}");
        assert_eq!(ask(gateway.url(), method, path, "llamagate:8000").status(), 200, "{path}: a container's name");
    }
    for (method, path) in [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/metrics")] {
        assert_eq!(ask(gateway.url(), method, path, "llm.example:8000").status(), 200, "{path}: clients use any name");
    }
    for path in ["/metrics", "/health"] {
        assert_eq!(ask(gateway.health_url(), "GET", path, "llm.example").status(), 200, "{path}");
    }
}

#[test]
fn with_keys_the_origin_of_a_page_does_not_matter() {
    let gateway = ready("");
    let client = gateway.client_with(ADMIN).header("Origin", "https://evil.example");
    assert_eq!(client.post_json(CHAT, &chat(false)).status(), 200);
    assert_eq!(client.header("X-Forwarded-For", "192.0.2.1").post_json("/reload", &json!({})).status(), 200);
}
