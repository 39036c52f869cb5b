//! The head of a worker's response: its grammar, the framing of the body after it, and whether the connection stays open.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};

use super::body_reader::BodyReader;
use crate::dial::NotHttp;
use crate::gateway::bounds::WORKER_HEADERS;

/// Headers that the gateway adds to most responses: the map has room for them, and need not grow.
const ADDED_HEADERS: usize = 8;

/// A head that has been read.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    pub(super) body: BodyReader,
    /// Whether the worker leaves the connection open after the body.
    pub(super) keeps_open: bool,
    /// Bytes of the head, with the empty line that ends it.
    pub(super) length: usize,
}

/// Returns whether an empty line ends the head in these bytes, of which the first `known` were in an earlier look.
pub(super) fn has_end(bytes: &[u8], known: usize) -> bool {
    let from = known.saturating_sub(b"\n\r".len());
    memchr::memchr_iter(b'\n', &bytes[from..])
        .any(|at| matches!(&bytes[from + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Reads the final head of the response to a request with this method, if it is in these bytes: those of informational
/// responses before it are skipped (RFC 9110, section 15.2).
///
/// # Errors
/// [`NotHttp`] if these are no heads of HTTP/1, or the length of the body is not clear.
pub(super) fn read(bytes: &Bytes, method: &Method) -> Result<Option<ResponseHead>, NotHttp> {
    let mut passed = 0;
    while let Some(head) = read_one(&bytes.slice(passed..), method)? {
        let status = head.response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Nothing asks for another protocol.
            return Err(NotHttp);
        }
        if !status.is_informational() {
            return Ok(Some(ResponseHead { length: passed + head.length, ..head }));
        }
        passed += head.length;
    }
    Ok(None)
}

fn read_one(bytes: &Bytes, method: &Method) -> Result<Option<ResponseHead>, NotHttp> {
    let mut lines = [const { MaybeUninit::uninit() }; WORKER_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut lines);
    let Status::Complete(length) = outcome.map_err(|_| NotHttp)? else { return Ok(None) };
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(NotHttp) };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| NotHttp)?;
    *response.version_mut() = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let headers = response.headers_mut();
    headers.reserve(parsed.headers.len() + ADDED_HEADERS);
    // Noted on the way: a lookup of each name would cost more.
    let (mut has_codings, mut has_options) = (false, false);
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| NotHttp)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| NotHttp)?;
        has_codings |= name == TRANSFER_ENCODING;
        has_options |= name == CONNECTION;
        headers.append(name, value);
    }
    // Where both are there the length is not that of the body, and what a worker sends after it is not trusted (RFC 9112,
    // section 6.3).
    let has_both = has_codings && headers.remove(CONTENT_LENGTH).is_some();
    let body = framing(&response, has_codings, method)?;
    let may_stay = body != BodyReader::UntilClose && !has_both;
    let keeps_open = may_stay
        && match has_options {
            true => keeps_open(response.headers(), response.version()),
            false => response.version() != Version::HTTP_10,
        };
    Ok(Some(ResponseHead { response, body, keeps_open, length }))
}

/// Returns how the body after a head is framed (RFC 9112, section 6.3). `has_codings` says whether the head has a
/// `Transfer-Encoding`.
fn framing(response: &Response<()>, has_codings: bool, method: &Method) -> Result<BodyReader, NotHttp> {
    let (status, headers) = (response.status(), response.headers());
    let has_none = status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    if has_none || method == Method::HEAD {
        return Ok(BodyReader::Length(0));
    }
    if has_codings {
        return match response.version() {
            // HTTP/1.0 has no transfer codings.
            Version::HTTP_10 => Err(NotHttp),
            _ if is_chunked(headers) => Ok(BodyReader::chunked()),
            _ => Ok(BodyReader::UntilClose),
        };
    }
    let mut lengths =
        headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let Some(first) = lengths.next() else { return Ok(BodyReader::UntilClose) };
    let first = content_length(first)?;
    // A list that repeats one length is that length.
    match lengths.all(|length| content_length(length).is_ok_and(|length| length == first)) {
        true => Ok(BodyReader::Length(first)),
        false => Err(NotHttp),
    }
}

