//! The request for one token, and the exact ratio of the probabilities of two.
//!
//! Both words get the same large bias, which keeps their ratio and leaves nothing to other words.

use serde::{Deserialize, Serialize};

use super::question::{TEMPLATE_END, TEMPLATE_START};
use crate::dialect::rerank::answer::{ScoreError, json};

/// The path of the route by which llama-server is asked.
pub const COMPLETION_PATH: &str = "/completion";

/// Added to the logits of both words. Those of other words are never so much larger; a larger bias would cost digits.
const BIAS: f32 = 100.0;

/// The largest logit that is given, and as a negative number the smallest: a probability may be rounded to 0.
const MOST_LOGIT: f64 = 100.0;

/// The tokens of the two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YesNoWords {
    /// The token of "yes".
    pub yes: u32,
    /// The token of "no".
    pub no: u32,
}

/// What llama-server answered for one document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WordScore {
    /// The logarithm of how much likelier "yes" is than "no".
    pub logit: f64,
    /// Tokens of the prompt, if it says.
    pub prompt_tokens: Option<u64>,
}

/// A part of a prompt: llama-server takes texts and tokens mixed.
#[derive(Serialize)]
#[serde(untagged)]
enum PromptPart {
    Text(&'static str),
    Token(u32),
}

/// A request for a completion of one token. The samplers of a llama-server's own arguments are left out.
#[derive(Serialize)]
struct Body {
    prompt: Vec<PromptPart>,
    n_predict: u32,
    n_probs: u32,
    post_sampling_probs: bool,
    logit_bias: [(u32, f32); 2],
    samplers: [&'static str; 0],
    mirostat: u32,
    cache_prompt: bool,
    response_fields: [&'static str; 4],
}

/// Writes the request for the score of one document, whose question has these tokens.
pub fn write_request(question: &[u32], words: YesNoWords) -> Vec<u8> {
    let mut prompt = Vec::with_capacity(question.len() + 2);
    prompt.push(PromptPart::Text(TEMPLATE_START));
    prompt.extend(question.iter().map(|token| PromptPart::Token(*token)));
    prompt.push(PromptPart::Text(TEMPLATE_END));
    json(&Body {
        prompt,
        n_predict: 1,
        n_probs: 2,
        post_sampling_probs: true,
        logit_bias: [(words.yes, BIAS), (words.no, BIAS)],
        samplers: [],
        mirostat: 0,
        // Up to the document, the prompts of a request are the same.
        cache_prompt: true,
        response_fields: ["completion_probabilities", "tokens_evaluated", "tokens_predicted", "timings"],
    })
}

#[derive(Deserialize)]
struct Answer {
    completion_probabilities: Vec<Position>,
    tokens_evaluated: Option<u64>,
}

#[derive(Deserialize)]
struct Position {
    top_probs: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    id: u32,
    prob: f64,
}

/// Reads llama-server's answer for one document.
///
/// # Errors
/// It does not hold the probabilities of both words.
pub fn read_score(body: &[u8], words: YesNoWords) -> Result<WordScore, ScoreError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| ScoreError::Unreadable(error.to_string()))?;
    let first = answer.completion_probabilities.first();
    let of = |id: u32| {
        let word = first.and_then(|first| first.top_probs.iter().find(|word| word.id == id));
        let probability = word.map(|word| word.prob).filter(|probability| (0.0..=1.0).contains(probability));
        probability.ok_or_else(|| ScoreError::Unreadable(format!("no probability of the token {id}")))
    };
    let (yes, no) = (of(words.yes)?, of(words.no)?);
    if yes + no == 0.0 {
        return Err(ScoreError::Unreadable("neither answer has a probability".to_owned()));
    }
    let logit = (yes.ln() - no.ln()).clamp(-MOST_LOGIT, MOST_LOGIT);
    Ok(WordScore { logit, prompt_tokens: answer.tokens_evaluated })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const WORDS: YesNoWords = YesNoWords { yes: 9693, no: 2152 };

    fn answer(words: &[(u32, f64)]) -> Vec<u8> {
        let words: Vec<Value> = words.iter().map(|(id, prob)| json!({"id": id, "token": "x", "prob": prob})).collect();
        json!({"completion_probabilities": [{"id": 1, "top_probs": words}], "tokens_evaluated": 87}).to_string().into()
    }

    #[test]
    fn the_words_of_the_answer_have_the_same_bias_and_no_sampler_changes_their_ratio() {
        let body: Value = serde_json::from_slice(&write_request(&[7, 8], WORDS)).unwrap();
        assert_eq!(body["prompt"], json!([TEMPLATE_START, 7, 8, TEMPLATE_END]));
        assert_eq!(body["logit_bias"], json!([[9693, 100.0], [2152, 100.0]]));
        let rest = ["n_predict", "n_probs", "post_sampling_probs", "samplers", "mirostat", "cache_prompt"];
        assert_eq!(
            rest.map(|name| body[name].clone()),
            [json!(1), json!(2), json!(true), json!([]), json!(0), json!(true)]
        );
    }

    #[test]
    fn the_logit_is_the_logarithm_of_the_ratio_in_either_order() {
        let logit = |words: &[(u32, f64)]| read_score(&answer(words), WORDS).unwrap().logit;
        assert_eq!(logit(&[(9693, 0.5), (2152, 0.5)]), 0.0);
        assert!((logit(&[(9693, 0.75), (2152, 0.25)]) - 3_f64.ln()).abs() < 1e-12);
        assert!((logit(&[(2152, 0.75), (9693, 0.25)]) + 3_f64.ln()).abs() < 1e-12);
        assert_eq!((logit(&[(9693, 1.0), (2152, 0.0)]), logit(&[(9693, 0.0), (2152, 1.0)])), (MOST_LOGIT, -MOST_LOGIT));
        assert_eq!(read_score(&answer(&[(9693, 0.5), (2152, 0.5)]), WORDS).unwrap().prompt_tokens, Some(87));
    }

    #[test]
    fn an_answer_without_both_words_is_an_error() {
        for body in [
            answer(&[(9693, 0.5)]),
            answer(&[(9693, 0.5), (7, 0.5)]),
            answer(&[(9693, 0.0), (2152, 0.0)]),
            answer(&[(9693, -0.5), (2152, 1.5)]),
            b"{}".to_vec(),
            br#"{"completion_probabilities":[]}"#.to_vec(),
            br#"{"content":"yes"}"#.to_vec(),
            b"".to_vec(),
        ] {
            assert!(matches!(read_score(&body, WORDS), Err(ScoreError::Unreadable(_))), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_two_probabilities_give_a_finite_logit(yes in 0.0_f64..=1.0, no in 0.0_f64..=1.0) {
            let score = read_score(&answer(&[(WORDS.yes, yes), (WORDS.no, no)]), WORDS);
            prop_assert!(score.is_ok_and(|score| score.logit.is_finite()) || yes + no == 0.0);
        }
    }
}
