//! A checked head, and the body that has arrived with it, as a request.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use memchr::memchr;

use super::{HeaderLine, header_name, trim};

/// The request line of a request that asks for no more than a response: GET or POST, over HTTP/1.1.
pub(in crate::gateway::connection) struct UsualRequestLine {
    method: Method,
    /// Where the target is in the bytes of the request.
    target: Range<usize>,
}

/// Whether a head that [`HeadScanner`](super::HeadScanner) has passed, and whose header lines it has found there, asks for
/// more than a response: by `Expect` or by `Connection`.
pub(in crate::gateway::connection) fn asks_for_more(head: &[u8], lines: &[HeaderLine]) -> bool {
    let is_special = |line: &HeaderLine| {
        let (name, value) = (&head[line.start..line.colon], &head[line.colon + 1..line.end]);
        match name.len() {
            6 => name.eq_ignore_ascii_case(b"expect"),
            10 => name.eq_ignore_ascii_case(b"connection") && !trim(value).eq_ignore_ascii_case(b"keep-alive"),
            _ => false,
        }
    };
    lines.iter().any(is_special)
}

/// Returns the request in these bytes, which begin with a head of this length and with this request line, and do not [ask
/// for more than a response](asks_for_more); its body follows.
pub(in crate::gateway::connection) fn read_request(
    bytes: &Bytes,
    head_length: usize,
    UsualRequestLine { method, target }: UsualRequestLine,
    lines: &[HeaderLine],
) -> Option<Request<Bytes>> {
    let mut request = Request::new(bytes.slice(head_length..));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice(target)).ok()?;
    let headers = request.headers_mut();
    headers.reserve(lines.len());
    for HeaderLine { start, colon, end } in lines {
        let name = header_name(bytes.get(*start..*colon)?)?;
        let value = bytes.slice_ref(trim(bytes.get(colon + 1..*end)?));
        headers.try_append(name, HeaderValue::from_maybe_shared(value).ok()?).ok()?;
    }
    Some(request)
}

/// Returns the request line with which these bytes begin, if it is a usual one.
pub(in crate::gateway::connection) fn usual_request_line(head: &[u8]) -> Option<UsualRequestLine> {
    let (method, rest) = match head {
        [b'P', b'O', b'S', b'T', b' ', rest @ ..] => (Method::POST, rest),
        [b'G', b'E', b'T', b' ', rest @ ..] => (Method::GET, rest),
        _ => return None,
    };
    let (start, length) = (head.len() - rest.len(), memchr(b' ', rest)?);
    let is_usual = rest[length..].starts_with(b" HTTP/1.1\r\n");
    is_usual.then_some(UsualRequestLine { method, target: start..start + length })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::super::{HeadLimits, HeadScanner};
    use super::*;

    fn read(raw: &[u8]) -> Option<Request<Bytes>> {
        let mut lines = Vec::new();
        let head = HeadScanner::default().advance_and_note(raw, &HeadLimits::USUAL, |line| lines.push(line)).ok()??;
        let (request_line, bytes) = (usual_request_line(raw)?, Bytes::copy_from_slice(raw));
        if asks_for_more(raw, &lines) { None } else { read_request(&bytes, head.length, request_line, &lines) }
    }

    #[test]
    fn a_request_has_its_target_headers_and_body() {
        let raw = b"POST /v1/x?a=b HTTP/1.1\r\nHost: h:1\r\nX-A: \t1 2 \r\nx-a:\r\nContent-Length: 2\r\n\r\n{}";
        let request = read(raw).unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/v1/x?a=b".to_owned()));
        let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 4] = [("host", b"h:1"), ("x-a", b"1 2"), ("x-a", b""), ("content-length", b"2")];
        assert_eq!((headers, &request.body()[..]), (expected.to_vec(), &b"{}"[..]));
    }

    #[test]
    fn a_request_that_asks_for_more_is_left_alone() {
        for head in [
            "HEAD / HTTP/1.1\r\nHost: h\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n",
            "POST / HTTP/1.0\r\nHost: h\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x-private\r\n",
            "\r\nPOST / HTTP/1.1\r\nHost: h\r\n",
        ] {
            assert!(read(format!("{head}\r\n").as_bytes()).is_none(), "{head:?}");
        }
        assert!(read(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n").is_some());
    }

    proptest! {
        /// Two parsers of the same bytes must find the same request in them.
        #[test]
        fn hypers_parser_finds_the_same_headers(
            lines in prop::collection::vec(("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", "[ \t!-~]{0,20}"), 0..8),
        ) {
            let lines: String = lines.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
            let raw = format!("GET /p HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let mut parsed = [httparse::EMPTY_HEADER; 16];
            let mut other = httparse::Request::new(&mut parsed);
            if let (Some(request), Ok(_)) = (read(raw.as_bytes()), other.parse(raw.as_bytes())) {
                let mut expected = http::HeaderMap::new();
                for header in other.headers.iter() {
                    let name = HeaderName::from_bytes(header.name.as_bytes()).unwrap();
                    expected.append(name, HeaderValue::from_bytes(header.value).unwrap());
                }
                prop_assert_eq!(request.headers(), &expected);
            }
        }
    }
}
