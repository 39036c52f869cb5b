//! The calls that are made for a reranker without a ranking head, at the fake llama-server: how it is started, how many
//! calls there are and what they cost, and which models take over.

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    gateway::{Backend, Builder, Gateway, LIMITED},
    model_file::Kind,
    resources,
};

const RERANK: &str = "/v1/rerank";
const COMPLETION: &str = "/completion";

fn scripted(script: Value) -> Builder {
    Gateway::builder().backend(Backend::Fake { script, kind: Kind::RerankByWords })
}

fn documents(count: usize) -> Value {
    json!({"query": "red", "documents": (0..count).map(|at| format!("a red fox {at}")).collect::<Vec<_>>()})
}

#[test]
fn llama_server_is_started_for_completions_and_each_document_is_one() {
    let gateway = scripted(json!({})).set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let argv = gateway.child_pids().iter().map(|pid| resources::cmdline(*pid)).find(|argv| argv.len() > 3).unwrap();
    assert!(!argv.iter().any(|word| ["--reranking", "--embedding", "--pooling"].contains(&word.as_str())), "{argv:?}");
    let models = gateway.client().get("/v1/models/rerank").json();
    assert_eq!((&models[0]["id"], &models[0]["kind"]), (&json!("dummy"), &json!("rerank")), "{models}");

    let client = gateway.client_with(LIMITED).header("X-Request-Id", "five");
    let answer = client.post_json(RERANK, &documents(5));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("1"), "it counts as one request");
    let results = answer.json()["results"].clone();
    let scores: Vec<f64> =
        results.as_array().unwrap().iter().map(|entry| entry["relevance_score"].as_f64().unwrap()).collect();
    assert!(scores.len() == 5 && scores.iter().all(|score| (score - 0.75).abs() < 1e-12), "{results}");
    assert_eq!((gateway.journal().requests(COMPLETION).len(), gateway.journal().requests(RERANK).len()), (5, 0));
    let tokens = answer.json()["usage"]["prompt_tokens"].to_string();
    let line = access_log_line(&gateway, "five");
    assert_eq!((&*line["model"], &*line["prompt_tokens"]), ("dummy", &*tokens));
    let chat = gateway.client().post_json("/v1/chat/completions", &json!({"messages": []}));
    assert_eq!((chat.status(), &chat.json()["error"]["code"]), (400, &json!("wrong_model_kind")), "{}", chat.text());
}

#[test]
fn documents_are_scored_side_by_side_in_all_slots() {
    let gateway = scripted(json!({"hold_requests": [COMPLETION]})).set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let mut asked = gateway.client().begin("POST", RERANK, documents(5).to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(COMPLETION, 2);
    gateway.control().release_all_requests();
    assert_eq!(asked.read_response().unwrap().status(), 200);
}

/// Regression: each long document asked again for the tokens of the template and of the question without a document.
#[test]
fn the_tokenizer_is_asked_once_for_what_all_documents_share() {
    let gateway = scripted(json!({})).set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let long = "a red fox jumps over the fence ".repeat(40);
    let body = json!({"model": "dummy", "query": "red", "documents": vec![long; 6], "max_tokens_per_doc": 9});
    let answer = gateway.client().post_json("/v2/rerank", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let asked = gateway.journal().requests("/tokenize").len();
    assert_eq!(asked, 6 + 2 + 1, "each document, both ends of the template, the question alone");
}

#[test]
fn an_answer_without_probabilities_is_a_fault_of_the_backend() {
    let fixed = json!([{"path": COMPLETION, "status": 200, "body": {"content": "yes"}}]);
    let gateway = scripted(json!({"error_status": fixed})).start_ready();
    let answer = gateway.client().post_json(RERANK, &documents(2));
    assert_eq!(answer.status(), 502, "{}", answer.text());
    assert!(answer.text().contains("completion_probabilities"), "{}", answer.text());
}

/// The fake takes a word for a token, as builds that do not know `parse_special` take a control token.
#[test]
fn a_document_could_write_a_turn_of_the_chat_where_the_tokenizer_is_too_old() {
    let gateway = scripted(json!({})).start_ready();
    for (query, document) in [("red", "no <|im_end|>"), ("<|im_start|>", "a")] {
        let answer = gateway.client().post_json(RERANK, &json!({"query": query, "documents": ["b", document]}));
        assert!(answer.status() == 502 && answer.text().contains("update llama-server"), "{}", answer.text());
    }
    assert_eq!(gateway.client().post_json(RERANK, &json!({"query": "a < b", "documents": ["|"]})).status(), 200);
}

/// Returns a gateway whose model `m` answers with words, as this script says, and may be taken over by `o`, a reranker with a
/// head; `h` is another one, which `m` would have to take over.
fn fleet(script: Value) -> Gateway {
    let config = "models: {m: {file: m.gguf, preload: true}, o: {file: o.gguf, preload: true}, h: {file: h.gguf}}\n\
                  fallbacks: {m: [o], h: [m]}\n";
    let broken = json!({"exit_at_start": {"code": 7}});
    let models = [
        ("m.gguf", script, Kind::RerankByWords),
        ("o.gguf", json!({}), Kind::Rerank),
        ("h.gguf", broken, Kind::Rerank),
    ];
    let models = models.map(|(name, script, kind)| (name.to_owned(), script, kind)).to_vec();
    Gateway::builder().backend(Backend::Fakes { config: config.to_owned(), models }).set("RESTART_LIMIT", 1).start()
}

#[test]
fn a_model_that_takes_over_for_one_that_answers_with_words_is_asked_in_its_own_way() {
    for script in [json!({"exit_at_start": {"code": 7}}), json!({"die_on": "Judge whether"})] {
        let gateway = fleet(script.clone());
        gateway.wait_ready();
        let mut body = documents(3);
        body["model"] = json!("m");
        // Each may end the first model, and a key is suspended after three ends.
        for _ in 0..2 {
            let answer = gateway.client().post_json(RERANK, &body);
            assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("o")), "{}", answer.text());
            let results = answer.json()["results"].as_array().unwrap().len();
            assert_eq!(results, 3, "{script} {}", answer.text());
        }
        assert_eq!(gateway.model_file("o.gguf").journal().requests(RERANK).len(), 2);
        assert!(gateway.model_file("o.gguf").journal().requests(COMPLETION).is_empty());
        assert!(gateway.model_file("m.gguf").journal().requests(RERANK).is_empty());
    }
}

#[test]
fn a_model_that_answers_with_words_gets_no_call_that_was_written_for_another() {
    let gateway = fleet(json!({}));
    gateway.wait_ready();
    let mut body = documents(3);
    body["model"] = json!("h");
    let answer = gateway.client().post_json(RERANK, &body);
    assert!(answer.status() >= 502, "{}", answer.text());
    assert!(gateway.model_file("m.gguf").journal().requests(RERANK).is_empty());
    body["model"] = json!("m");
    let answer = gateway.client().post_json(RERANK, &body);
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("m")), "{}", answer.text());
}
