//! What a request says about its answer, for the mends of that answer (`response/mend/`).

use std::borrow::Cow;

use super::body::RequestBody;
use super::body_view::gather;
use super::envelope::Envelope;
use crate::gateway::bounds::MEND_MEMBER;
use crate::gateway::routes::route::{Route, StreamEnd};

/// Members that limit the tokens of a response, the one that llama-server obeys first.
const LIMITS: [&str; 4] = ["n_predict", "max_completion_tokens", "max_output_tokens", "max_tokens"];

/// What a request says about its answer. Empty for routes whose answers need nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AnswerFacts {
    /// Whether the client asks for a stream.
    pub(crate) asks_for_stream: bool,
    /// The client's name of the model.
    pub(crate) model: String,
    /// Whether the client wants a completion with a suffix, which llama-server has as `/infill`.
    pub(crate) is_infill: bool,
    /// How many answers are wanted at once.
    pub(crate) choices: usize,
    /// Texts at which a message ends.
    pub(crate) stop_sequences: Vec<String>,
    /// The most tokens that a response may have.
    pub(crate) max_output_tokens: Option<u64>,
}

impl AnswerFacts {
    /// Reads a request of this route for the model that its client calls `model`. `defaults` are the names and JSON values
    /// of the members that it gets where it lacks them.
    pub(super) fn read<'a>(
        route: &Route,
        envelope: &Envelope,
        body: &RequestBody,
        model: &str,
        defaults: impl Iterator<Item = &'a (String, String)>,
    ) -> Self {
        let value = |name| value_of(envelope, body, name);
        let facts = Self { asks_for_stream: envelope.stream() == Some(true), ..Self::default() };
        if route.at_llama_server().is_some() {
            return Self { model: model.to_owned(), is_infill: true, ..facts };
        }
        match route.stream_end {
            StreamEnd::MessageStop => {
                let stop_sequences = value("stop_sequences").and_then(|list| serde_json::from_slice(&list).ok());
                Self { model: model.to_owned(), stop_sequences: stop_sequences.unwrap_or_default(), ..facts }
            }
            StreamEnd::ResponseDone => {
                let number = |text: Cow<'_, [u8]>| serde_json::from_slice::<u64>(&text).ok();
                let asked = LIMITS.iter().find_map(|name| value(name)).map(Cow::Owned);
                let mut limits = defaults.filter(|(name, _)| LIMITS.contains(&name.as_str()));
                let default = limits.next().map(|(_, value)| Cow::Borrowed(value.as_bytes()));
                let limit = asked.or(default).and_then(number);
                Self { model: model.to_owned(), max_output_tokens: limit.filter(|limit| *limit > 0), ..facts }
            }
            StreamEnd::Done => Self { choices: envelope.answers_wanted(body).unwrap_or(1), ..facts },
            StreamEnd::Unmarked => facts,
        }
    }
}

/// Returns the value of a member as JSON; `None` if it is missing, `null`, or too long to be read here.
fn value_of(envelope: &Envelope, body: &RequestBody, name: &str) -> Option<Vec<u8>> {
    let member = envelope.members.iter().rfind(|member| member.is_named(name) && !member.is_null())?;
    (member.value.len() <= MEND_MEMBER).then(|| gather(body, member.value.clone()))
}
