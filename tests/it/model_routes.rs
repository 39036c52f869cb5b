//! The routes about models: the lists, a single model, load and unload, and the statistics of each worker.

use serde_json::{Value, json};

use super::routing::{answered_by, chat, refused};
use super::support::{
    client::Client,
    gateway::{ADMIN, Backend, Gateway},
    model_file::Kind,
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

const CONFIG: &str = "
models:
  talks: {file: talks.gguf, tier: light, aliases: [gpt-4o], ctx: 1024, parallel: 2}
  BAAI/bge m3: {file: vectors.gguf}
  ranks: {file: ranks.gguf}
";

fn start(script: Value) -> Gateway {
    let models = vec![
        ("talks.gguf".to_owned(), script, Kind::Chat),
        ("vectors.gguf".to_owned(), json!({}), Kind::Embedding),
        ("ranks.gguf".to_owned(), json!({}), Kind::Rerank),
    ];
    Gateway::builder().backend(Backend::Fakes { config: CONFIG.into(), models }).start_ready()
}

fn state(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/models/{id}")).json()["meta"]["state"].clone()
}

#[test]
fn the_lists_describe_the_models_and_wake_none() {
    let gateway = start(json!({}));
    let client = gateway.client();
    let list = client.get("/v1/models");
    assert_eq!((list.status(), list.header("content-type")), (200, Some("application/json")));
    let list = list.json();
    assert_eq!(list["object"], "list");
    let first = &list["data"][0];
    assert!(first["created"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(["id", "object", "owned_by"].map(|name| &first[name]), ["talks", "model", "llamagate"]);
    let size = std::fs::metadata(&gateway.model_file("talks.gguf").path).unwrap().len();
    let own = json!({
        "kind": "chat", "tier": "light", "aliases": ["gpt-4o"], "state": "stopped", "context_length": 1024,
        "quantization": "F32", "size_bytes": size, "architecture": "llama", "chat_template": true,
    });
    for (name, value) in own.as_object().unwrap() {
        assert_eq!(&first["meta"][name], value, "{name}");
    }
    assert_eq!(client.get("/models").json(), list);
    let row = json!({
        "name": "talks", "id": "talks", "kind": "chat", "tier": "light", "size_bytes": size, "context_length": 1024,
        "quantization": "F32", "loaded": false,
    });
    assert_eq!(client.get("/v1/models/chat").json(), json!([row]));
    let ids = |path: &str| {
        client.get(path).json().as_array().unwrap().iter().map(|row| row["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((ids("/v1/models/embeddings"), ids("/v1/models/rerank")), {
        (vec![json!("BAAI/bge m3")], vec![json!("ranks")])
    });
    for path in ["talks", "gpt-4o", "%74alks"] {
        assert_eq!(&client.get(&format!("/v1/models/{path}")).json(), first, "{path}");
    }
    for path in ["BAAI/bge%20m3", "BAAI%2Fbge%20m3", "BAAI%2fbge%20m3"] {
        assert_eq!(client.get(&format!("/v1/models/{path}")).json(), list["data"][1], "{path}");
    }
    for path in ["nothing", "BAAI", "BAAI/bge+m3", "%ff", "talks%00"] {
        assert_eq!(refused(&client.get(&format!("/v1/models/{path}")), 404), "model_not_found", "{path}");
    }
    assert_eq!(refused(&gateway.anonymous().get("/v1/models"), 401), "missing_api_key");
    assert!(gateway.child_pids().is_empty(), "the lists start no llama-server");

    client.post_json(CHAT, &chat("talks"));
    assert_eq!(client.get("/v1/models/chat").json()[0]["loaded"], true);
    assert_eq!(state(&client, "ranks"), "stopped");
}

#[test]
fn an_admin_loads_and_unloads_a_model_after_its_requests_in_flight() {
    let gateway = start(json!({"starts": [{"hold_mid_stream": {"after_frames": 1}}, {}]}));
    let (client, admin) = (gateway.client(), gateway.client_with(ADMIN));
    for order in ["load", "unload"] {
        let path = format!("/v1/models/talks/{order}");
        assert_eq!(refused(&client.post_json(&path, &json!({})), 403), "scope_required");
        assert_eq!(
            refused(&admin.post_json(&format!("/v1/models/nothing/{order}"), &json!({})), 404),
            "model_not_found"
        );
    }
    let order = |path: &str| {
        let answer = admin.send("POST", path, b"");
        assert_eq!(answer.status(), 202, "{}", answer.text());
        answer.json()
    };
    let reply = |id: &str, state: &str| json!({"id": id, "state": state});
    assert_eq!(order("/v1/models/ranks/unload"), reply("ranks", "stopped"));
    assert_eq!(order("/v1/models/BAAI%2Fbge%20m3/load"), reply("BAAI/bge m3", "starting"));
    eventually("the model is loaded", READY, || state(&admin, "BAAI/bge%20m3") == "ready");
    assert_eq!(order("/v1/models/gpt-4o/load"), reply("talks", "starting"));
    eventually("the model is loaded", READY, || state(&admin, "talks") == "ready");
    assert_eq!(order("/v1/models/talks/load"), reply("talks", "ready"));

    let mut stream = client.stream(CHAT, &json!({"model": "talks", "messages": [], "stream": true}));
    assert!(stream.next_event().is_some());
    assert_eq!(order("/v1/models/talks/unload"), reply("talks", "draining"));
    eventually("the model drains", SOON, || state(&admin, "talks") == "draining");
    assert_eq!(gateway.model_file("talks.gguf").journal().events("sigterm"), Vec::<Value>::new());
    gateway.model_file("talks.gguf").control().release_all_requests();
    let events = stream.events();
    assert!(stream.is_complete() && events.last().unwrap().is_done(), "{events:?}");
    eventually("the model is stopped", READY, || state(&admin, "talks") == "stopped");
    assert_eq!(state(&admin, "BAAI/bge%20m3"), "ready", "no other model is stopped");

    assert_eq!(answered_by(&client.post_json(CHAT, &chat("talks"))), "talks");
    assert_eq!(gateway.model_file("talks.gguf").journal().starts().len(), 2);
}

#[test]
fn an_admin_gets_the_statistics_of_each_worker() {
    let gateway = start(json!({"hold_requests": ["/v1/completions"], "fail_on": []}));
    let (client, admin) = (gateway.client(), gateway.client_with(ADMIN));
    assert_eq!(refused(&client.get("/lb/stats"), 403), "scope_required");
    let stats_of = |id: &str| {
        let stats = admin.get("/lb/stats").json();
        stats["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
    };
    let asleep = json!({
        "worker": 0, "kind": "local", "state": "stopped", "in_flight": 0, "slots": 1, "served": 0, "failures": 0,
        "ewma_latency_ms": null, "breaker": "closed", "last_error": null, "last_failure": null,
    });
    let idle = json!({"active": 0, "waiting": 0});
    assert_eq!(stats_of("ranks"), json!({"id": "ranks", "strategy": "least-busy", "queue": idle, "workers": [asleep]}));
    for _ in 0..3 {
        assert_eq!(client.post_json(CHAT, &chat("talks")).status(), 200);
    }
    let worker = || stats_of("talks")["workers"][0].clone();
    eventually("three requests are counted", SOON, || worker()["served"] == 3);
    assert_eq!(
        (&worker()["slots"], &worker()["state"], &worker()["failures"]),
        (&json!(2), &json!("ready"), &json!(0))
    );
    assert!(worker()["ewma_latency_ms"].as_f64().unwrap() > 0.0);

    // Two requests hold both slots, a third waits.
    let body = json!({"model": "talks", "prompt": "x"}).to_string();
    let mut held: Vec<_> = (0..3).map(|_| client.begin("POST", "/v1/completions", body.as_bytes()).unwrap()).collect();
    let busy = json!({"active": 2, "waiting": 1});
    eventually("one request waits", SOON, || stats_of("talks")["queue"] == busy && worker()["in_flight"] == 2);
    assert_eq!(stats_of("ranks")["queue"], idle, "each model has its own queue");
    gateway.model_file("talks.gguf").control().release_all_requests();
    for client in &mut held {
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
    eventually("all requests are counted", SOON, || worker()["served"] == 6 && stats_of("talks")["queue"] == idle);
    assert_eq!(worker()["in_flight"], 0);
}
