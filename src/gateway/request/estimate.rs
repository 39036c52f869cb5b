//! How many tokens a request may take at most, before it is sent: what is reserved of the budgets of its key.

use serde::Deserialize;

use super::body::RequestBody;
use super::body_view::number_in;
use super::envelope::Envelope;
use crate::gateway::bounds::DEFAULT_ANSWER_TOKENS;
use crate::gateway::routes::route::{DialectFamily, Route};

/// The members that limit the tokens of an answer, in the APIs of OpenAI, Anthropic and llama-server.
pub(crate) const ANSWER_LIMITS: [&str; 5] =
    ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "max_tokens_to_sample"];

/// Returns the most tokens that the answers to a request may have: none where nothing is generated. `default` is the
/// model's own limit, for a request without one.
pub(crate) fn answer_tokens(
    route: &Route,
    envelope: &Envelope,
    body: &RequestBody,
    default: impl FnOnce() -> Option<u64>,
) -> u64 {
    if !route.may_stream {
        return 0;
    }
    let number = |name: &str| {
        let number = number_in(body, &envelope.values(name).last()?)?;
        (number >= 0.0).then_some(number as u64)
    };
    // llama-server takes one of several; the largest is the safe one.
    let limit = ANSWER_LIMITS.iter().filter_map(|name| number(name)).max();
    let limit = limit.or_else(|| ollama_limit(route, envelope, body));
    let each = limit.or_else(default).unwrap_or(DEFAULT_ANSWER_TOKENS);
    let answers = number("n").or_else(|| number("best_of")).unwrap_or(1).max(1);
    each.saturating_mul(answers)
}

/// The limit among the `options` of Ollama's API. Less than 0 is no limit.
#[derive(Deserialize)]
struct OllamaOptions {
    num_predict: Option<i64>,
}

fn ollama_limit(route: &Route, envelope: &Envelope, body: &RequestBody) -> Option<u64> {
    let is_ollama = route.dialects == Some(DialectFamily::Ollama);
    let options = is_ollama.then(|| envelope.values("options").last()).flatten()?;
    let options: Vec<u8> = Envelope::pieces_of(body, options).flatten().collect();
    let OllamaOptions { num_predict } = serde_json::from_slice(&options).ok()?;
    u64::try_from(num_predict?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::lookup;

    fn tokens_at(path: &str, body: &str, default: Option<u64>) -> u64 {
        let route = lookup::find(&http::Method::POST, path).unwrap();
        let body = RequestBody::default().with_pieces([bytes::Bytes::from(body.to_owned())].into());
        answer_tokens(route, &Envelope::of(&body).unwrap(), &body, || default)
    }

    #[test]
    fn the_answer_is_bounded_by_what_the_request_says() {
        let tokens = |body: &str, default: Option<u64>| tokens_at("/v1/chat/completions", body, default);
        assert_eq!(tokens(r#"{"max_tokens":20}"#, Some(7)), 20);
        assert_eq!(tokens(r#"{"max_tokens":20,"n":3}"#, None), 60);
        assert_eq!(tokens(r#"{"max_completion_tokens":5,"max_tokens":8}"#, None), 8);
        assert_eq!(tokens("{}", Some(7)), 7);
        assert_eq!(tokens("{}", None), DEFAULT_ANSWER_TOKENS);
        assert_eq!(tokens(r#"{"n_predict":-1}"#, None), DEFAULT_ANSWER_TOKENS, "no limit is none");
        assert_eq!(tokens(r#"{"max_tokens":1e300,"n":1e300}"#, None), u64::MAX);
    }

    #[test]
    fn ollamas_limit_is_among_its_options() {
        let tokens = |body: &str| tokens_at("/api/chat", body, Some(7));
        assert_eq!(tokens(r#"{"options":{"temperature":0,"num_predict":20}}"#), 20);
        assert_eq!(tokens(r#"{"options":{"num_predict":-1}}"#), 7, "no limit is none");
        assert_eq!(tokens(r#"{"options":{"num_predict":"20"}}"#), 7, "what is refused later is none");
        assert_eq!(tokens_at("/v1/chat/completions", r#"{"options":{"num_predict":20}}"#, Some(7)), 7);
    }
}
