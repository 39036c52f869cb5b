//! Lines that take turns: each line once, then the first one again.

use std::collections::{HashMap, VecDeque};

/// A line in a [`RoundRobin`]. An empty one has left the rotation.
pub(super) trait WaitLine: Default {
    fn is_empty(&self) -> bool;
}

/// Lines by name, in the order of their turns.
pub(super) struct RoundRobin<L> {
    order: VecDeque<Box<str>>,
    lines: HashMap<Box<str>, L>,
}

impl<L> Default for RoundRobin<L> {
    fn default() -> Self {
        Self { order: VecDeque::new(), lines: HashMap::new() }
    }
}

impl<L> WaitLine for RoundRobin<L> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl<L: WaitLine> RoundRobin<L> {
    /// Returns the line with this name. A new one takes its turn after all others.
    pub(super) fn line(&mut self, name: &str) -> &mut L {
        if !self.lines.contains_key(name) {
            self.order.push_back(name.into());
        }
        self.lines.entry(name.into()).or_default()
    }

    /// Returns the line with this name, whose turn is next now.
    pub(super) fn first_line(&mut self, name: &str) -> &mut L {
        self.order.retain(|other| **other != *name);
        self.order.push_front(name.into());
        self.lines.entry(name.into()).or_default()
    }

    /// Takes from the line whose turn it is, which then has its next turn after all others.
    pub(super) fn take_turn<T>(&mut self, take: impl FnOnce(&mut L) -> Option<T>) -> Option<T> {
        let name = self.order.pop_front()?;
        let line = self.lines.get_mut(&name)?;
        let taken = take(line);
        if line.is_empty() {
            self.lines.remove(&name);
        } else {
            self.order.push_back(name);
        }
        taken
    }

    /// Takes from the line with this name, if there is one.
    pub(super) fn take_from<T>(&mut self, name: &str, take: impl FnOnce(&mut L) -> Option<T>) -> Option<T> {
        let line = self.lines.get_mut(name)?;
        let taken = take(line);
        if line.is_empty() {
            self.lines.remove(name);
            self.order.retain(|other| **other != *name);
        }
        taken
    }

    /// Removes all lines, and returns them with their names in the order of their turns.
    pub(super) fn take_lines(&mut self) -> Vec<(Box<str>, L)> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().filter_map(|name| self.lines.remove(&name).map(|line| (name, line))).collect()
    }

    /// Returns the names of the lines, in the order of their turns.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|name| &**name)
    }

    /// Returns the line with this name, if there is one.
    pub(super) fn get(&self, name: &str) -> Option<&L> {
        self.lines.get(name)
    }
}
