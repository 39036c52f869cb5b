//! Reranking as each client asks for it, with the real llama-server: what it sends, and what it reads.
//!
//! The scores are compared with those that llama-server itself gives, which are logits.

use serde_json::{Value, json};

use super::support::{
    client::{Client, Response},
    gateway::{Backend, Builder, Gateway},
    page_commands::{CommandOutput, run_page},
    resources,
};

const QUERY: &str = "a small bird";
const DOCUMENTS: [&str; 3] = ["rain falls on the road", "the sparrow sings", "birds are small"];

/// How far a score may be from the expected one. llama-server's batches differ in the last digits.
const TOLERANCE: f64 = 1e-4;

fn builder() -> Builder {
    Gateway::builder().backend(Backend::Real { model: "tiny-rerank.gguf" })
}

/// A client of the llama-server behind a gateway with one model.
pub(super) fn direct(gateway: &Gateway) -> Client {
    let argv = gateway.child_pids().iter().map(|pid| resources::cmdline(*pid)).find(|argv| argv.len() > 3).unwrap();
    let after = |flag: &str| argv.iter().position(|word| word == flag).map(|at| argv[at + 1].clone()).unwrap();
    let key = std::fs::read_to_string(after("--api-key-file")).unwrap();
    Client::new(&format!("http://127.0.0.1:{}", after("--port"))).key(key.trim())
}

/// Returns the logits that llama-server itself gives to these documents, and its count of tokens.
fn logits(gateway: &Gateway, query: &str, documents: &[&str]) -> (Vec<f64>, u64) {
    let answer = direct(gateway).post_json("/v1/rerank", &json!({"query": query, "documents": documents})).json();
    let entries = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let mut scores = vec![f64::NAN; documents.len()];
    for entry in entries {
        scores[entry["index"].as_u64().unwrap() as usize] = entry["relevance_score"].as_f64().unwrap();
    }
    (scores, answer["usage"]["prompt_tokens"].as_u64().unwrap())
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// Returns the positions of the best scores first.
fn order(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
    order
}

/// Asserts that an answer is as expected, with numbers up to [`TOLERANCE`]. `"*"` stands for any value.
#[track_caller]
fn assert_like(found: &Value, expected: &Value, client: &str) {
    let is_like = match (found, expected) {
        (_, Value::String(any)) if any == "*" => !found.is_null(),
        (Value::Number(one), Value::Number(other)) => {
            (one.as_f64().unwrap() - other.as_f64().unwrap()).abs() <= TOLERANCE
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            found.iter().zip(expected).for_each(|(found, expected)| assert_like(found, expected, client));
            true
        }
        (Value::Object(members), Value::Object(wanted)) if members.keys().eq(wanted.keys()) => {
            members.iter().for_each(|(name, found)| assert_like(found, &wanted[name], client));
            true
        }
        _ => found == expected,
    };
    assert!(is_like, "{client}: {found} is not {expected}");
}

/// How an answer writes its entries.
struct Entries<'a> {
    scores: &'a [f64],
    /// How many entries there are.
    top: usize,
}

impl Entries<'_> {
    /// Returns the entries, best first: each with its index, its score under these names, and what `more` adds.
    fn of(&self, names: &[&str], more: impl Fn(usize) -> Value) -> Value {
        let entry = |at: usize| {
            let mut entry = json!({"index": at});
            names.iter().for_each(|name| entry[name] = json!(self.scores[at]));
            more(at).as_object().unwrap().iter().for_each(|(name, value)| entry[name] = value.clone());
            entry
        };
        order(self.scores).into_iter().take(self.top).map(entry).collect()
    }
}

