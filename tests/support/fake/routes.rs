//! Chooses the response to a request. It checks in llama-server's order: loading, key, route, body.

use serde_json::{Value, json};

use super::{
    bodies,
    journal::bearer,
    request::Request,
    server::{Phase, Server},
    streams::{self, Frames, Generation},
};

/// A response, and whether it needs a slot of the model.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) content: Content,
    pub(super) needs_slot: bool,
}

pub(super) enum Content {
    Whole(Vec<u8>),
    Stream(Frames),
}

/// Returns the response to a request; waits for nothing.
pub(super) fn respond(server: &Server, request: &Request) -> Response {
    if *server.phase.borrow() == Phase::Loading {
        return refusal(503, "unavailable_error", "Loading model");
    }
    let path = request.path();
    let public = request.method == "OPTIONS" || ["/", "/health", "/v1/health"].contains(&path);
    if !public && !has_valid_key(server, request) {
        eprintln!("0.00.690.381 W srv    operator(): unauthorized: Invalid API Key");
        return refusal(401, "authentication_error", "Invalid API Key");
    }
    if let Some(fixed) = server.script.error_status.iter().find(|fixed| fixed.path == path) {
        return match &fixed.body {
            Value::String(text) => Response::whole(fixed.status, text.clone()),
            body => Response::whole(fixed.status, body.to_string()),
        };
    }
    if request.is_post() && server.script.healthy_but_500 {
        return refusal(500, "server_error", "Compute error.");
    }
    if let Some(failure) = server.script.fail_on.iter().find(|failure| request.contains(&failure.text)) {
        return fail(path, request, &failure.message);
    }
    match request.method.as_str() {
        "GET" | "HEAD" => get(server, path),
        "POST" if path == "/v1/audio/transcriptions" || path == "/audio/transcriptions" => {
            Response::json(&json!({"text": format!("{} bytes", request.body.len())})).with_slot()
        }
        "POST" => post(server, path, request),
        "OPTIONS" => Response::whole(200, String::new()),
        _ => not_found(),
    }
}

/// Returns an error of status 500; for a stream it is an event, because the head is sent already.
fn fail(path: &str, request: &Request, message: &str) -> Response {
    match request.json() {
        Ok(body) if body["stream"] == true => {
            Response::stream(Box::new(std::iter::once(streams::error(path, message))))
        }
        _ => refusal(500, "server_error", message).with_slot(),
    }
}

fn get(server: &Server, path: &str) -> Response {
    match path {
        "/health" | "/v1/health" => Response::json(&json!({"status": "ok"})),
        "/models" | "/v1/models" => Response::json(&bodies::models(server)),
        "/props" => Response::json(&bodies::props(server)),
        "/lora-adapters" => Response::json(&json!([])),
        "/slots" if server.arguments.slots_endpoint && !server.script.without_slots => {
            Response::json(&bodies::slots(server))
        }
        "/slots" => unsupported("slots endpoint", "--slots"),
        "/metrics" if server.arguments.metrics => {
            Response { content_type: "text/plain; version=0.0.4", ..Response::whole(200, bodies::metrics(server)) }
        }
        "/metrics" => unsupported("metrics endpoint", "--metrics"),
        _ => not_found(),
    }
}

