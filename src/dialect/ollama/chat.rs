//! Reads a request for `/api/chat`.

use super::super::fields::{FieldError, Fields};
use super::request::{CHAT_COMPLETIONS, Members, OllamaTask};
use super::{common, messages, options};

/// Reads what a chat asks for.
///
/// # Errors
/// It is none, or asks for something that is not served.
pub(super) fn parse(fields: &Fields<'_>) -> Result<OllamaTask, FieldError> {
    let messages = messages::read(fields)?;
    if messages.is_empty() {
        return Ok(OllamaTask::Load);
    }
    let mut members = Members::default();
    members.add("messages", &messages)?;
    common::add_tools(fields, &mut members)?;
    common::add_chat_members(fields, &mut members)?;
    options::add(fields, &mut members)?;
    Ok(OllamaTask::Generate { path: CHAT_COMPLETIONS, members })
}
