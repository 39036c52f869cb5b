//! The machines of `rpc`: llama.cpp's `rpc-server`s, which compute parts of a model.
//!
//! It owns what a greeting over their protocol tells: whether an `rpc-server` can be used, and whether one that a
//! llama-server uses has ended. It neither starts nor ends a process.
//!
//! An `rpc-server` serves one connection at a time, and the kernel keeps two more of them waiting. So a greeting is answered
//! only while no llama-server is connected, and no more than one may wait.
//!
//! - `fault.rs`: why an `rpc-server` cannot be used
//! - `greeting.rs`: the greeting, and its answer
//! - `watch.rs`: a greeting that waits behind the llama-server, and breaks when the `rpc-server` ends

pub(super) mod fault;
pub(super) mod greeting;
pub(super) mod watch;

use tokio::task::JoinSet;

use fault::{PeerFault, PeerLoss};
use greeting::{Dialect, greet};

/// An `rpc-server` that has answered a greeting.
#[derive(Debug, Clone)]
pub(super) struct KnownPeer {
    /// Its address, as configured.
    pub(super) address: String,
    /// The form of the greeting that it answers.
    pub(super) dialect: Dialect,
}

/// Greets these `rpc-server`s, all at once. Returns them in their order, or those that cannot be used.
///
/// # Errors
///
/// The `rpc-server`s that cannot be used, each with the reason; at least one.
pub(super) async fn greet_all(addresses: &[String]) -> Result<Vec<KnownPeer>, Vec<PeerLoss>> {
    let mut greetings = JoinSet::new();
    for (number, address) in addresses.iter().cloned().enumerate() {
        greetings.spawn(async move {
            let answer = greet(&address).await;
            (number, address, answer)
        });
    }
    let (mut known, mut lost) = (Vec::new(), Vec::new());
    while let Some(greeted) = greetings.join_next().await {
        match greeted {
            Ok((number, address, Ok(dialect))) => known.push((number, KnownPeer { address, dialect })),
            Ok((number, address, Err(fault))) => lost.push((number, PeerLoss { address, fault })),
            // Only a panic, or a runtime that ends, leaves one without an answer.
            Err(_) => lost.push((usize::MAX, PeerLoss { address: String::new(), fault: PeerFault::Silent })),
        }
    }
    known.sort_by_key(|(number, _)| *number);
    lost.sort_by_key(|(number, _)| *number);
    let in_order = lost.into_iter().map(|(_, loss)| loss).collect::<Vec<_>>();
    if in_order.is_empty() { Ok(known.into_iter().map(|(_, peer)| peer).collect()) } else { Err(in_order) }
}
