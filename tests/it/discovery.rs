//! What clients try before and beside inference: spellings of paths, probes, lists of models, packed bodies, and many
//! small requests at once.

use serde_json::{Value, json};

use super::routing::{answered_by, chat, refused};
use super::support::{
    client::{Client, RawClient, Response},
    gateway::{ADMIN, Backend, Gateway, LIMITED, USER},
    model_file::Kind,
    packing::{bare_deflate, gzip, zlib, zstandard},
    remote::{Remote, Reply},
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

fn start(settings: &[(&str, &str)]) -> Gateway {
    Gateway::builder().set_all(settings).start_ready()
}

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

/// Regression: base addresses that end with a slash or with `/v1` gave 404 for every route.
#[test]
fn every_spelling_of_a_path_means_its_route_and_llama_server_gets_the_plain_one() {
    let gateway = start(&[]);
    let client = gateway.client();
    let spellings = [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/v1/chat/completions",
        "/v1/chat/completion%73",
        "/openai/v1/chat/completions?api-version=1",
    ];
    for path in spellings {
        let answer = client.post_json(path, &question());
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        assert_eq!(refused(&gateway.anonymous().post_json(path, &question()), 401), "missing_api_key");
    }
    assert_eq!(gateway.journal().requests(CHAT).len(), spellings.len());
    for path in ["/v1/models/", "//models", "/v1/mode%6Cs", "/v1/v1/models", "/%76%31/models/?limit=5"] {
        assert_eq!(client.get(path).json()["object"], "list", "{path}");
    }
    for path in ["/v1//messages", "/v1/v1/messages/", "//v1/message%73"] {
        assert_eq!(
            gateway.anonymous().post_json(path, &json!({})).json()["type"],
            "error",
            "Anthropic's shape: {path}"
        );
    }
    assert_eq!(gateway.health().get("//health/").status(), 200);
}

#[test]
fn a_closed_route_stays_closed_however_it_is_spelled() {
    let gateway = start(&[]);
    let admin = gateway.client_with(ADMIN);
    for (method, path) in [
        ("POST", "/props"),
        ("POST", "//props"),
        ("POST", "/v1/v1/props"),
        ("POST", "/prop%73/"),
        ("POST", "/slots/0?action=erase"),
        ("POST", "/slots//0/"),
        ("GET", "//tools"),
        ("POST", "/%74ools"),
        ("GET", "/cors-proxy/"),
        ("GET", "/v1/v1/stream"),
        ("GET", "/v1//stream/0"),
        ("POST", "/v1/streams/lookup/"),
        ("POST", "/lora-adapters"),
        ("POST", "/lora%2Dadapters/"),
        ("POST", "/openai/deployments/m/props"),
        ("POST", "/openai/deployments/m/slots/0"),
        ("GET", "/openai/deployments/m/chat/completions"),
        ("POST", "/openai/deployments/m/v1/models/m/unload"),
        ("POST", "/v1/models/../../props"),
        ("POST", "/v1/chat%2Fcompletions"),
    ] {
        assert_eq!(refused(&admin.send(method, path, b"{}"), 404), "route_not_found", "{method} {path}");
    }
    let reached: Vec<Value> = gateway.journal().events("request");
    let probes = ["/health", "/v1/health", "/props", "/slots", "/metrics", "/v1/models"];
    for request in reached {
        assert!(request["method"] == "GET" && probes.contains(&request["path"].as_str().unwrap()), "{request}");
    }
}

#[test]
fn a_path_of_azures_api_names_the_model_whatever_the_body_says() {
    let remote = Remote::start(Reply::Serve);
    let config = format!(
        "
models:
  org/local: {{file: local.gguf, preload: true}}
model_list:
  - {{model_name: far, litellm_params: {{model: openai/theirs, api_base: \"{}\"}}}}
",
        remote.url()
    );
    let gateway = Gateway::builder().fakes(&config, &[("local.gguf", json!({}))]).start_ready();
    let client = gateway.client();
    let ask = |path: &str, body: &Value| client.post_json(path, body);
    for body in [question(), chat("far"), chat("org/local"), chat("nothing")] {
        for name in ["org/local", "org%2Flocal", "org%2flocal"] {
            let answer = ask(&format!("/openai/deployments/{name}/chat/completions?api-version=2024-10-21"), &body);
            assert_eq!(answered_by(&answer), "org/local", "{body}");
        }
        let answer = ask("/openai/deployments/far/chat/completions", &body);
        assert_eq!((answer.status(), &answer.json()["model"]), (200, &json!("far")), "{body}");
    }
    for request in remote.received() {
        assert_eq!(request.path, CHAT);
        assert_eq!(serde_json::from_str::<Value>(&request.body).unwrap()["model"], "theirs");
    }
    assert_eq!(refused(&ask("/openai/deployments/none/chat/completions", &question()), 404), "model_not_found");
}

/// Regression: a client that tries a WebSocket first got 404, and spent its attempts on it.
#[test]
fn a_websocket_handshake_is_refused_at_once_with_or_without_a_key() {
    let gateway = start(&[]);
    let handshake = |path: &str, key: &str, headers: &str| {
        let mut client = RawClient::connect(gateway.url());
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{key}{headers}\r\n");
        client.write(request.as_bytes()).unwrap();
        let answer = client.read_response().unwrap();
        // The connection can be used again.
        client.write(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(client.read_response().unwrap().status(), 200, "{path}");
        answer
    };
    let key = format!("Authorization: Bearer {}\r\n", USER);
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for path in ["/v1/responses", "/responses", CHAT, "/v1/chat/completions/?model=m", "/v1/models", "/v1/messages"] {
        for key in ["", &key] {
            for headers in [websocket, "connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n"] {
                let answer = handshake(path, key, headers);
                assert_eq!(answer.status(), 426, "{path}: {}", answer.text());
                assert_eq!(answer.header("upgrade"), Some("HTTP/2.0"));
                assert_eq!(answer.header("connection"), Some("Upgrade"));
                let error = &answer.json()["error"];
                let is_anthropic = path == "/v1/messages";
                assert!(is_anthropic || error["code"] == "upgrade_required", "{error}");
            }
        }
    }
    assert_eq!(handshake("/v1/realtime", &key, websocket).status(), 404, "a path that is no route");
    assert_eq!(handshake("/health", &key, websocket).status(), 200);
    assert_eq!(handshake("/v1/models", &key, "Connection: Upgrade\r\nUpgrade: h2c\r\n").status(), 200);
    assert_eq!(handshake("/v1/models", &key, "Upgrade: websocket\r\n").status(), 200, "no Connection: Upgrade");
    assert!(gateway.journal().requests("/v1/responses").is_empty());
}

/// Regression: probes of clients and platforms counted as refusals.
#[test]
fn probes_of_clients_are_answered_and_count_as_no_refusal() {
    let gateway = start(&[]);
    let anonymous = gateway.anonymous();
    for client in [&anonymous, &gateway.client(), &gateway.health()] {
        let root = client.get("/").json();
        assert_eq!((&root["name"], &root["version"]), (&json!("llamagate"), &json!(env!("CARGO_PKG_VERSION"))));
        assert_eq!(root["links"]["models"], "/v1/models");
    }
    assert_eq!(anonymous.get("/api/hello").status(), 200);
    assert_eq!(anonymous.get("/v1/health").json()["status"], "ok");
    assert_eq!(gateway.health().get("/v1/health").json()["status"], "ok");
    let head = |client: &Client, path: &str| {
        let answer = client.send("HEAD", path, b"");
        assert!(answer.body.is_empty());
        (answer.status(), answer.header("content-length").map(str::to_owned))
    };
    for path in ["/", "/ping", "/health", "/v1/health", "/api/hello", "/metrics"] {
        assert_eq!(head(&anonymous, path).0, 200, "{path}");
    }
    let length = |path: &str| Some(gateway.client().get(path).body.len().to_string());
    for path in ["/v1/models", "/models", "/v1/models/chat", "/props"] {
        assert_eq!(head(&gateway.client(), path), (200, length(path)), "{path}");
    }
    for path in ["/livez", "/readyz", "/ping", "/health"] {
        assert_eq!(head(&gateway.health(), path).0, 200, "{path}");
    }
    let metrics = anonymous.header("Accept", "text/plain").get("/metrics").text();
    assert!(!metrics.contains("route_not_found"), "{metrics}");
}

#[test]
fn counting_tokens_and_looking_at_adapters_needs_no_slot() {
    let gateway = Gateway::builder().script(json!({"hold_requests": [CHAT]})).start_ready();
    let client = gateway.client();
    let _held = client.begin("POST", CHAT, question().to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests(CHAT, 1);
    for path in ["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"] {
        assert_eq!(client.post_json(path, &question()).json()["input_tokens"], 2, "{path}");
    }
    for path in ["/v1/responses/input_tokens", "/responses/input_tokens"] {
        assert_eq!(client.post_json(path, &json!({"input": "one two"})).json()["input_tokens"], 2, "{path}");
    }
    assert_eq!(client.get("/lora-adapters").json(), json!([]));
    assert_eq!(refused(&client.post_json("/lora-adapters", &json!([])), 404), "route_not_found");
}

#[test]
fn the_real_llama_server_counts_tokens_lists_adapters_and_agrees_about_the_model() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" }).set("CTX", 512).start();
    gateway.wait_ready();
    let client = gateway.client();
    let body = json!({"input": "hi", "messages": [{"role": "user", "content": "hi"}]});
    for path in [
        "/v1/chat/completions/input_tokens",
        "/chat/completions/input_tokens",
        "/v1/responses/input_tokens",
        "/responses/input_tokens",
    ] {
        let answer = client.post_json(path, &body);
        assert!(answer.json()["input_tokens"].as_u64().is_some_and(|count| count > 0), "{path}: {}", answer.text());
    }
    assert_eq!(client.get("/lora-adapters").json(), json!([]));
    let props = client.get("/props").json();
    let model = &client.get("/v1/models").json()["data"][0];
    let n_ctx = &props["default_generation_settings"]["n_ctx"];
    assert_eq!((&model["meta"]["n_ctx"], &model["max_model_len"]), (n_ctx, n_ctx), "{props}");
    assert_eq!(model["status"]["value"], "loaded");
    let head = client.send("HEAD", "/props", b"");
    assert_eq!((head.status(), head.body.len()), (200, 0));
}

const FLEET: &str = "
models:
  talks: {file: talks.gguf, tier: light, aliases: [gpt-4o, org/other], ctx: 1024}
  vectors: {file: vectors.gguf}
  ranks: {file: ranks.gguf, aliases: [hidden], unlisted: true}
";

fn fleet(settings: &[(&str, &str)]) -> Gateway {
    let models = [("talks.gguf", Kind::Chat), ("vectors.gguf", Kind::Embedding), ("ranks.gguf", Kind::Rerank)];
    let models = models.map(|(name, kind)| (name.to_owned(), json!({}), kind)).to_vec();
    Gateway::builder().backend(Backend::Fakes { config: FLEET.into(), models }).set_all(settings).start_ready()
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect()
}

/// Regression: clients of llama.cpp took 4096 tokens for the context, because `meta.n_ctx` was missing.
#[test]
fn the_list_of_models_has_what_clients_of_four_apis_read() {
    let gateway = fleet(&[]);
    let client = gateway.client();
    let list = client.get("/v1/models").json();
    assert_eq!(ids(&list), ["talks", "vectors"]);
    let page = ["has_more", "first_id", "last_id"].map(|name| list[name].clone());
    assert_eq!(page, [json!(false), json!("talks"), json!("vectors")]);
    let talks = &list["data"][0];
    let created = talks["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(talks["created"], created.as_second());
    for (member, expected) in [
        ("type", json!("model")),
        ("display_name", json!("talks")),
        ("aliases", json!(["gpt-4o", "org/other"])),
        ("status", json!({"value": "unloaded"})),
        ("architecture", json!({"input_modalities": ["text"], "output_modalities": ["text"]})),
        ("max_model_len", json!(1024)),
    ] {
        assert_eq!(talks[member], expected, "{member}");
    }
    for member in ["n_ctx", "n_ctx_train", "n_params", "size", "ftype"] {
        assert!(!talks["meta"][member].is_null(), "{member}: {talks}");
    }
    let first = &list["models"][0];
    assert_eq!(["slug", "name", "model", "display_name"].map(|name| &first[name]), ["talks"; 4]);
    assert_eq!(first["capabilities"], json!(["completion"]));
    assert_eq!(list["models"][1]["capabilities"], json!(["embedding"]));
    assert!(!list.to_string().contains("null"), "what is not known is left out: {list}");
    assert_eq!(&client.get("/models/org/other").json(), talks, "the twin without /v1");

    let page = client.get("/v1/models?limit=1&after_id=talks").json();
    assert_eq!((ids(&page), &page["has_more"]), (vec!["vectors"], &json!(false)));
    assert_eq!(refused(&client.get("/v1/models?limit=none"), 400), "bad_request");
}

#[test]
fn aliases_are_models_of_the_list_where_that_is_wanted() {
    let gateway = fleet(&[("LIST_ALIASES", "true")]);
    let list = gateway.client().get("/v1/models").json();
    assert_eq!(ids(&list), ["talks", "gpt-4o", "org/other", "vectors"]);
    let alias = &list["data"][1];
    assert_eq!((&alias["root"], &alias["meta"]["n_ctx"]), (&json!("talks"), &json!(1024)));
    assert_eq!(list["models"].as_array().unwrap().len(), 4);
}

#[test]
fn a_model_is_loaded_and_unloaded_as_at_llama_cpps_router() {
    let gateway = fleet(&[]);
    let (client, admin) = (gateway.client(), gateway.client_with(ADMIN));
    let status = |id: &str| admin.get(&format!("/models/{id}")).json()["status"]["value"].clone();
    for order in ["/models/load", "/models/unload"] {
        assert_eq!(refused(&client.post_json(order, &json!({"model": "talks"})), 403), "scope_required");
        assert_eq!(refused(&admin.post_json(order, &json!({"model": "none"})), 404), "model_not_found");
        for body in ["{}", "", "[]", r#"{"model":7}"#, r#"{"model":"talks","model":"ranks"}"#] {
            assert_eq!(refused(&admin.send("POST", order, body.as_bytes()), 400), "bad_request", "{order} {body}");
        }
    }
    let answer = admin.post_json("/models/load", &json!({"model": "gpt-4o"}));
    assert_eq!((answer.status(), answer.json()), (200, json!({"success": true, "id": "talks", "state": "starting"})));
    eventually("the model is loaded", READY, || status("talks") == "loaded");
    let answer = admin.post_json("//models/unload/", &json!({"model": "talks"}));
    assert_eq!((answer.status(), &answer.json()["success"]), (200, &json!(true)));
    eventually("the model is unloaded", READY, || status("talks") == "unloaded");
    assert_eq!(status("vectors"), "unloaded");
}

/// Regression: a client that asked for 50 counts at once got 503 for 18 of them, and had half of its minute spent.
#[test]
fn a_burst_of_small_requests_waits_its_turn_and_costs_none_of_the_requests_a_minute() {
    const BURST: usize = 50;
    for (path, body) in [
        ("/tokenize", json!({"content": "one two"})),
        ("/detokenize", json!({"tokens": [1]})),
        ("/v1/messages/count_tokens", question()),
    ] {
        let gateway = Gateway::builder().script(json!({"hold_requests": [path]})).start_ready();
        let client = gateway.client_with(LIMITED);
        let body = body.to_string();
        let mut asked: Vec<RawClient> =
            (0..BURST).map(|_| client.begin("POST", path, body.as_bytes()).unwrap()).collect();
        assert_eq!(gateway.journal().wait_for_requests(path, 32).len(), 32, "{path}");
        gateway.control().release_all_requests();
        let answers: Vec<Response> = asked.iter_mut().map(|client| client.read_response().unwrap()).collect();
        for answer in &answers {
            assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
            assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("2"), "{path}");
        }
        assert_eq!(client.get("/v1/models").header("x-ratelimit-remaining-requests"), Some("1"));
    }
}

#[test]
fn small_requests_wait_for_a_model_that_loads_or_sleeps() {
    for settings in [&[][..], &[("IDLE_UNLOAD", "1s")]] {
        let script = json!({"load": {"until_released": settings.is_empty()}});
        let gateway = Gateway::builder().script(script).set_all(settings).start();
        if settings.is_empty() {
            gateway.journal().wait_for_event("bound");
        } else {
            gateway.wait_ready();
            let state = || gateway.anonymous().get("/health").json()["models"][0]["state"].clone();
            eventually("the model sleeps", READY, || state() == "stopped");
        }
        let body = json!({"content": "x"}).to_string();
        let client = gateway.client();
        let mut asked: Vec<RawClient> =
            (0..50).map(|_| client.begin("POST", "/tokenize", body.as_bytes()).unwrap()).collect();
        if settings.is_empty() {
            gateway.control().release_load();
        }
        for client in &mut asked {
            let answer = client.read_response().unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    }
}

/// Regression: a packed body was "no JSON object" with several models, and went on packed with one.
#[test]
fn a_packed_body_is_unpacked_with_one_model_and_with_many() {
    let several = "models:\n  m: {file: m.gguf, preload: true}\n  n: {file: n.gguf}\n";
    let several = Gateway::builder().fakes(several, &[("m.gguf", json!({})), ("n.gguf", json!({}))]).start_ready();
    let text = json!({"model": "m", "messages": [{"role": "user", "content": "packed ".repeat(100)}]}).to_string();
    let bytes = text.as_bytes();
    let packed = [
        ("gzip", gzip(bytes)),
        ("x-gzip", gzip(bytes)),
        ("GZIP", gzip(bytes)),
        ("deflate", zlib(bytes)),
        ("deflate", bare_deflate(bytes)),
        ("zstd", zstandard(bytes)),
        ("identity", bytes.to_vec()),
        ("gzip, zstd", zstandard(&gzip(bytes))),
    ];
    for (gateway, journal) in [(&start(&[]), None), (&several, Some("m.gguf"))] {
        for (coding, body) in &packed {
            let client = gateway.client().header("Content-Encoding", coding);
            let answer = client.send("POST", CHAT, body);
            assert_eq!(answer.status(), 200, "{coding}: {}", answer.text());
        }
        let journal = journal.map_or_else(|| gateway.journal(), |file| gateway.model_file(file).journal());
        let received = journal.requests(CHAT);
        assert_eq!(received.len(), packed.len());
        for request in received {
            assert_eq!(request["body"], text);
            assert_eq!(request["headers"]["content-length"], bytes.len().to_string());
            assert_eq!(request["headers"]["content-encoding"], Value::Null);
        }
    }
}

#[test]
fn a_packed_body_that_cannot_be_unpacked_is_refused_by_name() {
    let gateway = start(&[("MAX_REQUEST_BODY_SIZE", "100000")]);
    let send = |coding: &str, body: &[u8]| gateway.client().header("Content-Encoding", coding).send("POST", CHAT, body);
    for coding in ["br", "compress", "gzip, br", "aes128gcm", "gzip, gzip, gzip, gzip"] {
        let answer = send(coding, b"{}");
        assert_eq!(refused(&answer, 415), "unsupported_content_encoding", "{coding}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(["gzip", "deflate", "zstd"].iter().all(|name| message.contains(name)), "{message}");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate, zstd, identity"));
    }
    let bomb = vec![b' '; 50_000_000];
    for (coding, body) in [("gzip", gzip(&bomb)), ("deflate", zlib(&bomb)), ("zstd", zstandard(&bomb))] {
        let answer = send(coding, &body[..body.len().min(100_000)]);
        assert_eq!(refused(&answer, 413), "payload_too_large", "{coding}");
    }
    let whole = question().to_string();
    for (coding, body) in [
        ("gzip", whole.clone().into_bytes()),
        ("gzip", gzip(whole.as_bytes())[..20].to_vec()),
        ("zstd", gzip(whole.as_bytes())),
        ("deflate", [zlib(whole.as_bytes()), b"more".to_vec()].concat()),
    ] {
        let answer = send(coding, &body);
        assert_eq!(refused(&answer, 400), "bad_request", "{coding}");
        assert!(answer.json()["error"]["message"].to_string().contains("cannot be unpacked"), "{}", answer.text());
    }
    let anthropic = gateway.client().header("Content-Encoding", "br").send("POST", "/v1/messages", b"{}");
    assert_eq!((anthropic.status(), &anthropic.json()["type"]), (415, &json!("error")));
    assert!(gateway.journal().requests(CHAT).is_empty());
    assert_eq!(send("gzip", &gzip(whole.as_bytes())).status(), 200, "the gateway goes on");
}

/// Regression: llama-server's refusal of `n: 2` did not say which setting allows it.
#[test]
fn more_answers_than_slots_are_refused_with_the_name_of_the_setting() {
    let gateway = start(&[("PARALLEL", "2")]);
    let ask = |path: &str, n: Value| gateway.client().post_json(path, &json!({"n": n, "messages": [], "prompt": "x"}));
    for path in [CHAT, "/v1/completions", "/completion"] {
        for n in [json!(1), json!(2), json!(2.0), json!(null)] {
            assert_eq!(ask(path, n.clone()).status(), 200, "{path} {n}");
        }
        let answer = ask(path, json!(3));
        assert_eq!(refused(&answer, 400), "invalid_parameter");
        assert_eq!(answer.json()["error"]["param"], "n", "{}", answer.text());
        assert!(answer.json()["error"]["message"].to_string().contains("PARALLEL"), "{}", answer.text());
    }
    assert_eq!(gateway.client().post_json("/tokenize", &json!({"content": "x", "n": 3})).status(), 200);
}

/// Regression: a Windows path as the name of a file, or a line before the first boundary, was 400.
#[test]
fn a_form_of_any_legal_shape_reaches_its_model() {
    let config = "models:\n  m: {file: m.gguf, preload: true}\n  n: {file: n.gguf}\n";
    let gateway = Gateway::builder().fakes(config, &[("m.gguf", json!({})), ("n.gguf", json!({}))]).start_ready();
    let send = |path: &str, content_type: &str, body: &str| {
        gateway.client().header("Content-Type", content_type).send("POST", path, body.as_bytes())
    };
    let form = |file: &str| {
        format!(
            "--line\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--line\r\nContent-Disposition: \
             form-data; name=\"file\"; filename=\"{file}\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--line--\r\n"
        )
    };
    let plain = "multipart/form-data; boundary=line";
    for (content_type, body) in [
        (plain, form("a.wav")),
        (plain, form("C:\\music\\a.wav")),
        (plain, form("a \\\"live\\\" one.wav")),
        (plain, format!("\r\n{}", form("a.wav"))),
        (plain, format!("A form follows.\r\n{}The end.", form("a.wav"))),
        (plain, form("a.wav").replacen("--line\r\n", "--line  \r\n", 1)),
        ("Multipart/Form-Data ; charset=utf-8 ;  boundary=\"line\"", form("a.wav")),
    ] {
        for path in ["/v1/audio/transcriptions", "/audio/transcriptions"] {
            let answer = send(path, content_type, &body);
            assert_eq!(answered_by(&answer), "m", "{content_type}: {body}");
        }
    }
    for (path, content_type, body, word) in [
        ("/v1/audio/transcriptions", plain, &form("a.wav")[..40], "form"),
        ("/v1/audio/transcriptions", plain, "{}", "form"),
        ("/v1/audio/transcriptions", "multipart/form-data", &form("a.wav"), "boundary"),
        (CHAT, plain, &form("a.wav"), "form"),
    ] {
        let answer = send(path, content_type, body);
        assert_eq!(refused(&answer, 400), "bad_request");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains(word) && !message.contains("no JSON"), "{message}");
    }
    eventually("the forms are counted", SOON, || gateway.model_file("m.gguf").journal().events("request").len() >= 14);
}
