//! Ollama's API: its clients chat, complete, embed and read about models as they do at Ollama.

use std::process::Command;

use serde_json::{Value, json};

use super::support::{
    client::{Client, Response},
    client_program::{run_client, script},
    gateway::{ADMIN, Backend, Gateway, LIMITED, USER, litellm_python, ollama_python, smollm},
    page_commands::{CommandOutput, run_page_where},
    remote::{Remote, Reply},
    wait::{STOPS, eventually},
};

/// A model of each kind, and a second chat model: with only one, any name would mean it.
const FLEET: &str = "
models:
  other: {file: tiny-chat.gguf, unlisted: true}
  tiny: {file: tiny-chat.gguf, aliases: [gpt]}
  vectors: {file: tiny-embedding.gguf}
  ranks: {file: tiny-rerank.gguf}
";

fn fleet() -> Gateway {
    Gateway::builder().reals(FLEET).set("NGL", 0).set("CTX", 2048).start()
}

/// Returns the lines of a response that is a stream.
#[track_caller]
fn lines(response: &Response) -> Vec<Value> {
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    lines_of(&response.text())
}

fn lines_of(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    text.lines().map(parse).collect()
}

#[track_caller]
fn assert_counts(line: &Value) {
    assert_eq!(line["done"], true, "{line}");
    for name in ["total_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"] {
        assert!(line[name].as_u64().is_some_and(|number| number > 0), "{name}: {line}");
    }
    assert!(line["load_duration"].is_u64(), "{line}");
}

fn say(client: &Client, members: Value) -> Response {
    let mut request = json!({"model": "tiny", "messages": [{"role": "user", "content": "Tell me something."}],
        "options": {"num_predict": 6, "temperature": 0, "seed": 1}});
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    client.post_json("/api/chat", &request)
}

#[test]
fn a_chat_streams_lines_and_gives_the_same_text_as_a_whole() {
    let gateway = fleet();
    let streamed = say(&gateway.client(), json!({}));
    assert_eq!(streamed.header("x-llamagate-model"), Some("tiny"));
    let streamed = lines(&streamed);
    let (last, parts) = streamed.split_last().unwrap();
    assert!(parts.len() > 2 && parts.iter().all(|part| part["done"] == false), "{streamed:?}");
    let text: String = parts.iter().map(|part| part["message"]["content"].as_str().unwrap()).collect();
    assert_counts(last);
    assert_eq!(
        (&last["done_reason"], &last["eval_count"], &last["model"]),
        (&json!("length"), &json!(6), &json!("tiny"))
    );

    let whole = say(&gateway.client(), json!({"stream": false, "model": "tiny:latest"}));
    assert_eq!((whole.status(), whole.header("content-type")), (200, Some("application/json")));
    let whole = whole.json();
    assert_counts(&whole);
    assert_eq!((&whole["message"]["content"], &whole["model"]), (&json!(text), &json!("tiny:latest")));
    assert_eq!(whole["message"]["role"], "assistant");
}

#[test]
fn a_completion_is_a_chat_or_raw_text() {
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: "tiny-chat.gguf" })
        .set("MODEL_PATH", smollm().display())
        .set("NGL", 0)
        .set("CTX", 2048)
        .start();
    gateway.wait_ready();
    let complete = |members: Value| {
        let mut request = json!({"model": "any", "prompt": "The capital of France is", "options": {"num_predict": 8, "temperature": 0}});
        request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        gateway.client().post_json("/api/generate", &request)
    };
    for raw in [true, false] {
        let streamed = lines(&complete(json!({"raw": raw})));
        let text: String = streamed.iter().map(|line| line["response"].as_str().unwrap()).collect();
        assert!(!raw || text.contains("Paris"), "{text}");
        assert_counts(streamed.last().unwrap());
        let whole = complete(json!({"raw": raw, "stream": false})).json();
        assert_eq!(whole["response"], text);
    }
    let format = json!({"type": "object", "properties": {"b": {"type": "boolean"}, "a": {"type": "boolean"}}, "required": ["b", "a"]});
    let answer =
        complete(json!({"format": format, "stream": false, "options": {"num_predict": 60, "temperature": 0}})).json();
    let value: Value = serde_json::from_str(answer["response"].as_str().unwrap()).unwrap();
    assert!(value["a"].is_boolean() && value["b"].is_boolean(), "{answer}");
    let refused = complete(json!({"suffix": "."}));
    assert!(
        refused.status() == 400 && refused.json()["error"].as_str().unwrap().contains("Infill"),
        "{}",
        refused.text()
    );
}

