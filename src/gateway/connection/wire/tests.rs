use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cores::Cores;
use crate::dial::Trust;
use crate::gateway::connection::handshake::SecurePort;
use crate::gateway::connection::listen::{self, InboundBody};
use crate::telemetry::metrics::Metrics;
use crate::tls::{CertificateSource, CertificateStore};

/// Longest wait for events that must come, on a slow machine too.
const DEADLINE: Duration = Duration::from_secs(20);

fn limits() -> WireLimits {
    WireLimits { head: HeadLimits::USUAL, header_timeout: DEADLINE, idle_timeout: DEADLINE, write_stall: DEADLINE }
}

fn refuse() -> RefusalWriter {
    Arc::new(|_, refusal| Bytes::from(format!("refused {}", refusal.code())))
}

fn plain(listener: tokio::net::TcpListener, limits: listen::ListenerLimits) -> listen::ServedPort {
    listen::ServedPort { listener, limits, tls: None }
}

fn refuse_any() -> listen::HeadRefuser {
    let refuse = refuse();
    Arc::new(move |raw_head, refusal, _| refuse(raw_head, refusal))
}

/// A socket whose client sends these pieces, closes its sending side, and reads everything.
struct ScriptedSocket {
    incoming: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl ScriptedSocket {
    fn cut(bytes: &[u8], cuts: &[usize]) -> Self {
        let mut rest = bytes;
        let mut incoming = VecDeque::new();
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            incoming.extend((!piece.is_empty()).then(|| piece.to_vec()));
            rest = after;
        }
        Self { incoming, written: Vec::new() }
    }
}

