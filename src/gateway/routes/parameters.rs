//! The table of parameters: members of a request for which the API of its route says which values they may have.
//!
//! Only for routes whose requests are passed on as they are. Requests in the dialects of rerankers, of embeddings and of
//! Ollama are read as a whole (`crate::dialect`), and so are their members. The values in a body are found by
//! `request/parameters.rs`; `parameters_reference.rs` writes the table as a page.

use std::fmt;

use super::table::FIM;
use ParameterApi::{Chat, Completions, Fim, Messages, Responses};
use ParameterRule::{Flag, List, Number, TextOrList, Tokens, Whole};

/// The most tokens of an answer: llama-server counts them in a signed 32-bit integer, and cuts larger numbers to that.
const MOST_TOKENS: i64 = i32::MAX as i64;

/// An API that says which values the parameters of its requests may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum ParameterApi {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// Mistral's completions with a suffix.
    Fim,
}

impl ParameterApi {
    /// Returns the API of the route with this path; `None` if it says nothing of parameters, as llama-server's own.
    pub(in crate::gateway) fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" | "/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completions),
            "/v1/responses" | "/responses" => Some(Self::Responses),
            "/v1/messages" => Some(Self::Messages),
            FIM => Some(Self::Fim),
            _ => None,
        }
    }
}

/// Which values a parameter may have. `null` counts as absent, and is always allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::gateway) enum ParameterRule {
    /// A number from the first to the second.
    Number(f64, f64),
    /// A whole number from the first to the second.
    Whole(i64, i64),
    /// A number of tokens of at least this. `-1` stands for no limit, as at llama-server and LM Studio.
    Tokens(i64),
    /// `true` or `false`.
    Flag,
    /// A string, or an array of strings. What is in the array is not looked at.
    TextOrList,
    /// An array of strings. What is in it is not looked at.
    List,
}

impl ParameterRule {
    /// Returns whether a value that begins with this byte is allowed. `number` returns the value as a number, if it is one;
    /// it is asked only if it may be.
    pub(in crate::gateway) fn allows(self, first: u8, number: impl FnOnce() -> Option<f64>) -> bool {
        let number = || if first == b'-' || first.is_ascii_digit() { number() } else { None };
        let is_whole_within = |number: f64, least: i64, most: i64| {
            number.fract() == 0.0 && (least as f64..=most as f64).contains(&number)
        };
        match self {
            Self::Number(least, most) => number().is_some_and(|number| (least..=most).contains(&number)),
            Self::Whole(least, most) => number().is_some_and(|number| is_whole_within(number, least, most)),
            Self::Tokens(least) => {
                let is_allowed = |number: f64| number == -1.0 || is_whole_within(number, least, MOST_TOKENS);
                number().is_some_and(is_allowed)
            }
            Self::Flag => matches!(first, b't' | b'f'),
            Self::TextOrList => matches!(first, b'"' | b'['),
            Self::List => first == b'[',
        }
    }
}

/// Writes what a value must be, to follow "must be".
impl fmt::Display for ParameterRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Number(least, most) => write!(f, "a number between {least} and {most}"),
            Self::Whole(i64::MIN, i64::MAX) => f.write_str("a whole number"),
            Self::Whole(least, i64::MAX) => write!(f, "a whole number of at least {least}"),
            Self::Whole(least, most) => write!(f, "a whole number between {least} and {most}"),
            Self::Tokens(least) => {
                write!(f, "a whole number between {least} and {MOST_TOKENS}, or -1 for no limit")
            }
            Self::Flag => f.write_str("true or false"),
            Self::TextOrList => f.write_str("a string or an array of strings"),
            Self::List => f.write_str("an array of strings"),
        }
    }
}

/// One row of the table of parameters.
#[derive(Debug)]
pub(in crate::gateway) struct Parameter {
    /// The name of the member.
    pub(in crate::gateway) name: &'static str,
    /// The APIs that have it with this rule.
    pub(in crate::gateway) apis: &'static [ParameterApi],
    pub(in crate::gateway) rule: ParameterRule,
    /// What llama-server does with other values, for the page.
    pub(in crate::gateway) at_llama_server: &'static str,
}

const fn parameter(
    name: &'static str,
    apis: &'static [ParameterApi],
    rule: ParameterRule,
    at_llama_server: &'static str,
) -> Parameter {
    Parameter { name, apis, rule, at_llama_server }
}

const OPENAI: &[ParameterApi] = &[Chat, Completions, Responses];
const OPENAI_COMPLETIONS: &[ParameterApi] = &[Chat, Completions];
const ANY_NUMBER: &str = "takes any number, and `true` as 1";
const TOKENS: &str = "cuts fractions, and larger numbers to 32 bits; refuses numbers below -1; gives one token for 0";

