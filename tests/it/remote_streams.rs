//! Streams of remote backends: which are whole and which are cut, in every spelling of the standard and every framing.

use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::Response,
    gateway::{ADMIN, Gateway, USER},
    remote::{Remote, Reply},
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    /// Its `Content-Length` is reached.
    Length,
    /// The last chunk has come.
    Chunked,
    /// The connection is closed.
    Close,
    /// The connection is closed before the last chunk.
    ChunkedCut,
    /// The connection is closed before the `Content-Length` is reached.
    LengthCut,
}

const ORDERLY: [Framing; 3] = [Framing::Length, Framing::Chunked, Framing::Close];

/// Returns a response with this stream, each byte in a chunk of its own if the body is chunked.
fn stream(body: &str, framing: Framing) -> Reply {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n";
    let chunks: String = body.as_bytes().iter().map(|byte| format!("1\r\n{}\r\n", *byte as char)).collect();
    let text = match framing {
        Framing::Length => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        Framing::LengthCut => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len() + 9),
        Framing::Chunked => format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"),
        Framing::ChunkedCut => format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"),
        Framing::Close => format!("{head}\r\n{body}"),
    };
    Reply::Raw(text.into_bytes())
}

/// Starts a gateway with one remote backend, which is out for good after one failure.
fn ready(remote: &Remote) -> Gateway {
    ready_with(remote, 1, &[])
}

fn ready_with(remote: &Remote, allowed_fails: u32, settings: &[(&str, &str)]) -> Gateway {
    let config = format!("model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{}\"}}}}\n", remote.url());
    let gateway = Gateway::builder().fakes(&config, &[]).set("ALLOWED_FAILS", allowed_fails).set("COOLDOWN_TIME", "1h");
    let gateway = settings.iter().fold(gateway, |gateway, (name, value)| gateway.set(name, value)).start_ready();
    eventually("the backend is ready", READY, || worker(&gateway)["state"] == "ready");
    gateway
}

fn worker(gateway: &Gateway) -> Value {
    gateway.client_with(ADMIN).get("/lb/stats").json()["models"][0]["workers"][0].clone()
}

fn ask(gateway: &Gateway, path: &str) -> Response {
    let body = json!({"model": "m", "messages": [], "prompt": "x", "input": "x", "max_tokens": 9, "stream": true});
    gateway.client().post_json(path, &body)
}

const DONE: &str = "data: [DONE]\n\n";
const STOPPED: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Regression: whole streams of remote backends ended with an error event and counted as failures, so that five good
/// answers were 200 200 200 503 503.
#[test]
fn a_whole_stream_of_a_remote_backend_is_a_success_in_every_spelling() {
    let chat = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let stop = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let other = "data: { \"choices\" : [ { \"finish_reason\" : \"length\" , \"index\" : 1 } ] }\n\n";
    let text_index = "data: {\"choices\":[{\"index\":\"0\",\"finish_reason\":\"stop\"}]}\n\n";
    let usage = "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    let message = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\"}}\n\n";
    let delta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
    let cases: Vec<(&str, String, &str)> = vec![
        (CHAT, format!("{chat}{stop}data: [DONE]\n\n"), ""),
        (CHAT, format!("{chat}{stop}data:[DONE]\n\n"), ""),
        (CHAT, format!("{chat}data:[DONE]\n\n"), ""),
        (CHAT, format!("\u{feff}: hello\nid: 1\nretry\n{chat}event: x\ndata:[DONE]\nid\n\n"), ""),
        (CHAT, format!("{chat}{stop}data: [DONE]"), ""),
        (CHAT, format!("{chat}{stop}"), DONE),
        (CHAT, format!("{chat}{stop}{usage}"), DONE),
        (CHAT, format!("{chat}{stop}{other}"), DONE),
        (CHAT, format!("{chat}{stop}: bye\n\n"), DONE),
        (CHAT, "data: {\"model\":\"m\",\ndata: \"choices\":[{\"finish_reason\":\"stop\"}]}\n\n".to_owned(), DONE),
        // JSON as lax servers write it, and an `error` in each event that is none.
        (CHAT, format!("{chat}{text_index}"), DONE),
        (CHAT, "data: {\"choices\":[{\"logprobs\":[-Infinity],\"finish_reason\":\"stop\"}]}\n\n".to_owned(), DONE),
        (CHAT, "data: {\"error\":null,\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n".to_owned(), DONE),
        (COMPLETIONS, format!("{chat}{stop}"), DONE),
        (COMPLETIONS, format!("{chat}data:[DONE]\n\n"), ""),
        (MESSAGES, format!("{message}event:message_stop\ndata:{{}}\n\n"), ""),
        (MESSAGES, format!("{message}data:{{}}\nevent:message_stop\n\n"), ""),
        (MESSAGES, format!("{message}data: {{ \"type\": \"message_stop\" }}\n\n"), ""),
        (MESSAGES, format!("{message}event: message_stop\n\n"), ""),
        (MESSAGES, format!("{message}{delta}"), STOPPED),
        (RESPONSES, "event:response.completed\ndata:{\"type\":\"response.completed\"}\n\n".to_owned(), ""),
        (RESPONSES, "data: {\"type\":\"response.completed\",\"response\":{}}\n\n".to_owned(), ""),
        (RESPONSES, "data: {}\nevent: response.incomplete\n\n".to_owned(), ""),
    ];
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote);
    let mut served = 0;
    for (path, body, added) in cases {
        for line_end in ["\n", "\r\n", "\r"] {
            // Each chunk holds one byte, so the byte order mark cannot be written as characters.
            let body = body.replace('\n', line_end);
            for framing in ORDERLY.into_iter().filter(|framing| body.is_ascii() || *framing != Framing::Chunked) {
                remote.set_reply(stream(&body, framing));
                let answer = ask(&gateway, path);
                let text = answer.text();
                let what = format!("{path} {framing:?} {body:?}: {text:?}");
                assert!(answer.status() == 200 && answer.complete, "{what}");
                let rest =
                    text.strip_prefix(&body).unwrap_or_else(|| panic!("the bytes of the backend come first: {what}"));
                assert_eq!(rest.trim_start_matches('\n'), added, "{what}");
                served += 1;
            }
        }
    }
    eventually(&format!("{served} are counted as served: {}", worker(&gateway)), SOON, || {
        worker(&gateway)["served"] == served
    });
    assert_eq!((&worker(&gateway)["failures"], &worker(&gateway)["breaker"]), (&json!(0), &json!("closed")));
}

