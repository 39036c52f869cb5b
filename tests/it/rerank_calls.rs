//! The calls to workers that are made for one request of a reranker's client: how many at a time, what they cost, and what
//! becomes of the request when one of them fails.

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::Response,
    gateway::{ADMIN, Backend, Builder, Gateway, LIMITED, USER},
    model_file::Kind,
    remote::{Remote, Reply},
    wait::{READY, SOON, eventually},
};

const RERANK: &str = "/v1/rerank";

fn scripted(script: Value) -> Builder {
    Gateway::builder().backend(Backend::Fake { script, kind: Kind::Rerank })
}

fn documents() -> Value {
    json!({"query": "red", "documents": ["a red fox", "a blue sea"]})
}

/// A request with a query for each document, so that each needs a call.
fn pairs(count: usize) -> Value {
    let texts = |word: &str| (0..count).map(|at| format!("{word} {at}")).collect::<Vec<_>>();
    json!({"text_1": texts("query"), "text_2": texts("document")})
}

/// Returns the status of an error, its code, and that every client of rerankers finds its words.
#[track_caller]
fn error(answer: &Response) -> (u16, String) {
    let body = answer.json();
    assert!(body["message"].is_string() && body["message"] == body["detail"], "{body}");
    assert_eq!(body["error"]["message"], body["message"]);
    (answer.status(), body["error"]["code"].as_str().unwrap().to_owned())
}

#[test]
fn the_calls_of_a_request_use_the_slots_of_the_model_and_no_more() {
    let gateway = scripted(json!({"hold_requests": [RERANK]})).set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let mut request = gateway.client().begin("POST", "/score", pairs(5).to_string().as_bytes()).unwrap();
    let journal = gateway.journal();
    for arrived in 2..=5 {
        journal.wait_for_requests(RERANK, arrived);
        let queue = gateway.anonymous().get("/health").json()["queue"].clone();
        assert_eq!((journal.requests(RERANK).len(), &queue["waiting"]), (arrived, &json!(0)), "{queue}");
        gateway.control().release_requests(if arrived < 5 { 1 } else { 2 });
    }
    let answer = request.read_response().unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let data = answer.json()["data"].clone();
    let indices: Vec<u64> = data.as_array().unwrap().iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
}

/// Regression: a request with many calls filled the queue by itself, and was refused for that each time.
#[test]
fn a_request_with_more_calls_than_the_queue_has_places_is_served() {
    let gateway = scripted(json!({})).set_all(&[("MAX_QUEUE_SIZE", "1"), ("PARALLEL", "8")]).start_ready();
    for _ in 0..3 {
        let answer = gateway.client().post_json("/score", &pairs(20));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}

#[test]
fn a_request_with_many_calls_counts_once_and_its_tokens_are_the_sum() {
    let keys = format!("single:{USER}:100 max_concurrent=1\nadmin:{ADMIN}:100 scope=admin\n");
    let gateway = scripted(json!({})).keys(&keys).set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let answer = gateway.client().header("X-Request-Id", "many").post_json("/score", &pairs(4));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("99"));
    assert_eq!(gateway.journal().requests(RERANK).len(), 4);
    // The fake counts words: two of each query, two of each document.
    assert_eq!(answer.json()["usage"], json!({"prompt_tokens": 16, "total_tokens": 16}));
    let line = access_log_line(&gateway, "many");
    let found =
        ["key", "model", "status", "code", "prompt_tokens", "completion_tokens"].map(|name| line[name].as_str());
    assert_eq!(found, ["single", "dummy", "200", "-", "16", "-"]);
    let metrics = gateway.anonymous().get("/metrics?format=prometheus").text();
    let has = |wanted: &str| metrics.lines().any(|line| line.contains("dummy") && line.contains(wanted));
    assert!(metrics.lines().any(|line| line.contains("prompt_tokens") && line.ends_with(" 16")), "{metrics}");
    assert!(has("route=\"/score\""), "{metrics}");
    assert!(!has("route=\"/v1/rerank\""), "a call is no request of a client: {metrics}");
}

