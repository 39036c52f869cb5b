//! What the client reads for answers and events of workers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::bounds::{MOST_TOOL_CALLS, TOOL_CALL_BYTES};
use super::super::{AnswerWriter, LoadedModel, ModelCapability, ModelCard, OllamaForm, loaded, read_shown, show, tags};
use super::after;

/// Returns the lines for these events, which arrive 10 milliseconds apart.
fn lines(form: OllamaForm, events: &[Value]) -> Vec<Value> {
    let (mut writer, mut out) = (AnswerWriter::new(form, "m"), Vec::new());
    for (at, event) in events.iter().enumerate() {
        writer.write_event(event.to_string().as_bytes(), after(10 * (at as u64 + 1)), &mut out);
    }
    writer.write_event(b"[DONE]", after(100), &mut out);
    writer.write_end(after(200), &mut out);
    read(&out)
}

fn read(out: &[u8]) -> Vec<Value> {
    String::from_utf8(out.to_vec()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn counted() -> Value {
    json!({
        "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3},
        "timings": {"cache_n": 2, "prompt_n": 10, "prompt_ms": 20.5, "predicted_n": 3, "predicted_ms": 30.25},
    })
}

const TIME: &str = "1970-01-01T00:00:00.000000000Z";

fn message(message: Value) -> Value {
    let mut whole = json!({"role": "assistant", "content": ""});
    whole.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
    json!({"model": "m", "created_at": TIME, "message": whole, "done": false})
}

#[test]
fn a_stream_becomes_lines_with_the_counts_in_the_last() {
    let events = [
        delta(json!({"role": "assistant", "content": null})),
        delta(json!({"content": "He"})),
        delta(json!({"content": "llo"})),
        finish("stop"),
        counted(),
    ];
    let end = json!({
        "model": "m", "created_at": TIME, "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop",
        "total_duration": 100_000_000, "load_duration": 49_250_000, "prompt_eval_count": 12,
        "prompt_eval_duration": 20_500_000, "eval_count": 3, "eval_duration": 30_250_000,
    });
    let expected = [message(json!({"content": "He"})), message(json!({"content": "llo"})), end];
    assert_eq!(lines(OllamaForm::Chat, &events), expected);
}

#[test]
fn a_completion_has_a_response_and_thinking_beside_it() {
    let events =
        [delta(json!({"reasoning_content": "Hm."})), json!({"choices": [{"text": "Hi", "finish_reason": "length"}]})];
    let lines = lines(OllamaForm::Generate, &events);
    assert_eq!((&lines[0]["response"], &lines[0]["thinking"]), (&json!(""), &json!("Hm.")));
    assert_eq!((&lines[1]["response"], lines[1].get("thinking")), (&json!("Hi"), None));
    assert_eq!((&lines[2]["response"], &lines[2]["done_reason"]), (&json!(""), &json!("length")));
    assert!(lines.iter().all(|line| line.get("message").is_none()), "{lines:?}");
    // Without llama-server's times they are those that were seen: text from 10 to 100 milliseconds.
    assert_eq!(
        (&lines[2]["eval_duration"], &lines[2]["prompt_eval_duration"]),
        (&json!(90_000_000), &json!(10_000_000))
    );
}

#[test]
fn what_stands_between_two_texts_has_llama_servers_own_form() {
    let events = [
        json!({"content": "a", "stop": false}),
        json!({"content": "", "stop": true, "stop_type": "limit", "tokens_evaluated": 5, "tokens_predicted": 2,
            "timings": {"prompt_ms": 1, "predicted_ms": 2}}),
    ];
    let lines = lines(OllamaForm::Generate, &events);
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["response"], &lines[1]["done_reason"]), (&json!("a"), &json!("length")));
    assert_eq!((&lines[1]["prompt_eval_count"], &lines[1]["eval_count"]), (&json!(5), &json!(2)));
}

#[test]
fn calls_of_tools_come_whole_before_the_last_line() {
    let part = |index: u64, id: &str, name: &str, arguments: &str| {
        delta(json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}))
    };
    let events = [
        part(0, "c0", "sum", ""),
        part(0, "", "", "{\"z\":1,"),
        part(1, "c1", "now", ""),
        part(0, "", "", "\"a\":2}"),
        finish("tool_calls"),
    ];
    let lines = lines(OllamaForm::Chat, &events);
    let calls = json!([
        {"id": "c0", "function": {"index": 0, "name": "sum", "arguments": {"z": 1, "a": 2}}},
        {"id": "c1", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]);
    assert_eq!(lines[0], message(json!({"tool_calls": calls})));
    assert_eq!((lines.len(), &lines[1]["done"], &lines[1]["done_reason"]), (2, &json!(true), &json!("stop")));
}

#[test]
fn a_call_that_is_cut_is_left_out_and_one_that_is_no_json_is_an_error() {
    let cut = |reason: &str| {
        let part = json!({"tool_calls": [{"index": 0, "function": {"name": "sum", "arguments": "{\"a\":"}}]});
        lines(OllamaForm::Chat, &[delta(part), finish(reason)])
    };
    let length = cut("length");
    assert_eq!((length.len(), &length[0]["done_reason"]), (1, &json!("length")));
    let stop = cut("tool_calls");
    assert!(stop.len() == 1 && stop[0]["error"].as_str().unwrap().contains("no JSON object"), "{stop:?}");
}

#[test]
fn calls_are_held_within_their_bounds() {
    let many = (0..=MOST_TOOL_CALLS as u64).map(|index| json!({"index": index, "function": {"name": "f"}}));
    let many = lines(OllamaForm::Chat, &[delta(json!({"tool_calls": many.collect::<Vec<_>>()}))]);
    assert!(many.len() == 1 && many[0]["error"].is_string(), "{many:?}");
    let long = json!({"tool_calls": [{"index": 0, "function": {"arguments": "x".repeat(TOOL_CALL_BYTES + 1)}}]});
    let long = lines(OllamaForm::Chat, &[delta(long)]);
    assert!(long.len() == 1 && long[0]["error"].is_string(), "{long:?}");
}

