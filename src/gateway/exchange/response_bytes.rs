//! Reads a response whose bytes are at hand, as a connection reads it. For tests and fuzzing.

use http::{Method, StatusCode};

use super::body_reader::BodyReader;
use super::known_head;
use super::response_head::{self, ResponseHead};

/// Returns the status of a response that arrives in these pieces, its body, and what follows it; `None` if it is cut short,
/// malformed, or ends with its connection.
pub(crate) fn read_response(pieces: &[&[u8]]) -> Option<(StatusCode, Vec<u8>, Vec<u8>)> {
    let (mut arrived, mut found): (Vec<u8>, Option<(StatusCode, BodyReader)>) = (Vec::new(), None);
    let mut body = Vec::new();
    for piece in pieces {
        let known = arrived.len();
        arrived.extend_from_slice(piece);
        if found.is_none() && (known == 0 || response_head::has_end(&arrived, known)) {
            let bytes = arrived.clone().into();
            if let Some(head) = known_head::read(&bytes, &Method::POST).ok()? {
                let ResponseHead { response, body, length, .. } = head;
                found = Some((response.status(), body));
                arrived.drain(..length);
            }
        }
        if let Some((_, reader)) = &mut found {
            let (part, used) = reader.take(&arrived).ok()?;
            body.extend_from_slice(&part);
            arrived.drain(..used);
        }
    }
    let (status, reader) = found?;
    reader.is_complete().then_some((status, body, arrived))
}
