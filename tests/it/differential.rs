//! The same requests to a bare llama-server and through the gateway: every difference is listed here with its reason.
//!
//! A request without a listed difference must get the same status, content type and body, except for values that differ
//! between two runs of llama-server itself, such as ids and times. A listed difference must exist, so that the list stays
//! true.

use std::process::Command;

use serde_json::{Value, json};

use super::support::{
    client::{Client, Response},
    gateway::{Backend, Gateway, USER, backend_port, real_llama_server, test_models},
    process::Process,
    wait::{REAL_MODEL_READY, eventually},
};

/// A request, and why the gateway may answer it in another way.
struct Sample {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    difference: Difference,
}

/// How the two answers to a request differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    None,
    /// Only in the name of the model: the gateway's answer has the one that the client asked for.
    ModelName,
    /// In the whole, for this reason.
    All(&'static str),
}

const OWN_404: Difference = Difference::All("the gateway answers what is no route itself, in OpenAI's shape");
const CLOSED: Difference = Difference::All("the route could change llama-server for other clients, so it is closed");
const SPELLING: Difference = Difference::All("the gateway understands paths as clients build them");
const NAMES_SETTING: Difference = Difference::All("the refusal names the setting that would allow it");
const OWN_ROUTE: Difference = Difference::All("the gateway answers this from its own state");
const WRONG_KIND: Difference =
    Difference::All("the kind of the model is checked before llama-server, which may crash, sees the request");
const FAULT: Difference =
    Difference::All("a 5xx that names the request's own fault is 400, because libraries repeat every 5xx");
const PARAMETER: Difference =
    Difference::All("a value that the API does not allow is refused by the gateway, with the name of the parameter");
const OPENAI_FORM: Difference = Difference::All(
    "a body with input is in OpenAI's form, whose clients use this path if their base address lacks /v1",
);
const MENDED: Difference = Difference::All("clients insist on what llama-server leaves out here");
const RERANK: Difference =
    Difference::All("the gateway writes these answers itself: scores from 0 to 1, errors that every client can read");
const NEEDS_SCOPE: Difference = Difference::All("the slots show other clients' requests: this needs the scope admin");

impl Sample {
    fn post(path: &str, body: &Value) -> Self {
        Self::send("POST", path, body.to_string().as_bytes())
    }

    fn get(path: &str) -> Self {
        Self::send("GET", path, b"")
    }

    fn send(method: &'static str, path: &str, body: &[u8]) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: body.to_vec(), difference: Difference::None }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn differs(self, difference: Difference) -> Self {
        Self { difference, ..self }
    }

    fn send_with(&self, client: Client) -> Response {
        let client = self.headers.iter().fold(client, |client, (name, value)| client.header(name, value));
        client.send(self.method, &self.path, &self.body)
    }

    fn describe(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {} {:?} {}", self.method, self.path, self.headers, body.chars().take(200).collect::<String>())
    }
}

