//! Tests of exchanges with servers on real sockets.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::HOST;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::body_reader::BodyReader;
use super::worker_body::WorkerBody;
use super::worker_connection::{BrokenConnection, WorkerConnection};
use super::worker_connections::{ExchangeError, WorkerConnections};
use crate::cores::CoreThreads;
use crate::dial::testing::DEADLINE;
use crate::dial::{DialTarget, Dialer, OpenConnections};
use crate::gateway::bounds::UPSTREAM_IDLE;
use crate::gateway::request::body::RequestBody;
use crate::pause_clock::ActiveInstant;

/// Most that a server may see before a test looks.
const MOST_SEEN: usize = 1024;

/// What a server does on each of its connections.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Responds to each request.
    Keep,
    /// Responds to one request and closes, without saying so before.
    CloseUnannounced,
    /// Responds to this many requests, and says in the last response that it closes.
    CloseAfter(usize),
    /// Responds with a stream and closes, as llama-server does.
    Stream,
    /// Responds to the head of a request, reads no body, and closes.
    RefuseEarly,
    /// Says first that it has begun.
    Inform,
    /// Responds with a head alone.
    HeadOnly,
    /// Responds without a length, and closes at the end.
    Unframed,
    /// Reads a request and closes.
    Hush,
    /// Sends half a response, and closes when the other side does.
    Half,
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                      2\r\nhi\r\n0\r\n\r\n";
const INFORMED: &str = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const HEAD_ONLY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
const UNFRAMED: &str = "HTTP/1.1 200 OK\r\n\r\nhi";
const EARLY: &str = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhi";

/// What a server has seen, with the number of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Accepted(usize),
    Request(usize),
    /// The other side has closed the connection.
    Closed(usize),
}

/// A server, and the other end of the connections to it.
struct Fixture {
    asking: Arc<Asking>,
    seen: Receiver<Seen>,
    _serving: JoinSet<()>,
}

/// What sends requests to a server.
struct Asking {
    connections: WorkerConnections,
    target: DialTarget,
    gone: CancellationToken,
}

impl Fixture {
    async fn new(manner: Manner) -> Self {
        Self::with(manner, |_| {}).await
    }

    /// Starts a server. `change` changes how it is reached.
    async fn with(manner: Manner, change: impl FnOnce(&mut DialTarget)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut target = DialTarget::local(listener.local_addr().unwrap(), None).unwrap();
        change(&mut target);
        let (report, seen) = channel(MOST_SEEN);
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, manner, report));
        let connections = WorkerConnections::new(DEADLINE);
        let asking = Arc::new(Asking { connections, target, gone: CancellationToken::new() });
        Self { asking, seen, _serving: serving }
    }

    async fn send(&self, method: Method, body: &str) -> Result<Response<WorkerBody>, ExchangeError> {
        self.asking.send(method, body).await
    }

    async fn ask(&self) -> String {
        self.asking.ask().await
    }

    async fn next_seen(&mut self) -> Seen {
        timeout(DEADLINE, self.seen.recv()).await.expect("something in time").expect("the server runs")
    }

    #[track_caller]
    fn assert_nothing_seen(&mut self) {
        assert_eq!(self.seen.try_recv().ok(), None);
    }
}

impl Asking {
    /// Sends a request and waits for the head of the response.
    async fn send(&self, method: Method, body: &str) -> Result<Response<WorkerBody>, ExchangeError> {
        let mut request = Request::new(RequestBody::from_pieces(&[body]));
        *request.method_mut() = method;
        request.headers_mut().insert(HOST, self.target.host.clone());
        self.send_until(ActiveInstant::now() + DEADLINE, request).await
    }

    async fn send_until(
        &self,
        deadline: ActiveInstant,
        request: Request<RequestBody>,
    ) -> Result<Response<WorkerBody>, ExchangeError> {
        self.connections.exchange(&self.target, &self.gone, deadline, request.into()).await
    }

    /// Sends a request and reads the response to its end.
    async fn ask(&self) -> String {
        read(self.send(Method::POST, "{}").await.unwrap()).await
    }
}

