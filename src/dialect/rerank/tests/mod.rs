//! Requests as each client sends them, and answers as each client reads them.

use serde_json::{Value, json};

use super::*;

mod properties;

/// Most documents of a request in these tests.
const MOST: usize = 1000;

fn read(path: &str, body: &str) -> Result<RerankRequest, FieldError> {
    parse(&RerankRoute { path, is_pinecone: false, most_documents: MOST }, body.as_bytes())
}

fn id() -> AnswerId {
    AnswerId { id: "rerank-1".to_owned(), created: 1_700_000_000 }
}

fn answered(request: &RerankRequest, scores: &[f64]) -> Value {
    let answer = RerankAnswer { model: "m".to_owned(), scores: scores.to_vec(), prompt_tokens: Some(12) };
    serde_json::from_slice(&write(request, &answer, &id()).unwrap()).unwrap()
}

fn texts(request: &RerankRequest) -> Vec<&str> {
    request.documents.iter().map(|document| document.text.as_str()).collect()
}

/// The members of the common object that every client gets, around `results`.
fn common(results: &Value) -> Value {
    json!({
        "id": "rerank-1", "object": "list", "created": 1_700_000_000, "model": "m", "results": results,
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
        "meta": {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}},
    })
}

fn with(mut object: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

/// One kind of client: where it sends what, what is understood, what it reads. Documents are `a` and `b`, with the scores
/// 0.25 and 0.75.
struct Client {
    path: &'static str,
    body: &'static str,
    dialect: RerankDialect,
    top_n: Option<usize>,
    answer: Value,
}

fn clients_of_the_common_object() -> Vec<Client> {
    let plain = json!([{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}]);
    let with_objects = json!([
        {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.25, "document": {"text": "a"}},
    ]);
    let best = json!([{"index": 1, "relevance_score": 0.75}]);
    let both = |index, score: f64| json!({"index": index, "relevance_score": score, "score": score});
    let with_data = with(common(&plain), &json!({"data": [both(1, 0.75), both(0, 0.25)]}));
    let client = |path, body, top_n, answer| Client { path, body, dialect: RerankDialect::Common, top_n, answer };
    vec![
        // Cohere v1, with texts and with objects. Continue sends the same as the first, and reads `data`.
        client("/v1/rerank", r#"{"model":"m","query":"q","documents":["a","b"]}"#, None, with_data.clone()),
        client(
            "/v1/rerank",
            r#"{"model":"m","query":"q","documents":[{"text":"a","id":7},{"text":"b"}],"top_n":1,
                "return_documents":true,"max_chunks_per_doc":10}"#,
            Some(1),
            common(&json!([{"index": 1, "relevance_score": 0.75, "document": {"text": "b"}}])),
        ),
        client(
            "/v1/rerank",
            r#"{"model":"m","query":"q","documents":[{"text":"a","id":7},{"text":"b"}],"return_documents":true}"#,
            None,
            common(&json!([
                {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
                {"index": 0, "relevance_score": 0.25, "document": {"text": "a", "id": 7}},
            ])),
        ),
        // Jina from Dify and from RAGFlow.
        client("/v1/rerank", r#"{"model":"m","query":"q","documents":["a","b"],"top_n":null}"#, None, with_data),
        client(
            "/v1/rerank",
            r#"{"model":"m","query":"q","documents":["a","b"],"return_documents":"true","return_len":"true"}"#,
            None,
            common(&with_objects),
        ),
        // A reranker of one's own, without a model.
        client(
            "/api/v1/rerank",
            r#"{"model":"m","query":"q","documents":[{"text":"a"},{"text":"b"}],"top_n":2}"#,
            Some(2),
            common(&plain),
        ),
        // Open WebUI.
        client("/rerank", r#"{"model":"m","query":"q","documents":["a","b"],"top_n":2}"#, Some(2), common(&plain)),
        // vLLM, Xinference, LocalAI.
        client(
            "/rerank",
            r#"{"model":"m","query":"q","documents":["a","b"],"top_n":1,"truncate_prompt_tokens":-1,"priority":0}"#,
            Some(1),
            common(&best),
        ),
        // DashScope in LiteLLM.
        client(
            "/v1/reranks",
            r#"{"model":"m","query":"q","documents":["a","b"],"return_documents":true}"#,
            None,
            common(&with_objects),
        ),
    ]
}

fn clients_with_members_of_their_own() -> Vec<Client> {
    let objects = json!([{"index": 1, "relevance_score": 0.75, "document": {"text": "b"}}]);
    let text = json!([{"index": 1, "relevance_score": 0.75, "score": 0.75, "document": "b"}]);
    vec![
        Client {
            path: "/rerank",
            body: r#"{"model":"m","query":"q","documents":["a","b"],"top_n":1,"return_documents":true,"raw_scores":false}"#,
            dialect: RerankDialect::Infinity,
            top_n: Some(1),
            answer: with(
                common(&json!([{"index": 1, "relevance_score": 0.75, "document": "b"}])),
                &json!({"object": "rerank"}),
            ),
        },
        Client {
            path: "/v1/rerank",
            body: r#"{"model":"m","query":"q","documents":["a","b"],"top_k":1,"truncation":true,"return_documents":true}"#,
            dialect: RerankDialect::Voyage,
            top_n: Some(1),
            answer: with(common(&objects), &json!({"data": text})),
        },
        // Voyage's client always says whether to cut, and not always how many to return.
        Client {
            path: "/v1/rerank",
            body: r#"{"model":"m","query":"q","documents":["a","b"],"top_k":null,"truncation":true,"return_documents":false}"#,
            dialect: RerankDialect::Voyage,
            top_n: None,
            answer: with(
                common(&json!([{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}])),
                &json!({"data": [
                    {"index": 1, "relevance_score": 0.75, "score": 0.75},
                    {"index": 0, "relevance_score": 0.25, "score": 0.25},
                ]}),
            ),
        },
    ]
}

fn clients_of_other_shapes() -> Vec<Client> {
    vec![
        Client {
            path: "/v2/rerank",
            body: r#"{"model":"m","query":"q","documents":["a","b"],"top_n":1,"max_tokens_per_doc":null}"#,
            dialect: RerankDialect::CohereV2,
            top_n: Some(1),
            answer: json!({
                "id": "rerank-1", "results": [{"index": 1, "relevance_score": 0.75}],
                "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
            }),
        },
        Client {
            path: "/v2/rerank",
            body: r#"{"model":"m","query":"q","documents":["a","b"],"top_n":1,"return_documents":true}"#,
            dialect: RerankDialect::CohereV2,
            top_n: Some(1),
            answer: json!({
                "id": "rerank-1", "results": [{"index": 1, "relevance_score": 0.75, "document": {"text": "b"}}],
                "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
            }),
        },
        Client {
            path: "/rerank",
            body: r#"{"query":"q","texts":["a","b"],"raw_scores":false,"return_text":true,"truncate":false,"model":"m"}"#,
            dialect: RerankDialect::Tei,
            top_n: None,
            answer: json!([{"index": 1, "score": 0.75, "text": "b"}, {"index": 0, "score": 0.25, "text": "a"}]),
        },
        Client {
            path: "/rerank",
            body: r#"{"query":"q","texts":["a","b"],"top_n":1,"model":"m"}"#,
            dialect: RerankDialect::Tei,
            top_n: Some(1),
            answer: json!([{"index": 1, "score": 0.75}]),
        },
        Client {
            path: "/v1/reranking",
            body: r#"{"model":"m","query":"q","input":["a",{"text":"b","n":1}],"top_k":1,"return_input":true}"#,
            dialect: RerankDialect::Mixedbread,
            top_n: Some(1),
            answer: json!({
                "object": "list", "model": "m", "data": [{"index": 1, "score": 0.75, "input": {"text": "b", "n": 1}}],
                "usage": {"prompt_tokens": 12, "total_tokens": 12}, "top_k": 1, "return_input": true,
            }),
        },
        Client {
            path: "/score",
            body: r#"{"model":"m","text_1":"q","text_2":["a","b"]}"#,
            dialect: RerankDialect::VllmScore,
            top_n: None,
            answer: json!({
                "id": "rerank-1", "object": "list", "created": 1_700_000_000, "model": "m",
                "data": [
                    {"index": 0, "object": "score", "score": 0.25}, {"index": 1, "object": "score", "score": 0.75},
                ],
                "usage": {"prompt_tokens": 12, "total_tokens": 12},
            }),
        },
        Client {
            path: "/v1/ranking",
            body: r#"{"model":"m","query":{"text":"q"},"passages":[{"text":"a"},{"text":"b"}],"truncate":"END"}"#,
            dialect: RerankDialect::Nim,
            top_n: None,
            answer: json!({
                "rankings": [
                    {"index": 1, "logit": 3.0_f64.ln()}, {"index": 0, "logit": (0.25_f64 / 0.75).ln()},
                ],
                "usage": {"prompt_tokens": 12, "total_tokens": 12},
            }),
        },
    ]
}

#[test]
fn each_client_is_understood_and_reads_its_own_answer() {
    let clients = [clients_of_the_common_object(), clients_with_members_of_their_own(), clients_of_other_shapes()];
    for client in clients.into_iter().flatten() {
        let Client { path, body, dialect, top_n, answer } = client;
        let request = read(path, body).unwrap_or_else(|error| panic!("{path} {body}: {error}"));
        assert_eq!((request.model.as_deref(), request.query.as_str()), (Some("m"), "q"), "{body}");
        assert_eq!((texts(&request), request.top_n), (vec!["a", "b"], top_n), "{body}");
        assert_eq!(request.format.dialect, dialect, "{body}");
        assert_eq!(answered(&request, &[0.25, 0.75]), answer, "{path} {body}");
    }
}

#[test]
fn clients_of_pinecone_read_data_with_the_documents_that_they_sent() {
    let route = RerankRoute { path: "/rerank", is_pinecone: true, most_documents: MOST };
    let body = r#"{"model":"m","query":"q","documents":[{"id":"x","text":"a"},{"id":"y","text":"b"}],"top_n":1,
        "parameters":{"truncate":"END"}}"#;
    let request = parse(&route, body.as_bytes()).unwrap();
    assert!(request.cut.is_allowed());
    let document = json!({"id": "y", "text": "b"});
    let results = json!([{"index": 1, "relevance_score": 0.75, "document": document}]);
    let data = json!([{"index": 1, "relevance_score": 0.75, "score": 0.75, "document": document}]);
    let usage = json!({"prompt_tokens": 12, "total_tokens": 12, "rerank_units": 1});
    assert_eq!(
        answered(&request, &[0.25, 0.75]),
        with(common(&results), &json!({"data": data, "usage": usage})),
        "documents come back unless that is forbidden"
    );
    let tei = parse(&route, br#"{"query":"q","texts":["a"]}"#).unwrap();
    assert_eq!(tei.format.dialect, RerankDialect::Tei, "the body is more certain than a header");
}

#[test]
fn the_model_may_be_left_out() {
    for body in [r#"{"query":"q","texts":["a"]}"#, r#"{"query":"q","documents":["a"],"model":null}"#] {
        assert_eq!(read("/rerank", body).unwrap().model, None);
    }
}

#[test]
fn fields_to_rank_by_are_taken_in_their_order() {
    let body = r#"{"query":"q","rank_fields":["title","year","body"],"return_documents":true,"documents":[
        {"body":"long","title":"T","other":"-"}, {"year":1999,"title":"U"}, "plain"]}"#;
    let request = read("/v1/rerank", body).unwrap();
    assert_eq!(texts(&request), ["T\nlong", "U\n1999", "plain"]);
    let answer = answered(&request, &[0.3, 0.2, 0.1]);
    assert_eq!(answer["results"][1]["document"], json!({"year": 1999, "title": "U"}));
    assert_eq!(answer["results"][2]["document"], json!({"text": "plain"}));
}

#[test]
fn logits_are_wanted_where_the_client_says_so() {
    for (path, body, expected) in [
        ("/rerank", r#"{"query":"q","texts":["a"]}"#, false),
        ("/rerank", r#"{"query":"q","texts":["a"],"raw_scores":true}"#, true),
        ("/rerank", r#"{"query":"q","documents":["a"],"raw_scores":true}"#, true),
        ("/rerank", r#"{"query":"q","documents":["a"],"use_activation":false}"#, true),
        ("/rerank", r#"{"query":"q","documents":["a"],"use_activation":true,"raw_scores":false}"#, false),
        ("/score", r#"{"text_1":"q","text_2":"a","activation":false}"#, true),
        ("/v1/ranking", r#"{"query":"q","passages":["a"]}"#, false),
        ("/v1/ranking", r#"{"query":"q","passages":["a"],"raw_scores":true}"#, true),
    ] {
        assert_eq!(read(path, body).unwrap().wants_raw_scores, expected, "{body}");
    }
}

#[test]
fn the_task_is_read_under_both_names() {
    for name in ["instruction", "instruct"] {
        let request = read("/rerank", &format!(r#"{{"query":"q","documents":["a"],"{name}":"Find"}}"#)).unwrap();
        assert_eq!(request.instruction.as_deref(), Some("Find"));
    }
}

#[test]
fn pairs_are_asked_query_by_query() {
    let body = r#"{"text_1":["p","q","p"],"text_2":["a","b","c"]}"#;
    let request = read("/v1/score", body).unwrap();
    let calls = request.calls();
    let read: Vec<(&str, &[usize])> = calls.iter().map(|call| (call.query, call.documents.as_slice())).collect();
    assert_eq!(read, [("p", &[0, 2][..]), ("q", &[1][..])]);
    let scores = answered(&request, &[0.1, 0.3, 0.2])["data"].clone();
    let scores: Vec<f64> = scores.as_array().unwrap().iter().map(|entry| entry["score"].as_f64().unwrap()).collect();
    assert_eq!(scores, [0.1, 0.3, 0.2], "clients read scores of pairs by position");

    for (body, documents) in [
        (r#"{"text_1":["q"],"text_2":["a","b"]}"#, 2),
        (r#"{"queries":"q","documents":"a"}"#, 1),
        (r#"{"queries":"q","items":["a","b","c"]}"#, 3),
        (r#"{"data_1":"q","data_2":["a"]}"#, 1),
    ] {
        let request = self::read("/score", body).unwrap();
        assert_eq!(request.calls(), [RerankCall { query: "q", documents: (0..documents).collect() }], "{body}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_with_its_member() {
    for (path, body, field, said) in [
        ("/rerank", r#"{"documents":["a"]}"#, "query", "is missing"),
        ("/rerank", r#"{"query":7,"documents":["a"]}"#, "query", "must be a string"),
        ("/rerank", r#"{"query":"q"}"#, "documents", "is missing"),
        ("/rerank", r#"{"query":"q","documents":null}"#, "documents", "is missing"),
        ("/rerank", r#"{"query":"q","documents":"a"}"#, "documents", "must be an array"),
        ("/rerank", r#"{"query":"q","documents":[]}"#, "documents", "must not be empty"),
        ("/rerank", r#"{"query":"q","texts":[]}"#, "texts", "must not be empty"),
        ("/rerank", r#"{"query":"q","input":[]}"#, "input", "must not be empty"),
        ("/score", r#"{"text_1":"q","text_2":[]}"#, "text_2", "must not be empty"),
        ("/score", r#"{"text_1":"q"}"#, "text_2", "is missing"),
        ("/score", r#"{"text_1":["p","q"],"text_2":["a"]}"#, "text_1", "has 2 entries, but text_2 has 1"),
        ("/v1/ranking", r#"{"query":"q","passages":[]}"#, "passages", "must not be empty"),
        ("/rerank", r#"{"query":"q","documents":["a",null]}"#, "documents[1]", "must be a string, or an object"),
        ("/rerank", r#"{"query":"q","documents":["a",{"image":"x"}]}"#, "documents[1]", "has no text"),
        ("/rerank", r#"{"query":"q","documents":[{"text":1}]}"#, "documents[0].text", "must be a string"),
        (
            "/rerank",
            r#"{"query":"q","documents":[{"text":"a"}],"rank_fields":["title"]}"#,
            "documents[0]",
            "none of the members that rank_fields names",
        ),
        (
            "/rerank",
            r#"{"query":"q","documents":["a"],"rank_fields":[1]}"#,
            "rank_fields",
            "must be an array of strings",
        ),
        ("/rerank", r#"{"query":"q","documents":["a"],"top_n":0}"#, "top_n", "at least 1"),
        ("/rerank", r#"{"query":"q","documents":["a"],"top_k":0}"#, "top_k", "at least 1"),
        ("/rerank", r#"{"query":"q","documents":["a"],"top_n":1,"top_k":2}"#, "top_k", "is 2, but top_n is 1"),
        ("/rerank", r#"{"query":"q","documents":["a"],"return_documents":"x"}"#, "return_documents", "true or false"),
        ("/rerank", r#"{"query":"q","documents":["a"],"texts":["b"]}"#, "texts", "and documents must not both be sent"),
        ("/rerank", r#"{"query":"q","texts":["a"],"input":["b"]}"#, "texts", "and input must not both be sent"),
        ("/v2/rerank", r#"{"query":"q","documents":["a"],"priority":3}"#, "priority", "is not served here"),
        ("/rerank", r#"{"query":"q","documents":["a"],"mm_processor_kwargs":{}}"#, "mm_processor_kwargs", "not served"),
        ("/rerank", r#"{"query":"q","documents":["a"],"raw_scores":1}"#, "raw_scores", "must be true or false"),
        (
            "/rerank",
            r#"{"query":"q","documents":["a"],"raw_scores":true,"use_activation":true}"#,
            "use_activation",
            "contradicts raw_scores",
        ),
        (
            "/rerank",
            r#"{"query":"q","documents":["a"],"instruction":"x","instruct":"y"}"#,
            "instruct",
            "differs from instruction",
        ),
    ] {
        let error = read(path, body).expect_err(body);
        assert_eq!(error.field.as_deref(), Some(field), "{body}: {error}");
        assert!(error.message.starts_with(field) && error.message.contains(said), "{body}: {error}");
    }
}

#[test]
fn more_documents_than_allowed_are_refused() {
    let body = format!(r#"{{"query":"q","documents":[{}"a"]}}"#, "\"a\",".repeat(MOST));
    let message = read("/rerank", &body).unwrap_err().message;
    assert_eq!(message, "documents has 1001 entries, more than the 1000 of MAX_RERANK_DOCUMENTS");
    let names = format!(r#"{{"query":"q","documents":["a"],"rank_fields":[{}"a"]}}"#, "\"a\",".repeat(64));
    assert_eq!(read("/rerank", &names).unwrap_err().message, "rank_fields must not hold more than 64 names");
}

#[test]
fn a_search_of_cohere_holds_a_hundred_documents() {
    for (documents, units) in [(1, 1), (100, 1), (101, 2)] {
        let body = format!(r#"{{"query":"q","documents":[{}"a"]}}"#, "\"a\",".repeat(documents - 1));
        let request = read("/v1/rerank", &body).unwrap();
        assert_eq!(answered(&request, &vec![0.5; documents])["meta"]["billed_units"]["search_units"], json!(units));
    }
}

#[test]
fn a_score_that_is_no_number_is_never_written() {
    let request = read("/rerank", r#"{"query":"q","documents":["a","b"]}"#).unwrap();
    for (scores, expected) in [
        (vec![0.5], ScoreError::Missing(1)),
        (vec![0.5, f64::NAN], ScoreError::NotFinite(1)),
        (vec![f64::INFINITY, 0.5], ScoreError::NotFinite(0)),
        (vec![0.5, 0.5, 0.5], ScoreError::NotSent { index: 2, documents: 2 }),
    ] {
        let answer = RerankAnswer { model: "m".to_owned(), scores, prompt_tokens: None };
        assert_eq!(write(&request, &answer, &id()), Err(expected));
    }
}