/// A bare llama-server with the options that the gateway gives to its own.
struct Bare {
    url: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Bare {
    fn start(model: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = backend_port().to_string();
        let mut command = Command::new(real_llama_server());
        command.args(["--host", "127.0.0.1", "--port", &port, "--alias", model, "-np", "1", "-c", "1024", "-t", "1"]);
        command.args(["-ngl", "0", "--fit", "off", "--metrics", "--slots", "--no-webui", "--offline"]);
        command.args(["-m", test_models().join(format!("{model}.gguf")).to_str().unwrap()]).args(options);
        command.env("HOME", folder.path());
        let process = Process::start("llama-server", &mut command, folder.path());
        let url = format!("http://127.0.0.1:{port}");
        eventually("the bare llama-server is ready", REAL_MODEL_READY, || {
            Client::new(&url).try_send("GET", "/health", b"").is_ok_and(|answer| answer.status() == 200)
        });
        Self { url, _process: process, _folder: folder }
    }
}

/// Members whose values differ between two runs of llama-server.
const VOLATILE: [&str; 15] = [
    "id",
    "item_id",
    "created",
    "created_at",
    "completed_at",
    "system_fingerprint",
    "timings",
    "call_id",
    "prompt_ms",
    "predicted_ms",
    "model_path",
    "media_marker",
    "build_info",
    "t_start",
    "time_ms",
];

/// Returns the value without its volatile members and without those with this name.
fn without(value: Value, also: &str) -> Value {
    match value {
        Value::Object(members) => {
            let stays = |(name, _): &(String, Value)| name != also && !VOLATILE.contains(&name.as_str());
            Value::Object(members.into_iter().filter(stays).map(|(name, value)| (name, without(value, also))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| without(item, also)).collect()),
        other => other,
    }
}

/// Returns what two answers are compared by: status, type of the content, and the content without volatile members and
/// without those called `also`.
fn essence(answer: &Response, also: &str) -> (u16, String, Vec<Value>) {
    let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
    let text = answer.text();
    let content = match kind.as_str() {
        "text/event-stream" => {
            let data = text.lines().filter(|line| !line.trim().is_empty()).map(|line| {
                let data = line.strip_prefix("data:").and_then(|data| serde_json::from_str(data).ok());
                data.map_or_else(|| json!(line), |data| without(data, also))
            });
            data.collect()
        }
        _ => vec![serde_json::from_str(&text).map_or_else(|_| json!(text), |content| without(content, also))],
    };
    (answer.status(), kind, content)
}

/// Sends every sample to both servers. Panics with all differences that are not listed, and all listed ones that do not
/// exist.
fn compare(model: &'static str, options: &[&str], samples: &[Sample]) {
    let bare = Bare::start(model, options);
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: Box::leak(format!("{model}.gguf").into_boxed_str()) })
        .set("MAX_REQUESTS_PER_MINUTE", "100000")
        .start_ready();
    let mut found = Vec::new();
    for sample in samples {
        let direct = sample.send_with(Client::new(&bare.url));
        let through = sample.send_with(gateway.client_with(USER));
        let differ = |also| essence(&direct, also) != essence(&through, also);
        let is_as_listed = match sample.difference {
            Difference::None => !differ(""),
            Difference::ModelName => differ("") && !differ("model"),
            Difference::All(_) => differ("model"),
        };
        if !is_as_listed {
            let (direct, through) = (essence(&direct, ""), essence(&through, ""));
            found.push(format!(
                "{}\n  listed  {:?}\n  direct  {direct:?}\n  gateway {through:?}",
                sample.describe(),
                sample.difference
            ));
        }
    }
    assert!(found.is_empty(), "{} of {} requests:\n{}", found.len(), samples.len(), found.join("\n"));
}