/// Regression: a backend that broke the connection after the end mark, or kept it open, had failed each time.
#[test]
fn what_happens_after_the_end_mark_is_no_failure() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready_with(&remote, 1, &[("STREAM_IDLE_TIMEOUT", "1s")]);
    let body = format!("data: {{\"model\":\"m\",\"choices\":[]}}\n\n{DONE}");
    let Reply::Raw(bytes) = stream(&body, Framing::LengthCut) else { unreachable!() };
    let stays_open = Reply::HoldBetween(bytes, Vec::new());
    let replies = [stream(&body, Framing::ChunkedCut), stream(&body, Framing::LengthCut), stays_open];
    for (served, reply) in (1..).zip(replies) {
        remote.set_reply(reply);
        let answer = ask(&gateway, CHAT);
        assert_eq!((answer.status(), answer.text()), (200, body.clone()));
        eventually("it is counted as served", SOON, || worker(&gateway)["served"] == served);
    }
    assert_eq!((&worker(&gateway)["failures"], &worker(&gateway)["breaker"]), (&json!(0), &json!("closed")));
}

#[test]
fn a_stream_that_has_not_finished_or_whose_body_breaks_off_is_cut() {
    let chat = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let stop = "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\n";
    let open = "data: {\"choices\":[{\"index\":1,\"finish_reason\":null}]}\n\n";
    let text =
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\" data: [DONE]\"}}]}\n\n";
    let delta = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null}}\n\n";
    let created = "event: response.created\ndata: {}\n\n";
    // Regression: it was taken for an error, after which nothing is missing.
    let no_error = "data: {\"error\":null,\"choices\":[{\"delta\":{\"content\":\"half\"},\"finish_reason\":null}]}\n\n";
    let mut cases: Vec<(&str, String, Framing)> = Vec::new();
    for framing in ORDERLY {
        cases.push((CHAT, chat.to_owned(), framing));
        cases.push((CHAT, text.to_owned(), framing));
        cases.push((CHAT, format!("{open}{stop}"), framing));
        cases.push((CHAT, format!("{chat}{stop}data: {{\"usage\":{{\"pro"), framing));
        cases.push((CHAT, String::new(), framing));
        cases.push((MESSAGES, delta.to_owned(), framing));
        cases.push((RESPONSES, created.to_owned(), framing));
        for path in [CHAT, MESSAGES, RESPONSES] {
            cases.push((path, no_error.to_owned(), framing));
        }
    }
    for framing in [Framing::ChunkedCut, Framing::LengthCut] {
        cases.push((CHAT, format!("{chat}{stop}"), framing));
    }
    let remote = Remote::start(Reply::Serve);
    let gateway = ready_with(&remote, 1000, &[]);
    for (failures, (path, body, framing)) in cases.into_iter().enumerate() {
        eventually("the backend has answered its probe", READY, || worker(&gateway)["state"] == "ready");
        remote.set_reply(stream(&body, framing));
        let mut text = String::new();
        eventually("the backend gets the request", READY, || {
            text = ask(&gateway, path).text();
            !text.contains("backend_unavailable")
        });
        let what = format!("{path} {framing:?} {body:?}: {text:?}");
        let has_error = text.replace("\"error\":null", "").contains("\"error\"");
        assert!(has_error && !text.ends_with(DONE) && !text.ends_with(STOPPED), "{what}");
        for event in text.split("\n\n").filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: "))) {
            serde_json::from_str::<Value>(event).unwrap_or_else(|_| panic!("each event is whole: {what}"));
        }
        eventually("the failure is counted", SOON, || worker(&gateway)["failures"] == failures + 1);
    }
}

