//! The parts of a `multipart/form-data` body (RFC 7578): their names and positions. The contents of files are skipped.
//!
//! The parser is strict, so that an accepted form has only one meaning: a form whose parts could have other names for a
//! backend is refused.

use std::borrow::Cow;

use memchr::memmem;

use super::body::RequestBody;
use super::body_view::{BodyMember, gather, slices};
use crate::gateway::bounds::{MEMBER_NAME, MOST_MEMBERS, PART_HEAD};
use crate::refusal::Refusal;

/// Longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// Most blanks between a boundary and the end of its line.
const MOST_PADDING: usize = 64;

/// Returns whether a body with this `Content-Type` is a form.
pub(super) fn is_form(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data")
}

/// Returns the boundary line, without its line end, between the parts of a body with this `Content-Type`. Returns
/// `None` if the type is not that of a form.
pub(super) fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(content_type).ok()?;
    let (_, parameters) = text.split_once(';').filter(|_| is_form(content_type))?;
    let parameters = read_parameters(parameters, Backslash::Plain)?;
    let mut boundaries = parameters.into_iter().filter(|(name, _)| name == "boundary");
    let (boundary, another) = (boundaries.next()?.1, boundaries.next());
    let is_legal = !boundary.contains('\\') && (1..=LONGEST_BOUNDARY).contains(&boundary.len());
    let fits = is_legal && another.is_none();
    fits.then(|| format!("--{boundary}").into_bytes())
}

/// Returns the offset of the first boundary line, and the parts; the `whole` of each begins with the boundary line before
/// it. Returns `None` if the body is not a complete form with this boundary. What comes before the first boundary and
/// after the last one has no meaning (RFC 2046, section 5.1.1).
///
/// # Errors
/// [`Refusal::BadRequest`] for an ambiguous form, or one with too many parts or too long a part head.
pub(super) fn parts(body: &RequestBody, line: &[u8]) -> Result<Option<(usize, Vec<BodyMember>)>, Refusal> {
    let delimiter = [b"\r\n", line].concat();
    let delimiter = memmem::Finder::new(&delimiter);
    let bytes_at = |at: usize, length: usize| gather(body, at..at + length);
    let start = match bytes_at(0, line.len()) == line {
        true => 0,
        false => match find(body, 0, &delimiter) {
            Some(at) => at + 2,
            None => return Ok(None),
        },
    };
    let (mut members, mut whole) = (Vec::new(), start);
    loop {
        let end_of_line = whole + line.len();
        let padding = bytes_at(end_of_line, MOST_PADDING).iter().take_while(|byte| b" \t".contains(byte)).count();
        let after = end_of_line + padding;
        match bytes_at(after, 2).as_slice() {
            b"\r\n" => {}
            b"--" if padding == 0 => return Ok(Some((start, members))),
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

/// Returns the name of a part from its head, or `None` if the name is longer than [`MEMBER_NAME`]. Only the name has to be
/// text: some clients write file names in other encodings than UTF-8.
///
/// # Errors
/// [`Refusal::BadRequest`] if the head is malformed, ambiguous, or has no name.
fn part_name(head: &[u8]) -> Result<Option<Cow<'static, str>>, Refusal> {
    let mut name = None;
    // What is no UTF-8 becomes a replacement character. No byte of ASCII does, so the structure stays the same.
    let text = String::from_utf8_lossy(head);
    if ["\r\n ", "\r\n\t"].iter().any(|fold| text.contains(fold)) {
        return refuse("a line in the head of a part of the form goes on in the next one");
    }
    for line in text.split("\r\n") {
        if line.contains(['\r', '\n', '\0']) {
            return refuse("the head of a part of the form has a line break or a NUL within a line");
        }
        let Some((field, value)) = line.split_once(':') else {
            return refuse("a line in the head of a part of the form has no colon");
        };
        if field.contains(char::is_whitespace) {
            return refuse("a line in the head of a part of the form has a blank before its colon");
        }
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            // Go's multipart reader decodes encoded parts, so such a part would have another value there.
            let plain = ["binary", "8bit", "7bit"].iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
            if !plain {
                return refuse("a part of the form has a Content-Transfer-Encoding: send it as it is");
            }
        }
        if !field.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        if name.replace(name_in_disposition(value, head)?).is_some() {
            return refuse("a part of the form has more than one Content-Disposition");
        }
    }
    let Some(name) = name else { return refuse("a part of the form has no Content-Disposition") };
    Ok((name.len() <= MEMBER_NAME).then_some(Cow::Owned(name)))
}

/// Returns the name in the value of a `Content-Disposition` of this head; see [`part_name`] for the errors.
fn name_in_disposition(value: &str, head: &[u8]) -> Result<String, Refusal> {
    let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return refuse("the Content-Disposition of a part of the form is not form-data");
    }
    let Some(parameters) = read_disposition(parameters) else {
        return refuse(
            "the Content-Disposition of a part of the form cannot be read: its parameters must be name=value or \
             name=\"value\", without a blank before the equals sign, and with semicolons in between",
        );
    };
    let mut names = parameters.into_iter().filter(|(name, _)| name.trim_end_matches('*') == "name");
    let (found, another) = (names.next(), names.next());
    let Some((parameter, name)) = found else { return refuse("a part of the form has no name") };
    if another.is_some() {
        return refuse("a part of the form has more than one name");
    }
    if parameter != "name" {
        return refuse("a part of the form has its name as name*=, and not as name=");
    }
    if name.contains('\\') {
        return refuse("the name of a part of the form has a backslash");
    }
    if name.contains(char::REPLACEMENT_CHARACTER) && str::from_utf8(head).is_err() {
        return refuse("the name of a part of the form is not UTF-8");
    }
    Ok(name)
}

