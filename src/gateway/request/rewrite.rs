//! Changes a request's body: replaces the model's name, adds sampling defaults, and removes members.
//!
//! The bytes are spliced: unchanged bytes are shared with the body as it arrived, so the same body can still be sent to
//! another worker in another form. The configuration of a model says which changes it needs.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::body::RequestBody;
use super::body_view::{BodyMember, gather, slices};
use super::envelope::{BodyKind, Envelope};
use crate::gateway::bounds::STREAM_OPTIONS_SIZE;
use crate::settings::catalogue::is_generation_field;

/// Members with the same meaning in the dialects of the backends. A request that has one needs no default for another.
const SYNONYMS: [&[&str]; 2] = [
    &["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"],
    &["repeat_penalty", "repetition_penalty"],
];

/// The member that says what a stream reports besides the text (OpenAI's API).
const STREAM_OPTIONS: &str = "stream_options";

/// The member that says which format the text has to have.
pub(super) const RESPONSE_FORMAT: &str = "response_format";

/// The changes to make.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edit<'a> {
    /// The model's name at the backend, which replaces the one in the request.
    pub(super) model: Option<&'a str>,
    /// Names and JSON values of members to add to objects that lack them. The first list comes before the second.
    pub(super) defaults: [&'a [(String, String)]; 2],
    /// Whether the members that only generation takes are added too.
    pub(super) is_generation: bool,
    /// Names of members to remove, before defaults are added. They never remove the model's new name.
    pub(super) strip: &'a [String],
    /// The new value of `stream_options`, as JSON.
    pub(super) stream_options: Option<&'a str>,
    /// The new value of `response_format`, as JSON.
    pub(super) response_format: Option<&'a str>,
    /// New names of members, and their JSON values where they are missing or `null`.
    pub(super) renames: &'a [(&'a str, &'a str, Option<&'a str>)],
}

impl Edit<'_> {
    /// Returns whether there is nothing to change.
    pub(super) fn is_empty(&self) -> bool {
        self.model.is_none()
            && self.defaults.iter().all(|list| list.is_empty())
            && self.strip.is_empty()
            && self.stream_options.is_none()
            && self.response_format.is_none()
            && self.renames.is_empty()
    }
}

/// Returns the body, which `envelope` describes, with these changes. A body that is neither an object nor a form stays
/// as it is, and a form gets no defaults.
pub(super) fn rewrite_body(body: &RequestBody, envelope: &Envelope, edit: &Edit<'_>) -> RequestBody {
    match &envelope.kind {
        BodyKind::Unknown => body.duplicate(),
        BodyKind::Object(opens) => apply_splices(body, object_splices(&envelope.members, *opens, edit)),
        BodyKind::Multipart { line, start } => apply_splices(body, form_splices(&envelope.members, line, *start, edit)),
    }
}

/// Returns the value of `stream_options` with which this request for a stream asks for token counts too. `None` if it
/// does so already, if its value is no object, or if the member would be removed (`strip`).
pub(super) fn stream_options_with_usage(body: &RequestBody, envelope: &Envelope, strip: &[String]) -> Option<String> {
    if !matches!(envelope.kind, BodyKind::Object(_)) || strip.iter().any(|name| name == STREAM_OPTIONS) {
        return None;
    }
    let mut options = match envelope.members.iter().rfind(|member| member.is_named(STREAM_OPTIONS)) {
        Some(member) if !member.is_null() => {
            let range = Some(member.value.clone()).filter(|range| range.len() <= STREAM_OPTIONS_SIZE)?;
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&gather(body, range)).ok()?
        }
        _ => serde_json::Map::new(),
    };
    let before = options.insert("include_usage".to_owned(), true.into());
    (before != Some(true.into())).then(|| serde_json::Value::Object(options).to_string())
}

fn object_splices(members: &[BodyMember], opens: usize, edit: &Edit<'_>) -> Vec<Splice> {
    let kept = kept_flags(members, edit);
    let kept_list: Vec<&BodyMember> = kept_members(members, &kept).collect();
    let mut splices: Vec<Splice> = removed_ranges(members, &kept).map(|gap| Splice::new(&gap, "")).collect();
    let mut added = Vec::new();
    let mut set = |name: &str, value: &str, matches: &dyn Fn(&BodyMember) -> bool| {
        let before = splices.len();
        splices
            .extend(kept_list.iter().filter(|member| matches(member)).map(|member| Splice::new(&member.value, value)));
        if splices.len() == before {
            added.push(format!("{}:{value}", json_string(name)));
        }
    };
    if let Some(model) = edit.model {
        set("model", &json_string(model), &BodyMember::is_model);
    }
    for (name, value) in [(STREAM_OPTIONS, edit.stream_options), (RESPONSE_FORMAT, edit.response_format)] {
        if let Some(value) = value {
            set(name, value, &|member: &BodyMember| member.is_named(name));
        }
    }
    let mut renamed = Vec::new();
    for (name, new, default) in edit.renames {
        match (kept_list.iter().find(|member| member.is_named(name)), default) {
            (Some(member), Some(default)) if member.is_null() => {
                renamed.push(Splice::new(&member.whole, &format!("{}:{default}", json_string(new))));
            }
            (Some(member), _) => {
                renamed.push(Splice::new(&(member.whole.start..member.value.start), &format!("{}:", json_string(new))));
            }
            (None, Some(default)) => set(new, default, &|member: &BodyMember| member.is_named(new)),
            (None, None) => {}
        }
    }
    let defaults: Vec<&(String, String)> = edit.defaults.iter().flat_map(|list| list.iter()).collect();
    for (at, (name, value)) in defaults.iter().copied().enumerate() {
        let means_the_same = |other: &str| {
            other == name || SYNONYMS.iter().any(|names| names.contains(&name.as_str()) && names.contains(&other))
        };
        let is_present =
            kept_list.iter().any(|member| member.name.as_deref().is_some_and(means_the_same) && !member.is_null());
        let is_added = defaults[..at].iter().any(|(other, _)| means_the_same(other));
        let is_set = edit.model.is_some() && name.eq_ignore_ascii_case("model");
        let is_foreign = !edit.is_generation && is_generation_field(name);
        if is_present || is_added || is_set || is_foreign {
            continue;
        }
        // A member that is `null` counts as missing; its value is replaced.
        set(name, value, &|member: &BodyMember| member.is_named(name));
    }
    splices.extend(renamed);
    if !added.is_empty() {
        let comma = if kept_list.is_empty() { "" } else { "," };
        splices.push(Splice::new(&(opens..opens), &(added.join(",") + comma)));
    }
    splices
}

