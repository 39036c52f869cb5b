//! Probes of a llama-server: requests for its health, the check that it is the process that was started, and how long
//! it may fail its probes. The counters of a probe are interpreted in `hang.rs`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use nix::errno::Errno;

use super::hang::HangSample;
use super::kv_cache::{self, KvCacheUse};
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient, HttpError, Response};
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{
    DOUBT_GRACE, METRICS_BODY_SIZE, PROBE_TIMEOUT, REFUSAL_UNTIL_RESTART, REMOTE_PROBE_TIMEOUT, SILENCE_UNTIL_RESTART,
    SILENCE_UNTIL_UNHEALTHY, SLOTS_BODY_SIZE,
};
use crate::worker::endpoint::Endpoint;
use crate::worker::local_errors::{is_refused, shortage};

/// The health path of llama-server.
pub(crate) const LLAMA_HEALTH: &str = "/health";

/// The outcome of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// There was no response in time, or a bad one.
    Silent,
    /// The connection was refused: no process listens on the port.
    Refused,
    /// The probe was not sent, because this machine was short of something. That says nothing about the process.
    NotSent(Errno),
    /// It is loading its model.
    Loading,
    /// It can serve.
    Ready,
    /// Another server has the port: it does not use our key.
    Stranger,
}

/// Sends probes: GET requests to our own workers and to remote ones.
#[derive(Clone)]
pub(crate) struct Prober {
    client: HttpClient,
    /// Timeout of one response, the connection and the part of the body that is read included.
    timeout: Duration,
}

impl Prober {
    /// Creates a prober of workers on this machine, without TLS.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be built.
    pub(crate) fn local() -> io::Result<Self> {
        Self::new(&Trust::None, PROBE_TIMEOUT, PROBE_TIMEOUT, true)
    }

    /// Creates a prober of remote workers. It follows no redirect, because a redirect means that the backend is
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be built, for instance because the certificates cannot be read.
    pub(crate) fn remote(trust: &Trust, connect_timeout: Duration) -> io::Result<Self> {
        Self::new(trust, connect_timeout, REMOTE_PROBE_TIMEOUT, false)
    }

    fn new(trust: &Trust, connect_timeout: Duration, timeout: Duration, follow_redirects: bool) -> io::Result<Self> {
        // Each probe opens a connection: that connecting works is a part of the check, and a kept connection would
        // reach llama-server's own keep-alive limit.
        let options = ClientOptions { connect_timeout, keep_idle: None, follow_redirects, use_proxy: false };
        Ok(Self { client: HttpClient::new(trust, &options)?, timeout })
    }

    /// Sends one GET request, with this `Authorization` header if there is one.
    ///
    /// # Errors
    ///
    /// There was no response in time, or the connection failed.
    pub(crate) async fn get(&self, uri: Uri, key: Option<&HeaderValue>) -> Result<Response, HttpError> {
        self.get_with(uri, key, HeaderMap::new()).await
    }

    /// Sends a GET request with this key and these headers.
    ///
    /// # Errors
    ///
    /// There was no response in time, or the connection failed.
    pub(crate) async fn get_with(
        &self,
        uri: Uri,
        key: Option<&HeaderValue>,
        headers: HeaderMap,
    ) -> Result<Response, HttpError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if let Some(key) = key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        self.client.send(request, self.timeout).await
    }

    /// Probes this path, which needs no key. llama-server answers `/health` as soon as it listens, with 503 while it
    /// loads.
    pub(crate) async fn probe(&self, endpoint: &Endpoint, path: &str) -> Probe {
        let Some(uri) = uri(endpoint, path) else { return Probe::Silent };
        match self.get(uri, None).await.map(|response| response.status()) {
            Ok(StatusCode::OK) => Probe::Ready,
            Ok(StatusCode::SERVICE_UNAVAILABLE) => Probe::Loading,
            Ok(_) => Probe::Silent,
            Err(error) => unanswered(&error),
        }
    }

    /// Probes a llama-server that has not been ready yet. Before it counts as ready, it must accept our key and refuse
    /// a request without one. A foreign server that took the port first uses no key, or another one.
    pub(crate) async fn first_probe(&self, endpoint: &Endpoint) -> Probe {
        match self.probe(endpoint, LLAMA_HEALTH).await {
            Probe::Ready => {}
            other => return other,
        }
        let Some(uri) = uri(endpoint, "/props") else { return Probe::Silent };
        let keyed = self.get(uri.clone(), endpoint.target.authorization.as_ref());
        let without_key = self.get(uri, None);
        match tokio::join!(keyed, without_key) {
            (Ok(keyed), Ok(without))
                if keyed.status() == StatusCode::OK && without.status() == StatusCode::UNAUTHORIZED =>
            {
                Probe::Ready
            }
            (Ok(_), Ok(_)) => Probe::Stranger,
            (Err(error), _) | (_, Err(error)) => unanswered(&error),
        }
    }

    /// Reads the counters of llama-server; `None` when it does not respond. If this machine is short of something, or
    /// the server has no metrics, it counts as idle, so that it is not taken for hung.
    pub(crate) async fn hang_sample(&self, endpoint: &Endpoint) -> Option<HangSample> {
        const IDLE: HangSample = HangSample { requests: 0, work: 0 };
        let mut text = Vec::new();
        let outcome = match self.get(uri(endpoint, "/metrics")?, endpoint.target.authorization.as_ref()).await {
            Ok(response) if response.status() == StatusCode::OK => {
                response.read_start(METRICS_BODY_SIZE, &mut text).await
            }
            Ok(_) => return Some(IDLE),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Some(HangSample::read(&String::from_utf8_lossy(&text)).unwrap_or(IDLE)),
            Err(error) => shortage(&error).map(|_| IDLE),
        }
    }

    /// Asks this llama-server which share of its KV cache it uses for requests in progress; `None` when it does not answer, or
    /// only that it cannot answer now. `context` is the room of all its slots, in tokens.
    pub(crate) async fn kv_cache_usage(&self, endpoint: &Endpoint, context: u64) -> Option<KvCacheUse> {
        let response = self.get(uri(endpoint, "/slots")?, endpoint.target.authorization.as_ref()).await.ok()?;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let mut slots = Vec::new();
        response.read_start(SLOTS_BODY_SIZE, &mut slots).await.ok()?;
        Some(kv_cache::usage_of(&slots, context))
    }
}

