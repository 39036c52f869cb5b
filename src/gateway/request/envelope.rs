//! What the gateway needs to know of a request's body: its model, its `stream` flag, and hashes of its prompt prefixes.
//!
//! The body is scanned once, in the pieces in which it arrived, without building JSON values. An ambiguous body is
//! refused where the ambiguity would matter: backends take the last of two `model` members, and those in Go also take
//! `MODEL` for one. A body that is not a JSON object is only marked as unreadable here. `rewrite.rs` changes bodies,
//! and `multipart.rs` reads forms.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;

use super::body::RequestBody;
use super::body_view::{BodyMember, bytes_in, gather, member_name, number_in, slices};
use super::multipart;
use crate::gateway::bounds::{MEMBER_NAME, MOST_MEMBERS, PREFIX_LENGTHS, SCANNED_AT_ONCE, SHORT_TEXT};
use crate::gateway::scan::json_scanner::{JsonScanner, JsonStep, NextMember, text};
use crate::refusal::Refusal;
use crate::settings::bounds::MODEL_NAME;

/// The end of the path of the only route whose requests are forms.
const TRANSCRIPTIONS: &str = "/audio/transcriptions";

/// The members for which there is room from the start: few requests have more.
const USUAL_MEMBERS: usize = 8;

/// Names of the members that may hold a prompt, in the order in which a prompt is built from them.
const PROMPT_MEMBERS: [&str; 5] = ["system", "instructions", "messages", "prompt", "input"];

/// What is known about a body.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(super) kind: BodyKind,
    /// The members, in their order in the body.
    pub(super) members: Vec<BodyMember>,
    /// Shared with what keeps the name that the client wrote.
    model: Option<Arc<str>>,
    stream: Option<bool>,
    /// What to say of the body if it is not readable.
    unreadable_reason: &'static str,
}

const NO_OBJECT: &str = "the body is no JSON object";
const NO_FORM_HERE: &str = "the body is a form, and this route takes a JSON object";
const NO_BOUNDARY: &str = "the Content-Type of the form names no boundary";
const NO_WHOLE_FORM: &str = "the form is cut short, or its parts are not separated by the boundary of its Content-Type";

/// The format of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// Not readable.
    Unknown,
    /// A JSON object; the offset is that of the byte after its opening brace.
    Object(usize),
    /// `multipart/form-data`.
    Multipart {
        /// The boundary line that separates the parts.
        line: Vec<u8>,
        /// The offset of the first one.
        start: usize,
    },
}

impl Envelope {
    /// Scans the body of a request for this path.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] for an ambiguous body, or one that exceeds a bound on members or the model's name.
    pub(crate) async fn read(path: &str, headers: &HeaderMap, body: &RequestBody) -> Result<Self, Refusal> {
        let content_type = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
        let reason = match (multipart::is_form(content_type), path.ends_with(TRANSCRIPTIONS)) {
            (true, true) => match multipart::boundary(content_type) {
                Some(boundary) => return Self::of_form(body, &boundary),
                None => NO_BOUNDARY,
            },
            (true, false) => NO_FORM_HERE,
            (false, _) => NO_OBJECT,
        };
        Ok(Self { unreadable_reason: reason, ..Self::of_json(body).await? })
    }

    /// Scans a body that should be JSON; see [`Envelope::read`] for the errors.
    pub(crate) async fn of_json(body: &RequestBody) -> Result<Self, Refusal> {
        if body.length() > SCANNED_AT_ONCE as u64 {
            // Boxed, because each request would carry the state of the scan.
            return Box::pin(Self::of_large_json(body)).await;
        }
        Self::of(body)
    }

    /// Scans a JSON body at once; see [`Envelope::read`] for the errors.
    pub(crate) fn of(body: &RequestBody) -> Result<Self, Refusal> {
        let mut scan = EnvelopeScanner::new();
        body.pieces().try_for_each(|piece| scan.read(piece))?;
        scan.end(body)
    }

    /// Scans a JSON body that is too large to be read at once.
    async fn of_large_json(body: &RequestBody) -> Result<Self, Refusal> {
        let mut scan = EnvelopeScanner::new();
        let mut since_yield = 0;
        // A large body must not block the other tasks of this thread.
        for part in body.pieces().flat_map(|piece| piece.chunks(SCANNED_AT_ONCE)) {
            since_yield += part.len();
            if since_yield > SCANNED_AT_ONCE {
                since_yield = part.len();
                tokio::task::yield_now().await;
            }
            scan.read(part)?;
        }
        scan.end(body)
    }

    fn of_form(body: &RequestBody, boundary: &[u8]) -> Result<Self, Refusal> {
        let (kind, members) = match multipart::parts(body, boundary)? {
            Some((start, parts)) => (BodyKind::Multipart { line: boundary.to_vec(), start }, parts),
            None => (BodyKind::Unknown, Vec::new()),
        };
        let mut envelope = Self { kind, members, model: None, stream: None, unreadable_reason: NO_WHOLE_FORM };
        envelope.extract_members(body)?;
        Ok(envelope)
    }

