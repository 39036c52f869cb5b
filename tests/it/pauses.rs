//! A platform that pauses the service with requests in flight: nobody is the worse for it.

use super::accounts::line;
use super::http2::{BEGIN, PING};
use super::support::{
    client::RawClient,
    gateway::{Backend, Gateway, USER},
    resources,
    wait::{SOON, eventually},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{thread, time::Duration};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// Every patience of a gateway that is paused. What a test does before and after the pause takes less.
const PATIENCE: &str = "4s";

/// How long the service is paused: longer than any patience, and than llama-server keeps an idle connection.
const PAUSE: Duration = Duration::from_secs(6);

/// Stops these processes at once, lets the world go on without them, and wakes them again.
fn pause(pids: &[u32], meanwhile: impl FnOnce()) {
    let all = |signal| pids.iter().for_each(|pid| kill(Pid::from_raw(*pid as i32), signal).unwrap());
    all(Signal::SIGSTOP);
    eventually("they stand still", SOON, || pids.iter().all(|pid| resources::is_stopped(*pid)));
    meanwhile();
    thread::sleep(PAUSE); // what is tested is that time passes without them
    all(Signal::SIGCONT);
}

/// Waits until the gateway has noticed the pause, and said so once.
fn has_noticed(gateway: &Gateway) {
    let is_it = |line: &str| {
        let seconds = line.split_once("this program did not run for ").and_then(|(_, rest)| rest.split_once(" s;"));
        seconds.is_some_and(|(seconds, _)| Duration::from_secs_f64(seconds.parse().unwrap()) >= PAUSE / 2)
    };
    let times = || gateway.output().lines().filter(|line| is_it(line)).count();
    eventually("the pause is reported", SOON, || times() > 0);
    assert_eq!(times(), 1, "{}", gateway.output());
}

/// Sends an HTTP/2 ping and waits for the answer.
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

fn group(gateway: &Gateway) -> Vec<u32> {
    [vec![gateway.pid()], gateway.child_pids()].concat()
}

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

fn begin(gateway: &Gateway, request_id: &str) -> RawClient {
    let client = gateway.client().header("X-Request-Id", request_id);
    client.begin("POST", CHAT, chat().to_string().as_bytes()).unwrap()
}

fn queue(gateway: &Gateway) -> (Value, Value) {
    let health = gateway.health().get("/health").json();
    (health["queue"]["active"].clone(), health["queue"]["waiting"].clone())
}

#[test]
fn nobody_is_too_slow_because_the_service_was_paused() {
    let settings = [
        ("REQUEST_TIMEOUT", PATIENCE),
        ("STREAM_IDLE_TIMEOUT", PATIENCE),
        ("QUEUE_TIMEOUT", PATIENCE),
        ("CLIENT_BODY_TIMEOUT", PATIENCE),
        ("CLIENT_HEADER_TIMEOUT", PATIENCE),
        ("HANG_TIMEOUT", PATIENCE),
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
    eventually("one waits", SOON, || queue(&gateway) == (json!(3), json!(1)));
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
    http2.write(BEGIN).unwrap();
    ping(&mut http2);

    pause(&group(&gateway), || drop(leaves));
    has_noticed(&gateway);

    assert_eq!(line(&gateway, "leaves")["code"], "client_closed");
    eventually("its slot goes to the next", SOON, || queue(&gateway) == (json!(3), json!(0)));
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
    assert_eq!(gateway.child_pids(), workers, "llama-server was left in peace");
}

#[test]
fn a_stream_of_the_real_llama_server_goes_on_after_a_pause() {
    let gateway = Gateway::builder()
        .backend(Backend::Real { model: "tiny-chat.gguf" })
        .set("CTX", "65536")
        .set("STREAM_IDLE_TIMEOUT", PATIENCE)
        .start_ready();
    let workers = gateway.child_pids();
    let mut request = chat();
    for (name, value) in [("stream", json!(true)), ("ignore_eos", json!(true)), ("max_tokens", json!(3_000))] {
        request[name] = value;
    }
    let mut stream = gateway.client().header("X-Request-Id", "paused").stream(CHAT, &request);
    assert!(stream.next_event().is_some() && stream.next_event().is_some());
    pause(&group(&gateway), || ());
    assert!(stream.events().last().is_some_and(|event| event.is_done()) && stream.is_complete());
    has_noticed(&gateway);
    let line = line(&gateway, "paused");
    assert_eq!(line["completion_tokens"], "3000");
    let total = Duration::from_secs_f64(line["total_ms"].parse::<f64>().unwrap() / 1e3);
    assert!(total >= PAUSE, "it was in flight, and what is measured is the time of others: {total:?}");
    assert_eq!(gateway.child_pids(), workers, "llama-server was left in peace");
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
    // llama-server goes on, and the next requests are there before the gateway is.
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
    let mut gateway = Gateway::builder().script(script).set("DRAIN_TIMEOUT", PATIENCE).start_ready();
    let mut client = begin(&gateway, "drained");
    gateway.journal().wait_for_requests(CHAT, 1);
    gateway.signal(Signal::SIGTERM);
    eventually("it drains", SOON, || gateway.health().get("/readyz").status() == 503);
    pause(&group(&gateway), || ());
    has_noticed(&gateway);
    gateway.control().release_all_requests();
    assert_eq!(client.read_response().unwrap().status(), 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_pause_is_neither_a_load_that_stands_still_nor_idle_time() {
    let loads =
        Gateway::builder().script(json!({"load": {"until_released": true}})).set("LOAD_TIMEOUT", PATIENCE).start();
    let idles = Gateway::builder().set_all(&[("IDLE_UNLOAD", PATIENCE), ("SHUTDOWN_TIMEOUT", PATIENCE)]).start_ready();
    loads.journal().wait_for_event("start");
    let workers = [loads.child_pids(), idles.child_pids()];
    pause(&[group(&loads), group(&idles)].concat(), || {});
    has_noticed(&loads);
    has_noticed(&idles);
    assert_eq!(idles.client().post_json(COMPLETION, &json!({"prompt": "x"})).status(), 200);
    loads.control().release_load();
    loads.wait_ready();
    assert_eq!([loads.child_pids(), idles.child_pids()], workers, "nobody was restarted or put to sleep");
}
