//! A fair queue, as pure data: the number of slots in use, and the order of the waiting requests.
//!
//! First in, first out for a person behind a key; round robin between the people of a key, and between keys. So a key with
//! a thousand waiting requests delays the only request of another key by a single slot. The three priorities share the
//! slots by weight while requests of each wait; a request that has waited too long counts as one of high priority. Within
//! a line, a request that can be computed together with those that were let through last may overtake the first one, a few
//! times. Does not deal with time, tasks or locks; `mod.rs` does.

use std::collections::VecDeque;

use super::credits::Credits;
use super::round_robin::{RoundRobin, WaitLine};
use crate::gateway::admission::turn::{OwnedTurn, Turn};
use crate::gateway::bounds::{BATCH_LOOKAHEAD, MOST_OVERTAKES};
use crate::keys::Priority;

/// What a worker can compute together: requests with the same number. `None` goes with all.
pub(super) type Batch = Option<u32>;

/// The waiters of one person behind a key.
pub(super) struct PersonLine<W> {
    /// With their numbers, which ascend.
    waiters: VecDeque<(i64, Batch, W)>,
    /// How often the first one has been overtaken.
    overtaken: usize,
}

impl<W> Default for PersonLine<W> {
    fn default() -> Self {
        Self { waiters: VecDeque::new(), overtaken: 0 }
    }
}

impl<W> WaitLine for PersonLine<W> {
    fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

impl<W> PersonLine<W> {
    /// Returns the waiter at this place, from 0.
    pub(super) fn waiter(&self, at: usize) -> Option<&W> {
        self.waiters.get(at).map(|(.., waiter)| waiter)
    }

    /// Removes the next waiter: the first one, or a later one that goes with the `last` batch.
    fn pop(&mut self, last: Batch) -> Option<(Batch, W)> {
        let (_, first, _) = self.waiters.front()?;
        let may_overtake = first.is_some() && *first != last && last.is_some() && self.overtaken < MOST_OVERTAKES;
        let goes_along = |(_, batch, _): &(i64, Batch, W)| *batch == last;
        let at = match may_overtake {
            true => self.waiters.iter().take(BATCH_LOOKAHEAD).position(goes_along).unwrap_or(0),
            false => 0,
        };
        self.overtaken = if at == 0 { 0 } else { self.overtaken + 1 };
        self.waiters.remove(at).map(|(_, batch, waiter)| (batch, waiter))
    }

    /// Removes the waiter with this number. Numbers ascend: they count down at the front and up at the end.
    fn remove(&mut self, number: i64) -> Option<(i64, Batch, W)> {
        let index = self.waiters.binary_search_by_key(&number, |(number, ..)| *number).ok()?;
        self.waiters.remove(index)
    }

    /// Adds a waiter where its number belongs.
    fn insert(&mut self, waiter: (i64, Batch, W)) {
        let index = self.waiters.partition_point(|(number, ..)| *number < waiter.0);
        self.waiters.insert(index, waiter);
    }
}

/// The waiters of one priority: keys take turns, and within a key its people do.
struct PriorityClass<W> {
    keys: RoundRobin<RoundRobin<PersonLine<W>>>,
}

impl<W> Default for PriorityClass<W> {
    fn default() -> Self {
        Self { keys: RoundRobin::default() }
    }
}

/// A fair queue of waiters `W`.
pub(super) struct FairQueue<W> {
    /// The most waiters; `None` means no bound.
    bound: Option<usize>,
    /// Slots in use.
    active: usize,
    /// Waiters in `classes`.
    waiting: usize,
    /// Counts up: the number of the next waiter that joins at the end.
    next_number: i64,
    /// The waiters of each priority, the highest first.
    classes: [PriorityClass<W>; Priority::ALL.len()],
    credits: Credits,
    /// The priority of a waiter at the front that is served before all others.
    next_class: Option<Priority>,
    /// The batch of the request that was let through last.
    last: Batch,
    /// Counts down: the number of the last waiter that joined at the front.
    front_number: i64,
}

/// The queue has as many waiters as its bound allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFullError;

impl<W> FairQueue<W> {
    /// Creates an empty queue with at most `bound` waiters.
    pub(super) fn new(bound: Option<usize>) -> Self {
        Self {
            bound,
            active: 0,
            waiting: 0,
            next_number: 0,
            classes: Default::default(),
            credits: Credits::default(),
            next_class: None,
            last: None,
            front_number: 0,
        }
    }

    /// Returns the number of slots in use.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Returns the number of waiters.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns the lines of each priority, the highest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &RoundRobin<RoundRobin<PersonLine<W>>>> {
        self.classes.iter().map(|class| &class.keys)
    }

    /// Returns the priority of a waiter that is served before all others.
    pub(super) fn next_class(&self) -> Option<Priority> {
        self.next_class
    }

    /// Returns what the priorities have saved up.
    pub(super) fn credits(&self) -> Credits {
        self.credits
    }

    /// Whether one more request can take one of `slots` slots or join the queue.
    pub(super) fn has_capacity(&self, slots: usize) -> bool {
        self.can_start(slots) || self.bound.is_none_or(|bound| self.waiting < bound)
    }

    /// Returns how many more requests can take one of `slots` slots or join the queue; `usize::MAX` without a bound.
    pub(super) fn places(&self, slots: usize) -> usize {
        let free = if self.waiting == 0 { slots.saturating_sub(self.active) } else { 0 };
        self.bound.map_or(usize::MAX, |bound| bound.saturating_sub(self.waiting).saturating_add(free))
    }

    /// Takes one of `slots` slots if one is free and no request waits for it. Returns whether it did.
    pub(super) fn try_start(&mut self, slots: usize, batch: Batch) -> bool {
        let can_start = self.can_start(slots);
        if can_start {
            self.last = batch.or(self.last);
        }
        self.active += usize::from(can_start);
        can_start
    }

