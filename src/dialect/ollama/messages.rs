//! Messages: OpenAI's API has the text, the pictures and the calls of tools of each in another form.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::bounds::{MOST_MESSAGES, MOST_TOOL_CALLS};
use super::super::fields::{FieldError, Fields, list, text};

/// A message as OpenAI's API has it.
#[derive(Debug, Serialize)]
pub(super) struct ChatMessage<'a> {
    role: Cow<'a, str>,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<SentCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Debug, Serialize)]
struct ImageUrl {
    url: String,
}

#[derive(Debug, Serialize)]
struct SentCall<'a> {
    id: Cow<'a, str>,
    r#type: &'static str,
    function: SentFunction<'a>,
}

#[derive(Debug, Serialize)]
struct SentFunction<'a> {
    name: Cow<'a, str>,
    /// An object, as text.
    arguments: Cow<'a, str>,
}

impl<'a> ChatMessage<'a> {
    /// Creates a message of text.
    pub(super) fn plain(role: &'static str, text: Cow<'a, str>) -> Self {
        Self::with_images(role, text, Vec::new())
    }

    /// Creates a message of text and pictures, which are addresses with the picture in them.
    pub(super) fn with_images(role: impl Into<Cow<'a, str>>, text: Cow<'a, str>, images: Vec<String>) -> Self {
        let content = if images.is_empty() {
            Content::Text(text)
        } else {
            let text = (!text.is_empty()).then_some(ContentPart::Text { text });
            let images = images.into_iter().map(|url| ContentPart::ImageUrl { image_url: ImageUrl { url } });
            Content::Parts(text.into_iter().chain(images).collect())
        };
        Self {
            role: role.into(),
            content,
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }
}

/// Reads the messages of a chat. Calls of tools without an id get one, and so do the answers to them, in their order.
///
/// # Errors
/// A member of a message is something else than this dialect has, or there are more than [`MOST_MESSAGES`].
pub(super) fn read<'a>(fields: &Fields<'a>) -> Result<Vec<ChatMessage<'a>>, FieldError> {
    let items = fields.list("messages")?.unwrap_or_default();
    if items.len() > MOST_MESSAGES {
        return Err(FieldError::of("messages", format_args!("has more than {MOST_MESSAGES} entries")));
    }
    let mut calls = OpenCalls::default();
    items.iter().enumerate().map(|(at, item)| message(at, item, &mut calls)).collect()
}

/// The calls of tools that have no answer yet, with the names of their tools.
#[derive(Default)]
struct OpenCalls {
    made: usize,
    open: VecDeque<(String, String)>,
}

impl OpenCalls {
    /// Returns the id of a call without one.
    fn new_id(&mut self) -> String {
        self.made += 1;
        format!("call_{}", self.made)
    }

    /// Returns the id of the call that an answer of this tool is for: the first without an answer.
    fn take(&mut self, tool: Option<&str>) -> Option<String> {
        let at = tool.and_then(|tool| self.open.iter().position(|(_, name)| name == tool)).unwrap_or(0);
        self.open.remove(at).map(|(id, _)| id)
    }

    /// Records that the call with this id has its answer.
    fn close(&mut self, id: &str) {
        self.open.retain(|(open, _)| open != id);
    }
}

fn message<'a>(at: usize, value: &'a RawValue, calls: &mut OpenCalls) -> Result<ChatMessage<'a>, FieldError> {
    let place = format!("messages[{at}]");
    let of_place = |error: FieldError| FieldError { message: format!("{place}: {}", error.message), ..error };
    let fields = Fields::within(&place, value)?;
    let role = fields.required_text("role").map_err(of_place)?;
    let content = fields.text("content").map_err(of_place)?.unwrap_or_default();
    let images = images(&fields, "images").map_err(of_place)?;
    let is_tool = role == "tool";
    let mut message = ChatMessage::with_images(role, content, images);
    message.reasoning_content = fields.text("thinking").map_err(of_place)?.filter(|text| !text.is_empty());
    message.tool_calls = tool_calls(&fields, calls).map_err(of_place)?;
    if is_tool {
        let tool = match fields.text("tool_name").map_err(of_place)? {
            Some(tool) => Some(tool),
            None => fields.text("name").map_err(of_place)?,
        };
        let id = fields.text("tool_call_id").map_err(of_place)?;
        if let Some(id) = &id {
            calls.close(id);
        }
        message.tool_call_id = id.or_else(|| calls.take(tool.as_deref()).map(Cow::Owned));
        message.name = tool;
    }
    Ok(message)
}

fn tool_calls<'a>(fields: &Fields<'a>, calls: &mut OpenCalls) -> Result<Vec<SentCall<'a>>, FieldError> {
    let items = fields.list("tool_calls")?.unwrap_or_default();
    if items.len() > MOST_TOOL_CALLS {
        return Err(FieldError::of("tool_calls", format_args!("has more than {MOST_TOOL_CALLS} entries")));
    }
    let read = items.into_iter().enumerate().map(|(at, item)| {
        let place = format!("tool_calls[{at}]");
        let call = Fields::within(&place, item)?;
        let function = call.get("function").ok_or_else(|| FieldError::of(&place, "has no function"))?;
        let function = Fields::within(&format!("{place}.function"), function)?;
        let name = function.required_text("name")?;
        let arguments = match function.get("arguments") {
            None => Cow::Borrowed("{}"),
            // Some clients pass on what they have from OpenAI's API.
            Some(value) if value.get().starts_with('"') => text("arguments", value)?,
            Some(value) if value.get().starts_with('{') => Cow::Borrowed(value.get()),
            Some(_) => return Err(FieldError::of("arguments", "must be an object")),
        };
        let id = call.text("id")?.filter(|id| !id.is_empty()).unwrap_or_else(|| Cow::Owned(calls.new_id()));
        calls.open.push_back((id.clone().into_owned(), name.clone().into_owned()));
        Ok(SentCall { id, r#type: "function", function: SentFunction { name, arguments } })
    });
    read.collect()
}

/// Reads pictures, which are base64 without a type: the beginning of each tells it. Returns addresses with the pictures in
/// them.
///
/// # Errors
/// They are no array of base64.
pub(super) fn images(fields: &Fields<'_>, field: &str) -> Result<Vec<String>, FieldError> {
    let Some(value) = fields.get(field) else { return Ok(Vec::new()) };
    let read = list(field, value)?.into_iter().enumerate().map(|(at, item)| {
        let place = format!("{field}[{at}]");
        let image = text(&place, item)?;
        if image.starts_with("data:image/") {
            return Ok(image.into_owned());
        }
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
        if image.is_empty() || !image.bytes().all(is_base64) {
            return Err(FieldError::of(&place, "must be a picture in base64"));
        }
        Ok(format!("data:{};base64,{image}", image_type(&image)))
    });
    read.collect()
}

/// Returns the type of a picture, by the base64 of its first bytes.
fn image_type(base64: &str) -> &'static str {
    const BEGINNINGS: [(&str, &str); 5] = [
        ("iVBOR", "image/png"),
        ("/9j/", "image/jpeg"),
        ("UklGR", "image/webp"),
        ("R0lGOD", "image/gif"),
        ("Qk", "image/bmp"),
    ];
    let known = BEGINNINGS.iter().find(|(beginning, _)| base64.starts_with(beginning));
    known.map_or("image/jpeg", |(_, kind)| kind)
}
