//! Several models behind one port, each served by the real llama-server: behaviour of a fleet for which the fake would
//! prove little.

use std::{collections::BTreeMap, thread};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::{Client, Event, Response},
    gateway::{ADMIN, Backend, Gateway, USER, backend_port},
    remote::{Remote, Reply},
    wait::{REAL_MODEL_READY, SOON, eventually},
};

mod real {
    use super::*;

    /// A tiny model of each kind, and a chat model that produces text.
    const ALL: &str = "
models:
  chat: {file: tiny-chat.gguf, tier: light, aliases: [gpt-4o-mini]}
  talk: {file: SmolLM2-135M-Instruct.Q4_1.gguf, tier: medium, aliases: [gpt-4o]}
  embed: {file: tiny-embedding.gguf, ctx: 1024, aliases: [text-embedding-3-small]}
  rank: {file: tiny-rerank.gguf, ctx: 1024, aliases: [rerank-v3.5]}
";

    #[test]
    fn each_kind_of_model_is_loaded_by_its_first_request_and_answers_under_the_requested_name() {
        let gateway = Gateway::builder().reals(ALL).start();
        let client = gateway.client();
        assert_eq!(
            states(&client),
            [("chat", "stopped"), ("embed", "stopped"), ("rank", "stopped"), ("talk", "stopped")]
        );
        assert!(gateway.child_pids().is_empty(), "no model is started before its first request");

        for name in ["chat", "gpt-4o-mini", "light/chat", "light", "talk", "gpt-4o"] {
            assert_chats(&client, name);
        }
        assert_eq!(states(&client), [("chat", "ready"), ("embed", "stopped"), ("rank", "stopped"), ("talk", "ready")]);

        for name in ["embed", "text-embedding-3-small"] {
            assert_embeds(&client, name);
        }
        for name in ["rank", "rerank-v3.5"] {
            assert_reranks(&client, name);
        }
        assert_eq!(states(&client), [("chat", "ready"), ("embed", "ready"), ("rank", "ready"), ("talk", "ready")]);
        assert_eq!(gateway.child_pids().len(), 4);

        // An unknown name means the only model of the kind; a known name of the wrong kind is an error.
        assert_embeds(&client, "any");
        let wrong = client.post_json("/v1/embeddings", &json!({"model": "chat", "input": "x"}));
        assert_eq!((wrong.status(), &wrong.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    }

    /// Regression: with a single model the kind was not checked. Chats to an embedding decoder crashed llama-server each
    /// time, until the service ended with exit status 69; a reranker answered `/v1/embeddings` with 200 and meaningless
    /// numbers.
    #[test]
    fn a_single_model_of_another_kind_is_refused_before_it_reaches_llama_server() {
        let chat = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
        let requests = [
            ("chat", "/v1/chat/completions", chat.clone()),
            ("chat", "/v1/completions", json!({"prompt": "hi", "max_tokens": 1})),
            ("chat", "/completion", json!({"prompt": "hi", "n_predict": 1})),
            ("chat", "/v1/responses", json!({"input": "hi"})),
            ("chat", "/v1/messages", json!({"messages": chat["messages"], "max_tokens": 1})),
            ("chat", "/infill", json!({"input_prefix": "a", "input_suffix": "b"})),
            ("embedding", "/v1/embeddings", json!({"input": "a"})),
            ("embedding", "/embedding", json!({"content": "a"})),
            ("rerank", "/v1/rerank", json!({"query": "q", "documents": ["a"]})),
            ("rerank", "/reranking", json!({"query": "q", "documents": ["a"]})),
        ];
        for (kind, config) in [
            ("embedding", "models: {e: {file: tiny-chat.gguf, kind: embedding, preload: true}}\n"),
            ("embedding", "models: {e: {file: tiny-embedding.gguf, ctx: 1024, preload: true}}\n"),
            ("rerank", "models: {r: {file: tiny-rerank.gguf, ctx: 1024, preload: true}}\n"),
            ("chat", "models: {c: {file: tiny-chat.gguf, preload: true}}\n"),
        ] {
            let gateway = Gateway::builder().reals(config).start();
            eventually("the model is loaded", REAL_MODEL_READY, || {
                gateway.health().get("/health").json()["models"][0]["state"] == "ready"
            });
            for (needs, path, body) in requests.iter().filter(|(needs, ..)| *needs != kind) {
                for name in [None, Some("any"), Some("e")] {
                    let mut body = body.clone();
                    if let Some(name) = name {
                        body["model"] = json!(name);
                    }
                    let answer = gateway.client().post_json(path, &body);
                    let error = &answer.json()["error"];
                    assert_eq!(answer.status(), 400, "{config} {path} {name:?}: {}", answer.text());
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains(kind) && message.contains(needs), "{path}: {message}");
                }
            }
            let worker = &gateway.health().get("/health").json()["models"][0];
            assert_eq!((&worker["restarts"], &worker["state"]), (&json!(0), &json!("ready")), "{config}");
        }
    }

    #[test]
    fn llama_servers_own_switch_in_extra_args_makes_a_plain_decoder_an_embedding_model() {
        let gateway = Gateway::builder()
            .backend(Backend::Real { model: "tiny-chat.gguf" })
            .set("EXTRA_ARGS", "--embedding --pooling last")
            .start();
        assert_embeds(&gateway.client(), "any");
        let chat = gateway.client().post_json("/v1/chat/completions", &json!({"messages": []}));
        assert_eq!((chat.status(), &chat.json()["error"]["code"]), (400, &json!("wrong_model_kind")));
    }

    #[test]
    fn an_input_as_long_as_the_context_is_embedded_and_ranked() {
        let gateway = Gateway::builder().reals(ALL).start();
        let client = gateway.client();
        let words = |count: usize| vec!["hello"; count].join(" ");
        // The number of tokens of a word depends on the model.
        let tokens = |count: usize| {
            let answer = client.post_json("/tokenize", &json!({"model": "embed", "content": words(count)}));
            answer.json()["tokens"].as_array().unwrap_or_else(|| panic!("{}", answer.text())).len()
        };
        let (first, each) = (tokens(1), tokens(2) - tokens(1));
        // The model adds one token at the beginning and one at the end.
        let longest = (1024 - 2 - first) / each + 1;
        let answer = client.post_json("/v1/embeddings", &json!({"model": "embed", "input": words(longest)}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let used = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!((1024 - each as u64..=1024).contains(&used), "{used} tokens");

        let documents = [words(longest - 32), "rain".to_owned()];
        let answer = client.post_json("/v1/rerank", &json!({"model": "rank", "query": "rain", "documents": documents}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert!(answer.json()["usage"]["prompt_tokens"].as_u64().is_some_and(|used| used > 600), "{}", answer.text());
    }

    #[test]
    fn an_admin_unloads_and_loads_a_model() {
        let gateway = Gateway::builder().reals(ALL).start();
        let (client, admin) = (gateway.client(), gateway.client_with(ADMIN));
        assert_chats(&client, "chat");
        let [pid] = gateway.child_pids()[..] else { panic!("one model is loaded") };

        assert_eq!(admin.send("POST", "/v1/models/chat/unload", b"").status(), 202);
        eventually("the model is stopped", SOON, || state(&client, "chat") == "stopped");
        assert!(gateway.child_pids().is_empty());
        assert_eq!(admin.send("POST", "/v1/models/gpt-4o-mini/load", b"").status(), 202);
        eventually("the model is ready", REAL_MODEL_READY, || state(&client, "chat") == "ready");
        assert_ne!(gateway.child_pids(), [pid]);
        assert_chats(&client, "gpt-4o-mini");

        assert_eq!(admin.send("POST", "/v1/models/chat/unload", b"").status(), 202);
        eventually("the model is stopped", SOON, || state(&client, "chat") == "stopped");
        assert_chats(&client, "chat");
        let card = client.get("/v1/models/gpt-4o-mini").json();
        assert_eq!((&card["id"], &card["meta"]["state"]), (&json!("chat"), &json!("ready")));
        assert_eq!(client.send("POST", "/v1/models/chat/unload", b"").json()["error"]["code"], "scope_required");
    }

    #[test]
    fn models_that_do_not_fit_together_take_turns_under_load() {
        // Two of the small models fit, or the large one alone.
        let config = "
memory_budget: 100MiB
models:
  chat: {file: tiny-chat.gguf, memory: 50MiB}
  embed: {file: tiny-embedding.gguf, memory: 50MiB}
  rank: {file: tiny-rerank.gguf, memory: 50MiB}
  talk: {file: SmolLM2-135M-Instruct.Q4_1.gguf, memory: 100MiB}
";
        let gateway = Gateway::builder().reals(config).set("MAX_WAIT_BEFORE_DRAIN", "1s").start();
        let most = thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|thread| {
                    let client = gateway.client();
                    scope.spawn(move || {
                        for number in 0..15 {
                            match (number * 7 + thread * 3) % 10 {
                                0..=2 => assert_chats(&client, "chat"),
                                3..=5 => assert_embeds(&client, "embed"),
                                6..=8 => assert_reranks(&client, "rank"),
                                _ => assert_chats(&client, "talk"),
                            }
                        }
                    })
                })
                .collect();
            let mut most = 0;
            while !clients.iter().all(thread::ScopedJoinHandle::is_finished) {
                let loaded = states_by_id(&gateway.client());
                let loaded: Vec<_> =
                    loaded.iter().filter(|(_, state)| *state == "ready").map(|(id, _)| &**id).collect();
                assert!(loaded.len() <= 2 && !(loaded.len() == 2 && loaded.contains(&"talk")), "{loaded:?}");
                most = most.max(loaded.len());
                thread::yield_now();
            }
            most
        });
        assert_eq!(most, 2, "two of the small models were loaded together");
    }

    #[test]
    fn a_conversation_stays_on_the_worker_that_has_its_beginning_cached() {
        let config = "
models:
  talk:
    file: SmolLM2-135M-Instruct.Q4_1.gguf
    replicas: 2
    parallel: 2
    ctx: 1024
    strategy: prefix-affinity
    preload: true
";
        let other = "other-secret-0123456789";
        let keys = format!("user:{USER}:100000\nother:{other}:100000\n");
        let gateway = Gateway::builder().reals(config).keys(&keys).start();
        eventually("both replicas are ready", REAL_MODEL_READY, || gateway.child_pids().len() == 2);
        gateway.wait_ready();
        let (client, other) = (gateway.client(), gateway.client_with(other));
        let beginning = |topic: &str| format!("You are an assistant who knows all about {topic}. ").repeat(8);
        let ask = |client: &Client, beginning: &str, turns: &[&str]| {
            let mut messages = vec![json!({"role": "system", "content": beginning})];
            messages.extend(turns.iter().map(|text| json!({"role": "user", "content": text})));
            let body = json!({"model": "talk", "messages": messages, "max_tokens": 2, "temperature": 0});
            let answer = client.post_json("/v1/chat/completions", &body);
            assert_eq!(answer.status(), 200, "{}", answer.text());
            let worker = answer.header("x-llamagate-worker").unwrap().to_owned();
            (worker, answer.json()["timings"]["cache_n"].as_u64().unwrap())
        };
        // A beginning that is not yet cached for a key goes to a worker by load, so both workers get some.
        let mut workers = Vec::new();
        for (number, topic) in ["birds", "rivers", "trains", "clouds"].into_iter().enumerate() {
            let client = if number % 2 == 0 { &client } else { &other };
            let (worker, _) = ask(client, &beginning(topic), &["hello"]);
            for turns in [&["hello", "tell me more"][..], &["hello", "tell me more", "and then?"]] {
                let (again, cached) = ask(client, &beginning(topic), turns);
                assert_eq!(again, worker, "{topic} stays on its worker");
                assert!(cached > 50, "{topic}: {cached} tokens were cached");
            }
            workers.push(worker);
        }
        workers.sort();
        workers.dedup();
        assert_eq!(workers, ["0", "1"], "both workers get requests");
    }

    /// Starts the gateway behind, on `port`, which serves a chat model and an embedding model.
    fn behind_on(port: u32) -> Gateway {
        let config = "
models:
  smol: {file: SmolLM2-135M-Instruct.Q4_1.gguf, preload: true}
  vectors: {file: tiny-embedding.gguf}
";
        let gateway =
            Gateway::builder().reals(config).set("PORT", port).keys(&format!("front:{FAR_KEY}:100000\n")).start();
        gateway.wait_ready();
        gateway
    }

    const FAR_KEY: &str = "far-secret-0123456789";

    /// Starts the gateway in front, which has the gateway on `port` as a remote backend.
    fn front_of(port: u32) -> Gateway {
        let config = format!(
            "
models:
  chat: {{file: tiny-chat.gguf, preload: true}}
  both: {{file: tiny-chat.gguf}}
model_list:
  - model_name: far
    litellm_params: {{model: openai/smol, api_base: \"http://127.0.0.1:{port}\", api_key: os.environ/FAR_KEY}}
  - model_name: both
    litellm_params: {{model: openai/smol, api_base: \"http://127.0.0.1:{port}/v1\", api_key: os.environ/FAR_KEY}}
  - model_name: embed
    litellm_params: {{model: openai/vectors, api_base: \"http://127.0.0.1:{port}\", api_key: os.environ/FAR_KEY}}
    model_info: {{mode: embedding}}
router_settings: {{num_retries: 1, retry_delay: 0.01, allowed_fails: 1, cooldown_time: 1, health_check_interval: 1}}
fallbacks: {{far: [chat]}}
"
        );
        let gateway = Gateway::builder().reals(&config).set("FAR_KEY", FAR_KEY).start();
        gateway.wait_ready();
        gateway
    }

    #[test]
    fn a_gateway_is_a_remote_backend_and_fallbacks_serve_while_it_is_down() {
        let port = backend_port();
        let mut behind = behind_on(port);
        let gateway = front_of(port);
        let client = gateway.client();
        eventually("the gateway behind is found ready", SOON, || {
            state(&client, "far") == "ready" && state(&client, "both") == "ready"
        });
        for name in ["far", "both"] {
            assert_chats(&client, name);
            assert_eq!(served_by(&client, name), served_by_other(name), "{name}");
        }
        assert_embeds(&client, "embed");

        // The gateway behind is killed in the middle of a stream.
        let endless = json!({"model": "far", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 400,
                             "ignore_eos": true, "stream": true});
        let mut stream = client.stream("/v1/chat/completions", &endless);
        let first = stream.next_event().expect("a first event");
        assert_eq!(first.json()["model"], "far");
        behind.signal(Signal::SIGKILL);
        behind.wait_exit();
        let events = stream.events();
        let last = events.iter().rfind(|event| !event.data.is_empty()).expect("an error event");
        assert!(last.json()["error"]["message"].is_string(), "{last:?}");
        assert!(stream.is_complete(), "the stream ends with the error event");

        // Fallbacks serve: for `far` the model `chat`, for `both` its own llama-server.
        assert_eq!(served_by(&client, "far"), ("chat".to_owned(), "0".to_owned()));
        assert_eq!(served_by(&client, "both"), ("both".to_owned(), "0".to_owned()));
        for name in ["far", "both"] {
            assert_chats(&client, name);
        }
        let unserved = client.post_json("/v1/embeddings", &json!({"model": "embed", "input": "x"}));
        assert!(matches!(unserved.status(), 502 | 503), "{}", unserved.text());

        drop(behind);
        let behind = behind_on(port);
        for name in ["far", "both"] {
            eventually(&format!("{name} is served by the gateway behind again"), REAL_MODEL_READY, || {
                served_by(&client, name) == served_by_other(name)
            });
            assert_chats(&client, name);
        }
        assert_embeds(&client, "embed");
        drop(behind);
    }

    /// Returns the model and the worker that serve `name` while the gateway behind is up.
    fn served_by_other(name: &str) -> (String, String) {
        // The numbers of a model's own workers come before those of its remote ones.
        (name.to_owned(), if name == "both" { "1" } else { "0" }.to_owned())
    }
}

/// Regression: a request with an empty name got an answer with an empty name.
#[test]
fn an_answer_names_the_model_for_a_request_that_names_none() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("CTX", 512).start_ready();
    let client = gateway.client();
    let mut unnamed = chat("", false);
    unnamed.as_object_mut().unwrap().remove("model");
    for (body, expected) in [(chat("", false), "tiny-chat"), (unnamed, "tiny-chat"), (chat("any", false), "any")] {
        assert_ok(&client.post_json("/v1/chat/completions", &body), expected);
    }
    let deployment = "/openai/deployments/tiny-chat/chat/completions";
    assert_ok(&client.post_json(deployment, &chat("other", false)), "tiny-chat");
    let mut stream = client.stream("/v1/chat/completions", &chat("", true));
    let events = stream.events();
    let pieces: Vec<Value> = events.iter().filter(|event| !event.is_done()).map(Event::json).collect();
    assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece["model"] == "tiny-chat"), "{pieces:?}");
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list:\n- {{model_name: far, litellm_params: {{api_base: \"{}\"}}}}\n", remote.url());
    let gateway = Gateway::builder().reals(&config).start_ready();
    assert_ok(&gateway.client().post_json("/v1/chat/completions", &chat("", false)), "far");
}

/// Sends a chat request and returns the model and the worker that have served it.
fn served_by(client: &Client, name: &str) -> (String, String) {
    let answer = client.post_json("/v1/chat/completions", &chat(name, false));
    assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    let header = |name: &str| answer.header(name).unwrap().to_owned();
    (header("x-llamagate-model"), header("x-llamagate-worker"))
}

fn chat(name: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "hello"}]);
    json!({"model": name, "messages": messages, "max_tokens": 4, "stream": stream, "temperature": 0})
}

/// Asserts that a chat with this model is answered, whole and as a stream, and under the name that was asked for.
#[track_caller]
fn assert_chats(client: &Client, name: &str) {
    let answer = client.post_json("/v1/chat/completions", &chat(name, false));
    let body = assert_ok(&answer, name);
    assert!(body["choices"][0]["message"]["content"].is_string(), "{name}: {body}");

    let mut stream = client.stream("/v1/chat/completions", &chat(name, true));
    assert_eq!(stream.head.status, 200, "{name}");
    let events = stream.events();
    assert!(stream.is_complete() && events.last().is_some_and(Event::is_done), "{name}: {events:?}");
    let pieces: Vec<Value> = events.iter().filter(|event| !event.is_done()).map(Event::json).collect();
    assert!(pieces.len() > 1, "{name}: {pieces:?}");
    assert!(pieces.iter().all(|piece| piece["model"] == name), "{name}: {pieces:?}");
}

/// Asserts that this model embeds texts.
#[track_caller]
fn assert_embeds(client: &Client, name: &str) {
    let answer = client.post_json("/v1/embeddings", &json!({"model": name, "input": ["hello there", "rain"]}));
    let body = assert_ok(&answer, name);
    let vectors = body["data"].as_array().unwrap_or_else(|| panic!("{name}: {body}"));
    assert!(vectors.len() == 2 && vectors.iter().all(|vector| vector["embedding"][0].is_number()), "{name}: {body}");
}

/// Asserts that this model ranks documents.
#[track_caller]
fn assert_reranks(client: &Client, name: &str) {
    let body = json!({"model": name, "query": "a small bird", "documents": ["the sparrow sings", "rain falls"]});
    let body = assert_ok(&client.post_json("/v1/rerank", &body), name);
    assert_eq!(body["results"].as_array().map(Vec::len), Some(2), "{name}: {body}");
}

/// Asserts that a response is complete, has the status 200 and names the model that was asked for; returns its JSON.
#[track_caller]
fn assert_ok(answer: &Response, name: &str) -> Value {
    assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    assert!(answer.complete, "{name}");
    let body = answer.json();
    assert_eq!(body["model"], name, "{body}");
    body
}

/// Returns the state of each model in `/v1/models`, by id.
fn states_by_id(client: &Client) -> BTreeMap<String, String> {
    let list = client.get("/v1/models").json();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {list}")).to_owned();
    list["data"].as_array().unwrap().iter().map(|model| (text(&model["id"]), text(&model["meta"]["state"]))).collect()
}

fn state(client: &Client, id: &str) -> String {
    states_by_id(client).remove(id).unwrap_or_else(|| panic!("{id} is not in the list"))
}

/// Returns the ids and the states of all models, sorted by id.
fn states(client: &Client) -> Vec<(&'static str, &'static str)> {
    let leak = |text: String| &*text.leak();
    states_by_id(client).into_iter().map(|(id, state)| (leak(id), leak(state))).collect()
}