/// Starts a gateway with this backend and a key with a limit on tokens.
fn metered(remote: &Remote, tokens_per_minute: u32, params: &str) -> Gateway {
    let base = remote.url();
    let config = format!("model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{base}\"{params}}}}}\n");
    let limit = match tokens_per_minute {
        0 => String::new(),
        limit => format!(" tokens_per_minute={limit}"),
    };
    let keys = format!("metered:{USER}:100000{limit}\nboss:{ADMIN}:100000 scope=admin\n");
    let gateway = Gateway::builder().fakes(&config, &[]).keys(&keys).start_ready();
    eventually("the backend is ready", READY, || worker(&gateway)["state"] == "ready");
    gateway
}

/// A stream with a total in several chunks, the last of which has no choices.
fn counted(spell: impl Fn(&str) -> String) -> String {
    let event = |json: &str| format!("data: {}\n\n", spell(json));
    [
        event(r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}],"usage":{"prompt_tokens":20,"completion_tokens":1}}"#),
        event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":5}}"#),
        event(r#"{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":7}}"#),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

/// Regression: six streams with prompts of 5,000 words each passed a limit of 1,000 tokens a minute, because the backend
/// was not asked for its token counts.
#[test]
fn a_remote_backend_is_asked_for_its_tokens_where_they_are_limited() {
    let remote = Remote::start(Reply::Serve);
    let options = |sent: &str| serde_json::from_str::<Value>(sent).unwrap()["stream_options"].clone();
    let asks = json!({"include_usage": true});
    for (limit, params, is_asked) in [(100_000, "", true), (0, ", tpm: 100000", true), (0, "", false)] {
        let gateway = metered(&remote, limit, params);
        for path in [CHAT, "/chat/completions", COMPLETIONS] {
            for (given, is_hidden) in [
                (Value::Null, is_asked),
                (json!({"include_usage": false}), is_asked),
                (json!({"include_usage": true}), false),
            ] {
                for framing in ORDERLY {
                    remote.set_reply(stream(&counted(str::to_owned), framing));
                    let mut body = json!({"model": "m", "messages": [], "prompt": "x", "stream": true});
                    if !given.is_null() {
                        body["stream_options"] = given.clone();
                    }
                    let answer = gateway.client().post_json(path, &body);
                    let what = format!("{limit} {params} {path} {given} {framing:?}: {}", answer.text());
                    let sent = options(&remote.received().last().unwrap().body);
                    assert_eq!(sent, if is_asked { asks.clone() } else { given.clone() }, "{what}");
                    assert_eq!(answer.text().contains("\"choices\":[],"), !is_hidden, "{what}");
                    assert!(
                        answer.text().ends_with(DONE) && answer.text().contains("\"finish_reason\":\"stop\""),
                        "{what}"
                    );
                }
            }
        }
        let mut whole = json!({"model": "m", "messages": []});
        remote.set_reply(Reply::Serve);
        for stream in [Value::Null, json!(false)] {
            whole["stream"] = stream;
            assert_eq!(gateway.client().post_json(CHAT, &whole).status(), 200);
            assert_eq!(options(&remote.received().last().unwrap().body), Value::Null, "this is no stream");
        }
    }
}

#[test]
fn the_last_total_of_a_stream_counts_in_any_spelling() {
    let remote = Remote::start(Reply::Serve);
    let gateway = metered(&remote, 100_000, "");
    let spellings: [fn(&str) -> String; 5] = [
        str::to_owned,
        |json| json.replace(':', " : ").replace(',', " , "),
        |json| json.replace("usage", "\\u0075sage").replace("prompt_tokens", "prompt\\u005ftokens"),
        |json| {
            let usage = "\"usage\":{\"x\":{\"prompt_tokens\":9},\"prompt_tokens\":20,";
            json.replace("\"prompt_tokens\":20,", "").replace("\"usage\":{", usage)
        },
        |json| json.replace(",\"usage\"", ",\ndata: \"usage\""),
    ];
    for (at, spell) in spellings.into_iter().enumerate() {
        for framing in ORDERLY {
            remote.set_reply(stream(&counted(spell), framing));
            let id = format!("{at}-{framing:?}");
            let body = json!({"model": "m", "messages": [], "stream": true});
            let answer = gateway.client().header("X-Request-Id", &id).post_json(CHAT, &body);
            assert!(answer.text().ends_with(DONE), "{id}: {}", answer.text());
            let line = access_log_line(&gateway, &id);
            assert_eq!((&*line["prompt_tokens"], &*line["completion_tokens"]), ("20", "7"), "{id}: {}", answer.text());
        }
    }
}

/// Regression: a backend that reports no tokens was free.
#[test]
fn what_a_remote_backend_does_not_report_is_estimated() {
    let remote = Remote::start(Reply::Serve);
    let words = "word ".repeat(5000);
    let text = "x".repeat(5000);
    let chunk = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\n{DONE}"
    );
    let short = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n{DONE}");
    let message = format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{{\"text\":\"{text}\"}}}}\n\n{STOPPED}"
    );
    let whole = json!({"choices": [{"message": {"content": text}}]}).to_string();
    let json_head = "Content-Type: application/json";
    for (what, path, prompt, reply) in [
        ("the prompt of a chat", CHAT, &words, stream(&short, Framing::Chunked)),
        ("the text of a chat", CHAT, &"x".to_owned(), stream(&chunk, Framing::Chunked)),
        ("the text of a message", MESSAGES, &"x".to_owned(), stream(&message, Framing::Chunked)),
        ("a whole answer", CHAT, &"x".to_owned(), Reply::whole(200, json_head, whole)),
        ("embeddings", "/v1/embeddings", &words, Reply::whole(200, json_head, "{\"data\":[]}")),
    ] {
        let gateway = metered(&remote, 100, "");
        remote.set_reply(reply);
        let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}], "input": prompt, "max_tokens": 9, "stream": true});
        let ask = || gateway.client().post_json(path, &body);
        assert_eq!(ask().status(), 200, "{what}");
        eventually(&format!("{what} is charged"), SOON, || ask().status() == 429);
    }
    let gateway = metered(&remote, 100, "");
    remote.set_reply(stream(&short, Framing::Chunked));
    for _ in 0..2 {
        assert_eq!(ask(&gateway, CHAT).status(), 200, "a short one costs little");
    }
}

