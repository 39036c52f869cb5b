//! NVIDIA NIM, `/v1/ranking`: `passages`, and logits as the answer, whatever the worker gives.

use serde::Serialize;

use super::answer::{AnswerUsage, RankedDocument, RerankAnswer, json};
use super::members::{MemberNames, read_request};
use super::request::{RerankDialect, RerankRequest};
use crate::dialect::fields::{FieldError, Fields};

/// The logits of probabilities that are 0 or 1 are this far from 0.
const FARTHEST_LOGIT: f64 = 100.0;

const NAMES: MemberNames = MemberNames { documents: "passages", returns: "return_documents" };

#[derive(Serialize)]
struct NimAnswer {
    rankings: Vec<NimEntry>,
    usage: AnswerUsage,
}

#[derive(Serialize)]
struct NimEntry {
    index: usize,
    logit: f64,
}

/// Reads a request. Logits are not asked of the worker, since some have none: they are computed from its probabilities.
///
/// # Errors
/// It is none, or asks for something that is not served; the error names the member.
pub(super) fn parse(fields: &Fields<'_>, most: usize) -> Result<RerankRequest, FieldError> {
    read_request(fields, RerankDialect::Nim, NAMES, most)
}

/// Writes the answer. Scores that are no probabilities, because the request or the model's setting wants them as they are,
/// stay.
pub(super) fn write(request: &RerankRequest, answer: &RerankAnswer, ranked: &[RankedDocument]) -> Vec<u8> {
    let are_probabilities = !request.wants_raw_scores && answer.scores.iter().all(|score| (0.0..=1.0).contains(score));
    let logit = |score: f64| if are_probabilities { logit_of(score) } else { score };
    let rankings = ranked.iter().map(|ranked| NimEntry { index: ranked.index, logit: logit(ranked.score) }).collect();
    json(&NimAnswer { rankings, usage: answer.usage() })
}

/// Returns the logit of a probability, which is finite.
fn logit_of(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln().clamp(-FARTHEST_LOGIT, FARTHEST_LOGIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(wanted: &str, scores: &[f64]) -> Vec<f64> {
        let body = format!(r#"{{"query":"q","passages":["a","b"]{wanted}}}"#);
        let request = parse(&Fields::parse(body.as_bytes()).unwrap(), 2).unwrap();
        let answer = RerankAnswer { model: "m".to_owned(), scores: scores.to_vec(), prompt_tokens: None };
        let written = write(&request, &answer, &answer.ranked(&request).unwrap());
        let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
        written["rankings"].as_array().unwrap().iter().map(|entry| entry["logit"].as_f64().unwrap()).collect()
    }

    /// Regression: backends without logits refused every request for `/v1/ranking`, because it asked them for logits.
    #[test]
    fn logits_are_computed_from_probabilities_and_raw_scores_stay() {
        assert_eq!(logits("", &[0.5, 0.75]), [3.0_f64.ln(), 0.0]);
        assert_eq!(logits("", &[0.0, 1.0]), [100.0, -100.0]);
        assert_eq!(logits(r#","raw_scores":true"#, &[0.5, 0.75]), [0.75, 0.5]);
        assert_eq!(logits("", &[-0.5, 0.75]), [0.75, -0.5], "a model whose scores are given as they are");
    }
}