fn form_splices(members: &[BodyMember], line: &[u8], start: usize, edit: &Edit<'_>) -> Vec<Splice> {
    let kept = kept_flags(members, edit);
    let leaving = members.iter().zip(&kept).filter(|(_, kept)| !**kept);
    let mut splices: Vec<Splice> = leaving.map(|(member, _)| Splice::new(&member.whole, "")).collect();
    if let Some(model) = edit.model {
        // A line break could end the part, so it must not get into the value.
        let name = model.replace(['\r', '\n'], " ");
        splices.push(match kept_members(members, &kept).find(|member| member.is_model()) {
            Some(member) => Splice::new(&member.value, &name),
            None => {
                let head = b"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
                Splice { range: start..start, new: [line, head, name.as_bytes(), b"\r\n"].concat() }
            }
        });
    }
    splices
}

/// Returns for each member whether it stays.
fn kept_flags(members: &[BodyMember], edit: &Edit<'_>) -> Vec<bool> {
    let is_renamed = |member: &BodyMember| edit.model.is_some() && member.is_model();
    members.iter().map(|member| is_renamed(member) || !edit.strip.iter().any(|name| member.is_named(name))).collect()
}

fn kept_members<'a>(members: &'a [BodyMember], kept: &'a [bool]) -> impl Iterator<Item = &'a BodyMember> {
    members.iter().zip(kept).filter(|(_, kept)| **kept).map(|(member, _)| member)
}

/// Returns the ranges to cut out so that exactly one comma remains between two members.
fn removed_ranges<'a>(members: &'a [BodyMember], kept: &'a [bool]) -> impl Iterator<Item = Range<usize>> + 'a {
    let first = kept.iter().position(|kept| *kept).unwrap_or(members.len());
    (0..members.len()).filter(|at| !kept[*at]).map(move |at| {
        let end = members[at].whole.end;
        if at > first {
            members[at - 1].whole.end..end
        } else {
            members[at].whole.start..members.get(at + 1).map_or(end, |next| next.whole.start)
        }
    })
}

/// Returns the text as a JSON string.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A range of bytes and its replacement.
struct Splice {
    range: Range<usize>,
    new: Vec<u8>,
}

impl Splice {
    fn new(range: &Range<usize>, new: &str) -> Self {
        Self { range: range.clone(), new: new.as_bytes().to_vec() }
    }
}

fn apply_splices(body: &RequestBody, mut splices: Vec<Splice>) -> RequestBody {
    // An insertion comes before a removal at the same offset.
    splices.sort_by_key(|splice| (splice.range.start, splice.range.end));
    let (mut pieces, mut at) = (VecDeque::new(), 0);
    for Splice { range, new } in splices {
        pieces.extend(slices(body, at..range.start));
        pieces.extend((!new.is_empty()).then(|| Bytes::from(new)));
        at = range.end;
    }
    pieces.extend(slices(body, at..usize::MAX));
    body.with_pieces(pieces)
}

/// Returns these bytes with the changes, or `None` if they are not a JSON object. For tests and fuzzing.
///
/// # Errors
/// [`Refusal::BadRequest`](crate::refusal::Refusal::BadRequest) if the body is ambiguous.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn rewrite_object(
    pieces: &[&[u8]],
    model: Option<&str>,
    sampling: &[(String, String)],
    strip: &[String],
) -> Result<Option<Vec<u8>>, crate::refusal::Refusal> {
    let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece));
    let body = RequestBody::default().with_pieces(pieces.collect());
    let envelope = Envelope::of(&body)?;
    let edit = Edit { model, defaults: [sampling, &[]], is_generation: true, strip, ..Edit::default() };
    let rewritten = rewrite_body(&body, &envelope, &edit);
    let length = rewritten.length();
    let bytes: Vec<u8> = rewritten.pieces().flatten().copied().collect();
    assert_eq!(length, bytes.len() as u64);
    Ok(envelope.is_readable().then_some(bytes))
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
