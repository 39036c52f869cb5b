//! How far a download is.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus_client::metrics::counter::Counter;

use super::hub::LocatedFile;

/// What a download does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadPhase {
    /// The hub is asked what there is.
    Asking,
    /// Another program downloads the same file.
    WaitingForOther,
    /// Bytes come.
    Fetching,
    /// All bytes are there, and their hash is computed.
    Checking,
}

/// How far one download is. Its tasks write it, others read it at any time.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    arrived: AtomicU64,
    /// Bytes that were on the disk before.
    found: AtomicU64,
    phase: AtomicU8,
    /// Counts the bytes that come over the network.
    network: Option<Arc<Counter>>,
    /// The SHA-256 of the model, or of its first file.
    digest: OnceLock<String>,
    /// Why the last try failed, until one succeeds.
    failure: Mutex<Option<String>>,
    /// What the user should know of a model that is there all the same.
    warning: OnceLock<&'static str>,
}

const PHASES: [DownloadPhase; 4] =
    [DownloadPhase::Asking, DownloadPhase::WaitingForOther, DownloadPhase::Fetching, DownloadPhase::Checking];

impl Progress {
    /// Creates the progress of a download whose bytes over the network are counted here too.
    pub fn counting(network: Arc<Counter>) -> Self {
        Self { network: Some(network), ..Self::default() }
    }

    /// Returns the bytes of all files; 0 until that is known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Returns how many of them are on the disk.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Returns what the download does now.
    pub fn phase(&self) -> DownloadPhase {
        PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or(DownloadPhase::Asking)
    }

    /// Returns why the last try failed, while the next one waits or runs.
    pub fn failure(&self) -> Option<String> {
        self.lock_failure().clone()
    }

    /// Notes why a try failed, or that one succeeded.
    pub(super) fn set_failure(&self, reason: Option<&str>) {
        *self.lock_failure() = reason.map(str::to_owned);
    }

    fn lock_failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the user should know of a model that is there although the hub did not give it.
    pub fn warning(&self) -> Option<&'static str> {
        self.warning.get().copied()
    }

    pub(super) fn set_warning(&self, warning: &'static str) {
        let _ = self.warning.set(warning);
    }

    /// Returns the SHA-256 of the model's first file, once the hub has named it.
    pub fn digest(&self) -> Option<&str> {
        self.digest.get().map(String::as_str)
    }

    pub(super) fn set_digest(&self, file: Option<&LocatedFile>) {
        if let Some(sha256) = file.and_then(|file| file.sha256.clone()) {
            let _ = self.digest.set(sha256);
        }
    }

    pub(super) fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Returns how many bytes were on the disk before the download began.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    pub(super) fn add_found(&self, bytes: u64) {
        self.found.fetch_add(bytes, Ordering::Relaxed);
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that have come over the network.
    pub(super) fn add_arrived(&self, bytes: u64) {
        if let Some(network) = &self.network {
            network.inc_by(bytes);
        }
        self.set_failure(None);
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Forgets what came since this number of bytes was there.
    pub(super) fn take_back(&self, before: u64) {
        let came = self.arrived().saturating_sub(before);
        self.arrived.fetch_sub(came, Ordering::Relaxed);
    }

    pub(super) fn set_phase(&self, phase: DownloadPhase) {
        let at = PHASES.iter().position(|known| *known == phase).unwrap_or_default();
        self.phase.store(u8::try_from(at).unwrap_or_default(), Ordering::Relaxed);
    }
}