/// Returns a connection, and the other end of it.
async fn connected() -> (Box<WorkerConnection>, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let target = DialTarget::local(listener.local_addr().unwrap(), None).unwrap();
    let link = Dialer::new(DEADLINE).connect(&target).await.unwrap();
    (WorkerConnection::new(link, target.connections.add()), listener.accept().await.unwrap().0)
}

/// Sends a request on this connection and waits for the head of the response.
async fn respond(connection: &mut WorkerConnection) -> Result<Response<BodyReader>, BrokenConnection> {
    assert!(connection.begin(Request::default().into()).is_none(), "the connection is open");
    poll_fn(|context| connection.poll_response(context)).await
}

async fn accept(listener: TcpListener, manner: Manner, report: Sender<Seen>) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = report.try_send(Seen::Accepted(number));
        let report = report.clone();
        connections.spawn(async move {
            let mut stream = BufReader::new(stream);
            // The other side may end it at any time.
            let _ = serve(&mut stream, number, manner, &report).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = report.try_send(Seen::Closed(number));
        });
    }
}

async fn serve(
    stream: &mut BufReader<TcpStream>,
    number: usize,
    manner: Manner,
    report: &Sender<Seen>,
) -> io::Result<()> {
    for nth in 1.. {
        let length = read_head(stream).await?;
        let _ = report.try_send(Seen::Request(number));
        if let Manner::RefuseEarly = manner {
            return stream.write_all(EARLY.as_bytes()).await;
        }
        stream.read_exact(&mut vec![0; length]).await?;
        match manner {
            Manner::Keep => stream.write_all(WHOLE.as_bytes()).await?,
            Manner::CloseAfter(last) if nth < last => stream.write_all(WHOLE.as_bytes()).await?,
            Manner::CloseAfter(_) => return stream.write_all(LAST.as_bytes()).await,
            Manner::CloseUnannounced => return stream.write_all(WHOLE.as_bytes()).await,
            Manner::Stream => return stream.write_all(STREAM.as_bytes()).await,
            Manner::Inform => stream.write_all(INFORMED.as_bytes()).await?,
            Manner::HeadOnly => stream.write_all(HEAD_ONLY.as_bytes()).await?,
            Manner::Unframed => return stream.write_all(UNFRAMED.as_bytes()).await,
            Manner::Half => stream.write_all(HALF.as_bytes()).await?,
            Manner::Hush | Manner::RefuseEarly => return Ok(()),
        }
    }
    Ok(())
}

/// Reads the head of a request. Returns the length of its body.
async fn read_head(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            None if line == "\r\n" => return Ok(length),
            _ => {}
        }
    }
}

async fn read(response: Response<WorkerBody>) -> String {
    let body = timeout(DEADLINE, response.into_body().collect()).await.expect("the body in time").unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let mut fixture = Fixture::new(Manner::Keep).await;
    for _ in 0..3 {
        assert_eq!(fixture.ask().await, "hi");
    }
    assert_eq!(fixture.next_seen().await, Seen::Accepted(0));
    for _ in 0..3 {
        assert_eq!(fixture.next_seen().await, Seen::Request(0));
    }
    fixture.assert_nothing_seen();
}

#[tokio::test]
async fn requests_at_the_same_time_have_a_connection_each_and_those_are_kept() {
    let mut fixture = Fixture::new(Manner::Keep).await;
    for _ in 0..2 {
        let (one, other) = tokio::join!(fixture.ask(), fixture.ask());
        assert_eq!((one.as_str(), other.as_str()), ("hi", "hi"));
    }
    let mut accepted = Vec::new();
    for _ in 0..6 {
        accepted.push(fixture.next_seen().await);
    }
    accepted.retain(|seen| matches!(seen, Seen::Accepted(_)));
    assert_eq!(accepted, [Seen::Accepted(0), Seen::Accepted(1)]);
}

