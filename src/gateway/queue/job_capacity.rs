//! How many jobs may still be taken from a queue that others take from too. Pure.
//!
//! Which model a job asks for is known once it has been taken, and whatever waits in a line of ours, another worker
//! might have begun. So of several models the fullest one counts: at most one job more than it has slots has to wait.

/// A line at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLoad {
    /// The slots of all workers that would serve, be it that a request wakes them.
    pub(super) slots: usize,
    /// How many requests hold one.
    pub(super) active: usize,
    /// How many wait for one.
    pub(super) waiting: usize,
}

/// How many more jobs may be taken, beside so many in hand that hold a slot, need none, or are about to be answered.
pub(super) fn job_capacity(lines: &[QueueLoad], in_hand: usize) -> usize {
    if lines.iter().any(|line| line.waiting > 0) {
        return 0;
    }
    let serving = || lines.iter().filter(|line| line.slots > 0);
    let sum = |of: fn(&QueueLoad) -> usize| serving().map(of).fold(0, usize::saturating_add);
    let (slots, free) = (sum(|line| line.slots), sum(QueueLoad::free_slots));
    let of_fullest = serving().map(QueueLoad::free_slots).min().unwrap_or(0);
    of_fullest.max(1).min(free).min(slots.saturating_sub(in_hand))
}

impl QueueLoad {
    fn free_slots(&self) -> usize {
        self.slots.saturating_sub(self.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(slots: usize, active: usize, waiting: usize) -> QueueLoad {
        QueueLoad { slots, active, waiting }
    }

    #[test]
    fn slots_that_others_hold_are_not_free() {
        for (lines, in_hand, expected) in [
            (vec![line(4, 0, 0)], 0, 4),
            (vec![line(4, 3, 0)], 1, 1),
            (vec![line(4, 4, 0)], 1, 0),
            // Two need no slot, or are being answered.
            (vec![line(4, 1, 0)], 3, 1),
            (vec![line(4, 0, 0)], 7, 0),
            (vec![line(0, 0, 0)], 0, 0),
            (vec![], 0, 0),
        ] {
            assert_eq!(job_capacity(&lines, in_hand), expected, "{lines:?} {in_hand}");
        }
    }

    #[test]
    fn the_fullest_of_several_models_counts_and_a_waiting_request_leaves_no_capacity() {
        for (lines, in_hand, expected) in [
            (vec![line(4, 0, 0), line(2, 0, 0)], 0, 2),
            (vec![line(4, 4, 0), line(2, 0, 0)], 4, 1),
            (vec![line(4, 4, 1), line(2, 0, 0)], 5, 0),
            (vec![line(4, 4, 0), line(2, 2, 0)], 6, 0),
            // One that cannot serve has no part in it, unless somebody waits for it.
            (vec![line(4, 0, 0), line(0, 0, 0)], 0, 4),
            (vec![line(4, 0, 0), line(0, 0, 1)], 1, 0),
        ] {
            assert_eq!(job_capacity(&lines, in_hand), expected, "{lines:?} {in_hand}");
        }
    }

    proptest! {
        /// Whatever they ask for, and whatever others hold.
        #[test]
        fn at_most_one_job_waits(
            slots in proptest::collection::vec((1..6_usize, 0..6_usize), 1..4),
            asks in proptest::collection::vec(0..4_usize, 0..40),
        ) {
            let mut lines: Vec<QueueLoad> = slots.into_iter().map(|(slots, others)| line(slots, others.min(slots), 0)).collect();
            let (mut asks, mut in_hand) = (asks.into_iter().peekable(), 0);
            while asks.peek().is_some() {
                let count = job_capacity(&lines, in_hand);
                if count == 0 {
                    break;
                }
                for ask in asks.by_ref().take(count) {
                    in_hand += 1;
                    let at = ask % lines.len();
                    let asked = &mut lines[at];
                    if asked.active < asked.slots { asked.active += 1 } else { asked.waiting += 1 }
                }
                prop_assert!(lines.iter().map(|line| line.waiting).sum::<usize>() <= 1, "{:?}", lines);
            }
        }
    }
}
