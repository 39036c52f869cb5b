//! The parts of a `multipart/form-data` body (RFC 7578): their names and positions. The contents of files are skipped.
//!
//! The parser is strict, so that an accepted form has only one meaning: a form whose parts could have other names for a
//! backend is refused.

use memchr::memmem;

use super::body::RequestBody;
use super::body_view::{BodyMember, gather, slices};
use crate::gateway::bounds::{MEMBER_NAME, MOST_MEMBERS, PART_HEAD};
use crate::refusal::Refusal;

/// Longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// Returns the boundary line, without its line end, between the parts of a body with this `Content-Type`. Returns
/// `None` if the type is not that of a form.
pub(super) fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(content_type).ok()?;
    let (kind, parameters) = text.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mut boundaries = read_parameters(parameters)?.into_iter().filter(|(name, _)| name == "boundary");
    let (boundary, another) = (boundaries.next()?.1, boundaries.next());
    let fits = (1..=LONGEST_BOUNDARY).contains(&boundary.len()) && another.is_none();
    fits.then(|| format!("--{boundary}").into_bytes())
}

/// Returns the parts; the `whole` of each begins with the boundary line before it. Returns `None` if the body is not a
/// complete form with this boundary.
///
/// # Errors
/// [`Refusal::BadRequest`] for an ambiguous form, or one with too many parts or too long a part head.
pub(super) fn parts(body: &RequestBody, line: &[u8]) -> Result<Option<Vec<BodyMember>>, Refusal> {
    let delimiter = [b"\r\n", line].concat();
    let delimiter = memmem::Finder::new(&delimiter);
    let bytes_at = |at: usize, length: usize| gather(body, at..at + length);
    if bytes_at(0, line.len()) != line {
        return Ok(None);
    }
    let (mut members, mut whole) = (Vec::new(), 0);
    loop {
        let after = whole + line.len();
        match bytes_at(after, 2).as_slice() {
            b"\r\n" => {}
            b"--" => return Ok(Some(members)),
            _ => return Err(Refusal::bad_request("a boundary of the form is followed by something else")),
        }
        let head = bytes_at(after + 2, PART_HEAD);
        let Some(length) = memmem::find(&head, b"\r\n\r\n") else {
            return Err(Refusal::bad_request("a part of the form has too long a head, or none"));
        };
        let name = part_name(&head[..length])?;
        let value = after + 2 + length + 4;
        if bytes_at(value, line.len()) == line {
            return Err(Refusal::bad_request("a part of the form has no value"));
        }
        let Some(end) = find(body, value, &delimiter) else { return Ok(None) };
        if members.len() == MOST_MEMBERS {
            return Err(Refusal::bad_request(format!("the form has more than {MOST_MEMBERS} parts")));
        }
        let next = end + 2;
        members.push(BodyMember { name, whole: whole..next, value: value..end, first: 0 });
        whole = next;
    }
}

/// Returns the first offset from `from` on at which the finder matches, across the borders of pieces.
fn find(body: &RequestBody, from: usize, finder: &memmem::Finder<'_>) -> Option<usize> {
    let overlap = finder.needle().len() - 1;
    let (mut at, mut tail) = (from, Vec::new());
    for piece in slices(body, from..usize::MAX) {
        // A match may begin in an earlier piece.
        let joint = [&tail, &piece[..overlap.min(piece.len())]].concat();
        if let Some(found) = finder.find(&joint) {
            return Some(at - tail.len() + found);
        }
        if let Some(found) = finder.find(&piece) {
            return Some(at + found);
        }
        at += piece.len();
        tail.extend_from_slice(&piece[piece.len().saturating_sub(overlap)..]);
        tail.drain(..tail.len().saturating_sub(overlap));
    }
    None
}

/// Returns the name of a part from its head, or `None` if the name is longer than [`MEMBER_NAME`].
///
/// # Errors
/// [`Refusal::BadRequest`] if the head is malformed, ambiguous, or has no name.
fn part_name(head: &[u8]) -> Result<Option<Box<str>>, Refusal> {
    let unreadable = || Refusal::bad_request("the head of a part of the form cannot be read");
    let head = str::from_utf8(head).map_err(|_| unreadable())?;
    let mut name = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or_else(unreadable)?;
        if line.contains(['\r', '\n', '\0']) || field.contains(char::is_whitespace) {
            return Err(unreadable());
        }
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            // Go's multipart reader decodes encoded parts, so such a part would have another value there.
            let plain = ["binary", "8bit", "7bit"].iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
            plain.then_some(()).ok_or_else(unreadable)?;
        }
        if !field.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let (kind, parameters) = value.split_once(';').ok_or_else(unreadable)?;
        let parameters = read_parameters(parameters).ok_or_else(unreadable)?;
        let mut names = parameters.into_iter().filter(|(name, _)| name.trim_end_matches('*') == "name");
        let (found, another) = (names.next().ok_or_else(unreadable)?, names.next());
        let is_plain = kind.trim().eq_ignore_ascii_case("form-data") && found.0 == "name";
        if !is_plain || another.is_some() || name.is_some() {
            return Err(unreadable());
        }
        name = Some(found.1);
    }
    let name = name.ok_or_else(unreadable)?;
    Ok((name.len() <= MEMBER_NAME).then(|| name.into_boxed_str()))
}

