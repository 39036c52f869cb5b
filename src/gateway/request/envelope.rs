//! What a request's body says of where it goes: its model, whether it asks for a stream, and how its prompt begins.
//!
//! The body is looked through once, in the pieces in which it came; no value of it is built. What can be read in two
//! ways is refused where it would matter: backends take the last of two `model`s, and Go's take `MODEL` for one too. A
//! body that is no JSON object is nobody's business here. How a body is changed is in `rewrite.rs`, how a form is read in
//! `multipart.rs`.

use super::body::RequestBody;
use super::body_view::{BodyMember, gather, slices};
use super::multipart;
use crate::gateway::bounds::{MEMBER_NAME, MOST_MEMBERS, PREFIX_LENGTHS, SCANNED_AT_ONCE};
use crate::gateway::scan::json_scanner::{JsonScanner, JsonStep, text};
use crate::refusal::Refusal;
use crate::settings::bounds::MODEL_NAME;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Range;

/// The one route whose requests are forms.
const TRANSCRIPTIONS: &str = "/audio/transcriptions";

/// Names of the members in which a prompt may stand, in the order in which it is put together.
const PROMPT_MEMBERS: [&str; 5] = ["system", "instructions", "messages", "prompt", "input"];

/// What is known of a body.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(super) kind: BodyKind,
    /// In the order in which they stand there.
    pub(super) members: Vec<BodyMember>,
    model: Option<String>,
    stream: Option<bool>,
}

/// What a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// Nothing that can be read.
    Unknown,
    /// A JSON object that opens just before this place.
    Object(usize),
    /// `multipart/form-data`, whose parts are divided by this line.
    Multipart(Vec<u8>),
}

impl Envelope {
    /// Looks through the body of a request for this path; 400 for one that can be read in two ways.
    pub(crate) async fn read(path: &str, headers: &HeaderMap, body: &RequestBody) -> Result<Self, Refusal> {
        let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        match content_type.and_then(multipart::boundary).filter(|_| path.ends_with(TRANSCRIPTIONS)) {
            Some(boundary) => Self::of_form(body, &boundary),
            None => Self::of_json(body).await,
        }
    }

    /// The same of a body that is JSON, if it can be read.
    pub(super) async fn of_json(body: &RequestBody) -> Result<Self, Refusal> {
        let mut scan = EnvelopeScanner::new();
        let mut since = 0;
        for part in body.pieces().flat_map(|piece| piece.chunks(SCANNED_AT_ONCE)) {
            since += part.len();
            if since > SCANNED_AT_ONCE {
                since = part.len();
                tokio::task::yield_now().await;
            }
            scan.read(part)?;
        }
        scan.end(body)
    }

    fn of_form(body: &RequestBody, boundary: &[u8]) -> Result<Self, Refusal> {
        let parts = multipart::parts(body, boundary)?;
        let kind = parts.as_ref().map_or(BodyKind::Unknown, |_| BodyKind::Multipart(boundary.to_vec()));
        let mut envelope = Self { kind, members: parts.unwrap_or_default(), model: None, stream: None };
        envelope.extract_members(body)?;
        Ok(envelope)
    }

    /// The model that is asked for, as the client writes it; none if it is missing or no text.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether a model is asked for by something that is no text, which names none.
    pub(super) fn has_invalid_model(&self) -> bool {
        self.model.is_none() && self.members.iter().any(|member| member.is_model() && !member.is_null())
    }

    /// What the member `stream` says.
    pub(crate) fn stream(&self) -> Option<bool> {
        self.stream
    }

    /// Whether the body was read. If not, nobody knows which model a backend would see in it: only a backend with a
    /// single model may get it.
    pub(super) fn is_readable(&self) -> bool {
        self.kind != BodyKind::Unknown
    }

    /// Hashes of the first [`PREFIX_LENGTHS`] bytes of the prompt, as far as it is as long: the longest last. Equal for
    /// equal beginnings of prompts that come with the same key.
    pub(super) fn prefix_hashes(&self, body: &RequestBody, seed: &RandomState, key_id: &str) -> Vec<u64> {
        let mut hasher = seed.build_hasher();
        key_id.hash(&mut hasher);
        let (mut hashes, mut read) = (Vec::new(), 0);
        let values = PROMPT_MEMBERS.iter().filter_map(|name| self.members.iter().find(|member| member.is_named(name)));
        for mut piece in values.flat_map(|member| slices(body, member.value.clone())) {
            while let Some(next) = PREFIX_LENGTHS.get(hashes.len()) {
                let part = piece.split_to(piece.len().min(next - read));
                hasher.write(&part);
                read += part.len();
                if read < *next {
                    break;
                }
                hashes.push(hasher.finish());
            }
        }
        hashes
    }

