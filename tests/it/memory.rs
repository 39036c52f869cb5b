//! What requests cost in memory: many open streams, and large bodies. No byte of them is lost.

use serde_json::{Value, json};

use super::support::{
    gateway::Gateway,
    remote::{Remote, Reply},
    resources::{limit_open_files, open_files, peak_resident_kib, resident_kib},
    wait::{READY, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";

/// Streams that are open at the same time, unless `OPEN_STREAMS` says another number.
const STREAMS: usize = 256;

/// Most resident memory of the gateway for each open stream, in KiB. Both builds take about 18.
const STREAM_KIB: u64 = 22;

/// Size of a large body, such as a chat with pictures, in bytes.
const LARGE_BODY: usize = 10 * 1024 * 1024;

/// Starts a gateway with one remote backend, which serves all requests at the same time.
fn ready(remote: &Remote, streams: usize) -> Gateway {
    let config = format!(
        "model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{}\", max_parallel_requests: {streams}}}}}\n",
        remote.url()
    );
    let limits = [
        ("MAX_CONCURRENT_REQUESTS", streams.to_string()),
        ("MAX_CONNECTIONS", (streams + 16).to_string()),
        ("MAX_REQUEST_BODY_SIZE", (2 * LARGE_BODY).to_string()),
    ];
    let builder = limits.into_iter().fold(Gateway::builder(), |builder, (name, value)| builder.set(name, value));
    let gateway = builder.fakes(&config, &[]).start_ready();
    let models = || gateway.health().get("/health").json()["models"].clone();
    eventually("the backend is ready", READY, || models()[0]["state"] == "ready");
    gateway
}

fn chat(stream: bool, text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream})
}

#[test]
fn many_streams_are_open_at_once_and_none_loses_a_byte() {
    let streams = std::env::var("OPEN_STREAMS").map_or(STREAMS, |number| number.parse().expect("a number"));
    // The clients and the backend are in this process.
    let (_, hard) = open_files(std::process::id());
    limit_open_files(std::process::id(), hard);
    let remote = Remote::start(Reply::HoldMidStream);
    let gateway = ready(&remote, streams);
    // What the first request allocates stays allocated.
    remote.release();
    assert!(gateway.client().stream(CHAT, &chat(true, "x")).events().last().is_some_and(|event| event.is_done()));
    let before = resident_kib(gateway.pid());
    let mut open: Vec<_> = (0..streams).map(|_| gateway.client().stream(CHAT, &chat(true, "x"))).collect();
    for stream in &mut open {
        let event = stream.next_event();
        assert!(event.is_some(), "{} {}", stream.head.status, stream.rest());
        assert_eq!(event.unwrap().json()["choices"][0]["delta"]["content"], "one");
    }
    let each = resident_kib(gateway.pid()).saturating_sub(before) / streams as u64;
    println!("{streams} open streams take {each} KiB each");
    assert!(each <= STREAM_KIB, "{each} KiB for each of {streams} streams");
    (0..streams).for_each(|_| remote.release());
    for stream in &mut open {
        let events = stream.events();
        assert_eq!(events.iter().map(|event| event.data.as_str()).collect::<Vec<_>>(), ["[DONE]"]);
        assert!(stream.is_complete() && stream.rest().is_empty());
    }
    eventually("all slots are free", SOON, || gateway.health().get("/health").json()["queue"]["active"] == 0);
}

#[test]
fn a_large_body_arrives_whole_and_takes_little_more_than_its_size() {
    let remote = Remote::start(Reply::Serve);
    let gateway = ready(&remote, 4);
    let small = chat(false, "x").to_string();
    let large = chat(false, &"0123456789abcdef".repeat(LARGE_BODY / 16)).to_string();
    assert_eq!(gateway.client().send("POST", CHAT, small.as_bytes()).status(), 200);
    let before = peak_resident_kib(gateway.pid());
    assert_eq!(gateway.client().send("POST", CHAT, large.as_bytes()).status(), 200);
    let taken = peak_resident_kib(gateway.pid()).saturating_sub(before);
    println!("a body of {} KiB takes {taken} KiB", large.len() / 1024);
    assert!(remote.received().last().unwrap().body == large, "every byte arrives");
    assert!(taken * 1024 <= large.len() as u64 * 6 / 5, "{taken} KiB for a body of {} KiB", large.len() / 1024);
}