/// Regression: the call that counts tokens, which costs nothing, was taken for the one that is charged.
#[test]
fn a_request_whose_documents_are_counted_first_was_not_charged() {
    let gateway = scripted(json!({})).set("CTX", 64).start_ready();
    let body = json!({"query": "red", "documents": ["a red fox ".repeat(9)]});
    let ask = || gateway.client_with(LIMITED).post_json(RERANK, &body);
    for remaining in ["1", "0"] {
        let answer = ask();
        let left = answer.header("x-ratelimit-remaining-requests");
        assert_eq!((answer.status(), left), (200, Some(remaining)), "{}", answer.text());
    }
    assert!(!gateway.journal().requests("/tokenize").is_empty());
    assert_eq!(error(&ask()), (429, "rate_limit_exceeded".to_owned()));
    assert_eq!(gateway.journal().requests(RERANK).len(), 2);
}

#[test]
fn tokens_of_calls_are_taken_from_the_budget_of_the_key() {
    let keys = format!("thrifty:{USER}:100000 tokens_per_minute=20\n");
    let gateway = scripted(json!({})).keys(&keys).start_ready();
    let ask = || gateway.client().post_json("/score", &pairs(4)).status();
    assert_eq!(ask(), 200);
    assert_eq!(ask(), 200, "four tokens were left");
    eventually("the tokens are charged", SOON, || ask() == 429);
}

#[test]
fn a_client_that_leaves_takes_its_calls_with_it() {
    let gateway = scripted(json!({"hold_requests": [RERANK]})).set("MAX_CONCURRENT_REQUESTS", 2).start_ready();
    let client = gateway.client().header("X-Request-Id", "gone");
    let request = client.begin("POST", "/score", pairs(5).to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(RERANK, 2);
    drop(request);
    let line = access_log_line(&gateway, "gone");
    assert_eq!((&*line["status"], &*line["code"], &*line["prompt_tokens"]), ("499", "client_closed", "-"));
    eventually("both calls are cancelled", READY, || gateway.journal().events("disconnect").len() == 2);
    let queue = || gateway.anonymous().get("/health").json()["queue"].clone();
    eventually("nothing is in flight", SOON, || queue()["active"] == 0 && queue()["waiting"] == 0);
    assert_eq!(gateway.journal().requests(RERANK).len(), 2, "no other call was made");
}

#[test]
fn a_request_during_whose_calls_the_worker_dies_is_told_so_and_blocked_after_two_deaths() {
    let gateway = scripted(json!({"die_on": "poison"})).start_ready();
    let poison = json!({"query": "poison", "documents": ["a", "b"]});
    let restarted = |times: u64| {
        eventually("llama-server is restarted", READY, || {
            let model = gateway.health().get("/health").json()["models"][0].clone();
            model["restarts"] == times && model["state"] == "ready"
        });
    };
    for times in 1..=2 {
        let answer = gateway.client().post_json("/v2/rerank", &poison);
        assert_eq!(error(&answer), (502, "backend_error".to_owned()));
        assert_eq!(answer.header("x-llamagate-model"), Some("dummy"));
        restarted(times);
    }
    assert_eq!(error(&gateway.client().post_json("/v2/rerank", &poison)), (502, "request_kills_backend".to_owned()));
    assert_eq!(gateway.client().post_json(RERANK, &documents()).status(), 200, "others are served");
    let tei = gateway.client().post_json("/rerank", &json!({"query": "poison", "texts": ["a"]}));
    assert_eq!((tei.status(), &tei.json()["error_type"]), (502, &json!("Backend")), "{}", tei.text());
}

#[test]
fn a_reload_and_an_unload_let_the_calls_end() {
    let before = "models: {r: {file: r.gguf, preload: true, parallel: 2}, o: {file: o.gguf}}";
    let files = [("r.gguf", json!({"hold_requests": [RERANK]})), ("o.gguf", json!({}))];
    let models = files.iter().map(|(name, script)| ((*name).to_owned(), script.clone(), Kind::Rerank)).collect();
    let gateway = Gateway::builder().backend(Backend::Fakes { config: before.into(), models }).start_ready();
    let admin = gateway.client_with(ADMIN);
    let body = with_model(pairs(2), "r");
    let begin = || gateway.client().begin("POST", "/score", body.to_string().as_bytes()).unwrap();
    let model = gateway.model_file("r.gguf");

    let mut unloaded = begin();
    model.journal().wait_for_requests(RERANK, 2);
    assert_eq!(admin.post_json("/v1/models/r/unload", &json!({})).status(), 202);
    model.control().release_all_requests();
    let answer = unloaded.read_response().unwrap();
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("r")), "{}", answer.text());

    let mut removed = begin();
    model.journal().wait_for_requests(RERANK, 4);
    gateway.rewrite_config("models: {o: {file: o.gguf}}");
    assert_eq!(admin.send("POST", "/reload", b"").status(), 200);
    model.control().release_all_requests();
    let answer = removed.read_response().unwrap();
    assert_eq!((answer.status(), answer.header("x-llamagate-model")), (200, Some("r")), "{}", answer.text());
}

