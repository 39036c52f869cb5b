//! The mends on streams of llama-server b11669, cut anywhere.

use std::collections::VecDeque;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::gateway::response::stream::transform::TransformedStream;
use crate::gateway::routes::lookup;

fn facts() -> AnswerFacts {
    AnswerFacts { model: "m\"1".to_owned(), choices: 1, ..AnswerFacts::default() }
}

/// Sends a stream in these pieces through its mend. Returns what comes out, and whether it ended with the mend at work.
fn through(path: &str, facts: &AnswerFacts, pieces: &[&[u8]]) -> (String, bool) {
    let route = lookup::find(&Method::POST, path).unwrap();
    let (mut stream, mut out): (Option<TransformedStream>, Vec<u8>) = (None, Vec::new());
    let mut is_decided = false;
    for piece in pieces {
        let mut ready = VecDeque::from([Bytes::copy_from_slice(piece)]);
        if !is_decided {
            (stream, is_decided) = (of_stream(route, facts.clone(), &ready), true);
        }
        if let Some(mend) = &mut stream {
            mend.take(&mut ready);
            if mend.is_done() {
                stream = None;
            }
        }
        out.extend(ready.into_iter().flatten());
    }
    let is_at_work = stream.is_some();
    if let Some(mut mend) = stream {
        let mut ready = VecDeque::new();
        mend.end(&mut ready);
        out.extend(ready.into_iter().flatten());
    }
    (String::from_utf8(out).unwrap(), is_at_work)
}

/// Returns the names and data of the events of a stream, without what differs each time. Checks that they do not
/// depend on where the stream is cut.
fn events(path: &str, facts: &AnswerFacts, stream: &str) -> Vec<(String, Value)> {
    let read = |text: &str| -> Vec<(String, Value)> {
        let events = text.split("\n\n").filter(|event| event.contains("data: "));
        let event = |event: &str| {
            let value_of = |field: &str| event.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
            let mut data = serde_json::from_str(value_of("data: ")).unwrap_or_else(|_| json!(value_of("data: ")));
            for place in ["/message", "/response"] {
                if let Some(Value::Object(members)) = data.pointer_mut(place) {
                    for name in ["id", "created_at"] {
                        assert!(members.remove(name).is_none_or(|value| !value.is_null()));
                    }
                }
            }
            (value_of("event: ").to_owned(), data)
        };
        events.map(event).collect()
    };
    let whole = read(&through(path, facts, &[stream.as_bytes()]).0);
    // The watcher releases whole events, but may cut very long ones.
    let first = stream.find("\n\n").unwrap() + 2;
    for cut in first..stream.len() {
        let pieces = [&stream.as_bytes()[..cut], &stream.as_bytes()[cut..]];
        assert_eq!(read(&through(path, facts, &pieces).0), whole, "cut at {cut}");
    }
    whole
}

const CHAT_PATH: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

fn chunk(index: u64, delta: &str) -> String {
    format!("data: {{\"choices\":[{{\"finish_reason\":null,\"index\":{index},\"delta\":{delta}}}],\"id\":\"x\"}}\n\n")
}

