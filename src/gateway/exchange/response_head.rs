//! The head of a worker's response: its grammar, the framing of the body after it, and whether the connection stays open.
//! Headers that are about the connection or the worker end here.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};

use super::body_reader::BodyReader;
use crate::dial::NotHttp;
use crate::gateway::bounds::WORKER_HEADERS;
use crate::gateway::connection::head::{header_name, parse_content_length};
use crate::gateway::content_kind::ContentKind;
use crate::gateway::headers::{is_kept_from_client, is_own_option};
use crate::gateway::spare_memory;

/// Headers that the gateway adds to most responses: the map has room for them, and need not grow.
pub(super) const ADDED_HEADERS: usize = 8;

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
    while let Some(head) = read_one(bytes, passed, method)? {
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

/// Reads the head that begins at the offset `from`.
fn read_one(bytes: &Bytes, from: usize, method: &Method) -> Result<Option<ResponseHead>, NotHttp> {
    let mut lines = [const { MaybeUninit::uninit() }; WORKER_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &bytes[from..], &mut lines);
    let Status::Complete(length) = outcome.map_err(|_| NotHttp)? else { return Ok(None) };
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else { return Err(NotHttp) };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| NotHttp)?;
    *response.version_mut() = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let lines = HeaderLines(parsed.headers);
    let (body, has_both) = framing(&response, lines, method)?;
    let may_stay = body != BodyReader::UntilClose && !has_both;
    let keeps_open = may_stay && keeps_open(lines, response.version());
    // The body of JSON tells its length where that is asked for. That of a stream is given up: events may be added to it.
    let content_type = lines.values("content-type").next();
    let is_json = content_type.is_some_and(|kind| ContentKind::of_value(kind) == ContentKind::Json);
    let is_told_by_body = is_json && matches!(body, BodyReader::Length(1..));
    *response.headers_mut() = headers_for_client(lines, bytes, has_both || is_told_by_body)?;
    Ok(Some(ResponseHead { response, body, keeps_open, length }))
}

/// Returns the headers without those that are about this connection or this worker. A `Content-Length` is left out too where
/// it is not that of the body, or the body tells it: in the map it takes 400 instructions.
fn headers_for_client(lines: HeaderLines<'_>, bytes: &Bytes, leaves_out_length: bool) -> Result<HeaderMap, NotHttp> {
    let mut headers = spare_memory::header_map(lines.0.len() + ADDED_HEADERS);
    let is_left_out = |name: &str| leaves_out_length && name.eq_ignore_ascii_case("content-length");
    for line in lines.0.iter().filter(|line| !is_left_out(line.name) && !is_kept_from_client(line.name)) {
        let value = match usual_value(line.value) {
            Some(value) => value,
            None => HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| NotHttp)?,
        };
        headers.append(header_name(line.name.as_bytes()).ok_or(NotHttp)?, value);
    }
    for option in lines.items("connection").filter(|option| !is_own_option(option)) {
        if let Ok(name) = HeaderName::from_bytes(option) {
            headers.remove(name);
        }
    }
    Ok(headers)
}

/// Returns the value of a header if it is one of the types that llama-server sends. Any other shares the bytes of the head,
/// and has to count who holds them.
pub(super) fn usual_value(value: &[u8]) -> Option<HeaderValue> {
    // Checked when the gateway is built.
    match value {
        b"application/json; charset=utf-8" => {
            Some(const { HeaderValue::from_static("application/json; charset=utf-8") })
        }
        b"application/json" => Some(const { HeaderValue::from_static("application/json") }),
        b"text/event-stream" => Some(const { HeaderValue::from_static("text/event-stream") }),
        _ => None,
    }
}

/// The header lines of a head, whose names may have capital letters.
#[derive(Clone, Copy)]
struct HeaderLines<'a>(&'a [httparse::Header<'a>]);

impl<'a> HeaderLines<'a> {
    /// Returns the values of the header with this name.
    fn values(self, name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let lines = self.0.iter();
        lines.filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
    }

    /// Returns the items of the lists that are the values of the header with this name (RFC 9110, section 5.6.1).
    fn items(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }
}

/// Returns how the body after a head is framed (RFC 9112, section 6.3), and whether the head has a length and codings too:
/// then the length is not that of the body, and what a worker sends after it is not trusted.
fn framing(response: &Response<()>, lines: HeaderLines<'_>, method: &Method) -> Result<(BodyReader, bool), NotHttp> {
    let status = response.status();
    let has_length = lines.values("content-length").next().is_some();
    let coding = lines.values("transfer-encoding").next_back();
    let has_both = has_length && coding.is_some();
    let has_none = status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    if has_none || method == Method::HEAD {
        return Ok((BodyReader::Length(0), has_both));
    }
    let body = match coding {
        // HTTP/1.0 has no transfer codings.
        Some(_) if response.version() == Version::HTTP_10 => return Err(NotHttp),
        Some(codings) if ends_with_chunked(codings) => BodyReader::chunked(),
        Some(_) => BodyReader::UntilClose,
        None => announced_length(lines)?.map_or(BodyReader::UntilClose, BodyReader::Length),
    };
    Ok((body, has_both))
}

/// Returns the length that a head announces, if it does. Plain loops: with iterators of the lists' items it took six times
/// as long.
fn announced_length(lines: HeaderLines<'_>) -> Result<Option<u64>, NotHttp> {
    let mut announced = None;
    for value in lines.values("content-length") {
        for item in value.split(|byte| *byte == b',') {
            let length = parse_content_length(item.trim_ascii()).ok_or(NotHttp)?;
            // A list that repeats one length is that length.
            if *announced.get_or_insert(length) != length {
                return Err(NotHttp);
            }
        }
    }
    Ok(announced)
}

/// Whether the last coding of a list is `chunked`.
fn ends_with_chunked(codings: &[u8]) -> bool {
    let coding = codings.rsplit(|byte| *byte == b',').next();
    coding.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// Whether a worker leaves the connection open (RFC 9112, section 9.3).
fn keeps_open(lines: HeaderLines<'_>, version: Version) -> bool {
    let (mut has_close, mut has_keep_alive) = (false, false);
    for option in lines.items("connection") {
        has_close |= option.eq_ignore_ascii_case(b"close");
        has_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    !has_close && (version != Version::HTTP_10 || has_keep_alive)
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;
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
    fn headers_about_the_connection_or_the_worker_are_left_out() {
        let lines = "HTTP/1.1 200 OK\r\nServer: x\r\nX-Kept: 1\r\nConnection: Keep-Alive, X-Private\r\nx-private: 1\r\n\
                     Keep-Alive: timeout=5\r\nTRANSFER-ENCODING: chunked\r\nAccess-Control-Allow-Origin: *\r\nTrailer: a\r\n";
        let head = head(Method::POST, lines).unwrap().unwrap();
        assert_eq!(head.response.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn a_length_that_the_body_tells_is_no_header() {
        let has_length = |method, kind: &str, length: u64| {
            let lines = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nContent-Length: {length}\r\n");
            head(method, &lines).unwrap().unwrap().response.headers().contains_key(CONTENT_LENGTH)
        };
        assert!(!has_length(Method::POST, "application/json; charset=utf-8", 5));
        assert!(!has_length(Method::POST, "application/json;charset=x", 5));
        assert!(!has_length(Method::POST, "Application/JSON", 5));
        assert!(has_length(Method::HEAD, "application/json", 5) && has_length(Method::POST, "application/json", 0));
        assert!(has_length(Method::POST, "text/event-stream", 5) && has_length(Method::POST, "text/plain", 5));
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
