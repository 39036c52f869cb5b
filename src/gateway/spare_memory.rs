//! Memory that one request has used and the next one of the same core uses again: the map of a response's headers, and the
//! bytes of a head, for a worker or for a client.
//!
//! Each is nearly always in use within one turn of a task only, from a worker's head to the client's or until a head is
//! written. So one of each is enough for most requests of a core; another one is allocated and dropped.

use std::cell::Cell;

use http::HeaderMap;

use super::bounds::{KEPT_HEAD_BUFFER, KEPT_HEADERS};

thread_local! {
    static MAP: Cell<Option<HeaderMap>> = const { Cell::new(None) };
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Returns an empty map with room for this many headers.
pub(super) fn header_map(capacity: usize) -> HeaderMap {
    match MAP.take() {
        Some(map) if map.capacity() >= capacity => map,
        _ => HeaderMap::with_capacity(capacity),
    }
}

/// Keeps the memory of a map whose headers are not needed any more.
pub(super) fn keep_header_map(mut map: HeaderMap) {
    if KEPT_HEADERS.contains(&map.capacity()) {
        map.clear();
        MAP.set(Some(map));
    }
}

/// Returns an empty buffer with room for this many bytes.
pub(super) fn buffer(capacity: usize) -> Vec<u8> {
    let mut buffer = BUFFER.take();
    buffer.reserve(capacity);
    buffer
}

/// Keeps the memory of a buffer whose bytes are not needed any more.
pub(super) fn keep_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT_HEAD_BUFFER {
        buffer.clear();
        BUFFER.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CONTENT_TYPE, VARY};

    use super::*;

    #[test]
    fn a_map_comes_back_empty_and_never_too_small() {
        let mut map = header_map(10);
        map.append(VARY, HeaderValue::from_static("a"));
        map.append(VARY, HeaderValue::from_static("b"));
        let room = map.capacity();
        keep_header_map(map);
        let mut map = header_map(10);
        assert!(map.is_empty() && !map.contains_key(VARY));
        assert_eq!(map.capacity(), room);
        map.insert(CONTENT_TYPE, HeaderValue::from_static("c"));
        assert_eq!(map.len(), 1);

        keep_header_map(map);
        assert!(header_map(room + 1).capacity() > room);
        keep_header_map(HeaderMap::with_capacity(KEPT_HEADERS.end() + 1));
        assert!(MAP.take().is_none());
    }

    #[test]
    fn a_buffer_comes_back_empty() {
        let mut first = buffer(100);
        first.extend_from_slice(b"abc");
        let place = first.as_ptr();
        keep_buffer(first);
        let second = buffer(100);
        assert!(second.is_empty() && second.as_ptr() == place);
        keep_buffer(Vec::with_capacity(KEPT_HEAD_BUFFER + 1));
        assert_eq!(BUFFER.take().capacity(), 0);
    }
}
