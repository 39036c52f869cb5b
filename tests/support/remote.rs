//! A remote backend: it answers each POST as the test says and remembers the requests. Probes (`GET`) always succeed
//! while it listens.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use super::wait::{self, eventually, eventually_some, patient};

/// What the backend does with a POST.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Serves the request: the response, whole or streamed, contains the model's name from the request. Documents get the
    /// score 0.5.
    Serve,
    /// What this returns for the request: a status, and a body.
    Answer(fn(&ReceivedRequest) -> (u16, Value)),
    /// Serves the request once `release` is called.
    Hold,
    /// Serves the request, and closes the connection without `Connection: close`.
    ServeAndClose,
    /// A whole response with this status and body.
    Status(u16, Value),
    /// An empty response with this status and this `Retry-After`.
    Busy(u16, &'static str),
    /// These bytes, which are a whole response or a part of one. Then it closes the connection in an orderly way.
    Raw(Vec<u8>),
    /// The first bytes, and once `release` is called the others. Then it closes the connection in an orderly way.
    HoldBetween(Vec<u8>, Vec<u8>),
    /// Sends the head and one event of a stream, then closes the connection.
    DieMidStream,
    /// Sends the head and one event of a stream, and the rest once `release` is called.
    HoldMidStream,
    /// Sends the head and a part of a whole response, and closes the connection once `release` is called.
    HoldMidAnswer,
    /// Closes the connection without a response.
    Close,
    /// Never responds.
    Hang,
}

/// A POST that the backend received.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedRequest {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// A running backend.
pub(crate) struct Remote {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    reply: Mutex<Reply>,
    received: Mutex<Vec<ReceivedRequest>>,
    /// The paths of all requests that are no POST.
    probed: Mutex<Vec<String>>,
    probe_status: AtomicU16,
    connections: Mutex<Vec<TcpStream>>,
    /// Connections that the gateway has closed after they were closed here.
    closed_by_gateway: AtomicUsize,
    has_ended: AtomicBool,
    released: Mutex<usize>,
    release: Condvar,
}

impl Reply {
    /// Returns a whole response with this status, these header lines and this body.
    pub(crate) fn whole(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head =
            format!("HTTP/1.1 {status} X\r\n{headers}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        Self::Raw([head.as_bytes(), body].concat())
    }
}

impl Remote {
    /// Starts a backend with this reply.
    pub(crate) fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            reply: Mutex::new(reply),
            received: Mutex::default(),
            probed: Mutex::default(),
            probe_status: AtomicU16::new(200),
            connections: Mutex::default(),
            closed_by_gateway: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            released: Mutex::new(0),
            release: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let acceptor = thread::spawn(move || own.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the reply to the requests that follow.
    pub(crate) fn set_reply(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
    }

    /// Sets the status of the answers to the probes that follow.
    pub(crate) fn set_probe_status(&self, status: u16) {
        self.shared.probe_status.store(status, Ordering::SeqCst);
    }

    /// Returns the paths of the probes so far.
    pub(crate) fn probed(&self) -> Vec<String> {
        self.shared.probed.lock().unwrap().clone()
    }

    /// Releases one held request.
    pub(crate) fn release(&self) {
        *self.shared.released.lock().unwrap() += 1;
        self.shared.release.notify_all();
    }

    /// Returns the requests so far.
    pub(crate) fn received(&self) -> Vec<ReceivedRequest> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Waits until `count` requests have arrived, and returns them.
    #[track_caller]
    pub(crate) fn wait_received(&self, count: usize) -> Vec<ReceivedRequest> {
        eventually_some(&format!("{count} requests reach the remote backend"), wait::READY, || {
            Some(self.received()).filter(|received| received.len() >= count)
        })
    }

    /// Waits until the gateway has closed `count` connections that `Reply::ServeAndClose` closed on this side.
    #[track_caller]
    pub(crate) fn wait_closed_by_gateway(&self, count: usize) {
        eventually(&format!("the gateway closes {count} connections"), wait::READY, || {
            self.shared.closed_by_gateway.load(Ordering::SeqCst) >= count
        });
    }

    /// Ends the backend: closes its connections and refuses new ones.
    pub(crate) fn end(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.has_ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        let _ = acceptor.join();
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.release.notify_all();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.end();
    }
}

impl ReceivedRequest {
    /// Returns the value of the first header of this name, which is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((connection, _)) = listener.accept() {
            if self.has_ended.load(Ordering::SeqCst) {
                return;
            }
            self.connections.lock().unwrap().extend(connection.try_clone());
            let own = Arc::clone(&self);
            thread::spawn(move || {
                _ = own.serve(&connection);
                let _ = connection.shutdown(Shutdown::Both);
            });
        }
    }

