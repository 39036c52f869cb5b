//! HTTP clients that see what is on the wire: whether a response was complete or cut, and when each piece arrived.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use serde_json::Value;

use super::socket::Socket;
use super::wait::{self, patient};

/// Sends whole requests, each on its own connection. Panics where there is no response; the `try_` functions do not.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    is_secure: bool,
    headers: Vec<(String, String)>,
    /// How long the client waits for the next piece of a response.
    patience: Duration,
    /// The bytes that the kernel may keep unread; `None` for its own choice.
    receive_buffer: Option<usize>,
}

/// One connection, for what `Client` does not do: keep-alive, incomplete requests, half-closed connections.
#[derive(Debug)]
pub(crate) struct RawClient {
    reader: BufReader<Socket>,
}

/// Status and headers of a response.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// In the order of arrival, with names as sent.
    pub(crate) headers: Vec<(String, String)>,
}

/// A response, complete or cut.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Whether the body arrived up to its end.
    pub(crate) complete: bool,
}

/// A streamed response. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) head: Head,
    client: RawClient,
    body: Body,
    text: String,
    begin: Instant,
}

/// A Server-Sent Event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// The value of the `id:` line, if there is one.
    pub(crate) id: Option<String>,
    /// The value of the `event:` line, if there is one.
    pub(crate) name: Option<String>,
    pub(crate) data: String,
    /// The time of arrival, from the begin of the request.
    pub(crate) after: Duration,
}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    UntilClose,
    Complete,
    Cut,
}

impl Client {
    /// Makes a client for `http://host:port`, or `https://host:port` with any certificate.
    pub(crate) fn new(url: &str) -> Self {
        let (address, is_secure) = address_of(url);
        Client { address, is_secure, headers: Vec::new(), patience: wait::ANSWERS, receive_buffer: None }
    }

    /// Sets how long the client waits for the next piece of a response.
    pub(crate) fn patience(self, patience: Duration) -> Self {
        Client { patience, ..self }
    }

    /// Sets how many bytes the kernel may keep unread, so that a client that does not read is soon noticed.
    pub(crate) fn receive_buffer(self, bytes: usize) -> Self {
        Client { receive_buffer: Some(bytes), ..self }
    }

    /// Adds `Authorization: Bearer <secret>`.
    pub(crate) fn key(self, secret: &str) -> Self {
        self.header("Authorization", &format!("Bearer {secret}"))
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Returns the added headers.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.send("GET", path, b"")
    }