#[tokio::test]
async fn a_connection_that_the_worker_closes_while_it_is_idle_is_closed_at_once() {
    let mut fixture = Fixture::new(Manner::CloseUnannounced).await;
    for number in 0..20 {
        assert_eq!(fixture.ask().await, "hi");
        assert_eq!(fixture.next_seen().await, Seen::Accepted(number));
        assert_eq!(fixture.next_seen().await, Seen::Request(number));
        assert_eq!(fixture.next_seen().await, Seen::Closed(number), "nothing is asked, and it is closed");
    }
}

#[tokio::test]
async fn no_request_is_sent_after_the_last_one_that_the_worker_announces() {
    let mut fixture = Fixture::new(Manner::CloseAfter(2)).await;
    for _ in 0..4 {
        assert_eq!(fixture.ask().await, "hi");
    }
    let mut seen = Vec::new();
    while seen.iter().filter(|seen| matches!(seen, Seen::Request(_))).count() < 4 {
        seen.push(fixture.next_seen().await);
    }
    seen.retain(|seen| matches!(seen, Seen::Request(_)));
    assert_eq!(seen, [0, 0, 1, 1].map(Seen::Request));
}

#[tokio::test]
async fn the_connection_after_that_of_a_stream_is_open_before_the_next_request() {
    let mut fixture = Fixture::new(Manner::Stream).await;
    for number in 0..3 {
        assert_eq!(fixture.ask().await, "hi");
        if number == 0 {
            assert_eq!(fixture.next_seen().await, Seen::Accepted(0));
        }
        assert_eq!(fixture.next_seen().await, Seen::Request(number));
        let rest = [fixture.next_seen().await, fixture.next_seen().await];
        assert!(rest.contains(&Seen::Closed(number)) && rest.contains(&Seen::Accepted(number + 1)), "{rest:?}");
        fixture.assert_nothing_seen();
    }
}

#[tokio::test]
async fn no_connection_to_a_remote_backend_is_opened_unasked() {
    let mut fixture = Fixture::with(Manner::Stream, |target| target.local_address = None).await;
    assert_eq!(fixture.ask().await, "hi");
    assert_eq!(fixture.next_seen().await, Seen::Accepted(0));
    assert_eq!(fixture.next_seen().await, Seen::Request(0));
    assert_eq!(fixture.next_seen().await, Seen::Closed(0));
    assert!(fixture.asking.connections.has_no_tasks());
}

#[tokio::test]
async fn a_server_of_one_connection_at_a_time_waited_for_an_idle_one() {
    for manner in [Manner::Keep, Manner::Stream] {
        let mut fixture = Fixture::with(manner, |target| target.has_many_connections = false).await;
        for number in 0..2 {
            assert_eq!(fixture.ask().await, "hi");
            assert_eq!(fixture.next_seen().await, Seen::Accepted(number));
            assert_eq!(fixture.next_seen().await, Seen::Request(number));
            assert_eq!(fixture.next_seen().await, Seen::Closed(number));
            assert!(fixture.asking.connections.has_no_tasks(), "{manner:?}: no connection is kept or opened");
        }
    }
}

#[test]
fn a_core_closes_the_idle_connection_of_another_one_when_no_more_may_be_open() {
    let threads = CoreThreads::start(NonZeroUsize::new(2).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut fixture = Fixture::with(Manner::Keep, |target| target.connections = OpenConnections::at_most(1)).await;
        let cores = [threads.cores().least_busy(), threads.cores().least_busy()];
        for core in &cores {
            let asking = Arc::clone(&fixture.asking);
            assert_eq!(core.runtime().spawn(async move { asking.ask().await }).await.unwrap(), "hi");
        }
        let mut seen = Vec::new();
        while !seen.contains(&Seen::Request(1)) || !seen.contains(&Seen::Closed(0)) {
            seen.push(fixture.next_seen().await);
        }
        assert!(!fixture.asking.target.connections.are_too_many());
    });
}

