//! Probes: what a llama-server says about itself, and whether it is ours at all.

use super::Endpoint;
use super::shortage::shortage;
use crate::settings::bounds::PROBE_TIMEOUT;
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
}

fn unanswered(error: &reqwest::Error) -> Probe {
    shortage(error).map_or(Probe::Silent, Probe::Unasked)
}
