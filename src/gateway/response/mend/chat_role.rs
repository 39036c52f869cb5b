//! The `role` in the first chunk of each choice of a chat.
//!
//! Needed with llama-server b11669: it sends the role with the first token, and no chunk at all for a token that ends
//! within a character, such as the first of an emoji. The mend can go when
//! `mended_answers::an_emoji_at_the_beginning_takes_nothing_away` passes without it.

use memchr::{memchr, memmem};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::splice::{replaced, with_members, write_event};
use crate::gateway::bounds::{MAX_BUFFERED_EVENT, MOST_CHOICES};
use crate::gateway::response::stream::transform::{EventTransform, StreamEvent, TransformedStream};

/// The name of the member, which cannot occur like this within a JSON string.
const ROLE: &[u8] = b"\"role\":";

/// Gives the first chunk of each choice its role.
struct ChatRole {
    /// The number of choices that the client wants.
    choices: usize,
    /// The choices whose first chunk has passed.
    seen: Vec<u64>,
    /// Whether the stream is none of chunks.
    is_foreign: bool,
}

/// Returns what mends a stream of chunks that begins like this, if it may need that.
pub(super) fn of_stream(choices: usize, start: &[u8]) -> Option<TransformedStream> {
    let first = &start[..memchr(b'\n', start).unwrap_or(start.len())];
    let is_right = choices <= 1 && memmem::find(first, ROLE).is_some();
    let mend = ChatRole { choices: choices.clamp(1, MOST_CHOICES), seen: Vec::new(), is_foreign: false };
    // A first chunk that is longer than what is held of any event is none of llama-server's.
    (!is_right).then(|| TransformedStream::bounded(Box::new(mend), MAX_BUFFERED_EVENT))
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Vec<ChunkChoice<'a>>,
}

#[derive(Deserialize)]
struct ChunkChoice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    delta: &'a RawValue,
}

impl ChatRole {
    /// Returns the data with the roles that are missing; `None` if there are none.
    fn mended(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            self.is_foreign = true;
            return None;
        };
        let mut mended = None;
        // From the last to the first: a change moves what follows it.
        for ChunkChoice { index, delta } in chunk.choices.into_iter().rev() {
            if self.seen.len() >= MOST_CHOICES || self.seen.contains(&index) {
                continue;
            }
            self.seen.push(index);
            if memmem::find(delta.get().as_bytes(), ROLE).is_none() && mended.is_none() {
                let delta_with_role = with_members(delta.get(), &[("role", "\"assistant\"".to_owned())]);
                mended = Some(replaced(data, delta.get(), &delta_with_role));
            }
        }
        mended
    }
}

impl EventTransform for ChatRole {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>) {
        let mended = if event.data.is_empty() { None } else { self.mended(event.data) };
        match mended {
            Some(data) => write_event(event.name, &data, out),
            None => out.extend_from_slice(event.raw),
        }
    }

    fn is_done(&self) -> bool {
        self.is_foreign || self.seen.len() >= self.choices
    }
}
