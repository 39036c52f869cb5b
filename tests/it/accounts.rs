//! Accounting: the line of each request in the access log and its share in the metrics agree with what the client
//! received, and the accounting changes no byte of a response.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use super::support::{
    client::{Client, RawClient},
    gateway::{Backend, Gateway, USER},
    model_file::Kind,
    resources,
    wait::{SOON, eventually, eventually_some},
};

/// Defines each case as two tests, with the fake and with the real llama-server.
macro_rules! for_both {
    ($($name:ident: $kind:ident, $model:literal;)+) => {
        mod fake {
            $(#[test] fn $name() {
                super::$name(&super::ready(super::Backend::Fake { script: serde_json::json!({}), kind: super::Kind::$kind }));
            })+
        }
        mod real {
            $(#[test] fn $name() { super::$name(&super::ready(super::Backend::Real { model: $model })) })+
        }
    };
}

for_both! {
    tokens_of_every_way_to_generate_are_counted: Chat, "tiny-chat.gguf";
    tokens_of_embeddings_are_counted: Embedding, "tiny-embedding.gguf";
    tokens_of_a_rerank_are_counted: Rerank, "tiny-rerank.gguf";
    no_byte_of_an_answer_is_changed: Chat, "tiny-chat.gguf";
}

fn ready(backend: Backend) -> Gateway {
    let gateway = Gateway::builder().backend(backend).start();
    gateway.wait_ready();
    gateway
}

fn scripted(script: Value) -> Gateway {
    ready(Backend::Fake { script, kind: Kind::Chat })
}

/// Waits for the line of one request in the access log and returns its fields. The words in front of the named fields
/// are `time`, `method` and `path`.
#[track_caller]
pub(super) fn access_log_line(gateway: &Gateway, request_id: &str) -> BTreeMap<String, String> {
    let folder = gateway.data_dir().join("logs/access");
    let wanted = format!(" req={request_id} ");
    let line = eventually_some(&format!("a line for {request_id}"), SOON, || {
        let name = fs::read_to_string(folder.join("latest.txt")).ok()?;
        let text = fs::read_to_string(folder.join(name.trim())).ok()?;
        let complete = &text[..text.rfind('\n')?];
        let mut lines = complete.lines().filter(|line| line.contains(&wanted));
        let line = lines.next().map(str::to_owned);
        assert_eq!(lines.next(), None, "one line for one request");
        line
    });
    let mut plain = ["time", "method", "path"].into_iter();
    let field = |word: &str| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (plain.next().unwrap_or("?").to_owned(), word.to_owned()),
    };
    line.split(' ').map(field).collect()
}

/// Returns the series of the metrics with their values.
fn series(gateway: &Gateway) -> BTreeMap<String, f64> {
    let answer = gateway.health().header("Accept", "text/plain").get("/metrics");
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name.into(), value.parse().unwrap())).collect()
}

fn tokens(series: &BTreeMap<String, f64>, what: &str, model: &str, key: &str) -> u64 {
    let name = format!("llamagate_{what}_tokens_total{{model=\"{model}\",key=\"{key}\"}}");
    series.get(&name).copied().unwrap_or(0.0) as u64
}

