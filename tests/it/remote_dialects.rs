//! Remote backends that speak another API than OpenAI's: what they are sent, and that every client reads its own dialect,
//! whichever backend has answered.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::support::{
    client::Response,
    gateway::{Gateway, USER},
    remote::{ReceivedRequest, Remote, Reply},
    vendors::{self, Vendor, score, vector},
    wait::{READY, eventually},
};

/// The key of all backends.
const BACKEND_KEY: &str = "sk-of-the-backend";
pub(super) const DOCUMENTS: [&str; 3] = ["bb", "a", "dddd"];
pub(super) const TEXTS: [&str; 2] = ["a small bird", "rain"];

/// A gateway in front of one backend of each vendor, each with a model `NAME-rank` and one `NAME-embed`.
struct Vendors {
    remotes: Vec<(Vendor, Remote)>,
    gateway: Gateway,
}

impl Vendors {
    fn start() -> Self {
        let remotes: Vec<(Vendor, Remote)> =
            vendors::ALL.into_iter().map(|vendor| (vendor, Remote::start(Reply::Answer(vendor.answer)))).collect();
        let mut config = "model_list:\n".to_owned();
        for (Vendor { name, prefix, .. }, remote) in &remotes {
            for (kind, mode) in [("rank", "rerank"), ("embed", "embedding"), ("chat", "chat")] {
                let url = remote.url();
                writeln!(
                    config,
                    "- {{model_name: {name}-{kind}, litellm_params: {{model: {prefix}/org/m, api_base: '{url}', \
                     api_key: {BACKEND_KEY}}}, model_info: {{mode: {mode}}}}}"
                )
                .unwrap();
            }
        }
        let gateway = Gateway::builder().fakes(&config, &[]).set("NUM_RETRIES", 0).start_ready();
        Self { remotes, gateway }
    }

    fn remote(&self, name: &str) -> &Remote {
        self.remotes.iter().find(|(vendor, _)| vendor.name == name).map(|(_, remote)| remote).unwrap()
    }
}

/// Returns the request that a backend got last.
#[track_caller]
pub(super) fn last(remote: &Remote) -> ReceivedRequest {
    remote.received().pop().expect("the backend was asked")
}

#[track_caller]
pub(super) fn ok(answer: &Response, what: &str) -> Value {
    assert_eq!(answer.status(), 200, "{what}: {}", answer.text());
    answer.json()
}

pub(super) fn with_model(mut body: Value, model: &str) -> Value {
    body["model"] = json!(model);
    body
}

/// Returns the indices and the scores of the entries of a list.
pub(super) fn entries(list: &Value) -> Vec<(u64, f64)> {
    let score = |entry: &Value| entry["relevance_score"].as_f64().or(entry["score"].as_f64()).unwrap();
    list.as_array().unwrap().iter().map(|entry| (entry["index"].as_u64().unwrap(), score(entry))).collect()
}

pub(super) fn is_near(found: &[f64], wanted: &[f64]) -> bool {
    found.len() == wanted.len() && found.iter().zip(wanted).all(|(one, other)| (one - other).abs() < 1e-5)
}

