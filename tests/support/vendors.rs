//! Stand-ins for servers that rerank and embed in APIs of their own: they answer as each of them documents.
//!
//! The score of a document and the vector of a text depend on the text alone, so that all of them say the same.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::remote::{ReceivedRequest, Remote, Reply};

/// The numbers of a vector, as many as the test model has.
const WIDTH: usize = 64;

/// A path, and what is sent there.
pub(crate) type Asked = (&'static str, fn() -> Value);

/// One kind of server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vendor {
    pub(crate) name: &'static str,
    /// The prefix of its models in LiteLLM.
    pub(crate) prefix: &'static str,
    /// The path at which it is probed.
    pub(crate) health: &'static str,
    /// The path at which it reranks, and what it gets for the query "q" and three documents; `None` if it does not.
    pub(crate) rerank: Option<Asked>,
    /// The path at which it embeds, and what it gets for two queries that must not be cut.
    pub(crate) embed: Asked,
    pub(crate) answer: fn(&ReceivedRequest) -> (u16, Value),
}

pub(crate) const ALL: [Vendor; 7] = [
    Vendor {
        name: "tei",
        prefix: "huggingface",
        health: "/health",
        rerank: Some((
            "/rerank",
            || json!({"query": "q", "texts": ["bb", "a", "dddd"], "raw_scores": false, "truncate": false}),
        )),
        embed: ("/embed", || json!({"inputs": ["a small bird", "rain"], "normalize": true, "truncate": false})),
        answer: tei,
    },
    Vendor {
        name: "cohere",
        prefix: "cohere",
        health: "/v1/models",
        rerank: Some(("/v2/rerank", || json!({"model": "org/m", "query": "q", "documents": ["bb", "a", "dddd"]}))),
        embed: ("/v2/embed", || {
            json!({"model": "org/m", "texts": ["a small bird", "rain"], "input_type": "search_query",
                "embedding_types": ["float"], "truncate": "NONE"})
        }),
        answer: cohere,
    },
    Vendor {
        name: "jina",
        prefix: "jina_ai",
        health: "/v1/models",
        rerank: Some((
            "/v1/rerank",
            || json!({"model": "org/m", "query": "q", "documents": ["bb", "a", "dddd"], "return_documents": false}),
        )),
        embed: ("/v1/embeddings", || {
            json!({"model": "org/m", "input": ["a small bird", "rain"], "task": "retrieval.query", "normalized": true,
                "truncate": false})
        }),
        answer: jina,
    },
    Vendor {
        name: "voyage",
        prefix: "voyage",
        health: "/v1/models",
        rerank: Some((
            "/v1/rerank",
            || json!({"model": "org/m", "query": "q", "documents": ["bb", "a", "dddd"], "truncation": false}),
        )),
        embed: ("/v1/embeddings", || {
            json!({"model": "org/m", "input": ["a small bird", "rain"], "input_type": "query", "truncation": false,
                "encoding_format": "base64"})
        }),
        answer: voyage,
    },
    Vendor {
        name: "infinity",
        prefix: "infinity",
        health: "/health",
        rerank: Some((
            "/rerank",
            || json!({"model": "org/m", "query": "q", "documents": ["bb", "a", "dddd"], "raw_scores": false}),
        )),
        embed: ("/embeddings", openai_request),
        answer: infinity,
    },
    Vendor {
        name: "vllm",
        prefix: "hosted_vllm",
        health: "/v1/models",
        rerank: Some(("/v1/rerank", || json!({"model": "org/m", "query": "q", "documents": ["bb", "a", "dddd"]}))),
        embed: ("/v1/embeddings", openai_request),
        answer: vllm,
    },
    Vendor {
        name: "ollama",
        prefix: "ollama",
        health: "/api/version",
        rerank: None,
        embed: ("/api/embed", || json!({"model": "org/m", "input": ["a small bird", "rain"], "truncate": false})),
        answer: ollama,
    },
];

/// Returns the vendor with this name.
pub(crate) fn find(name: &str) -> Vendor {
    ALL.into_iter().find(|vendor| vendor.name == name).unwrap()
}

/// Starts a server of the vendor with this name.
pub(crate) fn start(name: &str) -> Remote {
    Remote::start(Reply::Answer(find(name).answer))
}

/// Returns the score that every server gives to a document: the longer, the better.
pub(crate) fn score(document: &str) -> f64 {
    let length = document.len() as f64;
    length / (length + 8.0)
}

/// Returns the vector of a text, of length 1.
pub(crate) fn vector(text: &str) -> Vec<f64> {
    let number = |at: usize| ((text.len() * 31 + at * 17) % 23) as f64 - 11.0;
    let length = (0..WIDTH).map(|at| number(at).powi(2)).sum::<f64>().sqrt();
    (0..WIDTH).map(|at| number(at) / length).collect()
}

fn openai_request() -> Value {
    json!({"model": "org/m", "input": ["a small bird", "rain"], "encoding_format": "base64"})
}

fn not_found() -> (u16, Value) {
    (404, json!({"detail": "Not Found"}))
}

fn texts(list: &Value) -> Vec<String> {
    let text = |item: &Value| item.as_str().unwrap_or_default().to_owned();
    match list {
        Value::String(text) => vec![text.clone()],
        list => list.as_array().into_iter().flatten().map(text).collect(),
    }
}

/// Returns entries with a score for each document, the best first.
fn ranked(documents: &Value, member: &str) -> Vec<Value> {
    let mut scored: Vec<(usize, f64)> = texts(documents).iter().map(|text| score(text)).enumerate().collect();
    scored.sort_by(|one, other| other.1.total_cmp(&one.1));
    scored.into_iter().map(|(index, score)| json!({"index": index, member: score})).collect()
}

