//! The bodies of whole (not streamed) responses, as llama-server writes them.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{server::Server, streams::Generation};

/// The length of every embedding.
const DIMENSIONS: usize = 4;

pub(super) fn error(code: u16, kind: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message, "type": kind}})
}

pub(super) fn models(server: &Server) -> Value {
    let name = server.model_name();
    json!({
        "models": [{"name": name, "model": name, "type": "model", "capabilities": ["completion"]}],
        "object": "list",
        "data": [{
            "id": name, "aliases": [name], "tags": [], "object": "model", "created": 1_700_000_000, "owned_by": "llamacpp",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "meta": {"vocab_type": 2, "n_vocab": 49152, "n_ctx": context_per_slot(server), "n_ctx_train": 8192,
                     "n_embd": DIMENSIONS, "n_params": 1000, "size": 4000, "ftype": "Q4_1"},
        }],
    })
}

pub(super) fn props(server: &Server) -> Value {
    json!({
        "default_generation_settings": {"params": {"max_tokens": -1, "stream": false}, "n_ctx": context_per_slot(server)},
        "total_slots": server.arguments.slots,
        "model_alias": server.model_name(),
        "model_path": server.arguments.model,
        "modalities": {"vision": false, "video": false, "audio": false},
        "endpoint_slots": server.arguments.slots_endpoint,
        "endpoint_props": false,
        "endpoint_metrics": server.arguments.metrics,
        "chat_template": "{{ messages }}",
        "build_info": "fake",
        "is_sleeping": false,
    })
}

pub(super) fn slots(server: &Server) -> Value {
    let busy = server.counters.processing.load(Ordering::Relaxed);
    let context = context_per_slot(server);
    let slot = |id| {
        let mut slot = json!({"id": id, "n_ctx": context, "speculative": false, "is_processing": id < busy});
        if id < busy && !server.script.without_slot_tokens {
            slot["n_prompt_tokens"] = json!(context / 2);
        }
        slot
    };
    (0..server.arguments.slots as u64).map(slot).collect()
}

pub(super) fn metrics(server: &Server) -> String {
    let counters = &server.counters;
    let mut text = String::new();
    for (name, kind, value) in [
        ("prompt_tokens_total", "counter", &counters.prompt_tokens),
        ("tokens_predicted_total", "counter", &counters.decodes),
        ("n_decode_total", "counter", &counters.decodes),
        ("requests_processing", "gauge", &counters.processing),
        ("requests_deferred", "gauge", &counters.deferred),
    ] {
        let value = value.load(Ordering::Relaxed);
        text += &format!("# HELP llamacpp:{name} {name}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value}\n");
    }
    text
}

pub(super) fn chat(it: &Generation) -> Value {
    json!({
        "choices": [{"finish_reason": it.finish(), "index": 0, "message": {"role": "assistant", "content": it.text()}}],
        "created": 1_700_000_000, "model": it.model, "system_fingerprint": "fake", "object": "chat.completion",
        "usage": it.usage(), "id": it.id(), "timings": it.timings(),
    })
}

pub(super) fn completion(it: &Generation) -> Value {
    json!({
        "choices": [{"text": it.text(), "index": 0, "logprobs": null, "finish_reason": it.finish()}],
        "created": 1_700_000_000, "model": it.model, "system_fingerprint": "fake", "object": "text_completion",
        "usage": it.usage(), "id": it.id(), "timings": it.timings(),
    })
}

/// The response of the native routes `/completion` and `/infill`.
pub(super) fn native_completion(it: &Generation) -> Value {
    json!({
        "index": 0, "content": it.text(), "tokens": [], "id_slot": 0, "stop": true, "model": it.model,
        "tokens_predicted": it.tokens, "tokens_evaluated": it.prompt_tokens, "stop_type": it.finish(),
        "timings": it.timings(),
    })
}

pub(super) fn anthropic(it: &Generation) -> Value {
    json!({
        "id": it.id(), "type": "message", "role": "assistant", "content": [{"type": "text", "text": it.text()}],
        "model": it.model, "stop_reason": it.anthropic_stop(), "stop_sequence": null,
        "usage": {"cache_read_input_tokens": 0, "input_tokens": it.prompt_tokens, "output_tokens": it.tokens},
    })
}

pub(super) fn response(it: &Generation) -> Value {
    json!({
        "id": "resp_fake", "object": "response", "created_at": 1_700_000_000, "status": "completed", "model": it.model,
        "output": [{
            "type": "message", "status": "completed", "id": "msg_fake", "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": it.text()}],
        }],
        "usage": {"input_tokens": it.prompt_tokens, "output_tokens": it.tokens,
                  "total_tokens": it.prompt_tokens + it.tokens, "input_tokens_details": {"cached_tokens": 0}},
    })
}

