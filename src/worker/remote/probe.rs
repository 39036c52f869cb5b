//! Probes of a remote worker: one request for its health path, and what the answer says.
//!
//! Backends differ in what they have there, so whoever answers at all, and not with an error of the server, lives.

use crate::awake;
use crate::dial::{BadRemote, Dialer, Target, explain};
use crate::worker::bounds::{REMOTE_PROBE_BODY, REMOTE_PROBE_TIMEOUT};
use crate::worker::local_errors::shortage;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use nix::errno::Errno;

/// The outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// It lives, and does not say that it cannot serve.
    Ready {
        /// Whether it did not refuse the probe for its key.
        takes_our_key: bool,
    },
    /// It is loading its model.
    Loading,
    /// It did not answer, or not in time, or not well: a plain sentence about that.
    Failed(String),
    /// It was not asked, for want of something on this machine.
    Unasked(Errno),
}

/// Asks one remote worker how it is.
pub(super) struct Prober {
    client: Client<Dialer, Empty<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    host: String,
}

impl Prober {
    /// For a worker there, whose health path is this one.
    pub(super) fn new(dialer: Dialer, target: &Target, health: &str) -> Result<Self, BadRemote> {
        let path = PathAndQuery::try_from(health).ok().filter(|_| health.starts_with('/')).ok_or(BadRemote::Health)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("llamagate/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &target.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        // A fresh connection each time: whether one can be made is a part of the question.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .build(dialer);
        Ok(Self { client, uri: target.uri(Some(path))?, headers, host: target.authority.to_string() })
    }

    /// Host and port, for logs.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Asks once.
    pub(super) async fn probe(&self) -> Probe {
        match awake::timeout(REMOTE_PROBE_TIMEOUT, self.ask()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                shortage(&error).map_or_else(|| Probe::Failed(explain(&error, &self.host)), Probe::Unasked)
            }
            Err(_) => Probe::Failed(format!("{} does not answer its probe in time", self.host)),
        }
    }

    async fn ask(&self) -> Result<Probe, Error> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let (head, body) = self.client.request(request).await?.into_parts();
        let (status, host) = (head.status, &self.host);
        Ok(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Probe::Ready { takes_our_key: false },
            StatusCode::SERVICE_UNAVAILABLE if says_loading(body).await => Probe::Loading,
            _ if status.is_redirection() => {
                Probe::Failed(format!("{host} sends its probe elsewhere ({status}); api_base must lead there itself"))
            }
            _ if status.is_server_error() => Probe::Failed(format!("{host} answers its probe with {status}")),
            // Others of the client's errors: there is no such path, or not for such a request.
            _ => Probe::Ready { takes_our_key: true },
        })
    }
}

/// Whether the beginning of an answer has the word, as that of llama-server, of this gateway and of others does.
async fn says_loading(mut body: Incoming) -> bool {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let room = REMOTE_PROBE_BODY - bytes.len();
        let piece = frame.data_ref().map_or(&[][..], Bytes::as_ref);
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes.len() == REMOTE_PROBE_BODY {
            break;
        }
    }
    const WORD: &[u8] = b"loading";
    bytes.windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD))
}
