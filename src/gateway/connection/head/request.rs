//! A checked head, and the body that has arrived with it, as a request.

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use memchr::memchr;

use super::trim;

/// Headers for which there is room from the start: most clients send fewer.
const USUAL_HEADERS: usize = 16;

/// Returns the request in these bytes, which begin with a head of this length that [`HeadScanner`](super::HeadScanner) has
/// passed; its body follows. Returns `None` for a request that asks for more than a response: by `Expect`, by `Connection`,
/// by its version, or by a method that is neither GET nor POST.
pub(in crate::gateway::connection) fn read_request(bytes: &Bytes, head_length: usize) -> Option<Request<Bytes>> {
    let line_end = memchr(b'\r', bytes)?;
    let line = &bytes[..line_end];
    let (method, target) = line.split_at(memchr(b' ', line)?);
    let method = match method {
        b"POST" => Method::POST,
        b"GET" => Method::GET,
        _ => return None,
    };
    let target = target.strip_prefix(b" ")?.strip_suffix(b" HTTP/1.1")?;
    let mut request = Request::new(bytes.slice(head_length..));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(target)).ok()?;
    let headers = request.headers_mut();
    headers.reserve(USUAL_HEADERS);
    let mut lines = bytes.get(line_end + b"\r\n".len()..head_length - b"\r\n".len())?;
    while !lines.is_empty() {
        let (line, rest) = lines.split_at(memchr(b'\r', lines)?);
        let colon = memchr(b':', line)?;
        let (name, value) = (HeaderName::from_bytes(&line[..colon]).ok()?, trim(&line[colon + 1..]));
        if name == EXPECT || name == CONNECTION && !value.eq_ignore_ascii_case(b"keep-alive") {
            return None;
        }
        headers.try_append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(value)).ok()?).ok()?;
        lines = rest.strip_prefix(b"\r\n")?;
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{HeadLimits, check_in_two};
    use super::*;

    fn read(raw: &[u8]) -> Option<Request<Bytes>> {
        let (length, _) = check_in_two(raw, 0, &HeadLimits::USUAL).ok()??;
        read_request(&Bytes::copy_from_slice(raw), length)
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