/// The response of `/v1/embeddings`; `None` if the input is missing.
pub(super) fn embeddings(body: &Value) -> Option<Value> {
    let row = |(index, text)| json!({"embedding": embedding(text), "index": index, "object": "embedding"});
    let data: Value = inputs(body)?.into_iter().enumerate().map(row).collect();
    let tokens = count_words(body.get("input")?);
    Some(json!({
        "model": body.get("model"), "object": "list", "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// The response of `/embedding` and `/embeddings`.
pub(super) fn native_embeddings(body: &Value) -> Option<Value> {
    let row = |(index, text)| json!({"index": index, "embedding": [embedding(text)]});
    Some(inputs(body)?.into_iter().enumerate().map(row).collect())
}

/// Scores documents by the words that they share with the query; `None` if query or documents are missing.
pub(super) fn rerank(body: &Value) -> Option<Value> {
    let query: Vec<&str> = body.get("query")?.as_str()?.split_whitespace().collect();
    let (texts, tei) = match body.get("texts") {
        Some(texts) => (texts.as_array()?, true),
        None => (body.get("documents")?.as_array()?, false),
    };
    let score =
        |text: &Value| text.as_str().map(|text| text.split_whitespace().filter(|word| query.contains(word)).count());
    let mut ranked: Vec<(usize, usize)> =
        texts.iter().enumerate().map(|(index, text)| Some((index, score(text)?))).collect::<Option<_>>()?;
    ranked.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
    ranked.truncate(body.get("top_n").and_then(Value::as_u64).map_or(usize::MAX, |n| n as usize));
    let name = if tei { "score" } else { "relevance_score" };
    let results: Vec<Value> =
        ranked.iter().map(|(index, score)| json!({"index": index, name: *score as f64})).collect();
    if tei {
        return Some(results.into());
    }
    let tokens = query.len() as u64 + count_words(&body["documents"]);
    Some(json!({
        "model": body.get("model"), "object": "list", "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }))
}

/// The probabilities of the two words that a request biases, the first of which is three times as likely. The texts of the
/// prompt have no tokens.
pub(super) fn biased_words(body: &Value) -> Option<Value> {
    let word = |at: usize, prob: f64| Some(json!({"id": body["logit_bias"][at][0].as_u64()?, "prob": prob}));
    let tokens = body["prompt"].as_array()?.iter().filter(|part| part.is_u64()).count();
    Some(json!({
        "completion_probabilities": [{"top_probs": [word(0, 0.75)?, word(1, 0.25)?]}],
        "tokens_evaluated": tokens, "tokens_predicted": 1,
    }))
}

/// One token for each word; the token's id is the length of the word.
pub(super) fn input_tokens(input: &Value) -> Value {
    json!({"input_tokens": count_words(input), "object": "response.input_tokens"})
}

pub(super) fn tokenize(body: &Value) -> Value {
    let content = body["content"].as_str().unwrap_or_default();
    json!({"tokens": content.split_whitespace().map(str::len).collect::<Vec<_>>()})
}

pub(super) fn detokenize(body: &Value) -> Value {
    let tokens = body["tokens"].as_array().map_or(&[][..], |tokens| tokens);
    let words: Vec<String> = tokens.iter().map(|token| "x".repeat(token.as_u64().unwrap_or(1) as usize)).collect();
    json!({"content": words.join(" ")})
}

/// Counts the words of all strings in a JSON value. The fake counts a word as a token.
pub(super) fn count_words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Array(items) => items.iter().map(count_words).sum(),
        Value::Object(fields) => fields.values().map(count_words).sum(),
        Value::Number(_) => 1,
        _ => 0,
    }
}

fn context_per_slot(server: &Server) -> u64 {
    server.arguments.context / server.arguments.slots.max(1) as u64
}

fn inputs(body: &Value) -> Option<Vec<&Value>> {
    match body.get("input").or_else(|| body.get("content"))? {
        Value::Array(items) => Some(items.iter().collect()),
        one => Some(vec![one]),
    }
}

/// Equal texts have equal embeddings, and texts of different lengths different ones.
fn embedding(text: &Value) -> Vec<f64> {
    let length = text.to_string().len() as f64;
    (1..=DIMENSIONS).map(|i| 1.0 / (length + i as f64)).collect()
}