/// Reads parameters of the form `name=value` or `name="value"`, separated by semicolons, and returns the names in lower
/// case. Returns `None` if the text has any other form.
fn read_parameters(text: &str) -> Option<Vec<(String, String)>> {
    let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=')?;
        if name.is_empty() || !name.chars().all(is_token) {
            return None;
        }
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            // Browsers write %22 for a quote. Parsers disagree about a backslash, so it is refused.
            Some(quoted) => {
                let (inner, after) = quoted.split_once('"')?;
                (Some(inner).filter(|inner| !inner.contains('\\'))?, after.trim_start())
            }
            None => {
                let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
                (Some(&value[..end]).filter(|token| !token.is_empty())?, value[end..].trim_start())
            }
        };
        found.push((name.to_ascii_lowercase(), value.to_owned()));
        rest = match after.strip_prefix(';') {
            Some(more) => more.trim_start(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &[u8] = b"multipart/form-data; boundary=b0";

    /// Returns the names and values of the parts.
    fn parts_of(pieces: &[&str]) -> Result<Option<Vec<(String, String)>>, Refusal> {
        let body = RequestBody::from_pieces(pieces);
        let text = |range| String::from_utf8(gather(&body, range)).unwrap();
        let parts = parts(&body, &boundary(TYPE).unwrap())?;
        Ok(parts.map(|parts| {
            let mut at = 0;
            parts
                .into_iter()
                .map(|part| {
                    assert_eq!(part.whole.start, at, "each part begins where the one before it ends");
                    at = part.whole.end;
                    (part.name.unwrap().into_string(), text(part.value))
                })
                .collect()
        }))
    }

    fn part(head: &str, value: &str) -> String {
        format!("--b0\r\n{head}\r\n\r\n{value}\r\n")
    }

    fn field(name: &str, value: &str) -> String {
        part(&format!("Content-Disposition: form-data; name={name}"), value)
    }

    #[test]
    fn the_boundary_is_that_of_the_content_type() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=b0", Some("--b0")),
            ("Multipart/Form-Data;Boundary=\"b 0\"", Some("--b 0")),
            ("multipart/form-data; charset=utf-8; boundary=----x", Some("------x")),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data; boundary=\"\"", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=a b", None),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=b0", None),
            ("application/json", None),
        ] {
            let found = boundary(content_type.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{content_type}");
        }
        let of_length = |length| boundary(format!("multipart/form-data; boundary={}", "x".repeat(length)).as_bytes());
        assert!(of_length(LONGEST_BOUNDARY).is_some() && of_length(LONGEST_BOUNDARY + 1).is_none());
    }

    #[test]
    fn parts_are_found_in_a_body_of_any_pieces() {
        let file = "RIFF\r\n--b\r\n\r\n--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx";
        let head =
            "content-type: audio/wav\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;name=b.wav\"";
        let text = [field("model", "m"), part(head, file), field("\"p\"", ""), "--b0--\r\n".to_owned()].concat();
        let expected = [("model", "m"), ("file", file), ("p", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(parts_of(&[&text]), Ok(Some(expected.clone())));
        for cut in 0..text.len() {
            for second in [cut, cut + 1, cut + 7] {
                let second = second.min(text.len());
                let pieces = [&text[..cut], &text[cut..second], &text[second..]];
                assert_eq!(parts_of(&pieces), Ok(Some(expected.clone())), "{cut} {second}");
            }
        }
    }

    #[test]
    fn a_body_that_is_not_a_form_of_this_boundary_has_no_parts() {
        for text in ["", "{}", "--b1\r\n", "\r\n--b0--", &part("Content-Disposition: form-data; name=a", "")[..40]] {
            let refused_or_none = parts_of(&[text]).map_or(None, |parts| parts);
            assert_eq!(refused_or_none, None, "{text}");
        }
        assert_eq!(parts_of(&["--b0\r\nContent-Disposition: form-data; name=a\r\n\r\nvalue"]), Ok(None));
    }

    #[test]
    fn an_ambiguous_form_is_refused() {
        let good = "Content-Disposition: form-data; name=a";
        assert!(parts_of(&[&part(&format!("{good}\r\nContent-Transfer-Encoding: binary"), ""), "--b0--"]).is_ok());
        for head in [
            "Content-Type: text/plain",
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; filename=a",
            "Content-Disposition: attachment; name=a",
            "Content-Disposition: form-data; name=a; name=b",
            "Content-Disposition: form-data; name=a; name*=utf-8\'\'b",
            "Content-Disposition: form-data; name*=utf-8\'\'b",
            "Content-Disposition: form-data; name=\"a\\\"b\"",
            "Content-Disposition: form-data; name=a b",
            "Content-Disposition : form-data; name=a",
            "Content-Disposition: form-data;\r\n name=a",
            "Content-Disposition: form-data; name=a\nContent-Disposition: form-data; name=b",
            &format!("{good}\r\n{good}"),
            &format!("{good}\r\nContent-Transfer-Encoding: quoted-printable"),
            &format!("{good}\r\nX: {}", "x".repeat(PART_HEAD)),
        ] {
            assert!(matches!(parts_of(&[&part(head, "v"), "--b0--"]), Err(Refusal::BadRequest(_))), "{head}");
        }
        for text in ["--b0", "--b0 \r\n", "--b0x", "--b0\r\n\r\nv\r\n--b0--"] {
            assert!(matches!(parts_of(&[text]), Err(Refusal::BadRequest(_))), "{text}");
        }
        assert!(parts_of(&["--b0\r\nContent-Disposition: form-data; name=a\r\n\r\n--b0--"]).is_err(), "no value");
    }

    proptest! {
        #[test]
        fn a_boundary_is_found_wherever_the_pieces_end(text in "[ab]{0,40}", cuts in proptest::collection::vec(0..40_usize, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| bytes::Bytes::copy_from_slice(&text.as_bytes()[ends[0]..ends[1]]));
            let body = RequestBody::default().with_pieces(pieces.collect());
            prop_assert_eq!(find(&body, 0, &memmem::Finder::new("abbab")), text.find("abbab"));
        }
    }
}
