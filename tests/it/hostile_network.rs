//! Bad networks on each side of the gateway: clients, remote backends, the hub, the collector of traces. What arrives is
//! whole, or a client can tell that it is not; nothing is left of a connection that has broken, and other clients are served
//! meanwhile. Packets that are lost, doubled and reordered are the matter of `scripts/test-network.sh`.

use std::fs;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::pull::{MODEL, Machine, PIECE};
use super::support::{
    client::{Client, RawClient, Response},
    gateway::{Builder, Gateway, USER},
    hostile_proxy::{HostileProxy, Trouble, Troubles},
    mock_hub::HubFaults,
    remote::{Remote, Reply},
    wait::{READY, REAL_MODEL_ANSWERS, SOON, eventually},
};

const CHAT: &str = "/v1/chat/completions";
/// Bytes of an upload that takes many packets.
const UPLOAD: usize = 10 << 20;
/// Bytes of an upload that breaks.
const BROKEN_UPLOAD: usize = 256 << 10;
/// Connections that break at the same time.
const BROKEN: usize = 6;

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": stream})
}

/// Returns a chat with a prompt of this length.
fn long_chat(length: usize) -> Vec<u8> {
    json!({"messages": [{"role": "user", "content": "x".repeat(length)}]}).to_string().into_bytes()
}

fn client_at(url: &str) -> Client {
    Client::new(url).key(USER)
}

/// Waits until the gateway is as it was before: no request in flight, and no more descriptors than these.
#[track_caller]
fn await_rest(gateway: &Gateway, descriptors: usize) {
    let queue = || gateway.health().get("/health").json()["queue"].clone();
    eventually("no slot is held", READY, || queue()["active"] == 0 && queue()["waiting"] == 0);
    eventually("no descriptor is held", READY, || gateway.open_fds() <= descriptors);
}

/// Serves a request and a stream, and returns how many descriptors the gateway then has at rest.
fn descriptors_at_rest(gateway: &Gateway) -> usize {
    check_served(gateway);
    eventually("no slot is held", SOON, || gateway.health().get("/health").json()["queue"]["active"] == 0);
    gateway.open_fds()
}

/// Checks that other clients are served.
#[track_caller]
fn check_served(gateway: &Gateway) {
    assert_eq!(gateway.client().post_json(CHAT, &chat(false)).status(), 200);
    let mut stream = gateway.client().stream(CHAT, &chat(true));
    assert!(stream.events().last().is_some_and(super::support::client::Event::is_done) && stream.is_complete());
}

/// Returns the texts of a stream's events.
fn stream_texts(client: &Client) -> Vec<String> {
    let mut stream = client.stream(CHAT, &chat(true));
    let texts: Vec<String> = stream.events().into_iter().map(|event| text_of(&event.data)).collect();
    assert!(stream.is_complete() && stream.rest().is_empty(), "{texts:?}");
    texts
}

/// Returns the text of an event of a chat, or the end mark.
fn text_of(data: &str) -> String {
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    let text = event.pointer("/choices/0/delta/content").and_then(Value::as_str);
    text.map_or_else(|| if data == "[DONE]" { "done".to_owned() } else { String::new() }, str::to_owned)
}

#[test]
fn what_comes_in_pieces_of_any_size_is_what_was_sent() {
    for gateway in Gateway::builder().start_over_both() {
        let descriptors = descriptors_at_rest(&gateway);
        let expected = stream_texts(&gateway.client());
        let whole = gateway.client().post_json(CHAT, &chat(false)).json()["choices"].clone();
        for trouble in [Trouble::Pieces(1), Trouble::Pieces(7), Trouble::Merge] {
            let proxy = HostileProxy::start(gateway.url(), Troubles::both(trouble));
            let url = if gateway.url().starts_with("https") { proxy.secure_url() } else { proxy.url() };
            assert_eq!(stream_texts(&client_at(&url)), expected, "{trouble:?}");
            let answer = client_at(&url).post_json(CHAT, &chat(false));
            assert_eq!((answer.status(), &answer.json()["choices"]), (200, &whole), "{trouble:?}");
        }
        await_rest(&gateway, descriptors);
    }
}