#[test]
fn models_are_listed_described_loaded_and_unloaded() {
    let gateway = fleet();
    let names = |path: &str| {
        let models = gateway.client().get(path).json()["models"].as_array().unwrap().clone();
        models.into_iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/api/tags"), ["tiny:latest", "vectors:latest", "ranks:latest"]);
    let version = gateway.client().get("/api/version").json();
    assert!(version["version"].as_str().is_some_and(|version| version.split('.').count() == 3), "{version}");
    let show = |model: &str| gateway.client().post_json("/api/show", &json!({"model": model})).json();
    for name in ["tiny", "tiny:latest", "gpt"] {
        let shown = show(name);
        assert_eq!(shown["capabilities"], json!(["completion", "tools"]), "{shown}");
        assert_eq!(shown["model_info"]["llama.context_length"], 2048, "{shown}");
        assert_eq!(shown["details"]["family"], "llama");
    }
    assert_eq!(show("vectors")["capabilities"], json!(["embedding"]));
    assert!(show("nothing")["error"].as_str().unwrap().contains("nothing"));

    let load = gateway.client().post_json("/api/generate", &json!({"model": "tiny"})).json();
    assert_eq!((&load["response"], &load["done_reason"]), (&json!(""), &json!("load")));
    assert!(names("/api/ps").contains(&"tiny:latest".to_owned()));
    let unload =
        gateway.client().post_json("/api/chat", &json!({"model": "tiny", "messages": [], "keep_alive": 0})).json();
    assert_eq!((&unload["message"]["content"], &unload["done_reason"]), (&json!(""), &json!("unload")));
    eventually("the model is unloaded", STOPS, || !names("/api/ps").contains(&"tiny:latest".to_owned()));
    // A stream unloads it at its end.
    assert!(lines(&say(&gateway.client(), json!({"keep_alive": "0s"}))).len() > 2);
    eventually("the model is unloaded", STOPS, || !names("/api/ps").contains(&"tiny:latest".to_owned()));
}

#[test]
fn keep_alive_takes_the_place_of_idle_unload() {
    let models = "models: {long: {file: long.gguf}, short: {file: short.gguf}}";
    let gateway = Gateway::builder()
        .fakes(models, &[("long.gguf", json!({})), ("short.gguf", json!({}))])
        .set("IDLE_UNLOAD", "1h")
        .start_ready();
    let loaded = || {
        let models = gateway.client().get("/api/ps").json()["models"].as_array().unwrap().clone();
        models.into_iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Text in a stream, and a request that only loads the model.
    lines(&say(&gateway.client(), json!({"model": "long", "keep_alive": "1s"})));
    lines(&say(&gateway.client(), json!({"model": "long", "keep_alive": -1})));
    let load = gateway.client().post_json("/api/generate", &json!({"model": "short", "keep_alive": "1s"}));
    assert_eq!(load.status(), 200, "{}", load.text());
    eventually("the model with the short time is unloaded", STOPS, || loaded() == ["long:latest"]);
}

/// Regression: `keep_alive` was ignored in silence in requests for embeddings.
#[test]
fn keep_alive_of_embeddings_is_obeyed() {
    let gateway = fleet();
    let client = gateway.client();
    let is_loaded = || {
        let models = client.get("/api/ps").json()["models"].clone();
        models.as_array().unwrap().iter().any(|model| model["name"] == "vectors:latest")
    };
    for (path, input) in [("/api/embed", "input"), ("/api/embeddings", "prompt")] {
        let ask = |keep_alive: Value| {
            client.post_json(path, &json!({"model": "vectors", input: "a bird", "keep_alive": keep_alive}))
        };
        let refused = ask(json!("banana"));
        assert!(refused.status() == 400 && refused.text().contains("keep_alive must be"), "{}", refused.text());
        assert_eq!(ask(json!("5m")).status(), 200);
        assert!(is_loaded(), "{path}");
        assert_eq!(ask(json!(0)).status(), 200);
        eventually("the model is unloaded", STOPS, || !is_loaded());
    }
}

#[test]
fn embeddings_are_those_of_the_model() {
    let gateway = fleet();
    let embed = gateway
        .client()
        .post_json("/api/embed", &json!({"model": "vectors:latest", "input": ["a bird", "rain"]}))
        .json();
    let vectors = embed["embeddings"].as_array().unwrap();
    let single = gateway.client().post_json("/api/embeddings", &json!({"model": "vectors", "prompt": "a bird"})).json();
    assert_eq!((vectors.len(), &vectors[0]), (2, &single["embedding"]), "{embed}");
}

#[test]
fn keys_hold_and_errors_are_texts() {
    let gateway = Gateway::builder().reals(FLEET).set("NGL", 0).set("CTX", 2048).start();
    for (method, path) in [
        ("GET", "/api/tags"),
        ("GET", "/api/version"),
        ("GET", "/api/ps"),
        ("POST", "/api/chat"),
        ("POST", "/api/show"),
    ] {
        let refused = gateway.anonymous().send(method, path, b"{}");
        assert!(refused.status() == 401 && refused.json()["error"].is_string(), "{path}: {}", refused.text());
    }
    for (members, status, said) in [
        (json!({"model": "nothing"}), 404, "'nothing' does not exist"),
        (json!({"model": "vectors"}), 400, "is for embedding"),
        (json!({"options": {"nonsense": 1}}), 400, "options.nonsense is no option of Ollama's"),
        (json!({"format": "xml"}), 400, "format must be"),
        (json!({"messages": [{"role": "user", "content": "x ".repeat(5000)}]}), 400, "context"),
        (json!({"messages": [{"role": "user", "content": "x", "images": ["iVBORw0KGgo="]}]}), 400, "image"),
    ] {
        for is_stream in [true, false] {
            let mut members = members.clone();
            members["stream"] = json!(is_stream);
            let refused = say(&gateway.client(), members.clone());
            let error = refused.json()["error"].as_str().unwrap_or_default().to_owned();
            assert!(
                refused.status() == status && error.contains(said),
                "{members}: {} {}",
                refused.status(),
                refused.text()
            );
        }
    }
    let cut = gateway.client().send("POST", "/api/chat", b"{\"model\":");
    assert!(cut.status() == 400 && cut.json()["error"].is_string());
    for (method, path, key, status) in [
        ("POST", "/api/pull", ADMIN, 400),
        ("POST", "/api/push", ADMIN, 501),
        ("POST", "/api/create", ADMIN, 501),
        ("POST", "/api/pull", USER, 403),
        ("DELETE", "/api/delete", ADMIN, 400),
        ("GET", "/api/blobs/sha256:0", ADMIN, 404),
    ] {
        let refused = gateway.client_with(key).send(method, path, b"{}");
        assert!(refused.status() == status && refused.json()["error"].is_string(), "{path}: {}", refused.text());
    }
}

#[test]
fn a_chat_counts_as_one_request_of_its_key() {
    let gateway = Gateway::builder().start_ready();
    let statuses: Vec<u16> =
        (0..3).map(|at| say(&gateway.client_with(LIMITED), json!({"stream": at == 0})).status()).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn ollama_api_can_be_turned_off() {
    let gateway = Gateway::builder().set("OLLAMA_API", false).start_ready();
    for path in ["/api/tags", "/api/version", "/api/ps"] {
        assert_eq!(gateway.client().get(path).status(), 404, "{path}");
    }
    assert_eq!(say(&gateway.client(), json!({})).status(), 404);
    assert_eq!(gateway.client().post_json("/api/embed", &json!({"input": "x"})).status(), 404);
    assert_eq!(gateway.client().get("/v1/models").status(), 200);
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error_in_a_line_of_its_own() {
    let gateway = Gateway::builder().script(json!({"half_event_then_die": {"after_frames": 2}})).start_ready();
    let lines = lines(&say(&gateway.client(), json!({})));
    let (last, parts) = lines.split_last().unwrap();
    assert!(!parts.is_empty() && parts.iter().all(|part| part["done"] == false), "{lines:?}");
    assert!(last["error"].as_str().is_some_and(|error| error.contains("ended the connection")), "{last}");
}

#[test]
fn a_remote_backend_may_answer_as_a_whole_or_without_its_end_mark() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let whole = json!({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}});
    remote.set_reply(Reply::Status(200, whole));
    for is_stream in [true, false] {
        let lines = lines_of(&say(&gateway.client(), json!({"model": "m", "stream": is_stream})).text());
        assert_eq!(
            (lines.len(), &lines[0]["message"]["content"], &lines[0]["eval_count"]),
            (1, &json!("Hello"), &json!(1))
        );
    }
    let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\r\n\r\n";
    remote.set_reply(Reply::Raw(stream.into()));
    let streamed = lines(&say(&gateway.client(), json!({"model": "m"})));
    assert_eq!((streamed.len(), &streamed[1]["done_reason"]), (2, &json!("stop")), "{streamed:?}");
    remote.set_reply(Reply::Status(422, json!({"detail": "no such voice"})));
    let refused = say(&gateway.client(), json!({"model": "m"}));
    assert!(refused.status() < 500 && refused.json() == json!({"error": "no such voice"}), "{}", refused.text());
    let received = remote.received();
    assert!(received.iter().all(|request| request.path == "/v1/chat/completions"), "{received:?}");
}

#[test]
fn ollamas_own_client_chats_completes_and_embeds() {
    let mut client = Command::new(ollama_python());
    client.arg(script("ollama_client.py"));
    run(client, &fleet());
}

#[test]
fn litellm_uses_it_as_a_provider() {
    let mut client = Command::new(litellm_python());
    client.arg(script("ollama_litellm.py"));
    // LiteLLM sends this provider no key for embeddings.
    run(client, &Gateway::builder().reals(FLEET).without_keys().set("NGL", 0).set("CTX", 2048).start());
}

/// Runs every command of the page as it stands there, with the address and the key of a gateway.
#[test]
fn the_commands_of_the_page_work() {
    let gateway = Gateway::builder().reals(FLEET).set("NGL", 0).set("CTX", 2048).start();
    for CommandOutput { command, text } in
        run_page_where("OLLAMA.md", &gateway, 5, |block| !block.contains("ADMIN_KEY"))
    {
        for line in lines_of(&text) {
            assert!(line.get("error").is_none(), "{command}\n{line}");
        }
    }
}

/// Runs a client program with the address, a key, and the names of a chat model and an embedding model.
#[track_caller]
fn run(mut client: Command, gateway: &Gateway) {
    client.args([gateway.url(), USER, "tiny", "vectors"]);
    run_client(&mut client);
}
