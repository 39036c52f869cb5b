//! What the owner of a worker knows of the `rpc-server`s of its model between two starts.

use crate::telemetry::throttled_warning::ThrottledWarning;
use crate::worker::peers::KnownPeer;

/// What is known of the `rpc-server`s before a start.
#[derive(Default)]
pub(super) struct OwnerPeers {
    /// Those that have answered for the next start.
    pub(super) known: Vec<KnownPeer>,
    /// Starts in a row that did not happen because one could not be used.
    pub(super) attempts: u32,
    pub(super) warning: ThrottledWarning,
}
