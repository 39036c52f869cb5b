//! What is left to be written of a request: its head, as bytes, and the pieces of its body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request};
use http_body::Body;

use super::worker_socket::WorkerSocket;
use crate::gateway::request::body::RequestBody;

/// Bytes of a head that need no second allocation: a request line, and the headers of most clients.
const USUAL_HEAD: usize = 1024;

/// A request that is being written.
#[derive(Default)]
pub(super) struct RequestWriter {
    head: Vec<u8>,
    /// How many bytes of the head have been written.
    head_written: usize,
    /// What is left of the current piece of the body.
    piece: Bytes,
    /// The pieces after it.
    body: Option<RequestBody>,
    /// Whether TLS may still hold some of it.
    must_flush: bool,
    /// Whether the worker takes no more.
    has_failed: bool,
}

impl RequestWriter {
    /// Begins with the first byte of the head.
    pub(super) fn new(request: Request<RequestBody>) -> Self {
        let head = head_bytes(&request);
        Self { head, body: Some(request.into_body()), must_flush: true, ..Self::default() }
    }

    /// Returns whether the worker has the whole request.
    pub(super) fn is_done(&self) -> bool {
        !self.must_flush && !self.has_failed
    }

    /// Writes what the socket takes. A worker that takes no more may have answered already, so that is no error here.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, socket: &mut WorkerSocket) {
        if !self.must_flush {
            return;
        }
        match self.poll_write(context, socket) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => *self = Self::default(),
            Poll::Ready(Err(_)) => *self = Self { has_failed: true, ..Self::default() },
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, socket: &mut WorkerSocket) -> Poll<io::Result<()>> {
        loop {
            if self.piece.is_empty() {
                self.piece = self.next_piece().unwrap_or_default();
            }
            let head = &self.head[self.head_written..];
            if head.is_empty() && self.piece.is_empty() {
                return socket.poll_flush(context);
            }
            let written = ready!(socket.poll_write(context, &[IoSlice::new(head), IoSlice::new(&self.piece)]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            self.head_written += of_head;
            self.piece.advance(written - of_head);
        }
    }

    /// Takes the next piece of the body. They are all there: none is waited for.
    fn next_piece(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut()?;
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }
}

/// Returns the head of a request (RFC 9112, section 3). Its body always has a length, so it is never sent in chunks.
fn head_bytes(request: &Request<RequestBody>) -> Vec<u8> {
    let mut head = Vec::with_capacity(USUAL_HEAD);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    let framing = [CONTENT_LENGTH, TRANSFER_ENCODING];
    for (name, value) in request.headers().iter().filter(|(name, _)| !framing.contains(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    let length = request.body().length();
    // A method that has a body says so even if it is empty (RFC 9110, section 8.6).
    if length > 0 || [Method::POST, Method::PUT, Method::PATCH].contains(request.method()) {
        head.extend_from_slice(b"content-length: ");
        head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, HeaderValue};

    use super::*;

    fn head(method: Method, uri: &str, body: &[&str]) -> String {
        let mut request = Request::new(RequestBody::from_pieces(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("worker:1"));
        headers.append("x-twice", HeaderValue::from_static("a"));
        headers.append("x-twice", HeaderValue::from_bytes(b"\xFF").unwrap());
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("99"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        head_bytes(&request).escape_ascii().to_string()
    }

    #[test]
    fn a_head_has_all_headers_and_the_length_of_the_body_that_follows() {
        let lines = r"host: worker:1\r\nx-twice: a\r\nx-twice: \xff\r\n";
        for (method, uri, body, first, length) in [
            (Method::POST, "/v1/chat?a=b", &["{", "}"][..], "POST /v1/chat?a=b", r"content-length: 2\r\n"),
            (Method::POST, "/tokenize", &[], "POST /tokenize", r"content-length: 0\r\n"),
            (Method::GET, "/props", &[], "GET /props", ""),
            (Method::DELETE, "/x", &["y"], "DELETE /x", r"content-length: 1\r\n"),
        ] {
            assert_eq!(head(method, uri, body), format!(r"{first} HTTP/1.1\r\n{lines}{length}\r\n"));
        }
    }
}
