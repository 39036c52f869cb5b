//! The parts of a `multipart/form-data` body (RFC 7578): their names and where they stand. Files are passed over.
//!
//! Strict, so that what passes can be read in one way only: a form whose parts could have other names for a backend is
//! refused.

use super::body::RequestBody;
use super::body_view::{BodyMember, gather, slices};
use crate::gateway::bounds::{MEMBER_NAME, MOST_MEMBERS, PART_HEAD};
use crate::refusal::Refusal;
use memchr::memmem;

/// Longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// The line that divides the parts of a body with this Content-Type, without its end; none if it is no form.
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

/// The parts, as members whose `whole` begins with the line before them; none if this is no form of that boundary.
pub(super) fn parts(body: &RequestBody, line: &[u8]) -> Result<Option<Vec<BodyMember>>, Refusal> {
    let divider = [b"\r\n", line].concat();
    let divider = memmem::Finder::new(&divider);
    let here = |at: usize, length: usize| gather(body, at..at + length);
    if here(0, line.len()) != line {
        return Ok(None);
    }
    let (mut members, mut whole) = (Vec::new(), 0);
    loop {
        let behind = whole + line.len();
        match here(behind, 2).as_slice() {
            b"\r\n" => {}
            b"--" => return Ok(Some(members)),
            _ => return Err(Refusal::bad_request("a boundary of the form is followed by something else")),
        }
        let head = here(behind + 2, PART_HEAD);
        let Some(length) = memmem::find(&head, b"\r\n\r\n") else {
            return Err(Refusal::bad_request("a part of the form has too long a head, or none"));
        };
        let name = part_name(&head[..length])?;
        let value = behind + 2 + length + 4;
        if here(value, line.len()) == line {
            return Err(Refusal::bad_request("a part of the form has no value"));
        }
        let Some(end) = find(body, value, &divider) else { return Ok(None) };
        if members.len() == MOST_MEMBERS {
            return Err(Refusal::bad_request(format!("the form has more than {MOST_MEMBERS} parts")));
        }
        let next = end + 2;
        members.push(BodyMember { name, whole: whole..next, value: value..end, first: 0 });
        whole = next;
    }
}

/// Where something stands first, from a place on, in whatever pieces.
fn find(body: &RequestBody, from: usize, finder: &memmem::Finder<'_>) -> Option<usize> {
    let overlap = finder.needle().len() - 1;
    let (mut at, mut tail) = (from, Vec::new());
    for piece in slices(body, from..usize::MAX) {
        // What began in the pieces before.
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

/// The name that the head of a part gives it, unless it is longer than any that matters.
fn part_name(head: &[u8]) -> Result<Option<Box<str>>, Refusal> {
    let odd = || Refusal::bad_request("the head of a part of the form cannot be read");
    let head = str::from_utf8(head).map_err(|_| odd())?;
    let mut name = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or_else(odd)?;
        if line.contains(['\r', '\n', '\0']) || field.contains(char::is_whitespace) {
            return Err(odd());
        }
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            // Go decodes what is encoded.
            let plain = ["binary", "8bit", "7bit"].iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
            plain.then_some(()).ok_or_else(odd)?;
        }
        if !field.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let (kind, parameters) = value.split_once(';').ok_or_else(odd)?;
        let parameters = read_parameters(parameters).ok_or_else(odd)?;
        let mut names = parameters.into_iter().filter(|(name, _)| name.trim_end_matches('*') == "name");
        let (found, another) = (names.next().ok_or_else(odd)?, names.next());
        let is_plain = kind.trim().eq_ignore_ascii_case("form-data") && found.0 == "name";
        if !is_plain || another.is_some() || name.is_some() {
            return Err(odd());
        }
        name = Some(found.1);
    }
    let name = name.ok_or_else(odd)?;
    Ok((name.len() <= MEMBER_NAME).then(|| name.into_boxed_str()))
}

