//! A backend that somebody else runs: it answers as the test says and remembers what it was asked. Its probe (`GET`) is
//! always answered well as long as it listens.

use super::wait::{self, eventually, eventually_some, patient};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// What it does with a POST.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Serves it: the answer, whole or streamed, names the model that the request names.
    Serve,
    /// The same, once `release` is called; until then nothing.
    Hold,
    /// The same, and closes the connection without having announced that.
    ServeAndClose,
    /// A whole answer of this status.
    Status(u16, Value),
    /// An empty answer of this status with this `Retry-After`.
    Busy(u16, &'static str),
    /// The head and one event of a stream, then the connection ends.
    DieMidStream,
    /// The same, but the stream goes on once `release` is called.
    HoldMidStream,
    /// The head of a whole answer and a part of it; nothing more until `release` is called.
    HoldMidAnswer,
    /// Closes the connection without an answer.
    Close,
    /// Never answers.
    Hang,
}

/// A request that it got, probes left out.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// The backend.
pub(crate) struct Remote {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    reply: Mutex<Reply>,
    asked: Mutex<Vec<Asked>>,
    connections: Mutex<Vec<TcpStream>>,
    /// Connections that the other side has left after they were closed here.
    left: AtomicUsize,
    has_ended: AtomicBool,
    released: Mutex<usize>,
    release: Condvar,
}

impl Remote {
    /// One that replies so until told otherwise.
    pub(crate) fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            reply: Mutex::new(reply),
            asked: Mutex::default(),
            connections: Mutex::default(),
            left: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            released: Mutex::new(0),
            release: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let acceptor = thread::spawn(move || own.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from now on.
    pub(crate) fn replies(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
    }

    /// Lets one request that is held go on.
    pub(crate) fn release(&self) {
        *self.shared.released.lock().unwrap() += 1;
        self.shared.release.notify_all();
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked so often.
    #[track_caller]
    pub(crate) fn wait_asked(&self, count: usize) -> Vec<Asked> {
        eventually_some(&format!("{count} requests reach the remote backend"), wait::READY, || {
            Some(self.asked()).filter(|asked| asked.len() >= count)
        })
    }

    /// Waits until the other side has noticed so many ends of `Reply::ServeAndClose`.
    #[track_caller]
    pub(crate) fn wait_left(&self, count: usize) {
        eventually(&format!("{count} closed connections are left"), wait::READY, || {
            self.shared.left.load(Ordering::SeqCst) >= count
        });
    }

    /// Ends: connections are closed, further ones refused.
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

impl Asked {
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

    /// Waits until one of those that are held may go on; false if none may.
    fn is_released(&self) -> bool {
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
            let Some((method, asked)) = read(&mut reader)? else { return Ok(()) };
            if method != "POST" {
                whole(connection, 200, &json!({"object": "list", "data": []}))?;
                continue;
            }
            let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
            self.asked.lock().unwrap().push(asked);
            let reply = self.reply.lock().unwrap().clone();
            match reply {
                Reply::Serve => served(connection, &body)?,
                Reply::ServeAndClose => {
                    served(connection, &body)?;
                    connection.shutdown(Shutdown::Write)?;
                    let left = reader.read(&mut [0])?;
                    self.left.fetch_add(usize::from(left == 0), Ordering::SeqCst);
                    return Ok(());
                }
                Reply::Hold if self.is_released() => served(connection, &body)?,
                Reply::Hold => return Ok(()),
                Reply::Status(status, body) => whole(connection, status, &body)?,
                Reply::Busy(status, wait) => {
                    let mut connection = connection;
                    let head = format!("HTTP/1.1 {status} X\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n");
                    connection.write_all(head.as_bytes())?;
                }
                Reply::DieMidStream => return begin_stream(connection, &body),
                Reply::HoldMidStream => {
                    begin_stream(connection, &body)?;
                    if !self.is_released() {
                        return Ok(());
                    }
                    end_stream(connection)?;
                }
                Reply::HoldMidAnswer => {
                    let mut connection = connection;
                    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")?;
                    self.is_released();
                    return Ok(());
                }
                Reply::Close => return Ok(()),
                // Until the other side leaves.
                Reply::Hang => _ = reader.read(&mut [0])?,
            }
        }
    }
}

/// The next request; none at the end of the connection.
pub(crate) fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, Asked)>> {
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
    let mut asked = Asked { path, headers, body: String::new() };
    let mut body = Vec::new();
    match asked.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None if asked.header("transfer-encoding").is_some() => loop {
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
    asked.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some((method, asked)))
}

fn served(connection: &TcpStream, body: &Value) -> std::io::Result<()> {
    if body["stream"] != true {
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": body["model"]}});
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 2});
        return whole(connection, 200, &json!({"model": body["model"], "choices": [choice], "usage": usage}));
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

fn whole(mut connection: &TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes())
}
