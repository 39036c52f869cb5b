//! Clients for Node.js, with the real llama-server behind the gateway: what `tests/clients/node/` asks of each.

use std::process::Command;

use super::support::{
    client_program::{self, run_client},
    gateway::{Gateway, USER, node_packages},
};

/// A model of each kind, and a second chat model: with only one, any name would mean it.
const FLEET: &str = "
models:
  other: {file: tiny-chat.gguf, unlisted: true}
  tiny: {file: tiny-chat.gguf}
  vectors: {file: tiny-embedding.gguf}
  ranks: {file: tiny-rerank.gguf}
";

/// A model whose answers begin with a character of several tokens.
const SKY: &str = "models: {sky: {file: tiny-chat.gguf, args: [--grammar, 'root ::= \"🌌 hello 🌌\"']}}";

fn serving(config: &str) -> Gateway {
    Gateway::builder().reals(config).set("CTX", 2048).start()
}

#[test]
fn openais_sdk_chats_calls_tools_and_responds() {
    let gateway = serving(FLEET);
    run("openai_client.js", &gateway, "/v1", &["chat", "tiny"]);
}

#[test]
fn openais_sdk_embeds() {
    let gateway = serving(FLEET);
    run("openai_client.js", &gateway, "/v1", &["embedding", "vectors"]);
}

#[test]
fn anthropics_sdk_chats_and_calls_tools() {
    let gateway = serving(FLEET);
    run("anthropic_client.js", &gateway, "", &["chat", "tiny"]);
}

/// Regression: both SDKs failed at answers that begin with a character of several tokens.
#[test]
fn the_sdks_read_answers_that_begin_with_an_emoji() {
    let gateway = serving(SKY);
    run("anthropic_client.js", &gateway, "", &["emoji", "sky"]);
    run("openai_client.js", &gateway, "/v1", &["emoji", "sky"]);
}

#[test]
fn the_ai_sdk_chats_through_its_provider_of_openai() {
    let gateway = serving(FLEET);
    run("ai_sdk.js", &gateway, "/v1", &["openai", "tiny"]);
    run("ai_sdk.js", &gateway, "/v1", &["chat", "tiny", "vectors"]);
}

#[test]
fn the_ai_sdk_chats_through_its_provider_of_anthropic() {
    let gateway = serving(FLEET);
    run("ai_sdk.js", &gateway, "/v1", &["anthropic", "tiny"]);
}

#[test]
fn the_ai_sdk_embeds_and_ranks_through_its_provider_of_cohere() {
    let gateway = serving(FLEET);
    run("ai_sdk.js", &gateway, "/v1", &["cohere", "vectors", "ranks"]);
}

#[test]
fn ollamas_own_client_chats_completes_and_embeds() {
    let gateway = serving(FLEET);
    run("ollama_client.js", &gateway, "", &["tiny", "vectors"]);
}

/// Runs a script with the address, to which `path` is added, the user's key and `arguments`. Panics with its output if it
/// fails.
#[track_caller]
fn run(script: &str, gateway: &Gateway, path: &str, arguments: &[&str]) {
    let mut node = Command::new("node");
    node.env("NODE_PATH", node_packages()).arg(client_program::script("node").join(script));
    node.arg(format!("{}{path}", gateway.url())).arg(USER).args(arguments);
    run_client(&mut node);
}
