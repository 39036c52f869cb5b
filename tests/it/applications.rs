//! Applications that are no libraries: the bodies that they send, word for word, and the members that they read.
//!
//! The models behind the gateway are tiny and real.

use serde_json::Value;

use super::support::{
    client::{Client, Response},
    gateway::{Gateway, USER},
};

/// A model of each kind, and those that requests without a name mean.
const FLEET: &str = "
default_models: {chat: tiny, embedding: vectors}
models:
  tiny: {file: tiny-chat.gguf}
  vectors: {file: tiny-embedding.gguf}
  ranks: {file: tiny-rerank.gguf}
";

/// The numbers of a vector of the test model.
const WIDTH: usize = 64;

fn fleet() -> Gateway {
    Gateway::builder().reals(FLEET).set("CTX", 2048).start()
}

/// Sends a body as it stands here.
#[track_caller]
fn post(client: &Client, path: &str, body: &str) -> Response {
    let answer = client.send("POST", path, body.as_bytes());
    assert_eq!(answer.status(), 200, "{path} {body}: {}", answer.text());
    answer
}

#[track_caller]
fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no text at {pointer}: {value}"))
}

#[track_caller]
fn whole_number(value: &Value, pointer: &str) -> u64 {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no whole number at {pointer}: {value}"))
}

#[track_caller]
fn list<'v>(value: &'v Value, pointer: &str) -> &'v Vec<Value> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.unwrap_or_else(|| panic!("no list at {pointer}: {value}"))
}

/// Asserts that entries have an index and a score from 0 to 1 each, and returns the indices.
#[track_caller]
fn indices(entries: &[Value], score: &str) -> Vec<u64> {
    let is_score = |entry: &Value| entry[score].as_f64().is_some_and(|score| (0.0..=1.0).contains(&score));
    assert!(!entries.is_empty() && entries.iter().all(is_score), "{score}: {entries:?}");
    entries.iter().map(|entry| whole_number(entry, "/index")).collect()
}

#[track_caller]
fn assert_vectors(vectors: &[Value], count: usize) {
    let is_vector = |vector: &Value| vector.as_array().is_some_and(|numbers| numbers.len() == WIDTH);
    assert!(vectors.len() == count && vectors.iter().all(is_vector), "{vectors:?}");
}

