//! Whether the store answers: told in the log once for each change, in a metric, and among the warnings of `/health`.

use std::sync::{Arc, Mutex, PoisonError};

use redis::{ErrorKind, RedisError};
use tracing::{error, info, warn};

use crate::telemetry::metrics::{Metrics, ReasonLabels};

/// The topic of the warning.
const TOPIC: &str = "limits_store";

/// Why the limits of this replica alone count for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    /// There is no connection.
    Away,
    /// No answer came in time.
    Slow,
    /// The server answered with an error, or the connection broke.
    Error,
}

/// What is wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoreProblem {
    /// It refuses the user or the password, or what this user asks for.
    Refused(String),
    /// It cannot be reached, is too slow, or answers with errors.
    Away(String),
}

impl StoreProblem {
    /// Returns what this error of the server or of its connection means.
    pub(super) fn of(error: &RedisError) -> Self {
        let is_refusal = error.kind() == ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
        match is_refusal {
            true => Self::Refused(error.to_string()),
            false => Self::Away(error.to_string()),
        }
    }
}

/// The state of the store, as all cores together see it.
pub(super) struct StoreHealth {
    /// The address, without user and password.
    address: String,
    metrics: Arc<Metrics>,
    state: Mutex<HealthState>,
}

#[derive(Default)]
struct HealthState {
    /// The cores that have no connection.
    down: usize,
    /// What was told last; `None` at the start.
    told: Option<ToldState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ToldState {
    Up,
    Refused,
    Away,
}

impl StoreHealth {
    /// Returns the state before this many cores are connected.
    pub(super) fn new(address: String, cores: usize, metrics: Arc<Metrics>) -> Self {
        Self { address, metrics, state: Mutex::new(HealthState { down: cores, told: None }) }
    }

    /// Records that one more core is connected.
    pub(super) fn record_up(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.down = state.down.saturating_sub(1);
        if state.down > 0 || state.told == Some(ToldState::Up) {
            return;
        }
        state.told = Some(ToldState::Up);
        self.metrics.limits_store_up.set(1);
        self.metrics.warnings.clear(TOPIC, "");
        info!(store = self.address, "the limits of keys are shared with other replicas");
    }

    /// Records that a core that was connected is not any more.
    pub(super) fn record_down(&self, problem: &StoreProblem) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).down += 1;
        self.record_problem(problem);
    }

    /// Records why a core has no connection.
    pub(super) fn record_problem(&self, problem: &StoreProblem) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, text) = match problem {
            StoreProblem::Refused(_) => {
                (ToldState::Refused, "the server of LIMITS_STORE refuses the user or the password")
            }
            StoreProblem::Away(_) => (ToldState::Away, "the server of LIMITS_STORE does not answer as it should"),
        };
        if state.told == Some(told) {
            return;
        }
        state.told = Some(told);
        self.metrics.limits_store_up.set(0);
        let store = &self.address;
        match problem {
            StoreProblem::Refused(problem) => error!(store, problem, "{text}: each replica has limits of its own"),
            StoreProblem::Away(problem) => {
                warn!(store, problem, "{text}: until then each replica has limits of its own")
            }
        }
        self.metrics.warnings.show(TOPIC, &format!("{text}: each replica has limits of its own"));
    }

    /// Counts a request for which the limits of this replica alone count.
    pub(super) fn count(&self, fallback: Fallback) {
        let reason = match fallback {
            Fallback::Away => "away",
            Fallback::Slow => "slow",
            Fallback::Error => "error",
        };
        self.metrics.limits_store_fallbacks.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts requests whose end could not be told.
    pub(super) fn count_lost(&self, requests: usize) {
        self.metrics.limits_store_lost.inc_by(requests as u64);
    }
}