    fn can_start(&self, slots: usize) -> bool {
        self.waiting == 0 && self.active < slots
    }

    /// Appends a waiter to its line. Returns the number to [`leave`](Self::leave) with.
    ///
    /// # Errors
    /// [`QueueFullError`] when `bound` requests wait already.
    pub(super) fn join(&mut self, turn: Turn<'_>, batch: Batch, waiter: W) -> Result<i64, QueueFullError> {
        if self.bound.is_some_and(|bound| self.waiting >= bound) {
            return Err(QueueFullError);
        }
        let number = self.next_number;
        self.next_number += 1;
        let class = &mut self.classes[turn.priority.index()];
        class.keys.line(turn.key).line(turn.person).waiters.push_back((number, batch, waiter));
        self.waiting += 1;
        Ok(number)
    }

    /// Releases a slot and puts its holder at the front of the queue, because the worker went away before the slot was used.
    /// Ignores the bound: the request was accepted before.
    pub(super) fn return_to_front(&mut self, turn: Turn<'_>, waiter: W) -> i64 {
        self.active -= 1;
        self.join_front(turn, waiter)
    }

    /// Puts a waiter at the front of the queue, regardless of the bound, where none overtakes it. Returns the number to
    /// [`leave`](Self::leave) with.
    pub(super) fn join_front(&mut self, turn: Turn<'_>, waiter: W) -> i64 {
        self.front_number -= 1;
        let class = &mut self.classes[turn.priority.index()];
        // Key, person and priority take their next turn now instead of at their places in the rotations.
        let line = class.keys.first_line(turn.key).first_line(turn.person);
        line.waiters.push_front((self.front_number, None, waiter));
        self.next_class = Some(turn.priority);
        self.waiting += 1;
        self.front_number
    }

    /// Removes a waiter. Returns false if it is no longer in the queue, because it was granted a slot or refused.
    pub(super) fn leave(&mut self, turn: Turn<'_>, number: i64) -> bool {
        // It may have been promoted, so every class is asked.
        let mut classes = self.classes.iter_mut();
        let has_left = classes.any(|class| {
            let removed =
                class.keys.take_from(turn.key, |people| people.take_from(turn.person, |line| line.remove(number)));
            removed.is_some()
        });
        self.waiting -= usize::from(has_left);
        has_left
    }

    /// Releases a slot.
    pub(super) fn release_slot(&mut self) {
        self.active -= 1;
    }

    /// Grants one of `slots` slots to the next waiter and returns it, if a slot is free and a request waits. Waiters that are
    /// overdue count as those of high priority.
    pub(super) fn grant_next(&mut self, slots: usize, is_overdue: impl Fn(&W) -> bool) -> Option<W> {
        if self.active >= slots {
            return None;
        }
        self.promote(is_overdue);
        let waiter = self.pop()?;
        self.active += 1;
        Some(waiter)
    }

    /// Removes all waiters and returns them in their order.
    pub(super) fn take_all(&mut self) -> Vec<W> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Removes all waiters and returns them with their turns: priority by priority, key by key and person by person in the
    /// order of their turns, each person's in order. Joined at the front of another queue in the reverse order, they are
    /// served there in the order that they had here.
    pub(super) fn take_by_turn(&mut self) -> Vec<(OwnedTurn, W)> {
        let mut taken = Vec::with_capacity(self.waiting);
        for (priority, class) in Priority::ALL.into_iter().zip(&mut self.classes) {
            for (key, mut people) in class.keys.take_lines() {
                for (person, line) in people.take_lines() {
                    let turn = OwnedTurn { priority, key: key.clone(), person };
                    taken.extend(line.waiters.into_iter().map(|(.., waiter)| (turn.clone(), waiter)));
                }
            }
        }
        self.credits = Credits::default();
        self.waiting = 0;
        taken
    }

    /// Moves waiters that are overdue to the highest class. The first of each line is the one that has waited longest.
    fn promote(&mut self, is_overdue: impl Fn(&W) -> bool) {
        let [high, others @ ..] = &mut self.classes;
        // With a single class of waiters there is none to be held back by.
        let classes = usize::from(!high.keys.is_empty()) + others.iter().filter(|class| !class.keys.is_empty()).count();
        if classes < 2 {
            return;
        }
        for class in others {
            let mut due = Vec::new();
            for key in class.keys.names() {
                let Some(people) = class.keys.get(key) else { continue };
                let is_due = |person: &&str| {
                    people
                        .get(person)
                        .and_then(|line| line.waiters.front())
                        .is_some_and(|(.., first)| is_overdue(first))
                };
                due.extend(
                    people.names().filter(is_due).map(|person| (Box::<str>::from(key), Box::<str>::from(person))),
                );
            }
            for (key, person) in due {
                let first =
                    class.keys.take_from(&key, |people| people.take_from(&person, |line| line.waiters.pop_front()));
                if let Some(first) = first {
                    high.keys.line(&key).line(&person).insert(first);
                }
            }
        }
    }

    /// Removes the next waiter, and moves its key and its person to the ends of their rotations.
    fn pop(&mut self) -> Option<W> {
        let class = self.next_class.take().map(Priority::index).filter(|class| !self.classes[*class].keys.is_empty());
        let class = class.or_else(|| self.credits.choose(|class| !self.classes[class].keys.is_empty()))?;
        let last = self.last;
        let (batch, waiter) = self.classes[class].keys.take_turn(|people| people.take_turn(|line| line.pop(last)))?;
        self.last = batch.or(last);
        self.waiting -= 1;
        Some(waiter)
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;