fn with_model(mut body: Value, model: &str) -> Value {
    body["model"] = json!(model);
    body
}

/// A gateway in front of a remote reranker that gives this reply.
fn in_front_of(remote: &Remote) -> Gateway {
    let config = format!(
        "model_list: [{{model_name: m-rerank, litellm_params: {{api_base: '{}'}}, model_info: {{mode: rerank}}}}]",
        remote.url()
    );
    Gateway::builder().fakes(&config, &[]).set("NUM_RETRIES", 0).start_ready()
}

#[test]
fn an_error_of_a_remote_reranker_keeps_the_status_and_the_words_that_clients_act_on() {
    let remote = Remote::start(Reply::Serve);
    let gateway = in_front_of(&remote);
    for (theirs, body, status, code, words) in [
        (400, json!({"message": "no such thing"}), 400, "bad_request", "no such thing"),
        (
            404,
            json!({"error": {"message": "model x not found", "type": "t"}}),
            404,
            "model_not_found",
            "model x not found",
        ),
        (
            413,
            json!({"error": "texts too long", "error_type": "Validation"}),
            413,
            "payload_too_large",
            "texts too long",
        ),
        (
            422,
            json!({"detail": [{"loc": ["body"], "msg": "Field required"}]}),
            422,
            "unprocessable_request",
            "Field required",
        ),
        (403, json!({"detail": "not for you"}), 400, "bad_request", "not for you"),
        (424, json!({"error": "inference failed", "error_type": "Backend"}), 502, "backend_error", "inference failed"),
        (500, json!({"error": {"message": "it broke"}}), 502, "backend_error", "it broke"),
        (
            200,
            json!({"results": [{"index": 0, "relevance_score": 1.0}]}),
            502,
            "backend_error",
            "no score for document 1",
        ),
        (200, json!({"answer": 42}), 502, "backend_error", "neither results nor data"),
    ] {
        remote.set_reply(Reply::Status(theirs, body.clone()));
        let answer = gateway.client().post_json("/v2/rerank", &documents());
        assert_eq!(error(&answer), (status, code.to_owned()), "{theirs} {body}: {}", answer.text());
        assert!(answer.json()["message"].as_str().unwrap().contains(words), "{}", answer.text());
        let tei = gateway.client().post_json("/rerank", &json!({"query": "q", "texts": ["a", "b"]}));
        let kind = if status < 500 { "Validation" } else { "Backend" };
        assert_eq!((tei.status(), &tei.json()["error_type"]), (status, &json!(kind)), "{}", tei.text());
        assert!(tei.json()["error"].as_str().unwrap().contains(words), "{}", tei.text());
    }
}

#[test]
fn a_busy_remote_reranker_is_said_to_be_busy() {
    let remote = Remote::start(Reply::Busy(429, "7"));
    let gateway = in_front_of(&remote);
    let answer = gateway.client().post_json(RERANK, &documents());
    assert_eq!(error(&answer), (503, "backend_unavailable".to_owned()));
}

#[test]
fn the_scores_of_remote_rerankers_are_put_on_one_scale() {
    let remote = Remote::start(Reply::Serve);
    let gateway = in_front_of(&remote);
    let scores = |theirs: [f64; 2]| {
        let entry = |at: usize| json!({"index": at, "relevance_score": theirs[at]});
        remote.set_reply(Reply::Status(200, json!({"results": [entry(1), entry(0)], "usage": {"total_tokens": 5}})));
        let answer = gateway.client().post_json(RERANK, &documents()).json();
        let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        let score =
            |index: u64| results.iter().find(|entry| entry["index"] == index).unwrap()["relevance_score"].clone();
        [score(0), score(1)].map(|score| score.as_f64().unwrap())
    };
    let is_near =
        |found: [f64; 2], wanted: [f64; 2]| found.iter().zip(wanted).all(|(one, two)| (one - two).abs() < 1e-6);
    assert!(is_near(scores([0.25, 1.0]), [0.25, 1.0]), "probabilities stay");
    assert!(is_near(scores([0.0, -2.0]), [0.5, 0.119_202_922]), "logits become probabilities");
    assert!(is_near(scores([800.0, -800.0]), [1.0, 0.0]));
}