impl AsyncRead for ScriptedSocket {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.incoming.pop_front() {
            let count = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..count]);
            if count < piece.len() {
                self.incoming.push_front(piece.split_off(count));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ScriptedSocket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Plays a hyper that answers each request at once and reads `size` bytes at a time. Returns the bytes that it gets
/// through the wire, and those that the wire itself writes to the client.
async fn pass_through(socket: ScriptedSocket, size: usize) -> (Vec<u8>, Vec<u8>) {
    let requests = Arc::new(ConnectionRequests::default());
    let mut wire = WireStream::new(socket, limits(), refuse(), Arc::clone(&requests));
    let (mut passed, mut buffer) = (Vec::new(), vec![0; size]);
    while let Ok(count) = wire.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        passed.extend_from_slice(&buffer[..count]);
        if matches!(wire.read_state, ReadState::Head(_)) {
            drop(requests.begin());
            wire.flush().await.unwrap();
        }
    }
    wire.shutdown().await.unwrap();
    (passed, wire.socket.into_inner().written)
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Generates a request with no body, with a length, or with chunks.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..3_000);
    (0..4, body, "[!-9A-Za-z]{0,3000}").prop_map(|(kind, body, filler)| {
        let head = format!("POST /{} HTTP/1.1\r\nHost: h\r\nX-Filler: {filler}\r\n", filler.len());
        let mut request = match kind {
            0 => return (head + "\r\n").into_bytes(),
            1 => format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes(),
            _ => format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes(),
        };
        if kind == 1 {
            request.extend(body);
            return request;
        }
        for chunk in body.chunks(700) {
            request.extend(format!("{:x};ext=1\r\n", chunk.len()).into_bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(if kind == 2 { &b"0\r\n\r\n"[..] } else { b"0\r\nTrailer: x\r\n\r\n" });
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn good_requests_pass_unchanged_however_they_are_cut(
        requests in prop::collection::vec(any_request(), 1..4),
        cuts in prop::collection::vec(1_usize..2_000, 0..20),
        size in 1_usize..10_000,
    ) {
        let sent = requests.concat();
        let (passed, answered) = run(pass_through(ScriptedSocket::cut(&sent, &cuts), size));
        prop_assert!(passed == sent, "{} of {} bytes", passed.len(), sent.len());
        prop_assert_eq!(answered, b"");
    }

    #[test]
    fn no_byte_of_a_bad_head_passes(
        good in prop::collection::vec(any_request(), 0..3),
        cuts in prop::collection::vec(1_usize..500, 0..20),
        size in 1_usize..10_000,
    ) {
        let good = good.concat();
        let mut sent = good.clone();
        sent.extend_from_slice(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
        let (passed, answered) = run(pass_through(ScriptedSocket::cut(&sent, &cuts), size));
        prop_assert!(passed == good, "{} of {} bytes", passed.len(), good.len());
        prop_assert_eq!(answered, b"refused bad_request");
    }

    #[test]
    fn arbitrary_bytes_do_not_make_the_wire_panic(
        bytes: Vec<u8>,
        cuts in prop::collection::vec(1_usize..9, 0..9),
        size in 1_usize..99,
    ) {
        run(pass_through(ScriptedSocket::cut(&bytes, &cuts), size));
    }

    /// hyper would answer any other head by itself, with a bare 400.
    #[test]
    fn hyper_takes_every_head_that_the_wire_lets_pass(
        method in "[A-Z!#$%&'*+.^_`|~0-9-]{1,9}",
        target in prop_oneof!["/[ -~]{0,12}", "[ -~]{1,12}", "http://[ -~]{0,12}", "/\\PC{0,6}"],
        version in "HTTP/1\\.[01]",
        name in "[!-~]{1,9}",
        value in "\\PC{0,12}",
        host in "[ -~]{0,9}",
    ) {
        let raw = format!("{method} {target} {version}\r\nHost: {host}\r\n{name}: {value}\r\n\r\n");
        let expected = u32::from(crate::gateway::connection::head::check(raw.as_bytes(), &limits().head).is_ok());
        let served = Arc::new(Mutex::new(0));
        run(async {
            let requests = Arc::new(ConnectionRequests::default());
            let socket = ScriptedSocket::cut(raw.as_bytes(), &[]);
            let wire = WireStream::new(socket, limits(), refuse(), Arc::clone(&requests));
            let service = service_fn(|_: Request<Incoming>| {
                *served.lock().unwrap() += 1;
                let guard = requests.begin();
                let body = guard.guard_body(Full::new(Bytes::new()), http::Version::HTTP_11);
                async move { Ok::<_, Infallible>(Response::new(body)) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(wire), service).await;
        });
        prop_assert_eq!(*served.lock().unwrap(), expected, "{:?}", raw);
    }
}

#[test]
fn malformed_chunks_are_an_error_for_hyper_and_nothing_follows() {
    run(async {
        let sent =
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxGET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut wire = WireStream::new(ScriptedSocket::cut(sent, &[]), limits(), refuse(), Arc::default());
        let mut got = Vec::new();
        assert_eq!(wire.read_to_end(&mut got).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(got.ends_with(b"chunked\r\n\r\n"), "{}", String::from_utf8_lossy(&got));
        assert_eq!(wire.read_to_end(&mut got).await.unwrap(), 0);
    });
}

#[test]
fn a_response_that_hyper_makes_by_itself_is_replaced() {
    run(async {
        let sent = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut wire = WireStream::new(ScriptedSocket::cut(sent, &[]), limits(), refuse(), Arc::default());
        let mut got = [0; 100];
        assert_eq!(wire.read(&mut got).await.unwrap(), sent.len());
        wire.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        wire.shutdown().await.unwrap();
        assert_eq!(wire.socket.into_inner().written, b"refused bad_request");
    });
}

#[test]
fn all_bytes_after_the_http2_preface_pass() {
    let sent = [PREFACE, b"\0\0\0\x04\0\0\0\0\0 whatever\n\n"].concat();
    for cuts in [vec![], vec![1; 40], vec![23], vec![25]] {
        assert_eq!(run(pass_through(ScriptedSocket::cut(&sent, &cuts), 7)).0, sent);
    }
    let (passed, answered) = run(pass_through(ScriptedSocket::cut(b"PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n", &[3]), 50));
    assert_eq!((passed, answered), (vec![], b"refused bad_request".to_vec()));
}

/// A socket as TLS has it, whose client reads nothing: writes are taken into a buffer that cannot be sent.
struct UnsentSocket;

impl AsyncRead for UnsentSocket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for UnsentSocket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_and_a_close_that_the_client_holds_up_end_after_the_write_stall() {
    let mut wire = WireStream::new(UnsentSocket, limits(), refuse(), Arc::default());
    wire.write_all(b"taken").await.unwrap();
    assert_eq!(wire.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let mut wire = WireStream::new(UnsentSocket, limits(), refuse(), Arc::default());
    assert_eq!(wire.shutdown().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// A body that never ends, and cancels the token when it is dropped.
struct Endless(CancellationToken);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; 64 * 1024])))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Returns a listener with TLS, whose certificate is in this folder.
fn secure(listener: tokio::net::TcpListener, limits: listen::ListenerLimits, folder: &Path) -> listen::ServedPort {
    let metrics = Arc::new(Metrics::new("test"));
    let source = CertificateSource::self_signed_in(folder);
    let certificates = Arc::new(CertificateStore::open(source, Arc::clone(&metrics)).unwrap());
    let tls = Some(SecurePort::new(certificates, limits.max_connections, &metrics));
    listen::ServedPort { listener, limits, tls }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

async fn connect(address: SocketAddr, is_secure: bool) -> Box<dyn Duplex> {
    let stream = TcpStream::connect(address).await.unwrap();
    if !is_secure {
        return Box::new(stream);
    }
    let config = Trust::of_any_certificate().unwrap().config().unwrap();
    Box::new(TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await.unwrap())
}

#[tokio::test]
async fn the_response_of_a_client_that_reads_nothing_is_dropped_after_the_write_stall() {
    for is_secure in [false, true] {
        assert_unread_response_is_dropped(is_secure).await;
    }
}

async fn assert_unread_response_is_dropped(is_secure: bool) {
    let limits = listen::ListenerLimits {
        wire: WireLimits { write_stall: Duration::from_millis(300), ..limits() },
        max_connections: 1,
    };
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let port = if is_secure { secure(listener, limits, folder.path()) } else { plain(listener, limits) };
    let (dropped, stop) = (CancellationToken::new(), CancellationToken::new());
    let on_drop = dropped.clone();
    let service = move |_: Request<InboundBody>, _| {
        let body = Endless(on_drop.clone());
        async move { Response::new(body) }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(Cores::of_this_runtime(), port, service, refuse_any(), stop.clone()));
    let mut client = connect(address, is_secure).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    tokio::time::timeout(DEADLINE, dropped.cancelled()).await.expect("the response is dropped");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, client.read_to_end(&mut rest)).await.expect("the connection is closed");
    stop.cancel();
    tokio::time::timeout(DEADLINE, tasks.join_all()).await.expect("all tasks end");
}

#[tokio::test]
async fn an_unread_http2_response_is_abandoned_and_others_go_on_over_its_connection() {
    let wire = WireLimits { write_stall: Duration::from_millis(300), ..limits() };
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (dropped, stop) = (CancellationToken::new(), CancellationToken::new());
    let on_drop = dropped.clone();
    let service = move |request: Request<InboundBody>, _| {
        let on_drop = on_drop.clone();
        async move {
            match request.uri().path() {
                "/endless" => Response::new(BodyExt::boxed(Endless(on_drop))),
                _ => Response::new(BodyExt::boxed(Full::new(Bytes::from(vec![b'x'; 300_000])))),
            }
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(
        Cores::of_this_runtime(),
        plain(listener, listen::ListenerLimits { wire, max_connections: 1 }),
        service,
        refuse_any(),
        stop.clone(),
    ));
    let client = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tasks.spawn(async { _ = connection.await });
    let get = |path: &str| Request::get(format!("http://h{path}")).body(Full::new(Bytes::new())).unwrap();
    let unread = sender.send_request(get("/endless")).await.unwrap();
    tokio::time::timeout(DEADLINE, dropped.cancelled()).await.expect("the response is dropped");
    let whole = sender.send_request(get("/")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(whole.len(), 300_000);
    assert!(unread.into_body().collect().await.is_err(), "the abandoned response ends with an error");
    stop.cancel();
    drop(sender);
    tokio::time::timeout(DEADLINE, tasks.join_all()).await.expect("all tasks end");
}

/// A response has ended for hyper once it is in hyper's buffer, which may take long to write.
#[tokio::test(start_paused = true)]
async fn an_http2_connection_is_not_idle_while_a_slow_client_reads_on() {
    const PIECE: Duration = Duration::from_secs(15);
    let limits =
        WireLimits { header_timeout: Duration::from_secs(20), write_stall: Duration::from_secs(60), ..limits() };
    let (mut client, server) = tokio::io::duplex(100);
    let begin = ActiveInstant::now();
    let (mut reader, mut writer) = tokio::io::split(WireStream::new(server, limits, refuse(), Arc::default()));
    client.write_all(PREFACE).await.unwrap();
    let mut preface = [0; PREFACE.len()];
    reader.read_exact(&mut preface).await.unwrap();
    let writes = async { writer.write_all(&[b'x'; 1_000]).await.unwrap() };
    let end = async {
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
        begin.elapsed()
    };
    let reads = async {
        for _ in 0..10 {
            tokio::time::sleep(PIECE).await;
            client.read_exact(&mut [0; 100]).await.unwrap();
        }
    };
    let ((), ended, ()) = tokio::join!(writes, end, reads);
    assert!((PIECE * 9 + limits.header_timeout..PIECE * 10 + limits.header_timeout).contains(&ended), "{ended:?}");
}

/// Sends each piece to a wire at its time in seconds, the first ones of which may be a whole request, and plays a hyper
/// that answers it at once. Returns when the connection ended, in seconds, and what the wire itself wrote.
async fn end_of_connection(pieces: &[(u64, &str)], limits: WireLimits) -> (u64, String) {
    let (mut client, server) = tokio::io::duplex(4096);
    let requests = Arc::new(ConnectionRequests::default());
    let mut wire = WireStream::new(server, limits, refuse(), Arc::clone(&requests));
    let begin = ActiveInstant::now();
    let serves = async {
        let mut passed = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let count = wire.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            passed.extend_from_slice(&buffer[..count]);
            if passed.ends_with(b"\r\n\r\n") {
                drop(requests.begin());
                wire.flush().await.unwrap();
            }
        }
        let ended = begin.elapsed().as_secs();
        wire.shutdown().await.unwrap();
        drop(wire);
        ended
    };
    let sends = async {
        for (at, piece) in pieces {
            tokio::time::sleep(Duration::from_secs(*at).saturating_sub(begin.elapsed())).await;
            let _ = client.write_all(piece.as_bytes()).await;
        }
        let mut written = String::new();
        client.read_to_string(&mut written).await.unwrap();
        written
    };
    tokio::join!(serves, sends)
}

/// Regression: a kept connection was closed 30 s after its last response, before a load balancer in front gave it up, so
/// that requests of others failed.
#[tokio::test(start_paused = true)]
async fn the_next_head_has_its_own_time_after_the_idle_time() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let seconds = Duration::from_secs;
    let limits = WireLimits { header_timeout: seconds(30), idle_timeout: seconds(75), ..limits() };
    let refused = "refused request_timeout";
    for (pieces, expected) in [
        (&[][..], (30, "")),
        (&[(20, "G")], (30, refused)),
        (&[(0, REQUEST)], (75, "")),
        (&[(10, REQUEST)], (85, "")),
        (&[(0, REQUEST), (74, REQUEST)], (149, "")),
        (&[(0, REQUEST), (70, "G")], (100, refused)),
        (&[(0, REQUEST), (70, "G"), (80, "E"), (99, "T")], (100, refused)),
        (&[(0, REQUEST), (40, "\r\n")], (75, "")),
        (&[(0, REQUEST), (40, "\r\n"), (70, "G")], (100, refused)),
        (&[(0, "GET / HTTP/1.1\r\nHost: h\r\n\r\nG")], (30, refused)),
    ] {
        let (ended, written) = end_of_connection(pieces, limits).await;
        assert_eq!((ended, written.as_str()), expected, "{pieces:?}");
    }
}

#[tokio::test]
async fn a_request_body_arrives_whole_through_a_real_connection() {
    let limits = listen::ListenerLimits { wire: limits(), max_connections: 1 };
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let service = |request: Request<InboundBody>, _| async move {
        let body = match request.into_body() {
            InboundBody::Streamed(body) => body.collect().await.unwrap().to_bytes(),
            InboundBody::Whole(body) | InboundBody::Job(body) => body,
        };
        Response::new(Full::new(body))
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::serve(Cores::of_this_runtime(), plain(listener, limits), service, refuse_any(), stop.clone()));
    let client = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    tasks.spawn(async { connection.await.unwrap() });
    for length in [0, 1, 4_000, 5_000, 1_000_000] {
        let body = Bytes::from(vec![b'x'; length]);
        let request = Request::post("/").header("host", "h").body(Full::new(body.clone())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes() == body, "{length} bytes");
        sender.ready().await.unwrap();
    }
    stop.cancel();
    tokio::time::timeout(DEADLINE, tasks.join_all()).await.expect("idle connections end with the service");
}
