use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Version;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::Notify;

use super::*;
use crate::gateway::connection::head::HeadLimits;
use crate::gateway::connection::wire::WireLimits;
use crate::gateway::connection::wire::requests::ConnectionRequests;
use crate::pause_clock::ActiveInstant;

/// Longest wait for events that must come, on a slow machine too.
const DEADLINE: Duration = Duration::from_secs(20);

type TestBody = BoxBody<Bytes, io::Error>;

/// A connection whose requests are answered by `respond`, and what has become of it.
struct Server {
    wire: WireStream<DuplexStream>,
    requests: Arc<ConnectionRequests>,
    closing: Arc<Closing>,
    /// The bodies of the requests that have been answered.
    bodies: Mutex<Vec<Bytes>>,
}

impl Server {
    fn new() -> (DuplexStream, Self) {
        let limits = WireLimits {
            head: HeadLimits::USUAL,
            header_timeout: DEADLINE,
            idle_timeout: DEADLINE,
            write_stall: DEADLINE,
        };
        let (client, server) = tokio::io::duplex(64 * 1024);
        let requests = Arc::new(ConnectionRequests::default());
        let wire =
            WireStream::new(server, limits, Arc::new(|_, _| Bytes::from_static(b"refused")), Arc::clone(&requests));
        (client, Self { wire, requests, closing: Arc::default(), bodies: Mutex::default() })
    }

    async fn serve<F: Future<Output = Response<TestBody>>>(
        &mut self,
        respond: impl Fn(Bytes) -> F,
    ) -> io::Result<ConnectionFate> {
        assert!(!self.wire.speaks_http2().await?);
        let (requests, bodies) = (&self.requests, &self.bodies);
        let respond = |request: Request<Bytes>| {
            let guard = requests.begin();
            bodies.lock().unwrap().push(request.body().clone());
            let response = respond(request.into_body());
            async move { response.await.map(|body| guard.guard_body(body, Version::HTTP_11)) }
        };
        serve_whole(&mut self.wire, &self.closing, respond).await
    }

    /// Serves with a response that repeats the request's body.
    async fn echo(&mut self) -> io::Result<ConnectionFate> {
        self.serve(|body| async { Response::new(full(body)) }).await
    }

    /// Returns what hyper would read.
    async fn left_to_hyper(&mut self, length: usize) -> String {
        let mut left = vec![0; length];
        self.wire.read_exact(&mut left).await.unwrap();
        String::from_utf8(left).unwrap()
    }

    fn bodies(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }
}

fn full(body: Bytes) -> TestBody {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed()
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Returns the bodies of responses with a length.
fn answers(mut responses: &str) -> Vec<&str> {
    let mut bodies = Vec::new();
    while let Some((head, rest)) = responses.split_once("\r\n\r\n") {
        let length = head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
        bodies.push(&rest[..length]);
        responses = &rest[length..];
    }
    bodies
}

async fn read_all(client: &mut DuplexStream) -> String {
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    read
}

/// A body of these pieces; `None` is an error.
struct Pieces(VecDeque<Option<&'static str>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.0.pop_front() {
            // What came before is sent.
            Some(Some("")) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))),
            Some(None) => Poll::Ready(Some(Err(io::ErrorKind::Other.into()))),
            None => Poll::Ready(None),
        }
    }
}

#[tokio::test]
async fn the_request_of_a_client_that_leaves_is_dropped() {
    let (mut client, mut server) = Server::new();
    let (begun, alive) = (Notify::new(), Arc::new(()));
    let serves = server.serve(|_| {
        let alive = Arc::clone(&alive);
        begun.notify_one();
        async move {
            std::future::pending::<()>().await;
            drop(alive);
            Response::new(full(Bytes::new()))
        }
    });
    let leaves = async {
        client.write_all(post("{}").as_bytes()).await.unwrap();
        begun.notified().await;
        drop(client);
    };
    let (served, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(serves, leaves) }).await.unwrap();
    assert_eq!(served.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(Arc::strong_count(&alive), 1, "the request has been dropped");
}