/// Returns the URI of a path at this endpoint; `None` if the path is invalid.
fn uri(endpoint: &Endpoint, path: &str) -> Option<Uri> {
    endpoint.target.uri(Some(PathAndQuery::try_from(path).ok()?)).ok()
}

fn unanswered(error: &HttpError) -> Probe {
    let silent = if is_refused(error) { Probe::Refused } else { Probe::Silent };
    shortage(error).map_or(silent, Probe::NotSent)
}

/// The consequence of failed probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    /// None yet: the failure may be temporary.
    Wait,
    /// The worker is unhealthy and gets no requests.
    Unhealthy,
    /// The process must be restarted: it has failed its probes for too long.
    Restart,
    /// The process must be restarted: it has closed its port and will not open it again.
    Closed,
}

/// How long a llama-server that has been ready fails its probes: since when there was no good response.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: Option<ActiveInstant>,
    /// Since when it is also doubted, because it broke a connection.
    doubted_since: Option<ActiveInstant>,
    /// Since when all probes are refused.
    refused_since: Option<ActiveInstant>,
}

impl Silence {
    /// Returns whether the last probe was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused_since.is_some()
    }

    /// Records a failed probe that was sent at `sent_at`, and returns the consequence.
    pub(crate) fn record(&mut self, sent_at: ActiveInstant, is_doubted: bool, is_refused: bool) -> ProbeOutcome {
        let silent = self.since.get_or_insert(sent_at).elapsed();
        let doubted = if is_doubted { self.doubted_since.get_or_insert(sent_at).elapsed() } else { Duration::ZERO };
        let refused = if is_refused { Some(*self.refused_since.get_or_insert(sent_at)) } else { None };
        self.refused_since = refused;
        if refused.is_some_and(|since| since.elapsed() >= REFUSAL_UNTIL_RESTART) {
            ProbeOutcome::Closed
        } else if silent >= SILENCE_UNTIL_RESTART {
            ProbeOutcome::Restart
        } else if silent >= SILENCE_UNTIL_UNHEALTHY || doubted >= DOUBT_GRACE {
            ProbeOutcome::Unhealthy
        } else {
            ProbeOutcome::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_process_is_unhealthy_and_later_restarted_however_often_it_is_probed() {
        let mut silence = Silence::default();
        let start = ActiveInstant::now();
        let mut outcomes = Vec::new();
        while start.elapsed() <= SILENCE_UNTIL_RESTART {
            let outcome = silence.record(ActiveInstant::now(), false, false);
            if outcomes.last().is_none_or(|(_, last)| *last != outcome) {
                outcomes.push((start.elapsed(), outcome));
            }
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        let expected = [
            (Duration::ZERO, ProbeOutcome::Wait),
            (SILENCE_UNTIL_UNHEALTHY, ProbeOutcome::Unhealthy),
            (SILENCE_UNTIL_RESTART, ProbeOutcome::Restart),
        ];
        assert_eq!(outcomes, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubted_process_is_unhealthy_sooner_but_not_killed_sooner() {
        let mut silence = Silence::default();
        let sent_at = ActiveInstant::now();
        assert_eq!(silence.record(sent_at, true, false), ProbeOutcome::Wait, "a process may need a moment to end");
        tokio::time::advance(DOUBT_GRACE - Duration::from_millis(1)).await;
        assert_eq!(silence.record(ActiveInstant::now(), true, false), ProbeOutcome::Wait);
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..1_000 {
            assert_eq!(silence.record(ActiveInstant::now(), true, false), ProbeOutcome::Unhealthy);
        }
        assert_eq!(
            Silence::default().record(sent_at, true, false),
            ProbeOutcome::Unhealthy,
            "one long silence is enough"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_closed_its_port_is_restarted_after_a_grace_period() {
        let mut silence = Silence::default();
        assert_eq!(silence.record(ActiveInstant::now(), false, true), ProbeOutcome::Wait, "it may be about to end");
        tokio::time::advance(REFUSAL_UNTIL_RESTART).await;
        assert_eq!(silence.record(ActiveInstant::now(), false, false), ProbeOutcome::Wait, "a process listens again");
        assert_eq!(silence.record(ActiveInstant::now(), false, true), ProbeOutcome::Wait);
        tokio::time::advance(REFUSAL_UNTIL_RESTART).await;
        assert_eq!(silence.record(ActiveInstant::now(), false, true), ProbeOutcome::Closed);
    }
}
