//! The `rpc-server`s of the worker's model: greeted before a start, watched while llama-server is loaded, and looked at after
//! its end.

use std::time::Duration;

use tracing::{info, warn};

use super::owner::{Owner, StartFailure};
use crate::worker::bounds::{PEER_BACKOFF_FIRST, PEER_BACKOFF_LONGEST, PEER_LAST_LOOK, PEER_VERDICT_PATIENCE};
use crate::worker::diagnosis::peers::unusable;
use crate::worker::handle::LastExit;
use crate::worker::peers::fault::{PeerFault, PeerLoss, listed};
use crate::worker::peers::watch::PeerWatch;
use crate::worker::peers::{KnownPeer, greet_all};
use crate::worker::state::WorkerEvent;

/// The `rpc-server`s that one process uses.
#[derive(Default)]
pub(super) struct LifePeers {
    known: Vec<KnownPeer>,
    watch: PeerWatch,
    lost: Option<PeerLoss>,
}

impl LifePeers {
    pub(super) fn of(known: Vec<KnownPeer>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Begins to watch them. Called when the process is ready: while it loads, it may connect again, and then a greeting
    /// must not wait before it.
    pub(super) fn begin_watch(&mut self) {
        self.watch = PeerWatch::begin(&self.known);
    }

    /// Waits until one is lost. Never returns if there are none. Safe to cancel.
    pub(super) async fn lost(&mut self) {
        let lost = self.watch.lost().await;
        self.lost = Some(lost);
    }

    /// Whether one is lost because the network to it failed, which no request can have caused.
    pub(super) fn is_network_broken(&self) -> bool {
        matches!(&self.lost, Some(PeerLoss { fault: PeerFault::Unreachable(_) | PeerFault::Dropped, .. }))
    }
}

impl Owner {
    /// Greets the `rpc-server`s of the model. Safe to cancel.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub(super) async fn greet_peers(&mut self) -> Result<(), StartFailure> {
        let addresses = &self.plan.companions.rpc;
        if addresses.is_empty() {
            return Ok(());
        }
        let greeted = greet_all(addresses).await;
        let lost = greeted.as_ref().err().map_or(&[][..], Vec::as_slice);
        for address in addresses {
            self.metrics.set_rpc_server(address, !lost.iter().any(|loss| loss.address == *address));
        }
        self.peers.known = greeted.map_err(StartFailure::PeersUnusable)?;
        if std::mem::take(&mut self.peers.attempts) > 0 {
            info!(model = self.plan.model, "the rpc-servers of the model answer");
        }
        Ok(())
    }

    /// Logs and publishes that the worker is not started without these `rpc-server`s. Returns the pause before the next
    /// attempt. This does not spend the restart budget: nothing is wrong here.
    pub(super) fn record_unusable_peers(&mut self, losses: &[PeerLoss]) -> Duration {
        let doublings = self.peers.attempts;
        self.peers.attempts = doublings.saturating_add(1);
        let doubled = PEER_BACKOFF_FIRST.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let pause = doubled.min(PEER_BACKOFF_LONGEST);
        let exit = LastExit::new(&self.plan, None, None, unusable(losses));
        if let Some(times) = self.peers.warning.report_due() {
            let (cause, peers, pause_ms) = (exit.cause.as_str(), listed(losses), pause.as_millis() as u64);
            let name = self.plan.program.name();
            warn!(model = self.plan.model, cause, peers, pause_ms, times, "{name} waits for other machines (`rpc`)");
        }
        self.apply_with(WorkerEvent::Ended, |status| {
            status.last_exit = Some(exit);
            status.asleep = false;
            status.failed_loads += 1;
        });
        pause
    }

    /// Returns the `rpc-server`s that are lost, after the end of a process that used them.
    pub(super) async fn lost_peers(&self, peers: &mut LifePeers) -> Vec<PeerLoss> {
        if peers.known.is_empty() {
            return Vec::new();
        }
        // llama-server may have noticed it first, and a restarted one would answer the next greeting. During a load there is no
        // watch, and one that ended may be back soon, so it is greeted at once.
        if peers.lost.is_none() && peers.watch.is_begun() {
            let _ = tokio::time::timeout(PEER_VERDICT_PATIENCE, peers.lost()).await;
        }
        // Otherwise its greetings would wait in the way of those that follow.
        peers.watch = PeerWatch::default();
        let mut losses = Vec::from_iter(peers.lost.take());
        let addresses: Vec<String> = peers.known.iter().map(|peer| peer.address.clone()).collect();
        let greeted = tokio::time::timeout(PEER_LAST_LOOK, greet_all(&addresses)).await;
        for loss in greeted.ok().and_then(Result::err).unwrap_or_default() {
            // One that does not answer may still be clearing up.
            if loss.fault != PeerFault::Silent && !losses.iter().any(|known| known.address == loss.address) {
                losses.push(loss);
            }
        }
        losses.iter().for_each(|loss| self.metrics.set_rpc_server(&loss.address, false));
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_were_accused_of_the_loss_of_another_machine() {
        let of = |fault| LifePeers {
            lost: Some(PeerLoss { address: "10.0.0.2:50052".to_owned(), fault }),
            ..LifePeers::default()
        };
        for fault in [PeerFault::Unreachable("no route to host".to_owned()), PeerFault::Dropped] {
            assert!(of(fault.clone()).is_network_broken(), "{fault}");
        }
        // A request may have ended the rpc-server itself.
        for fault in [PeerFault::Refused, PeerFault::Restarted, PeerFault::Closes, PeerFault::Stranger] {
            assert!(!of(fault.clone()).is_network_broken(), "{fault}");
        }
        assert!(!LifePeers::default().is_network_broken());
    }
}