#[tokio::test]
async fn a_body_that_fails_midway_ends_the_connection() {
    let (mut client, mut server) = Server::new();
    client.write_all(post("{}").repeat(2).as_bytes()).await.unwrap();
    let served = server.serve(|_| async { Response::new(Pieces([Some("ab"), Some(""), None].into()).boxed()) }).await;
    assert!(served.is_err());
    assert_eq!(server.bodies(), 1);
    drop(server);
    let read = read_all(&mut client).await;
    assert!(read.ends_with("\r\n\r\n2\r\nab\r\n"), "no end of the chunks: {read}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_two_at_a_time() {
    const REQUESTS: usize = 200;
    let (client, mut server) = Server::new();
    let (mut reader, mut writer) = tokio::io::split(client);
    let read = AtomicUsize::new(0);
    let (read, one_more) = (&read, Notify::new());
    let sends = async {
        for number in 0..REQUESTS {
            while number >= read.load(Ordering::Relaxed) + 2 {
                one_more.notified().await;
            }
            writer.write_all(post(&format!("{number:04}")).as_bytes()).await.unwrap();
        }
    };
    let reads = async {
        let (mut text, mut buffer) = (String::new(), vec![0; 4096]);
        for number in 0..REQUESTS {
            while answers(&text).len() <= number {
                let count = reader.read(&mut buffer).await.unwrap();
                text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            read.store(number + 1, Ordering::Relaxed);
            one_more.notify_one();
        }
        let expected: Vec<String> = (0..REQUESTS).map(|number| format!("{number:04}")).collect();
        assert_eq!(answers(&text), expected);
    };
    let closing = Arc::clone(&server.closing);
    let talks = async {
        tokio::join!(sends, reads);
        closing.begin();
    };
    let (served, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(server.echo(), talks) }).await.unwrap();
    assert_eq!(served.unwrap(), ConnectionFate::Closed);
    assert_eq!(server.bodies(), REQUESTS);
}

#[tokio::test]
async fn bytes_after_a_body_are_the_next_head() {
    let (mut client, mut server) = Server::new();
    client.write_all(format!("{}xx", post("{}")).as_bytes()).await.unwrap();
    assert_eq!(server.echo().await.unwrap(), ConnectionFate::NeedsHyper);
    assert_eq!(*server.bodies.lock().unwrap(), ["{}"]);
    client.write_all(b" / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let next = "xx / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(server.left_to_hyper(next.len()).await, next);
}

#[tokio::test]
async fn an_idle_connection_closes_at_once_and_one_with_a_request_after_its_response() {
    let (mut client, mut server) = Server::new();
    let closing = Arc::clone(&server.closing);
    let (begun, go_on) = (Notify::new(), Notify::new());
    let respond = |body| {
        begun.notify_one();
        let go_on = &go_on;
        async move {
            go_on.notified().await;
            Response::new(full(body))
        }
    };
    let talks = async {
        client.write_all(post("{}").repeat(2).as_bytes()).await.unwrap();
        begun.notified().await;
        closing.begin();
        go_on.notify_one();
        read_all(&mut client).await
    };
    let served = async {
        let fate = server.serve(respond).await.unwrap();
        let bodies = server.bodies();
        drop(server);
        (fate, bodies)
    };
    let (served, read) = tokio::time::timeout(DEADLINE, async { tokio::join!(served, talks) }).await.unwrap();
    assert_eq!(served, (ConnectionFate::Closed, 1), "the second request is not begun");
    assert!(read.contains("connection: close\r\n") && answers(&read) == ["{}"], "{read}");

    let (mut client, mut server) = Server::new();
    let closing = Arc::clone(&server.closing);
    let talks = async {
        client.write_all(post("{}").as_bytes()).await.unwrap();
        let mut read = [0; 1024];
        assert!(client.read(&mut read).await.unwrap() > 0);
        closing.begin();
        assert_eq!(client.read(&mut read).await.unwrap(), 0);
    };
    let (served, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(server.echo(), talks) }).await.unwrap();
    assert_eq!(served.unwrap(), ConnectionFate::Closed);
}

/// Regression: a client that writes the head and then the body, as most in Python do, was served by hyper.
#[tokio::test(start_paused = true)]
async fn a_body_right_after_its_head_and_a_request_of_many_reads_need_no_hyper() {
    for body in ["{}".to_owned(), "x".repeat(5_000), "x".repeat(16_000)] {
        let (mut client, mut server) = Server::new();
        let closing = Arc::clone(&server.closing);
        let request = post(&body);
        let (head, _) = request.split_at(request.len() - body.len());
        let talks = async {
            for _ in 0..2 {
                client.write_all(head.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
                for piece in body.as_bytes().chunks(1_500) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            let mut read = vec![0; 2 * body.len()];
            client.read_exact(&mut read).await.unwrap();
            closing.begin();
        };
        let (served, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(server.echo(), talks) }).await.unwrap();
        assert_eq!(served.unwrap(), ConnectionFate::Closed);
        assert_eq!(*server.bodies.lock().unwrap(), [body.clone(), body.clone()]);
    }
}

#[tokio::test(start_paused = true)]
async fn hyper_gets_the_head_when_the_body_is_late_and_at_once_when_none_is_to_be_awaited() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n";
    for (sent, waited) in [
        (format!("{head}\r\n"), 20),
        (format!("{head}\r\nab"), 20),
        (format!("{head}Expect: 100-continue\r\n\r\n"), 0),
        (format!("{head}Connection: close\r\n\r\n"), 0),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 16384\r\n\r\n".to_owned(), 0),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 0),
        ("OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 0),
    ] {
        let (mut client, mut server) = Server::new();
        client.write_all(sent.as_bytes()).await.unwrap();
        let begin = ActiveInstant::now();
        assert_eq!(server.echo().await.unwrap(), ConnectionFate::NeedsHyper);
        // The timer counts whole milliseconds.
        let elapsed = begin.elapsed().as_millis();
        assert!((waited..=waited + 2).contains(&elapsed), "{elapsed} ms: {sent}");
        assert_eq!(server.bodies(), 0);
        assert_eq!(server.left_to_hyper(sent.len()).await, sent);
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_is_left_to_hyper_with_what_has_arrived() {
    let (mut client, mut server) = Server::new();
    let sent = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab";
    client.write_all(sent.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(server.echo().await.unwrap(), ConnectionFate::NeedsHyper);
    let mut left = String::new();
    server.wire.read_to_string(&mut left).await.unwrap();
    assert_eq!(left, sent);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_is_awaited_is_answered_although_the_connection_is_to_end() {
    let (mut client, mut server) = Server::new();
    let closing = Arc::clone(&server.closing);
    let request = post("{}");
    let talks = async {
        client.write_all(&request.as_bytes()[..request.len() - 1]).await.unwrap();
        // The clock moves once the server has nothing to do but to wait for the body.
        tokio::time::sleep(Duration::from_millis(1)).await;
        closing.begin();
        client.write_all(b"}").await.unwrap();
        read_all(&mut client).await
    };
    let serves = async {
        let fate = server.echo().await.unwrap();
        drop(server);
        fate
    };
    let (fate, read) = tokio::time::timeout(DEADLINE, async { tokio::join!(serves, talks) }).await.unwrap();
    assert_eq!((fate, answers(&read)), (ConnectionFate::Closed, vec!["{}"]), "{read}");
}
