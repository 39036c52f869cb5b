//! Puts the calls of tools together: OpenAI's streams have them in parts, Ollama's clients read each as a whole.

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::bounds::{MOST_TOOL_CALLS, TOOL_CALL_BYTES};
use super::worker_answer::CallPart;

/// A call of a tool as Ollama's clients read it.
#[derive(Debug, Serialize)]
pub(super) struct ToolCall<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    function: CalledFunction<'a>,
}

#[derive(Debug, Serialize)]
struct CalledFunction<'a> {
    index: usize,
    name: &'a str,
    arguments: &'a RawValue,
}

/// The calls of one answer, as far as they have arrived.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: Vec<HeldCall>,
    /// Bytes that are held.
    length: usize,
}

#[derive(Debug, Default)]
struct HeldCall {
    /// The number that the worker gives the call.
    index: u64,
    id: String,
    name: String,
    arguments: String,
}

impl ToolCalls {
    /// Adds parts of calls.
    ///
    /// # Errors
    /// There are more than [`MOST_TOOL_CALLS`], or they take more than [`TOOL_CALL_BYTES`].
    pub(super) fn add(&mut self, parts: &[CallPart<'_>]) -> Result<(), &'static str> {
        for (at, part) in parts.iter().enumerate() {
            let index = part.index.unwrap_or(at as u64);
            let known = self.calls.iter().position(|call| call.index == index);
            if known.is_none() {
                if self.calls.len() == MOST_TOOL_CALLS {
                    return Err("the model calls too many tools at once");
                }
                self.calls.push(HeldCall { index, ..HeldCall::default() });
            }
            let at = known.unwrap_or(self.calls.len() - 1);
            let call = &mut self.calls[at];
            let function = part.function.as_ref();
            let name = function.and_then(|function| function.name.as_deref()).unwrap_or_default();
            let arguments = function.and_then(|function| function.arguments.as_deref()).unwrap_or_default();
            let id = part.id.as_deref().unwrap_or_default();
            self.length += name.len() + arguments.len() + id.len();
            if self.length > TOOL_CALL_BYTES {
                return Err("the calls of tools are too long");
            }
            // Some servers repeat id and name in each part.
            if call.id.is_empty() {
                call.id.push_str(id);
            }
            if call.name.is_empty() {
                call.name.push_str(name);
            }
            call.arguments.push_str(arguments);
        }
        Ok(())
    }

    /// Returns the calls. One that was cut because the answer reached its length is left out.
    ///
    /// # Errors
    /// The arguments of another are no JSON object.
    pub(super) fn whole(&self, is_cut: bool) -> Result<Vec<ToolCall<'_>>, &'static str> {
        let mut whole = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let text = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
            match serde_json::from_str::<&RawValue>(text).ok().filter(|value| value.get().starts_with('{')) {
                Some(arguments) => {
                    let function = CalledFunction { index: whole.len(), name: &call.name, arguments };
                    whole.push(ToolCall { id: &call.id, function });
                }
                None if is_cut => {}
                None => return Err("the model calls a tool with arguments that are no JSON object"),
            }
        }
        Ok(whole)
    }
}
