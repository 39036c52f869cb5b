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

impl ScoreScale {
    /// Changes scores to probabilities, each by itself: what a document gets does not depend on the others, but for an
    /// unknown scale. Give all scores of a request at once, so that an unknown scale is found once for all of them.
    pub fn to_probabilities(self, scores: &mut [f64]) {
        let is_logits = match self {
            Self::Logits => true,
            Self::Probabilities => false,
            Self::Unknown => scores.iter().any(|score| !(0.0..=1.0).contains(score)),
        };
        if is_logits {
            scores.iter_mut().for_each(|score| *score = sigmoid(*score));
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

    fn probabilities(scale: ScoreScale, scores: &[f64]) -> Vec<f64> {
        let mut scores = scores.to_vec();
        scale.to_probabilities(&mut scores);
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
