//! The behaviour of proxied routes, tested with the fake and with the real llama-server, so that a difference between
//! the two is noticed.

use serde_json::{Value, json};

use super::support::{
    client::Response,
    gateway::{Backend, Gateway},
    model_file::Kind,
};

/// Defines each case as two tests, with the fake and with the real llama-server.
macro_rules! contract {
    ($($(#[doc = $doc:literal])* $name:ident($gateway:ident) $body:block)+) => {
        $( fn $name($gateway: &Gateway) $body )+

        mod fake {
            $(#[test] fn $name() { super::$name(&super::ready(super::fake())) })+
        }
        mod real {
            $(#[test] fn $name() { super::$name(&super::ready(super::Backend::Real { model: "tiny-chat.gguf" })) })+
        }
    };
}

fn fake() -> Backend {
    Backend::Fake { script: json!({}), kind: Kind::Chat }
}

fn ready(backend: Backend) -> Gateway {
    let gateway = Gateway::builder().backend(backend).start();
    gateway.wait_ready();
    gateway
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "stream": stream, "temperature": 0})
}

fn assert_error_of_llama_server(response: &Response, status: u16) {
    assert_eq!(response.status(), status, "{}", response.text());
    assert!(response.json()["error"]["message"].is_string(), "{}", response.text());
}

contract! {
    a_chat_is_answered_with_a_length_and_a_request_id(gateway) {
        let answer = gateway.client().header("X-Request-Id", "my-id.1").post_json("/v1/chat/completions", &chat(false));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert!(answer.complete);
        assert!(answer.json()["choices"][0]["message"]["content"].is_string());
        assert_eq!(answer.header("x-request-id"), Some("my-id.1"));
        assert_eq!(answer.header("server"), None);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("keep-alive"), None);
    }

    a_stream_arrives_event_by_event_and_ends_with_done(gateway) {
        let mut stream = gateway.client().stream("/v1/chat/completions", &chat(true));
        let events = stream.events();
        assert!(events.len() > 3, "{} events", events.len());
        assert!(events.last().is_some_and(|event| event.is_done()));
        assert!(stream.is_complete());
    }

    a_request_right_after_a_stream_never_reuses_its_connection(gateway) {
        // llama-server announces keep-alive, but closes the connection after each stream.
        for _ in 0..100 {
            let mut stream = gateway.client().stream("/v1/chat/completions", &chat(true));
            assert!(stream.events().last().is_some_and(|event| event.is_done()));
            let answer = gateway.client().post_json("/v1/chat/completions", &chat(false));
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    }

    completions_and_helper_routes_are_forwarded(gateway) {
        let client = gateway.client();
        let answer = client.post_json("/completion", &json!({"prompt": "a", "n_predict": 2}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let answer = client.post_json("/tokenize", &json!({"content": "hello"}));
        assert!(answer.json()["tokens"].is_array(), "{}", answer.text());
        assert_eq!(client.get("/v1/models").status(), 200);
        assert_eq!(client.get("/props?x=1").status(), 200);
    }

    a_chunked_body_is_forwarded_completely(gateway) {
        let body = chat(false).to_string();
        let (first, second) = body.split_at(20);
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            super::support::gateway::USER, first.len(), second.len(),
        );
        let mut raw = super::support::client::RawClient::connect(gateway.url());
        raw.write(request.as_bytes()).unwrap();
        let answer = raw.read_response().unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    an_error_of_llama_server_is_forwarded_unchanged(gateway) {
        let answer = gateway.client().send("POST", "/v1/chat/completions", b"{not json");
        assert!(answer.status() == 400 || answer.status() == 500, "{}", answer.status());
        assert!(answer.json()["error"]["message"].is_string());
        let no_list = json!({"messages": "hello"});
        assert_error_of_llama_server(&gateway.client().post_json("/v1/chat/completions", &no_list), 400);
    }

    anthropic_messages_are_answered_and_stream(gateway) {
        let request = json!({"model": "any", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
        let answer = gateway.client().post_json("/v1/messages", &request);
        assert_eq!(answer.json()["type"], "message", "{}", answer.text());
        let mut streamed = request;
        streamed["stream"] = json!(true);
        let mut stream = gateway.client().stream("/v1/messages", &streamed);
        let events = stream.events();
        assert_eq!(events.last().and_then(|event| event.name.as_deref()), Some("message_stop"));
    }

    an_unknown_route_never_reaches_llama_server(gateway) {
        for (method, path) in [("POST", "/props"), ("GET", "/tools"), ("POST", "/slots/0?action=erase"), ("GET", "/nothing")] {
            let answer = gateway.client().send(method, path, b"");
            assert_eq!(answer.status(), 404, "{method} {path}");
            assert_eq!(answer.json()["error"]["code"], "route_not_found");
        }
    }

    slots_need_the_scope_admin(gateway) {
        assert_eq!(gateway.client().get("/slots").json()["error"]["code"], "scope_required");
        assert_eq!(gateway.client_with(super::support::gateway::ADMIN).get("/slots").status(), 200);
    }
}
