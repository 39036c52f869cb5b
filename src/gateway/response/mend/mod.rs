//! What the answers of llama-server lack, for clients that insist on it.
//!
//! Each file mends one fault, names the llama-server that has it, and says how to see that the mend can go. A stream tells
//! by its first event whether it needs its mend; one that does not is passed on as it is from there on. The streams of
//! remote backends and of commands are never changed here, but for their errors.
//! Errors that are whole answers are in `upstream/worker_error.rs`.
//!
//! - `chat_role.rs`: the `role` in the first chunk of a chat
//! - `error_event.rs`: an error within a stream of Anthropic's API
//! - `fim.rs`: the answers of `/infill`, as those of completions with a suffix
//! - `message.rs`: the `message_start` of a message, and the reason for its end
//! - `response_events.rs`: the numbers in the events of a response, and its beginning
//! - `response_end.rs`: a response that was cut at its limit of tokens
//! - `splice.rs`: changes of JSON that keep what they do not concern
//! - `stop_sequence.rs`: a message that ended at one of the request's stop sequences

mod chat_role;
mod error_event;
mod fim;
mod message;
mod response_end;
mod response_events;
mod splice;
mod stop_sequence;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

use super::stream::transform::TransformedStream;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::routes::route::{Route, StreamEnd};

/// The path of the chats whose first chunk has a role.
const CHAT: &str = "/v1/chat/completions";

/// Returns what mends the stream that begins with these pieces, if it may need that.
pub(super) fn of_stream(route: &Route, facts: AnswerFacts, ready: &VecDeque<Bytes>) -> Option<TransformedStream> {
    if facts.is_infill {
        return fim::of_stream(route, facts);
    }
    let start = ready.front().map_or(&[][..], |piece| piece);
    match route.stream_end {
        StreamEnd::Done if route.canonical == CHAT => chat_role::of_stream(facts.choices, start),
        StreamEnd::MessageStop => message::of_stream(facts, start),
        StreamEnd::ResponseDone => Some(TransformedStream::new(Box::new(response_events::ResponseEvents::new(facts)))),
        StreamEnd::Done | StreamEnd::Unmarked => None,
    }
}

/// Puts an error of llama-server that is among these whole events into Anthropic's shape.
pub(super) fn error_events(ready: &mut VecDeque<Bytes>) {
    let mut stream = TransformedStream::new(Box::new(error_event::ErrorEvents));
    stream.take(ready);
    stream.end(ready);
}

/// What mends a whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WholeMend {
    /// A message may have ended at one of these stop sequences.
    StopSequence(Vec<String>),
    /// A response may have been cut at this number of tokens.
    CutResponse(u64),
    /// A completion with a suffix, of the model with this name.
    Infill(String),
}

impl WholeMend {
    /// Returns what the successful answer to a request of this route may need, if it is one JSON value.
    pub(crate) fn of(route: &Route, facts: &AnswerFacts) -> Option<Self> {
        match route.stream_end {
            StreamEnd::MessageStop if !facts.stop_sequences.is_empty() => {
                Some(Self::StopSequence(facts.stop_sequences.clone()))
            }
            StreamEnd::ResponseDone => facts.max_output_tokens.map(Self::CutResponse),
            StreamEnd::Unmarked if facts.is_infill => Some(Self::Infill(facts.model.clone())),
            _ => None,
        }
    }

    /// Returns the answer that the client gets in place of this one; `None` if this one is right.
    pub(super) fn apply(&self, answer: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::StopSequence(stop_sequences) => stop_sequence::of_message(answer, stop_sequences),
            Self::CutResponse(limit) => response_end::of_response(answer, *limit),
            Self::Infill(model) => fim::of_answer(answer, model),
        }
    }
}
