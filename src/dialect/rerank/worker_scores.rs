//! Answers of workers: one reader for all dialects, since they differ only in names.

use serde::Deserialize;

use super::answer::ScoreError;
use crate::dialect::fields::Fields;

/// What a worker answered.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerScores {
    /// One score for each document, in the order in which they were sent.
    pub scores: Vec<f64>,
    /// Tokens that it read, if it says.
    pub prompt_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Entry {
    index: usize,
    relevance_score: Option<f64>,
    score: Option<f64>,
}

/// Reads the answer of a worker that was sent this many documents: an array, or an object with `results` or `data`, of
/// entries with `relevance_score` or `score`, in any order.
///
/// # Errors
/// It is no such thing, or there is not one finite score for each document.
pub fn read_answer(body: &[u8], documents: usize) -> Result<WorkerScores, ScoreError> {
    let unreadable = |error: serde_json::Error| ScoreError::Unreadable(error.to_string());
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let (entries, prompt_tokens): (Vec<Entry>, Option<u64>) = if first == Some(&b'[') {
        (serde_json::from_slice(body).map_err(unreadable)?, None)
    } else {
        let fields = Fields::parse(body).map_err(|error| ScoreError::Unreadable(error.message))?;
        let Some(list) = fields.get("results").or_else(|| fields.get("data")) else {
            return Err(ScoreError::Unreadable("neither results nor data".to_owned()));
        };
        (serde_json::from_str(list.get()).map_err(unreadable)?, read_tokens(&fields))
    };
    let mut scores: Vec<Option<f64>> = vec![None; documents];
    for entry in entries {
        let index = entry.index;
        let place = scores.get_mut(index).ok_or(ScoreError::NotSent { index, documents })?;
        if place.is_some() {
            return Err(ScoreError::Repeated(index));
        }
        let score = entry.relevance_score.or(entry.score).filter(|score| score.is_finite());
        *place = Some(score.ok_or(ScoreError::NotFinite(index))?);
    }
    let numbered = scores.into_iter().enumerate();
    let scores = numbered.map(|(at, score)| score.ok_or(ScoreError::Missing(at))).collect::<Result<_, _>>()?;
    Ok(WorkerScores { scores, prompt_tokens })
}

/// Reads the tokens from `usage`, or from Cohere's `meta`. What cannot be read counts as not said, since a count is not
/// worth an answer.
fn read_tokens(fields: &Fields<'_>) -> Option<u64> {
    let count = |fields: &Fields<'_>, name: &str| {
        fields.get(name).and_then(|value| serde_json::from_str::<f64>(value.get()).ok()).and_then(whole)
    };
    let within = |fields: &Fields<'_>, name: &str, names: &[&str]| {
        let inner = Fields::within(name, fields.get(name)?).ok()?;
        names.iter().find_map(|name| count(&inner, name))
    };
    within(fields, "usage", &["prompt_tokens", "total_tokens", "input_tokens"]).or_else(|| {
        let meta = Fields::within("meta", fields.get("meta")?).ok()?;
        within(&meta, "tokens", &["input_tokens"])
    })
}

/// Returns the count that a number is; some servers write counts with a point.
fn whole(number: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let count = (0.0..9e15).contains(&number).then_some(number as u64);
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_of_all_workers_are_read() {
        for (body, tokens) in [
            (
                r#"{"model":"m","object":"list","usage":{"prompt_tokens":7,"total_tokens":7},"results":
                [{"index":1,"relevance_score":-2.5},{"index":0,"relevance_score":3}]}"#,
                Some(7),
            ),
            (r#" [{"index":1,"score":-2.5,"text":"b"},{"index":0,"score":3.0}]"#, None),
            (
                r#"{"id":"x","results":[{"index":0,"relevance_score":3},{"index":1,"relevance_score":-2.5}],
                "meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1},"tokens":{"input_tokens":9.0}}}"#,
                Some(9),
            ),
            (
                r#"{"object":"list","data":[{"index":0,"relevance_score":3,"document":"a"},
                {"relevance_score":-2.5,"index":1}],"usage":{"total_tokens":26}}"#,
                Some(26),
            ),
            (r#"{"results":null,"data":[{"index":1,"score":-2.5},{"index":0,"score":3}],"usage":"none"}"#, None),
        ] {
            let expected = WorkerScores { scores: vec![3.0, -2.5], prompt_tokens: tokens };
            assert_eq!(read_answer(body.as_bytes(), 2), Ok(expected), "{body}");
        }
    }

    #[test]
    fn an_answer_without_one_number_for_each_document_is_an_error() {
        use ScoreError::{Missing, NotFinite, NotSent, Repeated};
        for (body, expected) in [
            (r#"[{"index":0,"score":1}]"#, Missing(1)),
            ("[]", Missing(0)),
            (r#"[{"index":1,"score":1},{"index":1,"score":2}]"#, Repeated(1)),
            (r#"[{"index":2,"score":1}]"#, NotSent { index: 2, documents: 2 }),
            (r#"[{"index":0,"score":null},{"index":1,"score":2}]"#, NotFinite(0)),
            (r#"[{"index":0},{"index":1,"score":2}]"#, NotFinite(0)),
        ] {
            assert_eq!(read_answer(body.as_bytes(), 2), Err(expected), "{body}");
        }
        for body in [
            "",
            "null",
            "{}",
            r#"{"error":{"message":"no"}}"#,
            r#"[{"index":0,"score":NaN},{"index":1,"score":2}]"#,
            r#"[{"index":0,"score":1e999},{"index":1,"score":2}]"#,
            r#"[{"index":-1,"score":1}]"#,
            r#"[{"score":1}]"#,
            r#"[{"index":0,"score":1}"#,
            "[0.5,0.7]",
        ] {
            assert!(matches!(read_answer(body.as_bytes(), 2), Err(ScoreError::Unreadable(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "[\\[{}\\]:,\"a-z0-9.e-]{0,80}".prop_map(String::into_bytes),
            ],
            documents in 0_usize..4,
        ) {
            if let Ok(read) = read_answer(&body, documents) {
                prop_assert_eq!(read.scores.len(), documents);
                prop_assert!(read.scores.iter().all(|score| score.is_finite()));
            }
        }
    }
}