#[test]
fn an_upload_that_breaks_anywhere_holds_nothing_and_one_that_dribbles_arrives() {
    for gateway in Gateway::builder().set("MAX_REQUEST_BODY_SIZE", 2 * UPLOAD).start_over_both() {
        let descriptors = descriptors_at_rest(&gateway);
        let proxy = HostileProxy::start(gateway.url(), Troubles::NONE);
        let url = if gateway.url().starts_with("https") { proxy.secure_url() } else { proxy.url() };
        let body = long_chat(UPLOAD);
        for trouble in [Trouble::Pieces(1009), Trouble::Merge] {
            proxy.set_troubles(Troubles::to_server(trouble));
            let client = client_at(&url).patience(REAL_MODEL_ANSWERS);
            assert_eq!(client.send("POST", CHAT, &body).status(), 200, "{trouble:?}");
        }
        let body = long_chat(BROKEN_UPLOAD);
        for at in [1, 60, 5000, BROKEN_UPLOAD / 2, BROKEN_UPLOAD] {
            for trouble in [Trouble::CutAfter(at), Trouble::ResetAfter(at), Trouble::HalfCloseAfter(at)] {
                proxy.set_troubles(Troubles::to_server(trouble));
                // The bytes that TLS adds do not reach the last place.
                let answer = client_at(&url).try_send("POST", CHAT, &body);
                assert!(answer.as_ref().map_or(true, |answer| answer.status() != 200), "{trouble:?}: {answer:?}");
            }
        }
        check_served(&gateway);
        await_rest(&gateway, descriptors);
    }
}

#[test]
fn an_answer_that_breaks_on_its_way_to_the_client_frees_its_slot() {
    let script = json!({"frames": 40, "drip": {"interval_ms": 20}});
    for gateway in Gateway::builder().script(script).set("PARALLEL", 8).start_over_both() {
        let descriptors = descriptors_at_rest(&gateway);
        let proxy = HostileProxy::start(gateway.url(), Troubles::NONE);
        let url = if gateway.url().starts_with("https") { proxy.secure_url() } else { proxy.url() };
        // TLS has shaken hands after about 1000 bytes.
        for trouble in [Trouble::CutAfter(3000), Trouble::ResetAfter(3000), Trouble::StallAfter(3000)] {
            proxy.set_troubles(Troubles::to_client(trouble));
            let broken: Vec<RawClient> = (0..BROKEN)
                .map(|_| client_at(&url).begin("POST", CHAT, chat(true).to_string().as_bytes()).unwrap())
                .collect();
            // While the others break.
            check_served(&gateway);
            let read = |mut client: RawClient| {
                if !matches!(trouble, Trouble::StallAfter(_)) {
                    let bytes = client.read_until_broken();
                    let text = String::from_utf8_lossy(&bytes);
                    // A reset may take with it what has arrived.
                    let may_be_empty = matches!(trouble, Trouble::ResetAfter(_));
                    assert!(may_be_empty || text.starts_with("HTTP/1.1 200"), "{trouble:?}: {text}");
                    assert!(!text.ends_with("0\r\n\r\n"), "{trouble:?}: it has an end: {text}");
                }
            };
            broken.into_iter().for_each(read);
        }
        drop(proxy);
        await_rest(&gateway, descriptors);
    }
}

/// Starts a gateway whose model is a remote backend behind this proxy.
fn remote_behind(proxy: &HostileProxy) -> Builder {
    let config = format!("model_list:\n  - {{model_name: m, litellm_params: {{api_base: \"{}\"}}}}\n", proxy.url());
    Gateway::builder().fakes(&config, &[]).set("ALLOWED_FAILS", 1_000_000).set("HEALTH_CHECK_INTERVAL", "1h")
}

/// Whether a client can tell that this response is not whole: by its status, its framing, or an error as the last event.
fn is_visibly_broken(response: &Response) -> bool {
    let last = response.text().trim_end().rsplit("\n\n").next().unwrap_or_default().to_owned();
    response.status() >= 500 || !response.complete || last.contains("\"error\"")
}