    /// Takes from the members what matters, and refuses those that say it twice.
    fn extract_members(&mut self, body: &RequestBody) -> Result<(), Refusal> {
        if let Some(member) = single_member(&self.members, "model", BodyMember::is_model)? {
            let range = match self.kind {
                BodyKind::Multipart(_) => Some(member.value.clone()),
                _ if member.first == b'"' => Some(member.value.start + 1..member.value.end - 1),
                _ => None,
            };
            self.model = range.map(|range| self.read_model(body, range)).transpose()?;
        }
        if let Some(member) = single_member(&self.members, "stream", |member| member.is_named("stream"))? {
            let short = member.value.start..member.value.end.min(member.value.start + "false".len() + 1);
            self.stream = match (&*gather(body, short), &self.kind) {
                (b"true", _) | (b"True" | b"1", BodyKind::Multipart(_)) => Some(true),
                (b"false", _) | (b"False" | b"0", BodyKind::Multipart(_)) => Some(false),
                _ => None,
            };
        }
        Ok(())
    }

    fn read_model(&self, body: &RequestBody, range: Range<usize>) -> Result<String, Refusal> {
        if range.len() > MODEL_NAME {
            return Err(Refusal::bad_request(format!("the name of the model is longer than {MODEL_NAME} bytes")));
        }
        let raw = gather(body, range);
        let name = match self.kind {
            BodyKind::Multipart(_) => String::from_utf8(raw).ok(),
            _ => text(&raw).map(Cow::into_owned),
        };
        name.ok_or_else(|| Refusal::bad_request("the name of the model is no text"))
    }
}

/// The one member of that sort, if there is one.
fn single_member<'a>(
    members: &'a [BodyMember],
    name: &str,
    is: impl Fn(&BodyMember) -> bool,
) -> Result<Option<&'a BodyMember>, Refusal> {
    let mut found = members.iter().filter(|member| is(member));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Refusal::bad_request(format!("the request has more than one \"{name}\""))),
        (member, None) => Ok(member),
    }
}

/// The model that the query of a GET names. 400 if it names two.
pub(super) fn model_of_query(query: &str) -> Result<Option<String>, Refusal> {
    let mut model = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let [name, value] = [name, value].map(|part| percent_decode(&part.replace('+', " ")));
        if !name.eq_ignore_ascii_case(b"model") {
            continue;
        }
        if model.is_some() {
            return Err(Refusal::bad_request("the query has more than one \"model\""));
        }
        model = Some(String::from_utf8(value).map_err(|_| Refusal::bad_request("the name of the model is no text"))?);
    }
    Ok(model)
}

/// What stands in a part of an address, whose `+` is no space. What is encoded wrongly stands for itself.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (bytes, mut at, mut decoded) = (text.as_bytes(), 0, Vec::new());
    while let Some(byte) = bytes.get(at) {
        at += 1;
        decoded.push(match (byte, digit(bytes.get(at)), digit(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                (high * 16 + low) as u8
            }
            _ => *byte,
        });
    }
    decoded
}

/// Looks through a JSON object.
struct EnvelopeScanner {
    scanner: JsonScanner<MEMBER_NAME>,
    opens: usize,
    members: Vec<BodyMember>,
    /// Where the value that is being read begins, and with which byte.
    value: (usize, u8),
}

impl EnvelopeScanner {
    fn new() -> Self {
        Self { scanner: JsonScanner::of_object(), opens: 0, members: Vec::new(), value: (0, 0) }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let (used, step) = self.scanner.step(bytes);
            bytes = &bytes[used..];
            let here = self.scanner.position();
            match step {
                Some(JsonStep::Opens) => self.opens = here,
                Some(JsonStep::Begins(first)) => self.value = (here - 1, first),
                Some(JsonStep::Ends) => {
                    if self.members.len() == MOST_MEMBERS {
                        return Err(Refusal::bad_request(format!("the request has more than {MOST_MEMBERS} members")));
                    }
                    let (value, first) = self.value;
                    let name = self.scanner.name().map(Cow::into_owned).map(String::into_boxed_str);
                    self.members.push(BodyMember {
                        name,
                        whole: self.scanner.name_at()..here,
                        value: value..here,
                        first,
                    });
                }
                Some(JsonStep::Name | JsonStep::Closes | JsonStep::Lost) | None => {}
            }
        }
        Ok(())
    }

    fn end(self, body: &RequestBody) -> Result<Envelope, Refusal> {
        let (kind, members) = if self.scanner.is_over() {
            (BodyKind::Object(self.opens), self.members)
        } else {
            (BodyKind::Unknown, Vec::new())
        };
        let mut envelope = Envelope { kind, members, model: None, stream: None };
        envelope.extract_members(body)?;
        Ok(envelope)
    }
}

/// The same without turns for others, for tests and fuzzing.
#[cfg(any(test, feature = "test-support"))]
impl Envelope {
    pub(super) fn of(body: &RequestBody) -> Result<Self, Refusal> {
        let mut scan = EnvelopeScanner::new();
        body.pieces().try_for_each(|piece| scan.read(piece))?;
        scan.end(body)
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
