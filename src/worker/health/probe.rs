//! Probes: what a llama-server says about itself, whether it is ours at all, and how long it may say nothing.
//! What its counters mean is `hang.rs`'s.

use super::hang::HangSample;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient, HttpError, Response};
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::{
    DOUBT_GRACE, METRICS_BODY_SIZE, PROBE_TIMEOUT, REFUSAL_UNTIL_RESTART, REMOTE_PROBE_TIMEOUT, SILENCE_UNTIL_RESTART,
    SILENCE_UNTIL_UNHEALTHY,
};
use crate::worker::endpoint::Endpoint;
use crate::worker::local_errors::{is_refused, shortage};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode, Uri};
use nix::errno::Errno;
use std::io;
use std::time::Duration;

/// The path on which llama-server says how it is.
pub(crate) const LLAMA_HEALTH: &str = "/health";

/// The outcome of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nobody answered, or not in time, or not well.
    Silent,
    /// Nobody listens on its port.
    Refused,
    /// It was not asked, for want of something on this machine; that says nothing about it.
    Unasked(Errno),
    /// It is loading its model.
    Loading,
    /// It can serve.
    Ready,
    /// Somebody answered who does not know our key: another server has the port.
    Stranger,
}

/// Sends probes: GET requests to our own workers and to remote ones.
#[derive(Clone)]
pub(crate) struct Prober {
    client: HttpClient,
    /// Longest wait for one response, the connection and the part of the body that is read included.
    timeout: Duration,
}

impl Prober {
    /// Creates a prober of workers on this machine, to which there is no TLS.
    pub(crate) fn local() -> io::Result<Self> {
        Self::new(&Trust::None, PROBE_TIMEOUT, PROBE_TIMEOUT, true)
    }

    /// Creates a prober of remote workers. A redirect says that the backend is elsewhere, so none is followed.
    pub(crate) fn remote(trust: &Trust, connect_timeout: Duration) -> io::Result<Self> {
        Self::new(trust, connect_timeout, REMOTE_PROBE_TIMEOUT, false)
    }

    fn new(trust: &Trust, connect_timeout: Duration, timeout: Duration, follow_redirects: bool) -> io::Result<Self> {
        // Each probe opens a connection: whether that works is a part of the question, and a kept connection would meet
        // llama-server's own keep-alive limit.
        let options = ClientOptions { connect_timeout, keep_idle: None, follow_redirects };
        Ok(Self { client: HttpClient::new(trust, &options)?, timeout })
    }

    /// Sends one request, with this key if there is one.
    ///
    /// # Errors
    ///
    /// There was no response in time, or the connection failed.
    pub(crate) async fn get(&self, uri: Uri, key: Option<&HeaderValue>) -> Result<Response, HttpError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        if let Some(key) = key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        self.client.send(request, self.timeout).await
    }

    /// Asks for this path, which needs no key. llama-server answers `/health` from the first moment on.
    pub(crate) async fn probe(&self, endpoint: &Endpoint, path: &str) -> Probe {
        let Some(uri) = uri(endpoint, path) else { return Probe::Silent };
        match self.get(uri, None).await.map(|response| response.status()) {
            Ok(StatusCode::OK) => Probe::Ready,
            Ok(StatusCode::SERVICE_UNAVAILABLE) => Probe::Loading,
            Ok(_) => Probe::Silent,
            Err(error) => unanswered(&error),
        }
    }

    /// Asks the same of a llama-server that says it is ready for the first time, and makes sure that it is the one we
    /// started: it must take our key and must refuse a request without one. A server that took the port before ours
    /// did knows no key, or another one.
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

    /// Asks what it is doing; nothing when it does not answer. One that cannot be asked, for want of something on this
    /// machine or because it shows no metrics, counts as doing nothing.
    pub(crate) async fn hang_sample(&self, endpoint: &Endpoint) -> Option<HangSample> {
        const NOTHING: HangSample = HangSample { taken: 0, work: 0 };
        let mut text = Vec::new();
        let outcome = match self.get(uri(endpoint, "/metrics")?, endpoint.target.authorization.as_ref()).await {
            Ok(response) if response.status() == StatusCode::OK => {
                response.read_start(METRICS_BODY_SIZE, &mut text).await
            }
            Ok(_) => return Some(NOTHING),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Some(HangSample::read(&String::from_utf8_lossy(&text)).unwrap_or(NOTHING)),
            Err(error) => shortage(&error).map(|_| NOTHING),
        }
    }
}