/// Returns what is in the data lines of an event stream, without its end mark.
#[track_caller]
fn chunks(answer: &Response) -> Vec<Value> {
    let text = answer.text();
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (end, data) = data.split_last().unwrap_or_else(|| panic!("no events: {text}"));
    assert_eq!(*end, "[DONE]");
    data.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[track_caller]
fn json_lines(answer: &Response) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn dify_adds_models_of_openai_compatible_servers_and_uses_them() {
    let gateway = fleet();
    let client = gateway.client();
    // What it sends when a model is added.
    let answer = post(
        &client,
        "/v1/chat/completions",
        r#"{"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": "ping"}]}"#,
    );
    assert_eq!(text(&answer.json(), "/object"), "chat.completion");
    let answer = post(&client, "/v1/completions", r#"{"model": "tiny", "max_tokens": 5, "prompt": "ping"}"#);
    assert_eq!(text(&answer.json(), "/object"), "text_completion");
    // A chat, with the parameters of its form.
    let answer = post(
        &client,
        "/v1/chat/completions",
        r#"{"model": "tiny", "stream": true, "temperature": 0.7, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "max_tokens": 8, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], "user": "abc-123"}"#,
    );
    let pieces = chunks(&answer);
    assert!(pieces.iter().any(|piece| piece["choices"][0]["delta"]["content"].is_string()), "{pieces:?}");
    assert!(pieces.iter().any(|piece| piece["choices"][0]["finish_reason"].is_string()), "{pieces:?}");

    let answer = post(
        &client,
        "/v1/embeddings",
        r#"{"input": ["ping", "pong"], "model": "vectors", "user": "abc-123", "encoding_format": "float"}"#,
    );
    let answer = answer.json();
    assert_vectors(&list(&answer, "/data").iter().map(|entry| entry["embedding"].clone()).collect::<Vec<_>>(), 2);
    assert!(whole_number(&answer, "/usage/total_tokens") > 0);

    let answer = post(
        &client,
        "/v1/rerank",
        r#"{"model": "ranks", "query": "What is the capital of the United States?", "documents": ["Carson City is the capital city of the American state of Nevada.", "Its capital is Saipan."], "top_n": null, "return_documents": true}"#,
    );
    let answer = answer.json();
    assert_eq!(indices(list(&answer, "/results"), "relevance_score").len(), 2);
    text(&answer, "/results/0/document/text");
    // Its plugin for Jina sends objects for models that also take pictures.
    let answer = post(
        &client,
        "/v1/rerank",
        r#"{"model": "ranks", "query": "a bird", "documents": [{"text": "rain"}, {"text": "a sparrow"}], "top_n": 1}"#,
    );
    assert_eq!(indices(list(&answer.json(), "/results"), "relevance_score").len(), 1);
}

#[test]
fn dify_uses_text_embeddings_inference() {
    let gateway = fleet();
    let client = gateway.client();
    // Without a key.
    let info = gateway.anonymous().get("/info").json();
    assert_eq!(info["model_type"].as_object().unwrap().keys().collect::<Vec<_>>(), ["embedding"]);
    assert!(whole_number(&info, "/max_input_length") > 0 && whole_number(&info, "/max_client_batch_size") > 0);
    let tokens = post(&client, "/tokenize", r#"{"inputs": ["a small bird", "rain"]}"#).json();
    for (nth, token) in [(0, "/0/0/special"), (1, "/1/0/special")] {
        assert_eq!(tokens.pointer(token), Some(&Value::Bool(true)), "{nth}: {tokens}");
        assert!(list(&tokens, &format!("/{nth}")).iter().any(|token| token["stop"].is_u64()), "{tokens}");
    }
    let answer = post(&client, "/v1/embeddings", r#"{"input": ["a small bird", "rain"]}"#).json();
    assert_vectors(&list(&answer, "/data").iter().map(|entry| entry["embedding"].clone()).collect::<Vec<_>>(), 2);
    assert!(whole_number(&answer, "/usage/total_tokens") > 0);
    assert_vectors(list(&post(&client, "/embed", r#"{"inputs": ["a small bird", "rain"]}"#).json(), ""), 2);

    let body = r#"{"query": "a small bird", "texts": ["rain falls", "the sparrow sings"], "return_text": true}"#;
    let answer = post(&client, "/rerank", body).json();
    assert_eq!(indices(list(&answer, ""), "score").len(), 2);
    text(&answer, "/0/text");
}

#[test]
fn ragflow_ranks_and_embeds() {
    let gateway = fleet();
    let client = gateway.client();
    for body in [
        // Jina, and servers that take after it.
        r#"{"model": "ranks", "query": "a small bird", "documents": ["rain falls", "the sparrow sings"], "top_n": 2}"#,
        // Xinference, with truth as text.
        r#"{"model": "ranks", "query": "a small bird", "return_documents": "true", "return_len": "true", "documents": ["rain falls", "the sparrow sings"]}"#,
    ] {
        for path in ["/v1/rerank", "/rerank"] {
            let answer = post(&client, path, body).json();
            assert_eq!(indices(list(&answer, "/results"), "relevance_score").len(), 2);
            assert!(whole_number(&answer, "/usage/total_tokens") > 0);
        }
    }
    let body = r#"{"query": "a small bird", "texts": ["rain falls", "the sparrow sings"], "raw_scores": false, "truncate": true}"#;
    assert_eq!(indices(list(&post(&client, "/rerank", body).json(), ""), "score").len(), 2);
    let body = r#"{"input": ["a bird", "rain"], "model": "vectors", "encoding_format": "float", "drop_params": true}"#;
    let answer = post(&client, "/v1/embeddings", body).json();
    assert_vectors(&list(&answer, "/data").iter().map(|entry| entry["embedding"].clone()).collect::<Vec<_>>(), 2);
    assert!(whole_number(&answer, "/usage/total_tokens") > 0);
    // Its engine for Ollama.
    let body = r#"{"model": "vectors", "input": ["a bird", "rain"], "options": {"use_mmap": true}, "keep_alive": -1}"#;
    assert_vectors(list(&post(&client, "/api/embed", body).json(), "/embeddings"), 2);
    let body = r#"{"model": "vectors", "prompt": "a bird", "options": {"use_mmap": true}, "keep_alive": -1}"#;
    assert_eq!(list(&post(&client, "/api/embeddings", body).json(), "/embedding").len(), WIDTH);
}

#[test]
fn open_webui_chats_with_an_openai_server_embeds_and_ranks() {
    let gateway = fleet();
    // It can tell who asks; a name is percent-encoded.
    let client = gateway
        .client()
        .header("X-OpenWebUI-User-Name", "J%C3%BCrgen Test")
        .header("X-OpenWebUI-User-Id", "5f3c")
        .header("X-OpenWebUI-User-Email", "a@example.org")
        .header("X-OpenWebUI-User-Role", "admin")
        .header("X-OpenWebUI-Chat-Id", "1b7e");
    for path in ["/v1/models", "/models"] {
        let models = client.get(path).json();
        assert!(list(&models, "/data").iter().any(|model| model["id"] == "tiny"), "{models}");
    }
    let body = r#"{"stream": true, "model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream_options": {"include_usage": true}}"#;
    let pieces = chunks(&post(&client, "/v1/chat/completions", body));
    assert!(pieces.iter().any(|piece| piece["choices"][0]["delta"]["content"].is_string()), "{pieces:?}");
    assert!(whole_number(pieces.last().unwrap(), "/usage/completion_tokens") > 0);
    // Titles and tags are asked for without a stream.
    let body = r####"{"model": "tiny", "messages": [{"role": "user", "content": "### Task: Generate a title."}], "stream": false, "max_completion_tokens": 8}"####;
    text(&post(&client, "/v1/chat/completions", body).json(), "/choices/0/message/content");

    let answer = post(&client, "/v1/embeddings", r#"{"input": ["a bird", "rain"], "model": "vectors"}"#).json();
    assert_vectors(&list(&answer, "/data").iter().map(|entry| entry["embedding"].clone()).collect::<Vec<_>>(), 2);
    let body =
        r#"{"model": "ranks", "query": "a small bird", "documents": ["rain falls", "the sparrow sings"], "top_n": 2}"#;
    for path in ["/v1/rerank", "/rerank"] {
        let mut indices = indices(list(&post(&client, path, body).json(), "/results"), "relevance_score");
        indices.sort_unstable();
        assert_eq!(indices, [0, 1]);
    }
}

#[test]
fn open_webui_uses_ollamas_api() {
    let gateway = fleet();
    let client = gateway.client();
    let version = client.get("/api/version").json();
    assert!(text(&version, "/version").split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    let tags = client.get("/api/tags").json();
    let model = list(&tags, "/models").iter().find(|model| model["model"] == "tiny:latest").unwrap();
    for member in ["/name", "/digest", "/modified_at", "/details/family"] {
        text(model, member);
    }
    assert!(whole_number(model, "/size") > 0);
    let shown = post(&client, "/api/show", r#"{"model": "tiny:latest"}"#).json();
    assert!(list(&shown, "/capabilities").contains(&Value::from("completion")));
    let body = r#"{"model": "tiny:latest", "messages": [{"role": "user", "content": "Hello"}], "options": {"temperature": 0.8, "num_ctx": 2048, "num_predict": 8}, "stream": true, "keep_alive": "5m"}"#;
    let lines = json_lines(&post(&client, "/api/chat", body));
    let (last, parts) = lines.split_last().unwrap();
    assert!(parts.iter().all(|part| part["done"] == false && part["message"]["content"].is_string()), "{parts:?}");
    for member in [
        "/total_duration",
        "/load_duration",
        "/prompt_eval_count",
        "/prompt_eval_duration",
        "/eval_count",
        "/eval_duration",
    ] {
        whole_number(last, member);
    }
    assert!(list(&client.get("/api/ps").json(), "/models").iter().any(|model| model["name"] == "tiny:latest"));
    let body = r#"{"input": ["a bird", "rain"], "model": "vectors:latest", "truncate": true}"#;
    assert_vectors(list(&post(&client, "/api/embed", body).json(), "/embeddings"), 2);
    post(&client, "/api/generate", r#"{"model": "tiny:latest", "keep_alive": 0}"#);
}

#[test]
fn continue_uses_the_providers_openai_and_vllm() {
    // A model that fills in code, by tokens that stand for others.
    let token = |(name, id): (&str, u32)| format!("--override-kv, 'tokenizer.ggml.{name}_token_id=int:{id}'");
    let tokens = [("fim_pre", 20), ("fim_suf", 21), ("fim_mid", 22)].map(token).join(", ");
    let code = format!("  code: {{file: tiny-chat.gguf, args: [{tokens}]}}\n");
    let gateway = Gateway::builder().reals(&format!("{FLEET}{code}")).set("CTX", 2048).start();
    // It sends the key three times.
    let client = gateway.client().header("api-key", USER).header("x-api-key", USER);
    let models = client.get("/v1/models").json();
    text(&models, "/data/0/id");
    assert!(whole_number(&models, "/data/0/max_model_len") > 0);
    let body = r#"{"model":"tiny","max_tokens":8,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]}]}"#;
    let pieces = chunks(&post(&client, "/v1/chat/completions", body));
    assert!(pieces.iter().any(|piece| piece["choices"][0]["delta"]["content"].is_string()), "{pieces:?}");
    let body = r#"{"model":"vectors","input":["a bird","rain"]}"#;
    let answer = post(&client, "/v1/embeddings", body).json();
    assert_vectors(&list(&answer, "/data").iter().map(|entry| entry["embedding"].clone()).collect::<Vec<_>>(), 2);

    let body = r#"{"model":"ranks","query":"a small bird","documents":["rain falls","the sparrow sings"]}"#;
    let answer = post(&client, "/v1/rerank", body).json();
    // Its provider `openai` reads `data`, and `vllm` reads `results`.
    for entries in ["/data", "/results"] {
        assert_eq!(indices(list(&answer, entries), "relevance_score").len(), 2);
    }
    // The completion at the cursor.
    let body = r#"{"model":"code","prompt":"def f(","suffix":"return a","max_tokens":4,"temperature":0.01,"stop":["\n"],"stream":true}"#;
    let pieces = chunks(&post(&client, "/v1/fim/completions", body));
    assert!(pieces.iter().all(|piece| piece["choices"][0]["delta"].is_object()), "{pieces:?}");
    let body = r#"{"prompt":"def f(","n_predict":4,"stream":false}"#;
    let llama_cpp = post(&client, "/completion", body).json();
    assert!(llama_cpp["content"].is_string(), "{llama_cpp}");
}

#[test]
fn continue_uses_the_providers_huggingface_tei_and_ollama() {
    let gateway = fleet();
    let client = gateway.client();
    let info = gateway.anonymous().get("/info").json();
    assert_eq!(text(&info, "/model_id"), "vectors");
    assert!(whole_number(&info, "/max_client_batch_size") > 0);
    assert_vectors(list(&post(&client, "/embed", r#"{"inputs":["a bird","rain"]}"#).json(), ""), 2);
    let body = r#"{"query":"a small bird","return_text":false,"raw_scores":false,"texts":["rain falls","the sparrow sings"],"truncation_direction":"Right","truncate":true}"#;
    assert_eq!(indices(list(&post(&client, "/rerank", body).json(), ""), "score").len(), 2);
    let refused = client.send("POST", "/embed", br#"{"inputs":[]}"#);
    text(&refused.json(), "/error");
    text(&refused.json(), "/error_type");

    // It asks by the old name of the member, and splits `parameters` where they are there.
    let shown = post(&client, "/api/show", r#"{"name":"tiny"}"#).json();
    assert!(shown.get("parameters").is_none_or(Value::is_string), "{shown}");
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"options":{"num_predict":8,"num_ctx":2048},"keep_alive":1800,"stream":true}"#;
    let lines = json_lines(&post(&client, "/api/chat", body));
    assert!(lines.len() > 2 && lines.iter().all(|line| line["message"]["role"] == "assistant"), "{lines:?}");
    // With tools it never asks for a stream.
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"Add."}],"options":{"num_predict":100},"keep_alive":1800,"stream":false,"tools":[{"type":"function","function":{"name":"add","description":"Adds.","parameters":{"type":"object","properties":{"a":{"enum":[1,2]}},"required":["a"]}}}]}"#;
    let called = post(&client, "/api/chat", body).json();
    assert_eq!(text(&called, "/message/tool_calls/0/function/name"), "add");
    assert!(called["message"]["tool_calls"][0]["function"]["arguments"]["a"].is_u64(), "{called}");
    let body =
        r#"{"model":"tiny","prompt":"def f(","raw":true,"options":{"num_predict":4},"keep_alive":1800,"stream":true}"#;
    let lines = json_lines(&post(&client, "/api/generate", body));
    assert!(lines.iter().all(|line| line["response"].is_string()), "{lines:?}");
    let body = r#"{"model":"vectors","input":["a bird","rain"]}"#;
    assert_vectors(list(&post(&client, "/api/embed", body).json(), "/embeddings"), 2);
}

/// Returns what is in the data lines of an event stream that has no end mark.
#[track_caller]
fn events(answer: &Response) -> Vec<Value> {
    let text = answer.text();
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn codex_responds_with_calls_of_its_tools() {
    let gateway = fleet();
    let client = gateway.client().header("originator", "codex_cli_rs").header("session-id", "0199-a");
    let body = r#"{"model":"tiny","instructions":"You are a coding agent.","input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"<permissions>"}]},{"type":"message","role":"user","content":[{"type":"input_text","text":"Hello"}]}],"tools":[{"type":"function","name":"exec_command","description":"Runs a command.","strict":false,"parameters":{"type":"object","properties":{"cmd":{"enum":["ls"]}},"required":["cmd"],"additionalProperties":false}},{"type":"namespace","name":"mcp","description":"More tools.","tools":[]},{"type":"web_search","external_web_access":false}],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":{"effort":"medium"},"store":false,"stream":true,"include":["reasoning.encrypted_content"],"prompt_cache_key":"0199-a","client_metadata":{"installation":"1"}}"#;
    let events = events(&post(&client, "/v1/responses", body));
    assert_eq!((text(&events[0], "/type"), events[0]["sequence_number"].as_u64()), ("response.created", Some(0)));
    let end = events.last().unwrap();
    assert_eq!(text(end, "/type"), "response.completed");
    let call = list(end, "/response/output").iter().find(|item| item["type"] == "function_call").unwrap();
    assert_eq!(text(call, "/name"), "exec_command");
    let arguments: Value = serde_json::from_str(text(call, "/arguments")).unwrap();
    assert_eq!(text(&arguments, "/cmd"), "ls");
    assert!(whole_number(end, "/response/usage/input_tokens") > 0);
    // The next turn has the call and its result.
    let id = text(call, "/call_id");
    let body = format!(
        r#"{{"model":"tiny","instructions":"You are a coding agent.","input":[{{"type":"message","role":"user","content":[{{"type":"input_text","text":"Hello"}}]}},{{"type":"function_call","name":"exec_command","arguments":"{{\"cmd\":\"ls\"}}","call_id":"{id}"}},{{"type":"function_call_output","call_id":"{id}","output":"a.txt"}}],"tools":[],"tool_choice":"auto","store":false,"stream":false,"max_output_tokens":8}}"#
    );
    text(&post(&client, "/v1/responses", &body).json(), "/output/0/content/0/text");
}

#[test]
fn claude_code_gets_messages_with_calls_of_its_tools() {
    let gateway = fleet();
    let client = gateway
        .anonymous()
        .header("x-api-key", USER)
        .header("anthropic-version", "2023-06-01")
        .header("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14")
        .header("x-claude-code-session-id", "77-a");
    let body = r#"{"model":"tiny","max_tokens":200,"stream":true,"system":[{"type":"text","text":"You are Claude Code.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hello","cache_control":{"type":"ephemeral"}}]},{"role":"system","content":"<system-reminder>Be brief.</system-reminder>"}],"tools":[{"name":"Read","description":"Reads a file.","input_schema":{"type":"object","properties":{"file_path":{"enum":["/a"]}},"required":["file_path"],"additionalProperties":false}}],"metadata":{"user_id":"u"},"thinking":{"type":"adaptive"},"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},"output_config":{"effort":"medium"}}"#;
    let events = events(&post(&client, "/v1/messages?beta=true", body));
    assert_eq!((text(&events[0], "/type"), text(&events[0], "/message/role")), ("message_start", "assistant"));
    let begun = events.iter().find(|event| event["content_block"]["type"] == "tool_use").unwrap();
    assert_eq!(text(begun, "/content_block/name"), "Read");
    let input: String = events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&input).unwrap()["file_path"], "/a");
    assert!(events.iter().any(|event| event["delta"]["stop_reason"] == "tool_use"), "{events:?}");
    assert_eq!(text(events.last().unwrap(), "/type"), "message_stop");
    let counted = r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}]}"#;
    assert!(whole_number(&post(&client, "/v1/messages/count_tokens?beta=true", counted).json(), "/input_tokens") > 0);
}

#[test]
fn what_is_left_out_on_purpose_is_refused_in_words_that_clients_show() {
    let gateway = fleet();
    for (path, body) in [
        ("/v1/chat", r#"{"model": "tiny", "message": "Hello"}"#),
        ("/v2/chat", r#"{"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}"#),
        ("/v1/images/generations", r#"{"model": "dall-e-3", "prompt": "a bird", "n": 1, "size": "512x512"}"#),
        ("/v1/audio/speech", r#"{"model": "tts-1", "input": "Hello", "voice": "alloy"}"#),
    ] {
        let refused = gateway.client().send("POST", path, body.as_bytes());
        assert_eq!((refused.status(), refused.header("x-should-retry")), (404, Some("false")), "{path}");
        assert_eq!(text(&refused.json(), "/error/code"), "route_not_found");
        text(&refused.json(), "/error/message");
    }
}
