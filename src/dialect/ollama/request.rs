//! A request between the dialects, and its form for a worker.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::super::fields::FieldError;
use super::keep_alive::KeepAlive;

/// The path of chats at a worker.
pub(super) const CHAT_COMPLETIONS: &str = "/v1/chat/completions";

/// The path of completions at a worker.
pub(super) const COMPLETIONS: &str = "/v1/completions";

/// The path at a llama-server of what stands between two texts.
pub(super) const INFILL: &str = "/infill";

/// Which of Ollama's answers the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OllamaForm {
    /// Lines with a `message`.
    Chat,
    /// Lines with a `response`.
    Generate,
}

/// What a request asks for.
#[derive(Debug)]
pub enum OllamaTask {
    /// To load the model, or to unload it if `keep_alive` is 0: a request without a prompt or messages.
    Load,
    /// To generate text, by a call to this path of a worker.
    Generate {
        /// The path at a worker.
        path: &'static str,
        /// The members of the call, without `model` and `stream`.
        members: Members,
    },
}

/// A request in Ollama's dialect.
#[derive(Debug)]
pub struct OllamaRequest {
    /// The model that the request names.
    pub model: Option<String>,
    /// Which answer the client reads.
    pub form: OllamaForm,
    /// Whether the answer is a stream, as it is by default.
    pub is_stream: bool,
    /// How long the model is to stay loaded after the request, if it says so.
    pub keep_alive: Option<KeepAlive>,
    /// What the request asks for.
    pub task: OllamaTask,
}

/// The members of the object that a worker is sent.
#[derive(Debug, Default)]
pub struct Members(Vec<(&'static str, Box<RawValue>)>);

impl Members {
    /// Adds a member.
    ///
    /// # Errors
    /// The value has no form in JSON.
    pub(super) fn add(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), FieldError> {
        let value = to_raw_value(value).map_err(|_| FieldError::of(name, "cannot be written as JSON"))?;
        self.add_raw(name, value);
        Ok(())
    }

    /// Adds a member whose value is JSON already.
    pub(super) fn add_raw(&mut self, name: &'static str, value: Box<RawValue>) {
        self.0.push((name, value));
    }
}

impl OllamaRequest {
    /// Returns the path at a worker and the body of the call; `None` if the model is only to be loaded or unloaded.
    pub fn body(&self, model: &str) -> Option<(&'static str, Vec<u8>)> {
        let OllamaTask::Generate { path, members } = &self.task else { return None };
        let mut body = format!("{{\"model\":{},\"stream\":{}", serde_json::Value::from(model), self.is_stream);
        if self.is_stream && *path != INFILL {
            body += ",\"stream_options\":{\"include_usage\":true}";
        }
        for (name, value) in &members.0 {
            body += &format!(",\"{name}\":{}", value.get());
        }
        body.push('}');
        Some((path, body.into_bytes()))
    }
}