fn with(base: &Value, members: Value) -> Value {
    let mut body = base.clone();
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

/// Variations of a request for generated text that every such route understands.
fn sampling_options() -> Vec<Value> {
    vec![
        json!({}),
        json!({"seed": 7}),
        json!({"stop": ["a", "e"]}),
        json!({"top_k": 1, "top_p": 0.5, "min_p": 0.1}),
        json!({"presence_penalty": 1.0, "frequency_penalty": 0.5, "repeat_penalty": 1.2}),
        json!({"logit_bias": [[5, -100]]}),
        json!({"cache_prompt": false}),
        json!({"id_slot": 0}),
        json!({"grammar": "root ::= \"yes\" | \"no\""}),
        json!({"grammar": "root ::= ("}),
        json!({"json_schema": {"type": "boolean"}}),
        json!({"model": "some-other-name"}),
        json!({"model": "tiny-chat"}),
        json!({"a field that does not exist": {"x": [1, 2, 3]}, "user": "me"}),
        json!({"timings_per_token": true}),
        json!({"samplers": ["top_k", "temperature"]}),
        json!({"temperature": "hot"}),
        json!({"lora": []}),
    ]
}

/// Returns the difference of a successful answer to a request with these members.
fn named(members: &Value) -> Difference {
    match members["model"].as_str() {
        None | Some("tiny-chat") => Difference::None,
        Some(_) => Difference::ModelName,
    }
}

fn chat_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let say = |text: &str| json!([{"role": "user", "content": text}]);
    let chat = json!({"messages": say("hello"), "max_tokens": 6, "temperature": 0});
    let completion = json!({"prompt": "hello", "max_tokens": 6, "n_predict": 6, "temperature": 0});
    for stream in [false, true] {
        for options in sampling_options() {
            let options = with(&options, json!({"stream": stream}));
            let difference = named(&options);
            for (path, base) in
                [("/v1/chat/completions", &chat), ("/completion", &completion), ("/v1/completions", &completion)]
            {
                let is_refused = options["temperature"].is_string() && path != "/completion";
                let difference = if is_refused { PARAMETER } else { difference };
                samples.push(Sample::post(path, &with(base, options.clone())).differs(difference));
            }
        }
    }
    for options in [
        json!({"max_completion_tokens": 2}),
        json!({"max_tokens": 1}),
        json!({"logprobs": true, "top_logprobs": 2}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "boolean"}}}}),
        json!({"response_format": {"type": "poem"}}),
        json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
        json!({"stream": true, "stream_options": {"include_usage": false}}),
        json!({"stream": true, "logprobs": true}),
        json!({"n": 1}),
        json!({"messages": []}),
        json!({"messages": null}),
        json!({"messages": "hello"}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"role": "narrator", "content": "x"}]}),
        json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "in a part"}]}]}),
        json!({"messages": say("größer 🌍 \u{0}\"\\ 水")}),
        json!({"messages": say(&"long ".repeat(200))}),
        json!({"messages": say("prefix"), "add_generation_prompt": false}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
        json!({"reasoning_format": "none"}),
        // Members of other dialects: here they mean nothing.
        json!({"options": {"temperature": 2}, "keep_alive": 0, "documents": ["a"], "query": "q", "raw_scores": true}),
        json!({"stream": true, "options": {"num_predict": 1}, "keep_alive": "1s", "texts": ["a"]}),
    ] {
        samples.push(Sample::post("/v1/chat/completions", &with(&chat, options.clone())));
        samples.push(Sample::post("/chat/completions", &with(&chat, options)));
    }
    for options in [json!({"max_tokens": 0}), json!({"temperature": 3}), json!({"stop": 5}), json!({"n": "1"})] {
        samples.push(Sample::post("/v1/chat/completions", &with(&chat, options)).differs(PARAMETER));
    }
    for options in
        [json!({"max_tokens": -1, "t_max_predict_ms": 1}), json!({"seed": -1}), json!({"min_p": 7, "top_k": -1})]
    {
        samples.push(Sample::post("/v1/chat/completions", &with(&chat, options)));
    }
    for options in [json!({"tools": "none"}), json!({"messages": [{"content": "no role"}]})] {
        for path in ["/v1/chat/completions", "/chat/completions"] {
            samples.push(Sample::post(path, &with(&chat, options.clone())).differs(FAULT));
        }
    }
    for options in [
        json!({"prompt": ["one", "two"]}),
        json!({"prompt": [1, 2, 3]}),
        json!({"prompt": [[1, 2], "mixed"]}),
        json!({"prompt": ""}),
        json!({"prompt": null}),
        json!({"n_probs": 2}),
        json!({"return_tokens": true}),
        json!({"echo": true}),
        json!({"stream": true, "return_progress": true}),
    ] {
        for path in ["/completion", "/completions", "/v1/completions"] {
            samples.push(Sample::post(path, &with(&completion, options.clone())));
        }
    }
    let message = json!({"model": "any", "messages": say("hello"), "max_tokens": 6, "temperature": 0});
    for options in [
        json!({}),
        json!({"stream": true}),
        json!({"system": "be brief"}),
        json!({"stop_sequences": ["a"]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]}),
        json!({"messages": null}),
    ] {
        // The answer ends at it.
        let difference = if options.get("stop_sequences").is_some() { MENDED } else { named(&message) };
        samples.push(Sample::post("/v1/messages", &with(&message, options.clone())).differs(difference));
        samples.push(Sample::post("/v1/messages/count_tokens", &with(&message, options)));
    }
    let response = json!({"input": "hello", "max_output_tokens": 6, "temperature": 0});
    for options in [
        json!({}),
        json!({"stream": true}),
        json!({"instructions": "be brief"}),
        json!({"input": say("hi")}),
        json!({"input": 7}),
    ] {
        // All that are answered are cut at their limit.
        let difference = if options["input"].is_number() { Difference::None } else { MENDED };
        samples.push(Sample::post("/v1/responses", &with(&response, options.clone())).differs(difference));
        samples.push(Sample::post("/responses", &with(&response, options)).differs(difference));
    }
    samples.extend([
        Sample::post("/tokenize", &json!({"content": "hello there"})),
        Sample::post("/tokenize", &json!({"content": "hello", "with_pieces": true, "add_special": true})),
        Sample::post("/tokenize", &json!({})),
        Sample::post("/detokenize", &json!({"tokens": [1, 2, 3]})),
        Sample::post("/detokenize", &json!({"tokens": "x"})),
        Sample::post("/apply-template", &json!({"messages": say("hello")})),
        Sample::post("/apply-template", &json!({})),
        Sample::post("/infill", &json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 2})).differs(FAULT),
        Sample::send("POST", "/v1/chat/completions", b"{not json"),
        Sample::send("POST", "/v1/chat/completions", b""),
        Sample::send("POST", "/v1/chat/completions", b"[]"),
        Sample::send("POST", "/v1/chat/completions", b"\"text\""),
        Sample::send("POST", "/v1/chat/completions", b"\xff\xfe"),
        Sample::send("POST", "/tokenize", b"{\"content\": \"a\", \"content\": \"b\"}"),
        Sample::post("/v1/chat/completions?stream=true", &chat),
        Sample::post("/v1/chat/completions", &chat).header("Accept", "text/event-stream"),
        Sample::post("/v1/chat/completions", &chat).header("Content-Type", "application/json; charset=utf-8"),
        Sample::post("/v1/chat/completions", &chat).header("Content-Type", "text/plain"),
        Sample::post("/v1/chat/completions", &chat).header("Accept-Encoding", "gzip, br"),
        Sample::post("/v1/chat/completions", &chat).header("Expect", "100-continue"),
        Sample::get("/props"),
        Sample::get("/v1/chat/completions").differs(OWN_404),
        Sample::get("/nothing/here").differs(OWN_404),
        Sample::get("/v1/models").differs(OWN_ROUTE),
        Sample::get("/health").differs(OWN_ROUTE),
        Sample::get("/metrics").differs(OWN_ROUTE),
        Sample::get("/slots").differs(NEEDS_SCOPE),
        Sample::get("/").differs(OWN_ROUTE),
        Sample::get("/v1/health").differs(OWN_ROUTE),
        Sample::send("HEAD", "/props", b""),
        Sample::post("/v1/chat/completions", &with(&chat, json!({"n": 2}))).differs(NAMES_SETTING),
        Sample::post("/v1/chat/completions/input_tokens", &chat),
        Sample::post("/chat/completions/input_tokens", &json!({})),
        Sample::post("/v1/responses/input_tokens", &response),
        Sample::post("/responses/input_tokens", &json!({"input": 7})),
        Sample::post("/audio/transcriptions", &json!({})).differs(FAULT),
        Sample::post("/v1/systemone", &json!({})).differs(FAULT),
        Sample::post("/v1//chat/completions", &chat).differs(SPELLING),
        Sample::post("/v1/v1/chat/completions/", &chat).differs(SPELLING),
        Sample::post("/v1/chat/completion%73", &chat),
        Sample::post("/props", &json!({})).differs(CLOSED),
        Sample::post("/slots/0?action=erase", &json!({})).differs(CLOSED),
        Sample::get("/lora-adapters"),
        Sample::post("/lora-adapters", &json!([])).differs(CLOSED),
        Sample::post("/v1/embeddings", &json!({"input": "x"})).differs(WRONG_KIND),
        Sample::post("/v1/rerank", &json!({"query": "q", "documents": ["a"]})).differs(WRONG_KIND),
    ]);
    samples
}

