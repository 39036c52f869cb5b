//! What goes with a model: adapters under names of their own, draft models, chat templates, and how each is found.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::client::{Client, Event};
use super::support::gateway::{ADMIN, Builder, Gateway, real_llama_server, test_models};
use super::support::mock_hub::MockHub;
use super::support::model_file::{self, Kind};

const CHAT: &str = "/v1/chat/completions";

/// Returns a folder with the tiny chat model and two adapters of it.
fn folder_with_adapters() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(test_models().join("tiny-chat.gguf"), folder.path().join("tiny.gguf")).unwrap();
    model_file::write_lora(&folder.path().join("a.gguf"), "llama", 1);
    model_file::write_lora(&folder.path().join("b.gguf"), "llama", 2);
    folder
}

/// Returns a gateway of real llama-servers whose models lie in this folder.
fn gateway_of(folder: &Path, config: &str) -> Builder {
    Gateway::builder().reals(config).set("MODELS_DIR", folder.display())
}

/// Returns a chat whose answer depends on the model alone.
fn chat(model: &str) -> Value {
    let messages = json!([{"role": "user", "content": "hello there, how are you today"}]);
    json!({"model": model, "messages": messages, "max_tokens": 12, "temperature": 0})
}

/// Returns the text of a chat with this model.
#[track_caller]
fn says(client: &Client, model: &str) -> String {
    let answer = client.post_json(CHAT, &chat(model));
    assert_eq!(answer.status(), 200, "{model}: {}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["model"], model, "the answer names what was asked");
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn text_of(events: &[Event]) -> String {
    let pieces = events.iter().filter(|event| !event.is_done()).map(Event::json);
    pieces.filter_map(|piece| Some(piece["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
}

const WITH_ADAPTERS: &str = "
models:
  base:
    file: tiny.gguf
    aliases: [other]
    parallel: 1
    lora: [{file: a.gguf, name: formal}, {file: b.gguf, name: rude, scale: 0.5}]
";

#[test]
fn an_adapter_answers_under_a_name_of_its_own_and_its_model_is_unaffected() {
    let folder = folder_with_adapters();
    let plain = gateway_of(folder.path(), "models: {base: {file: tiny.gguf}}\n").start();
    let expected = says(&plain.client(), "base");
    drop(plain);
    let gateway = gateway_of(folder.path(), WITH_ADAPTERS).start();
    let client = gateway.client();
    let (formal, rude) = (says(&client, "base:formal"), says(&client, "base:rude"));
    assert!(formal != expected && rude != expected && formal != rude, "{expected:?} {formal:?} {rude:?}");
    // The same prompt with another choice of adapters must not be answered from what was kept of it.
    for _ in 0..2 {
        assert_eq!(says(&client, "base"), expected);
        assert_eq!(says(&client, "other:formal"), formal);
        assert_eq!(says(&client, "base:rude"), rude);
        assert_eq!(says(&client, "other"), expected);
    }
    let stream = json!({"stream": true});
    let mut body = chat("base:formal");
    body.as_object_mut().unwrap().extend(stream.as_object().unwrap().clone());
    let events = client.stream(CHAT, &body).events();
    assert_eq!(text_of(&events), formal);
    assert_eq!(events[0].json()["model"], "base:formal");
    // Anthropic's messages cannot carry the choice: for the model they get it all the same, for an adapter they are refused.
    let mut message = chat("base");
    let answer = client.post_json("/v1/messages", &message).json();
    assert_eq!(answer["content"][0]["text"], expected, "{answer}");
    message["model"] = json!("base:formal");
    let refused = client.post_json("/v1/messages", &message);
    assert!(refused.status() == 400 && refused.text().contains("takes no adapter"), "{}", refused.text());
    let ollama = json!({"model": "base:formal", "messages": message["messages"], "stream": false,
        "options": {"num_predict": 12, "temperature": 0}});
    let answer = client.post_json("/api/chat", &ollama).json();
    assert_eq!(answer["message"]["content"], formal, "{answer}");
}

#[test]
fn a_request_may_choose_adapters_of_a_model_itself_and_not_those_of_a_named_one() {
    let folder = folder_with_adapters();
    let gateway = gateway_of(folder.path(), WITH_ADAPTERS).start();
    let client = gateway.client();
    let (plain, formal) = (says(&client, "base"), says(&client, "base:formal"));
    let ask = |model: &str, lora: Value| {
        let mut body = chat(model);
        body["lora"] = lora;
        client.post_json(CHAT, &body)
    };
    let text = |lora: Value| ask("base", lora).json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(text(json!([{"id": 0, "scale": 1.0}])), formal);
    for nothing in [json!([]), json!(null), json!([{"id": 0, "scale": 0.0}])] {
        assert_eq!(says(&client, "base:formal"), formal);
        assert_eq!(text(nothing), plain);
    }
    let refused = ask("base:formal", json!([{"id": 1, "scale": 1.0}]));
    assert_eq!(
        (refused.status(), refused.json()["error"]["param"].as_str()),
        (400, Some("lora")),
        "{}",
        refused.text()
    );
    let unknown = client.post_json(CHAT, &chat("base:formel"));
    assert!(unknown.status() == 404 && unknown.text().contains("base:formal"), "{}", unknown.text());
}

#[test]
fn adapters_are_listed_and_a_key_may_be_for_one_alone() {
    let folder = folder_with_adapters();
    let keys = "all:0123456789abcdef-all\none:0123456789abcdef-one models=base:formal\nplain:0123456789abcdef-plain models=base\n";
    let gateway = gateway_of(folder.path(), WITH_ADAPTERS).keys(keys).start();
    let ids = |secret: &str| {
        let list = gateway.client_with(secret).get("/v1/models").json();
        let ids = list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("0123456789abcdef-all"), "base base:formal base:rude");
    assert_eq!(ids("0123456789abcdef-one"), "base:formal");
    assert_eq!(ids("0123456789abcdef-plain"), "base");
    let all = gateway.client_with("0123456789abcdef-all");
    let entry = all.get("/v1/models/other:formal").json();
    assert_eq!(
        (&entry["id"], &entry["root"], &entry["parent"]),
        (&json!("base:formal"), &json!("base"), &json!("base"))
    );
    assert!(all.get("/api/tags").text().contains("base:rude"));
    for (secret, model, status) in [
        ("0123456789abcdef-one", "base:formal", 200),
        ("0123456789abcdef-one", "other:formal", 200),
        ("0123456789abcdef-one", "base", 403),
        ("0123456789abcdef-one", "base:rude", 403),
        ("0123456789abcdef-plain", "base:formal", 403),
        ("0123456789abcdef-plain", "base", 200),
    ] {
        let answer = gateway.client_with(secret).post_json(CHAT, &chat(model));
        assert_eq!(answer.status(), status, "{secret} {model}: {}", answer.text());
    }
    // Numbers of adapters were a way around names.
    let mut by_number = chat("base");
    by_number["lora"] = json!([{"id": 0, "scale": 1.0}]);
    for (secret, status) in [("0123456789abcdef-plain", 403), ("0123456789abcdef-all", 200)] {
        let answer = gateway.client_with(secret).post_json(CHAT, &by_number);
        assert_eq!(answer.status(), status, "{secret}: {}", answer.text());
    }
}

#[test]
fn an_adapter_takes_over_from_a_model_that_cannot_serve() {
    let folder = folder_with_adapters();
    let config = format!(
        "{WITH_ADAPTERS}model_list: [{{model_name: gone, litellm_params: {{api_base: 'http://127.0.0.1:9'}}}}]\n\
         fallbacks: {{gone: ['base:formal']}}\n"
    );
    let gateway = gateway_of(folder.path(), &config).start();
    let client = gateway.client();
    let formal = says(&client, "base:formal");
    assert_eq!(says(&client, "gone"), formal);
}

#[test]
fn a_draft_model_changes_no_answer_and_its_tokens_are_counted() {
    let folder = folder_with_adapters();
    let config = "models:\n  base: {file: tiny.gguf}\n  fast: {file: tiny.gguf, draft: tiny, speculative: {max: 8}}\n  \
                  looked-up: {file: tiny.gguf, speculative: ngram-simple}\n";
    let gateway = gateway_of(folder.path(), config).start();
    let client = gateway.client();
    let expected = says(&client, "base");
    assert_eq!((says(&client, "fast"), says(&client, "looked-up")), (expected.clone(), expected));
    let metrics = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    let count = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains("model=\"fast\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let (drafted, accepted) = (count("llamagate_draft_tokens_total"), count("llamagate_draft_tokens_accepted_total"));
    assert!(accepted > 0 && accepted <= drafted, "{accepted} of {drafted}: {metrics}");
}

#[test]
fn a_chat_template_stands_in_for_that_of_the_file() {
    let folder = folder_with_adapters();
    fs::write(folder.path().join("own.jinja"), "{{ messages[0]['content'] }}!own").unwrap();
    let config = "models:\n  own: {file: tiny.gguf, chat_template: own.jinja}\n  \
                  known: {file: tiny.gguf, chat_template: vicuna}\n";
    let gateway = gateway_of(folder.path(), config).start();
    let prompt = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        let answer = gateway.client().post_json("/apply-template", &body);
        answer.json()["prompt"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(prompt("own"), "hi!own");
    assert!(prompt("known").contains("USER: hi"), "{}", prompt("known"));
}

#[test]
fn an_adapter_that_is_replaced_gets_a_new_worker_at_a_reload() {
    let folder = folder_with_adapters();
    let gateway = gateway_of(folder.path(), WITH_ADAPTERS).start();
    let client = gateway.client();
    let (formal, rude) = (says(&client, "base:formal"), says(&client, "base:rude"));
    // Another scale, and another file under the same name.
    gateway.rewrite_config(&WITH_ADAPTERS.replace("a.gguf", "b.gguf").replace(", scale: 0.5", ""));
    let reloaded = gateway.client_with(ADMIN).post_json("/reload", &Value::Null);
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    let now = says(&client, "base:formal");
    assert!(now != formal && now == says(&client, "base:rude"), "{formal:?} {rude:?} {now:?}");
    // Without its adapters the model is served, and a request for one is refused.
    gateway.rewrite_config("models: {base: {file: tiny.gguf, lora: [{file: a.gguf, name: formal}]}}\n");
    assert_eq!(gateway.client_with(ADMIN).post_json("/reload", &Value::Null).status(), 200);
    assert_eq!(client.post_json(CHAT, &chat("base:rude")).status(), 404);
    assert_eq!(says(&client, "base:formal"), formal);
}

#[test]
fn what_goes_with_a_model_comes_from_the_hub_at_the_first_start() {
    let folder = folder_with_adapters();
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let hub = MockHub::start();
    hub.add("Org/Tiny-GGUF", "tiny-Q8_0.gguf", read("tiny.gguf"));
    hub.add("Org/Lora-GGUF", "formal.gguf", read("a.gguf"));
    hub.add("Org/Vision-GGUF", "mmproj-F16.gguf", read_projector());
    let config = "models:\n  m: {file: Org/Tiny-GGUF, draft: 'Org/Tiny-GGUF:Q8_0', preload: true, \
                  lora: [{file: Org/Lora-GGUF/formal.gguf, name: formal}]}\n  \
                  see: {file: Org/Tiny-GGUF, mmproj: Org/Vision-GGUF/mmproj-F16.gguf}\n";
    let gateway =
        Gateway::builder().reals(config).set("HF_ENDPOINT", hub.url()).set("HF_HUB_OFFLINE", false).start_ready();
    let client = gateway.client();
    assert_ne!(says(&client, "m"), says(&client, "m:formal"));
    let entry = client.get("/v1/models/see").json();
    assert_eq!(entry["architecture"]["input_modalities"], json!(["text", "image"]), "{entry}");
}

fn read_projector() -> Vec<u8> {
    fs::read(test_models().join("projector/mmproj-tiny.gguf")).unwrap()
}

/// Returns the exit status and the output of `llamagate check` in this folder, for this configuration.
fn check(folder: &Path, config: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    fs::write(folder.join("models.yaml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.arg("check").current_dir(folder).env_clear().env("DATA_DIR", folder.join("data"));
    command.envs([
        ("AUTH_ENABLED", "no"),
        ("HOST", "127.0.0.1"),
        ("CONFIG_FILE", "models.yaml"),
        ("HF_HUB_OFFLINE", "1"),
    ]);
    command.env("MODELS_DIR", folder).env("LLAMA_SERVER", real_llama_server()).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn check_shows_what_goes_with_each_model() {
    let folder = folder_with_adapters();
    fs::write(folder.path().join("own.jinja"), "{{ messages }}").unwrap();
    let config = "models: {m: {file: tiny.gguf, lora: [{file: a.gguf, name: formal, scale: 0.5}, b.gguf], draft: tiny.gguf, \
                  chat_template: own.jinja, rpc: ['gpu1:50052']}}\n";
    let (status, output) = check(folder.path(), config, &[]);
    assert_eq!(status, Some(0), "{output}");
    let line =
        "m  lora a.gguf at 0.5 as m:formal; lora b.gguf at 1; draft tiny.gguf; chat template own.jinja; rpc gpu1:50052";
    assert!(output.contains(&format!("\nwhat goes with models:\n{line}\n")), "{output}");
    assert!(output.contains("warning: models.m.rpc: llama.cpp's protocol"), "{output}");
    let config = "models: {m: {file: tiny.gguf, rpc: ['127.0.0.1:1', 'localhost:2']}, n: {file: b.gguf, rpc: ['localhost:2']}}\n";
    fs::copy(folder.path().join("tiny.gguf"), folder.path().join("b.gguf")).unwrap();
    let (status, output) = check(folder.path(), config, &[]);
    assert!(status == Some(0) && !output.contains("llama.cpp's protocol"), "no other machine reaches them: {output}");
    let shared = "warning: rpc: localhost:2 computes for one llama-server at a time, so these can only be loaded one after the \
                  other: m, n";
    assert!(output.contains(shared) && !output.contains("rpc: 127.0.0.1:1 computes"), "{output}");
}

#[test]
fn what_cannot_go_with_a_model_is_said_before_the_start() {
    let folder = folder_with_adapters();
    let path = |name: &str| folder.path().join(name);
    model_file::write_lora(&path("qwen.gguf"), "qwen3", 1);
    model_file::write(&path("embed.gguf"), Kind::Embedding);
    fs::create_dir(path("o,dd")).unwrap();
    fs::copy(path("a.gguf"), path("o,dd/a.gguf")).unwrap();
    fs::write(path("bytes.jinja"), [0xff, 0xfe]).unwrap();
    for (keys, fault) in [
        ("lora: [none.gguf]", "models.m.lora[0]: \"none.gguf\": there is no model \"none.gguf\""),
        ("lora: [tiny.gguf]", "is no LoRA adapter"),
        ("lora: [qwen.gguf]", "is made for qwen3, and the model is llama"),
        ("lora: ['o,dd/a.gguf']", "llama-server takes no adapter whose path has a comma"),
        ("lora: [a.gguf], args: [--lora, x]", "lora: EXTRA_ARGS or args has --lora too"),
        ("lora: [a.gguf], args: [--cache-ram, '100']", "lora: EXTRA_ARGS or args has --cache-ram too"),
        (
            "lora: [{file: a.gguf, name: x}], aliases: [y], kind: chat}, 'y:x': {file: tiny.gguf",
            "the adapter \"y:x\" has a name of models.y:x",
        ),
        ("draft: embed.gguf, args: [-md, x]", "draft: EXTRA_ARGS or args has -md too"),
        ("draft: a.gguf", "is a LoRA adapter, not a model of its own"),
        (
            "draft: tiny.gguf, speculative: {ctx: 512}",
            "models.m.speculative: this llama-server does not know --ctx-size-draft",
        ),
        ("speculative: ngram-unknown", "does not know the way ngram-unknown; it has none, draft-simple"),
        ("chat_template: nowhere.jinja", "there is no such file, and llama-server has no template of this name"),
        ("chat_template: bytes.jinja", "the file is no text in UTF-8"),
        (
            "chat_template: chatml, args: [--chat-template, zephyr]",
            "chat_template: EXTRA_ARGS or args has --chat-template too",
        ),
        ("chat_template: zephyr, args: [--jinja]", "with --jinja, llama-server knows no template by its name"),
        ("mmproj: Org/Name", "it names a repository and no file"),
    ] {
        let (status, output) = check(folder.path(), &format!("models: {{m: {{file: tiny.gguf, {keys}}}}}\n"), &[]);
        assert!(status == Some(78) && output.contains(fault), "{keys}: {output}");
    }
    for (config, fault) in [
        (
            "models: {m: {file: tiny.gguf, lora: [{file: a.gguf, name: x}]}, n: {file: b.gguf}}\nfallbacks: {'m:x': [n]}\n",
            "\"m:x\" is an adapter, which has the fallbacks of its model",
        ),
        (
            "models: {m: {file: tiny.gguf, lora: [{file: a.gguf, name: x}]}}\ndefault_models: {chat: 'm:x'}\n",
            "default_models.chat: \"m:x\" is an adapter",
        ),
        ("defaults: {lora: [a.gguf]}\nmodels: {m: {file: tiny.gguf}}\n", "defaults.lora: belongs to a single model"),
        ("models: {m: {command: [serve, '{port}'], draft: x}}\n", "models.m.draft: is llama-server's"),
        ("models: {m: {rpc: ['a:1']}}\n", "models.m.rpc: there is no file"),
        (
            "models: {m: {file: embed.gguf, lora: [{file: a.gguf, name: x}]}}\n",
            "only requests for text can ask for an adapter by name",
        ),
    ] {
        let (status, output) = check(folder.path(), config, &[]);
        assert!(status == Some(78) && output.contains(fault), "{config}: {output}");
    }
    let online = [("HF_HUB_OFFLINE", "false")];
    let config = "models: {m: {file: tiny.gguf, lora: [Org/Lora/x.gguf], draft: Org/Small}}\n";
    let (status, output) = check(folder.path(), config, &online);
    assert_eq!(status, Some(0), "{output}");
    for subject in ["models.m.lora[0]: \"Org/Lora/x.gguf\"", "models.m.draft: \"Org/Small\""] {
        assert!(output.contains(&format!("{subject}: it is not on the disk: the start downloads it")), "{output}");
    }
}
