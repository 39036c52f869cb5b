//! Invariants of what is on the wire beside bodies: whole requests, events, and the headers of traces.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};

use crate::cli::decode_events;
use crate::gateway::connection::head::{Framing, HeadLimits, check_in_two};
use crate::gateway::connection::whole_request;
use crate::gateway::scan::sse_framer::count_events;
use crate::traces::{TRACEPARENT, TRACESTATE, Tracer};

/// Checks requests that are answered without hyper: such a request has a head that the checks of heads let pass, with the
/// same length and the same framing, and its body is what follows the head.
pub fn whole_requests(data: &[u8]) {
    let limits = HeadLimits::USUAL;
    let checked = check_in_two(data, 0, &limits);
    let Some((request, length)) = whole_request(data, &limits) else { return };
    let Ok(Some((head, framing))) = checked else { panic!("a head that is refused: {checked:?}") };
    let body = match framing {
        Framing::None => 0,
        Framing::Length(length) => length as usize,
        Framing::Chunked => panic!("where chunks end is not known"),
    };
    assert!(length == head + body && length <= data.len());
    assert_eq!(request.body()[..], data[head..length]);
    assert!([Method::GET, Method::POST].contains(request.method()));
    let headers = request.headers();
    assert!(
        headers.get_all(HOST).iter().count() <= 1 && !headers.contains_key(UPGRADE) && !headers.contains_key(EXPECT)
    );
    if let Some(declared) = headers.get(CONTENT_LENGTH) {
        assert_eq!(declared.to_str().ok().and_then(|text| text.parse().ok()), Some(body));
    }
    for value in headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    // What follows changes nothing.
    let more = [&data[..length], b"GET / HTTP/1.1\r\n"].concat();
    let again = whole_request(&more, &limits).map(|(request, length)| (request.into_body(), length));
    assert_eq!(again, Some((request.into_body(), length)), "the next request is another one");
}

/// Checks a stream of events: neither the events that a command reads nor those that the gateway counts depend on the
/// pieces in which the stream arrives. The first byte says where it is cut.
pub fn event_stream(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let (head, tail) = stream.split_at(usize::from(*cut).min(stream.len()));
    let whole = decode_events(&[stream]);
    assert_eq!(decode_events(&[head, tail]), whole, "pieces do not matter to a command");
    for (name, id, text) in &whole {
        let is_line = |text: &str| !text.contains(['\r', '\n']);
        assert!(is_line(name) && id.as_deref().is_none_or(is_line) && !text.contains('\r'), "{name:?} {id:?} {text:?}");
    }
    let counted = count_events(&[stream]);
    assert_eq!(count_events(&[head, tail]), counted, "pieces do not matter to the gateway");
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(count_events(&bytes), counted, "bytes that come one by one do not either");
    assert!(whole.len() <= counted, "an event with data has an end");
}

/// Checks the headers of a trace: what is no `traceparent` by W3C's grammar continues nothing, and what is passed on has
/// the form of one. The lines of the input are `traceparent` and `tracestate`.
pub fn trace_headers(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [TRACEPARENT, TRACESTATE] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    let is_right =
        headers.get(TRACEPARENT).is_some_and(|value| value.to_str().is_ok_and(|text| is_traceparent(text.as_bytes())));
    let followed = Tracer::default().begin(&headers);
    assert_eq!(followed.is_some(), is_right, "{:?}", headers.get(TRACEPARENT));
    if let (Some(trace), Some(value)) = (followed, headers.get(TRACEPARENT)) {
        assert_eq!(trace.trace_id().as_bytes(), &value.as_bytes()[3..35]);
    }
    let trace = Tracer::recording_all().begin(&headers).unwrap_or_else(|| panic!("each request is traced"));
    let ids = trace.ids().unwrap_or_else(|| panic!("a trace has ids"));
    assert!(is_traceparent(ids.parent.as_bytes()) && ids.parent.len() == 55, "{:?}", ids.parent);
    assert_eq!(ids.is_continued, is_right);
}

/// Whether this is a `traceparent` (W3C Trace Context, section 3.2.2).
fn is_traceparent(value: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&[u8]> = value.split(|byte| *byte == b'-').collect();
    let [version, trace, span, flags, rest @ ..] = &parts[..] else { return false };
    let has_lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
    let is_some = |id: &[u8]| id.iter().any(|byte| *byte != b'0');
    has_lengths
        && [version, trace, span, flags].iter().all(|part| is_hex(part))
        && **version != *b"ff"
        && (rest.is_empty() || **version != *b"00")
        && is_some(trace)
        && is_some(span)
}
