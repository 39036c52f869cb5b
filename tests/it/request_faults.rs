//! Errors that name the request's own fault, whatever status a backend gives them: 400 for the client, and no failure of
//! the backend.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Builder, Gateway},
    real_server::RealServer,
    remote::{Remote, Reply},
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const JSON: &str = "Content-Type: application/json";

/// A PNG of one pixel.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

/// Returns requests that the real llama-server answers with 5xx, and words of its answers: for a model `chat`, `embed` or
/// `rank`.
fn faults() -> Vec<(&'static str, Value, &'static str)> {
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let image = json!([{"type": "image_url", "image_url": {"url": PIXEL}}]);
    let sound = json!([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]);
    let long = "word ".repeat(200);
    vec![
        (CHAT, json!({"model": "chat", "messages": user(image.clone())}), "image input is not supported"),
        (
            CHAT,
            json!({"model": "chat", "messages": user(image.clone()), "stream": true}),
            "image input is not supported",
        ),
        (CHAT, json!({"model": "chat", "messages": user(sound)}), "audio input is not supported"),
        (
            CHAT,
            json!({"model": "chat", "messages": user(json!("x")), "tools": [{"type": "x"}]}),
            "Unsupported tool type",
        ),
        (CHAT, json!({"model": "chat", "messages": user(json!("x")), "tools": "x"}), "to be an array"),
        (CHAT, json!({"model": "chat", "messages": [{"content": "x"}]}), "Missing 'role'"),
        (
            CHAT,
            json!({"model": "chat", "messages": user(json!("x")), "reasoning_format": "x"}),
            "Unknown reasoning format",
        ),
        ("/v1/messages", json!({"model": "chat", "max_tokens": 2}), "'messages' is required"),
        ("/v1/messages/count_tokens", json!({"model": "chat"}), "'messages' is required"),
        (
            "/v1/responses",
            json!({"model": "chat", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]}),
            "image input is not supported",
        ),
        ("/infill", json!({"model": "chat", "input_prefix": "a", "input_suffix": "b"}), "not supported by this model"),
        ("/detokenize", json!({"model": "chat", "tokens": [99_999_999]}), "range_check"),
        ("/v1/embeddings", json!({"model": "embed", "input": long}), "too large to process"),
        ("/v1/embeddings", json!({"model": "embed", "input": ["a", long]}), "too large to process"),
        ("/v1/rerank", json!({"model": "rank", "query": "x", "documents": ["a", long]}), "too large to process"),
    ]
}

fn worker(gateway: &Gateway, model: &str) -> Value {
    let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
    let mut models = stats["models"].as_array().unwrap().iter();
    models.find(|one| one["id"] == model).unwrap()["workers"][0].clone()
}