    /// Waits for a `release`; returns false at the end of the backend or after a timeout.
    fn wait_release(&self) -> bool {
        let waits = |released: &mut usize| *released == 0 && !self.has_ended.load(Ordering::SeqCst);
        let held = self.released.lock().unwrap();
        let (mut released, _) = self.release.wait_timeout_while(held, patient(wait::READY), waits).unwrap();
        let is_released = *released > 0;
        *released -= usize::from(is_released);
        is_released
    }

    /// Serves one connection until it ends.
    fn serve(&self, connection: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        loop {
            let Some((method, request)) = read_request(&mut reader)? else { return Ok(()) };
            if method != "POST" {
                self.probed.lock().unwrap().push(request.path);
                let status = self.probe_status.load(Ordering::SeqCst);
                send_whole(connection, status, &json!({"object": "list", "data": []}))?;
                continue;
            }
            let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
            self.received.lock().unwrap().push(request.clone());
            let reply = self.reply.lock().unwrap().clone();
            match reply {
                Reply::Serve => serve(connection, &body)?,
                Reply::Answer(answer) => {
                    let (status, body) = answer(&request);
                    send_whole(connection, status, &body)?;
                }
                Reply::ServeAndClose => {
                    serve(connection, &body)?;
                    connection.shutdown(Shutdown::Write)?;
                    let count = reader.read(&mut [0])?;
                    self.closed_by_gateway.fetch_add(usize::from(count == 0), Ordering::SeqCst);
                    return Ok(());
                }
                Reply::Hold if self.wait_release() => serve(connection, &body)?,
                Reply::Hold => return Ok(()),
                Reply::Status(status, body) => send_whole(connection, status, &body)?,
                Reply::Busy(status, wait) => {
                    let mut connection = connection;
                    let head = format!("HTTP/1.1 {status} X\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n");
                    connection.write_all(head.as_bytes())?;
                }
                Reply::Raw(bytes) => return send_all(connection, &bytes, &mut reader),
                Reply::HoldBetween(first, others) => {
                    let mut unheld = connection;
                    unheld.write_all(&first)?;
                    if !self.wait_release() {
                        return Ok(());
                    }
                    return send_all(connection, &others, &mut reader);
                }
                Reply::DieMidStream => return begin_stream(connection, &body),
                Reply::HoldMidStream => {
                    begin_stream(connection, &body)?;
                    if !self.wait_release() {
                        return Ok(());
                    }
                    end_stream(connection)?;
                }
                Reply::HoldMidAnswer => {
                    let mut connection = connection;
                    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")?;
                    self.wait_release();
                    return Ok(());
                }
                Reply::Close => return Ok(()),
                // Ends when the gateway closes the connection.
                Reply::Hang => _ = reader.read(&mut [0])?,
            }
        }
    }
}

/// Reads the next request; returns `None` at the end of the connection.
pub(crate) fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, ReceivedRequest)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = ReceivedRequest { path, headers, body: String::new() };
    let mut body = Vec::new();
    match request.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None if request.header("transfer-encoding").is_some() => loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            let mut piece = vec![0; size + 2];
            reader.read_exact(&mut piece)?;
            body.extend_from_slice(&piece[..size]);
            if size == 0 {
                break;
            }
        },
        None => {}
    }
    request.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some((method, request)))
}

fn serve(connection: &TcpStream, body: &Value) -> std::io::Result<()> {
    if let Some(documents) = body["documents"].as_array() {
        let results: Value = (0..documents.len()).map(|at| json!({"index": at, "relevance_score": 0.5})).collect();
        let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
        return send_whole(connection, 200, &json!({"model": body["model"], "results": results, "usage": usage}));
    }
    if body["stream"] != true {
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": body["model"]}});
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 2});
        return send_whole(connection, 200, &json!({"model": body["model"], "choices": [choice], "usage": usage}));
    }
    begin_stream(connection, body)?;
    end_stream(connection)
}

fn begin_stream(mut connection: &TcpStream, body: &Value) -> std::io::Result<()> {
    let chunk = json!({"model": body["model"], "choices": [{"index": 0, "delta": {"content": "one"}}]});
    let event = format!("data: {chunk}\n\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(format!("{head}{:x}\r\n{event}\r\n", event.len()).as_bytes())
}

fn end_stream(mut connection: &TcpStream) -> std::io::Result<()> {
    connection.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
}

/// Sends these bytes and ends the connection once the gateway has read everything.
fn send_all(mut connection: &TcpStream, bytes: &[u8], reader: &mut impl Read) -> std::io::Result<()> {
    connection.write_all(bytes)?;
    connection.shutdown(Shutdown::Write)?;
    _ = reader.read_to_end(&mut Vec::new());
    Ok(())
}

fn send_whole(mut connection: &TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes())
}
