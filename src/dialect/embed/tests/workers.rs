//! What workers are sent, and what they answer.

use super::super::{
    EmbedInput, InputCut, PromptName, WorkerEmbedCall, WorkerEmbedDialect, WorkerVectors, WorkerVectorsError,
    read_answer, write_request,
};
use super::DIALECTS;

fn call(inputs: &[EmbedInput]) -> WorkerEmbedCall<'_> {
    WorkerEmbedCall { model: "m", inputs, cut: InputCut::End, prompt: None, is_normalized: true, dimensions: None }
}

fn sent(dialect: WorkerEmbedDialect, call: &WorkerEmbedCall<'_>) -> String {
    String::from_utf8(write_request(dialect, call).unwrap()).unwrap()
}

#[test]
fn each_worker_is_asked_in_its_own_dialect() {
    let inputs = ["a", "\u{fc}\""].map(|text| EmbedInput::Text(text.to_owned()));
    let query = PromptName { field: "input_type", name: "search_query".to_owned() };
    let asked = WorkerEmbedCall { prompt: Some(&query), ..call(&inputs) };
    let uncut = WorkerEmbedCall { cut: InputCut::Never, ..call(&inputs) };
    for (dialect, path, expected, without) in [
        (
            WorkerEmbedDialect::OpenAi,
            "/v1/embeddings",
            r#"{"model":"m","input":["a","ü\""],"encoding_format":"base64"}"#,
            r#"{"model":"m","input":["a","ü\""],"encoding_format":"base64"}"#,
        ),
        (
            WorkerEmbedDialect::Tei,
            "/embed",
            r#"{"inputs":["a","ü\""],"normalize":true,"truncate":true}"#,
            r#"{"inputs":["a","ü\""],"normalize":true,"truncate":false}"#,
        ),
        (
            WorkerEmbedDialect::Cohere,
            "/v2/embed",
            r#"{"model":"m","texts":["a","ü\""],"input_type":"search_query","embedding_types":["float"],"truncate":"END"}"#,
            r#"{"model":"m","texts":["a","ü\""],"input_type":"search_document","embedding_types":["float"],"truncate":"NONE"}"#,
        ),
        (
            WorkerEmbedDialect::Jina,
            "/v1/embeddings",
            r#"{"model":"m","input":["a","ü\""],"task":"retrieval.query","normalized":true,"truncate":true}"#,
            r#"{"model":"m","input":["a","ü\""],"normalized":true,"truncate":false}"#,
        ),
        (
            WorkerEmbedDialect::Voyage,
            "/v1/embeddings",
            r#"{"model":"m","input":["a","ü\""],"input_type":"query","truncation":true,"encoding_format":"base64"}"#,
            r#"{"model":"m","input":["a","ü\""],"truncation":false,"encoding_format":"base64"}"#,
        ),
        (
            WorkerEmbedDialect::Ollama,
            "/api/embed",
            r#"{"model":"m","input":["a","ü\""],"truncate":true}"#,
            r#"{"model":"m","input":["a","ü\""],"truncate":false}"#,
        ),
    ] {
        assert_eq!(dialect.path(), path);
        assert_eq!(sent(dialect, &asked), expected, "{dialect:?}");
        assert_eq!(sent(dialect, &uncut), without, "{dialect:?}");
    }
}

