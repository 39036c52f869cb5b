//! The clients that people have, and a real llama-server behind the gateway: the answers of every endpoint arrive.

#![expect(clippy::disallowed_methods, reason = "the clients are programs")]

use crate::support::gateway::{Backend, Builder, Gateway, USER, python, smollm};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn the_openai_sdk_chats() {
    let gateway = serving("tiny-chat.gguf");
    run(python_script("openai_client.py"), &gateway, &["chat"]);
}

#[test]
fn the_openai_sdk_embeds() {
    let gateway = serving("tiny-embedding.gguf");
    run(python_script("openai_client.py"), &gateway, &["embedding"]);
}

#[test]
fn the_anthropic_sdk_chats() {
    let gateway = serving("tiny-chat.gguf");
    run(python_script("anthropic_client.py"), &gateway, &[]);
}

#[test]
fn curl_chats() {
    let gateway = serving("tiny-chat.gguf");
    let mut bash = Command::new("bash");
    bash.arg(script("curl_client.sh"));
    run(bash, &gateway, &[]);
}

#[test]
fn documents_are_reranked() {
    let gateway = serving("tiny-rerank.gguf");
    let body = json!({"query": "a small bird", "documents": ["the sparrow sings", "rain falls on the road"]});
    let answer = gateway.client().post_json("/v1/rerank", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("no results: {answer}"));
    let mut indices: Vec<_> = results.iter().map(|result| result["index"].as_u64()).collect();
    indices.sort_unstable();
    assert_eq!(indices, [Some(0), Some(1)], "{answer}");
    assert!(results.iter().all(|result| result["relevance_score"].is_f64()), "{answer}");
}

#[test]
fn a_model_that_speaks_is_heard() {
    let builder = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" });
    let gateway = ready(builder.set("MODEL_PATH", smollm().display()));
    let prompt = |stream: bool| json!({"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, "stream": stream});

    let answer = gateway.client().post_json("/v1/completions", &prompt(false));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(text_of(&answer.json()).contains("Paris"), "{}", answer.text());

    let mut stream = gateway.client().stream("/v1/completions", &prompt(true));
    let events = stream.events();
    assert!(stream.is_complete() && events.last().is_some_and(|event| event.is_done()), "{events:?}");
    let text: String = events.iter().filter(|event| !event.is_done()).map(|event| text_of(&event.json())).collect();
    assert!(text.contains("Paris"), "{text}");
}

fn text_of(piece: &Value) -> String {
    piece["choices"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// A gateway in front of the real llama-server with one of the test models, loaded.
fn serving(model: &'static str) -> Gateway {
    ready(Gateway::builder().backend(Backend::Real { model }))
}

fn ready(builder: Builder) -> Gateway {
    let gateway = builder.set("NGL", 0).set("CTX", 2048).start();
    gateway.wait_ready();
    gateway
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn python_script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(script(name));
    command
}

/// Runs a client with the address, the user's key and `arguments`; shows what it printed when it failed.
#[track_caller]
fn run(mut client: Command, gateway: &Gateway, arguments: &[&str]) {
    client.arg(format!("{}/v1", gateway.url())).arg(USER).args(arguments);
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        client.env_remove(proxy); // the gateway is on this machine
    }
    let output = client.output().unwrap_or_else(|e| panic!("cannot start {client:?}: {e}"));
    assert!(
        output.status.success(),
        "{client:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
