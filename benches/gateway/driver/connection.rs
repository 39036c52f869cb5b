//! One connection of the driver: sends a request, reads its response and checks every byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use memchr::memmem;

use crate::plan::{Expected, Flow};
use crate::traffic::{Exchange, ModelName, ResponseBody, TAG};

/// A connection with at most one request in flight.
pub(crate) struct Connection {
    address: SocketAddr,
    pub(crate) socket: TcpStream,
    request: Vec<u8>,
    tag_at: usize,
    sent: usize,
    expected: ResponseBody,
    /// The body of a response that is not compared with the expected one.
    rewritten: Option<Vec<u8>>,
    input: Vec<u8>,
    reading: Reading,
    status: u16,
    closes: bool,
    /// Number of body bytes so far.
    body: usize,
    is_good: bool,
    pub(crate) frames: usize,
    pub(crate) current: Option<Current>,
    pub(crate) reconnects: u64,
}

/// The request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    pub(crate) intended: Instant,
    pub(crate) first: Option<Instant>,
    pub(crate) last_frame: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reading {
    Head,
    /// This many bytes of the body are still to come.
    Sized(usize),
    ChunkHead,
    /// This many bytes of a chunk are still to come, with its end of line.
    Chunk(usize),
    Done,
}

/// What a read has found.
pub(crate) enum Event {
    /// Bytes arrived, and this many frames of the stream were completed.
    Frames(usize),
    /// The response is complete, with this status and this many more frames.
    Answered(u16, usize),
    /// The request failed, for this reason.
    Failed(&'static str),
}

impl Connection {
    /// Opens a connection for the requests of a flow.
    pub(crate) fn new(address: SocketAddr, flow: &Flow, expected: Expected) -> Self {
        let exchange = &flow.exchange;
        let model = if expected == Expected::Renamed { exchange.model } else { ModelName::OF_MOCK }.text();
        let body = exchange.request_body();
        let key = flow.key.as_deref().map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let mut request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\nAccept: */*\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        let tag_at = request.len() + Exchange::TAG_AT;
        request.extend(body);
        Self {
            address,
            socket: connect(address),
            request,
            tag_at,
            sent: 0,
            expected: ResponseBody::to(exchange, &model),
            rewritten: (expected == Expected::Rewritten).then(Vec::new),
            input: Vec::new(),
            reading: Reading::Done,
            status: 0,
            closes: false,
            body: 0,
            is_good: true,
            frames: 0,
            current: None,
            reconnects: 0,
        }
    }

    /// Begins a request.
    pub(crate) fn send(&mut self, intended: Instant, number: u64) {
        let tag: [u8; TAG] = format!("{number:0>TAG$x}").into_bytes().try_into().expect("a tag has its length");
        self.request[self.tag_at..self.tag_at + TAG].copy_from_slice(&tag);
        self.expected.tag(&tag);
        self.current = Some(Current { intended, first: None, last_frame: None });
        self.input.clear();
        self.rewritten.iter_mut().for_each(Vec::clear);
        (self.sent, self.body, self.frames) = (0, 0, 0);
        (self.is_good, self.closes, self.reading) = (true, false, Reading::Head);
        self.write();
    }

    /// Writes what the socket takes of the request; an error shows at the next read.
    pub(crate) fn write(&mut self) {
        while self.current.is_some() && self.sent < self.request.len() {
            match self.socket.write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Drops the connection and opens another one.
    pub(crate) fn reconnect(&mut self) {
        self.socket = connect(self.address);
        self.current = None;
        self.reading = Reading::Done;
        self.reconnects += 1;
    }

    /// Whether the connection cannot be used for another request.
    pub(crate) fn must_reconnect(&self) -> bool {
        self.closes
    }

    /// Reads what has arrived. Returns an event for each piece, and `None` when the read would block.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> Option<Event> {
        let count = loop {
            match self.socket.read(scratch) {
                Ok(0) => {
                    self.closes = true;
                    return self.current.map(|_| Event::Failed("closed early"));
                }
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.closes = true;
                    return self.current.map(|_| Event::Failed("connection reset"));
                }
            }
        };
        if self.current.is_none() {
            return Some(Event::Failed("bytes without a request"));
        }
        let before = self.frames;
        match self.take(&scratch[..count]) {
            Err(reason) => Some(Event::Failed(reason)),
            Ok(()) if self.reading == Reading::Done => Some(match self.status {
                200 if !self.is_as_expected() => Event::Failed("other bytes"),
                status => Event::Answered(status, self.frames - before),
            }),
            Ok(()) => Some(Event::Frames(self.frames - before)),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            match self.reading {
                Reading::Head => {
                    let old = self.input.len();
                    self.input.extend(bytes);
                    let Some(end) = memmem::find(&self.input, b"\r\n\r\n").map(|at| at + 4) else { return Ok(()) };
                    bytes = &bytes[end - old..];
                    self.head(end)?;
                    self.input.clear();
                }
                Reading::Sized(left) => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    self.payload(piece);
                    bytes = rest;
                    self.reading = if left == piece.len() { Reading::Done } else { Reading::Sized(left - piece.len()) };
                }
                Reading::ChunkHead => {
                    let old = self.input.len();
                    self.input.extend(bytes);
                    let Some(end) = memmem::find(&self.input, b"\r\n").map(|at| at + 2) else { return Ok(()) };
                    let text = std::str::from_utf8(&self.input[..end - 2]).map_err(|_| "bad chunk")?;
                    let size = usize::from_str_radix(text, 16).map_err(|_| "bad chunk")?;
                    if size > 0 {
                        bytes = &bytes[end - old..];
                        self.input.clear();
                        self.reading = Reading::Chunk(size + 2);
                    } else if self.input.len() >= end + 2 {
                        // No trailers are expected, and nothing after them.
                        self.reading = Reading::Done;
                        return if self.input.len() == end + 2 { Ok(()) } else { Err("bytes after the end") };
                    } else {
                        return Ok(());
                    }
                }
                Reading::Chunk(left) => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    self.payload(&piece[..piece.len().min(left.saturating_sub(2))]);
                    bytes = rest;
                    let left = left - piece.len();
                    self.reading = if left == 0 { Reading::ChunkHead } else { Reading::Chunk(left) };
                }
                Reading::Done => return Err("bytes after the end"),
            }
        }
        Ok(())
    }

    fn head(&mut self, end: usize) -> Result<(), &'static str> {
        let text = std::str::from_utf8(&self.input[..end]).map_err(|_| "bad head")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("bad head")?;
        self.status = status;
        self.reading = Reading::Sized(0);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                self.reading = Reading::Sized(value.parse().map_err(|_| "bad head")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                self.reading = Reading::ChunkHead;
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes = value.eq_ignore_ascii_case("close");
            }
        }
        if self.reading == Reading::Sized(0) {
            self.reading = Reading::Done;
        }
        Ok(())
    }

    /// Whether the whole body is the expected one.
    fn is_as_expected(&self) -> bool {
        match &self.rewritten {
            None => self.is_good && self.body == self.expected.bytes.len(),
            Some(body) => memmem::find(body, &self.request[self.tag_at..self.tag_at + TAG]).is_some(),
        }
    }

    fn payload(&mut self, piece: &[u8]) {
        let end = self.body + piece.len();
        if let Some(body) = &mut self.rewritten {
            body.extend(piece);
        } else if self.status == 200 {
            self.is_good &= self.expected.bytes.get(self.body..end) == Some(piece);
            while self.expected.ends.get(self.frames).is_some_and(|&frame| frame <= end) {
                self.frames += 1;
            }
        }
        self.body = end;
        if let Some(current) = &mut self.current
            && current.first.is_none()
            && !piece.is_empty()
        {
            current.first = Some(Instant::now());
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    socket.set_nodelay(true).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}