    /// Returns the requested model as the client wrote it; `None` if it is missing or not a string.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns the same to be kept.
    pub(super) fn shared_model(&self) -> Option<&Arc<str>> {
        self.model.as_ref()
    }

    /// Returns the requested model of a body that must be a JSON object that names one.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] if it is not.
    pub(crate) fn required_model(self) -> Result<String, Refusal> {
        match self.model {
            Some(model) => Ok((*model).to_owned()),
            None if !self.is_readable() => Err(Refusal::bad_request(self.unreadable_reason)),
            None => Err(Refusal::bad_request("the body has no \"model\" that is a string")),
        }
    }

    /// Returns whether the body has a `model` that is neither a string nor `null`.
    pub(super) fn has_invalid_model(&self) -> bool {
        self.model.is_none() && self.members.iter().any(|member| member.is_model() && !member.is_null())
    }

    /// Returns whether the body has a member with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.is_named(name))
    }

    /// Returns whether the body has a member with this name whose value is not `null`.
    pub(crate) fn has_value(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.is_named(name) && !member.is_null())
    }

    /// Returns the byte ranges of the values of the members with this name.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.members.iter().filter(move |member| member.is_named(name)).map(|member| member.value.clone())
    }

    /// Returns the value of the last member with this name, if it is a string of at most [`SHORT_TEXT`] bytes.
    pub(crate) fn short_text(&self, body: &RequestBody, name: &str) -> Option<String> {
        let member = self.members.iter().rfind(|member| member.is_named(name) && member.first == b'"')?;
        let range = Some(member.value.start + 1..member.value.end - 1).filter(|range| range.len() <= SHORT_TEXT)?;
        text(&gather(body, range)).map(Cow::into_owned)
    }

    /// Returns the numbers that are the values of the members with this name; `None` for each that is none.
    pub(crate) fn numbers<'a>(
        &'a self,
        body: &'a RequestBody,
        name: &'a str,
    ) -> impl Iterator<Item = Option<f64>> + 'a {
        self.values(name).map(|range| number_in(body, &range))
    }

    /// Returns the members of a JSON object in the order of their names: each name with the byte range of its value, and a
    /// member whose name is not known with its whole range. `None` if the body is no JSON object.
    pub(crate) fn ranges_by_name(&self) -> Option<Vec<(Option<&str>, Range<usize>)>> {
        let BodyKind::Object(_) = self.kind else { return None };
        let mut members: Vec<_> = self.members.iter().map(|member| (member.name.as_deref(), member)).collect();
        // Stable: members of the same name stay in their order, of which servers take one.
        members.sort_by_key(|(name, _)| *name);
        let range = |member: &BodyMember| if member.name.is_some() { &member.value } else { &member.whole }.clone();
        Some(members.into_iter().map(|(name, member)| (name, range(member))).collect())
    }

    /// Returns the bytes in this range of the body, in pieces that share its memory.
    pub(crate) fn pieces_of(body: &RequestBody, range: Range<usize>) -> impl Iterator<Item = Bytes> {
        slices(body, range)
    }

    /// Returns the members of a JSON body without those of these names, with a comma before each.
    pub(crate) fn members_without(&self, body: &RequestBody, names: &[&str]) -> Vec<u8> {
        let is_left_out = |member: &BodyMember| names.iter().any(|name| member.is_named(name));
        let kept = self.members.iter().filter(|member| !is_left_out(member));
        kept.flat_map(|member| [b",".to_vec(), gather(body, member.whole.clone())].concat()).collect()
    }

    /// Returns the value of the member `stream`, if it is a boolean.
    pub(crate) fn stream(&self) -> Option<bool> {
        self.stream
    }

    /// Returns whether the body was understood. If not, a backend might find another model in it than the gateway did,
    /// so only a backend with a single model may get it.
    pub(super) fn is_readable(&self) -> bool {
        self.kind != BodyKind::Unknown
    }

    /// Returns the value of the member `n`, the number of answers that a client wants, if it is a whole number.
    pub(super) fn answers_wanted(&self, body: &RequestBody) -> Option<usize> {
        let member = self.members.iter().rfind(|member| member.is_named("n"))?;
        let number = number_in(body, &member.value)?;
        (number.fract() == 0.0 && number >= 0.0).then_some(number as usize)
    }

    /// Returns what to say of a body that was not understood.
    pub(super) fn unreadable_reason(&self) -> &'static str {
        self.unreadable_reason
    }

    /// Returns the hashes of the prompt's prefixes of [`PREFIX_LENGTHS`] bytes, shortest first, up to the length of the
    /// prompt. Equal prefixes have equal hashes if they come with the same key.
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

    /// Reads `model` and `stream` from the members, and refuses a body that has one of them twice.
    fn extract_members(&mut self, body: &RequestBody) -> Result<(), Refusal> {
        if let Some(member) = single_member(&self.members, "model", BodyMember::is_model)? {
            let range = match self.kind {
                BodyKind::Multipart { .. } => Some(member.value.clone()),
                _ if member.first == b'"' => Some(member.value.start + 1..member.value.end - 1),
                _ => None,
            };
            self.model = range.map(|range| self.read_model(body, range)).transpose()?;
        }
        if let Some(member) = single_member(&self.members, "stream", |member| member.is_named("stream"))? {
            let short = member.value.start..member.value.end.min(member.value.start + "false".len() + 1);
            self.stream = match (&*bytes_in(body, short), &self.kind) {
                (b"true", _) | (b"True" | b"1", BodyKind::Multipart { .. }) => Some(true),
                (b"false", _) | (b"False" | b"0", BodyKind::Multipart { .. }) => Some(false),
                _ => None,
            };
        }
        Ok(())
    }

    fn read_model(&self, body: &RequestBody, range: Range<usize>) -> Result<Arc<str>, Refusal> {
        if range.len() > MODEL_NAME {
            return Err(Refusal::bad_request(format!("the name of the model is longer than {MODEL_NAME} bytes")));
        }
        let raw = bytes_in(body, range);
        let name = match self.kind {
            BodyKind::Multipart { .. } => str::from_utf8(&raw).ok().map(Arc::from),
            _ => text(&raw).map(Arc::from),
        };
        name.ok_or_else(|| Refusal::bad_request("the name of the model is no text"))
    }
}