pub(super) fn with(mut object: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

/// One kind of client: its name, where it sends what, and what it reads.
type Row = (&'static str, &'static str, Value, Value);

fn rows(scores: &[f64], logits: &[f64], tokens: u64) -> Vec<Row> {
    let plain = |_: usize| json!({});
    let object = |at: usize| json!({"document": {"text": DOCUMENTS[at]}});
    let text = |at: usize| json!({"document": DOCUMENTS[at]});
    let top = |top: usize| Entries { scores, top };
    let r = ["relevance_score"];
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let meta = |version: &str| json!({"api_version": {"version": version}, "billed_units": {"search_units": 1}});
    let common = |results: Value| {
        json!({"id": "*", "object": "list", "created": "*", "model": "m", "results": results, "usage": usage,
               "meta": meta("1")})
    };
    let v2 = |results: Value| json!({"id": "*", "results": results, "meta": meta("2")});
    let objects: Vec<Value> = DOCUMENTS.iter().map(|text| json!({"text": text})).collect();
    let titled: Vec<Value> = DOCUMENTS.iter().map(|text| json!({"title": text, "n": 1})).collect();
    let ask = |members: &Value| with(json!({"model": "m", "query": QUERY, "documents": DOCUMENTS}), members);
    let tei = |members: &Value| with(json!({"query": QUERY, "texts": DOCUMENTS}), members);
    let titles = |at: usize| json!({"document": {"title": DOCUMENTS[at], "n": 1}});
    let input = |at: usize| json!({"input": DOCUMENTS[at]});
    let texts = |at: usize| json!({"text": DOCUMENTS[at]});
    let both = ["relevance_score", "score"];
    let raw = Entries { scores: logits, top: 3 };
    vec![
        (
            "Cohere v1",
            "/v1/rerank",
            ask(&json!({"documents": objects, "top_n": 2, "return_documents": true, "max_chunks_per_doc": 10})),
            common(top(2).of(&r, object)),
        ),
        (
            "Cohere v1 with rank_fields",
            "/v1/rerank",
            ask(&json!({"documents": titled, "rank_fields": ["title"], "return_documents": true})),
            common(top(3).of(&r, titles)),
        ),
        ("Cohere v2", "/v2/rerank", ask(&json!({"top_n": 1, "max_tokens_per_doc": null})), v2(top(1).of(&r, plain))),
        (
            "LiteLLM cohere/",
            "/v2/rerank",
            ask(&json!({"top_n": 2, "return_documents": true})),
            v2(top(2).of(&r, object)),
        ),
        (
            "Dify, Jina",
            "/v1/rerank",
            ask(&json!({"top_n": null, "return_documents": true})),
            common(top(3).of(&r, object)),
        ),
        ("RAGFlow, Xinference", "/v1/rerank", ask(&json!({"return_documents": "true"})), common(top(3).of(&r, object))),
        (
            "a server of one's own",
            "/api/v1/rerank",
            ask(&json!({"documents": objects, "top_n": 3})),
            common(top(3).of(&r, plain)),
        ),
        (
            "Continue, which reads data",
            "/v1/rerank",
            ask(&json!({})),
            with(common(top(3).of(&r, plain)), &json!({"data": top(3).of(&both, plain)})),
        ),
        ("Open WebUI", "/rerank", ask(&json!({"top_n": 3})), common(top(3).of(&r, plain))),
        (
            "vLLM",
            "/rerank",
            ask(&json!({"top_n": 2, "truncate_prompt_tokens": -1, "max_tokens_per_doc": 100})),
            common(top(2).of(&r, plain)),
        ),
        (
            "Infinity",
            "/rerank",
            ask(&json!({"return_documents": true, "raw_scores": false})),
            with(common(top(3).of(&r, text)), &json!({"object": "rerank"})),
        ),
        (
            "Infinity, logits",
            "/rerank",
            ask(&json!({"raw_scores": true})),
            with(common(raw.of(&r, plain)), &json!({"object": "rerank"})),
        ),
        (
            "Voyage",
            "/v1/rerank",
            ask(&json!({"top_k": 2, "truncation": true, "return_documents": true})),
            with(common(top(2).of(&r, object)), &json!({"data": top(2).of(&both, text)})),
        ),
        (
            "top_k alone",
            "/v1/rerank",
            ask(&json!({"top_k": 1})),
            with(common(top(1).of(&r, plain)), &json!({"data": top(1).of(&both, plain)})),
        ),
        ("TEI", "/rerank", tei(&json!({})), top(3).of(&["score"], plain)),
        (
            "TEI, all members",
            "/rerank",
            tei(&json!({"raw_scores": false, "return_text": true, "truncate": false, "truncation_direction": "Right"})),
            top(3).of(&["score"], texts),
        ),
        ("TEI, logits", "/rerank", tei(&json!({"raw_scores": true})), raw.of(&["score"], plain)),
        (
            "LiteLLM huggingface/",
            "/rerank",
            tei(&json!({"top_n": 2, "return_text": true})),
            top(2).of(&["score"], texts),
        ),
        (
            "mixedbread",
            "/v1/reranking",
            json!({"model": "m", "query": QUERY, "input": DOCUMENTS, "top_k": 2, "return_input": true}),
            json!({"object": "list", "model": "m", "data": top(2).of(&["score"], input), "usage": usage, "top_k": 2,
                   "return_input": true}),
        ),
        (
            "DashScope",
            "/v1/reranks",
            ask(&json!({"top_n": 1, "return_documents": true})),
            common(top(1).of(&r, object)),
        ),
        (
            "vLLM, /score",
            "/score",
            json!({"model": "m", "text_1": QUERY, "text_2": DOCUMENTS}),
            json!({"id": "*", "object": "list", "created": "*", "model": "m", "usage": usage,
                   "data": (0..3).map(|at| json!({"index": at, "object": "score", "score": scores[at]})).collect::<Vec<_>>()}),
        ),
        (
            "NIM",
            "/v1/ranking",
            json!({"model": "m", "query": {"text": QUERY}, "passages": objects, "truncate": "END"}),
            json!({"rankings": raw.of(&["logit"], plain), "usage": usage}),
        ),
    ]
}

#[test]
fn every_client_of_rerankers_reads_its_own_answer_with_scores_from_0_to_1() {
    let gateway = builder().start_ready();
    let (logits, tokens) = logits(&gateway, QUERY, &DOCUMENTS);
    assert!(logits.iter().any(|score| !(0.0..=1.0).contains(score)), "llama-server gives logits: {logits:?}");
    let scores: Vec<f64> = logits.iter().map(|logit| sigmoid(*logit)).collect();
    for (client, path, body, expected) in rows(&scores, &logits, tokens) {
        let answer = gateway.client().post_json(path, &body);
        assert_eq!(answer.status(), 200, "{client}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"), "{client}");
        assert_eq!(answer.header("x-llamagate-model"), Some("tiny-rerank"), "{client}");
        assert_like(&answer.json(), &expected, client);
    }
    let pinecone = gateway.client().header("X-Pinecone-Api-Version", "2025-04");
    let objects: Vec<Value> = DOCUMENTS.iter().map(|text| json!({"text": text})).collect();
    let body = json!({"model": "m", "query": QUERY, "documents": objects, "top_n": 1, "return_documents": true});
    let answer = pinecone.post_json("/rerank", &body).json();
    let best = order(&scores)[0];
    assert_eq!(
        (&answer["data"][0]["index"], &answer["data"][0]["document"]),
        (&json!(best), &objects[best]),
        "{answer}"
    );
}

