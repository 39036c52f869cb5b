//! The way from a path to the file that reads its requests.

use std::borrow::Cow;

use super::super::fields::{FieldError, Fields};
use super::request::{OllamaForm, OllamaRequest};
use super::{chat, generate, keep_alive};

/// Reads a request.
///
/// # Errors
/// The body is no such request, it asks for something that is not served, or the path is none of this dialect.
pub fn parse(path: &str, body: &[u8]) -> Result<OllamaRequest, FieldError> {
    let fields = Fields::parse(body)?;
    let (form, task) = match path {
        "/api/chat" => (OllamaForm::Chat, chat::parse(&fields)?),
        "/api/generate" => (OllamaForm::Generate, generate::parse(&fields)?),
        _ => return Err(FieldError::whole(format!("nothing is generated at {path}"))),
    };
    Ok(OllamaRequest {
        model: fields.text("model")?.map(Cow::into_owned),
        form,
        is_stream: fields.flag("stream")?.unwrap_or(true),
        keep_alive: keep_alive::read(&fields)?,
        task,
    })
}