/// Returns the numbers of a vector: an array, or base64.
pub(super) fn numbers(vector: &Value) -> Vec<f64> {
    match vector {
        Value::String(text) => {
            let bytes = STANDARD.decode(text).unwrap();
            bytes.chunks(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect()
        }
        list => list.as_array().unwrap_or_else(|| panic!("{list}")).iter().map(|one| one.as_f64().unwrap()).collect(),
    }
}

#[test]
fn a_reranker_of_each_vendor_is_asked_in_its_dialect_and_answers_every_client() {
    let vendors = Vendors::start();
    let client = vendors.gateway.client();
    let documents = json!(DOCUMENTS);
    for (Vendor { name, rerank, .. }, remote) in &vendors.remotes {
        let Some((path, expected)) = rerank else { continue };
        let model = format!("{name}-rank");
        for (client_path, body, list) in [
            ("/v1/rerank", json!({"query": "q", "documents": documents, "top_n": 3}), "/results"),
            ("/v2/rerank", json!({"query": "q", "documents": documents}), "/results"),
            ("/rerank", json!({"query": "q", "texts": documents, "return_text": true}), ""),
            (
                "/v1/rerank",
                json!({"query": "q", "documents": documents, "top_k": 3, "return_documents": true}),
                "/data",
            ),
            ("/rerank", json!({"query": "q", "documents": documents, "raw_scores": false}), "/results"),
            ("/v1/reranking", json!({"query": "q", "input": documents, "return_input": true}), "/data"),
            ("/v1/reranks", json!({"query": "q", "documents": documents}), "/results"),
            ("/score", json!({"text_1": "q", "text_2": documents}), "/data"),
        ] {
            let answer = ok(&client.post_json(client_path, &with_model(body, &model)), name);
            let mut found = entries(answer.pointer(list).unwrap_or_else(|| panic!("{name} {client_path}: {answer}")));
            if client_path != "/score" {
                let order: Vec<u64> = found.iter().map(|(index, _)| *index).collect();
                assert_eq!(order, [2, 0, 1], "{name} {client_path}: the best comes first");
            }
            found.sort_by_key(|(index, _)| *index);
            let scores: Vec<f64> = found.into_iter().map(|(_, score)| score).collect();
            assert!(is_near(&scores, &DOCUMENTS.map(score)), "{name} {client_path}: {scores:?}");
            let sent = last(remote);
            assert_eq!((sent.path.as_str(), sent.body.parse::<Value>().unwrap()), (*path, expected()), "{client_path}");
            assert_eq!(sent.header("authorization"), Some(&*format!("Bearer {BACKEND_KEY}")));
            assert!(!format!("{sent:?}").contains(USER), "{name} got the client's key");
        }
    }
}

#[test]
fn an_embedder_of_each_vendor_is_asked_in_its_dialect_and_answers_every_client() {
    let vendors = Vendors::start();
    let client = vendors.gateway.client();
    let cohere =
        json!({"texts": TEXTS, "input_type": "search_query", "embedding_types": ["float"], "truncate": "NONE"});
    let wanted: Vec<Vec<f64>> = TEXTS.iter().map(|text| vector(text)).collect();
    for (Vendor { name, embed: (path, expected), .. }, remote) in &vendors.remotes {
        let model = format!("{name}-embed");
        for (client_path, body, places) in [
            ("/v1/embeddings", json!({"input": TEXTS}), ["/data/0/embedding", "/data/1/embedding"]),
            (
                "/v1/embeddings",
                json!({"input": TEXTS, "encoding_format": "base64"}),
                ["/data/0/embedding", "/data/1/embedding"],
            ),
            ("/embeddings", json!({"input": TEXTS, "user": "me"}), ["/data/0/embedding", "/data/1/embedding"]),
            ("/v1/embed", json!({"texts": TEXTS, "input_type": "search_document"}), ["/embeddings/0", "/embeddings/1"]),
            ("/embed", json!({"inputs": TEXTS}), ["/0", "/1"]),
            ("/api/embed", json!({"input": TEXTS}), ["/embeddings/0", "/embeddings/1"]),
            ("/v2/embed", cohere.clone(), ["/embeddings/float/0", "/embeddings/float/1"]),
        ] {
            let answer = ok(&client.post_json(client_path, &with_model(body, &model)), &model);
            for (place, wanted) in places.iter().zip(&wanted) {
                let found = answer.pointer(place).unwrap_or_else(|| panic!("{name} {client_path}: {answer}"));
                assert!(is_near(&numbers(found), wanted), "{name} {client_path}: {found}");
            }
        }
        let sent = last(remote);
        assert_eq!((sent.path.as_str(), sent.body.parse::<Value>().unwrap()), (*path, expected()), "{name}");
        assert_eq!(sent.header("authorization"), Some(&*format!("Bearer {BACKEND_KEY}")));
        assert!(!format!("{sent:?}").contains(USER), "{name} got the client's key");

        let cut =
            ok(&client.post_json("/v1/embeddings", &json!({"model": model, "input": TEXTS, "dimensions": 4})), name);
        let length = wanted[0][..4].iter().map(|number| number * number).sum::<f64>().sqrt();
        let expected: Vec<f64> = wanted[0][..4].iter().map(|number| number / length).collect();
        assert!(is_near(&numbers(&cut["data"][0]["embedding"]), &expected), "{name}: {cut}");
    }
}

/// A request that passes untouched at a backend with OpenAI's API means nothing to others.
#[test]
fn a_plain_request_for_embeddings_that_falls_back_to_another_api_is_translated() {
    let (far, tei) = (Remote::start(Reply::Status(500, json!({"error": {"message": "boom"}}))), vendors::start("tei"));
    let config = format!(
        "model_list:\n\
         - {{model_name: far, litellm_params: {{api_base: '{}'}}, model_info: {{mode: embedding}}}}\n\
         - {{model_name: near, api: tei, litellm_params: {{api_base: '{}'}}, model_info: {{mode: embedding}}}}\n\
         router_settings: {{fallbacks: [{{far: [near]}}]}}\n",
        far.url(),
        tei.url()
    );
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let answer = gateway.client().post_json("/v1/embeddings", &json!({"model": "far", "input": TEXTS}));
    assert_eq!(answer.header("x-llamagate-model"), Some("near"));
    let answer = ok(&answer, "far");
    assert!(is_near(&numbers(&answer["data"][1]["embedding"]), &vector(TEXTS[1])), "{answer}");
    assert_eq!(answer["model"], "far");
    assert_eq!(last(&tei).path, "/embed");
}

#[test]
fn a_route_that_an_api_lacks_is_refused_by_name_and_nothing_is_sent() {
    let vendors = Vendors::start();
    let client = vendors.gateway.client();
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    let refused = |path: &str, body: &Value, owner: &str| {
        let answer = client.post_json(path, body);
        assert_eq!(answer.status(), 404, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(&format!("is not in the API of {owner}")), "{}", answer.text());
        answer
    };
    for (name, owner) in
        [("tei", "text-embeddings-inference"), ("cohere", "Cohere"), ("jina", "Jina"), ("voyage", "Voyage")]
    {
        let before = vendors.remote(name).received().len();
        let answer = refused("/v1/chat/completions", &with_model(chat.clone(), &format!("{name}-chat")), owner);
        assert_eq!(answer.json()["error"]["code"], "route_not_found");
        refused("/v1/messages", &with_model(chat.clone(), &format!("{name}-chat")), owner);
        refused("/api/chat", &with_model(chat.clone(), &format!("{name}-chat")), owner);
        refused("/embedding", &json!({"model": format!("{name}-embed"), "content": "a"}), owner);
        if name != "tei" {
            refused("/tokenize", &json!({"model": format!("{name}-rank"), "inputs": "a"}), owner);
        }
        assert_eq!(vendors.remote(name).received().len(), before, "{name} was asked");
    }
    refused("/v1/rerank", &json!({"model": "ollama-rank", "query": "q", "documents": ["a"]}), "Ollama");
    let answer = ok(&client.post_json("/v1/chat/completions", &with_model(chat, "ollama-chat")), "ollama");
    assert_eq!(answer["choices"][0]["message"]["content"], "hello");
    assert_eq!(last(vendors.remote("ollama")).path, "/v1/chat/completions");
}

#[test]
fn what_a_backend_cannot_express_is_refused_by_name() {
    let vendors = Vendors::start();
    let client = vendors.gateway.client();
    let rerank = |more: &str| format!("{{\"query\": \"q\", \"documents\": [\"a\"], {more}}}").parse::<Value>().unwrap();
    let embed = |more: &str| format!("{{\"input\": \"a\", {more}}}").parse::<Value>().unwrap();
    for (path, model, body, field) in [
        ("/v1/rerank", "cohere-rank", rerank("\"raw_scores\": true"), "raw_scores"),
        ("/v1/rerank", "voyage-rank", rerank("\"raw_scores\": true"), "raw_scores"),
        ("/v1/rerank", "jina-rank", rerank("\"use_activation\": false"), "raw_scores"),
        ("/v1/rerank", "tei-rank", rerank("\"max_tokens_per_doc\": 9"), "max_tokens_per_doc"),
        ("/v1/rerank", "voyage-rank", rerank("\"truncate\": \"START\""), "truncate"),
        ("/v1/embeddings", "cohere-embed", embed("\"normalized\": false"), "normalized"),
        ("/v1/embeddings", "vllm-embed", embed("\"normalized\": false"), "normalized"),
        ("/v1/embeddings", "voyage-embed", json!({"input": [[1, 2]]}), "input"),
        ("/v1/embeddings", "jina-embed", embed("\"truncate_prompt_tokens\": 9"), "truncate_prompt_tokens"),
        ("/v1/rerank", "tei-rank", rerank("\"instruction\": \"Find\""), "instruction"),
        ("/v1/rerank", "cohere-rank", rerank("\"instruct\": \"Find\""), "instruction"),
        ("/embed", "ollama-embed", json!({"inputs": "a", "prompt_name": "query"}), "prompt_name"),
    ] {
        let answer = client.post_json(path, &with_model(body, model));
        assert_eq!(answer.status(), 400, "{model} {field}: {}", answer.text());
        assert!(answer.text().contains(field), "{}", answer.text());
    }
    let raw = json!({"model": "tei-rank", "query": "q", "documents": DOCUMENTS, "raw_scores": true});
    let answer = ok(&client.post_json("/rerank", &raw), "raw");
    let logit = |text: &str| (score(text) / (1.0 - score(text))).ln();
    assert!((entries(&answer["results"])[0].1 - logit(DOCUMENTS[2])).abs() < 1e-6, "{answer}");
    // A backend without logits serves clients that read them.
    let ranking = json!({"model": "cohere-rank", "query": {"text": "q"}, "passages": DOCUMENTS.map(|text| json!({"text": text}))});
    let answer = ok(&client.post_json("/v1/ranking", &ranking), "ranking");
    let first = answer["rankings"][0]["logit"].as_f64().unwrap();
    assert!((first - logit(DOCUMENTS[2])).abs() < 1e-6, "{answer}");
    let prompted = json!({"model": "tei-embed", "inputs": "a", "prompt_name": "query", "truncate": true});
    ok(&client.post_json("/embed", &prompted), "prompt");
    let sent = last(vendors.remote("tei")).body.parse::<Value>().unwrap();
    assert_eq!((&sent["prompt_name"], &sent["truncate"]), (&json!("query"), &json!(true)), "{sent}");
}

/// Regression: each query of a request had a scale of its own, so that probabilities and logits stood in one answer.
#[test]
fn scores_of_an_unknown_scale_have_one_scale_in_a_request() {
    let answer = |request: &ReceivedRequest| {
        let asked = request.body.parse::<Value>().unwrap();
        let score = if asked["query"] == "far" { 3.0 } else { 0.0 };
        (200, json!({"results": [{"index": 0, "relevance_score": score}]}))
    };
    let remote = Remote::start(Reply::Answer(answer));
    let config = format!(
        "model_list:\n- {{model_name: rank, litellm_params: {{api_base: '{}'}}, model_info: {{mode: rerank}}}}\n",
        remote.url()
    );
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let pairs = json!({"model": "rank", "text_1": ["near", "far"], "text_2": ["a", "b"]});
    let answer = ok(&gateway.client().post_json("/score", &pairs), "pairs");
    let scores: Vec<f64> = entries(&answer["data"]).into_iter().map(|(_, score)| score).collect();
    assert!(is_near(&scores, &[0.5, 1.0 / (1.0 + (-3.0_f64).exp())]), "{answer}");
}

#[test]
fn a_large_request_is_split_into_the_batches_that_text_embeddings_inference_takes() {
    let vendors = Vendors::start();
    let (client, tei) = (vendors.gateway.client(), vendors.remote("tei"));
    let texts: Vec<String> = (0..70).map(|at| "x".repeat(at % 40 + 1)).collect();
    let sizes = |member: &str, from: usize| {
        let received = tei.received().split_off(from);
        let size = |request: &ReceivedRequest| request.body.parse::<Value>().unwrap()[member].as_array().unwrap().len();
        let mut sizes: Vec<usize> = received.iter().map(size).collect();
        sizes.sort_unstable();
        sizes
    };
    let answer = ok(&client.post_json("/v1/embeddings", &json!({"model": "tei-embed", "input": texts})), "embed");
    assert_eq!(sizes("inputs", 0), [6, 32, 32]);
    for (at, text) in texts.iter().enumerate() {
        assert!(is_near(&numbers(&answer["data"][at]["embedding"]), &vector(text)), "{at}");
    }
    let body = json!({"model": "tei-rank", "query": "q", "documents": texts});
    let answer = ok(&client.post_json("/v1/rerank", &body), "rerank");
    assert_eq!(sizes("texts", 3), [6, 32, 32]);
    let found = entries(&answer["results"]);
    assert!(found.len() == 70 && found.iter().all(|(at, found)| (found - score(&texts[*at as usize])).abs() < 1e-9));
}

#[test]
fn an_error_of_each_vendor_keeps_its_words_and_comes_in_the_shape_of_the_client() {
    let vendors = Vendors::start();
    let client = vendors.gateway.client();
    for (name, theirs, body, status, words) in [
        ("tei", 413, json!({"error": "batch is too large", "error_type": "Validation"}), 413, "batch is too large"),
        ("tei", 422, json!({"error": "`inputs` is empty", "error_type": "Empty"}), 422, "`inputs` is empty"),
        ("tei", 424, json!({"error": "out of luck", "error_type": "Backend"}), 502, "out of luck"),
        ("tei", 429, json!({"error": "Model is overloaded", "error_type": "Overloaded"}), 503, ""),
        ("cohere", 400, json!({"id": "1", "message": "invalid request: too many texts"}), 400, "too many texts"),
        ("cohere", 401, json!({"message": format!("no such token {BACKEND_KEY}")}), 502, ""),
        ("voyage", 400, json!({"detail": "the batch has too many tokens"}), 400, "too many tokens"),
        ("jina", 422, json!({"detail": [{"loc": ["body", "input"], "msg": "Input too long"}]}), 422, "Input too long"),
        ("infinity", 500, json!({"error": {"message": "it broke", "type": null, "code": 500}}), 502, "it broke"),
        ("vllm", 400, json!({"error": {"message": "maximum context length is 512"}}), 400, "maximum context"),
        ("ollama", 404, json!({"error": "model \"m\" not found, try pulling it first"}), 404, "try pulling it first"),
        ("cohere", 404, json!({"message": "model 'm' not found"}), 404, "model 'm' not found"),
        ("ollama", 400, json!({"error": "input length exceeds the context length"}), 400, "exceeds the context"),
    ] {
        vendors.remote(name).set_reply(Reply::Status(theirs, body));
        let model = format!("{name}-embed");
        let cohere =
            client.post_json("/v2/embed", &json!({"model": model, "texts": ["a"], "input_type": "classification"}));
        assert_eq!(cohere.status(), status, "{name} {theirs}: {}", cohere.text());
        assert!(cohere.json()["message"].as_str().unwrap().contains(words), "{}", cohere.text());
        if status == 404 {
            assert_eq!(cohere.json()["error"]["code"], "model_not_found", "{}", cohere.text());
        }
        let tei = client.post_json("/embed", &json!({"model": model, "inputs": "a"}));
        assert_eq!(tei.status(), status, "{name} {theirs}: {}", tei.text());
        assert!(tei.json()["error"].as_str().unwrap().contains(words), "{}", tei.text());
        assert!(!(cohere.text() + &tei.text()).contains(BACKEND_KEY));
    }
    assert!(!vendors.gateway.output().contains(BACKEND_KEY));
}

/// Regression: calls had no length, so the tokens of a backend that does not report any cost nothing.
#[test]
fn the_tokens_of_a_backend_that_reports_none_were_free() {
    let tei = vendors::start("tei");
    let config = format!(
        "model_list: [{{model_name: e, api: tei, litellm_params: {{api_base: '{}'}}, model_info: {{mode: embedding}}}}]",
        tei.url()
    );
    let keys = format!("thrifty:{USER}:100000 tokens_per_minute=100\n");
    let gateway = Gateway::builder().fakes(&config, &[]).keys(&keys).start_ready();
    let ask = || gateway.client().post_json("/v1/embeddings", &json!({"model": "e", "input": "a text ".repeat(40)}));
    assert_eq!(ask().status(), 200);
    eventually("the tokens are charged", READY, || ask().status() == 429);
    assert!(tei.received().len() < 4, "{}", tei.received().len());
}

#[test]
fn the_tokens_that_text_embeddings_inference_names_in_a_header_are_told_to_clients() {
    let headers = "Content-Type: application/json\r\nx-compute-tokens: 7";
    let vectors = json!([vector("a"), vector("b")]).to_string();
    let scores = json!([{"index": 0, "score": 0.5}, {"index": 1, "score": 0.25}]).to_string();
    let vendors = Vendors::start();
    let (client, tei) = (vendors.gateway.client(), vendors.remote("tei"));
    tei.set_reply(Reply::whole(200, headers, vectors));
    let answer = ok(&client.post_json("/v1/embeddings", &json!({"model": "tei-embed", "input": ["a", "b"]})), "embed");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
    tei.set_reply(Reply::whole(200, headers, scores));
    let body = json!({"model": "tei-rank", "query": "q", "documents": ["a", "b"]});
    let answer = ok(&client.post_json("/v1/rerank", &body), "rerank");
    assert_eq!(answer["usage"]["total_tokens"], 7);
}

/// Regression: a vendor without a path for probes was said to have a wrong address.
#[test]
fn an_api_without_a_path_for_probes_is_not_said_to_have_a_wrong_address() {
    let remotes = ["voyage", "jina", "tei"].map(|name| (name, vendors::start(name)));
    let mut config = "model_list:\n".to_owned();
    for (name, remote) in &remotes {
        remote.set_probe_status(404);
        let url = remote.url();
        writeln!(config, "- {{model_name: {name}, api: {name}, litellm_params: {{api_base: '{url}'}}}}").unwrap();
    }
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let warns = |name: &str| {
        let line = |line: &&str| line.contains("api_base may be wrong") && line.contains(&format!("model=\"{name}\""));
        gateway.output().lines().any(|text| line(&text))
    };
    eventually("the missing path of an API that has one is told", READY, || warns("tei"));
    for (name, remote) in &remotes[..2] {
        eventually(&format!("{name} is probed"), READY, || !remote.probed().is_empty());
        assert!(!warns(name), "{}", gateway.output());
    }
}

#[test]
fn each_backend_is_probed_where_its_api_says_whether_it_is_there() {
    let vendors = Vendors::start();
    for (Vendor { name, health, .. }, remote) in &vendors.remotes {
        eventually(&format!("{name} is probed"), READY, || !remote.probed().is_empty());
        assert_eq!(&remote.probed()[0], health, "{name}");
    }
}

#[test]
fn an_entry_and_a_variable_name_the_api_and_other_names_are_refused() {
    let (cohere, tei) = (vendors::start("cohere"), vendors::start("tei"));
    let entry = |api: &str| {
        format!(
            "model_list: [{{model_name: r, api: {api}, litellm_params: {{api_base: '{}'}}, model_info: {{mode: rerank}}}}]",
            cohere.url()
        )
    };
    let gateway = Gateway::builder()
        .fakes(&entry("cohere"), &[])
        .set_all(&[("EMBEDDING_BACKEND", &tei.url()), ("EMBEDDING_BACKEND_API", "tei")])
        .start_ready();
    let client = gateway.client();
    ok(&client.post_json("/v1/rerank", &json!({"model": "r", "query": "q", "documents": ["a"]})), "r");
    assert_eq!(last(&cohere).path, "/v2/rerank");
    ok(&client.post_json("/v1/embeddings", &json!({"model": "embedding", "input": "a"})), "embedding");
    assert_eq!(last(&tei).path, "/embed");

    let names = "openai, vllm, tei, cohere, jina, voyage, infinity, ollama";
    let (status, output) = Gateway::builder().fakes(&entry("anthropic"), &[]).run_to_exit();
    assert!(!status.success() && output.contains(&format!("model_list[0].api: expected {names}")), "{output}");
    let (status, output) = Gateway::builder()
        .fakes(&entry("cohere"), &[])
        .set_all(&[("EMBEDDING_BACKEND", &tei.url()), ("EMBEDDING_BACKEND_API", "voyager")])
        .run_to_exit();
    assert!(!status.success() && output.contains("EMBEDDING_BACKEND_API") && output.contains(names), "{output}");
}

#[test]
fn the_tokenizer_of_a_remote_backend_answers_in_the_api_of_its_client() {
    let vendors = Vendors::start();
    let ask = |model: &str| {
        let body = json!({"model": model, "inputs": "w7 w12"});
        ok(&vendors.gateway.client().post_json("/tokenize", &body), model)
    };
    let token = |id: u64, start: u64| json!({"id": id, "text": format!("w{id}"), "special": false, "start": start, "stop": start + format!("w{id}").len() as u64});
    for name in ["tei-rank", "vllm-rank"] {
        assert_eq!(ask(name), json!([[token(7, 0), token(12, 3)]]), "{name}");
    }
}
