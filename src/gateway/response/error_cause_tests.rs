//! Tests of which errors of a backend are the fault of the request.

use super::*;

fn cause(body: &str) -> Option<ErrorCause> {
    cause_at(500, false, body)
}

fn read_500(body: &[u8]) -> Option<(ErrorCause, String)> {
    read(StatusCode::INTERNAL_SERVER_ERROR, false, body)
}

fn cause_at(status: u16, asks_to_wait: bool, body: &str) -> Option<ErrorCause> {
    read(StatusCode::from_u16(status).unwrap(), asks_to_wait, body.as_bytes()).map(|(cause, _)| cause)
}

/// Regression: a type that every error of a server has made its 502 and 503 a fault of the request.
#[test]
fn an_overloaded_server_that_calls_its_errors_those_of_the_request_was_believed() {
    let typed =
        |message: &str, kind: &str| serde_json::json!({"error": {"message": message, "type": kind}}).to_string();
    for kind in ["invalid_request_error", "bad_request"] {
        assert_eq!(cause_at(500, false, &typed("no", kind)), Some(ErrorCause::Request), "{kind}");
        for status in [502, 503, 504, 529] {
            assert_eq!(cause_at(status, false, &typed("no", kind)), None, "{status} {kind}");
            let overloaded = cause_at(status, false, &typed("Service is overloaded, try later", kind));
            assert_eq!(overloaded, Some(ErrorCause::Machine), "{status} {kind}");
        }
    }
    let words = typed("input is too large to process", "server_error");
    assert_eq!(cause_at(503, false, &words), Some(ErrorCause::Request));
    assert_eq!(cause_at(503, true, &words), None, "it asks for a repetition");
}

/// Messages of real servers. Those of llama-server are from b11669.
#[test]
fn errors_that_name_the_requests_own_fault_are_told_from_failures() {
    for message in [
        "input (24027 tokens) is too large to process. increase the physical batch size (current batch size: 2048)",
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "audio input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "video input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "Failed to parse tools: Unsupported tool type: {\"type\":\"x\"}; tools = [\n  {\n    \"type\": \"cuda error\"\n  }\n]",
        "Failed to parse messages: Missing 'role' in message: {\"content\":\"x\"}",
        "Unknown reasoning format: x",
        "'messages' is required",
        "failed to parse grammar",
        "Failed to initialize samplers: failed to parse grammar",
        "invalid `top_n`: must be positive",
        "\"top_n\" must be an integer",
        "vector::_M_default_append",
        "vector::_M_range_check: __n (which is 99999999) >= this->size() (which is 966)",
        "the current context does not support logits computation. skipping",
        "Infill is not supported by this model: prefix token is missing. suffix token is missing.",
        "This server does not support embeddings. Start it with `--embeddings`",
        "The current model does not support audio input.",
        "Context size has been exceeded.",
        "the request exceeds the available context size, try increasing it",
        "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing object key",
        "Invalid value for parameter temperature",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Unable to generate parser for this template. Automatic parser generation failed: While executing CallExpression",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "the input length exceeds the context length",
        "this model is missing data required for image input",
        "litellm.BadRequestError: OpenAIException - no",
        "Failed to create new sequence: failed to process inputs: image: unknown format",
        "unknown image format",
        "Could not process image",
        "At most 1 image(s) may be provided in one request.",
        "the prompt has 5000 tokens, which exceeds the limit",
        "prompt length exceeds max_model_len",
        "Requested token count exceeds the model's maximum",
        "documents must be a non-empty array of strings",
        "max_tokens must be at least 1, got 0",
        "Input must not be empty",
        "unsupported response_format",
        "logit_bias must be an array",
        "Failed to download image: connection refused",
        "json: cannot unmarshal string into Go struct field",
        "invalid character 'x' looking for beginning of value",
    ] {
        let body = serde_json::json!({"error": {"code": 500, "message": message, "type": "server_error"}}).to_string();
        assert_eq!(cause(&body), Some(ErrorCause::Request), "{message}");
        assert!(read_500(body.as_bytes()).unwrap().1.starts_with(&message[..20.min(message.len())]), "{message}");
    }
    for message in [
        "Compute error.",
        "Invalid input batch.",
        "CUDA error: invalid argument",
        "CUDA error: operation not supported",
        "CUDA out of memory. Tried to allocate 2.00 GiB for the context window",
        "failed to allocate buffer for the context size of 4096",
        "Internal Server Error",
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        "Connection error: invalid 'host'",
        "The server had an error while processing your request. Sorry about that!",
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "of the backend",
        "worker died: invalid parameter in config",
        "missing required env var OPENAI_API_KEY",
        "ENOSPC: no space left, invalid request log",
        "Service overloaded; context window manager failed",
        "",
    ] {
        let body = serde_json::json!({"error": {"code": 500, "message": message, "type": "server_error"}}).to_string();
        assert!(!matches!(cause(&body), Some(ErrorCause::Request | ErrorCause::Output)), "{message}");
    }
    let of_model =
        r#"{"error":{"message":"The model produced output that does not match the expected Hermes format"}}"#;
    assert_eq!(cause(of_model), Some(ErrorCause::Output));
}