fn embedding_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for body in [
        json!({"input": "hello"}),
        json!({"input": ["hello", "there"]}),
        json!({"input": [1, 2, 3]}),
        json!({"input": [[1, 2], [3]]}),
        json!({"input": "hello", "encoding_format": "base64"}),
        json!({"input": "hello", "encoding_format": "float", "model": "text-embedding-3-small"}),
        json!({"input": "hello", "encoding_format": "hex"}),
        json!({"input": ""}),
        json!({"input": []}),
        json!({"input": null}),
        json!({"input": {"text": "x"}}),
        json!({"input": "größer 🌍"}),
        json!({"content": "hello"}),
        json!({"content": ["hello", "there"]}),
        json!({}),
        json!({"input": "x", "user": "me", "an unknown field": 1}),
        // Members of dialects that say nothing.
        json!({"input": ["x", "y"], "dimensions": null, "truncate": null, "input_type": null}),
        json!({"input": "x", "encoding_format": "base64", "dimensions": null}),
    ] {
        for path in ["/v1/embeddings", "/embedding"] {
            samples.push(Sample::post(path, &body));
        }
        // Errors are the same in both forms.
        let is_error = body["encoding_format"] == "hex"
            || body["input"].is_null()
            || body["input"].is_object()
            || body["input"].as_array().is_some_and(Vec::is_empty);
        let differs = if is_error { Difference::None } else { OPENAI_FORM };
        samples.push(Sample::post("/embeddings", &body).differs(differs));
    }
    samples.push(Sample::post("/v1/embeddings", &json!({"input": "long ".repeat(2000)})).differs(FAULT));
    samples.push(Sample::post("/tokenize", &json!({"content": "hello there"})));
    samples.push(Sample::post("/v1/chat/completions", &json!({"messages": []})).differs(WRONG_KIND));
    samples
}