#[test]
fn scores_are_what_the_model_says_they_are() {
    for (setting, is_raw) in [("auto", false), ("sigmoid", false), ("raw", true)] {
        let config = format!("models: {{r: {{file: tiny-rerank.gguf, preload: true, scores: {setting}}}}}");
        let gateway = Gateway::builder().reals(&config).start_ready();
        let (logits, _) = logits(&gateway, QUERY, &DOCUMENTS);
        let expected: Vec<f64> = logits.iter().map(|logit| if is_raw { *logit } else { sigmoid(*logit) }).collect();
        let body = json!({"query": QUERY, "documents": DOCUMENTS});
        let answer = gateway.client().post_json("/v1/rerank", &body).json();
        let expected = Entries { scores: &expected, top: 3 }.of(&["relevance_score"], |_| json!({}));
        assert_like(&answer["results"], &expected, setting);
    }
}

/// Where an error is read by clients, and its words.
#[track_caller]
fn words(answer: &Response, is_tei: bool) -> String {
    let body = answer.json();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text: {body}")).to_owned();
    if is_tei {
        text(&body["error_type"]);
        return text(&body["error"]);
    }
    let words = text(&body["error"]["message"]);
    assert_eq!((text(&body["message"]), text(&body["detail"])), (words.clone(), words.clone()), "{body}");
    words
}

