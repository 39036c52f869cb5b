//! Routing: which model a request means, what is changed in its body, and how the failure of one model affects the
//! others.

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Backend, Gateway, USER},
    model_file::Kind,
    wait::{READY, SOON, eventually},
};

const ONE: &str = "one-secret-0123456789";
const BY_ALIAS: &str = "alias-secret-0123456789";
const BY_TIER: &str = "tier-secret-0123456789";

const CHAT: &str = "/v1/chat/completions";

pub(super) fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}]})
}

/// Asserts that a response is a refusal with this status, and returns its error code.
#[track_caller]
pub(super) fn refused(answer: &Response, status: u16) -> String {
    assert_eq!(answer.status(), status, "{}", answer.text());
    answer.json()["error"]["code"].as_str().expect("an error has a code").to_owned()
}

/// Asserts that a response has the status 200, and returns the model that has served it.
#[track_caller]
pub(super) fn answered_by(answer: &Response) -> &str {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.header("x-llamagate-model").expect("a response names its model")
}

const FOUR: &str = "
defaults: {preload: true}
models:
  tiny: {file: tiny.gguf, tier: light, aliases: [gpt-4o-mini]}
  org/big: {file: big.gguf, tier: heavy}
  vectors: {file: vectors.gguf, tier: embedding}
  hidden: {file: hidden.gguf, unlisted: true, tier: reranker}
";

fn four() -> Gateway {
    let model = |name: &str, kind| (name.to_owned(), json!({}), kind);
    let models = vec![
        model("tiny.gguf", Kind::Chat),
        model("big.gguf", Kind::Chat),
        model("vectors.gguf", Kind::Embedding),
        model("hidden.gguf", Kind::Rerank),
    ];
    let keys = format!(
        "admin:{ADMIN}:100000 scope=inference,admin\nuser:{USER}:100000\none:{ONE}:100000 models=tiny\n\
         alias:{BY_ALIAS}:100000 models=gpt-4o-mini,hidden\ntier:{BY_TIER}:100000 models=heavy,embedding\n"
    );
    Gateway::builder().backend(Backend::Fakes { config: FOUR.into(), models }).keys(&keys).start_ready()
}

#[test]
fn a_request_means_the_model_that_it_names_or_the_only_one_of_its_kind() {
    let gateway = four();
    let client = gateway.client();
    for (name, means) in [
        ("tiny", "tiny"),
        ("gpt-4o-mini", "tiny"),
        ("light/tiny", "tiny"),
        ("LIGHT", "tiny"),
        ("qwen3-1.7b", "tiny"),
        ("org/big", "org/big"),
        ("heavy/org/big", "org/big"),
        ("llama-70b", "org/big"),
    ] {
        let answer = client.post_json(CHAT, &chat(name));
        assert_eq!((answered_by(&answer), &answer.json()["model"]), (means, &json!(name)));
    }
    let embed = |body: Value| client.post_json("/v1/embeddings", &body);
    for body in [json!({"input": "x"}), json!({"model": "any", "input": "x"}), json!({"model": "bge-m3", "input": "x"})]
    {
        assert_eq!(answered_by(&embed(body)), "vectors");
    }
    let rerank = client.post_json("/v1/rerank", &json!({"query": "a", "documents": ["a", "b"]}));
    assert_eq!(answered_by(&rerank), "hidden", "an unlisted model serves requests");

    let nameless = client.post_json(CHAT, &json!({"messages": []}));
    assert_eq!(refused(&nameless, 404), "model_not_found", "two models chat");
    let wrong = embed(json!({"model": "gpt-4o-mini", "input": "x"}));
    assert_eq!((refused(&wrong, 400).as_str(), &wrong.json()["error"]["param"]), ("wrong_model_kind", &json!("model")));
    for twice in [r#"{"model":"tiny","messages":[],"model":"org/big"}"#, r#"{"model":"tiny","Model":"org/big"}"#] {
        assert_eq!(refused(&client.send("POST", CHAT, twice.as_bytes()), 400), "bad_request");
    }
    for broken in ["", "[]", "{\"model\":\"tiny\",", "model=tiny"] {
        assert_eq!(refused(&client.send("POST", CHAT, broken.as_bytes()), 400), "bad_request", "{broken:?}");
    }
    let form = client.clone().header("Content-Type", "multipart/form-data; boundary=line");
    let parts = "--line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--line\r\n\
                 Content-Disposition: form-data; name=\"model\"\r\n\r\norg/big\r\n--line--\r\n";
    let heard = form.send("POST", "/v1/audio/transcriptions", parts.as_bytes());
    assert_eq!(answered_by(&heard), "org/big");
    assert_eq!(heard.json()["text"], format!("{} bytes", parts.len()));

    for (query, means) in [("model=gpt-4o-mini", "tiny"), ("x=y&model=org%2Fbig", "org/big")] {
        let props = client.get(&format!("/props?{query}"));
        assert_eq!((answered_by(&props), &props.json()["model_alias"]), (means, &json!(means)));
    }
    let which = client.get("/props");
    assert_eq!(refused(&which, 404), "model_not_found");
    assert!(which.text().contains("name one with ?model=ID; known are: tiny"), "{}", which.text());
    assert!(!nameless.text().contains("?model="), "{}", nameless.text());
    let number = client.post_json(CHAT, &json!({"model": 5, "messages": []}));
    assert_eq!(refused(&number, 400), "bad_request");
    assert!(number.text().contains("model must be a string"), "{}", number.text());
    assert_eq!(refused(&client.post_json(CHAT, &json!({"model": null, "messages": []})), 404), "model_not_found");
    assert_eq!(refused(&client.get("/props?model=tiny&model=org/big"), 400), "bad_request");
    let reached = |file: &str| gateway.model_file(file).journal().events("request");
    let chats = reached("vectors.gguf").into_iter().chain(reached("hidden.gguf"));
    assert_eq!(chats.filter(|request| request["path"] == CHAT).count(), 0);
}

