//! Reads a request for `/api/generate`: a chat of one message, or with `raw` or `suffix` a completion of text.

use super::super::fields::{FieldError, Fields};
use super::messages::{self, ChatMessage};
use super::request::{CHAT_COMPLETIONS, COMPLETIONS, INFILL, Members, OllamaTask};
use super::{common, options};

/// Reads what a request asks for.
///
/// # Errors
/// It is none, or asks for something that is not served.
pub(super) fn parse(fields: &Fields<'_>) -> Result<OllamaTask, FieldError> {
    let text = |name: &str| fields.text(name).map(|text| text.filter(|text| !text.is_empty()));
    let (prompt, suffix, system, template) = (text("prompt")?, text("suffix")?, text("system")?, text("template")?);
    if template.is_some() {
        return Err(FieldError::of("template", "is not served here: the chat template of the model is used"));
    }
    if fields.list("context")?.is_some_and(|tokens| !tokens.is_empty()) {
        return Err(FieldError::of("context", "is not served here: send the messages so far to /api/chat"));
    }
    for name in ["width", "height", "steps"] {
        fields.refuse(name, "models that make pictures are not served")?;
    }
    let is_raw = fields.flag("raw")?.unwrap_or(false);
    let images = messages::images(fields, "images")?;
    let Some(prompt) = prompt.or_else(|| (suffix.is_some() || !images.is_empty()).then(Default::default)) else {
        return Ok(OllamaTask::Load);
    };
    if !is_raw && suffix.is_none() {
        let mut members = Members::default();
        let system = system.map(|text| ChatMessage::plain("system", text));
        let user = ChatMessage::with_images("user", prompt, images);
        members.add("messages", &system.into_iter().chain([user]).collect::<Vec<_>>())?;
        common::add_chat_members(fields, &mut members)?;
        options::add(fields, &mut members)?;
        return Ok(OllamaTask::Generate { path: CHAT_COMPLETIONS, members });
    }
    let without = if suffix.is_some() { "suffix" } else { "raw" };
    let refused = [("system", system.is_some()), ("images", !images.is_empty())];
    if let Some((name, _)) = refused.iter().find(|(_, is_there)| *is_there) {
        return Err(FieldError::of(name, format_args!("cannot stand beside {without}")));
    }
    if fields.flag("logprobs")? == Some(true) {
        return Err(FieldError::of("logprobs", format_args!("cannot stand beside {without}")));
    }
    let mut members = Members::default();
    let path = match &suffix {
        None => {
            members.add("prompt", &prompt)?;
            COMPLETIONS
        }
        Some(suffix) => {
            members.add("input_prefix", &prompt)?;
            members.add("input_suffix", suffix)?;
            INFILL
        }
    };
    if let Some(schema) = common::format(fields)? {
        members.add_raw("json_schema", schema);
    }
    options::add(fields, &mut members)?;
    Ok(OllamaTask::Generate { path, members })
}
