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
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::builders::{http1_builder, http2_builder};
use super::client_stream::ClientStream;
use super::closing::Closing;
pub use super::discard::InboundBody;
use super::handshake::{ClientCertificate, OpenedConnection, SecurePort};
use super::whole_server::{ConnectionFate, serve_whole};
use super::wire::requests::ConnectionRequests;
use super::wire::{RefusalWriter, WireLimits, WireStream};
use crate::cores::Cores;
use crate::gateway::bounds::{ACCEPT_PAUSE, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_TRIES, LISTEN_BACKLOG};
use crate::pause_clock::{self, OneReadingPerPoll};
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

/// A socket that is listened on, and how it is served.
pub struct ServedPort {
    /// The socket.
    pub listener: TcpListener,
    /// Its limits.
    pub limits: ListenerLimits,
    /// Its TLS; `None` if it speaks plain HTTP.
    pub tls: Option<SecurePort>,
}

/// Accepts connections and serves each on one of the cores until `stop` is cancelled; `refuse` answers malformed heads.
///
/// Then returns when all connections have ended, or after [`CONNECTION_GRACE`], which drops those that are still open.
pub async fn serve<S, F, B>(cores: Cores, port: ServedPort, service: S, refuse: HeadRefuser, stop: CancellationToken)
where
    S: Fn(Request<InboundBody>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let ServedPort { listener, limits, tls } = port;
    let (http1, http2) = (http1_builder(&limits.wire), http2_builder(&limits.wire));
    let closing = Closing::default();
    let server = Arc::new(ConnectionServer { http1, http2, limits: limits.wire, tls, service, refuse, closing });
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
        let connection = Arc::clone(&server).serve(stream, peer, (permit, core));
        // Streams of HTTP/2 have tasks of their own, which read the clock each time.
        connections.spawn_on(OneReadingPerPoll::new(connection), &runtime);
    }
    // New clients are refused by the kernel from now on, and do not wait in the backlog of a service that stops.
    drop(listener);
    server.closing.begin();
    let drained = async { while connections.join_next().await.is_some() {} };
    if pause_clock::timeout(CONNECTION_GRACE, drained).await.is_err() {
        debug!("the grace period is over: the remaining connections are closed");
    }
}

/// What the connections of one listener have in common.
struct ConnectionServer<S> {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    limits: WireLimits,
    tls: Option<SecurePort>,
    service: S,
    refuse: HeadRefuser,
    closing: Closing,
}

impl<S, F, B> ConnectionServer<S>
where
    S: Fn(Request<InboundBody>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves the requests of one connection, and holds `until_the_end` as long. The state of a connection is made here:
    /// one that was handed in would be in the task twice.
    async fn serve(self: Arc<Self>, stream: std::net::TcpStream, peer: IpAddr, until_the_end: impl Send + 'static) {
        let _until_the_end = until_the_end;
        if let Err(error) = self.serve_requests(stream, peer).await {
            debug!(%error, "a connection ended early");
        }
    }

    /// Serves the requests of one connection, on the runtime that polls this first.
    async fn serve_requests(
        self: Arc<Self>,
        stream: std::net::TcpStream,
        peer: IpAddr,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::from_std(stream)?;
        // Streamed tokens are small writes, which Nagle's algorithm would delay. An error means that the client is
        // gone.
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.tls.clone() else {
            return self.serve_opened(ClientStream::Plain(stream), peer, None).await;
        };
        // Boxed, because plain connections would carry the size of a handshake.
        let opening = Box::pin(tls.open(stream));
        let Some(opened) = self.closing.until_begun(opening).await else { return Ok(()) };
        match opened? {
            OpenedConnection::Ready(stream, certificate) => self.serve_opened(stream, peer, certificate).await,
            OpenedConnection::Challenge | OpenedConnection::Unused => Ok(()),
            OpenedConnection::PlainHttp(stream) => Ok(Box::pin(self.refuse_plain(stream, peer)).await?),
        }
    }

    /// Tells a client that speaks plain HTTP to a port with TLS that it has to speak HTTPS.
    ///
    /// # Errors
    /// The client leaves.
    async fn refuse_plain(&self, stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        let requests = Arc::default();
        let mut wire = WireStream::new(ClientStream::Plain(stream), self.limits, self.refuser_for(peer), requests);
        wire.refuse_connection(&Refusal::TlsRequired).await
    }

    fn refuser_for(&self, peer: IpAddr) -> RefusalWriter {
        let refuse = Arc::clone(&self.refuse);
        Arc::new(move |raw_head, refusal| refuse(raw_head, refusal, peer))
    }

    /// Serves the requests of a connection after its handshake.
    async fn serve_opened(
        self: Arc<Self>,
        stream: ClientStream,
        peer: IpAddr,
        certificate: Option<ClientCertificate>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let requests = Arc::new(ConnectionRequests::default());
        // Boxed, because it moves into hyper's connection, and would be in the task twice.
        let mut wire = Box::new(WireStream::new(stream, self.limits, self.refuser_for(peer), Arc::clone(&requests)));
        let Some(is_http2) = self.closing.until_begun(wire.speaks_http2()).await else { return Ok(()) };
        let is_http2 = is_http2?;
        let server = Arc::clone(&self);
        let respond = move |mut request: Request<InboundBody>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            // Counted at once: a write before that is taken for a response that hyper makes by itself.
            let (guard, version) = (requests.begin(), request.version());
            let response = (server.service)(request, peer);
            async move { response.await.map(|body| guard.guard_body(body, version)) }
        };
        if !is_http2 {
            let respond_whole = |request: Request<Bytes>| respond(request.map(InboundBody::Whole));
            if serve_whole(&mut *wire, &self.closing, respond_whole).await? == ConnectionFate::Closed {
                return Ok(());
            }
        }
        let respond = service_fn(move |request: Request<Incoming>| {
            let response = respond(request.map(InboundBody::Streamed));
            async move { Ok::<_, Infallible>(response.await) }
        });
        if is_http2 {
            // Boxed, because few connections are of this version, and each would carry its size.
            let mut connection = Box::pin(self.http2.serve_connection(TokioIo::new(wire), respond));
            return Ok(self.closing.serve(connection.as_mut()).await?);
        }
        // Boxed, because few connections need it.
        let mut connection = Box::pin(self.http1.serve_connection(TokioIo::new(wire), respond));
        Ok(self.closing.serve(connection.as_mut()).await?)
    }
}
