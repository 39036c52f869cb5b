//! The scales of scores: logits, and probabilities.

/// The scale on which a worker gives its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreScale {
    /// Any number; 0 is as likely as not.
    Logits,
    /// From 0 to 1.
    Probabilities,
    /// Either: logits if one of the scores is outside 0 to 1.
    Unknown,
}

/// Changes all scores of a request to probabilities, each by itself and from its own scale: what a document gets does not
/// depend on the others. An unknown scale alone is found once, for all scores that are on it.
pub fn to_probabilities(scores: &mut [f64], scales: &[ScoreScale]) {
    let is_outside =
        |(score, scale): (&f64, &ScoreScale)| *scale == ScoreScale::Unknown && !(0.0..=1.0).contains(score);
    let has_logits = scores.iter().zip(scales).any(is_outside);
    for (score, scale) in scores.iter_mut().zip(scales) {
        let is_logit = match scale {
            ScoreScale::Logits => true,
            ScoreScale::Probabilities => false,
            ScoreScale::Unknown => has_logits,
        };
        if is_logit {
            *score = sigmoid(*score);
        }
    }
}

/// Returns the probability of a logit. The exponent is never positive, so that nothing overflows.
fn sigmoid(logit: f64) -> f64 {
    let small = (-logit.abs()).exp();
    if logit >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probabilities(scale: ScoreScale, given: &[f64]) -> Vec<f64> {
        let mut scores = given.to_vec();
        to_probabilities(&mut scores, &vec![scale; given.len()]);
        scores
    }

    #[test]
    fn logits_become_probabilities_and_probabilities_stay() {
        let logits = [0.0, -2.5, 2.5, f64::MAX, f64::MIN];
        let expected = [0.5, 0.075_858_180_021_243_55, 0.924_141_819_978_756_4, 1.0, 0.0];
        for (given, expected) in probabilities(ScoreScale::Logits, &logits).into_iter().zip(expected) {
            assert!((given - expected).abs() < 1e-15, "{given} {expected}");
        }
        assert_eq!(probabilities(ScoreScale::Probabilities, &[0.3, 1.0]), [0.3, 1.0]);
    }

    #[test]
    fn an_unknown_scale_is_told_by_scores_outside_of_probabilities() {
        assert_eq!(probabilities(ScoreScale::Unknown, &[0.0, 0.4, 1.0]), [0.0, 0.4, 1.0]);
        assert_eq!(probabilities(ScoreScale::Unknown, &[0.0, 1.000_001])[0], 0.5);
        assert_eq!(probabilities(ScoreScale::Unknown, &[0.0, -0.1])[0], 0.5);
    }

    #[test]
    fn an_unknown_scale_is_one_for_all_scores_that_are_on_it() {
        use ScoreScale::{Logits, Probabilities, Unknown};
        let mut scores = [0.0, 3.0, 0.25, 0.0];
        to_probabilities(&mut scores, &[Unknown, Unknown, Probabilities, Logits]);
        assert_eq!((scores[0], scores[2], scores[3]), (0.5, 0.25, 0.5));
        let mut scores = [0.25, 3.0];
        to_probabilities(&mut scores, &[Unknown, Logits]);
        assert_eq!(scores[0], 0.25, "a logit of another scale says nothing");
    }

    proptest! {
        #[test]
        fn the_order_of_scores_stays(one in proptest::num::f64::NORMAL, other in proptest::num::f64::NORMAL) {
            for (one, other) in [(one, other), (one % 40.0, other % 40.0), (one, f64::from_bits(one.to_bits() + 1))] {
                let changed = probabilities(ScoreScale::Logits, &[one, other]);
                prop_assert!(changed.iter().all(|score| (0.0..=1.0).contains(score)));
                if one <= other {
                    prop_assert!(changed[0] <= changed[1], "{one} {other} {changed:?}");
                }
            }
        }
    }
}