/// Returns the URI of a path at this endpoint; `None` if it is no path.
fn uri(endpoint: &Endpoint, path: &str) -> Option<Uri> {
    endpoint.target.uri(Some(PathAndQuery::try_from(path).ok()?)).ok()
}

fn unanswered(error: &HttpError) -> Probe {
    let silent = if is_refused(error) { Probe::Refused } else { Probe::Silent };
    shortage(error).map_or(silent, Probe::Unasked)
}

/// What the silence of a llama-server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    /// It may be a passing moment.
    Wait,
    /// It does not serve at present.
    Unhealthy,
    /// There is no hope that it ends.
    Restart,
    /// It has closed its port, and will not open it again.
    Closed,
}

/// The silence of a llama-server that has served: since when no probe was answered well.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: Option<ActiveInstant>,
    doubted_since: Option<ActiveInstant>,
    refused_since: Option<ActiveInstant>,
}

impl Silence {
    /// Whether nobody listened when it was asked last.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused_since.is_some()
    }

    /// It was asked at this moment and gave no good answer; nobody even listened, if it is so.
    pub(crate) fn record(&mut self, asked: ActiveInstant, is_doubted: bool, is_refused: bool) -> ProbeOutcome {
        let silent = self.since.get_or_insert(asked).elapsed();
        let doubted = if is_doubted { self.doubted_since.get_or_insert(asked).elapsed() } else { Duration::ZERO };
        let refused = if is_refused { Some(*self.refused_since.get_or_insert(asked)) } else { None };
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
    async fn it_is_unhealthy_after_a_while_and_given_up_after_a_longer_one_however_often_it_is_asked() {
        let mut silence = Silence::default();
        let start = ActiveInstant::now();
        let mut verdicts = Vec::new();
        while start.elapsed() <= SILENCE_UNTIL_RESTART {
            let verdict = silence.record(ActiveInstant::now(), false, false);
            if verdicts.last().is_none_or(|(_, last)| *last != verdict) {
                verdicts.push((start.elapsed(), verdict));
            }
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        let expected = [
            (Duration::ZERO, ProbeOutcome::Wait),
            (SILENCE_UNTIL_UNHEALTHY, ProbeOutcome::Unhealthy),
            (SILENCE_UNTIL_RESTART, ProbeOutcome::Restart),
        ];
        assert_eq!(verdicts, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubted_one_is_unhealthy_after_a_moment_and_is_not_killed_sooner() {
        let mut silence = Silence::default();
        let asked = ActiveInstant::now();
        assert_eq!(silence.record(asked, true, false), ProbeOutcome::Wait, "a process may need a moment to end");
        tokio::time::advance(DOUBT_GRACE - Duration::from_millis(1)).await;
        assert_eq!(silence.record(ActiveInstant::now(), true, false), ProbeOutcome::Wait);
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..1_000 {
            assert_eq!(silence.record(ActiveInstant::now(), true, false), ProbeOutcome::Unhealthy);
        }
        assert_eq!(
            Silence::default().record(asked, true, false),
            ProbeOutcome::Unhealthy,
            "one long silence is enough"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_port_is_no_passing_moment() {
        let mut silence = Silence::default();
        assert_eq!(silence.record(ActiveInstant::now(), false, true), ProbeOutcome::Wait, "it may be about to end");
        tokio::time::advance(REFUSAL_UNTIL_RESTART).await;
        assert_eq!(silence.record(ActiveInstant::now(), false, false), ProbeOutcome::Wait, "somebody listens");
        assert_eq!(silence.record(ActiveInstant::now(), false, true), ProbeOutcome::Wait);
        tokio::time::advance(REFUSAL_UNTIL_RESTART).await;
        assert_eq!(silence.record(ActiveInstant::now(), false, true), ProbeOutcome::Closed);
    }
}