#[tokio::test]
async fn idle_connections_are_closed_in_time_although_nothing_is_asked() {
    for manner in [Manner::Keep, Manner::Stream] {
        let mut fixture = Fixture::new(manner).await;
        assert_eq!(fixture.ask().await, "hi");
        let last = if let Manner::Keep = manner { 0 } else { 1 };
        while fixture.next_seen().await != Seen::Accepted(last) {}
        tokio::time::pause();
        let began = Instant::now();
        while fixture.next_seen().await != Seen::Closed(last) {}
        assert!(began.elapsed() <= UPSTREAM_IDLE + Duration::from_millis(1), "{manner:?}: {:?}", began.elapsed());
        tokio::time::resume();
        assert!(fixture.asking.connections.has_no_tasks());
    }
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_used_again() {
    let mut fixture = Fixture::new(Manner::Keep).await;
    assert_eq!(fixture.ask().await, "hi");
    tokio::time::pause();
    tokio::time::advance(UPSTREAM_IDLE).await;
    tokio::time::resume();
    assert_eq!(fixture.ask().await, "hi");
    while fixture.next_seen().await != Seen::Request(1) {}
}

#[tokio::test]
async fn the_idle_connections_of_a_worker_that_has_ended_are_closed() {
    let mut fixture = Fixture::new(Manner::Keep).await;
    assert_eq!(fixture.ask().await, "hi");
    fixture.asking.gone.cancel();
    while fixture.next_seen().await != Seen::Closed(0) {}
    assert_eq!(fixture.ask().await, "hi", "a response that is still on its way is read");
    while fixture.next_seen().await != Seen::Closed(1) {}
}

#[tokio::test]
async fn a_close_ends_all_idle_connections_and_waits_for_that() {
    let mut fixture = Fixture::new(Manner::Keep).await;
    assert_eq!(fixture.ask().await, "hi");
    timeout(DEADLINE, fixture.asking.connections.close()).await.expect("an end in time");
    while fixture.next_seen().await != Seen::Closed(0) {}
}

#[tokio::test]
async fn a_body_that_is_dropped_closes_its_connection() {
    let mut fixture = Fixture::new(Manner::Half).await;
    let mut response = fixture.send(Method::POST, "{}").await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "hi");
    drop(response);
    while fixture.next_seen().await != Seen::Closed(0) {}
    assert!(fixture.asking.connections.has_no_tasks());
}

#[tokio::test]
async fn a_response_that_comes_before_the_body_was_sent_is_passed_on() {
    let mut fixture = Fixture::new(Manner::RefuseEarly).await;
    let body = "x".repeat(32 * 1024 * 1024);
    let response = fixture.send(Method::POST, &body).await.unwrap();
    assert_eq!((response.status(), read(response).await.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "no"));
    while fixture.next_seen().await != Seen::Request(0) {}
}

#[tokio::test]
async fn responses_without_a_body_a_length_or_a_first_status_are_read() {
    for (manner, method, text) in [
        (Manner::Inform, Method::POST, "hi"),
        (Manner::Unframed, Method::POST, "hi"),
        (Manner::HeadOnly, Method::HEAD, ""),
    ] {
        let fixture = Fixture::new(manner).await;
        for _ in 0..2 {
            let response = fixture.send(method.clone(), "{}").await.unwrap();
            assert_eq!((response.status(), read(response).await.as_str()), (StatusCode::OK, text), "{manner:?}");
        }
    }
}

#[tokio::test]
async fn a_broken_connection_is_told_from_one_that_was_never_opened() {
    let hush = Fixture::new(Manner::Hush).await;
    let error = hush.send(Method::POST, "{}").await.err().unwrap();
    assert!(matches!(error, ExchangeError::Broken(_)) && !error.is_unsent(), "{error:?}");

    let bound = TcpSocket::new_v4().unwrap();
    bound.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = bound.local_addr().ok();
    let refusing = Fixture::with(Manner::Keep, |target| target.local_address = address).await;
    let error = refusing.send(Method::POST, "{}").await.err().unwrap();
    assert!(matches!(error, ExchangeError::Connect(_)) && error.is_unsent(), "{error:?}");
}

