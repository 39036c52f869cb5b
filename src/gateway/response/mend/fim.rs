//! The answers of llama-server's `/infill`, as clients of `/v1/fim/completions` (Mistral's API) read them: those of a chat, with
//! the `text` of a completion beside it.
//!
//! Needed with every llama-server, b11669 included: it has no such route.

use serde::Deserialize;
use serde_json::{Value, json};

use super::splice::write_event;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::response::stream::transform::{EventTransform, StreamEvent, TransformedStream};
use crate::gateway::routes::route::{Route, StreamEnd};

/// An answer of `/infill`, or an event of one.
#[derive(Deserialize)]
struct Infill {
    content: String,
    #[serde(default)]
    stop: bool,
    #[serde(default)]
    stop_type: String,
    #[serde(default)]
    tokens_evaluated: u64,
    #[serde(default)]
    tokens_predicted: u64,
}

impl Infill {
    /// Returns why the answer ended; `null` while it goes on.
    fn finish_reason(&self) -> Value {
        match (self.stop, &*self.stop_type) {
            (false, _) => Value::Null,
            (true, "limit") => json!("length"),
            (true, _) => json!("stop"),
        }
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.tokens_evaluated,
            "completion_tokens": self.tokens_predicted,
            "total_tokens": self.tokens_evaluated + self.tokens_predicted,
        })
    }
}

/// What all chunks of an answer, or the whole of it, begin with.
fn beginning(object: &str, model: &str) -> Value {
    let id = format!("fim-{}", uuid::Uuid::now_v7().simple());
    json!({"id": id, "object": object, "created": jiff::Timestamp::now().as_second(), "model": model})
}

/// Writes the events of a stream as chunks.
struct InfillEvents {
    /// What all chunks have.
    beginning: Value,
    has_stopped: bool,
}

/// Returns what makes chunks of a stream of `/infill`; `None` for a worker that has the client's own route.
pub(super) fn of_stream(route: &Route, facts: AnswerFacts) -> Option<TransformedStream> {
    let beginning = beginning("chat.completion.chunk", &facts.model);
    let events = InfillEvents { beginning, has_stopped: false };
    (route.stream_end == StreamEnd::Unmarked).then(|| TransformedStream::new(Box::new(events)))
}

impl EventTransform for InfillEvents {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>) {
        // An error, or a comment.
        let Ok(infill) = serde_json::from_slice::<Infill>(event.data) else { return out.extend_from_slice(event.raw) };
        let mut chunk = self.beginning.clone();
        chunk["choices"] = json!([{
            "index": 0,
            "delta": {"role": "assistant", "content": infill.content},
            "text": infill.content,
            "finish_reason": infill.finish_reason(),
        }]);
        if infill.stop {
            self.has_stopped = true;
            chunk["usage"] = infill.usage();
        }
        write_event(None, chunk.to_string().as_bytes(), out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.has_stopped {
            write_event(None, b"[DONE]", out);
        }
    }
}

/// Returns a whole answer of `/infill` to the client of the model with this name; `None` if it is none.
pub(super) fn of_answer(answer: &[u8], model: &str) -> Option<Vec<u8>> {
    let infill: Infill = serde_json::from_slice(answer).ok()?;
    let mut whole = beginning("chat.completion", model);
    whole["choices"] = json!([{
        "index": 0,
        "message": {"role": "assistant", "content": infill.content},
        "text": infill.content,
        "finish_reason": infill.finish_reason(),
    }]);
    whole["usage"] = infill.usage();
    Some(whole.to_string().into_bytes())
}
