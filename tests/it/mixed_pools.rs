//! Models whose workers speak different APIs: a llama-server here, and another server beside it. Whichever answers, clients
//! read the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::remote_dialects::{DOCUMENTS, TEXTS, entries, is_near, last, numbers, ok, with_model};
use super::support::{
    client::{Client, RawClient},
    gateway::{ADMIN, Backend, Builder, Gateway},
    model_file::Kind,
    remote::{Remote, Reply},
    vendors::{self, score},
    wait::{READY, eventually},
};

/// The members of an answer, at all depths of it.
fn shape(answer: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, at: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| walk(value, &format!("{at}/{name}"), found))
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{at}[]"), found)),
            _ => _ = found.insert(at.to_owned()),
        }
    }
    let mut found = BTreeSet::new();
    walk(answer, "", &mut found);
    found
}

/// A pool of our own llama-server and a text-embeddings-inference, which comes first.
struct Pool {
    tei: Remote,
    gateway: Gateway,
}

impl Pool {
    fn start(more: &str) -> Self {
        let tei = vendors::start("tei");
        let url = tei.url();
        let config = format!(
            "models:\n  rank: {{file: tiny-rerank.gguf, ctx: 256, preload: true}}\n\
             \x20 embed: {{file: tiny-embedding.gguf, ctx: 256, preload: true}}\n\
             model_list:\n- {{model_name: rank, api: tei, litellm_params: {{api_base: '{url}'}}}}\n\
             - {{model_name: embed, api: tei, litellm_params: {{api_base: '{url}'}}}}\n{more}"
        );
        let gateway = Gateway::builder().reals(&config).start();
        gateway.wait_ready();
        let states = || gateway.anonymous().get("/health").json()["models"].to_string();
        eventually("both models are loaded", READY, || !states().contains("loading") && !states().contains("starting"));
        Self { tei, gateway }
    }

    /// Returns the answers of both workers to the same request: of the backend, and of llama-server after it has failed.
    #[track_caller]
    fn both(&self, client: &Client, path: &str, body: &Value) -> [Value; 2] {
        self.tei.set_reply(Reply::Answer(vendors::find("tei").answer));
        let theirs = client.post_json(path, body);
        assert_eq!(theirs.header("x-llamagate-worker"), Some("1"), "{path}: {}", theirs.text());
        self.tei.set_reply(Reply::Status(500, json!({"error": "boom", "error_type": "Backend"})));
        let ours = client.post_json(path, body);
        assert_eq!(ours.header("x-llamagate-worker"), Some("0"), "{path}: {}", ours.text());
        assert_eq!(ours.header("x-llamagate-attempts"), Some("2"), "{path}");
        [ok(&theirs, path), ok(&ours, path)]
    }
}

#[test]
fn a_pool_of_llama_server_and_another_backend_answers_alike_whichever_it_is() {
    let pool = Pool::start("router_settings: {allowed_fails: 1000}\n");
    let client = pool.gateway.client();
    let documents = json!(DOCUMENTS);
    for (path, body, list) in [
        ("/v1/rerank", json!({"query": "q", "documents": documents, "return_documents": true}), "/results"),
        ("/v2/rerank", json!({"query": "q", "documents": documents, "top_n": 2}), "/results"),
        ("/rerank", json!({"query": "q", "texts": documents, "return_text": true}), ""),
        ("/v1/rerank", json!({"query": "q", "documents": documents, "top_k": 2}), "/data"),
        ("/score", json!({"text_1": "q", "text_2": documents}), "/data"),
    ] {
        let [theirs, ours] = pool.both(&client, path, &with_model(body, "rank"));
        assert_eq!(shape(&theirs), shape(&ours), "{path}");
        for answer in [&theirs, &ours] {
            let found = entries(answer.pointer(list).unwrap());
            assert!(found.iter().all(|(_, score)| (0.0..=1.0).contains(score)), "{path}: {answer}");
        }
    }
    for (path, body, list) in [
        ("/v1/embeddings", json!({"input": TEXTS}), "/data/0/embedding"),
        ("/v1/embeddings", json!({"input": TEXTS, "encoding_format": "base64", "dimensions": 16}), "/data/1/embedding"),
        ("/v2/embed", json!({"texts": TEXTS, "input_type": "search_query"}), "/embeddings/float/0"),
        ("/embed", json!({"inputs": TEXTS}), "/1"),
        ("/api/embed", json!({"input": TEXTS}), "/embeddings/0"),
    ] {
        let both = pool.both(&client, path, &with_model(body, "embed"));
        assert_eq!(shape(&both[0]), shape(&both[1]), "{path}");
        let vectors = both.map(|answer| numbers(answer.pointer(list).unwrap()));
        let lengths = vectors.each_ref().map(|vector| vector.iter().map(|number| number * number).sum::<f64>());
        assert!(vectors[0].len() == vectors[1].len() && is_near(&lengths, &[1.0, 1.0]), "{path}: {lengths:?}");
    }
}