/// Every parameter whose values are checked. A name has one row for each rule; they stand together.
pub(in crate::gateway) const PARAMETERS: &[Parameter] = &[
    parameter("temperature", OPENAI, Number(0.0, 2.0), ANY_NUMBER),
    parameter("temperature", &[Messages], Number(0.0, 1.0), ANY_NUMBER),
    parameter("temperature", &[Fim], Number(0.0, 1.5), ANY_NUMBER),
    parameter("top_p", &[Chat, Completions, Responses, Messages, Fim], Number(0.0, 1.0), ANY_NUMBER),
    parameter("top_k", &[Messages], Whole(0, i64::MAX), ANY_NUMBER),
    parameter(
        "n",
        OPENAI_COMPLETIONS,
        Whole(1, 128),
        "cuts fractions; refuses numbers below 1 or above its slots, which the gateway refuses with the name of the setting",
    ),
    parameter("presence_penalty", OPENAI_COMPLETIONS, Number(-2.0, 2.0), ANY_NUMBER),
    parameter("frequency_penalty", OPENAI_COMPLETIONS, Number(-2.0, 2.0), ANY_NUMBER),
    parameter("max_tokens", &[Chat], Tokens(1), TOKENS),
    parameter("max_tokens", &[Completions], Tokens(0), TOKENS),
    parameter("max_tokens", &[Messages, Fim], Whole(0, MOST_TOKENS), TOKENS),
    parameter("max_completion_tokens", &[Chat], Tokens(1), TOKENS),
    parameter("max_output_tokens", &[Responses], Tokens(1), TOKENS),
    parameter("min_tokens", &[Fim], Whole(0, MOST_TOKENS), "ignores it"),
    parameter("logprobs", &[Chat], Flag, "takes a number as that of `top_logprobs`"),
    parameter(
        "logprobs",
        &[Completions],
        Whole(0, i64::MAX),
        "takes any number; more than OpenAI's 5 are allowed, because llama-server and others give as many as are asked for",
    ),
    parameter("top_logprobs", &[Chat, Responses], Whole(0, 20), "takes any number, and ignores what is none"),
    parameter("seed", OPENAI_COMPLETIONS, Whole(i64::MIN, i64::MAX), ANY_NUMBER),
    parameter("random_seed", &[Fim], Whole(0, i64::MAX), ANY_NUMBER),
    parameter("stop", &[Chat, Completions, Fim], TextOrList, "ignores what is neither; takes more than OpenAI's 4"),
    parameter("stop_sequences", &[Messages], List, "takes a string too, and ignores what is neither"),
    parameter("stream", &[Chat, Completions, Responses, Messages, Fim], Flag, "refuses it"),
];

/// Number of buckets for the names. With these factors no two names share one, so that a member of any other name costs a
/// few instructions.
const BUCKETS: usize = 64;

const fn bucket_of(name: &[u8]) -> usize {
    match name {
        [] => 0,
        [.., last] => (name.len() * 3 + name[name.len() / 4] as usize * 2 + *last as usize * 5) % BUCKETS,
    }
}

/// The position of the first row of the name in each bucket; beyond the table where there is none.
static FIRST_ROWS: [usize; BUCKETS] = {
    let (mut rows, mut at) = ([PARAMETERS.len(); BUCKETS], PARAMETERS.len());
    while at > 0 {
        at -= 1;
        rows[bucket_of(PARAMETERS[at].name.as_bytes())] = at;
    }
    rows
};

/// Returns the row of this name for an API, and its position in the table.
pub(in crate::gateway) fn find(api: ParameterApi, name: &str) -> Option<(usize, &'static Parameter)> {
    let first = FIRST_ROWS[bucket_of(name.as_bytes())];
    let mut of_name = PARAMETERS.iter().enumerate().skip(first).take_while(|(_, row)| row.name == name);
    of_name.find(|(_, row)| row.apis.contains(&api))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::table::ROUTES;
    use super::*;

    #[test]
    fn each_api_has_a_route_and_each_name_one_rule_in_an_api() {
        let apis = [Chat, Completions, Responses, Messages, Fim];
        for api in apis {
            assert!(ROUTES.iter().any(|route| ParameterApi::of(route.path) == Some(api)), "{api:?}");
            let rows = || PARAMETERS.iter().filter(|row| row.apis.contains(&api));
            let names: BTreeSet<_> = rows().map(|row| row.name).collect();
            assert_eq!(rows().count(), names.len(), "{api:?}");
        }
        for route in ROUTES.iter().filter(|route| ParameterApi::of(route.path).is_some()) {
            assert!(route.may_stream && route.dialects.is_none(), "{} is passed on as it is", route.path);
        }
    }

    #[test]
    fn each_row_is_found_by_its_name_and_its_apis() {
        for (at, row) in PARAMETERS.iter().enumerate() {
            for api in row.apis {
                assert_eq!(find(*api, row.name).map(|(found, _)| found), Some(at), "{} {api:?}", row.name);
            }
        }
        for name in ["", "t", "model", "messages", "temperatures", "Temperature", "\u{7}", "min_p"] {
            assert!(find(Chat, name).is_none(), "{name}");
        }
    }

    #[test]
    fn routes_of_llama_server_itself_and_of_dialects_have_no_parameters_here() {
        for path in ["/completion", "/completions", "/infill", "/v1/embeddings", "/v1/rerank", "/api/chat"] {
            assert!(ROUTES.iter().any(|route| route.path == path), "{path}");
            assert_eq!(ParameterApi::of(path), None, "{path}");
        }
    }
}
