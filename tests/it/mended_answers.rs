//! What llama-server's answers lack, and the gateway adds. Each test fails with llama-server b11669 alone; one that passes
//! without its mend in `src/gateway/response/mend/` says that the mend can go.

use serde_json::{Value, json};

use super::support::{
    client::Event,
    gateway::{ADMIN, Gateway},
    remote::{Remote, Reply},
    wait::{READY, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const FIM: &str = "/v1/fim/completions";

/// A model whose answers begin with a character of several tokens, and one that may answer anything.
const MODELS: &str = "
models:
  sky: {file: tiny-chat.gguf, aliases: [heaven], args: [--grammar, 'root ::= \"🌌 hello 🌌\"', --jinja]}
  any: {file: tiny-chat.gguf, args: [--jinja]}
";

fn serving() -> Gateway {
    Gateway::builder().reals(MODELS).set("CTX", 1024).set("PARALLEL", 2).start()
}

fn say(model: &str, members: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

fn respond(model: &str, members: Value) -> Value {
    let mut body = json!({"model": model, "input": "hi", "max_output_tokens": 30});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

#[track_caller]
fn stream(gateway: &Gateway, path: &str, body: &Value) -> Vec<Event> {
    let mut stream = gateway.client().stream(path, body);
    let events = stream.events();
    assert!(stream.is_complete() && stream.rest().is_empty(), "{events:?}");
    events
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().filter_map(|event| event.name.as_deref()).collect()
}

/// Regression: clients failed at every answer that begins with an emoji.
#[test]
fn an_emoji_at_the_beginning_takes_nothing_away() {
    let gateway = serving();
    for n in [1, 2] {
        let events = stream(&gateway, CHAT, &say("heaven", json!({"stream": true, "n": n})));
        let chunks: Vec<Value> = events.iter().filter(|event| !event.is_done()).map(Event::json).collect();
        for index in 0..n {
            let of_choice: Vec<&Value> =
                chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index).collect();
            assert_eq!(of_choice[0]["delta"], json!({"role": "assistant", "content": "🌌"}), "{chunks:?}");
            assert!(of_choice[1..].iter().all(|choice| choice["delta"].get("role").is_none()), "{chunks:?}");
        }
        assert!(chunks.iter().all(|chunk| chunk["model"] == "heaven"), "{chunks:?}");
    }
    for max_tokens in [1, 5, 30] {
        let events = stream(&gateway, MESSAGES, &say("heaven", json!({"stream": true, "max_tokens": max_tokens})));
        assert_eq!(names(&events).iter().filter(|name| **name == "message_start").count(), 1, "{events:?}");
        let start = events[0].json();
        assert_eq!((&start["message"]["role"], &start["message"]["model"]), (&json!("assistant"), &json!("heaven")));
        assert_eq!(events.last().unwrap().name.as_deref(), Some("message_stop"));
        let chunk = &stream(&gateway, CHAT, &say("sky", json!({"stream": true, "max_tokens": max_tokens})))[0];
        assert_eq!(chunk.json()["choices"][0]["delta"]["role"], "assistant");
    }
}

/// Regression: the AI SDK and OpenAI's `responses.stream` failed at every stream.
#[test]
fn the_events_of_a_response_are_whole() {
    let gateway = serving();
    for (max_output_tokens, last) in [(1, "incomplete"), (2, "incomplete"), (5, "incomplete"), (30, "completed")] {
        let limit = json!({"stream": true, "max_output_tokens": max_output_tokens});
        let events = stream(&gateway, RESPONSES, &respond("heaven", limit));
        let numbers: Vec<u64> = events.iter().map(|event| event.json()["sequence_number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<u64>>(), "{events:?}");
        assert_eq!(names(&events)[..2], ["response.created", "response.in_progress"]);
        assert_eq!(names(&events).iter().filter(|name| **name == "response.created").count(), 1, "{events:?}");
        let created = events[0].json()["response"].clone();
        assert_eq!((&created["output"], &created["model"]), (&json!([]), &json!("heaven")));
        assert!(created["created_at"].is_u64(), "{created}");
        for event in &events[2..events.len() - 1] {
            assert_eq!(event.json()["output_index"], 0, "{event:?}");
        }
        let end = events.last().unwrap().json();
        assert_eq!(end["type"], format!("response.{last}"));
        assert_eq!((&end["response"]["status"], &end["response"]["id"]), (&json!(last), &created["id"]));

        let whole =
            gateway.client().post_json(RESPONSES, &respond("heaven", json!({"max_output_tokens": max_output_tokens})));
        assert_eq!(whole.json()["status"], last, "{}", whole.text());
        let reason = if last == "incomplete" { json!("max_output_tokens") } else { Value::Null };
        assert_eq!(whole.json()["incomplete_details"]["reason"], reason, "{}", whole.text());
        assert_eq!(whole.json()["model"], "heaven");
    }
}

#[test]
fn a_response_has_the_format_that_was_asked_for() {
    let gateway = serving();
    let schema = json!({
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true});
    for stream in [false, true] {
        let body = respond("any", json!({"text": {"format": format}, "stream": stream}));
        let answer = gateway.client().post_json(RESPONSES, &body);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let response = match stream {
            false => answer.json(),
            true => {
                let text = answer.text();
                let end = text.rsplit("data: ").next().unwrap().trim();
                serde_json::from_str::<Value>(end).unwrap()["response"].clone()
            }
        };
        let text = response["output"][0]["content"][0]["text"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {response}"));
        assert!((1..=9).contains(&value["a"].as_i64().unwrap()), "{value}");
    }
    let unknown = gateway.client().post_json(RESPONSES, &respond("any", json!({"text": {"format": {"type": "poem"}}})));
    assert!(unknown.status() == 400 && unknown.text().contains("poem"), "{}", unknown.text());
}

#[test]
fn a_message_that_ends_at_a_stop_sequence_says_so() {
    let gateway = serving();
    for (sequences, expected) in
        [(json!(["x", "ell"]), ("stop_sequence", json!("ell"))), (json!(["x"]), ("end_turn", Value::Null))]
    {
        let body = say("heaven", json!({"stop_sequences": sequences}));
        let whole = gateway.client().post_json(MESSAGES, &body).json();
        let streamed = stream(&gateway, MESSAGES, &say("heaven", json!({"stop_sequences": sequences, "stream": true})));
        let delta = streamed.iter().find(|event| event.name.as_deref() == Some("message_delta")).unwrap().json();
        for end in [&whole, &delta["delta"]] {
            assert_eq!((&end["stop_reason"], &end["stop_sequence"]), (&json!(expected.0), &expected.1), "{end}");
        }
        assert_eq!(whole["model"], "heaven");
    }
}

/// Regression: llama-server's errors on `/v1/messages` came in OpenAI's shape, and no answer had a `request-id`.
#[test]
fn anthropics_clients_can_read_llama_servers_errors_and_the_id_of_a_request() {
    let gateway = serving();
    let client = gateway.client().header("x-request-id", "mine");
    for (content, words) in [(json!(7), "content"), (json!("long ".repeat(2000)), "context size")] {
        for stream in [false, true] {
            let messages = json!([{"role": "user", "content": content}]);
            let body = json!({"model": "any", "max_tokens": 2, "messages": messages, "stream": stream});
            for path in [MESSAGES, "/v1/messages/count_tokens"] {
                let answer = client.post_json(path, &body);
                if answer.status() == 200 {
                    assert!(path != MESSAGES, "counting does not need the context: {}", answer.text());
                    continue;
                }
                let error = answer.json();
                assert_eq!((answer.status(), &error["type"]), (400, &json!("error")), "{error}");
                assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
                assert!(error["error"]["message"].as_str().unwrap().contains(words), "{error}");
                assert_eq!(answer.header("request-id"), Some("mine"));
            }
        }
    }
    let answer = client.post_json(MESSAGES, &say("any", json!({"max_tokens": 1})));
    assert_eq!((answer.status(), answer.header("request-id")), (200, Some("mine")));
    assert_eq!(client.post_json(CHAT, &say("any", json!({"max_tokens": 1}))).header("request-id"), None);
    assert_eq!(client.header("anthropic-version", "2023-06-01").get("/v1/models").header("request-id"), Some("mine"));
}

#[test]
fn code_between_a_prompt_and_a_suffix_is_completed_by_a_llama_server() {
    let override_kv = |(name, id): (&str, u32)| format!("--override-kv, 'tokenizer.ggml.{name}_token_id=int:{id}'");
    let overrides = [("fim_pre", 20), ("fim_suf", 21), ("fim_mid", 22)].map(override_kv).join(", ");
    let config =
        format!("models:\n  code: {{file: tiny-chat.gguf, args: [{overrides}]}}\n  plain: {{file: tiny-chat.gguf}}\n");
    let gateway = Gateway::builder().reals(&config).set("CTX", 512).start();
    let ask = |members: Value| {
        let mut body =
            json!({"model": "code", "prompt": "def f(", "max_tokens": 4, "random_seed": 7, "temperature": 0});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    for suffix in [json!({"suffix": "return a"}), json!({"suffix": null}), json!({})] {
        let whole = gateway.client().post_json(FIM, &ask(suffix.clone()));
        assert_eq!(whole.status(), 200, "{}", whole.text());
        let whole = whole.json();
        let choice = &whole["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap();
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(text), &json!("length")), "{whole}");
        assert_eq!((&whole["model"], &whole["usage"]["completion_tokens"]), (&json!("code"), &json!(4)), "{whole}");

        let mut body = ask(suffix);
        body["stream"] = json!(true);
        let events = stream(&gateway, FIM, &body);
        let (done, chunks) = events.split_last().unwrap();
        assert!(done.is_done(), "{events:?}");
        let chunks: Vec<Value> = chunks.iter().map(Event::json).collect();
        let streamed: String =
            chunks.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
        assert_eq!(streamed, text);
        assert!(chunks.iter().all(|chunk| chunk["model"] == "code" && chunk["object"] == "chat.completion.chunk"));
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    }
    let refused = gateway.client().post_json(FIM, &ask(json!({"model": "plain", "suffix": "x"})));
    assert!(refused.status() == 400 && refused.text().contains("not supported"), "{}", refused.text());
}

#[test]
fn a_remote_backend_is_asked_by_its_own_route_for_code_with_a_suffix() {
    let answer = json!({"choices": [{"message": {"content": "x"}}], "model": "m"});
    let remote = Remote::start(Reply::Status(200, answer.clone()));
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let body = json!({"model": "m", "prompt": "a", "suffix": "b"});
    assert_eq!(gateway.client().post_json(FIM, &body).json(), answer);
    let received = remote.received().remove(0);
    assert_eq!((&*received.path, serde_json::from_str::<Value>(&received.body).unwrap()), (FIM, body));
}

/// Regression: a 404 of a remote backend, which named a model, was told as a route that the backend lacks.
#[test]
fn an_error_of_a_remote_backend_keeps_its_status_and_words_in_anthropics_shape() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).set("ALLOWED_FAILS", 1000).start_ready();
    let client = gateway.client();
    for (status, kind) in [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ] {
        let error = json!({"error": {"message": "these words", "type": "x", "code": "model_not_found"}});
        remote.set_reply(Reply::Status(status, error.clone()));
        for stream in [false, true] {
            let answer = client.post_json(MESSAGES, &say("m", json!({"stream": stream})));
            assert_eq!(answer.status(), status, "{}", answer.text());
            let expected = json!({"type": "error", "error": {"type": kind, "message": "these words"}});
            assert_eq!(answer.json(), expected, "{status}");
        }
        let answer = client.post_json(CHAT, &say("m", json!({})));
        assert_eq!((answer.status(), answer.json()), (status, error), "OpenAI's clients get it as it is");
    }
}

#[test]
fn the_stream_of_a_remote_backend_is_passed_on_as_it_is() {
    let remote = Remote::start(Reply::Serve);
    let config = format!("model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}}}]", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let response = "id: 1\nevent: response.created\ndata: {\"type\":\"response.created\", \"sequence_number\":7,\"response\":{\"model\":\"m\"}}\n\nid: 2\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"m\"}}\n\n";
    let message = "id: 1\nevent: message_start\ndata: {\"type\": \"message_start\"}\n\nid: 2\nevent: message_stop\ndata: {\"type\": \"message_stop\"}\n\n";
    let chat = "data: {\"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\"}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";
    for (path, text) in [(RESPONSES, response), (MESSAGES, message), (CHAT, chat)] {
        remote.set_reply(Reply::whole(200, "Content-Type: text/event-stream", text));
        let answer = gateway.client().post_json(path, &json!({"model": "m", "messages": [], "stream": true}));
        assert_eq!(answer.text(), text, "{path}");
    }
}

#[test]
fn prefix_affinity_keeps_a_session_on_its_worker_whatever_its_prompts_say() {
    let config = "models: {m: {file: m.gguf, preload: true, replicas: 3, strategy: prefix-affinity}}";
    let gateway = Gateway::builder().fakes(config, &[("m.gguf", json!({}))]).start_ready();
    eventually("all replicas are ready", READY, || {
        let stats = gateway.client_with(ADMIN).get("/lb/stats").json();
        stats["models"][0]["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "ready")
    });
    let ask = |session: &str, header: Option<&str>, turn: usize| {
        let prompt = format!("{turn} {session} {}", "long ".repeat(600));
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
        let client = match header {
            Some(name) => gateway.client().header(name, session),
            None => {
                body["prompt_cache_key"] = json!(session);
                gateway.client()
            }
        };
        let answer = client.post_json(CHAT, &body);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.header("x-llamagate-worker").unwrap().to_owned()
    };
    for header in [None, Some("session-id"), Some("x-session-affinity"), Some("x-claude-code-session-id")] {
        let sessions: Vec<String> = ["a", "b", "c"].iter().map(|name| format!("{name}{header:?}")).collect();
        let home: Vec<String> = sessions.iter().map(|session| ask(session, header, 0)).collect();
        let different: std::collections::BTreeSet<_> = home.iter().collect();
        assert_eq!(different.len(), 3, "new sessions are spread over the workers: {home:?}");
        for turn in 1..4 {
            let mut all: Vec<_> = sessions.iter().zip(&home).collect();
            all.rotate_left(turn % 2);
            for (session, home) in all {
                assert_eq!(&ask(session, header, turn), home, "{session} {turn}");
            }
        }
    }
}
