//! Probes of a remote worker: one request for its health path, and what the answer says.
//!
//! Backends differ in what they have there, so whoever answers at all, and not with an error of the server, lives.

use crate::dial::{BadRemote, DialTarget};
use crate::http_client::{HttpError, Response};
use crate::worker::bounds::REMOTE_PROBE_BODY;
use crate::worker::health::probe::Prober;
use crate::worker::local_errors::shortage;
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use nix::errno::Errno;

/// The outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RemoteProbe {
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

/// Returns the URI that a worker with this health path is probed at.
///
/// # Errors
///
/// It is no path.
pub(super) fn health_uri(target: &DialTarget, health: &str) -> Result<Uri, BadRemote> {
    let path = PathAndQuery::try_from(health).ok().filter(|_| health.starts_with('/')).ok_or(BadRemote::Health)?;
    Ok(target.uri(Some(path))?)
}

/// Sends one probe to a worker there, and says what its response means.
pub(super) async fn probe(prober: &Prober, target: &DialTarget, health: &Uri) -> RemoteProbe {
    let host = target.authority.as_str();
    let outcome = match prober.get(health.clone(), target.authorization.as_ref()).await {
        Ok(response) => judge(response, host).await,
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| match error {
        HttpError::TimedOut => RemoteProbe::Failed(format!("{host} does not answer its probe in time")),
        error => shortage(&error).map_or_else(|| RemoteProbe::Failed(error.explain(host)), RemoteProbe::Unasked),
    })
}

async fn judge(response: Response, host: &str) -> Result<RemoteProbe, HttpError> {
    let status = response.status();
    Ok(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RemoteProbe::Ready { takes_our_key: false },
        StatusCode::SERVICE_UNAVAILABLE if says_loading(response).await? => RemoteProbe::Loading,
        _ if status.is_redirection() => {
            RemoteProbe::Failed(format!("{host} sends its probe elsewhere ({status}); api_base must lead there itself"))
        }
        _ if status.is_server_error() => RemoteProbe::Failed(format!("{host} answers its probe with {status}")),
        // Others of the client's errors: there is no such path, or not for such a request.
        _ => RemoteProbe::Ready { takes_our_key: true },
    })
}

/// Whether the beginning of an answer has the word, as that of llama-server, of this gateway and of others does. Only a
/// deadline that passes is an error: what came before a connection broke counts.
async fn says_loading(response: Response) -> Result<bool, HttpError> {
    let mut start = Vec::new();
    if let Err(error @ HttpError::TimedOut) = response.read_start(REMOTE_PROBE_BODY, &mut start).await {
        return Err(error);
    }
    const WORD: &[u8] = b"loading";
    Ok(start.windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD)))
}