/// Regression: a chat that begins with an emoji had no role, and clients failed.
#[test]
fn the_first_chunk_of_each_choice_gets_its_role() {
    let hello = chunk(0, r#"{"content":"\"role\":"}"#);
    let stream = format!(": ping\n\n{hello}{hello}data: [DONE]\n\n");
    let mended =
        format!(": ping\n\n{}{hello}data: [DONE]\n\n", chunk(0, r#"{"role":"assistant","content":"\"role\":"}"#));
    assert_eq!(through(CHAT_PATH, &facts(), &[stream.as_bytes()]), (mended, false));
    assert_eq!(events(CHAT_PATH, &facts(), &stream).len(), 3);

    let two = AnswerFacts { choices: 2, ..facts() };
    let role = r#"{"role":"assistant","content":null}"#;
    let stream = [chunk(0, role), hello.clone(), chunk(1, "{}"), chunk(1, "{}")].concat();
    let mended = [chunk(0, role), hello.clone(), chunk(1, r#"{"role":"assistant"}"#), chunk(1, "{}")].concat();
    assert_eq!(through(CHAT_PATH, &two, &[stream.as_bytes()]), (mended, false));
}

#[test]
fn a_stream_that_needs_no_mend_is_passed_on_from_its_first_event_on() {
    let chat = [chunk(0, r#"{"role":"assistant","content":null}"#), chunk(0, "{}")].concat();
    let message =
        "event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: content_block_start\ndata: {}\n\n";
    let response = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0}\n\nevent: x\ndata: {}\n\n";
    let error = "data: {\"error\":{\"message\":\"no\"}}\n\ndata: 1\n\n";
    for (path, stream) in [
        (CHAT_PATH, &*chat),
        (CHAT_PATH, error),
        (MESSAGES, message),
        (MESSAGES, "event: error\ndata: {}\n\n"),
        (RESPONSES, response),
        (RESPONSES, "event: error\ndata: {\"type\":\"error\"}\n\n"),
        ("/v1/completions", error),
        ("/completion", error),
    ] {
        assert_eq!(through(path, &facts(), &[stream.as_bytes()]), (stream.to_owned(), false), "{stream}");
    }
}

/// Regression: a message that begins with an emoji had no `message_start`, and clients failed.
#[test]
fn a_message_without_a_start_gets_one() {
    let rest = "event: content_block_start\ndata: {\"index\":0}\n\nevent: message_stop\ndata: {}\n\n";
    let stream = format!("event: ping\ndata: {{\"type\": \"ping\"}}\n\n{rest}");
    let events = events(MESSAGES, &facts(), &stream);
    let names: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["ping", "message_start", "content_block_start", "message_stop"]);
    let start = &events[1].1;
    assert_eq!((&start["message"]["model"], &start["message"]["role"]), (&json!("m\"1"), &json!("assistant")));
    assert_eq!(start["message"]["usage"], json!({"input_tokens": 0, "output_tokens": 0}));
    assert!(through(MESSAGES, &facts(), &[stream.as_bytes()]).0.ends_with(rest), "the rest is unchanged");
}

#[test]
fn a_message_that_ends_at_a_stop_sequence_says_so() {
    let facts = AnswerFacts { stop_sequences: vec!["ell".to_owned(), "\u{e9}".to_owned()], ..facts() };
    let start = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
    for (reason, sequence, expected) in [
        ("end_turn", r#""ell""#, "stop_sequence"),
        ("end_turn", r#""\u00e9""#, "stop_sequence"),
        ("end_turn", r#""<|im_end|>""#, "end_turn"),
        ("end_turn", "null", "end_turn"),
        ("tool_use", r#""ell""#, "tool_use"),
    ] {
        let end = |reason: &str| format!(r#"{{"stop_reason":"{reason}","stop_sequence":{sequence}}}"#);
        let delta = |reason: &str| {
            format!("{start}event: message_delta\ndata: {{\"delta\":{},\"usage\":{{}}}}\n\n", end(reason))
        };
        assert_eq!(through(MESSAGES, &facts, &[delta(reason).as_bytes()]).0, delta(expected), "{reason} {sequence}");
        let whole = WholeMend::StopSequence(facts.stop_sequences.clone()).apply(end(reason).as_bytes());
        let mended = (reason != expected).then(|| end(expected).into_bytes());
        assert_eq!(whole, mended, "{reason} {sequence}");
    }
}

fn response_event(kind: &str, members: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{members}}}\n\n")
}

/// Returns a stream of llama-server b11669: thoughts, a text and a tool call.
fn response_stream() -> String {
    let begun = r#""response":{"id":"resp_1","object":"response","status":"in_progress"}"#;
    let item = |id: &str, kind: &str| format!(r#""item":{{"id":"{id}","type":"{kind}"}}"#);
    let of = |id: &str| format!(r#""item_id":"{id}""#);
    let added = "response.output_item.added";
    [
        response_event("response.created", begun),
        response_event("response.in_progress", begun),
        response_event(added, &item("rs_1", "reasoning")),
        response_event("response.reasoning_text.delta", &of("rs_1")),
        // It comes again where the first token was part of a character.
        response_event("response.created", begun),
        response_event("response.in_progress", begun),
        response_event(added, &item("msg_1", "message")),
        response_event("response.content_part.added", &of("msg_1")),
        response_event("response.output_text.delta", &of("msg_1")),
        response_event(added, &item("fc_1", "function_call")),
        response_event("response.function_call_arguments.delta", &of("fc_1")),
        response_event("response.output_item.done", &item("rs_1", "reasoning")),
        response_event("response.output_text.done", &format!(r#"{},"text":"x""#, of("msg_1"))),
        response_event("response.output_item.done", &item("fc_1", "function_call")),
        response_event(
            "response.completed",
            r#""response":{"id":"resp_1","created_at":1,"status":"completed","model":"m","output":[{"id":"rs_1"}],"usage":{"output_tokens":9}}"#,
        ),
    ]
    .concat()
}

/// Regression: the AI SDK and OpenAI's `responses.stream` failed at events without numbers.
#[test]
fn the_events_of_a_response_are_numbered() {
    let events = events(RESPONSES, &facts(), &response_stream());
    let numbers: Vec<u64> = events.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..13).collect::<Vec<u64>>());
    let places: Vec<(Option<u64>, Option<u64>)> =
        events.iter().map(|(_, data)| (data["output_index"].as_u64(), data["content_index"].as_u64())).collect();
    let expected = [
        (None, None),
        (None, None),
        (Some(0), None),
        (Some(0), Some(0)),
        (Some(1), None),
        (Some(1), Some(0)),
        (Some(1), Some(0)),
        (Some(2), None),
        (Some(2), None),
        (Some(0), None),
        (Some(1), Some(0)),
        (Some(2), None),
        (None, None),
    ];
    assert_eq!(places, expected);
    for (name, data) in &events {
        assert_eq!(data["type"], **name);
        if name.starts_with("response.output_text.") {
            assert_eq!(data["logprobs"], json!([]), "{data}");
        }
    }
    let created = &events[0].1["response"];
    assert_eq!((&created["output"], &created["model"], &created["error"]), (&json!([]), &json!("m\"1"), &Value::Null));
    let completed = &events[12].1["response"];
    assert_eq!((&completed["status"], &completed["model"]), (&json!("completed"), &json!("m")));
    assert_eq!(completed["output"], json!([{"id": "rs_1"}]));
}

#[test]
fn a_response_that_is_cut_says_so() {
    let at = |limit| AnswerFacts { max_output_tokens: Some(limit), ..facts() };
    let last = |limit| events(RESPONSES, &at(limit), &response_stream()).pop().unwrap();
    assert_eq!(last(10).0, "response.completed");
    let (name, data) = last(9);
    assert_eq!(
        (&*name, &data["type"], &data["response"]["status"]),
        ("response.incomplete", &json!("response.incomplete"), &json!("incomplete"))
    );
    assert_eq!(data["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));

    let whole = br#"{"status":"completed","completed_at":1,"usage":{"output_tokens":9}}"#;
    assert_eq!(WholeMend::CutResponse(10).apply(whole), None);
    let mended: Value = serde_json::from_slice(&WholeMend::CutResponse(9).apply(whole).unwrap()).unwrap();
    let expected = json!({
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "usage": {"output_tokens": 9},
    });
    assert_eq!(mended, expected);
}

#[test]
fn what_llama_server_leaves_out_at_the_beginning_of_a_response_is_made() {
    let completed = r#""response":{"id":"resp_2","status":"completed","output":[],"usage":{"output_tokens":1}}"#;
    let done = response_event("response.output_text.done", r#""item_id":"msg_1","text":"hi""#);
    let stream = [done, response_event("response.completed", completed)].concat();
    let mended = through(RESPONSES, &facts(), &[stream.as_bytes()]).0;
    let ids: Vec<&str> = mended.split("\"id\":\"resp_").skip(1).map(|rest| &rest[..32]).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "one response has one id: {mended}");
    let events = events(RESPONSES, &facts(), &stream);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.trim_start_matches("response.")).collect();
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "completed",
    ];
    assert_eq!(names, expected);
    assert_eq!(events[4].1["delta"], "hi");
    let numbers: Vec<u64> = events.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..7).collect::<Vec<u64>>());
}

#[test]
fn an_error_within_a_message_gets_anthropics_shape() {
    let before = "event: content_block_delta\ndata: {\"error\":1}\n\n";
    for data in [
        r#"{"code":400,"message":"no","type":"invalid_request_error"}"#,
        r#"{"error":{"code":400,"message":"no","type":"invalid_request_error"}}"#,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#,
    ] {
        let stream = format!("{before}event: error\ndata: {data}\n\n");
        let mut ready = VecDeque::from([Bytes::from(stream)]);
        error_events(&mut ready);
        let text = String::from_utf8(ready.into_iter().flatten().collect()).unwrap();
        let error = text.strip_prefix(before).unwrap().strip_prefix("event: error\ndata: ").unwrap();
        let error: Value = serde_json::from_str(error).unwrap();
        assert_eq!(error, json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}));
    }
}
