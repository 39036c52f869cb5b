//! A mock llama-server with very little overhead: prepared responses, one thread, no allocation per request.
//!
//! It has what the gateway needs of llama-server: the key, `/health`, `/props`. Unlike llama-server it never closes a
//! connection by itself.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use memchr::memmem;

use super::pinned;
use super::poller::Poller;
use super::traffic::{Exchange, ModelName, ResponseBody, TAG};

const LISTENER: usize = usize::MAX - 1;

/// Runs until it is killed. Uses `--port`, `--api-key-file`, `--alias` and `--mock-cpu`, and ignores other arguments.
pub(crate) fn run(arguments: &[String]) {
    let value = |name: &str| arguments.iter().position(|argument| argument == name).map(|at| &arguments[at + 1]);
    if let Some(cpu) = value("--mock-cpu") {
        pinned::pin(&[cpu.parse().expect("a CPU")]);
    }
    let port: u16 = value("--port").expect("a port").parse().expect("a port");
    let key = value("--api-key-file").map(|file| std::fs::read_to_string(file).expect("the key file"));
    let model = value("--alias").cloned().unwrap_or_else(|| ModelName::OF_MOCK.text());
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    listener.set_nonblocking(true).expect("a socket");
    let mut server = Server {
        poller: Poller::new(),
        key: key.map(|key| format!("Bearer {}", key.trim())),
        responses: HashMap::new(),
        stream: chunks(&ResponseBody::to(&Exchange::stream(0), &model)),
        model,
        connections: Vec::new(),
        timers: BinaryHeap::new(),
        scratch: vec![0; 256 * 1024],
    };
    server.poller.watch(&listener, LISTENER);
    server.serve(&listener);
}

struct Server {
    poller: Poller,
    key: Option<String>,
    /// The model's name in its responses.
    model: String,
    /// Head and body of the response of each size.
    responses: HashMap<usize, ResponseBody>,
    /// The frames of a stream as chunks.
    stream: ResponseBody,
    connections: Vec<Option<Connection>>,
    /// When a response continues, on which connection and for which request. A timer of a finished request is skipped.
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    scratch: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    job: Option<Job>,
    requests: u64,
}

/// A request whose response is not complete.
struct Job {
    exchange: Exchange,
    tag: [u8; TAG],
    started: Instant,
    /// Frames sent so far.
    frames: usize,
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

impl Server {
    fn serve(&mut self, listener: &TcpListener) {
        let mut ready = Vec::new();
        loop {
            let until = self.timers.peek().map(|Reverse((time, ..))| *time);
            self.poller.wait(until, &mut ready);
            for &token in &ready {
                if token == LISTENER { self.accept(listener) } else { self.handle_ready(token, true) }
            }
            let now = Instant::now();
            while let Some(&Reverse((time, token, request))) = self.timers.peek()
                && time <= now
            {
                self.timers.pop();
                let is_pending = |connection: &Connection| connection.requests == request && connection.job.is_some();
                if self.connections[token].as_ref().is_some_and(is_pending) {
                    self.continue_response(token);
                    self.handle_ready(token, false);
                }
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true).expect("a socket");
            let _ = socket.set_nodelay(true);
            let free = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
            if free == self.connections.len() {
                self.connections.push(None);
            }
            self.poller.watch(&socket, free);
            let (input, output) = (Vec::new(), Vec::new());
            self.connections[free] = Some(Connection { socket, input, output, sent: 0, job: None, requests: 0 });
            self.handle_ready(free, true);
        }
    }

    /// Reads what has arrived, begins requests and writes what the socket takes. Removes a closed connection.
    fn handle_ready(&mut self, token: usize, may_read: bool) {
        let Some(connection) = &mut self.connections[token] else { return };
        if may_read && !connection.read(&mut self.scratch) {
            // The number will be used again: a timer must not reach the next connection with it.
            self.timers.retain(|Reverse((_, of, _))| *of != token);
            self.connections[token] = None;
            return;
        }
        while self.begin(token) {}
        if let Some(connection) = &mut self.connections[token] {
            connection.write();
        }
    }

