//! Changes of a request's body: another name for the model, defaults of sampling, members that are left out.
//!
//! The bytes are spliced: what stays is shared with the body as it came, byte by byte, so that it can still be sent
//! elsewhere in another form. Which changes a model wants is for the configuration to say.

use super::body::RequestBody;
use super::body_view::{BodyMember, slices};
use super::envelope::{BodyKind, Envelope};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Members that say the same in the dialects of the backends: a request that has one of them needs no default for another.
const SYNONYMS: [&[&str]; 2] = [
    &["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"],
    &["repeat_penalty", "repetition_penalty"],
];

/// What is to be changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edit<'a> {
    /// The model's name for the backend, whatever the request called it.
    pub(super) model: Option<&'a str>,
    /// Names and JSON values for objects that say nothing of them.
    pub(super) sampling: &'a [(String, String)],
    /// Names of members that are left out, before defaults are looked for. They never take away the model's new name.
    pub(super) strip: &'a [String],
}

impl Edit<'_> {
    /// Whether nothing is to be changed.
    pub(super) fn is_empty(&self) -> bool {
        self.model.is_none() && self.sampling.is_empty() && self.strip.is_empty()
    }
}

/// The body with these changes, of which the envelope tells. One that is neither an object nor a form stays as it is, and
/// forms get no defaults.
pub(super) fn rewrite_body(body: &RequestBody, envelope: &Envelope, edit: &Edit<'_>) -> RequestBody {
    match &envelope.kind {
        BodyKind::Unknown => body.duplicate(),
        BodyKind::Object(opens) => apply_splices(body, object_splices(&envelope.members, *opens, edit)),
        BodyKind::Multipart(line) => apply_splices(body, form_splices(&envelope.members, line, edit)),
    }
}

fn object_splices(members: &[BodyMember], opens: usize, edit: &Edit<'_>) -> Vec<Splice> {
    let stays = kept_flags(members, edit);
    let staying: Vec<&BodyMember> = kept_members(members, &stays).collect();
    let mut splices: Vec<Splice> = removed_ranges(members, &stays).map(|gap| Splice::new(&gap, "")).collect();
    let mut added = Vec::new();
    let mut set = |name: &str, value: &str, which: &dyn Fn(&BodyMember) -> bool| {
        let before = splices.len();
        splices.extend(staying.iter().filter(|member| which(member)).map(|member| Splice::new(&member.value, value)));
        if splices.len() == before {
            added.push(format!("{}:{value}", json_string(name)));
        }
    };
    if let Some(model) = edit.model {
        set("model", &json_string(model), &BodyMember::is_model);
    }
    for (at, (name, value)) in edit.sampling.iter().enumerate() {
        let says = |other: &str| {
            other == name || SYNONYMS.iter().any(|names| names.contains(&name.as_str()) && names.contains(&other))
        };
        let is_said = staying.iter().any(|member| member.name.as_deref().is_some_and(says) && !member.is_null());
        let is_given = edit.sampling[..at].iter().any(|(other, _)| says(other));
        let is_set = edit.model.is_some() && name.eq_ignore_ascii_case("model");
        if is_said || is_given || is_set {
            continue;
        }
        // `null` says nothing, and makes room.
        set(name, value, &|member: &BodyMember| member.is_named(name));
    }
    if !added.is_empty() {
        let comma = if staying.is_empty() { "" } else { "," };
        splices.push(Splice::new(&(opens..opens), &(added.join(",") + comma)));
    }
    splices
}

fn form_splices(members: &[BodyMember], line: &[u8], edit: &Edit<'_>) -> Vec<Splice> {
    let stays = kept_flags(members, edit);
    let leaving = members.iter().zip(&stays).filter(|(_, stays)| !**stays);
    let mut splices: Vec<Splice> = leaving.map(|(member, _)| Splice::new(&member.whole, "")).collect();
    if let Some(model) = edit.model {
        // What could end a part is in no name.
        let name = model.replace(['\r', '\n'], " ");
        splices.push(match kept_members(members, &stays).find(|member| member.is_model()) {
            Some(member) => Splice::new(&member.value, &name),
            None => {
                let head = b"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
                Splice { range: 0..0, new: [line, head, name.as_bytes(), b"\r\n"].concat() }
            }
        });
    }
    splices
}

/// Which members are not left out.
fn kept_flags(members: &[BodyMember], edit: &Edit<'_>) -> Vec<bool> {
    let is_renamed = |member: &BodyMember| edit.model.is_some() && member.is_model();
    members.iter().map(|member| is_renamed(member) || !edit.strip.iter().any(|name| member.is_named(name))).collect()
}

fn kept_members<'a>(members: &'a [BodyMember], stays: &'a [bool]) -> impl Iterator<Item = &'a BodyMember> {
    members.iter().zip(stays).filter(|(_, stays)| **stays).map(|(member, _)| member)
}

/// What is cut out so that the members that stay are divided by one comma each.
fn removed_ranges<'a>(members: &'a [BodyMember], stays: &'a [bool]) -> impl Iterator<Item = Range<usize>> + 'a {
    let first = stays.iter().position(|stays| *stays).unwrap_or(members.len());
    (0..members.len()).filter(|at| !stays[*at]).map(move |at| {
        let end = members[at].whole.end;
        if at > first {
            members[at - 1].whole.end..end
        } else {
            members[at].whole.start..members.get(at + 1).map_or(end, |next| next.whole.start)
        }
    })
}

/// A JSON string.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Bytes that take the place of others.
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
    // What is added stands before what is cut out at the same place.
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

/// What becomes of these bytes; none if they are no object. For tests and fuzzing.
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
    let rewritten = rewrite_body(&body, &envelope, &Edit { model, sampling, strip });
    let length = rewritten.length();
    let bytes: Vec<u8> = rewritten.pieces().flatten().copied().collect();
    assert_eq!(length, bytes.len() as u64);
    Ok(envelope.is_readable().then_some(bytes))
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