fn rerank_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for body in [
        json!({"query": "a small bird", "documents": ["the sparrow sings", "rain falls", "birds"]}),
        json!({"query": "a small bird", "documents": ["the sparrow sings", "rain falls"], "top_n": 1}),
        json!({"query": "q", "texts": ["a", "b"]}),
        json!({"query": "q", "documents": ["a"], "model": "rerank-v3.5"}),
        json!({"query": "q", "documents": []}),
        json!({"query": "q"}),
        json!({"documents": ["a"]}),
        json!({"query": 7, "documents": ["a"]}),
        json!({"query": "q", "documents": [7]}),
        json!({"query": "", "documents": ["", "b"]}),
        json!({"query": "q", "documents": ["a"], "top_n": 5}),
        json!({"query": "q", "documents": ["a"], "an unknown field": true}),
    ] {
        for path in ["/v1/rerank", "/rerank", "/reranking", "/v1/reranking"] {
            samples.push(Sample::post(path, &body).differs(RERANK));
        }
    }
    samples.push(Sample::post("/tokenize", &json!({"content": "hello there", "with_pieces": true})));
    samples.push(Sample::post("/detokenize", &json!({"tokens": [5, 6]})));
    samples
}

#[test]
fn a_chat_model_answers_through_the_gateway_as_without_it() {
    compare("tiny-chat", &[], &chat_samples());
}

#[test]
fn an_embedding_model_answers_through_the_gateway_as_without_it() {
    compare("tiny-embedding", &["--embedding", "-b", "1024", "-ub", "1024"], &embedding_samples());
}

#[test]
fn a_reranker_answers_through_the_gateway_as_without_it() {
    compare("tiny-rerank", &["--reranking", "-b", "1024", "-ub", "1024"], &rerank_samples());
}