/// `name=value` or `name="value"`, divided by semicolons; names in lower case. None if it is anything else.
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
        let (value, behind) = match value.strip_prefix('"') {
            // Browsers write %22 for a quote; a backslash is read in two ways.
            Some(quoted) => {
                let (inner, behind) = quoted.split_once('"')?;
                (Some(inner).filter(|inner| !inner.contains('\\'))?, behind.trim_start())
            }
            None => {
                let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
                (Some(&value[..end]).filter(|token| !token.is_empty())?, value[end..].trim_start())
            }
        };
        found.push((name.to_ascii_lowercase(), value.to_owned()));
        rest = match behind.strip_prefix(';') {
            Some(more) => more.trim_start(),
            None if behind.is_empty() => behind,
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

    /// The names and values of the parts.
    fn of(pieces: &[&str]) -> Result<Option<Vec<(String, String)>>, Refusal> {
        let body = RequestBody::from_pieces(pieces);
        let text = |range| String::from_utf8(gather(&body, range)).unwrap();
        let parts = parts(&body, &boundary(TYPE).unwrap())?;
        Ok(parts.map(|parts| {
            let mut at = 0;
            parts
                .into_iter()
                .map(|part| {
                    assert_eq!(part.whole.start, at, "one follows the other");
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
    fn parts_are_found_whatever_pieces_they_come_in() {
        let file = "RIFF\r\n--b\r\n\r\n--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx";
        let head =
            "content-type: audio/wav\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;name=b.wav\"";
        let text = [field("model", "m"), part(head, file), field("\"p\"", ""), "--b0--\r\n".to_owned()].concat();
        let expected = [("model", "m"), ("file", file), ("p", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(of(&[&text]), Ok(Some(expected.clone())));
        for cut in 0..text.len() {
            for second in [cut, cut + 1, cut + 7] {
                let second = second.min(text.len());
                let pieces = [&text[..cut], &text[cut..second], &text[second..]];
                assert_eq!(of(&pieces), Ok(Some(expected.clone())), "{cut} {second}");
            }
        }
    }

    #[test]
    fn a_body_that_is_no_such_form_has_no_parts() {
        for text in ["", "{}", "--b1\r\n", "\r\n--b0--", &part("Content-Disposition: form-data; name=a", "")[..40]] {
            let refused_or_none = of(&[text]).map_or(None, |parts| parts);
            assert_eq!(refused_or_none, None, "{text}");
        }
        assert_eq!(of(&["--b0\r\nContent-Disposition: form-data; name=a\r\n\r\nvalue"]), Ok(None));
    }

    #[test]
    fn a_form_that_can_be_read_in_two_ways_is_refused() {
        let good = "Content-Disposition: form-data; name=a";
        assert!(of(&[&part(&format!("{good}\r\nContent-Transfer-Encoding: binary"), ""), "--b0--"]).is_ok());
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
            assert!(matches!(of(&[&part(head, "v"), "--b0--"]), Err(Refusal::BadRequest(_))), "{head}");
        }
        for text in ["--b0", "--b0 \r\n", "--b0x", "--b0\r\n\r\nv\r\n--b0--"] {
            assert!(matches!(of(&[text]), Err(Refusal::BadRequest(_))), "{text}");
        }
        assert!(of(&["--b0\r\nContent-Disposition: form-data; name=a\r\n\r\n--b0--"]).is_err(), "no value");
    }

    proptest! {
        #[test]
        fn a_divider_is_found_wherever_the_pieces_end(text in "[ab]{0,40}", cuts in proptest::collection::vec(0..40_usize, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| bytes::Bytes::copy_from_slice(&text.as_bytes()[ends[0]..ends[1]]));
            let body = RequestBody::default().with_pieces(pieces.collect());
            prop_assert_eq!(find(&body, 0, &memmem::Finder::new("abbab")), text.find("abbab"));
        }
    }
}
