//! The generated text, and its stream for each API.
//!
//! A *frame* is one HTTP chunk of one or more SSE events, as llama-server writes them. Faults count frames.

use serde_json::{Value, json};

use super::{bodies, server::Server};

/// The tokens generated for one request.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) model: String,
    pub(super) prompt_tokens: u64,
    pub(super) tokens: u64,
    is_limited: bool,
    token_bytes: usize,
    include_usage: bool,
}

/// The frames of a stream, made while they are written, because a script may ask for millions.
pub(super) type Frames = Box<dyn Iterator<Item = String> + Send>;

const DONE: &str = "data: [DONE]\n\n";

impl Generation {
    pub(super) fn of(server: &Server, request: &Value) -> Self {
        let limit = ["max_tokens", "max_completion_tokens", "n_predict", "max_output_tokens"];
        let limit = limit.iter().find_map(|name| request.get(name)?.as_u64());
        let prompt = ["messages", "prompt", "input", "system", "input_prefix"];
        let tokens = server.script.tokens(limit);
        Generation {
            model: server.model_name(),
            prompt_tokens: prompt.iter().filter_map(|name| request.get(name)).map(bodies::count_words).sum(),
            tokens,
            is_limited: limit == Some(tokens),
            token_bytes: server.script.frame_bytes,
            include_usage: request["stream_options"]["include_usage"] == true,
        }
    }

    /// Returns the text of one token: `tok0`, `tok1`, ...
    fn token(&self, i: u64) -> String {
        let mut token = format!("tok{i} ");
        // The widths of `format!` end at 65535.
        token.extend(std::iter::repeat_n(' ', self.token_bytes.saturating_sub(token.len())));
        token
    }

    pub(super) fn text(&self) -> String {
        (0..self.tokens).map(|i| self.token(i)).collect()
    }

    pub(super) fn id(&self) -> &'static str {
        "chatcmpl-fake"
    }

    pub(super) fn finish(&self) -> &'static str {
        if self.is_limited { "length" } else { "stop" }
    }

    pub(super) fn anthropic_stop(&self) -> &'static str {
        if self.is_limited { "max_tokens" } else { "end_turn" }
    }

    pub(super) fn usage(&self) -> Value {
        json!({
            "completion_tokens": self.tokens, "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.tokens + self.prompt_tokens, "prompt_tokens_details": {"cached_tokens": 0},
        })
    }

    pub(super) fn timings(&self) -> Value {
        json!({
            "cache_n": 0, "prompt_n": self.prompt_tokens, "prompt_ms": 10.0, "prompt_per_token_ms": 1.0,
            "prompt_per_second": 100.0, "predicted_n": self.tokens, "predicted_ms": 10.0,
            "predicted_per_token_ms": 1.0, "predicted_per_second": 100.0,
        })
    }

    /// Makes one frame for each token from the token's text.
    fn each_token(
        &self,
        frame: impl Fn(String) -> String + Send + 'static,
    ) -> impl Iterator<Item = String> + Send + 'static {
        let it = self.clone();
        (0..self.tokens).map(move |i| frame(it.token(i)))
    }
}

/// The stream of `/v1/chat/completions`.
pub(super) fn chat(it: &Generation) -> Frames {
    let id = it.id();
    let model = it.model.clone();
    let chunk = move |choices: Value| {
        json!({"choices": choices, "created": 1_700_000_000, "id": id, "model": model,
               "system_fingerprint": "fake", "object": "chat.completion.chunk"})
    };
    let mut end = chunk(json!([{"finish_reason": it.finish(), "index": 0, "delta": {}}]));
    let last = if it.include_usage {
        let mut usage = chunk(json!([]));
        usage["usage"] = it.usage();
        usage["timings"] = it.timings();
        data(&end) + &data(&usage)
    } else {
        end["timings"] = it.timings();
        data(&end)
    };
    let tokens = it
        .each_token(move |text| data(&chunk(json!([{"finish_reason": null, "index": 0, "delta": {"content": text}}]))));
    Box::new(tokens.chain([last, DONE.into()]))
}