#[test]
fn an_answer_of_a_remote_that_breaks_at_any_byte_is_whole_or_visibly_cut() {
    let remote = Remote::start(Reply::Serve);
    let proxy = HostileProxy::start(&remote.url(), Troubles::NONE);
    let gateway = remote_behind(&proxy).start_ready();
    let ask = |stream: bool| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream});
        gateway.client().header("Connection", "close").post_json(CHAT, &body)
    };
    // Each answer of the remote is shorter than this, with its head.
    const LONGEST: usize = 340;
    let descriptors = gateway.open_fds() + 2;
    for stream in [false, true] {
        let whole = ask(stream);
        assert!(!is_visibly_broken(&whole), "{}", whole.text());
        let (mut broken, mut arrived) = (0, 0);
        for at in (1..LONGEST).step_by(3) {
            // Kept connections would have another count; the gateway drops one that the remote has closed.
            for trouble in [Trouble::CutAfter(at), Trouble::ResetAfter(at)] {
                proxy.set_troubles(Troubles::to_client(trouble).sparing_gets());
                remote.set_reply(Reply::ServeAndClose);
                let answer = ask(stream);
                match is_visibly_broken(&answer) {
                    true => broken += 1,
                    false => {
                        let same = |answer: &Response| answer.text().matches("\"m\"").count();
                        assert_eq!(
                            (answer.status(), same(&answer)),
                            (200, same(&whole)),
                            "{trouble:?}: {}",
                            answer.text()
                        );
                        assert!(answer.complete && (!stream || answer.text().ends_with("[DONE]\n\n")), "{trouble:?}");
                        arrived += 1;
                    }
                }
            }
        }
        assert!(broken > 100 && arrived > 2, "stream {stream}: {broken} broke, {arrived} arrived");
    }
    proxy.set_troubles(Troubles::NONE);
    remote.set_reply(Reply::Serve);
    assert_eq!(ask(false).status(), 200);
    await_rest(&gateway, descriptors);
}

#[test]
fn a_remote_whose_bytes_come_in_pieces_answers_as_ever() {
    let remote = Remote::start(Reply::Serve);
    let proxy = HostileProxy::start(&remote.url(), Troubles::NONE);
    let gateway = remote_behind(&proxy).start_ready();
    let body = |stream: bool| json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream});
    let texts = || {
        let mut stream = gateway.client().stream(CHAT, &body(true));
        stream.events().into_iter().map(|event| text_of(&event.data)).collect::<Vec<_>>()
    };
    let expected = texts();
    for trouble in [Trouble::Pieces(1), Trouble::Pieces(5), Trouble::Merge] {
        proxy.set_troubles(Troubles::both(trouble));
        assert_eq!(texts(), expected, "{trouble:?}");
        assert_eq!(gateway.client().post_json(CHAT, &body(false)).status(), 200, "{trouble:?}");
    }
}

#[test]
fn handshakes_that_break_anywhere_hold_nothing() {
    let gateway = Gateway::builder().secure().start_ready();
    let descriptors = descriptors_at_rest(&gateway);
    let proxy = HostileProxy::start(gateway.url(), Troubles::NONE);
    for at in [1, 5, 100, 200, 400] {
        for trouble in [Trouble::CutAfter(at), Trouble::ResetAfter(at), Trouble::HalfCloseAfter(at)] {
            for troubles in [Troubles::to_server(trouble), Troubles::to_client(trouble)] {
                proxy.set_troubles(troubles);
                let answer = client_at(&proxy.secure_url()).try_send("GET", "/ping", b"");
                // A client may have sent all that it has to before its half is closed.
                let is_late =
                    matches!((trouble, &answer), (Trouble::HalfCloseAfter(400), Ok(answer)) if answer.complete);
                assert!(answer.is_err() || is_late, "{troubles:?}: {answer:?}");
            }
        }
    }
    let stalled = HostileProxy::start(gateway.url(), Troubles::to_server(Trouble::StallAfter(20)));
    let held: Vec<Client> = (0..BROKEN).map(|_| client_at(&stalled.secure_url())).collect();
    std::thread::scope(|scope| {
        for client in &held {
            scope.spawn(|| client.clone().patience(SOON).try_send("GET", "/ping", b""));
        }
        eventually("the handshakes have begun", SOON, || stalled.accepted() == BROKEN);
        check_served(&gateway);
        drop(stalled);
    });
    await_rest(&gateway, descriptors);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_survives_pieces_and_a_reset_ends_its_streams_alone() {
    let gateway =
        Gateway::builder().script(json!({"frames": 40, "drip": {"interval_ms": 10}})).set("PARALLEL", 8).start_ready();
    let descriptors = descriptors_at_rest(&gateway);
    let proxy = HostileProxy::start(gateway.url(), Troubles::both(Trouble::Pieces(3)));
    let request = || {
        let request =
            Request::post(format!("{}{CHAT}", gateway.url())).header("authorization", format!("Bearer {USER}"));
        request.body(Full::new(Bytes::from(chat(true).to_string()))).unwrap()
    };
    for (troubles, is_whole) in
        [(Troubles::both(Trouble::Pieces(3)), true), (Troubles::to_client(Trouble::ResetAfter(2000)), false)]
    {
        proxy.set_troubles(troubles);
        let stream = TokioIo::new(tokio::net::TcpStream::connect(proxy.address()).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let sent: Vec<_> = (0..4).map(|_| sender.send_request(request())).collect();
        for response in sent {
            let body = match response.await {
                Ok(response) => response.into_body().collect().await.map(http_body_util::Collected::to_bytes),
                Err(error) => Err(error),
            };
            assert_eq!(body.is_ok(), is_whole, "{troubles:?}: {body:?}");
            assert!(!is_whole || body.unwrap().ends_with(b"data: [DONE]\n\n"));
        }
        drop(sender);
        let _ = connection.await;
    }
    check_served(&gateway);
    await_rest(&gateway, descriptors);
}

#[test]
fn a_download_over_a_network_that_breaks_comes_whole() {
    let machine = Machine::start(6 * PIECE);
    let proxy = HostileProxy::start(&format!("http://{}", machine.hub.files()), Troubles::NONE);
    machine.hub.set_faults(HubFaults { files_at: Some(proxy.address()), ..HubFaults::default() });
    proxy.set_troubles(Troubles::to_client(Trouble::ResetAfter(PIECE + 777)));
    assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes);
    assert!(proxy.accepted() > 6, "{} connections", proxy.accepted());

    for trouble in [Trouble::CutAfter(PIECE / 2 + 5), Trouble::Pieces(1013), Trouble::Merge] {
        let machine = Machine::start(2 * PIECE);
        let proxy = HostileProxy::start(&format!("http://{}", machine.hub.files()), Troubles::to_client(trouble));
        machine.hub.set_faults(HubFaults { files_at: Some(proxy.address()), ..HubFaults::default() });
        assert_eq!(fs::read(machine.pulled(MODEL)).unwrap(), machine.bytes, "{trouble:?}");
        let parts = fs::read_dir(machine.blobs()).unwrap().flatten();
        let is_part = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".incomplete");
        assert_eq!(parts.filter(is_part).count(), 0, "{trouble:?}");
    }
}

