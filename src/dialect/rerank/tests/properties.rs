//! What holds for all scores, texts and bodies.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::{MOST, answered, id, read};

/// Returns the positions and scores in an answer of any dialect, in its order.
fn entries(answer: &Value) -> Vec<(usize, f64)> {
    let list = ["results", "data", "rankings"].iter().find_map(|name| answer.get(name)).unwrap_or(answer);
    let score = |entry: &Value| ["relevance_score", "score", "logit"].iter().find_map(|name| entry[name].as_f64());
    let read = |entry: &Value| (usize::try_from(entry["index"].as_u64().unwrap()).unwrap(), score(entry).unwrap());
    list.as_array().unwrap().iter().map(read).collect()
}

/// Scores that JSON keeps to the last bit: serde_json's reader may miss it in others.
fn exact() -> impl Strategy<Value = f64> {
    (-80_i32..80).prop_map(|eighths| f64::from(eighths) / 8.0)
}

proptest! {
    #[test]
    fn every_dialect_writes_the_best_documents_in_order(
        scores in proptest::collection::vec(prop_oneof![exact(), Just(0.5), Just(-0.0), Just(0.0)], 1..30),
        top_n in proptest::option::of(1_usize..40),
        is_pinecone: bool,
    ) {
        let mut expected: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
        expected.sort_by(|one, other| other.1.partial_cmp(&one.1).unwrap().then(one.0.cmp(&other.0)));
        expected.truncate(top_n.unwrap_or(usize::MAX));
        let texts: Vec<String> = (0..scores.len()).map(|at| format!("text {at} \"\u{e9}\n")).collect();
        for (path, documents, wanted) in [
            ("/rerank", "documents", "top_n"),
            ("/v1/rerank", "documents", "top_k"),
            ("/v2/rerank", "documents", "top_n"),
            ("/rerank", "texts", "top_n"),
            ("/v1/reranking", "input", "top_k"),
            ("/v1/ranking", "passages", "top_n"),
        ] {
            let mut body = json!({"query": "q", documents: texts, wanted: top_n, "return_documents": true});
            if path == "/v1/ranking" {
                body["raw_scores"] = json!(true);
            }
            let route = RerankRoute { path, is_pinecone, most_documents: MOST };
            let request = parse(&route, body.to_string().as_bytes()).unwrap();
            prop_assert_eq!(super::texts(&request), texts.iter().map(String::as_str).collect::<Vec<_>>());
            let answer = answered(&request, &scores);
            prop_assert_eq!(entries(&answer), expected.clone(), "{} {}", path, documents);
            if let Some(data) = answer.get("data") {
                prop_assert_eq!(entries(data), expected.clone());
            }
        }
    }

    #[test]
    fn what_is_written_for_a_worker_is_understood_as_a_request(
        query in "\\PC{0,20}",
        texts in proptest::collection::vec("\\PC{0,20}", 1..6),
    ) {
        use WorkerRerankDialect::{Cohere, Infinity, Jina, Llama, Tei, Vllm, Voyage};
        let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
        let asked = WorkerRerankRequest {
            model: "m", query: &query, documents: &documents, cut: DocumentCut::Never, wants_raw_scores: true,
            instruction: None,
        };
        for dialect in [Llama, Vllm, Tei, Cohere, Jina, Voyage, Infinity] {
            let route = RerankRoute { path: dialect.path(), is_pinecone: false, most_documents: MOST };
            let request = parse(&route, &dialect.write_request(&asked)).unwrap();
            prop_assert_eq!((&request.query, super::texts(&request)), (&query, documents.clone()));
        }
    }

    #[test]
    fn what_is_written_for_a_client_is_read_as_the_answer_of_a_worker(
        scores in proptest::collection::vec(exact(), 1..20),
    ) {
        let texts = vec!["a"; scores.len()];
        for (path, documents) in [("/rerank", "documents"), ("/v2/rerank", "documents"), ("/rerank", "texts"),
            ("/v1/reranking", "input")] {
            let request = read(path, &json!({"query": "q", documents: texts}).to_string()).unwrap();
            let answer = RerankAnswer { model: "m".to_owned(), scores: scores.clone(), prompt_tokens: Some(3) };
            let written = write(&request, &answer, &id()).unwrap();
            prop_assert_eq!(read_answer(&written, scores.len()).unwrap().scores, scores.clone());
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "[\\[{}\\]:,\"a-z0-9.e\\\\-]{0,80}".prop_map(String::into_bytes),
        ],
        path in proptest::sample::select(vec!["/rerank", "/v2/rerank", "/score", "/v1/ranking", ""]),
        is_pinecone: bool,
    ) {
        let _ = parse(&RerankRoute { path, is_pinecone, most_documents: MOST }, &body);
    }

    #[test]
    fn any_values_of_known_members_are_parsed_or_refused(
        members in proptest::collection::btree_map(
            proptest::sample::select(vec!["model", "query", "documents", "texts", "input", "passages", "text_1", "text_2",
                "top_n", "top_k", "rank_fields", "return_documents", "raw_scores", "truncate", "truncation",
                "truncation_direction", "max_tokens_per_doc", "max_chunks_per_doc", "truncate_prompt_tokens",
                "parameters", "priority", "instruction"]),
            proptest::sample::select(vec!["null", "0", "-1", "1", "1e400", "true", "\"true\"", "\"\"", "\"\\ud800\"", "[]",
                "[null]", "[[\"a\"]]", "[\"a\",\"b\"]", "{}", "{\"text\":\"a\"}", "[{\"text\":\"a\",\"a\":[{}]}]"]),
            0..8,
        ),
        path in proptest::sample::select(vec!["/rerank", "/v2/rerank", "/score", "/v1/ranking"]),
        is_pinecone: bool,
    ) {
        let body: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let route = RerankRoute { path, is_pinecone, most_documents: MOST };
        if let Ok(request) = parse(&route, format!("{{{}}}", body.join(",")).as_bytes()) {
            prop_assert!(!request.documents.is_empty());
            answered(&request, &vec![0.5; request.documents.len()]);
        }
    }
}