fn or_dash(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Sends a request and returns the JSON of the response: one value, or one for each event of a stream.
#[track_caller]
fn ask(client: &Client, path: &str, body: &Value) -> Vec<Value> {
    if body["stream"] == true {
        let mut stream = client.stream(path, body);
        let events = stream.events();
        assert!(stream.head.status == 200 && stream.is_complete(), "{path}: {:?} {:?}", stream.head, stream.rest());
        return events.iter().filter_map(|event| serde_json::from_str(&event.data).ok()).collect();
    }
    let answer = client.post_json(path, body);
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    vec![answer.json()]
}

/// Returns the sum of the numbers at these JSON pointers, each from the last event that has one, or `None` without any.
fn sum_at(answer: &[Value], places: &[&str]) -> Option<u64> {
    let at = |place: &&str| answer.iter().rev().find_map(|event| event.pointer(place)?.as_u64());
    let found: Vec<u64> = places.iter().filter_map(at).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

/// A request (path and body), and the JSON pointers of the prompt and the completion tokens in its response.
type Case = (&'static str, Value, &'static [&'static str], &'static [&'static str]);

fn with(mut body: Value, more: Value) -> Value {
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("two objects") };
    fields.extend(more);
    body
}

fn ways_to_generate() -> Vec<Case> {
    let streamed = json!({"stream": true});
    let chat =
        json!({"messages": [{"role": "user", "content": "say \"usage\":{} now"}], "max_tokens": 5, "temperature": 0});
    let prompt = json!({"prompt": "once upon", "max_tokens": 4, "temperature": 0});
    let native = json!({"prompt": "once upon", "n_predict": 4, "temperature": 0});
    let input = json!({"input": "once upon a time", "max_output_tokens": 4, "temperature": 0});
    let timings: (&[&str], &[&str]) = (&["/timings/cache_n", "/timings/prompt_n"], &["/timings/predicted_n"]);
    let usage: (&[&str], &[&str]) = (&["/usage/prompt_tokens"], &["/usage/completion_tokens"]);
    let own: (&[&str], &[&str]) = (&["/tokens_evaluated"], &["/tokens_predicted"]);
    let include = json!({"stream": true, "stream_options": {"include_usage": true}});
    vec![
        ("/v1/chat/completions", chat.clone(), usage.0, usage.1),
        ("/v1/chat/completions", with(chat.clone(), include), usage.0, usage.1),
        ("/v1/chat/completions", with(chat.clone(), streamed.clone()), timings.0, timings.1),
        ("/v1/completions", prompt.clone(), usage.0, usage.1),
        ("/v1/completions", with(prompt, streamed.clone()), usage.0, usage.1),
        ("/completion", native.clone(), own.0, own.1),
        ("/completion", with(native, streamed.clone()), own.0, own.1),
        ("/v1/responses", input.clone(), &["/usage/input_tokens"], &["/usage/output_tokens"]),
        (
            "/v1/responses",
            with(input, streamed.clone()),
            &["/response/usage/input_tokens"],
            &["/response/usage/output_tokens"],
        ),
        (
            "/v1/messages",
            chat.clone(),
            &["/usage/input_tokens", "/usage/cache_read_input_tokens"],
            &["/usage/output_tokens"],
        ),
        (
            "/v1/messages",
            with(chat, streamed),
            &["/message/usage/input_tokens", "/message/usage/cache_read_input_tokens"],
            &["/usage/output_tokens"],
        ),
    ]
}

/// Sends each request, and compares its line in the access log, and the metrics of all, with the tokens in the
/// responses.
#[track_caller]
fn assert_tokens_agree(gateway: &Gateway, cases: Vec<Case>) {
    let (mut prompts, mut completions, mut model) = (0, 0, String::new());
    for (nth, (path, body, prompt, completion)) in cases.iter().enumerate() {
        let id = format!("case-{nth}");
        let answer = ask(&gateway.client().header("X-Request-Id", &id), path, body);
        let (prompt, completion) = (sum_at(&answer, prompt), sum_at(&answer, completion));
        assert!(prompt > Some(0), "{path} {body} reported no tokens: {answer:?}");
        let line = access_log_line(gateway, &id);
        let found = (line["prompt_tokens"].clone(), line["completion_tokens"].clone());
        assert_eq!(found, (or_dash(prompt), or_dash(completion)), "{path} {body} {answer:?}");
        assert_eq!((&*line["path"], &*line["key"], &*line["status"], &*line["code"]), (*path, "user", "200", "-"));
        model = line["model"].clone();
        prompts += prompt.unwrap_or(0);
        completions += completion.unwrap_or(0);
    }
    let series = series(gateway);
    assert_eq!(tokens(&series, "prompt", &model, "user"), prompts);
    assert_eq!(tokens(&series, "completion", &model, "user"), completions);
}

fn tokens_of_every_way_to_generate_are_counted(gateway: &Gateway) {
    assert_tokens_agree(gateway, ways_to_generate());
    let series = series(gateway);
    let gaps: f64 =
        series.iter().filter(|(name, _)| name.starts_with("llamagate_inter_token_seconds_count")).map(|(_, n)| n).sum();
    assert!(gaps >= 3.0, "{gaps}");
}

fn tokens_of_embeddings_are_counted(gateway: &Gateway) {
    let one = json!({"input": "hello there"});
    // A long response, so that the counts are not near its end.
    let many = json!({"input": vec!["hello there"; 100]});
    let coded = json!({"input": "hello there", "encoding_format": "base64"});
    let cases = [one, many, coded].map(|body| ("/v1/embeddings", body, &["/usage/prompt_tokens"][..], &[][..]));
    assert_tokens_agree(gateway, cases.into());
    let native =
        gateway.client().header("X-Request-Id", "native").post_json("/embedding", &json!({"content": "hello"}));
    assert_eq!(native.status(), 200, "{}", native.text());
    assert_eq!(access_log_line(gateway, "native")["prompt_tokens"], "-", "this route reports no tokens");
}

fn tokens_of_a_rerank_are_counted(gateway: &Gateway) {
    let body = json!({"query": "red", "documents": ["a red fox", "a blue sea", "red"]});
    assert_tokens_agree(gateway, vec![("/v1/rerank", body, &["/usage/prompt_tokens"], &[])]);
}

fn no_byte_of_an_answer_is_changed(gateway: &Gateway) {
    let argv = gateway.child_pids().iter().map(|pid| resources::cmdline(*pid)).find(|argv| argv.len() > 3).unwrap();
    let after = |flag: &str| argv.iter().position(|word| word == flag).map(|at| argv[at + 1].clone()).unwrap();
    let key = fs::read_to_string(after("--api-key-file")).unwrap();
    let direct = Client::new(&format!("http://127.0.0.1:{}", after("--port"))).key(key.trim());
    let is_fake = argv.iter().any(|word| word.ends_with("dummy.gguf"));
    // What llama-server leaves out in these is added: see `mended_answers.rs`. The fake's chats have no role.
    let is_mended = |path: &str, body: &Value| {
        path == "/v1/responses" || is_fake && path == "/v1/chat/completions" && body["stream"] == true
    };
    for (path, body, ..) in ways_to_generate().into_iter().filter(|(path, body, ..)| !is_mended(path, body)) {
        let answers = [direct.clone(), gateway.client()].map(|client| client.post_json(path, &body));
        for answer in &answers {
            assert!(answer.status() == 200 && answer.complete, "{path}: {}", answer.text());
        }
        let [theirs, ours] = answers;
        if is_fake {
            assert_eq!(ours.text(), theirs.text(), "{path} {body}");
        } else {
            assert_eq!(without_changing_fields(&ours.text()), without_changing_fields(&theirs.text()), "{path} {body}");
        }
    }
}

/// Returns the lines of a response of the real llama-server without the fields that differ between two runs.
fn without_changing_fields(text: &str) -> Vec<String> {
    fn strip(value: &mut Value) {
        const CHANGING: [&str; 10] = [
            "id",
            "item_id",
            "created",
            "created_at",
            "completed_at",
            "timings",
            "usage",
            "id_slot",
            "generation_settings",
            "tokens_cached",
        ];
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !CHANGING.contains(&name.as_str()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let stripped = |line: &str| match serde_json::from_str(line.trim_start_matches("data: ")) {
        Ok(mut value) => {
            strip(&mut value);
            value.to_string()
        }
        Err(_) => line.to_owned(),
    };
    text.split('\n').map(stripped).collect()
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "one two three"}], "stream": stream})
}

#[test]
fn a_stream_that_the_client_leaves_counts_the_tokens_that_were_sent() {
    let gateway = scripted(json!({"hold_mid_stream": {"after_frames": 3}}));
    let mut stream = gateway.client().header("X-Request-Id", "left").stream("/v1/chat/completions", &chat(true));
    for _ in 0..3 {
        stream.next_event().expect("three events come");
    }
    drop(stream);
    let line = access_log_line(&gateway, "left");
    assert_eq!((&*line["code"], &*line["prompt_tokens"], &*line["completion_tokens"]), ("client_closed", "-", "3"));
    let series = series(&gateway);
    assert_eq!(tokens(&series, "completion", "dummy", "user"), 3);
    assert_eq!(series["llamagate_inter_token_seconds_count{model=\"dummy\"}"], 2.0);
}

#[test]
fn a_stream_that_is_cut_counts_the_tokens_that_were_sent() {
    let gateway = scripted(json!({"reset_mid_stream": {"after_frames": 2}}));
    let mut stream = gateway
        .client()
        .header("X-Request-Id", "cut")
        .stream("/v1/messages", &with(chat(true), json!({"max_tokens": 9})));
    stream.events();
    let line = access_log_line(&gateway, "cut");
    assert_eq!((&*line["code"], &*line["prompt_tokens"], &*line["completion_tokens"]), ("backend_error", "4", "2"));
}

#[test]
fn a_request_whose_client_leaves_before_the_answer_costs_no_tokens() {
    let gateway = scripted(json!({"hold_requests": ["*"]}));
    let client = gateway.client().header("X-Request-Id", "gone");
    let waiting = client.begin("POST", "/v1/chat/completions", chat(false).to_string().as_bytes()).unwrap();
    gateway.journal().wait_for_requests("/v1/chat/completions", 1);
    drop(waiting);
    let line = access_log_line(&gateway, "gone");
    assert_eq!((&*line["status"], &*line["prompt_tokens"], &*line["completion_tokens"]), ("499", "-", "-"));
}

#[test]
fn the_tokens_of_an_answer_are_taken_from_the_budget_of_its_key() {
    let keys = format!("thrifty:{USER}:100000 tokens_per_minute=13\n");
    let gateway = Gateway::builder().keys(&keys).start();
    gateway.wait_ready();
    let ask = |id: &str| {
        let answer = gateway.client().header("X-Request-Id", id).post_json("/v1/chat/completions", &chat(false));
        (answer.status(), access_log_line(&gateway, id)["code"].clone())
    };
    assert_eq!(ask("twelve"), (200, "-".to_owned()));
    assert_eq!(ask("into-debt"), (200, "-".to_owned()), "one token was left");
    assert_eq!(ask("too-many"), (429, "rate_limit_exceeded".to_owned()));
}

#[test]
fn a_stream_that_the_client_leaves_counts_against_the_budget_too() {
    let keys = format!("thrifty:{USER}:100000 tokens_per_minute=3\n");
    let script = json!({"hold_mid_stream": {"after_frames": 3}});
    let gateway = Gateway::builder().script(script).keys(&keys).start();
    gateway.wait_ready();
    let mut stream = gateway.client().header("X-Request-Id", "left").stream("/v1/chat/completions", &chat(true));
    for _ in 0..3 {
        stream.next_event().expect("three events come");
    }
    drop(stream);
    assert_eq!(access_log_line(&gateway, "left")["completion_tokens"], "3");
    let answer = gateway.client().post_json("/v1/chat/completions", &chat(false));
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (429, Some("rate_limit_exceeded")));
}

#[test]
fn every_refusal_has_a_line() {
    let gateway = scripted(json!({}));
    let id = |client: Client, id: &str| client.header("X-Request-Id", id);
    id(gateway.anonymous(), "no-key").post_json("/v1/chat/completions?q=secret", &chat(false));
    id(gateway.client(), "nowhere").get("/nothing/here?q=secret");
    id(gateway.client(), "not-admin").get("/slots");
    for (request, path, key, status, code) in [
        ("no-key", "/v1/chat/completions", "-", "401", "missing_api_key"),
        ("nowhere", "/nothing/here", "-", "404", "route_not_found"),
        ("not-admin", "/slots", "user", "403", "scope_required"),
    ] {
        let line = access_log_line(&gateway, request);
        let found = (&*line["path"], &*line["key"], &*line["status"], &*line["code"], &*line["prompt_tokens"]);
        assert_eq!(found, (path, key, status, code, "-"));
        assert_eq!(line["completion_tokens"], "-");
    }
}

#[test]
fn a_line_of_json_has_the_counts_as_numbers() {
    let gateway = Gateway::builder().without_keys().set("LOG_FORMAT", "json").start();
    gateway.wait_ready();
    gateway.anonymous().header("X-Request-Id", "as-json").post_json("/v1/chat/completions", &chat(false));
    let folder = gateway.data_dir().join("logs/access");
    let line = eventually_some("a line for as-json", SOON, || {
        let name = fs::read_to_string(folder.join("latest.txt")).ok()?;
        assert!(
            name.contains("_access_") && name.as_bytes()[..8].iter().all(u8::is_ascii_digit),
            "a file a day: {name}"
        );
        let text = fs::read_to_string(folder.join(name.trim())).ok()?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["request_id"] == "as-json")
    });
    assert_eq!(
        (&line["prompt_tokens"], &line["completion_tokens"], &line["key_id"]),
        (&json!(4), &json!(8), &json!(null))
    );
    assert!(line["total_ms"].as_f64() > Some(0.0), "{line}");
    assert_eq!(tokens(&series(&gateway), "completion", "dummy", "none"), 8);
}