#[test]
fn an_error_within_a_stream_is_its_last_line() {
    for error in [json!({"error": {"code": 500, "message": "no memory"}}), json!({"error": "no memory"})] {
        let lines =
            lines(OllamaForm::Chat, &[delta(json!({"content": "He"})), error, delta(json!({"content": "llo"}))]);
        assert_eq!(lines[1..], [json!({"error": "no memory"})]);
    }
    let lines = lines(OllamaForm::Chat, &[json!([])]);
    assert!(lines.len() == 1 && lines[0]["error"].is_string(), "{lines:?}");
}

#[test]
fn a_whole_answer_is_one_line() {
    let mut answer = counted();
    answer["choices"] = json!([{"finish_reason": "stop", "message": {"role": "assistant", "content": "Hi",
        "reasoning_content": "Hm.", "tool_calls": [{"id": "c", "function": {"name": "sum", "arguments": "{\"a\":1}"}}]},
        "logprobs": {"content": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}]}}]);
    let mut out = Vec::new();
    let writer = AnswerWriter::new(OllamaForm::Chat, "m");
    writer.write_whole(answer.to_string().as_bytes(), after(100), &mut out).unwrap();
    let lines = read(&out);
    let calls = json!([{"id": "c", "function": {"index": 0, "name": "sum", "arguments": {"a": 1}}}]);
    let message = json!({"role": "assistant", "content": "Hi", "thinking": "Hm.", "tool_calls": calls});
    assert_eq!((lines.len(), &lines[0]["message"], &lines[0]["eval_count"]), (1, &message, &json!(3)));
    assert_eq!(lines[0]["logprobs"][0]["token"], "Hi");
    for text in ["{}", "[]", "<html>", "{\"choices\":[]}"] {
        let writer = AnswerWriter::new(OllamaForm::Chat, "m");
        assert!(writer.write_whole(text.as_bytes(), after(1), &mut Vec::new()).is_err(), "{text}");
    }
}

#[test]
fn a_model_that_is_only_loaded_has_no_counts() {
    let mut out = Vec::new();
    AnswerWriter::new(OllamaForm::Generate, "m").write_loaded(false, after(1), &mut out);
    AnswerWriter::new(OllamaForm::Chat, "m").write_loaded(true, after(1), &mut out);
    let expected = [
        json!({"model": "m", "created_at": TIME, "response": "", "done": true, "done_reason": "load"}),
        json!({"model": "m", "created_at": TIME, "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "unload"}),
    ];
    assert_eq!(read(&out), expected);
}

#[test]
fn models_are_listed_with_a_tag_and_described_with_their_numbers() {
    let card = ModelCard {
        id: "org/small".to_owned(),
        size: Some(7),
        digest: "d".to_owned(),
        architecture: Some("llama".to_owned()),
        parameters: Some(134_515_008),
        quantization: Some("Q4_K_M".to_owned()),
        context_length: Some(2048),
        embedding_length: Some(576),
        capabilities: vec![ModelCapability::Completion, ModelCapability::Tools],
        ..ModelCard::default()
    };
    let details = json!({"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "134.52M", "quantization_level": "Q4_K_M"});
    let listed = tags(std::slice::from_ref(&card));
    let expected = json!({"name": "org/small:latest", "model": "org/small:latest", "modified_at": TIME, "size": 7, "digest": "d", "details": details});
    assert_eq!(listed["models"], json!([expected]));
    let shown = show(&card);
    assert_eq!((&shown["capabilities"], &shown["details"]), (&json!(["completion", "tools"]), &details));
    let info = json!({"general.architecture": "llama", "general.parameter_count": 134_515_008,
        "llama.context_length": 2048, "llama.embedding_length": 576});
    assert_eq!(shown["model_info"], info);
    let running =
        loaded(&[LoadedModel { card: ModelCard { id: "a:7b".to_owned(), ..card }, expires_at: jiff::Timestamp::MAX }]);
    let entry = &running["models"][0];
    assert_eq!(
        (&entry["name"], &entry["context_length"], &entry["size_vram"]),
        (&json!("a:7b"), &json!(2048), &json!(7))
    );
    assert_eq!(read_shown(br#"{"model":"a"}"#).as_deref(), Ok("a"));
    assert_eq!(read_shown(br#"{"name":"a"}"#).as_deref(), Ok("a"));
    assert!(read_shown(b"{}").is_err());
}

proptest! {
    #[test]
    fn every_line_is_json_and_nothing_follows_the_last_whatever_a_worker_sends(
        events in proptest::collection::vec(prop_oneof![
            ".{0,30}".prop_map(|text| text.into_bytes()),
            ".{0,10}".prop_map(|text| delta(json!({"content": text})).to_string().into_bytes()),
            Just(finish("stop").to_string().into_bytes()),
            Just(b"[DONE]".to_vec()),
            Just(br#"{"error":"x"}"#.to_vec()),
        ], 0..12),
    ) {
        let (mut writer, mut out) = (AnswerWriter::new(OllamaForm::Chat, "m"), Vec::new());
        for event in &events {
            writer.write_event(event, after(1), &mut out);
        }
        writer.write_end(after(2), &mut out);
        let lines = read(&out);
        let is_last = |line: &Value| line["done"] == json!(true) || line.get("error").is_some();
        prop_assert_eq!(lines.iter().position(is_last), Some(lines.len() - 1));
    }
}
