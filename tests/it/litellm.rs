//! Configuration files of LiteLLM: what requests to their models become, and which backend answers.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::routing::{answered_by, chat, refused};
use super::support::{
    client::Client,
    gateway::{ADMIN, Backend, Builder, Gateway, USER},
    model_file::Kind,
    remote::{ReceivedRequest, Remote, Reply},
    wait::{READY, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";
const RERANK: &str = "/v1/rerank";

/// Longer than any test takes.
const NEVER: &str = "1h";

fn builder(config: &str) -> Builder {
    Gateway::builder().fakes(config, &[("local.gguf", json!({}))]).set("COOLDOWN_TIME", NEVER)
}

/// Starts the gateway and waits until each worker is ready or asleep.
fn ready(builder: Builder) -> Gateway {
    let gateway = builder.start_ready();
    eventually("all workers are ready", READY, || {
        let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
        let is_up = |worker: &Value| worker["state"] == "ready" || worker["state"] == "stopped";
        let models = stats["models"].as_array().unwrap();
        models.iter().all(|model| model["workers"].as_array().unwrap().iter().all(is_up))
    });
    gateway
}

fn documents() -> Value {
    json!({"query": "q", "documents": ["a", "b"]})
}

/// Returns the last request that a backend received, and its body.
fn last(remote: &Remote) -> (ReceivedRequest, Value) {
    let request = remote.received().pop().expect("the backend has received a request");
    let body = serde_json::from_str(&request.body).unwrap();
    (request, body)
}

fn post(client: &Client, path: &str, body: &Value) -> String {
    answered_by(&client.post_json(path, body)).to_owned()
}

/// Returns `docs/examples/rerank-pool.yaml` with these backends.
fn pool_example(primary: &Remote, backup: &Remote) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/rerank-pool.yaml");
    let text = fs::read_to_string(path).unwrap();
    text.replace("http://server1:8000", &primary.url()).replace("http://server2:8000", &backup.url())
}

#[test]
fn a_pool_of_rerankers_did_not_serve_requests_without_a_model() {
    let (mut primary, backup) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let gateway = ready(builder(&pool_example(&primary, &backup)));
    let client = gateway.client();
    for path in ["/rerank", RERANK, "/reranking", "/v1/reranking"] {
        for body in [documents(), json!({"model": "", "query": "q", "documents": ["a"]})] {
            assert_eq!(post(&client, path, &body), "primary-reranker", "{path}: the lowest priority comes first");
        }
        assert_eq!(last(&primary).1["model"], "primary-reranker", "the backend is told its name");
    }
    let named = |name: &str| json!({"model": name, "query": "q", "documents": ["a"]});
    assert_eq!(post(&client, RERANK, &named("backup-reranker")), "backup-reranker", "each has its own name");
    assert_eq!(refused(&client.post_json(CHAT, &chat("primary-reranker")), 400), "wrong_model_kind");

    // A failure before the first byte goes to the other one, and so does a request that names the one that fails.
    for reply in [Reply::Status(503, json!({})), Reply::Status(500, json!({})), Reply::Close] {
        primary.set_reply(reply.clone());
        let answer = client.post_json("/rerank", &documents());
        assert_eq!(
            (answered_by(&answer), answer.header("x-llamagate-attempts")),
            ("backup-reranker", Some("2")),
            "{reply:?}"
        );
        assert_eq!(last(&backup).1["model"], "backup-reranker");
        primary.set_reply(Reply::Serve);
        // After a broken connection it gets requests again once it has answered a probe.
        eventually("the primary serves again", READY, || post(&client, "/rerank", &documents()) == "primary-reranker");
    }
    primary.end();
    for body in [documents(), named("primary-reranker"), named("backup-reranker")] {
        assert_eq!(post(&client, RERANK, &body), "backup-reranker");
    }
}

/// Regression: beside a local reranker, a pool served no request without a name, and nothing took over when all of its
/// backends were down.
#[test]
fn a_local_reranker_beside_the_pool_is_its_last_resort() {
    let (mut primary, mut backup) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config = pool_example(&primary, &backup);
    let local = |config: &str| {
        let models = vec![("local.gguf".to_owned(), json!({}), Kind::Rerank)];
        let builder = Gateway::builder().backend(Backend::Fakes { config: config.into(), models });
        builder.set("RERANKER_MODEL_PATH", "local.gguf").set("COOLDOWN_TIME", NEVER)
    };
    let gateway = ready(local(&config));
    let client = gateway.client();
    let named = |name: &str| json!({"model": name, "query": "q", "documents": ["a"]});
    assert_eq!(post(&client, "/rerank", &documents()), "primary-reranker");
    assert_eq!(post(&client, RERANK, &named("local")), "local");
    assert!(gateway.child_pids().len() == 1, "only its own name has loaded it");
    primary.end();
    assert_eq!(post(&client, "/rerank", &documents()), "backup-reranker");
    assert_eq!(post(&client, RERANK, &named("primary-reranker")), "backup-reranker");
    backup.end();
    for body in [documents(), named(""), named("primary-reranker"), named("backup-reranker")] {
        for _ in 0..2 {
            assert_eq!(post(&client, "/rerank", &body), "local", "{body}");
        }
    }
    assert_eq!(refused(&client.post_json(RERANK, &named("none")), 404), "model_not_found");
    let list = client.get("/v1/models").json();
    let status = |id: &str| list["data"].as_array().unwrap().iter().find(|m| m["id"] == id).unwrap()["status"].clone();
    assert_eq!(status("local"), json!({"value": "loaded"}));
    assert_eq!(status("primary-reranker"), json!({"value": "failed"}), "it refuses connections");

    let gateway = local(&config.replace("fallback_to_local: true", "fallback_to_local: false")).start_ready();
    assert_eq!(refused(&gateway.client().post_json("/rerank", &documents()), 404), "model_not_found");
    eventually("the log says what to set", READY, || gateway.output().contains("set default_models.rerank"));
}

#[test]
fn a_pool_without_priorities_is_shared_by_the_strategy_and_a_name_means_its_own_backend() {
    let (one, mut other) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config = format!(
        "model_list:\n- {{model_name: one, litellm_params: {{api_base: \"{}\"}}}}\n\
         - {{model_name: other, litellm_params: {{api_base: \"{}\"}}}}\nrouter_settings: {{routing_strategy: round-robin}}\n",
        one.url(),
        other.url()
    );
    const ONE_ONLY: &str = "one-secret-0123456789";
    let keys = format!("admin:{ADMIN}:100000 scope=admin\nuser:{USER}:100000\nsome:{ONE_ONLY}:100000 models=one\n");
    let gateway = ready(builder(&config).keys(&keys));
    let client = gateway.client();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let served: Vec<String> = (0..4).map(|_| post(&client, CHAT, &body)).collect();
    assert_eq!(served, ["one", "other", "one", "other"]);
    let some = gateway.client_with(ONE_ONLY);
    assert!((0..2).all(|_| post(&some, CHAT, &body) == "one"), "a key sees only its models of the pool");
    other.end();
    assert!((0..4).all(|_| post(&client, CHAT, &body) == "one"));
    assert_eq!(refused(&client.post_json(CHAT, &chat("other")), 503), "backend_unavailable");
    assert_eq!(refused(&client.post_json(CHAT, &chat("none")), 404), "model_not_found");
    assert_eq!(refused(&client.post_json(RERANK, &documents()), 404), "model_not_found");
}

#[test]
fn default_models_serve_requests_without_a_model() {
    let remote = Remote::start(Reply::Serve);
    let config = format!(
        "models: {{tiny: {{file: local.gguf, preload: true, aliases: [small]}}}}\n\
         model_list:\n- {{model_name: far, litellm_params: {{api_base: \"{url}\"}}}}\n\
         - {{model_name: a-rerank, litellm_params: {{api_base: \"{url}\"}}}}\n\
         - {{model_name: b-rerank, litellm_params: {{api_base: \"{url}\"}}}}\n\
         default_models: {{chat: small, rerank: b-rerank}}\n",
        url = remote.url()
    );
    let gateway = ready(builder(&config));
    let client = gateway.client();
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    assert_eq!(post(&client, CHAT, &body), "tiny");
    assert_eq!(post(&client, RERANK, &documents()), "b-rerank");
    assert_eq!(refused(&client.post_json(CHAT, &chat("unknown")), 404), "model_not_found");
    assert_eq!(refused(&client.post_json(EMBED, &json!({"input": "x"})), 404), "model_not_found");

    let (status, output) =
        builder("models: {tiny: {file: local.gguf}}\ndefault_models: {rerank: tiny}\n").run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    assert!(output.contains("default_models.rerank: \"tiny\"") && output.contains("is for chat"), "{output}");
}

#[test]
fn a_wildcard_entry_serves_every_name_that_matches_it() {
    let (any, some) = (Remote::start(Reply::Serve), Remote::start(Reply::Serve));
    let config = format!(
        "models: {{tiny: {{file: local.gguf, preload: true}}}}\n\
         model_list:\n- {{model_name: '*', litellm_params: {{model: 'openai/*', api_base: \"{}\"}}}}\n\
         - {{model_name: 'team/*', litellm_params: {{model: 'openai/org/*', api_base: \"{}\"}}}}\n\
         router_settings: {{model_group_alias: {{mini: team/mini-1}}}}\ndefault_models: {{chat: tiny}}\n",
        any.url(),
        some.url()
    );
    let gateway = ready(builder(&config));
    let client = gateway.client();
    for (remote, model, asked, sent) in
        [(&any, "*", "gpt-4o", "gpt-4o"), (&any, "*", "a/b", "a/b"), (&some, "team/*", "team/x-1", "org/x-1")]
    {
        let answer = client.post_json(CHAT, &chat(asked));
        assert_eq!((answered_by(&answer), &answer.json()["model"]), (model, &json!(asked)));
        assert_eq!(last(remote).1["model"], sent);
    }
    assert_eq!(post(&client, CHAT, &chat("tiny")), "tiny", "models with a name of their own come first");
    // Regression: clients that look a model up before they use it were told that there is none.
    for (asked, root) in [("gpt-4o", json!("*")), ("team%2Fx-1", json!("team/*")), ("team/x-1", json!("team/*"))] {
        let entry = client.get(&format!("/v1/models/{asked}")).json();
        assert_eq!((&entry["id"], &entry["root"]), (&json!(asked.replace("%2F", "/")), &root));
    }
    let id_and_root = |name: &str| client.get(&format!("/v1/models/{name}")).json();
    assert_eq!((&id_and_root("tiny")["id"], &id_and_root("tiny")["root"]), (&json!("tiny"), &Value::Null));
    assert_eq!(id_and_root("team/*")["id"], "team/*");
    assert_eq!(post(&client, EMBED, &json!({"model": "bge", "input": "x"})), "*", "it is for every kind");
    assert_eq!(post(&client, CHAT, &chat("mini")), "team/mini-1");
    assert_eq!(last(&some).1["model"], "org/mini-1");
    let none = json!({"messages": [{"role": "user", "content": "x"}]});
    assert_eq!(post(&client, CHAT, &none), "tiny", "without a name there is nothing to match");
    assert_eq!(refused(&client.post_json(EMBED, &json!({"input": "x"})), 404), "model_not_found");
}

#[test]
fn a_single_wildcard_entry_does_not_serve_names_that_do_not_match_it() {
    let remote = Remote::start(Reply::Serve);
    let entry = |name: &str| {
        format!("model_list:\n- {{model_name: '{name}', litellm_params: {{api_base: \"{}\"}}}}\n", remote.url())
    };
    const ONE_ONLY: &str = "one-secret-0123456789";
    let keys = format!("admin:{ADMIN}:100000 scope=admin\nuser:{USER}:100000\nsome:{ONE_ONLY}:100000 models=team/b\n");
    let gateway = ready(builder(&entry("team/*")).keys(&keys));
    let client = gateway.client();
    let some = gateway.client_with(ONE_ONLY);
    assert_eq!(post(&some, CHAT, &chat("team/b")), "team/*", "a key may name what it may use");
    assert_eq!(refused(&some.post_json(CHAT, &chat("team/a")), 404), "model_not_found");
    assert_eq!(some.get("/v1/models/team/b").json()["id"], "team/b");
    assert_eq!(refused(&some.get("/v1/models/team/a"), 404), "model_not_found");
    assert_eq!(refused(&client.get("/v1/models/other"), 404), "model_not_found");
    assert_eq!(post(&client, CHAT, &chat("team/a")), "team/*");
    assert_eq!(last(&remote).1["model"], "team/a");
    assert_eq!(refused(&client.post_json(CHAT, &chat("other")), 404), "model_not_found");
    assert_eq!(refused(&client.post_json(CHAT, &json!({"messages": []})), 404), "model_not_found");
}

#[test]
fn default_fallbacks_take_over_for_every_model_and_for_unknown_names() {
    let (first, spare) = (Remote::start(Reply::Status(503, json!({}))), Remote::start(Reply::Serve));
    let config = format!(
        "model_list:\n- {{model_name: first, litellm_params: {{api_base: \"{}\"}}}}\n\
         - {{model_name: spare, litellm_params: {{api_base: \"{}\"}}}}\n\
         litellm_settings: {{default_fallbacks: [spare]}}\n",
        first.url(),
        spare.url()
    );
    let gateway = ready(builder(&config));
    let client = gateway.client();
    assert_eq!(post(&client, CHAT, &chat("first")), "spare");
    let answer = client.post_json(CHAT, &chat("never-heard-of"));
    assert_eq!((answered_by(&answer), &answer.json()["model"]), ("spare", &json!("never-heard-of")));
    assert_eq!(last(&spare).1["model"], "spare");
}

#[test]
fn parameters_of_an_entry_were_dropped_from_its_requests() {
    let remote = Remote::start(Reply::Serve);
    let config = format!(
        "model_list:\n\
         - model_name: chat\n\
         \x20 litellm_params:\n\
         \x20   api_base: {url}\n\
         \x20   api_key: sk-of-entry\n\
         \x20   temperature: 0.2\n\
         \x20   max_tokens: 9\n\
         \x20   chat_template_kwargs: {{enable_thinking: false}}\n\
         \x20   timeout: 5\n\
         \x20   strip_params: [seed]\n\
         \x20   priority: 3\n\
         \x20   extra_body: {{top_k: 5, temperature: 1}}\n\
         \x20   extra_headers: {{X-Gate: os.environ/GATE, X-Client: of-entry}}\n\
         - model_name: chat-plain\n\
         \x20 litellm_params: {{api_base: {url}, extra_headers: {{Authorization: Basic of-entry}}}}\n\
         - model_name: my-embed\n\
         \x20 litellm_params: {{api_base: {url}, dimensions: 64, temperature: 0.2, encoding_format: float}}\n",
        url = remote.url()
    );
    let gateway = ready(builder(&config).set("GATE", "sesame-of-entry"));
    let client = gateway.client();
    let mut body = json!({"model": "chat", "messages": [], "max_completion_tokens": 7, "top_k": 1});
    let theirs = gateway.client().header("x-client", "theirs").header("x-gate", "theirs");
    let answer = theirs.post_json(CHAT, &body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let (request, sent) = last(&remote);
    body["temperature"] = json!(0.2);
    body["chat_template_kwargs"] = json!({"enable_thinking": false});
    assert_eq!(sent, body, "the client's own fields, and those with the same meaning, win");
    assert_eq!(request.header("authorization"), Some("Bearer sk-of-entry"));
    assert_eq!((request.header("x-gate"), request.header("x-client")), (Some("sesame-of-entry"), Some("of-entry")));

    client.post_json(CHAT, &chat("chat-plain"));
    let (request, sent) = last(&remote);
    assert_eq!(sent, chat("chat-plain"), "each backend has its own");
    assert_eq!((request.header("authorization"), request.header("x-gate")), (Some("Basic of-entry"), None));

    client.post_json(EMBED, &json!({"model": "my-embed", "input": "x"}));
    let expected = json!({"model": "my-embed", "input": "x", "dimensions": 64, "encoding_format": "float"});
    assert_eq!(last(&remote).1, expected, "what only generation takes is not sent");
    client.post_json(EMBED, &json!({"model": "my-embed", "input": "x", "dimensions": 8}));
    assert_eq!(last(&remote).1["dimensions"], 8);
    assert!(!gateway.output().contains("of-entry"), "{}", gateway.output());
}

#[test]
fn hidden_aliases_work_everywhere_and_are_shown_nowhere() {
    let remote = Remote::start(Reply::Serve);
    let config = format!(
        "model_list:\n- {{model_name: real, litellm_params: {{api_base: \"{url}\"}}}}\n\
         - {{model_name: more, litellm_params: {{api_base: \"{url}\"}}}}\n\
         router_settings: {{model_group_alias: {{plain: real, long: {{model: real}}, secret: {{model: real, hidden: true}}}}}}\n",
        url = remote.url()
    );
    const BY_HIDDEN: &str = "hidden-secret-0123456789";
    let keys = format!("admin:{ADMIN}:100000 scope=admin\nuser:{USER}:100000\nhid:{BY_HIDDEN}:100000 models=secret\n");
    let gateway = ready(builder(&config).keys(&keys));
    for client in [gateway.client(), gateway.client_with(BY_HIDDEN)] {
        for alias in ["plain", "long", "secret"] {
            let answer = client.post_json(CHAT, &chat(alias));
            assert_eq!((answered_by(&answer), &answer.json()["model"]), ("real", &json!(alias)));
            assert_eq!(client.get(&format!("/v1/models/{alias}")).json()["id"], "real");
        }
        let list = client.get("/v1/models");
        assert_eq!(list.json()["data"][0]["meta"]["aliases"], json!(["plain", "long"]));
        let unknown = client.post_json(CHAT, &chat("unknown"));
        for text in [list.text(), unknown.text()] {
            assert!(!text.contains("secret"), "{text}");
        }
    }
    assert_eq!(refused(&gateway.client_with(BY_HIDDEN).post_json(CHAT, &chat("more")), 403), "model_not_allowed");
}

#[test]
fn a_change_of_an_included_file_is_taken_like_one_of_the_file_itself() {
    let remote = Remote::start(Reply::Serve);
    let entry = |name: &str| format!("- {{model_name: {name}, litellm_params: {{api_base: \"{}\"}}}}\n", remote.url());
    let folder = tempfile::tempdir().unwrap();
    let included = folder.path().join("more.yaml");
    fs::write(&included, format!("model_list:\n{}", entry("more"))).unwrap();
    let config = format!("include: [\"{}\"]\nmodel_list:\n{}", included.display(), entry("main"));
    let gateway = ready(builder(&config));
    let client = gateway.client();
    assert_eq!(post(&client, CHAT, &chat("more")), "more");
    fs::write(&included, format!("model_list:\n{}{}", entry("more"), entry("newer"))).unwrap();
    eventually("the included file is read again", READY, || client.post_json(CHAT, &chat("newer")).status() == 200);
    // A mistake there changes nothing.
    fs::write(&included, "model_list: 5\n").unwrap();
    eventually("the mistake is told", READY, || gateway.output().contains("expected a list of models"));
    assert_eq!(post(&client, CHAT, &chat("newer")), "newer");
}
