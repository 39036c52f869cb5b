//! How many more jobs to take from a platform's job queue, which other instances take from, too. Pure.
//!
//! The model of a job is known only after the job has been taken, and a job that waits here could have been started by
//! another instance. So the model with the fewest free slots decides: at most one job waits for a slot.

/// The load of one model's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLoad {
    /// The slots of all workers that would serve, including sleeping workers that a request would wake.
    pub(super) slots: usize,
    /// The number of requests that hold a slot.
    pub(super) active: usize,
    /// The number of requests that wait for a slot.
    pub(super) waiting: usize,
}

/// Returns how many more jobs may be taken. `in_flight` counts the jobs taken and not finished: those that hold a slot, that
/// need none, or whose result is being sent.
pub(super) fn job_capacity(loads: &[QueueLoad], in_flight: usize) -> usize {
    if loads.iter().any(|load| load.waiting > 0) {
        return 0;
    }
    let serving = || loads.iter().filter(|load| load.slots > 0);
    let sum = |of: fn(&QueueLoad) -> usize| serving().map(of).fold(0, usize::saturating_add);
    let (slots, free) = (sum(|load| load.slots), sum(QueueLoad::free_slots));
    let fewest_free = serving().map(QueueLoad::free_slots).min().unwrap_or(0);
    // `slots - in_flight` also counts jobs that were taken and have not entered a queue yet.
    // At least one while any slot is free, or a single full model would keep all others idle.
    fewest_free.max(1).min(free).min(slots.saturating_sub(in_flight))
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

    fn load(slots: usize, active: usize, waiting: usize) -> QueueLoad {
        QueueLoad { slots, active, waiting }
    }

    #[test]
    fn slots_held_by_other_requests_are_not_free() {
        for (loads, in_flight, expected) in [
            (vec![load(4, 0, 0)], 0, 4),
            (vec![load(4, 3, 0)], 1, 1),
            (vec![load(4, 4, 0)], 1, 0),
            // Two jobs need no slot, or their result is being sent.
            (vec![load(4, 1, 0)], 3, 1),
            (vec![load(4, 0, 0)], 7, 0),
            (vec![load(0, 0, 0)], 0, 0),
            (vec![], 0, 0),
        ] {
            assert_eq!(job_capacity(&loads, in_flight), expected, "{loads:?} {in_flight}");
        }
    }

    #[test]
    fn the_fullest_model_decides_and_a_waiting_request_leaves_no_capacity() {
        for (loads, in_flight, expected) in [
            (vec![load(4, 0, 0), load(2, 0, 0)], 0, 2),
            (vec![load(4, 4, 0), load(2, 0, 0)], 4, 1),
            (vec![load(4, 4, 1), load(2, 0, 0)], 5, 0),
            (vec![load(4, 4, 0), load(2, 2, 0)], 6, 0),
            // A model that cannot serve is ignored, unless a request waits for it.
            (vec![load(4, 0, 0), load(0, 0, 0)], 0, 4),
            (vec![load(4, 0, 0), load(0, 0, 1)], 1, 0),
        ] {
            assert_eq!(job_capacity(&loads, in_flight), expected, "{loads:?} {in_flight}");
        }
    }

    proptest! {
        /// Whichever models the jobs ask for, and however many slots other requests hold.
        #[test]
        fn at_most_one_job_waits(
            slots in proptest::collection::vec((1..6_usize, 0..6_usize), 1..4),
            asks in proptest::collection::vec(0..4_usize, 0..40),
        ) {
            let mut loads: Vec<QueueLoad> = slots.into_iter().map(|(slots, others)| load(slots, others.min(slots), 0)).collect();
            let (mut asks, mut in_flight) = (asks.into_iter().peekable(), 0);
            while asks.peek().is_some() {
                let count = job_capacity(&loads, in_flight);
                if count == 0 {
                    break;
                }
                for ask in asks.by_ref().take(count) {
                    in_flight += 1;
                    let at = ask % loads.len();
                    let load = &mut loads[at];
                    if load.active < load.slots { load.active += 1 } else { load.waiting += 1 }
                }
                prop_assert!(loads.iter().map(|load| load.waiting).sum::<usize>() <= 1, "{:?}", loads);
            }
        }
    }
}