#[test]
fn a_thousand_paths_keys_and_models_make_no_new_series() {
    let gateway = scripted(json!({}));
    let mut connection = RawClient::connect(gateway.url());
    let mut ask = |path: &str, key: &str, model: &str| {
        let body = json!({"messages": [], "max_tokens": 1, "model": model}).to_string();
        let client = Client::new(gateway.url()).header("X-API-Key", key);
        connection.write(&client.request("POST", path, body.as_bytes())).unwrap();
        let answer = connection.read_response().unwrap();
        if answer.header("connection") == Some("close") {
            connection = RawClient::connect(gateway.url());
        }
        answer.status()
    };
    let mut round = |n: usize| {
        assert_eq!(ask(&format!("/path-{n}/v1/chat/completions"), USER, "m"), 404);
        // After many unknown keys the address is throttled.
        let guessed = ask("/v1/chat/completions", &format!("unknown-key-{n:04}"), "m");
        assert!(guessed == 401 || guessed == 429, "{guessed}");
        assert_eq!(ask("/v1/chat/completions", USER, &format!("model-{n}")), 200);
    };
    let names = || series(&gateway).into_keys().collect::<BTreeSet<_>>();
    let requests = |status: u16| {
        let all = series(&gateway);
        let of =
            |name: &&String| name.starts_with("llamagate_requests_total") && name.contains(&format!("\"{status}\""));
        all.keys().filter(of).map(|name| all[name]).sum::<f64>()
    };
    (0..100).for_each(&mut round);
    eventually("the first requests are counted", SOON, || requests(200) == 100.0);
    let before = names();
    (100..1000).for_each(&mut round);
    eventually("all requests are counted", SOON, || requests(200) == 1000.0);
    assert_eq!(names(), before);
    assert_eq!((requests(401) + requests(429), requests(404)), (1000.0, 1000.0));
    let other = "llamagate_requests_total{model=\"other\",route=\"other\",status=\"404\"}";
    assert_eq!(series(&gateway)[other], 1000.0);
}

