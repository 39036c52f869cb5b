//! Whose fault an error of a backend is, by its words.
//!
//! llama-server, and many servers like it, answer 500 to requests that they do not like. Such an error is no sign that
//! the backend is broken. This file owns the one table of texts; `compute_failure.rs` and `upstream/forward.rs` act on
//! it.

use std::ops::ControlFlow;

use http::StatusCode;
use serde_json::Value;

use crate::gateway::bounds::ERROR_WORDS;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCause {
    /// The request asks for something that the backend cannot do or understand. Another backend like it would say the
    /// same.
    Request,
    /// The model has written something that the backend cannot read. Another try may do better.
    Output,
    /// llama-server could not decode a batch; all requests in flight fail.
    Computing,
    /// The machine or its software has failed.
    Machine,
}

/// Texts in the messages of errors, in lower case. The text that comes first in a message decides, because what follows
/// may be quoted from the request.
///
/// Sources: llama.cpp (tools/server, common/chat.cpp, common/jinja), where any exception but `std::invalid_argument` is
/// answered with 500; vLLM, Ollama, LiteLLM and text-embeddings-inference. Words that drivers use for their own errors,
/// such as "invalid argument" and "operation not supported" of CUDA, are not in it.
const TEXTS: &[(ErrorCause, &str)] = &[
    // llama-server fails all requests in flight with these when `llama_decode` returns less than -1, or -1
    // (server-context.cpp). They are whole messages; see `WHOLE_MESSAGES`.
    (ErrorCause::Computing, "compute error."),
    (ErrorCause::Computing, "invalid input batch."),
    (ErrorCause::Machine, "cuda error"),
    (ErrorCause::Machine, "cuda out of memory"),
    (ErrorCause::Machine, "hip error"),
    (ErrorCause::Machine, "rocm error"),
    (ErrorCause::Machine, "out of memory"),
    (ErrorCause::Machine, "failed to allocate"),
    (ErrorCause::Machine, "failed to load model"),
    (ErrorCause::Machine, "failed to load mmproj"),
    (ErrorCause::Machine, "connection"),
    (ErrorCause::Machine, "upstream"),
    (ErrorCause::Machine, "timed out"),
    (ErrorCause::Machine, "overloaded"),
    (ErrorCause::Machine, "no space left"),
    (ErrorCause::Machine, "worker died"),
    (ErrorCause::Machine, "environment variable"),
    (ErrorCause::Machine, "missing required env"),
    (ErrorCause::Output, "the model produced output that does not match"),
    (ErrorCause::Output, "failed to parse input at pos"),
    // Too much input.
    (ErrorCause::Request, "too large to process"),
    (ErrorCause::Request, "physical batch size"),
    (ErrorCause::Request, "input is too large"),
    (ErrorCause::Request, "input text too large"),
    (ErrorCause::Request, "input too long"),
    (ErrorCause::Request, "input is too long"),
    (ErrorCause::Request, "prompt is too long"),
    (ErrorCause::Request, "prompt too long"),
    (ErrorCause::Request, "too many tokens"),
    (ErrorCause::Request, "tokens exceed"),
    (ErrorCause::Request, "context size"),
    (ErrorCause::Request, "context length"),
    (ErrorCause::Request, "context window"),
    (ErrorCause::Request, "maximum context"),
    (ErrorCause::Request, "exceed_context_size"),
    (ErrorCause::Request, "exceeds the context"),
    (ErrorCause::Request, "tokens, which exceeds"),
    (ErrorCause::Request, "token count exceeds"),
    (ErrorCause::Request, "prompt length exceeds"),
    (ErrorCause::Request, "max_model_len"),
    // What this model, or this server, cannot do.
    (ErrorCause::Request, "input is not supported"),
    (ErrorCause::Request, "is not supported by this model"),
    (ErrorCause::Request, "model does not support"),
    (ErrorCause::Request, "server does not support"),
    (ErrorCause::Request, "does not support logits"),
    (ErrorCause::Request, "does not support chat"),
    (ErrorCause::Request, "does not support tools"),
    (ErrorCause::Request, "required for image input"),
    (ErrorCause::Request, "mmproj"),
    (ErrorCause::Request, "is not a multimodal model"),
    (ErrorCause::Request, "failed to load image"),
    (ErrorCause::Request, "failed to decode image"),
    (ErrorCause::Request, "failed to download image"),
    (ErrorCause::Request, "could not process image"),
    (ErrorCause::Request, "cannot identify image"),
    (ErrorCause::Request, "unknown image format"),
    (ErrorCause::Request, "image: unknown format"),
    (ErrorCause::Request, "image(s) may be provided"),
    // Ollama's runner, about the prompt and the images of a request.
    (ErrorCause::Request, "failed to process inputs"),
    (ErrorCause::Request, "invalid image"),
    (ErrorCause::Request, "invalid audio"),
    (ErrorCause::Request, "unsupported content"),
    (ErrorCause::Request, "unsupported tool"),
    (ErrorCause::Request, "unsupported parameter"),
    (ErrorCause::Request, "unsupported value"),
    (ErrorCause::Request, "unsupported response_format"),
    (ErrorCause::Request, "unsupported image"),
    (ErrorCause::Request, "unsupported format"),
    (ErrorCause::Request, "unsupported media"),
    (ErrorCause::Request, "unsupported role"),
    // Grammars, schemas and templates.
    (ErrorCause::Request, "grammar"),
    (ErrorCause::Request, "json schema"),
    (ErrorCause::Request, "json_schema"),
    (ErrorCause::Request, "json-schema"),
    (ErrorCause::Request, "failed to parse messages"),
    (ErrorCause::Request, "failed to parse tool"),
    (ErrorCause::Request, "failed to initialize samplers"),
    (ErrorCause::Request, "chat template"),
    (ErrorCause::Request, "chat_template"),
    (ErrorCause::Request, "jinja"),
    (ErrorCause::Request, "for this template"),
    (ErrorCause::Request, "apply template"),
    (ErrorCause::Request, "roles must alternate"),
    (ErrorCause::Request, "unknown role"),
    (ErrorCause::Request, "invalid role"),
    (ErrorCause::Request, "unexpected role"),
    (ErrorCause::Request, "unknown reasoning format"),
    // JSON and the members of the request.
    (ErrorCause::Request, "[json.exception."),
    (ErrorCause::Request, "parse error"),
    (ErrorCause::Request, "json parse"),
    (ErrorCause::Request, "failed to parse json"),
    (ErrorCause::Request, "invalid json"),
    (ErrorCause::Request, "jsondecodeerror"),
    (ErrorCause::Request, "expecting value: line"),
    (ErrorCause::Request, "missing 'role'"),
    (ErrorCause::Request, "missing required"),
    (ErrorCause::Request, "cannot unmarshal"),
    (ErrorCause::Request, "invalid character '"),
    (ErrorCause::Request, "top_n"),
    (ErrorCause::Request, "logit_bias"),
    (ErrorCause::Request, "max_tokens must"),
    (ErrorCause::Request, "max_completion_tokens must"),
    (ErrorCause::Request, "must be a non-empty"),
    (ErrorCause::Request, "must not be empty"),
    (ErrorCause::Request, "must be an array of"),
    (ErrorCause::Request, "invalid parameter"),
    (ErrorCause::Request, "invalid value for"),
    (ErrorCause::Request, "invalid type for"),
    (ErrorCause::Request, "invalid request"),
    (ErrorCause::Request, "invalid `"),
    (ErrorCause::Request, "invalid '"),
    (ErrorCause::Request, "invalid \""),
    (ErrorCause::Request, "unknown parameter"),
    (ErrorCause::Request, "unexpected keyword argument"),
    (ErrorCause::Request, "unrecognized request argument"),
    (ErrorCause::Request, "extra inputs are not permitted"),
    (ErrorCause::Request, "validation error"),
    (ErrorCause::Request, "' is required"),
    (ErrorCause::Request, "\" is required"),
    (ErrorCause::Request, "` is required"),
    (ErrorCause::Request, "' must be"),
    (ErrorCause::Request, "\" must be"),
    (ErrorCause::Request, "` must be"),
    // The C++ standard library, when a number of the request is used as an index or a length.
    (ErrorCause::Request, "vector::_m_"),
    (ErrorCause::Request, "badrequesterror"),
    (ErrorCause::Request, "contextwindowexceedederror"),
];

