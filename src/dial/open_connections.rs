//! How many connections to one worker are open, over all cores, and how many may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::settings::bounds::{MAX_SLOTLESS_REQUESTS, UPSTREAM_IDLE_CONNECTIONS};

/// The connections to one worker that are open, in use or idle. Clones count together.
#[derive(Debug, Clone)]
pub struct OpenConnections {
    open: Arc<AtomicUsize>,
    most: usize,
}

/// One of them, which counts until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnections {
    /// Creates the count for a llama-server with this many slots. Its requests in flight never need all the connections that
    /// may be open, so some may always be idle.
    pub fn for_slots(slots: usize) -> Self {
        Self::at_most(slots.saturating_add(MAX_SLOTLESS_REQUESTS + UPSTREAM_IDLE_CONNECTIONS))
    }

    /// Creates the count for a worker to which this many may be open.
    pub fn at_most(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// Returns how many may be open. A request that needs another one gets it anyhow.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Counts one more.
    pub fn add(&self) -> OpenConnection {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.open))
    }

    /// Returns whether more are open than may be, so that one that is not used has to go.
    pub fn are_too_many(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.most
    }

    /// Returns whether as many are open as may be, so that one that is not used has to go before the next is opened.
    pub fn are_complete(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.most
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_until_they_are_dropped() {
        let connections = OpenConnections::for_slots(1);
        let mut open: Vec<_> = (0..connections.most()).map(|_| connections.add()).collect();
        assert!(!connections.are_too_many() && connections.are_complete());
        open.push(connections.clone().add());
        assert!(connections.are_too_many(), "clones count together");
        open.pop();
        assert!(!connections.are_too_many());
    }
}
