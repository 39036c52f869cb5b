//! The circuit breaker of a worker.
//!
//! A breaker is closed while its worker serves requests. A number of failures in a row opens it, and no request is sent
//! for a cooldown. Then it is half open: one trial request is sent, and its result closes the breaker or opens it
//! again. A worker that asks for a pause (`Retry-After`) gets it after a single failure.
//!
//! Owns only this state: what counts as a failure is decided by the caller, who also passes the time.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use crate::pause_clock::ActiveInstant;

/// The circuit breaker of one worker.
#[derive(Debug)]
pub struct Breaker {
    allowed_fails: NonZeroU32,
    cooldown: Duration,
    /// Failures in a row.
    failures: u32,
    phase: Phase,
    /// Number of phase changes. The result of a request that began in an earlier phase says nothing about the current
    /// one.
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Open until this instant, half open from then on.
    Open(ActiveInstant),
    /// Half open, with the trial request in flight.
    Trial,
}

/// The state of a breaker at one moment. Serialized as `closed`, `open` or `half-open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Requests are sent.
    Closed,
    /// No request is sent until the cooldown has passed.
    Open,
    /// One trial request may be sent, or is in flight.
    HalfOpen,
}

/// Permission to send one request. Must be returned with the result of the request.
///
/// A pass that is lost may be the trial that blocks all other requests, so the owner returns it with
/// [`Breaker::give_up`] when dropped.
#[derive(Debug)]
#[must_use = "it has to be given back with what came of the request"]
pub struct Pass {
    generation: u64,
}

impl Breaker {
    /// Creates a closed breaker. `allowed_fails` failures in a row open it for `cooldown`.
    pub fn new(allowed_fails: NonZeroU32, cooldown: Duration) -> Self {
        Self { allowed_fails, cooldown, failures: 0, phase: Phase::Closed, generation: 0 }
    }