fn vectors(inputs: &Value) -> Vec<Vec<f64>> {
    texts(inputs).iter().map(|text| vector(text)).collect()
}

/// Returns an answer as OpenAI's API has it.
fn openai_embeddings(body: &Value) -> (u16, Value) {
    let is_base64 = body["encoding_format"] == "base64";
    let written = |vector: Vec<f64>| match is_base64 {
        true => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| (*number as f32).to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        }
        false => json!(vector),
    };
    let entries: Vec<Value> = vectors(&body["input"])
        .into_iter()
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": written(vector)}))
        .collect();
    let usage = json!({"prompt_tokens": 5, "total_tokens": 5});
    (200, json!({"object": "list", "data": entries, "model": body["model"], "usage": usage}))
}

fn body_of(request: &ReceivedRequest) -> Value {
    request.body.parse().unwrap_or_default()
}

/// Returns the numbers of words such as `w7`, which are their tokens.
fn tokens(text: &str) -> Vec<u32> {
    text.split(' ').filter_map(|word| word.strip_prefix('w')?.parse().ok()).collect()
}

fn words(ids: &Value) -> String {
    let words: Vec<String> = ids.as_array().into_iter().flatten().map(|id| format!("w{id}")).collect();
    words.join(" ")
}

fn tei(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    match request.path.as_str() {
        "/rerank" | "/embed" if texts(&body["texts"]).len() + texts(&body["inputs"]).len() > 32 => {
            (422, json!({"error": "batch size > maximum allowed batch size 32", "error_type": "Validation"}))
        }
        "/rerank" => {
            let mut entries = ranked(&body["texts"], "score");
            if body["raw_scores"] == true {
                for entry in &mut entries {
                    let score = entry["score"].as_f64().unwrap();
                    entry["score"] = json!((score / (1.0 - score)).ln());
                }
            }
            (200, json!(entries))
        }
        "/embed" => (200, json!(vectors(&body["inputs"]))),
        "/tokenize" => {
            let token = |id: u32| json!({"id": id, "text": format!("w{id}"), "special": false, "start": 0, "stop": 0});
            let all = texts(&body["inputs"]);
            let all = all.iter().map(|text| tokens(text).into_iter().map(token).collect::<Vec<_>>());
            (200, all.collect())
        }
        "/decode" => (200, json!([words(&body["ids"])])),
        _ => not_found(),
    }
}

fn cohere(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"input_tokens": 5.0}});
    match request.path.as_str() {
        "/v2/rerank" => {
            let results = ranked(&body["documents"], "relevance_score");
            (200, json!({"id": "x", "results": results, "meta": meta}))
        }
        "/v2/embed" if body["input_type"].is_string() => {
            let embeddings = json!({"float": vectors(&body["texts"])});
            (200, json!({"id": "x", "embeddings": embeddings, "texts": body["texts"], "meta": meta}))
        }
        _ => (404, json!({"message": "not found"})),
    }
}

fn jina(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    match request.path.as_str() {
        "/v1/rerank" => {
            let results = ranked(&body["documents"], "relevance_score");
            let usage = json!({"total_tokens": 5});
            (200, json!({"model": body["model"], "object": "list", "usage": usage, "results": results}))
        }
        "/v1/embeddings" => openai_embeddings(&body),
        _ => not_found(),
    }
}

fn voyage(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    match request.path.as_str() {
        "/v1/rerank" => {
            let data = ranked(&body["documents"], "relevance_score");
            let usage = json!({"total_tokens": 5});
            (200, json!({"object": "list", "data": data, "model": body["model"], "usage": usage}))
        }
        "/v1/embeddings" => openai_embeddings(&body),
        _ => not_found(),
    }
}

fn infinity(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    match request.path.as_str() {
        "/rerank" => {
            let results = ranked(&body["documents"], "relevance_score");
            let usage = json!({"prompt_tokens": 5, "total_tokens": 5});
            (200, json!({"object": "rerank", "results": results, "model": body["model"], "usage": usage, "id": "x"}))
        }
        "/embeddings" => openai_embeddings(&body),
        _ => not_found(),
    }
}

fn vllm(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    match request.path.as_str() {
        "/v1/rerank" => {
            let mut results = ranked(&body["documents"], "relevance_score");
            for entry in &mut results {
                entry["document"] = json!({"text": "as it was sent", "multi_modal": null});
            }
            let usage = json!({"prompt_tokens": 5, "total_tokens": 5});
            (200, json!({"id": "x", "model": body["model"], "usage": usage, "results": results}))
        }
        "/v1/embeddings" => openai_embeddings(&body),
        "/tokenize" => {
            let tokens = tokens(body["prompt"].as_str().unwrap_or_default());
            let pieces: Vec<String> = tokens.iter().map(|id| format!("w{id}")).collect();
            let count = tokens.len();
            (200, json!({"count": count, "max_model_len": 512, "tokens": tokens, "token_strs": pieces}))
        }
        _ => not_found(),
    }
}

fn ollama(request: &ReceivedRequest) -> (u16, Value) {
    let body = body_of(request);
    match request.path.as_str() {
        "/api/embed" => {
            let embeddings = vectors(&body["input"]);
            (
                200,
                json!({"model": body["model"], "embeddings": embeddings, "total_duration": 1, "prompt_eval_count": 5}),
            )
        }
        "/v1/chat/completions" => {
            let choice =
                json!({"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"});
            (200, json!({"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}))
        }
        _ => (404, json!("404 page not found")),
    }
}
