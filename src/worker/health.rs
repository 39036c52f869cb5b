//! Probes: what a llama-server says about itself, whether it is ours at all, and how long it may say nothing.
//! What its counters mean is `pulse.rs`'s.

use super::endpoint::Endpoint;
use super::pulse::Vitals;
use super::shortage::shortage;
use crate::awake::Instant;
use crate::settings::bounds::{DOUBT_GRACE, PROBE_TIMEOUT, PROBES_UNTIL_RESTART, PROBES_UNTIL_UNHEALTHY, VITALS_SIZE};
use http::StatusCode;
use http::header::AUTHORIZATION;
use nix::errno::Errno;

/// The outcome of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// Nobody answered, or not in time, or not well.
    Silent,
    /// It was not asked, for want of something on this machine; that says nothing about it.
    Unasked(Errno),
    /// It is loading its model.
    Loading,
    /// It can serve.
    Ready,
    /// Somebody answered who does not know our key: another server has the port.
    Stranger,
}

/// Asks one llama-server after another how it is.
pub(super) struct Prober(reqwest::Client);

impl Prober {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // A fresh connection each time: a kept one would meet llama-server's own keep-alive limit.
        reqwest::Client::builder().timeout(PROBE_TIMEOUT).pool_max_idle_per_host(0).no_proxy().build().map(Self)
    }

    /// Asks `/health`, which needs no key and is answered from the first moment on.
    pub(super) async fn probe(&self, endpoint: &Endpoint) -> Probe {
        match self.0.get(format!("http://{}/health", endpoint.address)).send().await.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Probe::Ready,
            Ok(StatusCode::SERVICE_UNAVAILABLE) => Probe::Loading,
            Ok(_) => Probe::Silent,
            Err(error) => unanswered(&error),
        }
    }

    /// Asks the same of a llama-server that says it is ready for the first time, and makes sure that it is the one we
    /// started: it must take our key and must refuse a request without one. A server that took the port before ours
    /// did knows no key, or another one.
    pub(super) async fn first_probe(&self, endpoint: &Endpoint) -> Probe {
        match self.probe(endpoint).await {
            Probe::Ready => {}
            other => return other,
        }
        let url = format!("http://{}/props", endpoint.address);
        let with_key = self.0.get(&url).header(AUTHORIZATION, endpoint.authorization.clone()).send();
        let without_key = self.0.get(&url).send();
        match tokio::join!(with_key, without_key) {
            (Ok(with_key), Ok(without))
                if with_key.status() == StatusCode::OK && without.status() == StatusCode::UNAUTHORIZED =>
            {
                Probe::Ready
            }
            (Ok(_), Ok(_)) => Probe::Stranger,
            (Err(error), _) | (_, Err(error)) => unanswered(&error),
        }
    }

    /// Asks what it is doing; nothing when it does not answer. One that cannot be asked, for want of something on this
    /// machine or because it shows no metrics, counts as doing nothing.
    pub(super) async fn vitals(&self, endpoint: &Endpoint) -> Option<Vitals> {
        const NOTHING: Vitals = Vitals { taken: 0, work: 0 };
        let url = format!("http://{}/metrics", endpoint.address);
        let answer = self.0.get(url).header(AUTHORIZATION, endpoint.authorization.clone()).send().await;
        let text = match answer {
            Ok(answer) if answer.status() == StatusCode::OK => text_of(answer).await,
            Ok(_) => return Some(NOTHING),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => Some(Vitals::read(&text).unwrap_or(NOTHING)),
            Err(error) => shortage(&error).map(|_| NOTHING),
        }
    }
}

/// The beginning of an answer's body, up to [`VITALS_SIZE`].
async fn text_of(mut answer: reqwest::Response) -> Result<String, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        let room = VITALS_SIZE - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes.len() == VITALS_SIZE {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unanswered(error: &reqwest::Error) -> Probe {
    shortage(error).map_or(Probe::Silent, Probe::Unasked)
}

/// What the silence of a llama-server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be a passing moment.
    Wait,
    /// It does not serve at present.
    Unhealthy,
    /// There is no hope that it ends.
    Restart,
}

/// The silence of a llama-server that has served: probes in a row without a good answer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    failures: u32,
    doubted_since: Option<Instant>,
}

impl Silence {
    /// It was asked at this moment and gave no good answer. A doubted one is asked more often than is due; only the
    /// probes that are due count.
    pub(super) fn goes_on(&mut self, asked: Instant, is_due: bool, is_doubted: bool) -> Verdict {
        self.failures += u32::from(is_due);
        let since = if is_doubted { *self.doubted_since.get_or_insert(asked) } else { Instant::now() };
        if self.failures >= PROBES_UNTIL_RESTART {
            Verdict::Restart
        } else if self.failures >= PROBES_UNTIL_UNHEALTHY || since.elapsed() >= DOUBT_GRACE {
            Verdict::Unhealthy
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn three_probes_that_are_due_make_it_unhealthy_and_twelve_end_it() {
        let mut silence = Silence::default();
        let verdicts: Vec<Verdict> = (0..12).map(|_| silence.goes_on(Instant::now(), true, false)).collect();
        assert_eq!(verdicts[..2], [Verdict::Wait; 2]);
        assert_eq!(verdicts[2..11], [Verdict::Unhealthy; 9]);
        assert_eq!(verdicts[11], Verdict::Restart);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubted_one_is_unhealthy_after_a_moment_and_is_not_killed_sooner_for_being_asked_often() {
        let mut silence = Silence::default();
        let asked = Instant::now();
        assert_eq!(silence.goes_on(asked, false, true), Verdict::Wait, "a process may need a moment to end");
        tokio::time::advance(DOUBT_GRACE - Duration::from_millis(1)).await;
        assert_eq!(silence.goes_on(Instant::now(), false, true), Verdict::Wait);
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..1_000 {
            assert_eq!(silence.goes_on(Instant::now(), false, true), Verdict::Unhealthy);
        }
        assert_eq!(Silence::default().goes_on(asked, false, true), Verdict::Unhealthy, "one long silence is enough");
    }
}