fn content_length(text: &[u8]) -> Result<u64, NotHttp> {
    let text = text.trim_ascii();
    // `parse` would take a sign too.
    let digits =
        Some(text).filter(|text| text.iter().all(u8::is_ascii_digit)).and_then(|text| str::from_utf8(text).ok());
    digits.and_then(|digits| digits.parse().ok()).ok_or(NotHttp)
}

/// Whether the last coding is `chunked`.
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back().map(HeaderValue::as_bytes);
    let coding = last.and_then(|codings| codings.rsplit(|byte| *byte == b',').next());
    coding.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Whether a worker leaves the connection open (RFC 9112, section 9.3).
fn keeps_open(headers: &HeaderMap, version: Version) -> bool {
    let options = || headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let has = |name: &[u8]| options().any(|option| option.trim_ascii().eq_ignore_ascii_case(name));
    !has(b"close") && (version != Version::HTTP_10 || has(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(method: Method, lines: &str) -> Result<Option<ResponseHead>, NotHttp> {
        read(&Bytes::from(format!("{lines}\r\n")), &method)
    }

    fn framed(method: Method, lines: &str) -> Option<BodyReader> {
        head(method, lines).ok().map(|head| head.expect("a whole head").body)
    }

    /// A length beside chunks was sent to the client with a body of another length.
    #[test]
    fn a_length_beside_chunks_is_dropped_and_the_connection_closed() {
        let lines = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        let both = head(Method::POST, lines).unwrap().unwrap();
        assert!(!both.response.headers().contains_key(CONTENT_LENGTH) && !both.keeps_open);
    }

    #[test]
    fn the_body_is_framed_as_the_standard_says() {
        let with = |lines: &str| framed(Method::POST, &format!("HTTP/1.1 200 OK\r\n{lines}"));
        assert_eq!(with(""), Some(BodyReader::UntilClose));
        assert_eq!(with("Content-Length: 5\r\n"), Some(BodyReader::Length(5)));
        assert_eq!(with("Content-Length: 5, 5\r\nContent-Length: 5\r\n"), Some(BodyReader::Length(5)));
        for chunked in ["chunked", "gzip, Chunked", "gzip\r\nTransfer-Encoding: chunked"] {
            let lines = format!("Content-Length: 5\r\nTransfer-Encoding: {chunked}\r\n");
            assert_eq!(with(&lines), Some(BodyReader::chunked()), "{chunked}");
        }
        assert_eq!(with("Transfer-Encoding: chunked, gzip\r\n"), Some(BodyReader::UntilClose));
        for status in ["204 No Content", "304 Not Modified"] {
            let lines = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n");
            assert_eq!(framed(Method::POST, &lines), Some(BodyReader::Length(0)));
        }
        assert_eq!(framed(Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), Some(BodyReader::Length(0)));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_response() {
        for lines in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n",
            "HTTP/2 200 OK\r\n",
            "SSH-2.0-OpenSSH_9.6\r\n",
        ] {
            assert!(head(Method::POST, lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_connection_stays_open_unless_the_worker_says_that_it_closes() {
        for (lines, stays) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n", false),
            ("HTTP/1.1 200 OK\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n", true),
        ] {
            assert_eq!(head(Method::POST, lines).unwrap().unwrap().keeps_open, stays, "{lines:?}");
        }
    }

    #[test]
    fn informational_heads_are_skipped() {
        let first = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let found = head(Method::POST, &format!("{first}HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n")).unwrap().unwrap();
        assert_eq!((found.response.status(), found.response.headers().len()), (StatusCode::SERVICE_UNAVAILABLE, 1));
        assert!(head(Method::POST, "HTTP/1.1 100 Continue\r\n").unwrap().is_none());
    }

    #[test]
    fn too_many_headers_are_no_response() {
        let lines = |count: usize| format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(count));
        assert!(head(Method::POST, &lines(WORKER_HEADERS)).is_ok());
        assert!(head(Method::POST, &lines(WORKER_HEADERS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn the_end_of_a_head_is_found_wherever_it_is_cut(cut in 0..64_usize, end in "\r\n\r\n|\n\n|\n\r\n") {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 5{end}");
            let cut = cut.min(text.len());
            prop_assert!(has_end(text.as_bytes(), cut) || has_end(&text.as_bytes()[..cut], 0));
            prop_assert!(!has_end(&text.as_bytes()[..text.len() - 1], 0));
        }

        #[test]
        fn arbitrary_bytes_do_not_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes.into(), &Method::POST);
        }
    }
}