fn refuse<T>(why: &str) -> Result<T, Refusal> {
    Err(Refusal::bad_request(why))
}

/// What a backslash in a quoted value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backslash {
    /// Itself, as in a path of Windows.
    Plain,
    /// It makes the next character a plain one (RFC 9110, section 5.6.4).
    Escape,
}

/// Reads the parameters of a `Content-Disposition`. Parsers disagree about a backslash, so a value with one is accepted
/// only where no parser could find another `name`: other values, such as that of `filename`, do not matter.
fn read_disposition(text: &str) -> Option<Vec<(String, String)>> {
    if !text.contains('\\') {
        return read_parameters(text, Backslash::Plain);
    }
    let parameters = read_parameters(text, Backslash::Escape).or_else(|| read_parameters(text, Backslash::Plain))?;
    let lower = text.to_ascii_lowercase();
    let is_name = |(at, _): &(usize, &str)| {
        let before = lower[..*at].chars().next_back();
        let after = lower[at + "name".len()..].trim_start_matches('*').trim_start();
        !before.is_some_and(is_token) && after.starts_with('=')
    };
    (lower.match_indices("name").filter(is_name).count() == 1).then_some(parameters)
}

fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

/// Splits a quoted value, without its opening quote, from what follows its closing quote.
fn split_quoted(text: &str, backslash: Backslash) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    let end = text.find(|c| {
        let closes = c == '"' && !is_escaped;
        is_escaped = backslash == Backslash::Escape && c == '\\' && !is_escaped;
        closes
    })?;
    Some((&text[..end], &text[end + 1..]))
}

