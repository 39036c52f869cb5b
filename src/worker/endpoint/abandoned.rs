//! Requests that were abandoned before llama-server had answered them: their clients left, or the gateway's timeout
//! passed. A hang may be due to one of them.
//!
//! A hang is detected only after many clients have lost patience. The requests in flight when llama-server is killed
//! are then no more suspect than those that were abandoned before. A later request that is served proves that the ones
//! abandoned before it began did not cause a hang.

use std::collections::VecDeque;
use std::time::Duration;

use super::crash_suspects::RequestIdentity;
use crate::pause_clock::ActiveInstant;
use crate::worker::bounds::MOST_GIVEN_UP;

/// The requests that were abandoned in one life of a llama-server and have not been cleared since.
#[derive(Default)]
pub(super) struct AbandonedRequests(VecDeque<AbandonedRequest>);

struct AbandonedRequest {
    request: RequestIdentity,
    at: ActiveInstant,
    /// How many requests had begun when it was abandoned.
    begun_before: u64,
}

impl AbandonedRequests {
    /// Adds a request that is abandoned after `begun_before` requests have begun. Drops the oldest above
    /// [`MOST_GIVEN_UP`].
    pub(super) fn add(&mut self, request: RequestIdentity, begun_before: u64) {
        self.0.retain(|abandoned| abandoned.request.fingerprint != request.fingerprint);
        if self.0.len() == MOST_GIVEN_UP {
            self.0.pop_front();
        }
        self.0.push_back(AbandonedRequest { request, at: ActiveInstant::now(), begun_before });
    }

    /// Removes the requests that were abandoned before request number `sequence` began, which was served.
    pub(super) fn remove_served(&mut self, sequence: u64) {
        self.0.retain(|abandoned| abandoned.begun_before > sequence);
    }

    /// Takes all of them, oldest first.
    pub(super) fn take(&mut self) -> Vec<RequestIdentity> {
        std::mem::take(&mut self.0).into_iter().map(|abandoned| abandoned.request).collect()
    }

    /// Returns those that were abandoned within this time, oldest first.
    pub(super) fn within(&self, time: Duration) -> Vec<RequestIdentity> {
        let recent = self.0.iter().filter(|abandoned| abandoned.at.elapsed() < time);
        recent.map(|abandoned| abandoned.request.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::crash_suspects::Fingerprint;
    use super::*;

    fn request(number: u64) -> RequestIdentity {
        RequestIdentity { fingerprint: Some(Fingerprint(number)), key: None }
    }

    #[test]
    fn a_request_is_cleared_only_by_one_that_began_later_and_was_served() {
        let mut abandoned = AbandonedRequests::default();
        abandoned.add(request(1), 5);
        abandoned.add(request(2), 8);
        abandoned.remove_served(4); // it had begun before both were abandoned
        abandoned.remove_served(5);
        assert_eq!(abandoned.take(), [request(2)]);
        assert_eq!(abandoned.take(), []);
    }

    #[test]
    fn a_request_that_is_abandoned_again_counts_once_and_from_then_on() {
        let mut abandoned = AbandonedRequests::default();
        abandoned.add(request(1), 1);
        abandoned.add(request(2), 2);
        abandoned.add(request(1), 3);
        abandoned.remove_served(2);
        assert_eq!(abandoned.take(), [request(1)]);
    }

    #[test]
    fn the_oldest_requests_are_dropped() {
        let mut abandoned = AbandonedRequests::default();
        for n in 0..MOST_GIVEN_UP as u64 + 1 {
            abandoned.add(request(n), n);
        }
        let left = abandoned.take();
        assert_eq!((left.len(), left.first()), (MOST_GIVEN_UP, Some(&request(1))));
    }
}