#[test]
fn an_error_is_read_by_the_client_whose_request_it_answers() {
    let config = "models: {r: {file: tiny-rerank.gguf, preload: true}, c: {file: tiny-chat.gguf}}";
    let gateway = Gateway::builder().reals(config).set("MAX_RERANK_DOCUMENTS", 3).start_ready();
    let ask = |members: Value| with(json!({"model": "r", "query": "q", "documents": ["a", "b"]}), &members);
    let tei = |members: Value| with(json!({"query": "q", "texts": ["a", "b"]}), &members);
    let four = ["a", "b", "c", "d"];
    let one = json!({"documents": ["a"]});
    for (path, body, param, expected) in [
        ("/v1/rerank", ask(json!({"documents": []})), "documents", "documents must not be empty"),
        ("/v2/rerank", ask(json!({"documents": null})), "documents", "documents is missing"),
        (
            "/v1/rerank",
            ask(json!({"documents": four})),
            "documents",
            "has 4 entries, more than the 3 of MAX_RERANK_DOCUMENTS",
        ),
        ("/score", json!({"text_1": "q", "text_2": four}), "text_2", "more than the 3 of MAX_RERANK_DOCUMENTS"),
        ("/rerank", ask(json!({"documents": ["a", 7]})), "documents[1]", "documents[1] must be a string"),
        ("/v1/rerank", ask(json!({"query": 7})), "query", "query must be a string"),
        ("/v1/rerank", ask(json!({"top_n": 0})), "top_n", "top_n must be a whole number of at least 1"),
        ("/v1/score", json!({"text_1": ["a", "b"], "text_2": ["c"]}), "text_1", "text_1 has 2 entries"),
        ("/v1/rerank", with(ask(json!({"priority": 3})), &one), "priority", "is not served here"),
        ("/v1/ranking", json!({"query": "q"}), "passages", "passages is missing"),
    ] {
        let answer = gateway.client().post_json(path, &body);
        assert_eq!(answer.status(), 400, "{path} {body}: {}", answer.text());
        let error = answer.json()["error"].clone();
        assert!(words(&answer, false).contains(expected), "{path} {body}: {}", answer.text());
        assert_eq!((&error["code"], &error["param"]), (&json!("invalid_parameter"), &json!(param)), "{error}");
    }
    for (body, expected) in [
        (tei(json!({"texts": []})), "texts must not be empty"),
        (tei(json!({"documents": ["a"]})), "must not both be sent"),
        (tei(json!({"texts": four})), "more than the 3 of MAX_RERANK_DOCUMENTS"),
        (tei(json!({"truncation_direction": "up"})), "must be \"left\" or \"right\""),
        (tei(json!({"model": "c"})), "is for chat"),
    ] {
        let answer = gateway.client().post_json("/rerank", &body);
        assert_eq!(answer.status(), 400, "{body}: {}", answer.text());
        assert!(words(&answer, true).contains(expected), "{body}: {}", answer.text());
        assert_eq!(answer.json()["error_type"], "Validation");
    }
    // Regression: Voyage's client for Python failed with an AttributeError at an `error` beside `detail`.
    for members in [json!({"truncation": true, "documents": []}), json!({"top_k": 1, "top_n": 2})] {
        let answer = gateway.client().post_json("/v1/rerank", &ask(members));
        assert_eq!(answer.status(), 400, "{}", answer.text());
        let body = answer.json();
        assert!(body["detail"].is_string() && body.as_object().unwrap().len() == 1, "{}", answer.text());
    }
    let not_json = gateway.client().send("POST", "/v1/rerank", b"{\"query\": ");
    assert_eq!((not_json.status(), words(&not_json, false).contains("no JSON object")), (400, true));
    for path in ["/v1/rerank", "/v2/rerank", "/score"] {
        let chat =
            gateway.client().post_json(path, &with(ask(json!({"model": "c"})), &json!({"text_1": "a", "text_2": "b"})));
        assert_eq!((chat.status(), chat.json()["error"]["code"].clone()), (400, json!("wrong_model_kind")), "{path}");
        let keyless = gateway.anonymous().post_json(path, &ask(json!({})));
        assert_eq!((keyless.status(), words(&keyless, false).contains("API key")), (401, true), "{path}");
    }
}