/// The stream of `/v1/completions`.
pub(super) fn completion(it: &Generation) -> Frames {
    let (id, model) = (it.id(), it.model.clone());
    let chunk = move |text: String, finish: Value| {
        json!({"choices": [{"text": text, "index": 0, "logprobs": null, "finish_reason": finish}],
               "created": 1_700_000_000, "model": model, "system_fingerprint": "fake", "object": "text_completion", "id": id})
    };
    let mut last = chunk(String::new(), it.finish().into());
    last["usage"] = it.usage();
    last["timings"] = it.timings();
    let tokens = it.each_token(move |text| data(&chunk(text, Value::Null)));
    Box::new(tokens.chain([data(&last), DONE.into()]))
}

/// The stream of `/completion` and `/infill`: native chunks, no `[DONE]`.
pub(super) fn native_completion(it: &Generation) -> Frames {
    let mut last = bodies::native_completion(it);
    last["content"] = "".into();
    let tokens =
        it.each_token(|text| data(&json!({"index": 0, "content": text, "tokens": [], "stop": false, "id_slot": 0})));
    Box::new(tokens.chain([data(&last)]))
}

/// The stream of `/v1/messages`: named events, no `[DONE]`.
pub(super) fn anthropic(it: &Generation) -> Frames {
    let mut message = bodies::anthropic(it);
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["usage"]["output_tokens"] = 0.into();
    let first = event(json!({"type": "message_start", "message": message}))
        + &event(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}));
    let last = event(json!({"type": "content_block_stop", "index": 0}))
        + &event(json!({"type": "message_delta", "delta": {"stop_reason": it.anthropic_stop(), "stop_sequence": null},
                        "usage": {"output_tokens": it.tokens}}))
        + &event(json!({"type": "message_stop"}));
    let tokens = it.each_token(|text| {
        event(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}))
    });
    prefixed(first, tokens, last)
}

/// The stream of `/v1/responses`: named events, no `[DONE]`.
pub(super) fn response(it: &Generation) -> Frames {
    let started = json!({"id": "resp_fake", "object": "response", "status": "in_progress"});
    let first = event(json!({"type": "response.created", "response": started}))
        + &event(json!({"type": "response.in_progress", "response": started}))
        + &event(json!({"type": "response.output_item.added",
                        "item": {"content": [], "id": "msg_fake", "role": "assistant", "status": "in_progress", "type": "message"}}))
        + &event(
            json!({"type": "response.content_part.added", "item_id": "msg_fake", "part": {"type": "output_text", "text": ""}}),
        );
    let whole = bodies::response(it);
    let item = whole["output"][0].clone();
    let last = event(json!({"type": "response.output_text.done", "item_id": "msg_fake", "text": it.text()}))
        + &event(json!({"type": "response.content_part.done", "item_id": "msg_fake", "part": item["content"][0]}))
        + &event(json!({"type": "response.output_item.done", "item": item}))
        + &event(json!({"type": "response.completed", "response": whole, "timings": it.timings()}));
    let tokens = it
        .each_token(|text| event(json!({"type": "response.output_text.delta", "item_id": "msg_fake", "delta": text})));
    prefixed(first, tokens, last)
}

/// Returns the event that ends a stream of `path` with an error of status 500.
pub(super) fn error(path: &str, message: &str) -> String {
    let error = bodies::error(500, "server_error", message);
    // For the Anthropic API, llama-server sends only the inner object of an error event.
    if path == "/v1/messages" { format!("event: error\n{}", data(&error["error"])) } else { data(&error) }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn event(value: Value) -> String {
    format!("event: {}\n{}", value["type"].as_str().unwrap_or_default(), data(&value))
}

/// Joins the opening events and the first token to one frame, as llama-server does.
fn prefixed(first: String, tokens: impl Iterator<Item = String> + Send + 'static, last: String) -> Frames {
    let mut tokens = tokens;
    let opening = first + &tokens.next().unwrap_or_default();
    Box::new(std::iter::once(opening).chain(tokens).chain([last]))
}
