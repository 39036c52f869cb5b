//! The connections to one worker that no request uses, the newest first.
//!
//! Pure bookkeeping: the caller says what time it is, and closes what comes out.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::gateway::bounds::UPSTREAM_IDLE;

/// Idle connections.
pub(super) struct IdleConnections<C> {
    /// Since when each is idle, the oldest first.
    list: VecDeque<(Instant, C)>,
}

impl<C> Default for IdleConnections<C> {
    fn default() -> Self {
        Self { list: VecDeque::new() }
    }
}

impl<C> IdleConnections<C> {
    /// Adds a connection that is idle from now on.
    pub(super) fn put(&mut self, connection: C, now: Instant) {
        self.list.push_back((now, connection));
    }

    /// Takes the connection that has been idle longest.
    pub(super) fn take_oldest(&mut self) -> Option<C> {
        self.list.pop_front().map(|(_, connection)| connection)
    }

    /// Takes the connection that became idle last: the others expire. Returns `None` if the worker may be closing all of
    /// them.
    pub(super) fn take(&mut self, now: Instant) -> Option<C> {
        let (since, _) = self.list.back()?;
        if now >= *since + UPSTREAM_IDLE {
            return None;
        }
        self.list.pop_back().map(|(_, connection)| connection)
    }

    /// Removes the connections that have been idle for too long, and those that `is_open` denies. Returns when the next
    /// one will have been idle for too long; `None` if none is left.
    pub(super) fn tidy(&mut self, now: Instant, mut is_open: impl FnMut(&mut C) -> bool) -> Option<Instant> {
        self.list.retain_mut(|(since, connection)| now < *since + UPSTREAM_IDLE && is_open(connection));
        self.list.front().map(|(since, _)| *since + UPSTREAM_IDLE)
    }

    /// Removes all connections.
    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Returns whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 4;

    #[derive(Debug, Clone)]
    enum Step {
        Put,
        Take,
        Tidy,
        /// Milliseconds pass.
        Wait(u64),
        /// The worker closes the connection that was put in at this place.
        Close(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Put),
            3 => Just(Step::Take),
            1 => Just(Step::Tidy),
            1 => (0_u64..4000).prop_map(Step::Wait),
            1 => (0_usize..100).prop_map(Step::Close),
        ]
    }

    proptest! {
        /// The connections leave as a plain list says: the newest first, none that is too old, never too many.
        #[test]
        fn connections_come_out_as_from_a_plain_list(steps in prop::collection::vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut idle = IdleConnections::default();
            let (mut plain, mut closed, mut next) = (Vec::<(Instant, usize)>::new(), Vec::new(), 0);
            for step in steps {
                let is_young = |since: Instant| now < since + UPSTREAM_IDLE;
                match step {
                    Step::Put => {
                        plain.push((now, next));
                        idle.put(next, now);
                        if plain.len() > MOST {
                            prop_assert_eq!(idle.take_oldest(), Some(plain.remove(0).1));
                        }
                        next += 1;
                    }
                    Step::Take => {
                        let newest = plain.last().copied().filter(|(since, _)| is_young(*since));
                        prop_assert_eq!(idle.take(now), newest.map(|(_, one)| one));
                        if newest.is_some() {
                            plain.pop();
                        }
                    }
                    Step::Tidy => {
                        plain.retain(|(since, one)| is_young(*since) && !closed.contains(one));
                        let expiry = plain.first().map(|(since, _)| *since + UPSTREAM_IDLE);
                        prop_assert_eq!(idle.tidy(now, |one| !closed.contains(one)), expiry);
                        prop_assert!(expiry.is_none_or(|expiry| expiry > now));
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Close(one) => closed.push(one),
                }
                prop_assert_eq!(idle.is_empty(), plain.is_empty());
            }
        }
    }
}
