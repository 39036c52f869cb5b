//! A platform pauses the service while requests are in flight: no request fails because of the pause.

use std::{thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::http2::{CONNECTION_START, PING};
use super::support::{
    client::RawClient,
    gateway::{Backend, Gateway, USER},
    resources,
    wait::{SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// The timeouts of a gateway that is paused. The steps of a test before and after the pause take less.
const TIMEOUT: &str = "4s";

/// How long the service is paused: longer than any timeout above, and than llama-server keeps an idle connection.
const PAUSE: Duration = Duration::from_secs(6);

/// Stops these processes with SIGSTOP, calls `during`, and continues them after `PAUSE`.
fn pause(pids: &[u32], during: impl FnOnce()) {
    let all = |signal| pids.iter().for_each(|pid| kill(Pid::from_raw(*pid as i32), signal).unwrap());
    all(Signal::SIGSTOP);
    eventually("they are stopped", SOON, || pids.iter().all(|pid| resources::is_stopped(*pid)));
    during();
    thread::sleep(PAUSE); // no event to wait for: the test needs the time itself
    all(Signal::SIGCONT);
}

/// Waits until the gateway has logged the pause, and asserts that it has done so once.
fn wait_pause_reported(gateway: &Gateway) {
    let is_report = |line: &str| {
        let seconds = line.split_once("this program did not run for ").and_then(|(_, rest)| rest.split_once(" s;"));
        seconds.is_some_and(|(seconds, _)| Duration::from_secs_f64(seconds.parse().unwrap()) >= PAUSE / 2)
    };
    let times = || gateway.output().lines().filter(|line| is_report(line)).count();
    eventually("the pause is reported", SOON, || times() > 0);
    assert_eq!(times(), 1, "{}", gateway.output());
}

/// Sends an HTTP/2 PING and waits for its acknowledgement.
fn ping(client: &mut RawClient) {
    const KIND: u8 = 6;
    client.write(PING).unwrap();
    loop {
        let start = client.read_exactly(9).unwrap();
        client.read_exactly(usize::from(start[1]) << 8 | usize::from(start[2])).unwrap();
        if start[3] == KIND {
            return;
        }
    }
}

/// Returns the process ids of the gateway and of its children.
fn pids(gateway: &Gateway) -> Vec<u32> {
    [vec![gateway.pid()], gateway.child_pids()].concat()
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

fn begin(gateway: &Gateway, request_id: &str) -> RawClient {
    let client = gateway.client().header("X-Request-Id", request_id);
    client.begin("POST", CHAT, chat().to_string().as_bytes()).unwrap()
}

/// Returns the numbers of active and of waiting requests.
fn queue(gateway: &Gateway) -> (Value, Value) {
    let health = gateway.health().get("/health").json();
    (health["queue"]["active"].clone(), health["queue"]["waiting"].clone())
}

#[test]
fn a_pause_lets_no_timeout_expire() {
    let settings = [
        ("REQUEST_TIMEOUT", TIMEOUT),
        ("STREAM_IDLE_TIMEOUT", TIMEOUT),
        ("QUEUE_TIMEOUT", TIMEOUT),
        ("CLIENT_BODY_TIMEOUT", TIMEOUT),
        ("CLIENT_HEADER_TIMEOUT", TIMEOUT),
        ("CLIENT_IDLE_TIMEOUT", TIMEOUT),
        ("HANG_TIMEOUT", TIMEOUT),
        ("MAX_CONCURRENT_REQUESTS", "3"),
    ];
    let script = json!({"hold_requests": [CHAT], "hold_mid_stream": {"after_frames": 2}});
    let gateway = Gateway::builder().script(script).set_all(&settings).start_ready();
    let workers = gateway.child_pids();

    let mut stream = gateway.client().stream(COMPLETION, &json!({"prompt": "x", "stream": true}));
    assert!(stream.next_event().is_some() && stream.next_event().is_some());
    let mut held = begin(&gateway, "held");
    let leaves = begin(&gateway, "leaves");
    gateway.journal().wait_for_requests(CHAT, 2);
    let mut waiting = begin(&gateway, "waits");
    eventually("one request waits", SOON, || queue(&gateway) == (json!(3), json!(1)));
    let request = gateway.client().request("POST", CHAT, chat().to_string().as_bytes());
    let mut half_body = RawClient::connect(gateway.url());
    half_body.write(&request[..request.len() - 5]).unwrap();
    let models = gateway.client().request("GET", "/props", b"");
    let mut half_head = RawClient::connect(gateway.url());
    half_head.write(&models[..models.len() - 5]).unwrap();
    let mut idle = RawClient::connect(gateway.url());
    idle.write(&models).unwrap();
    assert_eq!(idle.read_response().unwrap().status(), 200);
    let mut http2 = RawClient::connect(gateway.url());
    http2.write(CONNECTION_START).unwrap();
    ping(&mut http2);

    pause(&pids(&gateway), || drop(leaves));
    wait_pause_reported(&gateway);

    assert_eq!(access_log_line(&gateway, "leaves")["code"], "client_closed");
    eventually("its slot goes to the request that waits", SOON, || queue(&gateway) == (json!(3), json!(0)));
    half_body.write(&request[request.len() - 5..]).unwrap();
    half_head.write(&models[models.len() - 5..]).unwrap();
    idle.write(&models).unwrap();
    assert_eq!(half_head.read_response().unwrap().status(), 200);
    assert_eq!(idle.read_response().unwrap().status(), 200);
    ping(&mut http2);
    gateway.control().release_all_requests();
    for client in [&mut held, &mut waiting, &mut half_body] {
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
    assert!(stream.events().last().is_some_and(|event| event.is_done()) && stream.is_complete());
    assert_eq!(gateway.child_pids(), workers, "llama-server was not restarted");
}

#[test]
fn a_stream_of_the_real_llama_server_goes_on_after_a_pause() {
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: "tiny-chat.gguf" })
        .set("CTX", "65536")
        .set("STREAM_IDLE_TIMEOUT", TIMEOUT)
        .start_ready();
    let workers = gateway.child_pids();
    let mut request = chat();
    for (name, value) in [("stream", json!(true)), ("ignore_eos", json!(true)), ("max_tokens", json!(3_000))] {
        request[name] = value;
    }
    let mut stream = gateway.client().header("X-Request-Id", "paused").stream(CHAT, &request);
    assert!(stream.next_event().is_some() && stream.next_event().is_some());
    pause(&pids(&gateway), || ());
    assert!(stream.events().last().is_some_and(|event| event.is_done()) && stream.is_complete());
    wait_pause_reported(&gateway);
    let line = access_log_line(&gateway, "paused");
    assert_eq!(line["completion_tokens"], "3000");
    let total = Duration::from_secs_f64(line["total_ms"].parse::<f64>().unwrap() / 1e3);
    assert!(total >= PAUSE, "total_ms includes the pause: {total:?}");
    assert_eq!(gateway.child_pids(), workers, "llama-server was not restarted");
}

#[test]
fn connections_that_llama_server_closed_during_a_pause_are_not_used() {
    const CLIENTS: usize = 8;
    let settings = [("MAX_CONCURRENT_REQUESTS", "8")];
    let gateway = Gateway::builder().script(json!({"hold_requests": [CHAT]})).set_all(&settings).start_ready();
    let mut clients: Vec<RawClient> = std::iter::repeat_with(|| begin(&gateway, "some")).take(CLIENTS).collect();
    gateway.journal().wait_for_requests(CHAT, CLIENTS);
    gateway.control().release_all_requests();
    for client in &mut clients {
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
    // Only the gateway is paused, so llama-server closes its idle connections. The next requests arrive during the
    // pause.
    let request = gateway.client_with(USER).request("POST", CHAT, chat().to_string().as_bytes());
    pause(&[gateway.pid()], || {
        clients.iter_mut().for_each(|client| client.write(&request).unwrap());
    });
    for client in &mut clients {
        assert_eq!(client.read_response().unwrap().status(), 200);
    }
}

#[test]
fn the_drain_is_not_cut_short_by_a_pause() {
    let script = json!({"hold_requests": [CHAT]});
    let mut gateway = Gateway::builder().script(script).set("DRAIN_TIMEOUT", TIMEOUT).start_ready();
    let mut client = begin(&gateway, "drained");
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("the gateway drains", SOON, || gateway.health().get("/readyz").status() == 503);
    pause(&pids(&gateway), || ());
    wait_pause_reported(&gateway);
    gateway.control().release_all_requests();
    assert_eq!(client.read_response().unwrap().status(), 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_pause_counts_neither_as_a_stalled_load_nor_as_idle_time() {
    let loads =
        Gateway::builder().script(json!({"load": {"until_released": true}})).set("LOAD_TIMEOUT", TIMEOUT).start();
    let idles = Gateway::builder().set_all(&[("IDLE_UNLOAD", TIMEOUT), ("SHUTDOWN_TIMEOUT", TIMEOUT)]).start_ready();
    loads.journal().wait_for_event("start");
    let workers = [loads.child_pids(), idles.child_pids()];
    pause(&[pids(&loads), pids(&idles)].concat(), || {});
    wait_pause_reported(&loads);
    wait_pause_reported(&idles);
    assert_eq!(idles.client().post_json(COMPLETION, &json!({"prompt": "x"})).status(), 200);
    loads.control().release_load();
    loads.wait_ready();
    assert_eq!([loads.child_pids(), idles.child_pids()], workers, "no llama-server was restarted or unloaded");
}
