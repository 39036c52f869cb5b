//! Listening sockets: binds them, accepts connections, serves each in a task of its own on one core, and shuts down
//! gracefully.
//!
//! What a client may send over its socket is decided in `wire/`.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::wire::requests::ConnectionRequests;
use super::wire::{RefusalWriter, WireLimits, WireStream};
use crate::cores::Cores;
use crate::gateway::bounds::{
    ACCEPT_PAUSE, HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT, HTTP2_STREAMS, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL,
    KEEPALIVE_TRIES, LISTEN_BACKLOG,
};
use crate::pause_clock;
use crate::refusal::Refusal;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::telemetry::throttled_warning::ThrottledWarning;

/// Opens a listening socket.
///
/// # Errors
/// Returns the system's error if the socket cannot be made or configured, or the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit keepalive from the listening one.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES))?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Header lines that hyper accepts by default (`DEFAULT_MAX_HEADERS` in its `src/proto/h1/role.rs`).
const HYPER_MAX_HEADERS: usize = 100;

/// Bytes of a head that hyper accepts by default, at least (`DEFAULT_MAX_BUFFER_SIZE` in its `src/proto/h1/io.rs`).
const HYPER_MAX_HEAD_SIZE: usize = 400 * 1024;

/// Builds the whole response to a refused head of a client at this address, as bytes, from as much of the head as has
/// arrived.
pub type HeadRefuser = Arc<dyn Fn(&[u8], &Refusal, IpAddr) -> Bytes + Send + Sync>;

/// Limits of a listener and its connections.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Limits of each connection.
    pub wire: WireLimits,
    /// Most connections at once. Further ones stay in the kernel's backlog until a connection ends.
    pub max_connections: usize,
}

/// Accepts connections and serves each on one of the cores until `stop` is cancelled; `refuse` answers malformed heads.
///
/// Then returns when all connections have ended, or after [`CONNECTION_GRACE`], which drops those that are still open.
pub async fn serve<S, F, B>(
    cores: Cores,
    listener: TcpListener,
    limits: ListenerLimits,
    service: S,
    refuse: HeadRefuser,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let server =
        Arc::new(ConnectionServer { builder: http_builder(&limits.wire), limits: limits.wire, service, refuse });
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let mut connections = JoinSet::new();
    let mut accept_warning = ThrottledWarning::default();
    loop {
        // A JoinSet keeps the tasks that have ended until they are joined.
        while connections.try_join_next().is_some() {}
        // The permit comes before `accept`: a connection over the limit waits in the backlog and takes no descriptor.
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        // Released from this runtime, because the core's own is to watch the socket.
        let accepted = accepted.and_then(|(stream, client)| Ok((stream.into_std()?, client.ip())));
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = accept_warning.report_due() {
                    warn!(%error, times, "connections could not be accepted");
                }
                // If descriptors have run out, `accept` fails again at once.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let core = cores.least_busy();
        let runtime = core.runtime().clone();
        let connection = Arc::clone(&server).serve(stream, peer, graceful.watcher(), (permit, core));
        connections.spawn_on(connection, &runtime);
    }
    // New clients are refused by the kernel from now on, and do not wait in the backlog of a service that stops.
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    };
    if pause_clock::timeout(CONNECTION_GRACE, drained).await.is_err() {
        debug!("the grace period is over: the remaining connections are closed");
    }
}

/// What the connections of one listener have in common.
struct ConnectionServer<S> {
    builder: auto::Builder<TokioExecutor>,
    limits: WireLimits,
    service: S,
    refuse: HeadRefuser,
}

impl<S, F, B> ConnectionServer<S>
where
    S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves the requests of one connection, and holds `until_the_end` as long. The state of a connection is made here:
    /// one that was handed in would be in the task twice.
    async fn serve(
        self: Arc<Self>,
        stream: std::net::TcpStream,
        peer: IpAddr,
        watcher: Watcher,
        until_the_end: impl Send + 'static,
    ) {
        let _until_the_end = until_the_end;
        if let Err(error) = self.serve_requests(stream, peer, watcher).await {
            debug!(%error, "a connection ended early");
        }
    }

    /// Serves the requests of one connection, on the runtime that polls this first.
    async fn serve_requests(
        self: Arc<Self>,
        stream: std::net::TcpStream,
        peer: IpAddr,
        watcher: Watcher,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::from_std(stream)?;
        // Streamed tokens are small writes, which Nagle's algorithm would delay. An error means that the client is
        // gone.
        let _ = stream.set_nodelay(true);
        let requests = Arc::new(ConnectionRequests::default());
        let refuse = Arc::clone(&self.refuse);
        let refuse: RefusalWriter = Arc::new(move |raw_head, refusal| refuse(raw_head, refusal, peer));
        let wire = WireStream::new(stream, self.limits, refuse, Arc::clone(&requests)).telling_version();
        let server = Arc::clone(&self);
        let respond = service_fn(move |request: Request<Incoming>| {
            // Counted as soon as hyper calls: a write before that is taken for a response that hyper makes by itself.
            let (guard, version) = (requests.begin(), request.version());
            let response = (server.service)(request, peer);
            async move { Ok::<_, Infallible>(response.await.map(|body| guard.guard_body(body, version))) }
        });
        watcher.watch(self.builder.serve_connection(TokioIo::new(wire), respond).into_owned()).await
    }
}

/// Configures hyper for HTTP/1.1, and for HTTP/2 with prior knowledge, within `limits`.
fn http_builder(limits: &WireLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The wire has its own timeout for heads, which answers 408; hyper's would only close the connection. hyper's
    // limits are raised where the settings allow more, since it must accept every head that the wire has checked.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    // The wire itself notices that a client leaves: hyper would reserve a second buffer for that while it answers.
    builder.http1().half_close(true);
    if limits.head.headers() > HYPER_MAX_HEADERS {
        builder.http1().max_headers(limits.head.headers());
    }
    if limits.head.size() > HYPER_MAX_HEAD_SIZE {
        builder.http1().max_buf_size(limits.head.size());
    }
    // Over HTTP/2 the pipeline checks the limits. h2 answers larger heads by itself, with a bare 431: twice the size
    // leaves the pipeline room to answer with a JSON error.
    let http2_head_size = u32::try_from(limits.head.size().saturating_mul(2)).unwrap_or(u32::MAX);
    builder
        .http2()
        // With a timer that counts pauses of the process, a ping would time out after one, before its answer is read.
        .timer(pause_clock::ActiveTimer)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(http2_head_size)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}
