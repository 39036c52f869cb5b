//! The invariant of bodies as the description of the API shows them, and of what becomes of them by a few changed bytes.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::dialects::{EMBED_PATHS, RERANK_PATHS};
use super::{embed, ollama, request_body, rerank, tokens};
use crate::gateway::{openapi_document, orders_in};

/// The bodies of the description, by method and path.
static EXAMPLES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(openapi_document()).unwrap_or_default();
    let empty = Map::new();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap_or(&empty) {
        for (method, operation) in methods.as_object().unwrap_or(&empty) {
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            if example.is_object() {
                found.push((format!("{} {path}", method.to_ascii_uppercase()), example.to_string()));
            }
        }
    }
    found
});

/// Returns the bodies that the description of the API shows, each with its method and path.
pub fn examples() -> &'static [(String, String)] {
    &EXAMPLES
}

/// Checks the body of a request for a route whose description has an example: it is read by the parsers of its dialect, if
/// that has parsers of its own, by those of orders about model files, and by the one of all bodies. The first line of the
/// input is the method and the path. If the second line is empty, the rest are changes of the example of that route, three
/// bytes each: two for the place, and the new byte; else the rest is the body.
pub fn example_body(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (route, rest) = (&data[..end], &data[end + 1..]);
    let Some((route, example)) = EXAMPLES.iter().find(|(known, _)| known.as_bytes() == route) else { return };
    let body = match rest.strip_prefix(b"\n") {
        None => rest.to_vec(),
        Some(changes) => {
            let mut body = example.clone().into_bytes();
            for change in changes.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % body.len();
                body[at] = change[2];
            }
            body
        }
    };
    check_body(route, &body);
}

/// Reads the body of a request for this route, by method and path.
fn check_body(route: &str, body: &[u8]) {
    let path = route.split(' ').nth(1).unwrap_or_default();
    let index = |paths: &[&str]| paths.iter().position(|known| *known == path).map(|at| at as u8);
    if let Some(at) = index(&RERANK_PATHS) {
        rerank(&[&[at << 1], body].concat());
    }
    if let Some(at) = index(&EMBED_PATHS) {
        embed(&[&[at], body].concat());
    }
    match path {
        "/api/chat" => ollama(&[&[0], body].concat()),
        "/api/generate" => ollama(&[&[1], body].concat()),
        "/tokenize" => tokens(&[body, b"\n"].concat()),
        _ => {}
    }
    let is_object = serde_json::from_slice::<Map<String, Value>>(body).is_ok();
    assert!(is_object || body.trim_ascii().is_empty() || orders_in(body) == 0, "an order is a JSON object");
    for changes in [0, 0xff] {
        request_body(&[&[(body.len() / 2).min(255) as u8, changes], body].concat());
    }
}
