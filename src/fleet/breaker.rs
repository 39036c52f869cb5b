//! Whether a worker that keeps failing is left alone.
//!
//! A breaker is closed while its worker serves. So many failures in a row open it, and nothing is sent for a while. Then
//! it is half open: one request tries the worker, and what comes of it closes the breaker or opens it again. A worker that
//! asks to be left alone for some time is, after a single failure.
//!
//! Owns that count and nothing else: what counts as a failure is the caller's business, and so is the time.

use crate::pause_clock::ActiveInstant;
use serde::Serialize;
use std::num::NonZeroU32;
use std::time::Duration;

/// The circuit breaker of one worker.
#[derive(Debug)]
pub struct Breaker {
    allowed_fails: NonZeroU32,
    cooldown: Duration,
    /// Failures in a row.
    failures: u32,
    phase: Phase,
    /// Counts changes of the phase. What was begun in an earlier one tells nothing of how the worker is now.
    era: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Open until then, and half open from then on.
    Open(ActiveInstant),
    /// Half open, with the one request in flight.
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
    /// One request may be sent, or is in flight, to try the worker.
    HalfOpen,
}

/// The right to send one request, to be given back with what came of it.
///
/// One that is lost may have been the trial that all others wait for, so whoever holds it gives it up when dropped.
#[derive(Debug)]
#[must_use = "it has to be given back with what came of the request"]
pub struct Pass {
    era: u64,
}

impl Breaker {
    /// Closed; `allowed_fails` failures in a row open it for `cooldown`.
    pub fn new(allowed_fails: NonZeroU32, cooldown: Duration) -> Self {
        Self { allowed_fails, cooldown, failures: 0, phase: Phase::Closed, era: 0 }
    }

    /// Whether a request may be sent now.
    pub fn is_open_for_requests(&self, now: ActiveInstant) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open(until) => until <= now,
            Phase::Trial => false,
        }
    }

    /// Lets a request through, if one may be sent now.
    pub fn begin(&mut self, now: ActiveInstant) -> Option<Pass> {
        if !self.is_open_for_requests(now) {
            return None;
        }
        if self.phase != Phase::Closed {
            self.set_phase(Phase::Trial);
        }
        Some(Pass { era: self.era })
    }

    /// Whether it is this request with which the worker is tried.
    pub fn is_trial(&self, pass: &Pass) -> bool {
        self.phase == Phase::Trial && pass.era == self.era
    }

    /// The request was served.
    pub fn record_success(&mut self, pass: Pass) {
        if pass.era != self.era {
            return;
        }
        self.failures = 0;
        if self.phase == Phase::Trial {
            self.set_phase(Phase::Closed);
        }
    }

    /// The worker failed to serve the request.
    pub fn record_failure(&mut self, pass: Pass, now: ActiveInstant) {
        if pass.era != self.era {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.phase == Phase::Trial || self.failures >= self.allowed_fails.get() {
            self.set_phase(Phase::Open(now + self.cooldown));
        }
    }

    /// The worker failed to serve the request and asks to be left alone for so long, which opens it however few failures
    /// there were.
    pub fn rest_for(&mut self, pass: Pass, rest: Duration, now: ActiveInstant) {
        if pass.era == self.era {
            self.failures = self.failures.saturating_add(1);
            self.set_phase(Phase::Open(now + rest));
        }
    }

    /// Nothing can be told of the request: its client left, or it was never sent.
    pub fn give_up(&mut self, pass: Pass, now: ActiveInstant) {
        if pass.era == self.era && self.phase == Phase::Trial {
            self.set_phase(Phase::Open(now));
        }
    }

    /// When the next request may be sent: none if it may now, or as soon as the trial has ended.
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

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
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

    /// One that has just opened.
    fn open() -> (Breaker, ActiveInstant) {
        let (mut breaker, now) = breaker(3);
        (0..3).for_each(|_| fail(&mut breaker, now));
        (breaker, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_others_do_not() {
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
    fn after_its_time_it_lets_one_through() {
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
    fn a_trial_that_fails_opens_it_for_the_same_time() {
        let (mut breaker, opened) = open();
        let now = opened + COOLDOWN * 2;
        fail(&mut breaker, now);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Open, 4));
        assert_eq!(breaker.opens_at(now), Some(now + COOLDOWN));
    }

    #[test]
    fn a_worker_that_asks_for_it_is_left_alone_for_that_time_after_one_failure() {
        let (mut breaker, now) = breaker(3);
        let rest = COOLDOWN * 4;
        let [busy, late] = [(); 2].map(|()| breaker.begin(now).unwrap());
        breaker.rest_for(busy, rest, now);
        breaker.rest_for(late, rest * 2, now);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Open, 1));
        assert_eq!(breaker.opens_at(now), Some(now + rest), "as the first has said");
        let trial = breaker.begin(now + rest).unwrap();
        breaker.rest_for(trial, COOLDOWN / 2, now + rest);
        assert_eq!(breaker.opens_at(now + rest), Some(now + rest + COOLDOWN / 2));
        serve(&mut breaker, now + rest * 2);
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Closed, 0));
    }

    #[test]
    fn a_trial_that_is_given_up_leaves_the_next_to_try() {
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
    fn what_is_given_up_is_neither_good_nor_bad() {
        let (mut breaker, now) = breaker(2);
        fail(&mut breaker, now);
        let pass = breaker.begin(now).unwrap();
        breaker.give_up(pass, now);
        assert_eq!((breaker.failures(), breaker.state(now)), (1, BreakerState::Closed));
        fail(&mut breaker, now);
        assert_eq!(breaker.state(now), BreakerState::Open);
    }

    #[test]
    fn what_was_begun_before_it_opened_changes_nothing_after() {
        let (mut breaker, opened) = breaker(1);
        let [good, bad, late_good, late_bad] = [(); 4].map(|()| breaker.begin(opened).unwrap());
        fail(&mut breaker, opened);
        breaker.record_success(good);
        breaker.record_failure(bad, opened + COOLDOWN / 2);
        assert_eq!((breaker.failures(), breaker.opens_at(opened)), (1, Some(opened + COOLDOWN)));
        let now = opened + COOLDOWN;
        let trial = breaker.begin(now).unwrap();
        breaker.record_success(late_good);
        assert!(!breaker.is_open_for_requests(now), "it is not the trial that was served");
        breaker.record_success(trial);
        breaker.record_failure(late_bad, now);
        assert_eq!((breaker.failures(), breaker.state(now)), (0, BreakerState::Closed));
    }

    #[test]
    fn without_a_cooldown_it_is_half_open_at_once() {
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
        fn whatever_happens_it_lets_one_at_a_time_try_and_never_shuts_for_good(
            allowed_fails in 1..4_u32,
            steps in proptest::collection::vec(step(), 0..80),
        ) {
            let (mut breaker, mut now) = breaker(allowed_fails);
            // Each with whether it is a trial; trials that are neither ended nor overtaken are at most one.
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
