//! The numbers in the events of a response, its beginning, and its last event if it was cut.
//!
//! Needed with llama-server b11669: its events have no `sequence_number`, `output_index` and `content_index`, its
//! `response.created` has no `output`, `model` and `created_at`. The beginning is missing where nothing but a part of a
//! character was generated, and comes again with every token where the first one was part of a character.
//! A stream whose first event has a `sequence_number` is right, and the mend can go when llama-server's has one
//! (`mended_answers::the_events_of_a_response_are_whole`).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::response_end;
use super::splice::{replaced, with_members, write_event};
use crate::gateway::bounds::MOST_OUTPUT_ITEMS;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::request::rewrite::json_string;
use crate::gateway::response::stream::transform::{EventTransform, StreamEvent};

/// Numbers the events of one response.
pub(super) struct ResponseEvents {
    facts: AnswerFacts,
    /// When the response began, in seconds since 1970.
    created_at: i64,
    /// The number of the next event.
    sequence_number: u64,
    /// The ids of the output items, in the order in which they began.
    items: Vec<String>,
    /// Whether the response has begun.
    has_begun: bool,
    /// Whether `response.created`, and `response.in_progress`, have passed.
    has_passed: [bool; 2],
    /// The id of the response, if its beginning was made here.
    made_id: Option<String>,
    /// Whether the stream needs no mend.
    is_right: bool,
}

/// The events at the beginning of a response.
const BEGINNING: [&str; 2] = ["response.created", "response.in_progress"];

