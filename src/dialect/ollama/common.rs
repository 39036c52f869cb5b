//! The members that chats and completions have in common.

use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::super::fields::{FieldError, Fields, list};
use super::request::Members;

/// The levels of `think`.
const THINK_LEVELS: [&str; 3] = ["low", "medium", "high"];

/// Most alternatives of a token, as in OpenAI's API.
const MOST_ALTERNATIVES: usize = 20;

/// Adds the tools, which OpenAI's API has in the same form.
///
/// # Errors
/// They are no array of objects.
pub(super) fn add_tools(fields: &Fields<'_>, members: &mut Members) -> Result<(), FieldError> {
    let Some(value) = fields.get("tools") else { return Ok(()) };
    let tools = list("tools", value)?;
    for (at, tool) in tools.iter().enumerate() {
        Fields::within(&format!("tools[{at}]"), tool)?;
    }
    if !tools.is_empty() {
        members.add_raw("tools", value.to_owned());
    }
    Ok(())
}

/// Adds what both kinds of requests say about a chat: format, thinking, log probabilities.
///
/// # Errors
/// A member is something else than this dialect has.
pub(super) fn add_chat_members(fields: &Fields<'_>, members: &mut Members) -> Result<(), FieldError> {
    add_think(fields, members)?;
    if let Some(schema) = format(fields)? {
        #[derive(Serialize)]
        struct Named<'a> {
            name: &'static str,
            schema: &'a RawValue,
        }
        #[derive(Serialize)]
        struct ResponseFormat<'a> {
            r#type: &'static str,
            json_schema: Named<'a>,
        }
        let json_schema = Named { name: "format", schema: &schema };
        members.add("response_format", &ResponseFormat { r#type: "json_schema", json_schema })?;
    }
    let alternatives = fields.count("top_logprobs", 0)?;
    if alternatives.is_some_and(|count| count > MOST_ALTERNATIVES) {
        return Err(FieldError::of("top_logprobs", format_args!("must be at most {MOST_ALTERNATIVES}")));
    }
    if fields.flag("logprobs")? == Some(true) {
        members.add("logprobs", &true)?;
        members.add("top_logprobs", &alternatives.unwrap_or(0))?;
    }
    Ok(())
}

/// Reads the JSON schema that the answer is to have.
///
/// # Errors
/// It is neither `"json"` nor a schema.
pub(super) fn format(fields: &Fields<'_>) -> Result<Option<Box<RawValue>>, FieldError> {
    let Some(value) = fields.get("format") else { return Ok(None) };
    match value.get() {
        "\"\"" => Ok(None),
        // OpenAI's `json_object` has no schema, and llama-server answers it with any text.
        "\"json\"" => to_raw_value(&json!({"type": "object"}))
            .map(Some)
            .map_err(|_| FieldError::of("format", "cannot be written as JSON")),
        text if text.starts_with('{') => Ok(Some(value.to_owned())),
        _ => Err(FieldError::of("format", "must be \"json\" or a JSON schema")),
    }
}

/// Adds whether the model is to think, and how much, as chat templates take it.
fn add_think(fields: &Fields<'_>, members: &mut Members) -> Result<(), FieldError> {
    if !fields.has("think") {
        return Ok(());
    }
    if let Ok(Some(is_wanted)) = fields.flag("think") {
        return members.add("chat_template_kwargs", &json!({"enable_thinking": is_wanted}));
    }
    match fields.text("think").ok().flatten() {
        Some(level) if THINK_LEVELS.contains(&&*level) => {
            members.add("chat_template_kwargs", &json!({"enable_thinking": true, "reasoning_effort": level}))
        }
        _ => Err(FieldError::of("think", "must be true, false, \"low\", \"medium\" or \"high\"")),
    }
}