    /// Whether a request may be sent now.
    pub fn is_open_for_requests(&self, now: ActiveInstant) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open(until) => until <= now,
            Phase::Trial => false,
        }
    }

    /// Returns a pass for one request, if one may be sent now.
    pub fn begin(&mut self, now: ActiveInstant) -> Option<Pass> {
        if !self.is_open_for_requests(now) {
            return None;
        }
        if self.phase != Phase::Closed {
            self.set_phase(Phase::Trial);
        }
        Some(Pass { generation: self.generation })
    }

    /// Whether this pass is that of the current trial.
    pub fn is_trial(&self, pass: &Pass) -> bool {
        self.phase == Phase::Trial && pass.generation == self.generation
    }

    /// Records that the request was served.
    pub fn record_success(&mut self, pass: Pass) {
        if pass.generation != self.generation {
            return;
        }
        self.failures = 0;
        if self.phase == Phase::Trial {
            self.set_phase(Phase::Closed);
        }
    }

    /// Records that the worker failed to serve the request.
    pub fn record_failure(&mut self, pass: Pass, now: ActiveInstant) {
        if pass.generation != self.generation {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.phase == Phase::Trial || self.failures >= self.allowed_fails.get() {
            self.set_phase(Phase::Open(now + self.cooldown));
        }
    }

    /// Records that the worker failed to serve the request and asked for a pause of `rest`. Opens the breaker
    /// regardless of the number of failures.
    pub fn rest_for(&mut self, pass: Pass, rest: Duration, now: ActiveInstant) {
        if pass.generation == self.generation {
            self.failures = self.failures.saturating_add(1);
            self.set_phase(Phase::Open(now + rest));
        }
    }

    /// Returns a pass without a result: the client left, or the request was never sent. After a trial the breaker is
    /// half open again, so that the next request is the trial.
    pub fn give_up(&mut self, pass: Pass, now: ActiveInstant) {
        if pass.generation == self.generation && self.phase == Phase::Trial {
            self.set_phase(Phase::Open(now));
        }
    }

    /// Returns when the next request may be sent; `None` if it may be sent now, or once the trial has ended.
    pub fn opens_at(&self, now: ActiveInstant) -> Option<ActiveInstant> {
        match self.phase {
            Phase::Open(until) if until > now => Some(until),
            _ => None,
        }
    }

    /// Returns the state at this moment.
    pub fn state(&self, now: ActiveInstant) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open(until) if until > now => BreakerState::Open,
            Phase::Open(_) | Phase::Trial => BreakerState::HalfOpen,
        }
    }

    /// Returns the number of failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COOLDOWN: Duration = Duration::from_secs(30);
    const NANO: Duration = Duration::from_nanos(1);

    fn breaker(allowed_fails: u32) -> (Breaker, ActiveInstant) {
        (Breaker::new(NonZeroU32::new(allowed_fails).unwrap(), COOLDOWN), ActiveInstant::now())
    }

    fn fail(breaker: &mut Breaker, now: ActiveInstant) {
        let pass = breaker.begin(now).unwrap();
        breaker.record_failure(pass, now);
    }

    fn serve(breaker: &mut Breaker, now: ActiveInstant) {
        let pass = breaker.begin(now).unwrap();
        breaker.record_success(pass);
    }

    /// A breaker that has just opened.
    fn open() -> (Breaker, ActiveInstant) {
        let (mut breaker, now) = breaker(3);
        (0..3).for_each(|_| fail(&mut breaker, now));
        (breaker, now)
    }

    #[test]
    fn only_failures_in_a_row_open_a_breaker() {
        let (mut breaker, now) = breaker(3);
        for _ in 0..5 {
            fail(&mut breaker, now);
            fail(&mut breaker, now);
            assert_eq!(
                (breaker.failures(), breaker.state(now), breaker.opens_at(now)),
                (2, BreakerState::Closed, None)
            );
            serve(&mut breaker, now);
            assert_eq!(breaker.failures(), 0);
        }
        (0..3).for_each(|_| fail(&mut breaker, now));
        assert_eq!((breaker.failures(), breaker.state(now)), (3, BreakerState::Open));
        assert_eq!(breaker.opens_at(now), Some(now + COOLDOWN));
        assert!(!breaker.is_open_for_requests(now) && breaker.begin(now).is_none());
    }

    #[test]
    fn a_breaker_lets_one_trial_through_after_the_cooldown() {
        let (mut breaker, opened) = open();
        let before = opened + (COOLDOWN - NANO);
        assert!(!breaker.is_open_for_requests(before) && breaker.state(before) == BreakerState::Open);
        let now = opened + COOLDOWN;
        assert_eq!(
            (breaker.is_open_for_requests(now), breaker.state(now), breaker.opens_at(now)),
            (true, BreakerState::HalfOpen, None)
        );
        let trial = breaker.begin(now).unwrap();
        assert!(!breaker.is_open_for_requests(now) && breaker.begin(now).is_none(), "one at a time");
        assert_eq!((breaker.state(now), breaker.opens_at(now)), (BreakerState::HalfOpen, None));
        breaker.record_success(trial);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Closed, 0));
        let both = (breaker.begin(now), breaker.begin(now));
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[test]
    fn a_failed_trial_opens_the_breaker_for_another_cooldown() {
        let (mut breaker, opened) = open();
        let now = opened + COOLDOWN * 2;
        fail(&mut breaker, now);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Open, 4));
        assert_eq!(breaker.opens_at(now), Some(now + COOLDOWN));
    }

    #[test]
    fn a_worker_that_asks_for_a_pause_gets_it_after_one_failure() {
        let (mut breaker, now) = breaker(3);
        let rest = COOLDOWN * 4;
        let [busy, late] = [(); 2].map(|()| breaker.begin(now).unwrap());
        breaker.rest_for(busy, rest, now);
        breaker.rest_for(late, rest * 2, now);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Open, 1));
        assert_eq!(breaker.opens_at(now), Some(now + rest), "the first request decides");
        let trial = breaker.begin(now + rest).unwrap();
        breaker.rest_for(trial, COOLDOWN / 2, now + rest);
        assert_eq!(breaker.opens_at(now + rest), Some(now + rest + COOLDOWN / 2));
        serve(&mut breaker, now + rest * 2);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Closed, 0));
    }

    #[test]
    fn after_a_trial_without_a_result_the_next_request_is_the_trial() {
        let (mut breaker, opened) = open();
        let now = opened + COOLDOWN;
        for _ in 0..3 {
            let trial = breaker.begin(now).unwrap();
            breaker.give_up(trial, now);
            assert_eq!(
                (breaker.is_open_for_requests(now), breaker.state(now), breaker.failures()),
                (true, BreakerState::HalfOpen, 3)
            );
        }
        serve(&mut breaker, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn a_request_without_a_result_counts_neither_as_success_nor_as_failure() {
        let (mut breaker, now) = breaker(2);
        fail(&mut breaker, now);
        let pass = breaker.begin(now).unwrap();
        breaker.give_up(pass, now);
        assert_eq!((breaker.failures(), breaker.state(now)), (1, BreakerState::Closed));
        fail(&mut breaker, now);
        assert_eq!(breaker.state(now), BreakerState::Open);
    }

    #[test]
    fn results_of_requests_from_before_the_opening_are_ignored() {
        let (mut breaker, opened) = breaker(1);
        let [good, bad, late_good, late_bad] = [(); 4].map(|()| breaker.begin(opened).unwrap());
        fail(&mut breaker, opened);
        breaker.record_success(good);
        breaker.record_failure(bad, opened + COOLDOWN / 2);
        assert_eq!((breaker.failures(), breaker.opens_at(opened)), (1, Some(opened + COOLDOWN)));
        let now = opened + COOLDOWN;
        let trial = breaker.begin(now).unwrap();
        breaker.record_success(late_good);
        assert!(!breaker.is_open_for_requests(now), "the served request is not the trial");
        breaker.record_success(trial);
        breaker.record_failure(late_bad, now);
        assert_eq!((breaker.failures(), breaker.state(now)), (0, BreakerState::Closed));
    }

    #[test]
    fn a_breaker_without_a_cooldown_is_half_open_at_once() {
        let mut breaker = Breaker::new(NonZeroU32::MIN, Duration::ZERO);
        let now = ActiveInstant::now();
        fail(&mut breaker, now);
        assert_eq!((breaker.state(now), breaker.is_open_for_requests(now)), (BreakerState::HalfOpen, true));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        Succeed(usize),
        Fail(usize),
        Rest(usize),
        GiveUp(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Begin),
            1 => (0..4_usize).prop_map(Step::Succeed),
            3 => (0..4_usize).prop_map(Step::Fail),
            1 => (0..4_usize).prop_map(Step::Rest),
            1 => (0..4_usize).prop_map(Step::GiveUp),
            1 => (1..40_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn a_breaker_allows_one_trial_at_a_time_and_never_stays_open_for_ever(
            allowed_fails in 1..4_u32,
            steps in proptest::collection::vec(step(), 0..80),
        ) {
            let (mut breaker, mut now) = breaker(allowed_fails);
            // Each pass with whether it is a trial; at most one trial is neither finished nor outdated.
            let mut passes: Vec<(Pass, bool)> = Vec::new();
            for step in steps {
                let (state, allowed) = (breaker.state(now), breaker.is_open_for_requests(now));
                match step {
                    Step::Begin => {
                        let pass = breaker.begin(now);
                        prop_assert_eq!(pass.is_some(), allowed);
                        passes.extend(pass.map(|pass| (pass, state == BreakerState::HalfOpen)));
                    }
                    Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
                    Step::Succeed(at) | Step::Fail(at) | Step::Rest(at) | Step::GiveUp(at) => {
                        if at >= passes.len() {
                            continue;
                        }
                        let (pass, is_trial) = passes.remove(at);
                        match step {
                            Step::Succeed(_) => breaker.record_success(pass),
                            Step::Fail(_) => breaker.record_failure(pass, now),
                            Step::Rest(_) => breaker.rest_for(pass, COOLDOWN / 2, now),
                            _ => breaker.give_up(pass, now),
                        }
                        if !is_trial && state != BreakerState::Closed {
                            prop_assert_eq!(breaker.state(now), state, "only the trial counts");
                        }
                        if is_trial {
                            let after = match step {
                                Step::Succeed(_) => BreakerState::Closed,
                                Step::Fail(_) | Step::Rest(_) => BreakerState::Open,
                                _ => BreakerState::HalfOpen,
                            };
                            prop_assert_eq!(breaker.state(now), after);
                        }
                    }
                }
                let trials = passes.iter().filter(|(_, is_trial)| *is_trial).count();
                prop_assert!(trials <= 1);
                match breaker.state(now) {
                    BreakerState::Closed => prop_assert!(breaker.is_open_for_requests(now) && breaker.failures() < allowed_fails && trials == 0),
                    BreakerState::Open => {
                        let until = breaker.opens_at(now);
                        prop_assert!(!breaker.is_open_for_requests(now) && trials == 0);
                        prop_assert!(until.is_some_and(|until| until - now <= COOLDOWN && breaker.is_open_for_requests(until)));
                    }
                    _ => prop_assert_eq!(breaker.is_open_for_requests(now), trials == 0),
                }
            }
        }
    }
}
