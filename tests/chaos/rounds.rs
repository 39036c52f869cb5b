//! The way of every lane: fault after fault, and after each round a check that everything works again.

use std::{fmt, time::Duration};

use crate::support::resources;

/// How much the gateway's resident memory may grow after the first tenth of the faults. The allocator keeps the memory
/// of a peak, and a longer run meets higher peaks.
const MAX_GROWTH_KIB: u64 = 24 * 1024;

/// A lane, as its faults see it.
pub(crate) trait FaultLane {
    type Fault: fmt::Debug;
    /// Faults in a round.
    const ROUND: usize;

    /// Lets a fault happen.
    ///
    /// # Errors
    /// What is wrong at once.
    fn apply(&mut self, fault: Self::Fault) -> Result<(), String>;

    /// Waits for `time`, and ends the faults that become due to end.
    fn pause(&mut self, time: Duration);

    /// Ends all faults and checks the lane at rest. Returns how long it took to work again.
    ///
    /// # Errors
    /// What is wrong.
    fn check_round(&mut self) -> Result<Duration, String>;

    /// Returns the process of the gateway, which a fault may have replaced.
    fn gateway_pid(&self) -> u32;

    /// Returns what other threads have found to be wrong.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What the rounds of a lane have shown.
#[derive(Default)]
pub(crate) struct Rounds {
    /// The longest that the lane took to work again.
    pub(crate) longest_recovery: Duration,
    /// The resident memory of the gateway after a tenth of the faults, and at the end.
    pub(crate) resident_kib: (u64, u64),
    gateway: u32,
}

impl Rounds {
    /// Runs all faults of a lane, each with the pause after it.
    ///
    /// # Errors
    /// What is wrong, with the last faults before it.
    pub(crate) fn run<L: FaultLane>(lane: &mut L, steps: Vec<(L::Fault, Duration)>) -> Result<Self, String> {
        let (mut rounds, mut done, count) = (Self::default(), Vec::new(), steps.len());
        for (n, (fault, pause)) in steps.into_iter().enumerate() {
            done.push(format!("{n}: {fault:?}, {pause:?}"));
            let ends_round = (n + 1) % L::ROUND == 0 || n + 1 == count;
            rounds
                .step(lane, fault, pause, ends_round, n >= count / 10)
                .map_err(|problem| format!("{problem}\nafter {:#?}", &done[done.len().saturating_sub(L::ROUND)..]))?;
        }
        let (early, late) = rounds.resident_kib;
        match late > early + MAX_GROWTH_KIB {
            true => Err(format!("resident memory grew (KiB): {:?}", rounds.resident_kib)),
            false => Ok(rounds),
        }
    }

    fn step<L: FaultLane>(
        &mut self,
        lane: &mut L,
        fault: L::Fault,
        pause: Duration,
        ends_round: bool,
        is_settled: bool,
    ) -> Result<(), String> {
        lane.apply(fault)?;
        lane.pause(pause);
        if ends_round {
            self.longest_recovery = self.longest_recovery.max(lane.check_round()?);
            self.measure_memory(lane.gateway_pid(), is_settled);
        }
        match lane.violations() {
            none if none.is_empty() => Ok(()),
            violations => Err(violations.join("\n")),
        }
    }

    fn measure_memory(&mut self, gateway: u32, is_settled: bool) {
        if self.gateway != gateway {
            (self.gateway, self.resident_kib) = (gateway, (0, 0));
        }
        let now = resources::resident_kib(gateway);
        if self.resident_kib.0 == 0 && is_settled {
            self.resident_kib.0 = now;
        }
        self.resident_kib.1 = now;
    }
}