#[test]
fn a_collector_behind_a_network_that_breaks_costs_requests_nothing() {
    let collector = Remote::start(Reply::Status(200, json!({})));
    // A connection keeps what it began with, and the gateway keeps a connection that works.
    let broken = |trouble: Trouble| Troubles::to_server(trouble);
    let proxy = HostileProxy::start(&collector.url(), broken(Trouble::ResetAfter(1)));
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*proxy.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
    ];
    let gateway = Gateway::builder().set_all(&settings).start_ready();
    let descriptors = descriptors_at_rest(&gateway) + 4;
    for trouble in
        [Trouble::ResetAfter(1), Trouble::CutAfter(200), Trouble::StallAfter(50), Trouble::HalfCloseAfter(300)]
    {
        proxy.set_troubles(broken(trouble));
        let before = proxy.accepted();
        eventually("exports are tried", READY, || {
            check_served(&gateway);
            proxy.accepted() > before
        });
    }
    proxy.set_troubles(Troubles::both(Trouble::Pieces(2)));
    let before = collector.received().len();
    eventually("an export arrives", READY, || {
        check_served(&gateway);
        collector.received().len() > before
    });
    await_rest(&gateway, descriptors);
    let metrics = gateway.health().header("Accept", "text/plain").get("/metrics").text();
    let lost = metrics.lines().find_map(|line| line.strip_prefix("llamagate_trace_spans_dropped_total "));
    assert!(lost.is_some_and(|lost| lost != "0"), "what was lost is counted: {lost:?}");
}

/// A client that closes its sending half in the middle of an answer counts as gone.
#[test]
fn a_client_whose_half_was_closed_on_the_way_holds_no_slot() {
    let gateway = Gateway::builder().script(json!({"hold_mid_stream": {"after_frames": 2}})).start_ready();
    let request = client_at(gateway.url()).request("POST", CHAT, chat(true).to_string().as_bytes());
    let troubles = Troubles::to_server(Trouble::HalfCloseAfter(request.len() + 2));
    let proxy = HostileProxy::start(gateway.url(), troubles);
    let mut client = RawClient::connect(&proxy.url());
    client.write(&request).unwrap();
    assert_eq!(client.read_head().unwrap().status, 200);
    client.write(b"\r\n").unwrap();
    gateway.journal().wait_for_event("disconnect");
    eventually("its slot is free", SOON, || gateway.health().get("/health").json()["queue"]["active"] == 0);
}
