//! The `message_start` of a stream in Anthropic's API.
//!
//! Needed with llama-server b11669: it sends `message_start` with the first token, and nothing for a token that ends
//! within a character, such as the first of an emoji. The mend can go when
//! `mended_answers::an_emoji_at_the_beginning_takes_nothing_away` passes without it. The token counts in a start that
//! is made here are 0: nothing in the stream tells those of the prompt.

use serde_json::json;

use super::splice::write_event;
use super::stop_sequence;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::response::stream::transform::{EventTransform, StreamEvent, TransformedStream};

/// How a stream begins that has its start.
const START: &[u8] = b"event: message_start\n";

/// Gives a stream its start, and the reason for its end.
struct MessageEvents {
    facts: AnswerFacts,
    has_begun: bool,
}

/// Returns what mends a stream of a message that begins like this, if it may need that.
pub(super) fn of_stream(facts: AnswerFacts, start: &[u8]) -> Option<TransformedStream> {
    let has_begun = start.starts_with(START);
    let is_right = has_begun && facts.stop_sequences.is_empty();
    (!is_right).then(|| TransformedStream::new(Box::new(MessageEvents { facts, has_begun })))
}

impl MessageEvents {
    fn write_start(&self, out: &mut Vec<u8>) {
        let start = json!({
            "type": "message_start",
            "message": {
                "id": format!("msg_{}", uuid::Uuid::now_v7().simple()),
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": self.facts.model,
                "stop_reason": null,
                "stop_sequence": null,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            },
        });
        write_event(Some("message_start"), start.to_string().as_bytes(), out);
    }
}

impl EventTransform for MessageEvents {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>) {
        if !self.has_begun {
            match event.name {
                Some("ping") | None => {}
                Some("message_start" | "error") => self.has_begun = true,
                Some(_) => {
                    self.has_begun = true;
                    self.write_start(out);
                }
            }
        }
        let mended = match event.name {
            Some("message_delta") => stop_sequence::of_event(event.data, &self.facts.stop_sequences),
            _ => None,
        };
        match mended {
            Some(data) => write_event(event.name, &data, out),
            None => out.extend_from_slice(event.raw),
        }
    }

    fn is_done(&self) -> bool {
        self.has_begun && self.facts.stop_sequences.is_empty()
    }
}
