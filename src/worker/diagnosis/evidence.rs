//! The evidence about the end of a process, from which a cause is found.

use std::net::SocketAddr;
use std::time::Duration;

use crate::os::oom_kills::OomKill;
use crate::telemetry::files::LogTail;
use crate::worker::peers::fault::PeerLoss;

/// The evidence about the end of a process.
pub(crate) struct Evidence<'a> {
    /// Whether it was an rpc-server on this machine.
    pub(crate) is_rpc_server: bool,
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The end of its log.
    pub(crate) tail: &'a LogTail,
    /// Whether it was ready before. If so, its log may contain clients' texts and is not quoted.
    pub(crate) has_served: bool,
    /// Why its owner killed it, if it did.
    pub(crate) killed: Option<KillReason>,
    /// Whether the kernel's OOM killer ended a process while it ran.
    pub(crate) memory: OomKill,
    /// The `rpc-server`s of its model that were found lost after its end.
    pub(crate) lost_peers: &'a [PeerLoss],
}

/// Why the owner of a process killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// Another server answered on its port.
    Stranger,
    /// It no longer answered its probes.
    Silent,
    /// It closed its port but did not exit.
    Closed,
    /// Its load made no progress for this long.
    LoadStalled(Duration),
    /// It listens on `found`, and not on `expected`.
    ListensElsewhere { found: SocketAddr, expected: SocketAddr },
    /// It was busy for this long without a result.
    Hung(Duration),
    /// It was idle and did not answer `/metrics` for this long.
    Mute(Duration),
    /// It failed to compute several requests in a row.
    CannotCompute,
    /// An `rpc-server` that computes a part of its model was lost.
    PeerLost,
}