/// Parts of the `type`, `code` or `status` of an error that say that the request is at fault, in lower case.
const REQUEST_KINDS: &[&str] = &[
    "invalid_request",
    "invalid_argument",
    "invalid_parameter",
    "bad_request",
    "badrequest",
    "not_supported",
    "context_length",
    "contextwindow",
    "exceed_context",
    "validation",
    "unprocessable",
];

/// Statuses that a backend may name within an error that it sends with another status.
const REQUEST_STATUSES: &[u64] = &[400, 404, 413, 415, 422];

/// Whole messages with which llama-server says that it cannot compute.
pub(super) fn compute_errors() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().filter(|(cause, _)| *cause == ErrorCause::Computing).map(|(_, text)| *text)
}

/// Reads the body of an error, or what has arrived of it. Returns whose fault it is, and the backend's words for it;
/// `None` if its words say neither. `status` is that of the response, and `asks_to_wait` says whether it has a
/// `Retry-After`.
pub(crate) fn read(status: StatusCode, asks_to_wait: bool, body: &[u8]) -> Option<(ErrorCause, String)> {
    let (words, names_request) = words(body)?;
    // These statuses speak of the machine. Some servers send them with the same type as every other error.
    let is_of_machine = matches!(status.as_u16(), 502..=504 | 529);
    let cause = match cause_of(&words) {
        None if names_request && !is_of_machine => Some(ErrorCause::Request),
        // A repetition of a request that is at fault would fail too.
        Some(ErrorCause::Request) if is_of_machine && asks_to_wait => None,
        cause => cause,
    };
    Some((cause?, cut(&words)))
}

