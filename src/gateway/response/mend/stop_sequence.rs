//! The reason of a message that ended at one of the request's stop sequences.
//!
//! Needed with llama-server b11669: it names the sequence, and gives `end_turn` as the reason where Anthropic's API gives
//! `stop_sequence`. A sequence that the request does not name is one of the chat template, and ends the turn. The mend can
//! go when `mended_answers::a_message_that_ends_at_a_stop_sequence_says_so` passes without it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::splice::replaced;

/// The end of a message, which a whole message has at its top.
#[derive(Deserialize)]
struct MessageEnd<'a> {
    #[serde(borrow)]
    stop_reason: &'a RawValue,
    #[serde(borrow)]
    stop_sequence: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MessageDelta<'a> {
    #[serde(borrow)]
    delta: MessageEnd<'a>,
}

impl MessageEnd<'_> {
    fn mended(&self, whole: &[u8], stop_sequences: &[String]) -> Option<Vec<u8>> {
        let is_wrong =
            self.stop_reason.get() == "\"end_turn\"" && stop_sequences.iter().any(|one| *one == self.stop_sequence);
        is_wrong.then(|| replaced(whole, self.stop_reason.get(), "\"stop_sequence\""))
    }
}

/// Returns these data of a `message_delta` with the right reason; `None` if they have it.
pub(super) fn of_event(data: &[u8], stop_sequences: &[String]) -> Option<Vec<u8>> {
    serde_json::from_slice::<MessageDelta<'_>>(data).ok()?.delta.mended(data, stop_sequences)
}

/// Returns this message with the right reason; `None` if it has it.
pub(super) fn of_message(message: &[u8], stop_sequences: &[String]) -> Option<Vec<u8>> {
    serde_json::from_slice::<MessageEnd<'_>>(message).ok()?.mended(message, stop_sequences)
}