#[test]
fn a_key_uses_and_sees_only_its_models() {
    let gateway = four();
    let with = |secret: &str| gateway.client_with(secret);
    let ask = |client: &Client, name: &str| client.post_json(CHAT, &chat(name));
    for (key, allowed, forbidden) in [
        (ONE, &["tiny", "gpt-4o-mini", "light", "some-3b"][..], &["org/big", "heavy/org/big"][..]),
        (BY_ALIAS, &["tiny", "gpt-4o-mini"], &["org/big"]),
        (BY_TIER, &["org/big", "heavy", "70b"], &["tiny", "gpt-4o-mini", "light/tiny"]),
    ] {
        for name in allowed {
            assert_eq!(ask(&with(key), name).status(), 200, "{name}");
        }
        for name in forbidden {
            assert_eq!(refused(&ask(&with(key), name), 403), "model_not_allowed", "{name}");
        }
    }
    // The refusal names no model that the key may not use, even for a name that would mean such a model.
    for name in ["nothing", "light", "vectors-of-mine"] {
        let answer = ask(&with(BY_TIER), name);
        assert_eq!(refused(&answer, 404), "model_not_found", "{name}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("org/big") && message.contains("vectors"), "{message}");
        assert!(!message.contains("tiny") && !message.contains("hidden"), "{message}");
    }
    let ids = |secret: &str, path: &str| -> Vec<Value> {
        let list = with(secret).get(path).json();
        let entries = list.get("data").unwrap_or(&list).as_array().unwrap().clone();
        entries.into_iter().map(|entry| entry["id"].clone()).collect()
    };
    assert_eq!(ids(USER, "/v1/models"), ["tiny", "org/big", "vectors"]);
    assert_eq!(ids(USER, "/v1/models/rerank"), Vec::<Value>::new());
    assert_eq!((ids(ONE, "/v1/models"), ids(ONE, "/v1/models/chat")), (vec![json!("tiny")], vec![json!("tiny")]));
    assert_eq!(ids(BY_ALIAS, "/models"), ["tiny"]);
    assert_eq!((ids(BY_TIER, "/v1/models/chat"), ids(BY_TIER, "/v1/models/embeddings")), {
        (vec![json!("org/big")], vec![json!("vectors")])
    });
    assert_eq!(refused(&with(ONE).get("/v1/models/vectors"), 403), "model_not_allowed");
    assert_eq!(with(BY_ALIAS).get("/v1/models/hidden").status(), 200, "an unlisted model can be looked up by its name");
}

#[test]
fn metrics_and_access_log_name_the_model() {
    let gateway = four();
    let client = |id: &str| gateway.client().header("X-Request-Id", id);
    client("one").post_json(CHAT, &chat("gpt-4o-mini"));
    client("two").post_json(CHAT, &chat("org/big"));
    client("three").post_json(CHAT, &chat("nothing of ours"));
    client("four").post_json("/v1/embeddings", &json!({"model": "heavy", "input": "x"}));
    let logged = |id: &str| access_log_line(&gateway, id)["model"].clone();
    assert_eq!([logged("one"), logged("two"), logged("three"), logged("four")], ["tiny", "org/big", "-", "-"]);
    let metrics = || gateway.health().get("/metrics?format=prometheus").text();
    for (model, route, status) in
        [("tiny", CHAT, 200), ("org/big", CHAT, 200), ("other", CHAT, 404), ("other", "/v1/embeddings", 400)]
    {
        let series = format!("llamagate_requests_total{{model=\"{model}\",route=\"{route}\",status=\"{status}\"}} 1\n");
        assert!(metrics().contains(&series), "{series}{}", metrics());
    }
}

#[test]
fn only_configured_parameters_of_a_request_are_changed() {
    let config = "
models:
  plain: {file: plain.gguf, aliases: [gpt-4o]}
  changed:
    file: changed.gguf
    sampling: {temperature: 0.7, max_tokens: 3}
    strip_params: [user, seed]
";
    let gateway = Gateway::builder().fakes(config, &[("plain.gguf", json!({})), ("changed.gguf", json!({}))]).start();
    let client = gateway.client();
    let received = |file: &str, path: &str| {
        let request = gateway.model_file(file).journal().wait_for_requests(path, 1).pop().unwrap();
        request["body"].as_str().unwrap().to_owned()
    };
    let odd =
        "{ \"messages\" :[{\"role\":\"user\",\"content\":\"\\u00e9 \u{e9}\"}],\n \"model\": \"gpt-4o\",\"user\":1e1 }";
    let answer = client.send("POST", CHAT, odd.as_bytes());
    assert_eq!((answered_by(&answer), &answer.json()["model"]), ("plain", &json!("gpt-4o")));
    assert_eq!(received("plain.gguf", CHAT), odd, "byte for byte");

    let body =
        |messages: &str| format!("{{\"model\":\"changed\", \"user\":\"me\",\"messages\":[{messages}],\"seed\": 1}}");
    client.send("POST", CHAT, body("").as_bytes());
    let sent = r#"{"temperature":0.7,"max_tokens":3,"model":"changed","messages":[]}"#;
    assert_eq!(received("changed.gguf", CHAT), sent);
    let explicit = json!({"model": "changed", "prompt": "x", "temperature": 0, "n_predict": 5, "stream": true});
    let mut stream = client.stream("/v1/completions", &explicit);
    assert_eq!(
        stream.events().iter().filter(|event| event.data.contains("\"text\":\"tok")).count(),
        5,
        "n_predict of the request takes precedence over the configured max_tokens"
    );
    let sent: Value = serde_json::from_str(&received("changed.gguf", "/v1/completions")).unwrap();
    assert_eq!(sent, explicit);
    let mut stream = client.stream(CHAT, &json!({"model": "gpt-4o", "messages": [], "stream": true}));
    let events = stream.events();
    let names = events.iter().filter(|event| !event.is_done()).map(|event| event.json()["model"].clone());
    assert!(names.clone().count() > 8 && names.clone().all(|name| name == "gpt-4o"), "{:?}", names.collect::<Vec<_>>());
    assert!(stream.is_complete() && events.last().unwrap().is_done());
}

/// Sends `count` requests one after the other, and returns the numbers of the workers that have served them.
fn workers(client: &Client, count: usize, body: impl Fn(usize) -> Value) -> Vec<String> {
    let worker = |nth| {
        let answer = client.post_json(CHAT, &body(nth));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.header("x-llamagate-worker").unwrap().to_owned()
    };
    (0..count).map(worker).collect()
}

/// Starts a gateway with `count` replicas of the model `m` and waits until all are ready.
fn replicas(count: usize, strategy: &str) -> Gateway {
    let config =
        format!("models: {{m: {{file: m.gguf, preload: true, parallel: 2, replicas: {count}, strategy: {strategy}}}}}");
    let script = json!({"hold_requests": ["/v1/completions"]});
    let gateway = Gateway::builder().fakes(&config, &[("m.gguf", script)]).start_ready();
    let admin = gateway.client_with(ADMIN);
    eventually("all replicas are ready", READY, || {
        let stats = admin.get("/lb/stats").json();
        stats["models"][0]["workers"].as_array().unwrap().iter().filter(|worker| worker["state"] == "ready").count()
            == count
    });
    gateway
}

#[test]
fn round_robin_alternates_between_workers() {
    let gateway = replicas(2, "round-robin");
    // Round-robin ignores that one worker is busier, while it has a free slot.
    let body = json!({"model": "m", "prompt": "x"}).to_string();
    let _held = gateway.client().begin("POST", "/v1/completions", body.as_bytes()).unwrap();
    gateway.model_file("m.gguf").journal().wait_for_requests("/v1/completions", 1);
    let served = workers(&gateway.client(), 6, |_| chat("m"));
    assert_ne!(served[0], served[1]);
    assert!(served.chunks(2).all(|pair| pair == &served[..2]), "{served:?}");
}

#[test]
fn prefix_affinity_keeps_a_conversation_on_its_worker() {
    let gateway = replicas(3, "prefix-affinity");
    let conversation = |name: &str, turns: usize| {
        let mut messages = vec![json!({"role": "system", "content": format!("{name} {}", "long ".repeat(600))})];
        messages.extend((0..turns).map(|turn| json!({"role": "user", "content": format!("turn {turn}")})));
        json!({"model": "m", "messages": messages})
    };
    let client = gateway.client();
    let home: Vec<String> = ["a", "b", "c"].map(|name| workers(&client, 1, |_| conversation(name, 1)).remove(0)).into();
    assert_eq!(
        home.iter().collect::<std::collections::BTreeSet<_>>().len(),
        3,
        "new conversations are spread over the workers: {home:?}"
    );
    for turns in 2..6 {
        let mut names: Vec<_> = ["a", "b", "c"].into_iter().zip(&home).collect();
        // The order changes, so that round-robin could not be mistaken for affinity.
        names.rotate_left(turns % 2);
        for (name, home) in names {
            assert_eq!(&workers(&client, 1, |_| conversation(name, turns))[0], home, "{name} {turns}");
        }
    }
}

/// Returns the model of this id in a list of models.
#[track_caller]
fn find_model(models: &Value, id: &str) -> Value {
    models.as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
}

#[test]
fn a_model_that_cannot_start_does_not_affect_another() {
    let config = "
defaults: {preload: true, restart_limit: 2}
models:
  bad: {file: bad.gguf}
  good: {file: good.gguf}
";
    let bad = json!({"exit_at_start": {"code": 1}});
    let good = json!({"hold_mid_stream": {"after_frames": 2}, "hold_requests": []});
    let mut gateway = Gateway::builder().fakes(config, &[("bad.gguf", bad), ("good.gguf", good)]).start_ready();
    gateway.model_file("good.gguf").journal().wait_for_event("ready");
    let mut stream = gateway.client().stream(CHAT, &json!({"model": "good", "messages": [], "stream": true}));
    assert!(stream.next_event().is_some());
    let state = |id: &str| {
        let health = gateway.anonymous().get("/health");
        (health.status(), health.json()["status"].clone(), find_model(&health.json()["models"], id)["state"].clone())
    };
    eventually("the bad model is given up", READY, || state("bad").2 == "failed");
    assert_eq!(state("bad"), (200, json!("degraded"), json!("failed")));
    assert_eq!(state("good").2, "ready");
    assert_eq!(gateway.health().get("/ping").status(), 200);
    let refusal = gateway.client().post_json(CHAT, &chat("bad"));
    assert_eq!((refused(&refusal, 503).as_str(), refusal.header("retry-after")), ("backend_unavailable", None));
    assert!(
        refusal.text().contains("/load"),
        "the message names the route that loads the model again: {}",
        refusal.text()
    );
    assert_eq!(gateway.model_file("bad.gguf").journal().starts().len(), 3);
    gateway.model_file("good.gguf").control().release_all_requests();
    let events = stream.events();
    assert!(stream.is_complete() && events.last().unwrap().is_done(), "{events:?}");
    assert_eq!(gateway.model_file("good.gguf").journal().starts().len(), 1);

    // When the last model is given up too, the service ends.
    gateway.model_file("good.gguf").rewrite_script(&json!({"exit_at_start": {"code": 1}}));
    gateway.model_file("good.gguf").control().tell("die code 1").unwrap();
    assert_eq!(gateway.wait_exit().code(), Some(69), "{}", gateway.output());
}

#[test]
fn a_load_request_restarts_a_model_that_was_given_up() {
    let config = "
defaults: {preload: true, restart_limit: 0}
models:
  bad: {file: bad.gguf}
  good: {file: good.gguf}
";
    let bad = json!({"starts": [{"exit_at_start": {"code": 1}}, {}]});
    let gateway = Gateway::builder().fakes(config, &[("bad.gguf", bad), ("good.gguf", json!({}))]).start_ready();
    let admin = gateway.client_with(ADMIN);
    let state = || admin.get("/v1/models/bad").json()["meta"]["state"].clone();
    eventually("the model is given up", READY, || state() == "failed");
    let health = gateway.anonymous().get("/health").json();
    let worker = find_model(&admin.get("/lb/stats").json()["models"], "bad")["workers"][0].clone();
    assert!(worker["last_error"].is_string(), "{worker}");
    assert_eq!(worker["last_error"], find_model(&health["models"], "bad")["last_exit"]["hint"]);
    assert_eq!((&worker["failures"], &worker["last_failure"]), (&json!(0), &Value::Null), "no request has failed");
    let order = |order: &str| admin.post_json(&format!("/v1/models/bad/{order}"), &json!({})).json();
    assert_eq!(order("unload"), json!({"id": "bad", "state": "failed"}), "no process is running");
    assert_eq!(order("load"), json!({"id": "bad", "state": "starting"}));
    eventually("the model is ready", READY, || state() == "ready");
    assert_eq!(answered_by(&gateway.client().post_json(CHAT, &chat("bad"))), "bad");
    eventually("the status is ok again", SOON, || gateway.anonymous().get("/health").json()["status"] == "ok");
}