/// Returns the only member for which `matches` holds, if there is one. `name` is for the message of the refusal.
fn single_member<'a>(
    members: &'a [BodyMember],
    name: &str,
    matches: impl Fn(&BodyMember) -> bool,
) -> Result<Option<&'a BodyMember>, Refusal> {
    let mut found = members.iter().filter(|member| matches(member));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Refusal::bad_request(format!("the request has more than one \"{name}\""))),
        (member, None) => Ok(member),
    }
}

/// Returns the model that the query of a GET names.
///
/// # Errors
/// [`Refusal::BadRequest`] if the query names two models, or one that is not UTF-8.
pub(crate) fn model_of_query(query: &str) -> Result<Option<String>, Refusal> {
    let mut model = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let [name, value] = [name, value].map(|part| percent_decode_str(&part.replace('+', " ")).collect::<Vec<u8>>());
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

/// Returns the parameters of a query, decoded.
pub(in crate::gateway) fn query_pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned()
}

/// Scans a JSON object for its members.
struct EnvelopeScanner {
    scanner: JsonScanner<MEMBER_NAME>,
    /// The offset of the byte after the object's opening brace.
    opens: usize,
    members: Vec<BodyMember>,
    /// The offset and the first byte of the value that is being read.
    value: (usize, u8),
}

impl EnvelopeScanner {
    fn new() -> Self {
        let members = Vec::with_capacity(USUAL_MEMBERS);
        Self { scanner: JsonScanner::of_object(), opens: 0, members, value: (0, 0) }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            match self.scanner.member(bytes) {
                Some(NextMember::Whole(member)) => {
                    bytes = &bytes[member.used..];
                    self.value = (self.scanner.position() - member.value.len(), member.value[0]);
                    self.add_member(member_name(member.name))?;
                    continue;
                }
                Some(NextMember::Begins { first, used }) => {
                    bytes = &bytes[used..];
                    self.value = (self.scanner.position() - 1, first);
                    continue;
                }
                None => {}
            }
            let (used, step) = self.scanner.step(bytes);
            bytes = &bytes[used..];
            let position = self.scanner.position();
            match step {
                Some(JsonStep::Opens) => self.opens = position,
                Some(JsonStep::Begins(first)) => self.value = (position - 1, first),
                Some(JsonStep::Ends) => {
                    let name = self.scanner.name_bytes().and_then(|name| member_name(&name));
                    self.add_member(name)?;
                }
                Some(JsonStep::Name | JsonStep::Closes | JsonStep::Lost) | None => {}
            }
        }
        Ok(())
    }

    /// Adds the member that ends here.
    fn add_member(&mut self, name: Option<Cow<'static, str>>) -> Result<(), Refusal> {
        if self.members.len() == MOST_MEMBERS {
            return Err(Refusal::bad_request(format!("the request has more than {MOST_MEMBERS} members")));
        }
        let ((value, first), end) = (self.value, self.scanner.position());
        self.members.push(BodyMember { name, whole: self.scanner.name_at()..end, value: value..end, first });
        Ok(())
    }

    fn end(self, body: &RequestBody) -> Result<Envelope, Refusal> {
        let (kind, members) = if self.scanner.is_over() {
            (BodyKind::Object(self.opens), self.members)
        } else {
            (BodyKind::Unknown, Vec::new())
        };
        let mut envelope = Envelope { kind, members, model: None, stream: None, unreadable_reason: NO_OBJECT };
        envelope.extract_members(body)?;
        Ok(envelope)
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