#[test]
fn every_documented_metric_is_exported() {
    let gateway = scripted(json!({}));
    gateway.anonymous().post_json("/v1/chat/completions", &chat(false));
    gateway.client().header("X-Request-Id", "good").post_json("/v1/chat/completions", &chat(false));
    assert_eq!(access_log_line(&gateway, "good")["status"], "200");
    let text = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    for (kind, names) in [
        (
            "counter",
            "gateway_requests_total gateway_requests_success_total gateway_requests_error_total \
             gateway_requests_authenticated_total gateway_requests_unauthorized_total gateway_bytes_sent_total \
             gateway_queue_rejections_total gateway_queue_wait_seconds_total llamagate_requests_total \
             llamagate_refusals_total llamagate_prompt_tokens_total llamagate_completion_tokens_total \
             llamagate_key_requests_total llamagate_worker_restarts_total",
        ),
        (
            "gauge",
            "gateway_requests_active gateway_queue_depth gateway_uptime_seconds llamagate_worker_state \
             llamagate_workers_ready llamagate_model_load_seconds llamagate_model_load_phase_seconds \
             llamagate_build_info llamagate_requests_waiting llamagate_requests_running \
             llamagate_kv_cache_usage_ratio",
        ),
        (
            "histogram",
            "llamagate_request_seconds llamagate_queue_seconds llamagate_time_to_first_byte_seconds \
             llamagate_inter_token_seconds",
        ),
    ] {
        for name in names.split_whitespace() {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind} in {text}");
        }
    }
    assert!(text.contains("llamagate_request_seconds_bucket{le=\"600.0\""), "{text}");
    assert!(text.contains("llamagate_inter_token_seconds_bucket{le=\"0.001\""), "{text}");
    assert!(text.contains("llamagate_inter_token_seconds_bucket{le=\"5.0\""), "{text}");
}