#[test]
fn a_document_that_is_too_long_is_cut_by_the_tokenizer_of_whichever_worker_is_asked() {
    let pool = Pool::start("");
    let long: Vec<String> = (0..1000).map(|at| format!("w{at}")).collect();
    let body = json!({"model": "rank", "query": "w1", "texts": [long.join(" "), "w2"], "truncate": true});
    let answer = ok(&pool.gateway.client().post_json("/rerank", &body), "rerank");
    assert_eq!(answer.as_array().unwrap().len(), 2);
    let sent = last(&pool.tei).body.parse::<Value>().unwrap();
    let words: Vec<&str> = sent["texts"][0].as_str().unwrap().split(' ').collect();
    assert!((200..256).contains(&words.len()) && words[3] == "w3", "{} words: {sent}", words.len());
    let paths: Vec<String> = pool.tei.received().into_iter().map(|request| request.path).collect();
    assert!(
        ["/tokenize", "/decode", "/rerank"].iter().all(|path| paths.iter().any(|asked| asked == path)),
        "{paths:?}"
    );
}

#[test]
fn a_worker_that_cannot_express_a_request_is_passed_over_for_one_that_can() {
    let cohere = vendors::start("cohere");
    let config = format!(
        "models: {{rank: {{file: tiny-rerank.gguf, ctx: 256}}}}\n\
         model_list: [{{model_name: rank, litellm_params: {{model: cohere/m, api_base: '{}'}}}}]\n",
        cohere.url()
    );
    let gateway = Gateway::builder().reals(&config).set("NUM_RETRIES", 0).start();
    gateway.wait_ready();
    let client = gateway.client();
    let ask = |is_raw: bool| {
        client.post_json(
            "/v1/rerank",
            &json!({"model": "rank", "query": "q", "documents": DOCUMENTS, "raw_scores": is_raw}),
        )
    };
    assert!(gateway.child_pids().is_empty(), "llama-server sleeps");
    let raw = ask(true);
    assert_eq!((raw.header("x-llamagate-worker"), raw.header("x-llamagate-attempts")), (Some("0"), Some("1")));
    assert!(entries(&ok(&raw, "raw")["results"]).iter().any(|(_, score)| !(0.0..=1.0).contains(score)));
    let plain = ask(false);
    assert_eq!(plain.header("x-llamagate-worker"), Some("1"));
    assert_eq!(entries(&ok(&plain, "plain")["results"])[0], (2, score(DOCUMENTS[2])));
}

/// Returns a gateway whose model `m` has a fake llama-server with one slot and this script, and a Cohere, which gives no
/// logits and has no tokenizer.
fn beside_cohere(cohere: &Remote, kind: Kind, script: Value, more: &str) -> Builder {
    let config = format!(
        "models: {{m: {{file: m.gguf, ctx: 256, parallel: 1, preload: true, restart_limit: 0}}}}\n\
         model_list: [{{model_name: m, litellm_params: {{model: cohere/m, api_base: '{}'{more}}}}}]\n",
        cohere.url()
    );
    let models = vec![("m.gguf".to_owned(), script, kind)];
    Gateway::builder().backend(Backend::Fakes { config, models }).set("NUM_RETRIES", 0)
}

