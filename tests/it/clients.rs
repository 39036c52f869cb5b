//! Common client libraries, with the real llama-server behind the gateway: every endpoint works with them.

#![expect(clippy::disallowed_methods, reason = "the clients are programs")]

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support::{
    client_program::{run_client, script},
    gateway::{Backend, Builder, Gateway, USER, litellm_python, python, retrieval_python, smollm},
    remote::{Remote, Reply},
    wait::{REAL_MODEL_READY, eventually},
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

/// Regression: the SDK repeated a request after its 504, and each repetition was computed up to the time limit.
#[test]
fn the_openai_sdk_repeats_a_503_and_no_504() {
    let remote = Remote::start(Reply::Hang);
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).set("REQUEST_TIMEOUT", "300ms").start_ready();
    run(python_script("openai_client.py"), &gateway, &["once"]);
    assert_eq!(remote.received().len(), 1);
    let without_backend = Gateway::builder().set("MOCK_BACKEND", true).start();
    run(python_script("openai_client.py"), &without_backend, &["repeated"]);
}

/// A model of each kind, and a second chat model: with only one, any name would mean it.
const FLEET: &str = "
models:
  other: {file: tiny-chat.gguf, unlisted: true}
  tiny: {file: tiny-chat.gguf, aliases: [gpt-4o-mini], tier: light}
  vectors: {file: tiny-embedding.gguf, aliases: [text-embedding-3-small]}
  ranks: {file: tiny-rerank.gguf}
";

const EMBEDDER: &str = "
models:
  embed: {file: tiny-embedding.gguf, aliases: [embed-english-v3.0], prompts: {query: \"hello \", document: \"rain \"}}
";

#[test]
fn the_openai_sdk_uses_a_fleet() {
    let gateway = Gateway::builder().reals(FLEET).set("CTX", 2048).start();
    run(python_script("openai_client.py"), &gateway, &["fleet"]);
}

#[test]
fn litellm_uses_a_fleet_and_its_proxy_configuration_works_here() {
    let fleet = Gateway::builder().reals(FLEET).set("CTX", 2048).start();
    let litellm = || {
        let mut command = Command::new(litellm_python());
        command.arg(script("litellm_client.py"));
        command
    };
    run(litellm(), &fleet, &["gpt-4o-mini", "text-embedding-3-small", "ranks"]);

    // A configuration of LiteLLM's own proxy.
    let config = format!(
        "
model_list:
  - model_name: chat-model
    litellm_params:
      model: openai/tiny
      api_base: {url}/v1
      api_key: os.environ/FLEET_KEY
      rpm: 10000
    model_info: {{id: first, mode: chat}}
  - model_name: chat-model
    litellm_params: {{model: openai/gpt-4o-mini, api_base: \"{url}\", api_key: os.environ/FLEET_KEY, weight: 2}}
  - model_name: other-model
    litellm_params: {{model: openai/other, api_base: \"{url}\", api_key: os.environ/FLEET_KEY}}
  - model_name: embedding-model
    litellm_params: {{model: openai/vectors, api_base: \"{url}/v1\", api_key: os.environ/FLEET_KEY}}
    model_info: {{mode: embedding}}
  - model_name: rerank-model
    litellm_params: {{model: jina_ai/ranks, api_base: \"{url}\", api_key: os.environ/FLEET_KEY}}
    model_info: {{mode: rerank}}
litellm_settings: {{drop_params: true, num_retries: 2, request_timeout: 60}}
router_settings: {{routing_strategy: simple-shuffle, num_retries: 2, allowed_fails: 3, cooldown_time: 30}}
general_settings: {{master_key: sk-1234}}
",
        url = fleet.url()
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    fs::write(&path, config).unwrap();
    let gateway = Gateway::builder().set("FLEET_KEY", USER).set("CONFIG_FILE", path.display()).start();
    eventually("the fleet is found", REAL_MODEL_READY, || {
        let list = gateway.client().get("/v1/models").json();
        list["data"].as_array().unwrap().iter().all(|model| model["meta"]["state"] == "ready")
    });
    run(litellm(), &gateway, &["chat-model", "embedding-model", "rerank-model"]);
}

#[test]
fn every_client_of_rerankers_ranks() {
    let fleet = Gateway::builder().reals(FLEET).set("CTX", 2048).start();
    const CLIENTS: [&str; 8] = [
        "cohere",
        "voyageai",
        "langchain_cohere",
        "langchain_voyageai",
        "llama_index",
        "haystack",
        "rerankers",
        "litellm",
    ];
    let mut command = Command::new(retrieval_python());
    command.arg(script("retrieval_rerank.py"));
    run(command, &fleet, &[&["ranks"], &CLIENTS[..]].concat());
}

#[test]
fn every_client_of_embeddings_embeds() {
    let gateway = Gateway::builder().reals(EMBEDDER).start();
    const CLIENTS: [&str; 9] = [
        "openai",
        "cohere",
        "voyageai",
        "langchain_cohere",
        "langchain_voyageai",
        "llama_index",
        "haystack",
        "huggingface_hub",
        "litellm",
    ];
    let mut command = Command::new(retrieval_python());
    command.arg(script("retrieval_embed.py"));
    run(command, &gateway, &[&["embed"], &CLIENTS[..]].concat());
}

#[test]
fn the_anthropic_sdk_chats() {
    let gateway = serving("tiny-chat.gguf");
    run(python_script("anthropic_client.py"), &gateway, &[]);
}

/// Regression: both SDKs failed at answers that begin with a character of several tokens.
#[test]
fn the_sdks_read_answers_that_begin_with_an_emoji() {
    let config = "models: {sky: {file: tiny-chat.gguf, args: [--grammar, 'root ::= \"🌌 hello 🌌\"']}}";
    let gateway = Gateway::builder().reals(config).set("CTX", 1024).start();
    run(python_script("anthropic_client.py"), &gateway, &["emoji"]);
    run(python_script("openai_client.py"), &gateway, &["emoji"]);
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
fn the_text_of_a_real_model_arrives_whole_and_streamed() {
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

/// Starts a gateway with the real llama-server and a test model, and waits until it is loaded.
fn serving(model: &'static str) -> Gateway {
    ready(Gateway::builder().backend(Backend::Real { model }))
}

fn ready(builder: Builder) -> Gateway {
    let gateway = builder.set("NGL", 0).set("CTX", 2048).start();
    gateway.wait_ready();
    gateway
}

fn python_script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(script(name));
    command
}

/// Runs a client program with the address, the user's key and `arguments`. Panics with its output if it fails.
#[track_caller]
fn run(mut client: Command, gateway: &Gateway, arguments: &[&str]) {
    client.arg(format!("{}/v1", gateway.url())).arg(USER).args(arguments);
    run_client(&mut client);
}
