//! The HTTP client for the program's own requests: probes of workers, RunPod's API, its own health port.
//!
//! Owns the limits that all these requests share: connect timeout, deadline, size of a body, redirects. Trusted
//! certificate authorities and the sentences that explain a failed connection belong to `dial`. Clients' requests do
//! not go through this client: the gateway forwards them itself.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use reqwest::redirect::Policy;
use thiserror::Error;

use crate::dial::{Trust, explain};
use crate::os::here;
use crate::pause_clock::{self, ActiveInstant};

/// The value of `User-Agent` in each request.
const USER_AGENT: &str = concat!("llamagate/", env!("CARGO_PKG_VERSION"));

/// Most redirects that one request follows, if it follows any.
const MAX_REDIRECTS: usize = 10;

/// Options that all requests of one client share.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest time until a connection can be used, name resolution and TLS handshake included.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept for the next request; with `None`, each request opens a connection.
    pub keep_idle: Option<Duration>,
    /// Whether redirects are followed. If not, the redirect itself is the response.
    pub follow_redirects: bool,
    /// Whether requests go through the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY` ...).
    pub use_proxy: bool,
}

/// Sends requests over HTTP/1.1. Clones share their connections, which belong to the tokio
/// runtime that opened them.
#[derive(Debug, Clone)]
pub struct HttpClient(reqwest::Client);

/// A response whose body has not been read yet.
#[derive(Debug)]
pub struct Response {
    inner: reqwest::Response,
    /// By when the body must have been read.
    deadline: ActiveInstant,
}

/// Why there is no response, or only a part of it. Holds no URL, because a URL may hold secrets.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The deadline has passed.
    #[error("the request timed out")]
    TimedOut,
    /// The body is larger than this many bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection could not be made, or it broke.
    #[error(transparent)]
    Failed(reqwest::Error),
}

impl HttpClient {
    /// Creates a client that trusts these authorities.
    ///
    /// # Errors
    ///
    /// TLS or the name resolver cannot be set up.
    pub fn new(trust: &Trust, options: &ClientOptions) -> io::Result<Self> {
        let tls = Arc::unwrap_or_clone(trust.config().map_err(io::Error::other)?);
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .user_agent(USER_AGENT)
            .redirect(if options.follow_redirects { Policy::limited(MAX_REDIRECTS) } else { Policy::none() })
            .connect_timeout(options.connect_timeout)
            // The kernel's TCP timers would go on during a pause of this program. The deadlines of requests leave
            // pauses out, and bound the wait for a silent peer too.
            .tcp_keepalive(None)
            .tcp_keepalive_interval(None)
            .tcp_keepalive_retries(None);
        let builder = here::without_user_timeout(builder);
        let builder = if options.use_proxy { builder } else { builder.no_proxy() };
        let builder = match options.keep_idle {
            Some(time) => builder.pool_idle_timeout(time),
            None => builder.pool_max_idle_per_host(0),
        };
        builder.build().map(Self).map_err(io::Error::other)
    }

    /// Sends a request and waits for the head of its response. `timeout` bounds head and body together; pauses of this
    /// program do not count.
    ///
    /// # Errors
    ///
    /// The time is up, or the connection failed. A response with an error status is not an error.
    pub async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response, HttpError> {
        let deadline = ActiveInstant::now() + timeout;
        let sent = pause_clock::timeout_at(deadline, self.execute(request)).await;
        Ok(Response { inner: sent.map_err(|_| HttpError::TimedOut)??, deadline })
    }

    async fn execute(&self, request: Request<Bytes>) -> Result<reqwest::Response, HttpError> {
        loop {
            let paused = pause_clock::total_paused();
            let request = reqwest::Request::try_from(request.clone())?;
            match self.0.execute(request).await {
                // The connect timeout uses the kernel's clock, so a pause of this program may have used it up. Nothing
                // has been sent yet, so another try is safe.
                Err(error) if is_connect_timeout(&error) && pause_clock::total_paused() > paused => {}
                outcome => return Ok(outcome?),
            }
        }
    }
}

impl Response {
    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Replaces the deadline: the body must have been read within this time from now.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { deadline: ActiveInstant::now() + timeout, ..self }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    ///
    /// The body has more than `limit` bytes, the deadline has passed, or the connection broke.
    pub async fn read_all(self, limit: usize) -> Result<Bytes, HttpError> {
        let body = Limited::new(reqwest::Body::from(self.inner), limit).collect();
        match pause_clock::timeout_at(self.deadline, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            // The error is the body's own, or else `LengthLimitError`.
            Ok(Err(error)) => Err(match error.downcast::<reqwest::Error>() {
                Ok(error) => HttpError::from(*error),
                Err(_) => HttpError::TooLarge(limit),
            }),
            Err(_) => Err(HttpError::TimedOut),
        }
    }

    /// Waits for the next bytes of the body until `deadline`, whatever the deadline of the request was. Returns `None` at
    /// the end of the body.
    ///
    /// # Errors
    ///
    /// The deadline has passed, or the connection broke.
    pub async fn next_chunk(&mut self, deadline: ActiveInstant) -> Result<Option<Bytes>, HttpError> {
        let chunk = pause_clock::timeout_at(deadline, self.inner.chunk()).await;
        Ok(chunk.map_err(|_| HttpError::TimedOut)??)
    }

    /// Reads the body's first `limit` bytes into `start` and leaves the rest. Bytes that arrived before an error are
    /// kept.
    ///
    /// # Errors
    ///
    /// The deadline has passed, or the connection broke.
    pub async fn read_start(mut self, limit: usize, start: &mut Vec<u8>) -> Result<(), HttpError> {
        let reading = async {
            while start.len() < limit
                && let Some(chunk) = self.inner.chunk().await?
            {
                let wanted = chunk.len().min(limit - start.len());
                start.extend_from_slice(&chunk[..wanted]);
            }
            Ok(())
        };
        pause_clock::timeout_at(self.deadline, reading).await.map_err(|_| HttpError::TimedOut)?
    }
}

impl HttpError {
    /// Explains in one sentence why a request to this host and port failed. The sentence holds the host and the reason,
    /// but no URL.
    pub fn explain(&self, host: &str) -> String {
        match self {
            Self::TimedOut => format!("{host} does not answer in time"),
            Self::TooLarge(limit) => format!("the answer of {host} is larger than {limit} bytes"),
            // reqwest's own type for this error is private, so `explain` would not recognise it.
            Self::Failed(error) if is_connect_timeout(error) => {
                explain(&io::Error::from(io::ErrorKind::TimedOut), host)
            }
            Self::Failed(error) => explain(error, host),
        }
    }
}

impl From<reqwest::Error> for HttpError {
    fn from(error: reqwest::Error) -> Self {
        Self::Failed(error.without_url())
    }
}

fn is_connect_timeout(error: &reqwest::Error) -> bool {
    error.is_connect() && error.is_timeout()
}
