//! The serving threads: connections on all of them, one limit for all, and their end in the middle of answers.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{
    client::{RawClient, Stream},
    gateway::Gateway,
    resources::threads,
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";

/// How often each serving thread has gone to sleep, which it does after each request that finds it asleep.
fn sleeps(gateway: &Gateway) -> Vec<u64> {
    let cores = threads(gateway.pid()).into_iter().filter(|(name, _)| name.starts_with("core-"));
    cores.map(|(_, sleeps)| sleeps).collect()
}

fn ping(client: &mut RawClient) {
    client.write(PING).unwrap();
    assert_eq!(client.read_response().unwrap().status(), 200);
}

/// Starts a gateway with two streams on each core, each held after its first event.
fn streams_on_all_cores(drain_timeout: &str) -> (Gateway, Vec<Stream>) {
    let script = json!({"hold_mid_stream": {"after_frames": 1}});
    let cores = std::thread::available_parallelism().unwrap().get();
    let builder = Gateway::builder().script(script).set("DRAIN_TIMEOUT", drain_timeout);
    let gateway = builder.set("MAX_CONCURRENT_REQUESTS", 2 * cores).start_ready();
    let chat: Value = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let mut streams: Vec<Stream> =
        (0..2 * sleeps(&gateway).len()).map(|_| gateway.client().stream(CHAT, &chat)).collect();
    for stream in &mut streams {
        assert!(stream.next_event().is_some());
    }
    (gateway, streams)
}

#[test]
fn connections_are_spread_over_all_cores() {
    let gateway = Gateway::builder().start_ready();
    let before = sleeps(&gateway);
    assert_eq!(before.len(), std::thread::available_parallelism().unwrap().get().min(16));
    let mut clients: Vec<RawClient> = before.iter().map(|_| RawClient::connect(gateway.url())).collect();
    for _ in 0..2 {
        clients.iter_mut().for_each(ping);
    }
    eventually("each core has served requests", SOON, || {
        sleeps(&gateway).iter().zip(&before).all(|(now, before)| *now >= before + 2)
    });
}

#[test]
fn max_connections_counts_those_of_all_cores() {
    let most = std::thread::available_parallelism().unwrap().get() + 1;
    let gateway = Gateway::builder().set("MAX_CONNECTIONS", most).start_ready();
    let mut served: Vec<RawClient> = (0..most).map(|_| RawClient::connect(gateway.url())).collect();
    served.iter_mut().for_each(ping);
    let mut waiting = RawClient::connect(gateway.url());
    waiting.write(PING).unwrap();
    for _ in 0..10 {
        served.iter_mut().for_each(ping);
        assert!(!waiting.has_news());
    }
    drop(served.pop());
    assert_eq!(waiting.read_response().unwrap().status(), 200);
}

#[test]
fn a_drain_waits_for_the_streams_of_all_cores() {
    let (mut gateway, mut streams) = streams_on_all_cores("30s");
    gateway.signal(Signal::SIGTERM);
    eventually("the health port reports the stop", SOON, || gateway.health().get("/ping").status() == 503);
    gateway.control().release_all_requests();
    for stream in &mut streams {
        assert!(stream.events().last().is_some_and(|event| event.is_done()));
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_stop_ends_the_streams_of_all_cores_with_an_error() {
    let (mut gateway, mut streams) = streams_on_all_cores("200ms");
    gateway.signal(Signal::SIGTERM);
    for stream in &mut streams {
        assert_eq!(stream.events().last().unwrap().json()["error"]["code"], "shutting_down");
        assert!(stream.is_complete());
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
