//! Warnings about backends that reject what the gateway is configured to send, each a few times a minute at most.

use std::sync::{Mutex, PoisonError};

use tracing::warn;

use crate::telemetry::throttled_warning::ThrottledWarning;

/// The warnings of all backends.
#[derive(Default)]
pub(super) struct BackendWarnings {
    rejected_key: Mutex<ThrottledWarning>,
    rejected_usage: Mutex<ThrottledWarning>,
}

impl BackendWarnings {
    /// Warns that a backend rejects the question for token counts.
    pub(super) fn warn_rejected_usage(&self, host: &str) {
        if let Some(times) = self.rejected_usage.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
            let hint = "strip_params: [stream_options] of the model leaves it out";
            warn!(host, times, hint, "a backend does not take stream_options, which asks for token counts");
        }
    }

    /// Warns that a backend rejects the key that the gateway has for it.
    pub(super) fn warn_rejected_key(&self, host: &str) {
        if let Some(times) = self.rejected_key.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
            warn!(host, times, "a remote backend does not take its api_key");
        }
    }
}
