//! Probes of a remote worker: one request for its health path, and what the response means.
//!
//! Backends differ in what they serve there, so any response but a redirect or a server error (5xx) counts as ready.

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use nix::errno::Errno;

use crate::dial::{BadRemote, DialTarget};
use crate::http_client::{HttpError, Response};
use crate::worker::bounds::REMOTE_PROBE_BODY;
use crate::worker::health::probe::Prober;
use crate::worker::local_errors::shortage;

/// The outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RemoteProbe {
    /// The backend responded, and can serve as far as the response tells.
    Ready {
        /// Whether it accepted the key: the response is neither 401 nor 403.
        takes_our_key: bool,
        /// Whether it has the health path: the response is not 404.
        has_path: bool,
    },
    /// The backend is loading its model.
    Loading,
    /// There was no response in time, or a bad one. Contains one sentence about that.
    Failed(String),
    /// The probe was not sent, because this machine was short of something.
    NotSent(Errno),
}

/// Returns the URI of this health path at `target`.
///
/// # Errors
///
/// `health` is not a path.
pub(super) fn health_uri(target: &DialTarget, health: &str) -> Result<Uri, BadRemote> {
    let path = PathAndQuery::try_from(health).ok().filter(|_| health.starts_with('/')).ok_or(BadRemote::Health)?;
    Ok(target.uri(Some(path))?)
}

/// Sends one probe and returns what the response means.
pub(super) async fn probe(prober: &Prober, target: &DialTarget, health: &Uri) -> RemoteProbe {
    let host = target.authority.as_str();
    let outcome = match prober.get_with(health.clone(), target.authorization.as_ref(), target.headers.clone()).await {
        Ok(response) => classify(response, host).await,
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| match error {
        HttpError::TimedOut => RemoteProbe::Failed(format!("{host} does not answer its probe in time")),
        error => shortage(&error).map_or_else(|| RemoteProbe::Failed(error.explain(host)), RemoteProbe::NotSent),
    })
}

async fn classify(response: Response, host: &str) -> Result<RemoteProbe, HttpError> {
    let status = response.status();
    Ok(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RemoteProbe::Ready { takes_our_key: false, has_path: true },
        StatusCode::SERVICE_UNAVAILABLE if says_loading(response).await? => RemoteProbe::Loading,
        _ if status.is_redirection() => {
            RemoteProbe::Failed(format!("{host} sends its probe elsewhere ({status}); api_base must lead there itself"))
        }
        _ if status.is_server_error() => RemoteProbe::Failed(format!("{host} answers its probe with {status}")),
        // Other client errors (4xx): the backend has no such path, or another method for it. It is up.
        _ => RemoteProbe::Ready { takes_our_key: true, has_path: status != StatusCode::NOT_FOUND },
    })
}

/// Returns whether the begin of a response contains the word "loading", like those of llama-server and of this gateway.
/// If the connection breaks, the bytes that came before count.
///
/// # Errors
///
/// [`HttpError::TimedOut`] when the body does not come in time.
async fn says_loading(response: Response) -> Result<bool, HttpError> {
    let mut start = Vec::new();
    if let Err(error @ HttpError::TimedOut) = response.read_start(REMOTE_PROBE_BODY, &mut start).await {
        return Err(error);
    }
    const WORD: &[u8] = b"loading";
    Ok(start.windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD)))
}