    #[track_caller]
    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, body.to_string().as_bytes())
    }

    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Response {
        self.try_send(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub(crate) fn try_send(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        let mut client = self.begin(method, path, body)?;
        let head = client.read_head()?;
        Ok(client.read_rest(head, method))
    }

    /// Sends a POST, and returns when the head of the response has arrived.
    #[track_caller]
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Stream {
        self.try_stream(path, body).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// Sends a GET, and returns when the head of the response has arrived.
    #[track_caller]
    pub(crate) fn stream_of(&self, path: &str) -> Stream {
        self.try_stream_of(path).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    pub(crate) fn try_stream_of(&self, path: &str) -> io::Result<Stream> {
        let begin = Instant::now();
        let mut client = self.begin("GET", path, b"")?;
        let head = client.read_head()?;
        let body = Body::of(&head, "GET");
        Ok(Stream { head, client, body, text: String::new(), begin })
    }

    pub(crate) fn try_stream(&self, path: &str, body: &Value) -> io::Result<Stream> {
        let begin = Instant::now();
        let mut client = self.begin("POST", path, body.to_string().as_bytes())?;
        let head = client.read_head()?;
        let body = Body::of(&head, "POST");
        Ok(Stream { head, client, body, text: String::new(), begin })
    }

    /// Sends the request and does not wait for the response.
    pub(crate) fn begin(&self, method: &str, path: &str, body: &[u8]) -> io::Result<RawClient> {
        let mut client = RawClient::open((self.address, self.is_secure), self.patience, self.receive_buffer)?;
        client.write(&self.request(method, path, body))?;
        Ok(client)
    }

    /// Returns the bytes of a request, to send them in pieces or several on one connection.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let has_header = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if method == "POST" && !has_header("content-type") {
            head += "Content-Type: application/json\r\n";
        }
        if method == "POST" || !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut bytes = (head + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

impl RawClient {
    /// Connects to `http://host:port`, or to `https://host:port` with any certificate.
    pub(crate) fn connect(url: &str) -> Self {
        Self::open(address_of(url), wait::ANSWERS, None).unwrap_or_else(|e| panic!("cannot connect to {url}: {e}"))
    }

    /// Connects to `http://host:port`; returns the error where that fails.
    pub(crate) fn try_connect(url: &str) -> io::Result<Self> {
        Self::open(address_of(url), wait::ANSWERS, None)
    }

    /// Connects to `https://host:port` with this configuration of TLS.
    pub(crate) fn over(url: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        Ok(RawClient { reader: BufReader::new(Socket::over(address_of(url).0, config, patient(wait::ANSWERS), None)?) })
    }

    fn open(
        (address, is_secure): (SocketAddr, bool),
        patience: Duration,
        receive_buffer: Option<usize>,
    ) -> io::Result<Self> {
        let socket = Socket::open(address, is_secure, patient(patience), receive_buffer)?;
        Ok(RawClient { reader: BufReader::new(socket) })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)?;
        self.reader.get_mut().flush()
    }

    /// Completes the handshake of TLS.
    pub(crate) fn finish_handshake(&mut self) -> io::Result<()> {
        self.reader.get_mut().flush()
    }

    /// Returns the certificate that the server has shown.
    pub(crate) fn shown_certificate(&self) -> Option<Vec<u8>> {
        self.reader.get_ref().shown_certificate()
    }

    /// Closes the sending half; the connection can still be read.
    pub(crate) fn finish_writing(&mut self) {
        self.reader.get_mut().finish_writing();
    }

    /// Whether there are unread bytes or the connection has ended. Does not block.
    pub(crate) fn has_news(&mut self) -> bool {
        !self.reader.buffer().is_empty() || self.reader.get_mut().has_news()
    }

    /// Reads one response to a request other than HEAD. After a complete one the connection can be used again.
    pub(crate) fn read_response(&mut self) -> io::Result<Response> {
        let head = self.read_head()?;
        Ok(self.read_rest(head, "GET"))
    }

    /// Reads status and headers, up to the empty line.
    pub(crate) fn read_head(&mut self) -> io::Result<Head> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Head { status, headers });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no header: {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads `count` bytes.
    pub(crate) fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads everything until the other side closes or resets.
    #[track_caller]
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let stays_open = |e: io::Error| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let outcome = self.reader.read_to_end(&mut bytes);
        assert!(!outcome.is_err_and(stays_open), "the connection stays open");
        bytes
    }

    /// Reads everything until the connection ends, in whatever way, and returns what came before that.
    pub(crate) fn read_until_broken(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // An error ends the reading as a close does: what came before it is in `bytes`.
        let _ = self.reader.read_to_end(&mut bytes);
        bytes
    }

    /// Like `read_to_close`, but returns the error; the bytes before it are lost.
    pub(crate) fn try_read_to_close(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).map(|_| bytes)
    }

    fn read_rest(&mut self, head: Head, method: &str) -> Response {
        let mut state = Body::of(&head, method);
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut state) {
            body.extend(piece);
        }
        Response { head, body, complete: state == Body::Complete }
    }

    /// Returns the next bytes of a body; `None` when it is complete or cut, which `state` then says.
    fn piece(&mut self, state: &mut Body) -> Option<Vec<u8>> {
        match self.try_piece(state) {
            Ok(Some(piece)) => return Some(piece),
            Ok(None) => *state = Body::Complete,
            Err(_) => *state = Body::Cut,
        }
        None
    }

    fn try_piece(&mut self, state: &mut Body) -> io::Result<Option<Vec<u8>>> {
        match *state {
            Body::Complete | Body::Length(0) => Ok(None),
            Body::Cut => Err(io::ErrorKind::UnexpectedEof.into()),
            Body::Length(left) => {
                let piece = self.some(left)?;
                if piece.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *state = Body::Length(left - piece.len());
                Ok(Some(piece))
            }
            Body::UntilClose => Ok(Some(self.some(usize::MAX)?).filter(|piece| !piece.is_empty())),
            Body::Chunked => {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; size];
                self.reader.read_exact(&mut chunk)?;
                self.line()?;
                Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
            }
        }
    }

    /// Returns the bytes that are there, at most `at_most`; waits for the first one.
    fn some(&mut self, at_most: usize) -> io::Result<Vec<u8>> {
        let buffered = self.reader.fill_buf()?;
        let piece = buffered[..buffered.len().min(at_most)].to_vec();
        self.reader.consume(piece.len());
        Ok(piece)
    }

    /// Reads a line that ends with CRLF.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Head {
    /// Returns the value of the first header of this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }
}

impl Stream {
    /// Waits for the next event; `None` at the end of the body, complete or cut.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let lines: String = self.text.drain(..end + 2).collect();
                return Some(Event::parse(&lines, self.begin.elapsed()));
            }
            let piece = self.client.piece(&mut self.body)?;
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Reads the remaining events.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next_event()).collect()
    }

    /// Whether the end of the body has arrived (by length, chunks or close); never true for a cut response.
    pub(crate) fn is_complete(&self) -> bool {
        self.body == Body::Complete
    }

    /// Returns the text after the last complete event.
    pub(crate) fn rest(&self) -> &str {
        &self.text
    }
}

impl Event {
    /// Parses the lines of one event; several `data:` lines are joined.
    pub(crate) fn parse(lines: &str, after: Duration) -> Self {
        let field = |name: &'static str| lines.lines().filter_map(move |line| line.strip_prefix(name));
        let data: Vec<&str> = field("data:").map(str::trim_start).collect();
        let (name, id) = (field("event:").map(str::trim).next(), field("id:").map(str::trim).next());
        Event { id: id.map(String::from), name: name.map(String::from), data: data.join("\n"), after }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.data))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.data == "[DONE]"
    }
}

impl Body {
    fn of(head: &Head, method: &str) -> Self {
        if method == "HEAD" || matches!(head.status, 100..200 | 204 | 304) {
            return Body::Length(0);
        }
        if head.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return Body::Chunked;
        }
        match head.header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        }
    }
}

/// Returns where a URL leads, and whether over TLS.
fn address_of(url: &str) -> (SocketAddr, bool) {
    let (address, is_secure) = match url.strip_prefix("https://") {
        Some(address) => (address, true),
        None => (url.strip_prefix("http://").unwrap_or(url), false),
    };
    let address = address.trim_end_matches('/').parse();
    (address.unwrap_or_else(|_| panic!("not `http://host:port`: {url}")), is_secure)
}