/// Reads parameters of the form `name=value` or `name="value"`, separated by semicolons, and returns the names in lower
/// case. Returns `None` if the text has any other form.
fn read_parameters(text: &str, backslash: Backslash) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=')?;
        if name.is_empty() || !name.chars().all(is_token) {
            return None;
        }
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            // Browsers write %22 for a quote.
            Some(quoted) => {
                let (inner, after) = split_quoted(quoted, backslash)?;
                (inner, after.trim_start())
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
        Ok(parts.map(|(start, parts)| {
            let mut at = start;
            parts
                .into_iter()
                .map(|part| {
                    assert_eq!(part.whole.start, at, "each part begins where the one before it ends");
                    at = part.whole.end;
                    (part.name.unwrap().into_owned(), text(part.value))
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
    fn what_stands_before_the_first_and_after_the_last_boundary_has_no_meaning() {
        let form = field("model", "m") + &field("p", "1") + "--b0--";
        let expected = [("model", "m"), ("p", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for before in ["", "\r\n", "This is a form.\r\n", "\r\n\r\n", "-\r\n--b\r\n"] {
            for after in ["", "\r\n", "\r\nThe end.\r\n--b0\r\n", "--b0\r\nContent-Disposition: form-data; name=a"] {
                let text = format!("{before}{form}{after}");
                assert_eq!(parts_of(&[&text]), Ok(Some(expected.clone())), "{text:?}");
            }
        }
        let padded = form.replacen("--b0\r\n", "--b0 \t\r\n", 2);
        assert_eq!(parts_of(&[&padded]), Ok(Some(expected)), "blanks after a boundary");
    }

    #[test]
    fn a_file_name_may_have_a_backslash_and_a_quote() {
        for parameters in [
            r#"name="file"; filename="C:\dir\a.wav""#,
            r#"name="file"; filename="a\"b.wav""#,
            r#"filename="a\\"; name=file"#,
            r#"name="file"; filename="C:\dir\""#,
            r#"filename="C:\dir\"; name="file""#,
            r#"name="file"; filename="\\host\share\name.wav""#,
            r#"name="file"; filename="a\"; filename*=utf-8''a"#,
        ] {
            let text = part(&format!("Content-Disposition: form-data; {parameters}"), "RIFF") + "--b0--";
            let expected = vec![("file".to_owned(), "RIFF".to_owned())];
            assert_eq!(parts_of(&[&text]), Ok(Some(expected)), "{parameters}");
        }
        for parameters in [
            r#"name="a\"b"; filename=x"#,
            r#"name="a\b""#,
            r#"name=a; filename="x\"; name="model""#,
            r#"filename="x\"; name=model; y="; name=a"#,
            r#"filename="x\"; name*=utf-8''model; y="; name=a"#,
            r#"name=a; filename="x\"; NAME =model; y=""#,
            r#"name=a; filename="\"#,
        ] {
            let text = part(&format!("Content-Disposition: form-data; {parameters}"), "RIFF") + "--b0--";
            assert!(matches!(parts_of(&[&text]), Err(Refusal::BadRequest(_))), "{parameters}");
        }
    }

    /// Returns the name of a part with this head, or what is said of the head.
    fn name_or_reason(head: &[u8]) -> Result<String, String> {
        match part_name(head) {
            Ok(name) => Ok(name.unwrap().into_owned()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    #[test]
    fn a_form_with_a_file_name_in_another_encoding_than_utf_8_was_refused() {
        for name in [&b"\xe4.wav"[..], b"\x83\x5c.wav", b"\xff\xfe", b"a\xc3.wav", b"\xe4\x22; x=\"y"] {
            for (before, after) in [("name=file; filename=\"", "\""), ("filename=\"", "\"; name=\"file\"")] {
                let start = format!("Content-Disposition: form-data; {before}");
                let head = [start.as_bytes(), name, after.as_bytes(), b"\r\nX-Note: \xe4"].concat();
                assert_eq!(name_or_reason(&head), Ok("file".to_owned()), "{}", head.escape_ascii());
            }
        }
        let in_name = name_or_reason(b"Content-Disposition: form-data; name=\"\xe4\"");
        assert!(in_name.as_ref().is_err_and(|reason| reason.contains("is not UTF-8")), "{in_name:?}");
        let hidden = name_or_reason(b"Content-Disposition: form-data; name=a; filename=\"\xe4\"; name=\"model\"");
        assert!(hidden.as_ref().is_err_and(|reason| reason.contains("more than one name")), "{hidden:?}");
    }

    #[test]
    fn ten_faults_of_a_forms_part_had_one_sentence() {
        let good = "Content-Disposition: form-data; name=a";
        for (head, reason) in [
            ("Content-Type: text/plain", "no Content-Disposition"),
            ("Content-Disposition", "no colon"),
            ("Content-Disposition : form-data; name=a", "blank before its colon"),
            ("Content-Disposition: form-data;\r\n\tname=a:b", "goes on in the next one"),
            ("Content-Disposition: form-data;\r\n name=a", "goes on in the next one"),
            (&format!("X: a\nb\r\n{good}"), "line break or a NUL"),
            (&format!("{good}\r\nContent-Transfer-Encoding: base64"), "Content-Transfer-Encoding"),
            ("Content-Disposition: attachment; name=a", "not form-data"),
            ("Content-Disposition: form-data", "has no name"),
            ("Content-Disposition: form-data; filename=a", "has no name"),
            ("Content-Disposition: form-data; name = \"x\"", "without a blank before the equals sign"),
            ("Content-Disposition: form-data; name=a; name=b", "more than one name"),
            (&format!("{good}\r\n{good}"), "more than one Content-Disposition"),
            ("Content-Disposition: form-data; name*=utf-8''b", "name*="),
            ("Content-Disposition: form-data; name=\"a\\b\"", "backslash"),
        ] {
            let found = name_or_reason(head.as_bytes());
            assert!(found.as_ref().is_err_and(|found| found.contains(reason)), "{head}: {found:?}");
        }
    }

    #[test]
    fn a_body_that_is_not_a_form_of_this_boundary_has_no_parts() {
        for text in
            ["", "{}", "--b1\r\n", "\n--b0--", "x--b0--", &part("Content-Disposition: form-data; name=a", "")[..40]]
        {
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
        for text in ["--b0", "--b0 ", "--b0 --", "--b0x", "\r\n--b0x", "--b0\r\n\r\nv\r\n--b0--"] {
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
