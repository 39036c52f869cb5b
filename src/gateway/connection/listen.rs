//! Sockets: bind, accept, one task for each connection, and their end. What comes over a socket is `wire/`'s.

use super::wire::turns::ConnectionRequests;
use super::wire::{RefusalWriter, WireLimits, WireStream};
use crate::gateway::bounds::{
    ACCEPT_PAUSE, HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT, HTTP2_STREAMS, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL,
    KEEPALIVE_TRIES, LISTEN_BACKLOG,
};
use crate::pause_clock;
use crate::settings::bounds::CONNECTION_GRACE;
use crate::telemetry::throttled_warning::ThrottledWarning;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Opens a listening socket.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES))?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Header lines that hyper takes without being told.
const HYPER_HEADERS: usize = 100;

/// Bytes of a head that hyper takes without being told.
const HYPER_BUFFER: usize = 400 * 1024;

/// What a listener allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// What each connection is held to.
    pub wire: WireLimits,
    /// Most connections at once; further ones wait to be accepted.
    pub max_connections: usize,
}

/// Accepts and serves connections, and lets `refuse` answer bad heads, until `stop` is cancelled and they have ended, or
/// [`CONNECTION_GRACE`] is over.
pub async fn serve<S, F, B>(
    listener: TcpListener,
    terms: ListenerLimits,
    service: S,
    refuse: RefusalWriter,
    stop: CancellationToken,
) where
    S: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = Arc::new(service);
    let builder = http_builder(&terms.wire);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(terms.max_connections));
    let mut connections = JoinSet::new();
    let mut refused_by_system = ThrottledWarning::default();
    loop {
        // Ended connections are joined on the way.
        while connections.try_join_next().is_some() {}
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, client) = match stream {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = refused_by_system.report_due() {
                    warn!(%error, times, "connections could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = Arc::clone(&service);
        let turns = Arc::new(ConnectionRequests::default());
        let wire = WireStream::new(stream, terms.wire, Arc::clone(&refuse), Arc::clone(&turns));
        let answer = service_fn(move |request: Request<Incoming>| {
            let (turn, version) = (turns.begin(), request.version());
            let answer = service(request, client.ip());
            async move { Ok::<_, Infallible>(answer.await.map(|body| turn.guard_body(body, version))) }
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(wire), answer).into_owned());
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    };
    if pause_clock::timeout(CONNECTION_GRACE, drained).await.is_err() {
        debug!("connections that are still open are closed");
    }
}

/// HTTP/1.1 and HTTP/2 with prior knowledge, within the limits of the wire.
fn http_builder(terms: &WireLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The wire has its own clock for heads, and hyper must take every head that the wire lets pass.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    if terms.head.headers() > HYPER_HEADERS {
        builder.http1().max_headers(terms.head.headers());
    }
    if terms.head.size() > HYPER_BUFFER {
        builder.http1().max_buf_size(terms.head.size());
    }
    // Twice the size, so that the pipeline has its say before HTTP/2 refuses without a word.
    let http2_heads = u32::try_from(terms.head.size().saturating_mul(2)).unwrap_or(u32::MAX);
    builder
        .http2()
        // Else a ping would be overdue after a pause, before the answer to it is read.
        .timer(pause_clock::ActiveTimer)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(http2_heads)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}