#[test]
fn what_a_worker_cannot_do_is_an_error_and_never_left_out() {
    let tokens = [EmbedInput::Tokens(vec![1, 2]), EmbedInput::Text("a".to_owned())];
    for dialect in DIALECTS {
        let with_tokens = write_request(dialect, &call(&tokens));
        assert_eq!(with_tokens.is_ok(), dialect.can_take_tokens(), "{dialect:?}");
        let raw = write_request(dialect, &WorkerEmbedCall { is_normalized: false, ..call(&tokens[1..]) });
        assert_eq!(raw.is_ok(), dialect.can_leave_lengths(), "{dialect:?}");
        assert!(dialect.can_cut(InputCut::Never));
    }
    assert_eq!(
        sent(WorkerEmbedDialect::OpenAi, &WorkerEmbedCall { is_normalized: false, ..call(&tokens) }),
        r#"{"model":"m","input":[[1,2],"a"],"encoding_format":"base64","embd_normalize":-1}"#
    );
    let start = WorkerEmbedCall { cut: InputCut::Start, ..call(&tokens[1..]) };
    for (dialect, said) in [
        (WorkerEmbedDialect::Tei, r#""truncate":true,"truncation_direction":"left""#),
        (WorkerEmbedDialect::Cohere, r#""truncate":"START""#),
        (WorkerEmbedDialect::Voyage, r#""truncation":false"#),
    ] {
        assert!(sent(dialect, &start).contains(said), "{dialect:?}");
        assert_eq!(dialect.can_cut(InputCut::Start), dialect != WorkerEmbedDialect::Voyage);
    }
    assert!(!WorkerEmbedDialect::OpenAi.can_cut(InputCut::End));
    let named = PromptName { field: "prompt_name", name: "query".to_owned() };
    let prompted = WorkerEmbedCall { prompt: Some(&named), ..call(&tokens[1..]) };
    assert!(sent(WorkerEmbedDialect::Tei, &prompted).ends_with(r#","prompt_name":"query"}"#));
    let sized = |count| WorkerEmbedCall { dimensions: Some(count), ..call(&tokens[1..]) };
    assert!(sent(WorkerEmbedDialect::Voyage, &sized(2048)).contains(r#""output_dimension":2048"#));
    assert!(!sent(WorkerEmbedDialect::Voyage, &sized(16)).contains("output_dimension"), "it is cut here");
}

#[test]
fn the_answer_of_each_worker_is_read() {
    use WorkerEmbedDialect::{Cohere, Jina, Ollama, OpenAi, Tei, Voyage};
    let vectors = || vec![vec![1.0, 0.5], vec![-2.0, 0.0]];
    for (dialect, body, tokens) in [
        // llama-server.
        (
            OpenAi,
            concat!(
                r#"{"model":"m","object":"list","usage":{"prompt_tokens":5,"total_tokens":5},"data":["#,
                r#"{"embedding":"AACAPwAAAD8=","index":0,"object":"embedding","encoding_format":"base64"},"#,
                r#"{"embedding":"AAAAwAAAAAA=","index":1,"object":"embedding","encoding_format":"base64"}]}"#
            ),
            Some(5),
        ),
        // Out of order, as floats, without usage.
        (OpenAi, r#"{"data":[{"index":1,"embedding":[-2,0]},{"index":0,"embedding":[1.0,5e-1]}]}"#, None),
        // Without an index.
        (Jina, r#"{"data":[{"embedding":[1,0.5]},{"embedding":[-2,0]}],"usage":{"total_tokens":6}}"#, Some(6)),
        (
            Voyage,
            r#"{"object":"list","data":[{"embedding":"AACAPwAAAD8","index":0},{"embedding":[-2,0.0],"index":1}],"usage":null}"#,
            None,
        ),
        (Tei, "[[1,0.5],[-2,0]]", None),
        (
            Cohere,
            r#"{"id":"x","texts":["a","b"],"embeddings":{"float":[[1,0.5],[-2,0]]},"meta":{"billed_units":{"input_tokens":7.0}}}"#,
            Some(7),
        ),
        (Cohere, r#"{"embeddings":[[1,0.5],[-2,0]],"meta":{}}"#, None),
        (Ollama, r#"{"model":"m","embeddings":[[1,0.5],[-2,0]],"total_duration":1,"prompt_eval_count":8}"#, Some(8)),
    ] {
        let read = read_answer(dialect, body.as_bytes(), 2);
        assert_eq!(read, Ok(WorkerVectors { vectors: vectors(), prompt_tokens: tokens }), "{body}");
    }
}

#[test]
fn an_answer_that_is_not_whole_is_an_error() {
    let said = |dialect, body: &str, inputs| {
        read_answer(dialect, body.as_bytes(), inputs).map_err(|error| error.to_string()).unwrap_err()
    };
    let openai = |data: &str, inputs| said(WorkerEmbedDialect::OpenAi, &format!(r#"{{"data":[{data}]}}"#), inputs);
    for (data, expected) in [
        ("", "the answer has 0 embeddings for 1 inputs"),
        (r#"{"embedding":[1]},{"embedding":[1]}"#, "the answer has 2 embeddings for 1 inputs"),
        (r#"{"embedding":[1],"index":1}"#, "the answer has an embedding with the index 1"),
        (r#"{"embedding":[1],"index":-1}"#, "invalid value"),
        (r#"{"embedding":[null]}"#, "invalid type: null"),
        (r#"{"embedding":[NaN]}"#, "expected"),
        (r#"{"embedding":[1e39]}"#, "not finite"),
        (r#"{"embedding":[1e999]}"#, "out of range"),
        (r#"{"embedding":"AADAfw=="}"#, "not finite"),
        (r#"{"embedding":"AAA="}"#, "no base64 of floats"),
        (r#"{"embedding":null}"#, "an array of numbers, or base64"),
        (r#"{"embedding":[]}"#, "has 0 numbers"),
        (r#"{"index":0}"#, "missing field"),
    ] {
        let said = openai(data, 1);
        assert!(said.contains(expected), "{data}: {said}");
    }
    assert!(openai(r#"{"embedding":[1],"index":0},{"embedding":[1],"index":0}"#, 2).contains("the index 0"));
    assert!(
        openai(r#"{"embedding":[1]},{"embedding":[1,2]}"#, 2)
            .contains("input 1 has 2 numbers, that of the first has 1")
    );
    for dialect in DIALECTS {
        assert!(said(dialect, r#"{"error":{"message":"m"}}"#, 1).contains("no embeddings"), "{dialect:?}");
    }
    assert_eq!(read_answer(WorkerEmbedDialect::Tei, b"[[1]]", 2), Err(WorkerVectorsError::Count { has: 1, inputs: 2 }));
}
