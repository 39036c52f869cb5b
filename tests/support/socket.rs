//! A blocking socket of a client, with or without TLS. It takes any certificate: tests of certificates have clients of their
//! own.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, LazyLock},
    time::Duration,
};

use llamagate::dial::Trust;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use socket2::{Domain, Type};

use super::wait::{self, patient};

/// Bytes of a segment of a connection whose buffers are small.
const SMALL_SEGMENT: u32 = 536;

/// A connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Connects. Reads and writes fail after `patience`. The kernel keeps no more than `receive_buffer` bytes unread; with
    /// `None`, as many as it likes.
    pub(crate) fn open(
        address: SocketAddr,
        is_secure: bool,
        patience: Duration,
        receive_buffer: Option<usize>,
    ) -> io::Result<Self> {
        if !is_secure {
            return connect(address, patience, receive_buffer).map(Self::Plain);
        }
        static ANY: LazyLock<Arc<ClientConfig>> =
            LazyLock::new(|| Trust::of_any_certificate().and_then(|trust| trust.config()).expect("TLS can be set up"));
        Self::over(address, Arc::clone(&ANY), patience, receive_buffer)
    }

    /// Connects for TLS with this configuration; the handshake comes with the first read or write.
    pub(crate) fn over(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        patience: Duration,
        receive_buffer: Option<usize>,
    ) -> io::Result<Self> {
        let stream = connect(address, patience, receive_buffer)?;
        let name = ServerName::IpAddress(address.ip().into());
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self::Secure(Box::new(StreamOwned::new(connection, stream))))
    }

    /// Returns the certificate that the server has shown.
    pub(crate) fn shown_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(secure) => Some(secure.conn.peer_certificates()?.first()?.to_vec()),
        }
    }

    /// Closes the sending half; the connection can still be read.
    pub(crate) fn finish_writing(&mut self) {
        let _ = match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write),
            Self::Secure(secure) => {
                secure.conn.send_close_notify();
                secure.flush().and_then(|()| secure.sock.shutdown(Shutdown::Write))
            }
        };
    }

    /// Whether there are unread bytes of the other side, or the connection has ended. Does not block.
    pub(crate) fn has_news(&mut self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Secure(secure) => &mut secure.sock,
        };
        stream.set_nonblocking(true).expect("a socket can be told not to block");
        let has_news = match self {
            Self::Plain(stream) => !stream.peek(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock),
            Self::Secure(secure) => has_plain_news(secure),
        };
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Secure(secure) => &mut secure.sock,
        };
        stream.set_nonblocking(false).expect("a socket can be told to block");
        has_news
    }
}

fn connect(address: SocketAddr, patience: Duration, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Before the connection: its window is agreed on then, and how much the other end buffers follows from the segments.
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
        socket.set_tcp_mss(SMALL_SEGMENT)?;
    }
    socket.connect_timeout(&address.into(), patient(wait::SOON))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Reads what has arrived, which may be messages of TLS alone.
fn has_plain_news(secure: &mut StreamOwned<ClientConnection, TcpStream>) -> bool {
    loop {
        match secure.conn.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            _ => return true,
        }
        match secure.conn.read_tls(&mut secure.sock) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(secure) => secure.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            // Completes the handshake too.
            Self::Secure(secure) => {
                if secure.conn.is_handshaking() {
                    secure.conn.complete_io(&mut secure.sock)?;
                }
                secure.flush()
            }
        }
    }
}