fn post(server: &Server, path: &str, request: &Request) -> Response {
    let body = request.json();
    let parsed = body.as_ref().unwrap_or(&Value::Null);
    let generate = |needed: &str, whole: fn(&Generation) -> Value, stream: fn(&Generation) -> Frames| {
        let it = Generation::of(server, parsed);
        match parsed.get(needed) {
            None => refusal(400, "invalid_request_error", &format!("'{needed}' is required")),
            Some(messages) if needed == "messages" && !messages.is_array() => {
                refusal(400, "invalid_request_error", "Expected 'messages' to be an array")
            }
            Some(_) if parsed["stream"] == true => Response::stream(stream(&it)),
            Some(_) => Response::json(&whole(&it)).with_slot(),
        }
    };
    let compute = |enabled: bool, what, flag, computed: fn(&Value) -> Option<Value>, missing| match computed(parsed) {
        _ if !enabled => unsupported(what, flag),
        Some(value) => Response::json(&value).with_slot(),
        None => refusal(400, "invalid_request_error", missing),
    };
    let (embedding, reranking) = (server.arguments.embedding || server.arguments.reranking, server.arguments.reranking);
    let response = match path {
        "/chat/completions" | "/v1/chat/completions" => generate("messages", bodies::chat, streams::chat),
        "/v1/completions" => generate("prompt", bodies::completion, streams::completion),
        "/completion" if parsed["post_sampling_probs"] == true => match (embedding, bodies::biased_words(parsed)) {
            (true, _) => unsupported("completions", "without --embeddings"),
            (false, Some(value)) => Response::json(&value).with_slot(),
            (false, None) => refusal(400, "invalid_request_error", "two words must be biased"),
        },
        "/completion" | "/completions" => generate("prompt", bodies::native_completion, streams::native_completion),
        "/infill" => generate("input_prefix", bodies::native_completion, streams::native_completion),
        "/v1/messages" => generate("messages", bodies::anthropic, streams::anthropic),
        "/responses" | "/v1/responses" => generate("input", bodies::response, streams::response),
        "/v1/messages/count_tokens" => {
            Response::json(&json!({"input_tokens": bodies::count_words(&parsed["messages"])}))
        }
        "/chat/completions/input_tokens" | "/v1/chat/completions/input_tokens" => {
            Response::json(&bodies::input_tokens(&parsed["messages"]))
        }
        "/responses/input_tokens" | "/v1/responses/input_tokens" => {
            Response::json(&bodies::input_tokens(&parsed["input"]))
        }
        "/v1/embeddings" => compute(
            embedding,
            "embeddings",
            "--embeddings",
            bodies::embeddings,
            "\"input\" or \"content\" must be provided",
        ),
        "/embedding" | "/embeddings" => compute(
            embedding,
            "embeddings",
            "--embeddings",
            bodies::native_embeddings,
            "\"input\" or \"content\" must be provided",
        ),
        "/rerank" | "/reranking" | "/v1/rerank" | "/v1/reranking" => {
            compute(reranking, "reranking", "--reranking", bodies::rerank, "\"query\" must be provided")
        }
        "/tokenize" => Response::json(&bodies::tokenize(parsed)),
        "/detokenize" => Response::json(&bodies::detokenize(parsed)),
        "/apply-template" => Response::json(&json!({"prompt": parsed["messages"].to_string()})),
        "/props" => return unsupported("changing global properties", "--props"),
        _ => return not_found(),
    };
    match body {
        Ok(_) => response,
        Err(e) => refusal(400, "invalid_request_error", &format!("[json.exception.parse_error.101] parse error: {e}")),
    }
}

fn has_valid_key(server: &Server, request: &Request) -> bool {
    let given = request.header("authorization").or(request.header("x-api-key")).map(bearer);
    server.script.wrong_key
        || server.arguments.keys.is_empty()
        || given.is_some_and(|given| server.arguments.keys.iter().any(|key| key == given))
}

fn refusal(status: u16, kind: &str, message: &str) -> Response {
    Response::whole(status, bodies::error(status, kind, message).to_string())
}

fn not_found() -> Response {
    refusal(404, "not_found_error", "File Not Found")
}

fn unsupported(what: &str, flag: &str) -> Response {
    refusal(501, "not_supported_error", &format!("This server does not support {what}. Start it with `{flag}`"))
}

impl Response {
    fn json(value: &Value) -> Self {
        Response::whole(200, value.to_string())
    }

    fn whole(status: u16, body: String) -> Self {
        let content = Content::Whole(body.into_bytes());
        Response { status, content_type: "application/json; charset=utf-8", content, needs_slot: false }
    }

    fn stream(frames: Frames) -> Self {
        Response { status: 200, content_type: "text/event-stream", content: Content::Stream(frames), needs_slot: true }
    }

    fn with_slot(mut self) -> Self {
        self.needs_slot = true;
        self
    }
}