fn serve(client: &Client, model: &str) -> Response {
    match model {
        "chat" => client
            .post_json(CHAT, &json!({"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1})),
        "embed" => client.post_json("/v1/embeddings", &json!({"model": model, "input": "x"})),
        _ => client.post_json("/v1/rerank", &json!({"model": model, "query": "x", "documents": ["a"]})),
    }
}

#[track_caller]
fn assert_told(answer: &Response, path: &str, words: &str) {
    assert_eq!(answer.status(), 400, "{path}: {}", answer.text());
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().unwrap().contains(words), "{path}: {error}");
    match path.starts_with("/v1/messages") {
        true => assert_eq!(answer.json()["type"], "error", "{path}: {}", answer.text()),
        false => assert_eq!(error["code"], "bad_request", "{path}: {error}"),
    }
    assert_eq!(error["type"], "invalid_request_error", "{path}: {error}");
    assert!(answer.header("x-llamagate-model").is_some() && answer.header("x-llamagate-worker") == Some("0"), "{path}");
}

/// Regression: three requests with an image, from anybody, opened the breaker of a llama-server behind the gateway for
/// everybody.
#[test]
fn mistakes_of_one_client_close_no_llama_server_that_is_a_remote_backend() {
    let chat = RealServer::start("tiny-chat.gguf", &["--jinja"]);
    let embed = RealServer::start("tiny-embedding.gguf", &["--embeddings"]);
    let rank = RealServer::start("tiny-rerank.gguf", &["--reranking"]);
    let entry = |name: &str, mode: &str, server: &RealServer| {
        let (info, base) = (format!("model_info: {{mode: {mode}}}"), server.url());
        format!("  - {{model_name: {name}, {info}, litellm_params: {{api_base: \"{base}\"}}}}\n")
    };
    let entries = [entry("chat", "chat", &chat), entry("embed", "embedding", &embed), entry("rank", "rerank", &rank)];
    let config = format!("model_list:\n{}", entries.concat());
    let gateway =
        Gateway::builder().fakes(&config, &[]).set("ALLOWED_FAILS", 1).set("COOLDOWN_TIME", "1h").start_ready();
    let client = gateway.client();
    for model in ["chat", "embed", "rank"] {
        eventually("the backend is ready", READY, || worker(&gateway, model)["state"] == "ready");
    }
    for (path, body, words) in faults() {
        let answer = client.post_json(path, &body);
        assert_told(&answer, path, words);
        let worker = worker(&gateway, body["model"].as_str().unwrap());
        assert_eq!((&worker["breaker"], &worker["failures"]), (&json!("closed"), &json!(0)), "{path} {body}");
    }
    for model in ["chat", "embed", "rank"] {
        let good = serve(&client, model);
        assert_eq!(good.status(), 200, "{}", good.text());
    }
}

/// Regression: llama-server answers 500 to many mistakes of clients, and their libraries sent them again and again.
#[test]
fn mistakes_of_a_client_are_400_with_a_llama_server_of_our_own() {
    let config = "
models:
  chat: {file: tiny-chat.gguf, args: [--jinja]}
  embed: {file: tiny-embedding.gguf, args: [--batch-size, \"64\", --ubatch-size, \"64\"]}
  rank: {file: tiny-rerank.gguf, args: [--batch-size, \"64\", --ubatch-size, \"64\"]}
";
    let gateway = Gateway::builder().reals(config).start();
    let client = gateway.client();
    let pids = || gateway.child_pids().into_iter().collect::<BTreeSet<_>>();
    for model in ["chat", "embed", "rank"] {
        assert_eq!(serve(&client, model).status(), 200);
    }
    let before = pids();
    for (path, body, words) in faults() {
        assert_told(&client.post_json(path, &body), path, words);
    }
    for model in ["chat", "embed", "rank"] {
        assert_eq!(serve(&client, model).status(), 200);
    }
    assert_eq!(pids(), before, "no llama-server was restarted");
}

fn two_remotes(first: &Remote, second: &Remote) -> Builder {
    let entry = |remote: &Remote, priority: u32| {
        format!("  - {{model_name: m, priority: {priority}, litellm_params: {{api_base: \"{}\"}}}}\n", remote.url())
    };
    let config = format!("model_list:\n{}{}", entry(first, 0), entry(second, 1));
    let builder = Gateway::builder().fakes(&config, &[]).set("ROUTING_STRATEGY", "priority-failover");
    builder.set("ALLOWED_FAILS", 2).set("COOLDOWN_TIME", "1h")
}

fn ready(builder: Builder) -> Gateway {
    let gateway = builder.start_ready();
    eventually("both backends are ready", READY, || {
        let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
        stats["models"][0]["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "ready")
    });
    gateway
}

#[test]
fn a_fault_of_the_request_is_told_in_any_form_and_tried_at_no_other_backend() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(two_remotes(&first, &second));
    let client = gateway.client();
    let embedding = || client.post_json("/v1/embeddings", &json!({"model": "m", "input": "x"}));
    let message = "input (700 tokens) is too large to process";
    let long = format!("{{\"error\":{{\"message\":\"{message}{}\"}}}}", "x".repeat(200_000));
    let chunked = format!(
        "HTTP/1.1 500 X\r\n{JSON}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{{\"error\":{{\"message\":\r\n{:x}\r\n\"{message}\"}}}}\r\n0\r\n\r\n",
        message.len() + 4
    );
    for (what, reply) in [
        ("JSON", Reply::Status(500, json!({"error": {"message": message}}))),
        ("another 5xx", Reply::Status(502, json!({"error": {"message": message}}))),
        ("503", Reply::Status(503, json!({"error": message}))),
        ("a text", Reply::whole(500, "Content-Type: text/plain", message)),
        ("a page", Reply::whole(500, "Content-Type: text/html", format!("<html><p>{message}</p></html>"))),
        ("no type", Reply::whole(500, "X-A: b", message)),
        ("more than is read", Reply::whole(500, JSON, long)),
        ("pieces", Reply::Raw(chunked.into_bytes())),
        (
            "an event",
            Reply::whole(
                500,
                "Content-Type: text/event-stream",
                format!("data: {{\"error\":{{\"message\":\"{message}\"}}}}\n\n"),
            ),
        ),
        ("until the close", Reply::Raw(format!("HTTP/1.1 500 X\r\n\r\n{message}").into_bytes())),
        (
            "a length that is not reached",
            Reply::Raw(format!("HTTP/1.1 500 X\r\nContent-Length: 999\r\n\r\n{message}").into_bytes()),
        ),
    ] {
        first.set_reply(reply);
        for _ in 0..3 {
            assert_told(&embedding(), what, message);
        }
    }
    let worker = worker(&gateway, "m");
    assert_eq!((&worker["breaker"], &worker["failures"], second.received().len()), (&json!("closed"), &json!(0), 0));
}

#[test]
fn an_error_without_such_words_is_still_a_failure_and_reaches_the_client_whole() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Close));
    let gateway = ready(two_remotes(&first, &second).set("ALLOWED_FAILS", 100));
    let client = gateway.client();
    let large = "x".repeat(200_000);
    for (failures, body) in [
        json!({"error": {"message": "CUDA error: operation not supported"}}).to_string(),
        json!({"error": {"message": "Compute error.", "type": "server_error"}}).to_string(),
        json!({"error": {"message": large}}).to_string(),
        "<html><h1>502 Bad Gateway</h1></html>".to_owned(),
        String::new(),
    ]
    .into_iter()
    .enumerate()
    {
        first.set_reply(Reply::whole(500, JSON, &body));
        let answer = client.post_json(CHAT, &json!({"model": "m", "messages": []}));
        assert_eq!(answer.status(), 500);
        match body.is_empty() {
            true => assert_eq!(answer.json()["error"]["code"], "backend_error"),
            false => assert_eq!(answer.text(), body),
        }
        eventually("the failure is counted", SOON, || worker(&gateway, "m")["failures"] == failures + 1);
    }
    assert_eq!(second.received().len(), 0, "a chat is not sent again");
}

/// Regression: the output of a model that llama-server could not read counted as a failure of the backend.
#[test]
fn a_model_whose_output_cannot_be_read_closes_no_backend() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(two_remotes(&first, &second));
    let error =
        json!({"error": {"code": 500, "message": "The model produced output that does not match the expected format"}});
    first.set_reply(Reply::Status(500, error.clone()));
    for _ in 0..5 {
        let answer = gateway.client().post_json(CHAT, &json!({"model": "m", "messages": []}));
        assert_eq!((answer.status(), answer.json()), (500, error.clone()), "another try may do better");
    }
    assert_eq!(worker(&gateway, "m")["breaker"], "closed");
}

/// Regression: the page with which a backend answers on a route that it lacks reached the client as it was.
#[test]
fn a_backend_without_the_route_is_told_in_the_shape_of_the_client() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(two_remotes(&first, &second));
    let client = gateway.client();
    let page = "<html><body>secret path</body></html>";
    let openai = r#"{"error":{"message":"no such route","type":"not_found_error","code":404}}"#;
    for (status, head, body, words) in [
        (404, "Content-Type: text/html", page, ""),
        (405, "Content-Type: text/html; charset=utf-8", page, ""),
        (501, "Content-Type: text/html", page, ""),
        (404, "Content-Type: text/plain", "404 page not found", "404 page not found"),
        (404, JSON, r#"{"detail":"Not Found"}"#, "Not Found"),
        (405, JSON, r#"{"detail":"Method Not Allowed"}"#, "Method Not Allowed"),
        (404, JSON, openai, "no such route"),
        (404, "X-A: b", "", ""),
    ] {
        first.set_reply(Reply::whole(status, head, body));
        for path in ["/v1/messages", "/v1/messages/count_tokens", CHAT, "/v1/responses", "/v1/embeddings"] {
            let answer = client.post_json(path, &json!({"model": "m", "messages": [], "input": "x", "max_tokens": 1}));
            let what = format!("{status} {head} {path}: {}", answer.text());
            assert_eq!(answer.status(), 404, "{what}");
            let error = &answer.json()["error"];
            assert!(error["message"].as_str().unwrap().contains(words) && !answer.text().contains("secret"), "{what}");
            match path.starts_with("/v1/messages") {
                true => assert_eq!(
                    (&answer.json()["type"], &error["type"]),
                    (&json!("error"), &json!("not_found_error")),
                    "{what}"
                ),
                // An error that its client can read is passed on as it is.
                false if body == openai => assert_eq!(answer.text(), body),
                false => assert_eq!(error["code"], "route_not_found", "{what}"),
            }
            assert_eq!(answer.header("x-llamagate-worker"), Some("0"), "{what}");
        }
    }
    first.set_reply(Reply::Serve);
    assert_eq!(client.post_json(CHAT, &json!({"model": "m", "messages": []})).status(), 200);
    let worker = worker(&gateway, "m");
    assert_eq!((&worker["breaker"], &worker["failures"], second.received().len()), (&json!("closed"), &json!(0), 0));
}

/// Checks that the client can read an error that the backend has sent with this status and without a body.
#[track_caller]
fn assert_has_a_body(answer: &Response, path: &str, status: u16) {
    let what = format!("{path} {status}: {} {:?}", answer.text(), answer.head);
    assert_eq!((answer.status(), answer.header("content-type")), (status, Some("application/json")), "{what}");
    assert!(answer.complete, "{what}");
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().unwrap().contains(&status.to_string()), "{what}");
    match path.starts_with("/v1/messages") {
        true => assert_eq!(answer.json()["type"], "error", "{what}"),
        false => assert_eq!(error["code"], "backend_error", "{what}"),
    }
}

/// Regression: such an error reached the client as it was, and its library failed at reading JSON from nothing.
#[test]
fn an_error_without_a_body_was_passed_on_without_one() {
    let (first, second) = (Remote::start(Reply::Serve), Remote::start(Reply::Close));
    let gateway = ready(two_remotes(&first, &second).set("ALLOWED_FAILS", 1000));
    let client = gateway.client();
    for status in [400, 403, 413, 422, 500] {
        let line = format!("HTTP/1.1 {status} X\r\n");
        for (what, head, body) in [
            ("a length of 0", "Content-Length: 0\r\n", ""),
            ("another type", "Content-Type: text/html\r\nETag: \"x\"\r\nContent-Length: 0\r\n", ""),
            ("no piece", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("until the close", "", ""),
            ("a coding", "Content-Encoding: br\r\nContent-Length: 0\r\n", ""),
            ("a stream", "Content-Type: text/event-stream\r\n", ""),
        ] {
            first.set_reply(Reply::Raw(format!("{line}{head}Connection: close\r\n\r\n{body}").into_bytes()));
            for path in [CHAT, "/v1/messages", "/v1/responses"] {
                let answer = client.post_json(path, &json!({"model": "m", "messages": [], "max_tokens": 1}));
                assert_has_a_body(&answer, path, status);
                assert_eq!(answer.header("content-encoding"), None, "{what}");
            }
        }
    }
    // A body in any format stays as it is.
    first.set_reply(Reply::whole(400, "Content-Type: text/plain", "no"));
    assert_eq!(client.post_json(CHAT, &json!({"model": "m", "messages": []})).text(), "no");
}

#[test]
fn an_empty_error_of_llama_server_gets_a_body_but_not_for_head() {
    let gateway = Gateway::builder().reals("models: {chat: {file: tiny-chat.gguf, preload: true}}").start_ready();
    let form = gateway.client().header("Content-Type", "multipart/form-data; boundary=X");
    let path = "/v1/audio/transcriptions";
    assert_has_a_body(&form.send("POST", path, b"--X--\r\n"), path, 400);

    let script = json!({"error_status": [{"path": "/lora-adapters", "status": 500, "body": ""}]});
    let gateway = Gateway::builder().script(script).start_ready();
    assert_has_a_body(&gateway.client().get("/lora-adapters"), "/lora-adapters", 500);
    let head = gateway.client().send("HEAD", "/lora-adapters", b"");
    assert_eq!((head.status(), head.text()), (500, String::new()));
}
