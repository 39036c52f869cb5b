//! Whose turn it is among the priorities: a smooth weighted round robin, as pure data.

use crate::keys::Priority;

/// What each priority has saved up towards its next turn, in turns of all priorities that have waiters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Credits([i64; Priority::ALL.len()]);

impl Credits {
    /// Returns the index of the priority whose turn it is among those that have waiters.
    pub(super) fn choose(&mut self, has_waiters: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut chosen: Option<usize> = None;
        for (index, priority) in Priority::ALL.into_iter().enumerate() {
            if !has_waiters(index) {
                self.0[index] = 0;
                continue;
            }
            self.0[index] += priority.weight();
            total += priority.weight();
            if chosen.is_none_or(|chosen| self.0[index] > self.0[chosen]) {
                chosen = Some(index);
            }
        }
        if let Some(chosen) = chosen {
            self.0[chosen] -= total;
        }
        chosen
    }
}