/// The members of an event that tell what it needs.
#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    sequence_number: Option<IgnoredAny>,
    #[serde(borrow, default)]
    item_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ItemId<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl ResponseEvents {
    pub(super) fn new(facts: AnswerFacts) -> Self {
        Self {
            facts,
            created_at: jiff::Timestamp::now().as_second(),
            sequence_number: 0,
            items: Vec::new(),
            has_begun: false,
            has_passed: [false; 2],
            made_id: None,
            is_right: false,
        }
    }

    /// Returns the position of an item in the output, and whether it is new.
    fn position(&mut self, id: &str) -> (usize, bool) {
        if let Some(at) = self.items.iter().position(|known| known == id) {
            return (at, false);
        }
        if self.items.len() < MOST_OUTPUT_ITEMS {
            self.items.push(id.to_owned());
        }
        (self.items.len() - 1, true)
    }

    fn next_number(&mut self) -> String {
        let number = self.sequence_number;
        self.sequence_number += 1;
        number.to_string()
    }

    /// Writes an event that llama-server has left out.
    fn write_made(&mut self, kind: &str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.sequence_number);
        self.sequence_number += 1;
        write_event(Some(kind), data.to_string().as_bytes(), out);
    }

    /// Writes the beginning of a response without one.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let id = format!("resp_{}", uuid::Uuid::now_v7().simple());
        let begun = json!({"id": id, "object": "response", "status": "in_progress"}).to_string();
        let response: Value = serde_json::from_str(&self.whole_response(&begun)).unwrap_or_default();
        self.made_id = Some(id);
        for kind in BEGINNING {
            self.write_made(kind, json!({"response": response}), out);
        }
        self.has_passed = [true; 2];
    }

    /// Returns a response with the members that clients read of every one.
    fn whole_response(&self, response: &str) -> String {
        let null = || "null".to_owned();
        with_members(
            response,
            &[
                ("created_at", self.created_at.to_string()),
                ("model", json_string(&self.facts.model)),
                ("output", "[]".to_owned()),
                ("error", null()),
                ("incomplete_details", null()),
            ],
        )
    }

    /// Writes the beginning of a message of which only the end has arrived, with its text.
    fn begin_message(&mut self, id: &str, at: usize, text: &str, out: &mut Vec<u8>) {
        let item = json!({"id": id, "type": "message", "role": "assistant", "status": "in_progress", "content": []});
        self.write_made("response.output_item.added", json!({"output_index": at, "item": item}), out);
        let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
        let place = json!({"item_id": id, "output_index": at, "content_index": 0});
        let with = |name: &str, value: Value| {
            let mut data = place.clone();
            data[name] = value;
            data
        };
        self.write_made("response.content_part.added", with("part", part), out);
        let mut delta = with("delta", json!(text));
        delta["logprobs"] = json!([]);
        self.write_made("response.output_text.delta", delta, out);
    }

    /// Writes the last event of a response.
    fn write_end(&mut self, data: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut data: Value = serde_json::from_slice(data).ok()?;
        let response = data.get_mut("response")?;
        let is_cut = self.facts.max_output_tokens.is_some_and(|limit| response_end::mark_if_cut(response, limit));
        let whole = self.whole_response(&response.to_string());
        *response = serde_json::from_str(&whole).ok()?;
        if let Some(id) = &self.made_id {
            response["id"] = json!(id);
        }
        let kind = if is_cut { "response.incomplete" } else { data["type"].as_str()? }.to_owned();
        self.write_made(&kind, data, out);
        Some(())
    }

    /// Writes an event of an item, or of a response that goes on.
    fn write_numbered(&mut self, name: Option<&str>, data: &[u8], event: &EventData<'_>, out: &mut Vec<u8>) {
        let id = match (&event.item_id, event.item) {
            (Some(id), _) => Some(id.clone().into_owned()),
            (None, Some(item)) => serde_json::from_str::<ItemId<'_>>(item.get()).ok().map(|item| item.id.into_owned()),
            (None, None) => None,
        };
        let mut members = Vec::new();
        if let Some(id) = id {
            let (at, is_new) = self.position(&id);
            match (&*event.kind, event.item, &event.text) {
                ("response.output_text.done", _, Some(text)) if is_new => self.begin_message(&id, at, text, out),
                ("response.output_item.done", Some(item), _) if is_new => {
                    let item: Value = serde_json::from_str(item.get()).unwrap_or_default();
                    self.write_made("response.output_item.added", json!({"output_index": at, "item": item}), out);
                }
                _ => {}
            }
            members.push(("output_index", at.to_string()));
        }
        let is_text = event.kind.starts_with("response.output_text.");
        // llama-server's items have one part.
        if is_text
            || event.kind.starts_with("response.content_part.")
            || event.kind.starts_with("response.reasoning_text.")
        {
            members.push(("content_index", "0".to_owned()));
        }
        if is_text {
            members.push(("logprobs", "[]".to_owned()));
        }
        members.push(("sequence_number", self.next_number()));
        let data = match event.response {
            Some(response) => Cow::Owned(replaced(data, response.get(), &self.whole_response(response.get()))),
            None => Cow::Borrowed(data),
        };
        let text = String::from_utf8_lossy(&data);
        write_event(name, with_members(&text, &members).as_bytes(), out);
    }
}

impl EventTransform for ResponseEvents {
    fn event(&mut self, event: StreamEvent<'_>, out: &mut Vec<u8>) {
        let StreamEvent { name, data, raw } = event;
        let Ok(read) = serde_json::from_slice::<EventData<'_>>(data) else { return out.extend_from_slice(raw) };
        if !self.has_begun {
            self.has_begun = true;
            self.is_right = read.sequence_number.is_some() || !read.kind.starts_with("response.");
            if self.is_right {
                return out.extend_from_slice(raw);
            }
            if read.kind != "response.created" {
                self.begin(out);
            }
        }
        let beginning = BEGINNING.iter().position(|kind| *kind == read.kind);
        if beginning.is_some_and(|at| std::mem::replace(&mut self.has_passed[at], true)) {
            return;
        }
        match &*read.kind {
            "response.completed" if self.write_end(data, out).is_some() => {}
            kind if kind.starts_with("response.") => self.write_numbered(name, data, &read, out),
            _ => out.extend_from_slice(raw),
        }
    }

    fn is_done(&self) -> bool {
        self.is_right
    }
}
