//! What requests become at a worker, and which are refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{KeepAlive, OllamaForm, parse};

/// Returns the path and the body of the call that a request becomes.
fn call(path: &str, request: &Value) -> (&'static str, Value) {
    let request = parse(path, request.to_string().as_bytes()).unwrap_or_else(|error| panic!("{request}: {error}"));
    let (path, body) = request.body("m").expect("it asks for text");
    (path, serde_json::from_slice(&body).unwrap())
}

fn refusal(path: &str, request: &Value) -> String {
    parse(path, request.to_string().as_bytes()).expect_err("it is refused").message
}

#[test]
fn a_chat_becomes_a_chat_of_openais_api() {
    let request = json!({
        "model": "tiny:latest", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "options": {"num_predict": 5, "temperature": 0, "seed": 7.0, "stop": ["a", "b"], "num_ctx": 4096, "tfs_z": 1},
        "keep_alive": "5m", "truncate": true,
    });
    let parsed = parse("/api/chat", request.to_string().as_bytes()).unwrap();
    assert_eq!((parsed.form, parsed.is_stream, parsed.model.as_deref()), (OllamaForm::Chat, true, Some("tiny:latest")));
    assert!(matches!(parsed.keep_alive, Some(KeepAlive::For(time)) if time.as_secs() == 300));
    let expected = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 5, "temperature": 0, "seed": 7, "stop": ["a", "b"],
    });
    assert_eq!(call("/api/chat", &request), ("/v1/chat/completions", expected));
}

#[test]
fn pictures_and_calls_of_tools_have_openais_form() {
    let (_, body) = call(
        "/api/chat",
        &json!({
            "model": "m", "stream": false,
            "messages": [
                {"role": "user", "content": "What is this?", "images": ["iVBORw0KGgo=", "/9j/4AAQ", "data:image/gif;base64,R0lGOD"]},
                {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [
                    {"function": {"name": "sum", "arguments": {"a": 1}}},
                    {"id": "own", "function": {"name": "now", "arguments": {}}},
                    {"function": {"name": "sum", "arguments": "{\"a\":2}"}},
                ]},
                {"role": "tool", "tool_name": "now", "content": "noon"},
                {"role": "tool", "content": "3"},
                {"role": "tool", "content": "4", "tool_call_id": "mine"},
            ],
            "tools": [{"type": "function", "function": {"name": "sum"}}],
        }),
    );
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    assert_eq!(
        body["messages"][0]["content"],
        json!([
            {"type": "text", "text": "What is this?"},
            image("data:image/png;base64,iVBORw0KGgo="),
            image("data:image/jpeg;base64,/9j/4AAQ"),
            image("data:image/gif;base64,R0lGOD"),
        ])
    );
    let made = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        body["messages"][1],
        json!({
            "role": "assistant", "content": "", "reasoning_content": "Hm.",
            "tool_calls": [made("call_1", "sum", "{\"a\":1}"), made("own", "now", "{}"), made("call_2", "sum", "{\"a\":2}")],
        })
    );
    let ids: Vec<&Value> = body["messages"].as_array().unwrap()[2..].iter().map(|one| &one["tool_call_id"]).collect();
    assert_eq!(ids, ["own", "call_1", "mine"]);
    assert_eq!(body["messages"][2]["name"], "now");
    assert_eq!(body["tools"], json!([{"type": "function", "function": {"name": "sum"}}]));
    assert_eq!((&body["stream"], body.get("stream_options")), (&json!(false), None));
}

#[test]
fn a_completion_is_a_chat_unless_it_is_raw_or_has_a_suffix() {
    let generate = |request: Value| call("/api/generate", &request);
    let (path, body) = generate(json!({"model": "m", "prompt": "Hi", "system": "Be brief.", "images": ["Qk1"]}));
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!(body["messages"][1]["content"][1]["image_url"]["url"], "data:image/bmp;base64,Qk1");
    let (path, body) = generate(json!({"model": "m", "prompt": "Hi", "raw": true, "options": {"num_predict": -1}}));
    let expected = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "prompt": "Hi"});
    assert_eq!((path, body), ("/v1/completions", expected));
    let (path, body) = generate(json!({"model": "m", "prompt": "a", "suffix": "b", "stream": false}));
    let expected = json!({"model": "m", "stream": false, "input_prefix": "a", "input_suffix": "b"});
    assert_eq!((path, body), ("/infill", expected));
}

#[test]
fn a_format_becomes_a_schema_whose_members_keep_their_order() {
    let format = |format: &str| {
        let request = format!("{{\"model\":\"m\",\"prompt\":\"x\",\"format\":{format}}}");
        let request = parse("/api/generate", request.as_bytes()).unwrap();
        String::from_utf8(request.body("m").unwrap().1).unwrap()
    };
    assert!(!format("\"\"").contains("response_format"));
    assert!(!format("null").contains("response_format"));
    let any = "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"format\",\"schema\":{\"type\":\"object\"}}}";
    assert!(format("\"json\"").contains(any));
    let schema = "{\"type\":\"object\",\"properties\":{\"z\":{},\"a\":{}}}";
    assert!(format(schema).contains(&format!("\"schema\":{schema}")));
    let raw = json!({"model": "m", "prompt": "x", "raw": true, "format": "json"});
    assert_eq!(call("/api/generate", &raw).1["json_schema"], json!({"type": "object"}));
}