/// Regression: an error event in plain text was appended to the packed bytes of a stream, which no client can read. What is
/// packed in a way that is not unpacked goes on as it is.
#[test]
fn nothing_is_appended_to_packed_bytes() {
    let packed: Vec<u8> = [&[0xa7; 40][..], b"\n\ndata: x\n\n"].concat();
    let head = |kind: &str, length: usize| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: br\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let remote = Remote::start(Reply::Serve);
    let gateway = ready_with(&remote, 1000, &[]);
    for kind in ["text/event-stream", "application/json"] {
        for missing in [0, 9] {
            let bytes = [head(kind, packed.len() + missing).as_bytes(), &packed].concat();
            eventually("the backend has answered its probe", READY, || worker(&gateway)["state"] == "ready");
            remote.set_reply(Reply::Raw(bytes));
            let body = json!({"model": "m", "messages": [], "stream": true}).to_string();
            let client = gateway.client().header("Accept-Encoding", "gzip, br");
            let mut answer = client.begin("POST", CHAT, body.as_bytes()).unwrap();
            let head = answer.read_head().unwrap();
            assert_eq!((head.status, head.header("content-encoding")), (200, Some("br")));
            let text = answer.read_exactly(packed.len()).unwrap();
            assert_eq!(text, packed, "{kind} {missing}");
            if missing > 0 {
                assert_eq!(answer.read_to_close(), b"", "the connection is closed, and nothing follows");
            }
            assert_eq!(remote.received().last().unwrap().header("accept-encoding"), Some("identity"));
        }
    }
}

/// Regression: the client read a 400 about a member that it had not sent, and the log said nothing.
#[test]
fn a_backend_that_does_not_know_stream_options_is_named_in_the_log() {
    let remote = Remote::start(Reply::Serve);
    let gateway = metered(&remote, 100_000, "");
    let words = "Unrecognized request argument supplied: stream_options";
    remote.set_reply(Reply::Status(400, json!({"error": {"message": words}})));
    let answer = ask(&gateway, CHAT);
    assert_eq!((answer.status(), answer.json()["error"]["message"].as_str()), (400, Some(words)));
    let is_named = |output: &str| output.contains("does not take stream_options") && output.contains("strip_params");
    eventually("the log says what to do", SOON, || is_named(&gateway.output()));
}
