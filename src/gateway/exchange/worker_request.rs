//! A request as its worker gets it: its head, as bytes, and its body.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method};

use crate::gateway::connection::head::add_line;
use crate::gateway::request::body::RequestBody;
use crate::gateway::spare_memory;

/// Bytes of a head that need no second allocation: a request line, and the headers of most clients.
const USUAL_HEAD: usize = 1024;

/// A request that can be sent.
#[derive(Debug)]
pub(crate) struct WorkerRequest {
    pub(super) method: Method,
    /// The head, with the empty line that ends it.
    pub(super) head: Vec<u8>,
    pub(super) body: RequestBody,
}

/// The head of a request that is being written (RFC 9112, section 3).
pub(crate) struct RequestHead {
    method: Method,
    bytes: Vec<u8>,
}

impl RequestHead {
    /// Begins with the request line. `path` has a query if the request has one.
    pub(crate) fn new(method: &Method, path: &str) -> Self {
        let mut bytes = spare_memory::buffer(USUAL_HEAD);
        for part in [method.as_str(), " ", path, " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        Self { method: method.clone(), bytes }
    }

    /// Adds a header. Leaves out those that frame a body: [`Self::with_body`] knows its length.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            add_line(&mut self.bytes, name.as_str().as_bytes(), value.as_bytes());
        }
    }

    /// Ends the head. The body always has a length, so it is never sent in chunks.
    pub(crate) fn with_body(mut self, body: RequestBody) -> WorkerRequest {
        let length = body.length();
        // A method that has a body says so even if it is empty (RFC 9110, section 8.6).
        if length > 0 || [Method::POST, Method::PUT, Method::PATCH].contains(&self.method) {
            add_line(&mut self.bytes, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        self.bytes.extend_from_slice(b"\r\n");
        WorkerRequest { method: self.method, head: self.bytes, body }
    }
}

#[cfg(test)]
impl WorkerRequest {
    /// Returns the head as text, for tests of other files.
    pub(crate) fn head_text(&self) -> String {
        self.head.escape_ascii().to_string().replace(r"\r\n", "\n")
    }
}

#[cfg(test)]
impl From<http::Request<RequestBody>> for WorkerRequest {
    fn from(request: http::Request<RequestBody>) -> Self {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut head = RequestHead::new(request.method(), path);
        request.headers().iter().for_each(|(name, value)| head.add(name, value));
        head.with_body(request.into_body())
    }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;

    fn head(method: Method, path: &str, body: &[&str]) -> String {
        let mut head = RequestHead::new(&method, path);
        head.add(&HOST, &HeaderValue::from_static("worker:1"));
        for value in [&b"a"[..], b"\xFF"] {
            head.add(&HeaderName::from_static("x-twice"), &HeaderValue::from_bytes(value).unwrap());
        }
        head.add(&CONTENT_LENGTH, &HeaderValue::from_static("99"));
        head.add(&TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
        head.with_body(RequestBody::from_pieces(body)).head.escape_ascii().to_string()
    }

    #[test]
    fn a_head_has_all_headers_and_the_length_of_the_body_that_follows() {
        let lines = r"host: worker:1\r\nx-twice: a\r\nx-twice: \xff\r\n";
        for (method, path, body, first, length) in [
            (Method::POST, "/v1/chat?a=b", &["{", "}"][..], "POST /v1/chat?a=b", r"content-length: 2\r\n"),
            (Method::POST, "/tokenize", &[], "POST /tokenize", r"content-length: 0\r\n"),
            (Method::GET, "/props", &[], "GET /props", ""),
            (Method::DELETE, "/x", &["y"], "DELETE /x", r"content-length: 1\r\n"),
        ] {
            assert_eq!(head(method, path, body), format!(r"{first} HTTP/1.1\r\n{lines}{length}\r\n"));
        }
    }
}
