//! Requests that were given up before llama-server had answered them: by their clients, or because it was silent for too
//! long. It may be one of these on which it hangs.
//!
//! A llama-server that hangs is found out later than many a client loses patience. Those who came after them and are in
//! flight when it is killed are then no more to blame than those who left. Whatever begins after a request was given up
//! and is served proves that it was none of these.

use super::crash_suspects::Fingerprint;
use crate::worker::bounds::MOST_GIVEN_UP;
use std::collections::VecDeque;

/// What has been given up in one life of a llama-server, and has not been proven harmless since.
#[derive(Default)]
pub(super) struct AbandonedRequests(VecDeque<Entry>);

struct Entry {
    fingerprint: Fingerprint,
    /// How many requests had begun by then.
    begun: u64,
}

impl AbandonedRequests {
    /// Adds one that is given up after so many requests have begun. Beyond the bound the oldest is forgotten.
    pub(super) fn add(&mut self, fingerprint: Fingerprint, begun: u64) {
        self.0.retain(|entry| entry.fingerprint != fingerprint);
        if self.0.len() == MOST_GIVEN_UP {
            self.0.pop_front();
        }
        self.0.push_back(Entry { fingerprint, begun });
    }

    /// The request before which so many had begun was served.
    pub(super) fn remove_served(&mut self, begun: u64) {
        self.0.retain(|entry| entry.begun > begun);
    }

    /// All that is left, the oldest first. Keeps nothing.
    pub(super) fn take(&mut self) -> Vec<Fingerprint> {
        std::mem::take(&mut self.0).into_iter().map(|entry| entry.fingerprint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_later_and_was_served_proves_anything() {
        let mut given_up = AbandonedRequests::default();
        given_up.add(Fingerprint(1), 5);
        given_up.add(Fingerprint(2), 8);
        given_up.remove_served(4); // it had begun before
        given_up.remove_served(5);
        assert_eq!(given_up.take(), [Fingerprint(2)]);
        assert_eq!(given_up.take(), []);
    }

    #[test]
    fn one_that_is_given_up_again_counts_once_and_from_then_on() {
        let mut given_up = AbandonedRequests::default();
        given_up.add(Fingerprint(1), 1);
        given_up.add(Fingerprint(2), 2);
        given_up.add(Fingerprint(1), 3);
        given_up.remove_served(2);
        assert_eq!(given_up.take(), [Fingerprint(1)]);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut given_up = AbandonedRequests::default();
        for n in 0..MOST_GIVEN_UP as u64 + 1 {
            given_up.add(Fingerprint(n), n);
        }
        let left = given_up.take();
        assert_eq!((left.len(), left.first()), (MOST_GIVEN_UP, Some(&Fingerprint(1))));
    }
}