#[test]
fn thinking_and_log_probabilities_are_asked_for() {
    let chat = |members: Value| {
        let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        call("/api/chat", &request).1
    };
    assert_eq!(chat(json!({"think": false}))["chat_template_kwargs"], json!({"enable_thinking": false}));
    assert_eq!(chat(json!({"think": true}))["chat_template_kwargs"], json!({"enable_thinking": true}));
    let high = json!({"enable_thinking": true, "reasoning_effort": "high"});
    assert_eq!(chat(json!({"think": "high"}))["chat_template_kwargs"], high);
    assert_eq!(chat(json!({"think": null})).get("chat_template_kwargs"), None);
    let body = chat(json!({"logprobs": true, "top_logprobs": 2}));
    assert_eq!((&body["logprobs"], &body["top_logprobs"]), (&json!(true), &json!(2)));
    assert_eq!(chat(json!({"logprobs": false, "top_logprobs": 2})).get("logprobs"), None);
}

#[test]
fn a_request_without_a_prompt_only_loads_the_model() {
    for (path, request) in [
        ("/api/generate", json!({"model": "m"})),
        ("/api/generate", json!({"model": "m", "prompt": "", "keep_alive": 0})),
        ("/api/chat", json!({"model": "m", "messages": []})),
        ("/api/chat", json!({"model": "m"})),
    ] {
        let parsed = parse(path, request.to_string().as_bytes()).unwrap();
        assert!(parsed.body("m").is_none(), "{request}");
        assert_eq!(parsed.keep_alive, request.get("keep_alive").map(|_| KeepAlive::Unload));
    }
}

#[test]
fn what_is_not_served_or_not_right_is_refused_by_its_name() {
    let chat = |name: &str, value: Value| {
        let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        request[name] = value;
        refusal("/api/chat", &request)
    };
    for (name, value, said) in [
        ("options", json!({"nonsense": 1}), "options.nonsense is no option of Ollama's"),
        ("options", json!({"temperature": -1}), "options.temperature must be at least 0"),
        ("options", json!({"top_p": 1.5}), "options.top_p must be between 0 and 1"),
        ("options", json!({"top_k": 0.5}), "options.top_k must be a whole number"),
        ("options", json!({"seed": "x"}), "options.seed must be a number"),
        ("options", json!({"stop": [1]}), "options.stop must be a string"),
        ("options", json!([]), "options must be an object"),
        ("format", json!("xml"), "format must be \"json\" or a JSON schema"),
        ("think", json!("very"), "think must be true, false, \"low\", \"medium\" or \"high\""),
        ("tools", json!({}), "tools must be an array"),
        ("tools", json!([1]), "tools[0] must be an object"),
        ("stream", json!("often"), "stream must be true or false"),
        ("keep_alive", json!("soon"), "keep_alive must be a number of seconds or a duration such as \"5m\""),
        ("top_logprobs", json!(21), "top_logprobs must be at most 20"),
        ("messages", json!([{"content": "x"}]), "messages[0]: role is missing"),
        ("messages", json!([{"role": "user", "content": 1}]), "messages[0]: content must be a string"),
        ("messages", json!([{"role": "user", "images": ["<>"]}]), "messages[0]: images[0] must be a picture in base64"),
        ("messages", json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0]: tool_calls[0] has no function"),
    ] {
        assert_eq!(chat(name, value.clone()), said, "{name} {value}");
    }
    let generate = |name: &str, value: Value, raw: bool| {
        let mut request = json!({"model": "m", "prompt": "x", "raw": raw});
        request[name] = value;
        refusal("/api/generate", &request)
    };
    assert!(generate("template", json!("{{ .Prompt }}"), false).starts_with("template is not served here"));
    assert!(generate("context", json!([1, 2]), false).starts_with("context is not served here"));
    assert!(generate("width", json!(512), false).starts_with("width is not served here"));
    assert_eq!(generate("system", json!("x"), true), "system cannot stand beside raw");
    assert_eq!(generate("images", json!(["Qk1"]), true), "images cannot stand beside raw");
    assert_eq!(generate("logprobs", json!(true), true), "logprobs cannot stand beside raw");
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("/api/chat", &bytes);
        let _ = parse("/api/generate", &bytes);
    }

    #[test]
    fn whatever_is_accepted_becomes_json(
        prompt in ".{0,20}", system in proptest::option::of(".{0,10}"), suffix in proptest::option::of(".{0,10}"),
        raw in any::<bool>(), temperature in any::<f64>(), predict in any::<i32>(),
    ) {
        let request = json!({
            "model": "m", "prompt": prompt, "system": system, "suffix": suffix, "raw": raw,
            "options": {"temperature": temperature, "num_predict": predict},
        });
        let parsed = parse("/api/generate", request.to_string().as_bytes());
        if let Some((_, body)) = parsed.ok().and_then(|parsed| parsed.body("a\"b")) {
            let body: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&body["model"], "a\"b");
        }
    }
}