fn question(is_raw: bool) -> Value {
    json!({"model": "m", "query": "q", "documents": DOCUMENTS, "raw_scores": is_raw})
}

#[test]
fn requests_that_one_worker_alone_can_serve_wait_for_its_slot_while_the_other_serves() {
    let cohere = vendors::start("cohere");
    let gateway = beside_cohere(&cohere, Kind::Rerank, json!({"hold_requests": ["/v1/rerank"]}), "").start_ready();
    let journal = gateway.journal();
    journal.wait_for_event("ready");
    let client = gateway.client();
    let begin = || client.begin("POST", "/v1/rerank", question(true).to_string().as_bytes()).unwrap();
    let mut raw: Vec<RawClient> = vec![begin()];
    journal.wait_for_requests("/v1/rerank", 1);
    raw.push(begin());
    let plain = client.post_json("/v1/rerank", &question(false));
    assert_eq!((plain.status(), plain.header("x-llamagate-worker")), (200, Some("1")), "{}", plain.text());
    gateway.control().release_all_requests();
    for client in &mut raw {
        let answer = client.read_response().unwrap();
        assert_eq!((answer.status(), answer.header("x-llamagate-worker")), (200, Some("0")), "{}", answer.text());
    }
    assert_eq!(cohere.received().len(), 1, "only the plain request");
}

/// Regression: requests that a backend never got used up its requests a minute.
#[test]
fn a_request_that_a_backend_cannot_take_costs_nothing_of_its_quota() {
    let cohere = vendors::start("cohere");
    let gateway = beside_cohere(&cohere, Kind::Rerank, json!({}), ", rpm: 1").start_ready();
    gateway.journal().wait_for_event("ready");
    let client = gateway.client();
    let worker = |path: &str, body: &Value| {
        let answer = client.post_json(path, body);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        answer.header("x-llamagate-worker").unwrap().to_owned()
    };
    let counted = "long ".repeat(60);
    for (path, body) in [
        ("/v1/rerank", question(true)),
        ("/tokenize", json!({"model": "m", "content": "a b"})),
        ("/v1/rerank", json!({"model": "m", "query": "q", "documents": [counted], "raw_scores": true})),
    ] {
        assert_eq!(worker(path, &body), "0", "{path}");
    }
    assert_eq!(worker("/v1/rerank", &question(false)), "1", "its quota is whole");
    assert_eq!(worker("/v1/rerank", &question(false)), "0", "its quota is exhausted");
    assert_eq!(cohere.received().len(), 1);
}

/// Regression: a long document made the request 404, although the backend that was up cuts documents itself.
#[test]
fn long_texts_go_uncounted_to_a_backend_if_the_llama_server_that_could_count_them_has_failed() {
    let cohere = vendors::start("cohere");
    let long = "word ".repeat(1000);
    for (kind, path, body, texts) in [
        (Kind::Rerank, "/v1/rerank", json!({"query": "q", "documents": ["a", long]}), "documents"),
        (Kind::Rerank, "/rerank", json!({"query": "q", "texts": ["a", long], "truncate": true}), "documents"),
        (Kind::Embedding, "/v1/embeddings", json!({"input": ["a", long]}), "texts"),
        (Kind::Embedding, "/embed", json!({"inputs": ["a", long], "truncate": true}), "texts"),
    ] {
        let gateway = beside_cohere(&cohere, kind, json!({"exit_at_start": {"code": 1}}), "").start_ready();
        let workers = || gateway.client_with(ADMIN).get("/lb/stats").json()["models"][0]["workers"].clone();
        eventually("llama-server is given up", READY, || workers()[0]["state"] == "failed");
        let answer = gateway.client().post_json(path, &with_model(body, "m"));
        assert_eq!((answer.status(), answer.header("x-llamagate-worker")), (200, Some("1")), "{}", answer.text());
        assert_eq!(last(&cohere).body.parse::<Value>().unwrap()[texts], json!(["a", long]), "{path}");
    }
}