/// Returns the tokens of a text, without those around it.
fn tokens(gateway: &Gateway, text: &str) -> Vec<u64> {
    let body = json!({"content": text, "add_special": false});
    let answer = gateway.client().post_json("/tokenize", &body).json();
    answer["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect()
}

fn text_of(gateway: &Gateway, tokens: &[u64]) -> String {
    gateway.client().post_json("/detokenize", &json!({"tokens": tokens})).json()["content"].as_str().unwrap().to_owned()
}

/// Regression: one document that was too long made 500 of the whole request, which libraries sent again.
#[test]
fn a_document_that_is_too_long_is_named_or_cut_where_the_request_says_so() {
    const CONTEXT: usize = 256;
    let gateway = builder().set("CTX", CONTEXT).start_ready();
    let client = gateway.client();
    let long = "the small bird sings on the road while rain falls and ".repeat(40);
    let ask = |members: Value| with(json!({"query": QUERY, "documents": ["short", long]}), &members);
    let tei = |members: Value| with(json!({"query": QUERY, "texts": ["short", long]}), &members);
    for (path, body, name) in [
        ("/v1/rerank", ask(json!({})), "documents[1]"),
        ("/v2/rerank", ask(json!({})), "documents[1]"),
        ("/rerank", tei(json!({})), "texts[1]"),
        ("/score", json!({"text_1": QUERY, "text_2": ["short", long]}), "text_2[1]"),
    ] {
        let answer = client.post_json(path, &body);
        assert_eq!(answer.status(), 400, "{path}: {}", answer.text());
        let words = words(&answer, body["texts"].is_array());
        assert!(words.starts_with(&format!("{name} has ")) && words.contains("tokens"), "{path}: {words}");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    let detail = |body: &Value| {
        let answer = client.post_json("/v1/rerank", body);
        assert_eq!(answer.status(), 400, "{}", answer.text());
        answer.json()["detail"].as_str().unwrap().to_owned()
    };
    assert!(detail(&ask(json!({"truncation": false}))).starts_with("documents[1] has "));
    assert!(detail(&json!({"query": long, "documents": ["a"], "truncation": true})).starts_with("query has "));

    let all = tokens(&gateway, &long);
    assert!(all.len() > CONTEXT);
    // What is left of the context beside the query and four tokens around the two.
    let room = CONTEXT - 4 - tokens(&gateway, QUERY).len();
    let score = |text: &str| logits(&gateway, QUERY, &[text]).0[0];
    let start = |count: usize| score(&text_of(&gateway, &all[..count]));
    let end = |count: usize| score(&text_of(&gateway, &all[all.len() - count..]));
    for (path, body, expected) in [
        ("/v1/rerank", ask(json!({"truncation": true})), start(room)),
        ("/v2/rerank", ask(json!({"max_tokens_per_doc": 7})), start(7)),
        ("/v1/rerank", ask(json!({"truncate_prompt_tokens": -1})), start(room)),
        ("/v1/rerank", ask(json!({"truncate_prompt_tokens": 100})), start(100 - (CONTEXT - room))),
        ("/v1/rerank", ask(json!({"truncate": "START"})), end(room)),
        ("/rerank", tei(json!({"truncate": true})), start(room)),
        ("/rerank", tei(json!({"truncate": true, "truncation_direction": "Left"})), end(room)),
    ] {
        let body = with(body, &json!({"raw_scores": true}));
        let answer = client.post_json(path, &body);
        assert_eq!(answer.status(), 200, "{path} {}", answer.text());
        let answer = answer.json();
        let list = ["results", "data"].into_iter().find_map(|name| answer[name].as_array()).or(answer.as_array());
        let entry = list.unwrap().iter().find(|entry| entry["index"] == 1).unwrap();
        let found = entry["relevance_score"].as_f64().or(entry["score"].as_f64()).unwrap();
        assert!((found - expected).abs() < TOLERANCE, "{path} {}: {found} is not {expected}", body["truncate"]);
    }
}

#[test]
fn empty_and_equal_documents_are_scored_like_others() {
    let gateway = builder().start_ready();
    let body = json!({"query": QUERY, "documents": ["same", "", "same", " ", "größer 🌍"], "top_n": 9});
    let answer = gateway.client().post_json("/v1/rerank", &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 5, "{answer}");
    let place = |index: u64| results.iter().position(|entry| entry["index"] == index).unwrap();
    let score = |index: u64| results[place(index)]["relevance_score"].as_f64().unwrap();
    assert!((score(0) - score(2)).abs() < TOLERANCE, "{answer}");
    assert!(results.iter().all(|entry| (0.0..=1.0).contains(&entry["relevance_score"].as_f64().unwrap())), "{answer}");
    assert!(
        results.windows(2).all(|pair| {
            pair[0]["relevance_score"].as_f64().unwrap() >= pair[1]["relevance_score"].as_f64().unwrap()
        })
    );
    let no_query = gateway.client().post_json("/v1/rerank", &json!({"query": "", "documents": ["a"]}));
    assert_eq!(no_query.status(), 200, "{}", no_query.text());
}

#[test]
fn pairs_have_the_scores_that_their_queries_give_them_one_by_one() {
    let gateway = builder().set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let queries = [QUERY, "wet weather", QUERY, "a song"];
    let documents = [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[2], DOCUMENTS[0]];
    let expected: Vec<f64> =
        queries.iter().zip(documents).map(|(q, d)| sigmoid(logits(&gateway, q, &[d]).0[0])).collect();
    let tokens: u64 = queries.iter().zip(documents).map(|(q, d)| logits(&gateway, q, &[d]).1).sum();
    for path in ["/score", "/v1/score"] {
        let answer = gateway.client().post_json(path, &json!({"text_1": queries, "text_2": documents})).json();
        let entries: Vec<Value> = expected
            .iter()
            .enumerate()
            .map(|(at, score)| json!({"index": at, "object": "score", "score": score}))
            .collect();
        assert_like(&answer["data"], &json!(entries), path);
        assert_eq!(answer["usage"]["prompt_tokens"], tokens, "{answer}");
    }
}

/// A model of each kind, under the names of the page.
const FLEET: &str = "models: {rank: {file: tiny-rerank.gguf, preload: true}, embed: {file: tiny-embedding.gguf}, \
                     words: {file: tiny-qwen3-reranker.gguf}}\ndefault_models: {rerank: rank}";

#[test]
fn every_command_of_the_page_about_reranking_is_answered() {
    let gateway = Gateway::builder().reals(FLEET).start_ready();
    for CommandOutput { command, text } in run_page("RERANK.md", &gateway, 12) {
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{command}: {text}: {e}"));
        let scores = ["results", "data", "rankings"].into_iter().find_map(|name| answer[name].as_array());
        let is_other = answer["model_id"].is_string() || answer[0][0]["id"].is_u64();
        assert!(is_other || scores.or(answer.as_array()).is_some_and(|list| !list.is_empty()), "{command}: {answer}");
    }
}
