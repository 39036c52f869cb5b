//! The order in which waiting requests would be served if none came or left: what a client in line wants to know.
//!
//! Overtaking for a batch and promotion for a long wait happen when a slot is granted, so they are not foreseen. Looks at no
//! more waiters than it is asked for, and copies none, because it is done under the lock of the queue.

use std::collections::VecDeque;

use super::fair_queue::{FairQueue, PersonLine};
use super::round_robin::RoundRobin;
use crate::gateway::admission::turn::Turn;
use crate::keys::Priority;

/// A look at a line, from its front to its end.
trait Look {
    type Seen;

    fn next_seen(&mut self) -> Option<Self::Seen>;
    fn is_over(&self) -> bool;
}

/// A look at the waiters of one person.
struct PersonLook<'a, W> {
    line: &'a PersonLine<W>,
    at: usize,
}

impl<'a, W> Look for PersonLook<'a, W> {
    type Seen = &'a W;

    fn next_seen(&mut self) -> Option<&'a W> {
        let waiter = self.line.waiter(self.at)?;
        self.at += 1;
        Some(waiter)
    }

    fn is_over(&self) -> bool {
        self.line.waiter(self.at).is_none()
    }
}

/// A look at lines that take turns.
struct RotationLook<'a, L, S> {
    /// The lines that have not had a turn, by name.
    fresh: Box<dyn Iterator<Item = (&'a str, &'a L)> + 'a>,
    begin: fn(&'a L) -> S,
    /// Those that have had one, in the order of their next turns.
    again: VecDeque<(&'a str, S)>,
    fresh_left: usize,
}

impl<'a, L, S: Look> RotationLook<'a, L, S> {
    fn of(lines: &'a RoundRobin<L>, begin: fn(&'a L) -> S) -> Self
    where
        L: super::round_robin::WaitLine,
    {
        let fresh = lines.names().filter_map(|name| Some((name, lines.get(name)?)));
        Self { fresh: Box::new(fresh), begin, again: VecDeque::new(), fresh_left: lines.names().count() }
    }
}

impl<'a, L, S: Look> Look for RotationLook<'a, L, S> {
    type Seen = (&'a str, S::Seen);

    fn next_seen(&mut self) -> Option<Self::Seen> {
        let (name, mut look) = match self.fresh.next() {
            Some((name, line)) => {
                self.fresh_left -= 1;
                (name, (self.begin)(line))
            }
            None => self.again.pop_front()?,
        };
        let seen = look.next_seen()?;
        if !look.is_over() {
            self.again.push_back((name, look));
        }
        Some((name, seen))
    }

    fn is_over(&self) -> bool {
        self.fresh_left == 0 && self.again.is_empty()
    }
}

type PeopleLook<'a, W> = RotationLook<'a, PersonLine<W>, PersonLook<'a, W>>;
type KeysLook<'a, W> = RotationLook<'a, RoundRobin<PersonLine<W>>, PeopleLook<'a, W>>;

fn people<W>(lines: &RoundRobin<PersonLine<W>>) -> PeopleLook<'_, W> {
    RotationLook::of(lines, |line| PersonLook { line, at: 0 })
}

/// Returns the waiters with their turns in the order in which they would be served.
pub(super) fn in_order<W>(queue: &FairQueue<W>) -> impl Iterator<Item = (Turn<'_>, &W)> {
    let mut classes: Vec<KeysLook<'_, W>> = queue.lines().map(|keys| RotationLook::of(keys, people)).collect();
    let (mut first, mut credits) = (queue.next_class(), queue.credits());
    std::iter::from_fn(move || {
        let class = first.take().map(Priority::index).filter(|class| !classes[*class].is_over());
        let class = class.or_else(|| credits.choose(|class| !classes[class].is_over()))?;
        let (key, (person, waiter)) = classes[class].next_seen()?;
        Some((Turn { priority: Priority::ALL[class], key, person }, waiter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_that_is_told_is_that_in_which_requests_are_served(
            joins in prop::collection::vec((0usize..3, 0usize..4, 0usize..3, any::<bool>()), 0..60),
            served in 0usize..20,
        ) {
            let mut queue = FairQueue::new(None);
            let names = ["a", "b", "c", "d"];
            for (number, (priority, key, person, at_front)) in joins.into_iter().enumerate() {
                let turn = Turn { priority: Priority::ALL[priority], key: names[key], person: names[person] };
                match at_front {
                    true => _ = queue.join_front(turn, number),
                    false => _ = queue.join(turn, None, number),
                }
            }
            for _ in 0..served {
                let _ = queue.grant_next(usize::MAX, |_| false);
            }
            let told: Vec<usize> = in_order(&queue).map(|(_, number)| *number).collect();
            prop_assert_eq!(queue.waiting(), told.len());
            prop_assert_eq!(queue.take_all(), told);
        }
    }
}
