//! HTTP/1.1 on one connection, by hand: parses requests and writes bytes, so that the script can break responses.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::request::Request;

/// The reading half of a connection.
pub(super) struct Reader {
    half: OwnedReadHalf,
    buffer: Vec<u8>,
}

/// The writing half of a connection.
pub(super) struct Writer {
    half: OwnedWriteHalf,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client closed an idle connection.
    Closed,
    /// The client disconnected in the middle of a request, or the request is malformed.
    Cut,
}

/// Splits an accepted connection into its halves.
pub(super) fn split(stream: TcpStream) -> (Reader, Writer) {
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    (Reader { half: read, buffer: Vec::new() }, Writer { half: write })
}

impl Reader {
    /// Waits until the first byte of a request arrives or the client disconnects.
    pub(super) async fn wait_for_bytes(&mut self) {
        if self.buffer.is_empty() {
            let _ = self.half.peek(&mut [0]).await;
        }
    }

    /// Reads one request with its whole body.
    pub(super) async fn request(&mut self, writer: &mut Writer) -> Result<Request, NoRequest> {
        let mut request = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                break parse_head(&head).ok_or(NoRequest::Cut)?;
            }
            let idle = self.buffer.is_empty();
            self.read_more().await.map_err(|_| if idle { NoRequest::Closed } else { NoRequest::Cut })?;
        };
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| NoRequest::Cut)?;
        }
        let chunked = request.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = if chunked { self.chunks().await } else { self.exactly(length).await };
        request.body = body.map_err(|_| NoRequest::Cut)?;
        Ok(request)
    }

    /// Waits until the client disconnects or closes its sending half, which llama-server treats alike.
    pub(super) async fn wait_disconnected(&mut self) {
        let has_next_request = !self.buffer.is_empty() || matches!(self.half.peek(&mut [0]).await, Ok(1..));
        if has_next_request {
            std::future::pending::<()>().await; // a client that has sent another request is still connected
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.half.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.read_more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            body.extend(self.exactly(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.read_more().await?;
        }
    }
}

impl Writer {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.half.write_all(bytes).await
    }

    /// Writes one chunk of a chunked body.
    pub(super) async fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.write(&framed).await
    }

    pub(super) async fn last_chunk(&mut self) -> io::Result<()> {
        self.write(b"0\r\n\r\n").await
    }

    /// Makes the close of the connection send a reset (RST).
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        self.half.as_ref().set_zero_linger()
    }
}

fn parse_head(head: &[u8]) -> Option<Request> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(Request { method, target, headers, body: Vec::new(), is_last: false })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
