//! Recognises the head of a response that differs from an earlier one in the length of the body only, as nearly all heads of
//! llama-server's JSON do.
//!
//! What was read of the earlier head then holds for this one, and it need not be parsed. Holds whatever worker has sent
//! either, because nothing but its bytes decides what a head says.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use memchr::memmem;

use super::body_reader::BodyReader;
use super::response_head::{self, ADDED_HEADERS, ResponseHead, usual_value};
use crate::dial::NotHttp;
use crate::gateway::bounds::KNOWN_HEAD_SIZE;
use crate::gateway::connection::head::parse_content_length;
use crate::gateway::spare_memory;

/// What stands before the length of the body.
const LENGTH_LINE: &[u8] = b"\r\nContent-Length: ";

thread_local! {
    /// The last head that others may resemble. All llama-servers of one version write the same.
    static KNOWN: RefCell<Option<KnownHead>> = const { RefCell::new(None) };
}

/// The head of a successful response that keeps its connection open, and of which the client gets one header.
struct KnownHead {
    /// Its bytes before the length of the body.
    before: Vec<u8>,
    /// Its bytes after that.
    after: Vec<u8>,
    content_type: HeaderValue,
}

/// Does what [`response_head::read`] does, without parsing where the head is known.
///
/// # Errors
/// As there.
pub(super) fn read(bytes: &Bytes, method: &Method) -> Result<Option<ResponseHead>, NotHttp> {
    if let Some(head) = KNOWN.with_borrow(|known| known.as_ref()?.read(bytes, method)) {
        return Ok(Some(head));
    }
    let found = response_head::read(bytes, method)?;
    if let Some(known) = found.as_ref().and_then(|head| KnownHead::of(&bytes[..head.length], head)) {
        KNOWN.set(Some(known));
    }
    Ok(found)
}

impl KnownHead {
    /// Takes a head with these bytes, if it is short and others may differ from it in the length only.
    fn of(bytes: &[u8], head: &ResponseHead) -> Option<Self> {
        let ResponseHead { response, body, keeps_open, .. } = head;
        let is_usual = response.status() == StatusCode::OK && response.version() == Version::HTTP_11 && *keeps_open;
        let (headers, is_short) = (response.headers(), bytes.len() <= KNOWN_HEAD_SIZE);
        if !is_short || !is_usual || headers.len() != 1 || !matches!(body, BodyReader::Length(1..)) {
            return None;
        }
        let content_type = usual_value(headers.get(CONTENT_TYPE)?.as_bytes())?;
        // Sought before the copy below, which each response of another server than llama.cpp's would pay for.
        let (before, rest) = bytes.split_at(memmem::find(bytes, LENGTH_LINE)? + LENGTH_LINE.len());
        // A second length would have to be the same.
        if memmem::find_iter(&bytes.to_ascii_lowercase(), b"content-length").count() != 1 {
            return None;
        }
        let after = &rest[digits_in(rest)..];
        after.starts_with(b"\r\n").then(|| Self { before: before.to_vec(), after: after.to_vec(), content_type })
    }

    /// Returns the head at the beginning of the response to a request with this method, if it differs in the length only.
    fn read(&self, bytes: &[u8], method: &Method) -> Option<ResponseHead> {
        let rest = bytes.strip_prefix(self.before.as_slice())?;
        let (digits, rest) = rest.split_at(digits_in(rest));
        if !rest.starts_with(&self.after) || *method == Method::HEAD {
            return None;
        }
        // The header of an empty body is passed on.
        let length = parse_content_length(digits).filter(|length| *length > 0)?;
        let mut response = Response::new(());
        let mut headers = spare_memory::header_map(1 + ADDED_HEADERS);
        headers.append(CONTENT_TYPE, self.content_type.clone());
        *response.headers_mut() = headers;
        let body = BodyReader::Length(length);
        Some(ResponseHead { response, body, keeps_open: true, length: bytes.len() - rest.len() + self.after.len() })
    }
}

/// Returns how many digits these bytes begin with.
fn digits_in(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: application/json; charset=utf-8\r\n";

    /// Reads a head with these last lines. Returns what is known then.
    fn known_after(lines: &str) -> Option<KnownHead> {
        read(&Bytes::from(format!("{HEAD}{lines}\r\n\r\n")), &Method::POST).unwrap();
        KNOWN.take()
    }

    #[test]
    fn a_head_with_another_length_is_known() {
        let known = known_after("Content-Length: 7").unwrap();
        let next = format!("{HEAD}Content-Length: 123\r\n\r\n{{}}");
        let found = known.read(next.as_bytes(), &Method::POST).unwrap();
        assert_eq!((found.body, found.length), (BodyReader::Length(123), next.len() - 2));
        for other in ["Content-Length: 0\r\n\r\n", "Content-Length: 1, 1\r\n\r\n", "Content-Length: 1\r\n", ""] {
            assert!(known.read(format!("{HEAD}{other}").as_bytes(), &Method::POST).is_none(), "{other:?}");
        }
        assert!(known.read(next.as_bytes(), &Method::HEAD).is_none());
    }

    #[test]
    fn a_head_that_says_more_is_not_remembered() {
        for lines in ["Content-Length: 7\r\nContent-Length: 7", "X: 1\r\nContent-Length: 7", "Content-Length:7"] {
            assert!(known_after(lines).is_none(), "{lines:?}");
        }
    }

    #[test]
    fn a_long_head_is_not_remembered() {
        let known_with = |more: usize| known_after(&format!("Server: {}\r\nContent-Length: 7", "x".repeat(more)));
        let room = KNOWN_HEAD_SIZE - HEAD.len() - "Server: \r\nContent-Length: 7\r\n\r\n".len();
        assert!(known_with(room).is_some());
        assert!(known_with(room + 1).is_none());
    }

    proptest! {
        #[test]
        fn a_known_head_says_what_it_would_if_it_were_parsed(
            status in prop::sample::select(vec!["200 OK", "201 Created", "204 No Content"]),
            before in prop::sample::select(vec!["", "X-A: 1\r\n", "Content-Type: application/json\r\n", "Server: x\r\n"]),
            after in prop::sample::select(vec!["", "content-length: 7\r\n", "Connection: close\r\n", "Server: x\r\n"]),
            lengths in prop::collection::vec("0|1|7|7, 7|007|18446744073709551614|99999999999999999999|x", 2..4),
            is_head: bool,
        ) {
            let method = if is_head { Method::HEAD } else { Method::POST };
            for length in lengths {
                let text = format!("HTTP/1.1 {status}\r\n{before}Content-Length: {length}\r\n{after}\r\nhi");
                let (bytes, again) = (Bytes::from(text.clone()), Bytes::from(text));
                let [one, other] = [read(&bytes, &method), response_head::read(&again, &method)];
                prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
            }
        }
    }
}