/// Reads the body of an error that says that there is no such route or method. Returns `None` if it is an error as that of
/// OpenAI's API, which can be put into any shape; otherwise what it says, if that is more than a page.
pub(crate) fn missing_route(body: &[u8]) -> Option<Option<String>> {
    let json = serde_json::from_slice::<Value>(body).ok();
    let is_readable = json.as_ref().is_some_and(|json| json["error"].is_object());
    let says = || words(body).filter(|_| !body.trim_ascii_start().starts_with(b"<")).map(|(words, _)| cut(&words));
    (!is_readable).then(|| says().filter(|words| !words.is_empty()))
}

/// Returns what the body of an error says, if it says anything.
pub(crate) fn words_of_error(body: &[u8]) -> Option<String> {
    words(body).map(|(words, _)| cut(&words)).filter(|words| !words.is_empty())
}

/// Returns the words of an error, and whether its type or code says that the request is at fault.
fn words(body: &[u8]) -> Option<(String, bool)> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let json = event_data(text);
    Some(match serde_json::from_str::<Value>(json) {
        Ok(Value::Array(list)) => words_of(list.first()?)?,
        Ok(value) => words_of(&value)?,
        Err(_) if json.starts_with(['{', '[']) => (unfinished_message(json)?, false),
        Err(_) if text.starts_with('<') => (without_tags(text), false),
        Err(_) => (json.to_owned(), false),
    })
}

/// Returns whose fault an error with these words is, if they say it.
fn cause_of(words: &str) -> Option<ErrorCause> {
    let words = words.to_lowercase();
    let found = TEXTS.iter().filter_map(|(cause, text)| match cause {
        ErrorCause::Computing => (words == *text).then_some((0, cause)),
        _ => words.find(text).map(|at| (at, cause)),
    });
    // The first row wins among texts at the same place.
    found.min_by_key(|(at, _)| *at).map(|(_, cause)| *cause)
}

/// Returns the JSON of an error that was sent as an event, or the text as it is.
fn event_data(text: &str) -> &str {
    let data = text.lines().find_map(|line| line.strip_prefix("data:"));
    match data {
        Some(data) if text.starts_with("data:") || text.starts_with("event:") => data.trim(),
        _ => text,
    }
}

/// Returns the message of an error in any of the shapes that servers use, and whether its type or code says that the
/// request is at fault.
fn words_of(error: &Value) -> Option<(String, bool)> {
    // OpenAI, Anthropic and llama-server: `error` with a `message`. Ollama and text-embeddings-inference: `error` as a
    // text. vLLM: `message` at the top. FastAPI: `detail`, as a text or as a list.
    let inner = match &error["error"] {
        Value::Null => error,
        inner => inner,
    };
    let places = [inner, &inner["message"], &inner["detail"], &inner["detail"]["message"], &inner["detail"][0]["msg"]];
    let words = places.into_iter().find_map(Value::as_str)?;
    let kinds = [&inner["type"], &inner["code"], &inner["status"], &error["error_type"], &error["code"]];
    let is_request_status = |status: u64| REQUEST_STATUSES.contains(&status);
    let is_of_request = |kind: &Value| match kind {
        Value::String(kind) => {
            let kind = kind.to_lowercase();
            REQUEST_KINDS.iter().any(|known| kind.contains(known)) || kind.parse().is_ok_and(is_request_status)
        }
        kind => kind.as_u64().is_some_and(is_request_status),
    };
    // FastAPI names the member of the request at which its validation failed.
    let names_request = inner["detail"][0]["loc"].is_array() || kinds.into_iter().any(is_of_request);
    Some((words.to_owned(), names_request))
}

/// Returns the beginning of the message in JSON that has been cut.
fn unfinished_message(json: &str) -> Option<String> {
    let (_, rest) = json.split_once("\"message\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = rest.char_indices().try_for_each(|(at, char)| match char {
        '"' if !escaped => ControlFlow::Break(at),
        char => {
            escaped = char == '\\' && !escaped;
            ControlFlow::Continue(())
        }
    });
    let part = match end {
        ControlFlow::Break(at) => &rest[..at],
        ControlFlow::Continue(()) => rest,
    };
    // The cut may be within an escape, which is six bytes long at most; escapes are ASCII.
    let ends = (0..=6).filter_map(|less| part.get(..part.len().checked_sub(less)?));
    ends.into_iter().find_map(|part| serde_json::from_str(&format!("\"{part}\"")).ok())
}

/// Returns the text of a page.
fn without_tags(page: &str) -> String {
    let texts = page.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    texts.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// Returns the beginning of a message, on one line.
fn cut(words: &str) -> String {
    let line: String = words.chars().map(|char| if char.is_control() { ' ' } else { char }).take(ERROR_WORDS).collect();
    line.trim().to_owned()
}

#[cfg(test)]
#[path = "error_cause_tests.rs"]
mod tests;