#[test]
fn the_words_of_an_error_are_found_in_the_shapes_of_many_servers() {
    for (body, words) in [
        (r#"{"error":{"message":"bad grammar"}}"#, "bad grammar"),
        (r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#, "no"),
        (r#"{"error":"input is too long"}"#, "input is too long"),
        (r#"{"error":"no","error_type":"Validation"}"#, "no"),
        (r#"{"object":"error","message":"no","type":"BadRequestError","code":400}"#, "no"),
        (r#"{"error":{"message":"no","code":"400"},"code":400}"#, "no"),
        (r#"{"error":{"message":"no","code":"context_length_exceeded"}}"#, "no"),
        (r#"[{"error":{"code":500,"message":"no","status":"INVALID_ARGUMENT"}}]"#, "no"),
        (r#"{"detail":"invalid parameter x"}"#, "invalid parameter x"),
        (r#"{"detail":[{"msg":"validation error","loc":["a"]}]}"#, "validation error"),
        (r#"{"error":{"message":"no","code":"400"}}"#, "no"),
        (
            r#"{"detail":[{"loc":["body","n"],"msg":"Input should be a valid integer","type":"int_parsing"}]}"#,
            "Input should be a valid integer",
        ),
        (r#"{"detail":{"message":"unknown role"}}"#, "unknown role"),
        ("  input is too large to process\r\n", "input is too large to process"),
        ("\u{feff}{\"error\":{\"message\":\"bad\\ngrammar\"}}", "bad grammar"),
        ("data: {\"error\":{\"message\":\"bad grammar\"}}\n\n", "bad grammar"),
        ("event: error\ndata: {\"error\":{\"message\":\"bad grammar\"}}\n\n", "bad grammar"),
        (
            "<html><body><h1>500</h1>\n<p>image input is not supported</p></body></html>",
            "500 image input is not supported",
        ),
    ] {
        assert_eq!(read_500(body.as_bytes()), Some((ErrorCause::Request, words.to_owned())), "{body}");
    }
    for body in
        ["<html><h1>502 Bad Gateway</h1><hr>nginx</html>", "", "{}", "[]", "null", "7", "{\"error\":{}}", "\u{0}"]
    {
        assert_eq!(read_500(body.as_bytes()), None, "{body}");
    }
    assert_eq!(read_500(b"\xff\xfe\xff"), None);
}

#[test]
fn an_error_that_has_arrived_only_in_part_is_read_as_far_as_it_goes() {
    let whole = r#"{"error":{"code":500,"message":"Failed to parse tools: \u00e4 \"x\" too","type":"server_error"}}"#;
    for end in whole.find("tools").unwrap() + 5..=whole.len() {
        let Some(part) = whole.get(..end) else { continue };
        let (cause, words) = read_500(part.as_bytes()).unwrap();
        assert!(cause == ErrorCause::Request && words.starts_with("Failed to parse tools"), "{part}: {words}");
    }
}

#[test]
fn the_words_of_an_error_are_one_line_of_bounded_length() {
    let body = serde_json::json!({"error": {"message": format!("bad grammar\n\t\u{7}{}", "ä".repeat(100_000))}});
    let (_, words) = read_500(body.to_string().as_bytes()).unwrap();
    assert_eq!(words.chars().count(), ERROR_WORDS);
    assert!(words.chars().all(|char| !char.is_control()));
}

#[test]
fn an_answer_that_lacks_the_route_is_told_from_an_error_that_clients_can_read() {
    let openai = r#"{"error":{"message":"no","type":"not_found_error","code":404}}"#;
    let anthropic = r#"{"type":"error","error":{"type":"not_found_error","message":"no"}}"#;
    let said = |text: &str| Some(Some(text.to_owned()));
    for (body, expected) in [
        (openai, None),
        (anthropic, None),
        (r#"{"detail":"Not Found"}"#, said("Not Found")),
        (r#"{"error":"no such route"}"#, said("no such route")),
        ("404 page not found\n", said("404 page not found")),
        ("<html><h1>404</h1></html>", Some(None)),
        ("", Some(None)),
        ("{}", Some(None)),
    ] {
        assert_eq!(missing_route(body.as_bytes()), expected, "{body}");
    }
}