#[tokio::test]
async fn a_request_that_was_never_sent_is_told_from_one_that_was() {
    for is_read in [false, true] {
        let (mut connection, mut theirs) = connected().await;
        let close = async {
            if is_read {
                theirs.read_u8().await.unwrap();
            }
            drop(theirs);
        };
        if is_read {
            let (response, ()) = tokio::join!(respond(&mut connection), close);
            assert!(matches!(response, Err(BrokenConnection::Socket(_))), "{response:?}");
        } else {
            close.await;
            poll_fn(|context| if connection.is_idle(context.waker()) { Poll::Pending } else { Poll::Ready(()) }).await;
            assert!(connection.begin(Request::default().into()).is_some(), "the request comes back");
        }
    }
}

#[tokio::test]
async fn pieces_of_any_size_make_the_same_response() {
    const TEXT: &str = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    for size in [1, 2, 7, 20, 60, TEXT.len()] {
        let (mut connection, theirs) = connected().await;
        let serve = async {
            let mut stream = BufReader::new(theirs);
            read_head(&mut stream).await.unwrap();
            stream.get_ref().set_nodelay(true).unwrap();
            for piece in TEXT.as_bytes().chunks(size) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream
        };
        let (response, stream) = tokio::join!(respond(&mut connection), serve);
        let (head, mut body) = response.unwrap().into_parts();
        assert_eq!(head.status, StatusCode::OK);
        let mut text = Vec::new();
        while let Some(piece) = poll_fn(|context| connection.poll_piece(context, &mut body)).await.unwrap() {
            text.extend_from_slice(&piece);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "hello world", "pieces of {size} bytes");
        assert!(poll_fn(|context| Poll::Ready(connection.is_idle(context.waker()))).await);
        drop(stream);
    }
}

#[tokio::test]
async fn a_body_that_is_cut_or_malformed_is_an_error_and_its_connection_is_closed() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for rest in ["", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "5\r\nhello6\r\n", "x\r\n"] {
        let (mut connection, mut theirs) = connected().await;
        let serve = async {
            let mut stream = BufReader::new(&mut theirs);
            read_head(&mut stream).await.unwrap();
            stream.write_all([HEAD, rest].concat().as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (response, ()) = tokio::join!(respond(&mut connection), serve);
        let mut body = response.unwrap().into_body();
        let broken = loop {
            match poll_fn(|context| connection.poll_piece(context, &mut body)).await {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broken, "{rest:?}");
    }
}

#[tokio::test]
async fn a_task_is_woken_once_for_a_response() {
    let fixture = Fixture::new(Manner::Keep).await;
    fixture.ask().await;
    let mut polls = 0;
    let mut asking = pin!(fixture.ask());
    let text = poll_fn(|context| {
        polls += 1;
        asking.as_mut().poll(context)
    });
    assert_eq!(text.await, "hi");
    assert_eq!(polls, 2, "once to send the request, and once when the response is there");
}

#[tokio::test]
async fn each_core_has_connections_of_its_own() {
    let mut fixture = Fixture::new(Manner::Keep).await;
    let threads = CoreThreads::start(NonZeroUsize::new(2).unwrap()).unwrap();
    let cores = [threads.cores().least_busy(), threads.cores().least_busy()];
    for core in cores.iter().chain(&cores) {
        let asking = Arc::clone(&fixture.asking);
        assert_eq!(core.runtime().spawn(async move { asking.ask().await }).await.unwrap(), "hi");
    }
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(fixture.next_seen().await);
    }
    seen.retain(|seen| matches!(seen, Seen::Request(_)));
    assert_eq!(seen, [0, 1, 0, 1].map(Seen::Request));
    threads.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_response_is_waited_for_until_the_deadline_and_no_longer_than_the_deadline_of_the_next_wait() {
    let (mut connection, _server) = connected().await;
    assert!(connection.begin(Request::default().into()).is_none(), "the connection is open");
    tokio::time::pause();
    for seconds in [5, 60, 1] {
        let start = Instant::now();
        let deadline = ActiveInstant::now() + Duration::from_secs(seconds);
        let outcome = poll_fn(|context| connection.poll_response_until(context, deadline)).await;
        assert!(outcome.is_none(), "the other end sends nothing");
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
}