    /// Takes one whole request from the input, if there is one and the previous one is answered. Returns whether it
    /// did.
    fn begin(&mut self, token: usize) -> bool {
        let Some(connection) = &mut self.connections[token] else { return false };
        if connection.job.is_some() {
            return false;
        }
        let Some(end) = memmem::find(&connection.input, b"\r\n\r\n").map(|at| at + 4) else { return false };
        let head = &connection.input[..end];
        let length = header(head, b"content-length").and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
        if connection.input.len() < end + length {
            return false;
        }
        connection.requests += 1;
        let has_key = self.key.as_deref().is_none_or(|key| header(head, b"authorization") == Some(key));
        let parsed = Exchange::read(&connection.input[end..end + length]);
        let is_health = head.starts_with(b"GET /health");
        connection.input.drain(..end + length);
        if is_health || (has_key && parsed.is_none()) {
            connection.write_json("200 OK", "{\"status\":\"ok\"}");
        } else if let Some((exchange, tag)) = parsed.filter(|_| has_key) {
            connection.job = Some(Job { exchange, tag, started: Instant::now(), frames: 0 });
            if exchange.stream {
                connection.output.extend(STREAM_HEAD);
                self.continue_response(token);
            } else if exchange.pause == 0 {
                self.continue_response(token);
            } else {
                let time = Instant::now() + Duration::from_micros(exchange.pause);
                self.timers.push(Reverse((time, token, connection.requests)));
            }
        } else {
            connection.write_json("401 Unauthorized", "{\"error\":{\"code\":401}}");
        }
        true
    }

    /// Writes the next part of the response.
    fn continue_response(&mut self, token: usize) {
        let Some(connection) = &mut self.connections[token] else { return };
        let Some(job) = &mut connection.job else { return };
        if !job.exchange.stream {
            let response = self
                .responses
                .entry(job.exchange.response_size)
                .or_insert_with(|| with_head(&job.exchange, &self.model));
            response.tag(&job.tag);
            connection.output.extend(&response.bytes);
            connection.job = None;
            return;
        }
        self.stream.tag(&job.tag);
        let frames = self.stream.ends.len();
        loop {
            let from = if job.frames == 0 { 0 } else { self.stream.ends[job.frames - 1] };
            connection.output.extend(&self.stream.bytes[from..self.stream.ends[job.frames]]);
            job.frames += 1;
            if job.frames == frames {
                connection.job = None;
                return;
            }
            // The last delta, the frame with the usage and the end mark are sent at once, as by llama-server.
            let is_end = job.frames + 2 >= frames;
            if job.exchange.pause > 0 && !is_end {
                let time = job.started + Duration::from_micros(job.exchange.pause) * job.frames as u32;
                self.timers.push(Reverse((time, token, connection.requests)));
                return;
            }
            if !is_end {
                write_now(&mut connection.socket, &mut connection.output, &mut connection.sent);
            }
        }
    }
}

impl Connection {
    /// Reads what has arrived; returns whether the connection is still open.
    fn read(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return false,
                Ok(count) => {
                    self.input.extend(&scratch[..count]);
                    if count < scratch.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn write(&mut self) {
        write_now(&mut self.socket, &mut self.output, &mut self.sent);
    }

    fn write_json(&mut self, status: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\nServer: llama.cpp\r\nContent-Type: application/json\r\n");
        self.output.extend(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).bytes());
    }
}

/// Writes what the socket takes. An error shows at the next read.
fn write_now(socket: &mut TcpStream, output: &mut Vec<u8>, sent: &mut usize) {
    while *sent < output.len() {
        match socket.write(&output[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    output.clear();
    *sent = 0;
}

/// Returns a whole response, head and body.
fn with_head(exchange: &Exchange, model: &str) -> ResponseBody {
    let mut response = ResponseBody::to(exchange, model);
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        response.bytes.len()
    );
    response.bytes.splice(0..0, head.bytes());
    response.tags.iter_mut().for_each(|at| *at += head.len());
    response
}

/// Returns the frames of a stream, each as a separate chunk, and the last chunk.
fn chunks(frames: &ResponseBody) -> ResponseBody {
    let mut chunks = ResponseBody { bytes: Vec::new(), tags: Vec::new(), ends: Vec::new() };
    let mut from = 0;
    for &end in &frames.ends {
        chunks.bytes.extend(format!("{:x}\r\n", end - from).bytes());
        let start = chunks.bytes.len();
        let inside = frames.tags.iter().filter(|&&at| (from..end).contains(&at));
        chunks.tags.extend(inside.map(|at| at - from + start));
        chunks.bytes.extend(&frames.bytes[from..end]);
        chunks.bytes.extend(b"\r\n");
        chunks.ends.push(chunks.bytes.len());
        from = end;
    }
    chunks.bytes.extend(b"0\r\n\r\n");
    *chunks.ends.last_mut().expect("frames") = chunks.bytes.len();
    chunks
}

/// Returns the value of a header; the name matches in any case.
fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a str> {
    for line in head.split(|&byte| byte == b'\n') {
        if line.len() > name.len() && line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name) {
            return std::str::from_utf8(&line[name.len() + 1..]).ok().map(str::trim);
        }
    }
    None
}
