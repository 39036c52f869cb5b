use proptest::prelude::*;

use super::counts::UsageReport;
use super::*;
use crate::gateway::bounds::EVENT_HEAD;
use crate::gateway::scan::sse_framer::SseFramer;

const OPENAI: &str = r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" say \"usage\":{\"completion_tokens\":99}"}}]}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" b"}}],"usage":null}

"#;
const TIMED: &str = r#"data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"timings":{"cache_n":31,"prompt_n":1,"prompt_ms":0.5,"predicted_n":2,"predicted_ms":0.6}}

data: [DONE]

"#;
const WITH_USAGE: &str = r#"data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}]}

data: {"choices":[],"usage":{"completion_tokens":2,"prompt_tokens":32,"total_tokens":34,"prompt_tokens_details":{"cached_tokens":31}},"timings":{"cache_n":31,"prompt_n":7,"predicted_n":8}}

data: [DONE]

"#;
const ANTHROPIC: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"m","content":[],"usage":{"cache_read_input_tokens":31,"input_tokens":1,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" which"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" world"}}

"#;
const ANTHROPIC_END: &str = r#"event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":3}}

event: message_stop
data: {"type":"message_stop"}

"#;
const RESPONSES: &str = r#"event: response.created
data: {"type":"response.created","response":{"id":"r","status":"in_progress","usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":" side"}

event: response.output_text.done
data: {"type":"response.output_text.done","text":" side"}

"#;
const RESPONSES_END: &str = r#"event: response.completed
data: {"type":"response.completed","response":{"output":[{"usage":{"output_tokens":77}}],"usage":{"input_tokens":21,"output_tokens":3,"input_tokens_details":{"cached_tokens":20}}},"timings":{"cache_n":20,"prompt_n":5,"predicted_n":5}}

"#;
const NATIVE: &str = r#"data: {"index":0,"content":" end","tokens":[458],"stop":false,"tokens_predicted":1,"tokens_evaluated":2}

data: {"index":0,"content":" help","tokens":[415],"stop":false,"tokens_predicted":4,"tokens_evaluated":2}

"#;
const NATIVE_END: &str = r#"data: {"index":0,"content":"","tokens":[],"stop":true,"tokens_predicted":5,"tokens_evaluated":2,"generation_settings":{"stop":[]},"prompt":"<s>a","timings":{"cache_n":1,"prompt_n":1,"predicted_n":5}}

"#;

fn counts(prompt: impl Into<Option<u64>>, completion: impl Into<Option<u64>>) -> TokenCounts {
    TokenCounts { prompt: prompt.into(), completion: completion.into(), ..TokenCounts::default() }
}

/// Reads a piece of any response. Returns whether an event with text ends in it.
fn read(counter: &mut TokenCounter, framer: &mut SseFramer, piece: &[u8]) -> bool {
    if counter.stream.is_none() {
        counter.read(piece);
        return false;
    }
    let (mut at, mut has_text) = (0, false);
    while let Some(step) = framer.next(piece, &mut at) {
        has_text |= counter.read_step(&step);
    }
    has_text
}

fn count_stream(stream_end: StreamEnd, parts: &[&str]) -> TokenCounts {
    let whole = parts.concat();
    let mut counter = TokenCounter::for_stream(stream_end);
    read(&mut counter, &mut SseFramer::new(), whole.as_bytes());
    // The counts must not depend on how the bytes are split, nor on the kind of line ending.
    for size in (1..40).chain([whole.len() / 2, 1000]) {
        for text in [&whole, &whole.replace('\n', "\r\n"), &whole.replace('\n', "\r")] {
            let (mut cut, mut framer) = (TokenCounter::for_stream(stream_end), SseFramer::new());
            let pieces = text.as_bytes().chunks(size.max(1));
            let has_text = pieces.filter(|piece| read(&mut cut, &mut framer, piece)).count() as u64;
            assert_eq!(cut.counts(), counter.counts(), "pieces of {size}");
            assert!(has_text <= cut.stream.unwrap().text_events);
        }
    }
    TokenCounts { cached: None, ..counter.counts() }
}

fn count_json(json: &str) -> TokenCounts {
    let mut counter = TokenCounter::for_json();
    assert!(!read(&mut counter, &mut SseFramer::new(), json.as_bytes()));
    TokenCounts { cached: None, ..counter.counts() }
}

#[test]
fn a_stream_is_counted_by_usage_or_else_by_timings() {
    assert_eq!(count_stream(StreamEnd::Done, &[OPENAI, TIMED]), counts(32, 2));
    assert_eq!(count_stream(StreamEnd::Done, &[OPENAI, WITH_USAGE]), counts(32, 2));
    assert_eq!(count_stream(StreamEnd::MessageStop, &[ANTHROPIC, ANTHROPIC_END]), counts(32, 3));
    assert_eq!(count_stream(StreamEnd::ResponseDone, &[RESPONSES, RESPONSES_END]), counts(21, 3));
    assert_eq!(count_stream(StreamEnd::Unmarked, &[NATIVE, NATIVE_END]), counts(2, 5));
}

#[test]
fn a_stream_that_breaks_off_counts_its_events_so_far() {
    assert_eq!(count_stream(StreamEnd::Done, &[OPENAI]), counts(None, 2), "the first event has no text");
    assert_eq!(count_stream(StreamEnd::MessageStop, &[ANTHROPIC]), counts(32, 2), "the prompt is reported first");
    assert_eq!(count_stream(StreamEnd::ResponseDone, &[RESPONSES]), counts(None, 1));
    assert_eq!(count_stream(StreamEnd::Unmarked, &[NATIVE]), counts(2, 4), "every event reports counts");
    assert_eq!(count_stream(StreamEnd::Done, &[":\n\n", "data: null\n\n"]), counts(None, None));
}

#[test]
fn the_choices_of_a_stream_are_added_up_and_their_running_counts_are_not() {
    let running = TIMED.replace("\"length\"", "null").replace("data: [DONE]\n\n", "");
    let choice = TIMED.replace("data: [DONE]\n\n", "");
    assert_eq!(count_stream(StreamEnd::Done, &[&running, &running]), counts(32, 2));
    assert_eq!(count_stream(StreamEnd::Done, &[&running, &choice, &running, TIMED]), counts(64, 4));
    assert_eq!(count_stream(StreamEnd::Unmarked, &[NATIVE, NATIVE_END, NATIVE, NATIVE_END]), counts(4, 10));
}

#[test]
fn a_long_last_event_is_read_to_its_end() {
    let long = NATIVE_END.replace("<s>a", &"\\\"timings\\\":{\\\"predicted_n\\\":9},[{".repeat(9_000));
    let (mut counter, mut framer) = (TokenCounter::for_stream(StreamEnd::Unmarked), SseFramer::new());
    for piece in long.as_bytes().chunks(4096) {
        read(&mut counter, &mut framer, piece);
        assert!(framer.head_length() <= EVENT_HEAD);
    }
    assert_eq!(TokenCounts { cached: None, ..counter.counts() }, counts(2, 5));
}

#[test]
fn a_json_response_is_counted_wherever_its_counts_are() {
    let chat = r#"{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":1}}"}}],"usage":{"completion_tokens":3,"prompt_tokens":32,"total_tokens":35},"timings":{"prompt_n":9,"predicted_n":9}}"#;
    assert_eq!(count_json(chat), counts(32, 3));
    let embeddings = format!(
        r#"{{"model":"m","usage":{{"prompt_tokens":8,"total_tokens":8}},"data":[{{"embedding":[{}]}}]}}"#,
        "-0.125,1e3,".repeat(50_000)
    );
    assert_eq!(count_json(&embeddings), counts(8, None));
    assert_eq!(count_json(r#"{ "usage" : { "input_tokens" : 4 , "output_tokens" : 2 } }"#), counts(4, 2));
    assert_eq!(count_json(r#"{"tokens_predicted":3,"tokens_evaluated":2,"prompt":"x"}"#), counts(2, 3));
    let two = r#"[{"tokens_predicted":3,"tokens_evaluated":2},{"tokens_predicted":1,"tokens_evaluated":5}]"#;
    assert_eq!(count_json(two), counts(7, 4));
}

#[test]
fn a_number_elsewhere_is_not_a_count() {
    for json in [
        r#"{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":5},"timings":{"predicted_n":5}}}]}"#,
        r#"{"__verbose":{"timings":{"predicted_n":5},"tokens_predicted":5}}"#,
        r#"{"usage":null,"timings":[{"predicted_n":5}]}"#,
        r#"{"usage":{"prompt_tokens":-5,"completion_tokens":1.5,"prompt_tokens_details":{"input_tokens":3}}}"#,
        r#"{"usage":{"prompt_tokens":"5","completion_tokens":1e3}}"#,
        r#"{"text":"usage","prompt_tokens":5}"#,
        r#"[[{"usage":{"prompt_tokens":5}}]]"#,
        r#"{"input_tokens":32}"#,
        "not json at all }}}]]] \"",
        "",
    ] {
        assert_eq!(count_json(json), counts(None, None), "{json}");
    }
    assert_eq!(count_json(r#"{"usage":{"prompt_tokens":99999999999999999999999}}"#), counts(u64::MAX, None));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let name = prop::sample::select(vec![
        "usage",
        "timings",
        "response",
        "message",
        "prompt_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "predicted_n",
        "cache_n",
        "prompt_n",
        "tokens_predicted",
        "a\"b\\",
        "",
    ]);
    let leaf = prop_oneof![
        any::<u32>().prop_map(serde_json::Value::from),
        any::<f32>().prop_map(serde_json::Value::from),
        ".{0,8}".prop_map(serde_json::Value::from),
        r#"["\\{}\[\]:,a]{0,8}"#.prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let name = name.clone().prop_map(str::to_owned);
        prop_oneof![
            3 => prop::collection::btree_map(name, inner.clone(), 0..6)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            1 => prop::collection::vec(inner, 0..4).prop_map(serde_json::Value::Array),
        ]
    })
}

/// Counts the tokens with a JSON tree, as a reference.
fn counts_by_tree(json: &serde_json::Value) -> TokenCounts {
    let number = |value: &serde_json::Value, name: &str| value.as_object()?.get(name)?.as_u64();
    let one = |json: &serde_json::Value| {
        let Some(fields) = json.as_object() else { return UsageReport::default() };
        let usage = |value: Option<&serde_json::Value>| {
            let usage = value.unwrap_or(&serde_json::Value::Null);
            let details = usage.as_object().and_then(|usage| usage.get("prompt_tokens_details"));
            let cached = details.and_then(|details| number(details, "cached_tokens"));
            TokenCounts { cached, ..counts(number(usage, "prompt_tokens"), number(usage, "completion_tokens")) }
        };
        // Of several the one that is read last counts, and the map is sorted: `message`, `response`, `usage`.
        let within = |name: &str| usage(fields.get(name).and_then(|inner| inner.as_object()?.get("usage")));
        let timings = fields.get("timings").unwrap_or(&serde_json::Value::Null);
        let prompt = number(timings, "prompt_n").map(|n| n + number(timings, "cache_n").unwrap_or(0));
        UsageReport {
            usage: usage(fields.get("usage")).or(within("response")).or(within("message")),
            measured: TokenCounts {
                cached: number(timings, "cache_n"),
                ..counts(prompt, number(timings, "predicted_n").or(number(json, "tokens_predicted")))
            },
            is_opening: false,
        }
    };
    let mut sum = UsageReport::default();
    for json in json.as_array().map_or(std::slice::from_ref(json), |items| items) {
        let report = one(json);
        sum.usage.add(report.usage);
        sum.measured.add(report.measured);
    }
    sum.usage.or(sum.measured)
}

proptest! {
    #[test]
    fn any_json_in_any_pieces_is_counted_like_its_tree(json in json(), size in 1usize..50, pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let mut counter = TokenCounter::for_json();
        for piece in text.as_bytes().chunks(size) {
            counter.read(piece);
        }
        prop_assert_eq!(counter.counts(), counts_by_tree(&json), "{}", text);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
        for mut counter in [TokenCounter::for_json(), TokenCounter::for_stream(StreamEnd::Done), TokenCounter::for_stream(StreamEnd::MessageStop)] {
            let mut framer = SseFramer::new();
            for piece in bytes.chunks(size) {
                read(&mut counter, &mut framer, piece);
            }
            counter.counts();
        }
    }
}

#[test]
fn drafted_tokens_are_read_from_the_timings_of_an_answer_and_of_each_choice_of_a_stream() {
    let drafts = |counts: TokenCounts| (counts.drafted, counts.accepted);
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":9}"#;
    let timings = r#""timings":{"prompt_n":1,"predicted_n":9,"draft_n":8,"draft_n_accepted":7}"#;
    assert_eq!(drafts(count_json(&format!("{{{usage},{timings}}}"))), (Some(8), Some(7)));
    assert_eq!(drafts(count_json(&format!("{{{usage}}}"))), (None, None));
    let last = format!("data: {{\"choices\":[{{\"finish_reason\":\"stop\"}}],{usage},{timings}}}\n\n");
    assert_eq!(drafts(count_stream(StreamEnd::Done, &[&last, &last])), (Some(16), Some(14)));
}

#[test]
fn cached_tokens_are_read_in_every_dialect() {
    let cached = |json: &str| {
        let mut counter = TokenCounter::for_json();
        counter.read(json.as_bytes());
        counter.counts().cached
    };
    for (json, expected) in [
        (
            r#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4}},"timings":{"cache_n":5}}"#,
            Some(4),
        ),
        (r#"{"response":{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4}}}}"#, Some(4)),
        (r#"{"usage":{"input_tokens":9,"cache_read_input_tokens":4}}"#, Some(4)),
        (r#"{"usage":{"prompt_tokens":9},"timings":{"prompt_n":4,"cache_n":5}}"#, Some(5)),
        (
            r#"{"usage":{"cached_tokens":4,"prompt_tokens_details":null},"prompt_tokens_details":{"cached_tokens":4}}"#,
            None,
        ),
        (r#"{"usage":{"prompt_tokens":9}}"#, None),
    ] {
        assert_eq!(cached(json), expected, "{json}");
    }
}
