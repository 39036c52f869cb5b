//! Pages from other origins: what a browser is told, on every kind of answer.

use serde_json::{Value, json};

use super::support::{
    client::{Head, RawClient},
    gateway::{Gateway, LIMITED},
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

fn is_readable(head: &Head, what: &str) {
    assert_eq!(head.header("access-control-allow-origin"), Some(PAGE), "{what}: {head:?}");
    assert_eq!(head.header("access-control-allow-credentials"), Some("true"), "{what}");
    assert_eq!(head.header("vary"), Some("Origin"), "{what}");
    assert!(head.header("access-control-expose-headers").is_some_and(|names| names.contains("Retry-After")), "{what}");
}

#[test]
fn every_kind_of_answer_can_be_read_by_a_page_that_may_call() {
    let gateway = ready("https://app.example.org, http://localhost:3000");
    let from = |client: super::support::client::Client| client.header("Origin", PAGE);
    let client = from(gateway.client());
    is_readable(&client.post_json(CHAT, &chat(false)).head, "an answer");
    is_readable(&client.stream(CHAT, &chat(true)).head, "a stream");
    is_readable(&client.get("/health").head, "/health");
    is_readable(&client.get("/nothing").head, "404");
    is_readable(&client.send("POST", CHAT, &[b'x'; 1001]).head, "413");
    is_readable(&from(gateway.anonymous()).get("/v1/models").head, "401");
    is_readable(&client.post_json("/v1/embeddings", &json!({"input": "x"})).head, "an error of llama-server");
    let limited = from(gateway.client_with(LIMITED));
    let answers: Vec<_> = (0..3).map(|_| limited.get("/v1/models")).collect();
    assert_eq!(answers[2].status(), 429);
    is_readable(&answers[2].head, "429");
    let mut raw = RawClient::connect(gateway.url());
    let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\n\r\n", "x".repeat(9_000));
    raw.write(head.as_bytes()).unwrap();
    let answer = raw.read_response().unwrap();
    assert_eq!(answer.status(), 414);
    // The origin stands behind the line that is too long and was never read.
    assert_eq!(answer.header("vary"), Some("Origin"));
}

#[test]
fn a_preflight_needs_no_key_and_names_what_is_allowed() {
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
    for stranger in ["https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null"] {
        let preflight = gateway.anonymous().header("Origin", stranger).send("OPTIONS", CHAT, b"");
        assert_eq!(preflight.header("access-control-allow-origin"), None, "{stranger}");
        assert_eq!(preflight.header("access-control-allow-headers"), None, "{stranger}");
        assert_eq!(preflight.header("vary"), Some("Origin"));
        let answer = gateway.client().header("Origin", stranger).get("/v1/models");
        assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (200, None), "{stranger}");
    }
}

#[test]
fn any_origin_means_without_credentials() {
    let gateway = ready("*");
    let answer = gateway.client().header("Origin", PAGE).get("/v1/models");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn without_the_setting_there_is_no_such_header_and_no_preflight() {
    let gateway = ready("");
    let answer = gateway.client().header("Origin", PAGE).get("/v1/models");
    assert!(answer.head.headers.iter().all(|(name, _)| !name.to_lowercase().starts_with("access-control-")));
    assert_eq!(gateway.anonymous().header("Origin", PAGE).send("OPTIONS", CHAT, b"").status(), 404);
}
