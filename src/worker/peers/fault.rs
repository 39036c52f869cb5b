//! Why an `rpc-server` cannot be used, and what is said of it.

use std::fmt;
use std::io;

/// Why an `rpc-server` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerFault {
    /// Nothing listens at its address.
    Refused,
    /// No connection could be opened; what the system says.
    Unreachable(String),
    /// It took a connection and answered no greeting: it serves another llama-server, or hangs.
    Silent,
    /// Another server answered.
    Stranger,
    /// It closed each connection without an answer: a tunnel whose far end is away, or an `rpc-server` whose greeting this
    /// program does not know.
    Closes,
    /// It ended while a llama-server used it, and runs again.
    Restarted,
    /// It runs, and its connection to the llama-server that used it has ended.
    Dropped,
}

impl PeerFault {
    pub(super) fn unreachable(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return Self::Refused;
        }
        // The system's own words: Rust's end with the number of the error.
        let text = error.to_string();
        Self::Unreachable(text.split(" (os error").next().unwrap_or_default().to_lowercase())
    }

    pub(super) fn timed_out() -> Self {
        Self::Unreachable("no answer".to_owned())
    }
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable(reason) => f.write_str(reason),
            Self::Silent => {
                f.write_str("it takes connections and does not answer: another llama-server uses it, or it hangs")
            }
            Self::Stranger => f.write_str("what answers there is no rpc-server of a version that is known"),
            Self::Closes => f.write_str(
                "it closes every connection: nothing listens behind a tunnel, or its version of llama.cpp is not known",
            ),
            Self::Restarted => f.write_str("it ended, and runs again without its part of the model"),
            Self::Dropped => {
                f.write_str("its connection to llama-server broke, and with it went its part of the model")
            }
        }
    }
}

/// An `rpc-server` that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerLoss {
    /// Its address, as configured.
    pub(crate) address: String,
    /// Why.
    pub(crate) fault: PeerFault,
}

impl fmt::Display for PeerLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.fault)
    }
}

/// Returns these losses in one line.
pub(crate) fn listed(losses: &[PeerLoss]) -> String {
    losses.iter().map(PeerLoss::to_string).collect::<Vec<_>>().join(", ")
}
