//! A TCP proxy that does to the bytes between two programs what a bad network does: it passes them on in small pieces, in
//! large ones or late, ends or resets the connection between two of them, closes one half, or keeps them for itself.
//!
//! Bytes of a TCP connection are neither doubled nor reordered for programs, whatever happens to its packets;
//! `scripts/test-network.sh` does that to packets.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::SockRef;

use super::wait::{self, patient};

/// How long bytes are collected that are passed on together.
const COLLECTED: Duration = Duration::from_millis(10);

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// They are passed on as they come.
    Nothing,
    /// They are passed on in pieces of this size.
    Pieces(usize),
    /// All that come within a moment are passed on as one piece.
    Merge,
    /// After this number of bytes the connection is closed in an orderly way, in both directions.
    CutAfter(usize),
    /// After this number of bytes the connection is reset on both sides.
    ResetAfter(usize),
    /// After this number of bytes this direction is closed; the other one goes on.
    HalfCloseAfter(usize),
    /// After this number of bytes nothing is passed on, and nothing is closed.
    StallAfter(usize),
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Troubles {
    pub(crate) to_server: Trouble,
    pub(crate) to_client: Trouble,
    /// Whether connections that begin with a GET have no trouble: probes.
    pub(crate) spares_gets: bool,
}

/// A running proxy.
pub(crate) struct HostileProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    troubles: Mutex<Troubles>,
    /// How long each piece of an answer is held back.
    delay: Arc<Mutex<Duration>>,
    connections: Mutex<Vec<Weak<Pair>>>,
    accepted: AtomicUsize,
    has_ended: AtomicBool,
}

/// The two connections of a client.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
    is_spared: AtomicBool,
}

impl Troubles {
    pub(crate) const NONE: Self = Self { to_server: Trouble::Nothing, to_client: Trouble::Nothing, spares_gets: false };

    /// Returns the same trouble in both directions.
    pub(crate) fn both(trouble: Trouble) -> Self {
        Self { to_server: trouble, to_client: trouble, ..Self::NONE }
    }

    pub(crate) fn to_server(trouble: Trouble) -> Self {
        Self { to_server: trouble, ..Self::NONE }
    }

    pub(crate) fn to_client(trouble: Trouble) -> Self {
        Self { to_client: trouble, ..Self::NONE }
    }

    /// Returns the same for connections that do not begin with a GET alone.
    pub(crate) fn sparing_gets(self) -> Self {
        Self { spares_gets: true, ..self }
    }
}

impl HostileProxy {
    /// Starts a proxy in front of `http://host:port`, or `https://host:port`.
    pub(crate) fn start(url: &str, troubles: Troubles) -> Self {
        let server = url.split("://").last().and_then(|address| address.parse().ok()).expect("a URL with an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            server,
            troubles: Mutex::new(troubles),
            delay: Arc::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        Self { address, shared, acceptor: Some(thread::spawn(move || own.accept(&listener))) }
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns `https://127.0.0.1:PORT`.
    pub(crate) fn secure_url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what happens to the connections that follow.
    pub(crate) fn set_troubles(&self, troubles: Troubles) {
        *self.shared.troubles.lock().unwrap() = troubles;
    }

    /// Holds each piece of an answer back for this time from now on, on the connections that there are too.
    pub(crate) fn delay_answers(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    /// Returns how many connections were made so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for HostileProxy {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for pair in self.shared.connections.lock().unwrap().drain(..).filter_map(|pair| pair.upgrade()) {
            pair.close();
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.has_ended.load(Ordering::SeqCst) {
                return;
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(server) = TcpStream::connect_timeout(&self.server, patient(wait::SOON)) else { continue };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let pair =
                Arc::new(Pair { client, server, is_reset: AtomicBool::new(false), is_spared: AtomicBool::new(false) });
            let mut connections = self.connections.lock().unwrap();
            connections.retain(|pair| pair.strong_count() > 0);
            let Troubles { to_server, to_client, spares_gets } = *self.troubles.lock().unwrap();
            let (there, back, delay) = (Arc::clone(&pair), Arc::clone(&pair), Arc::clone(&self.delay));
            thread::spawn(move || {
                // Before a byte of the request is passed on, and so before one of the response is.
                there.is_spared.store(spares_gets && there.begins_with_get(), Ordering::SeqCst);
                there.pass(&there.client, &there.server, to_server, || Duration::ZERO);
            });
            thread::spawn(move || back.pass(&back.server, &back.client, to_client, || *delay.lock().unwrap()));
            // Not held here: a reset is sent when the last holder closes.
            connections.push(Arc::downgrade(&pair));
        }
    }
}

impl Pair {
    /// Waits for the first bytes of the client.
    fn begins_with_get(&self) -> bool {
        let mut first = [0; 4];
        self.client.peek(&mut first).is_ok_and(|count| count == first.len() && first == *b"GET ")
    }

    /// Passes bytes on until the connection ends, each piece after a delay.
    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, trouble: Trouble, delay: impl Fn() -> Duration) {
        let (mut passed, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            let count = match from.read(&mut buffer) {
                Ok(count) if count > 0 && !self.is_reset.load(Ordering::SeqCst) => count,
                _ => break,
            };
            let trouble = if self.is_spared.load(Ordering::SeqCst) { Trouble::Nothing } else { trouble };
            let mut bytes = buffer[..count].to_vec();
            if trouble == Trouble::Merge {
                let _ = from.set_read_timeout(Some(COLLECTED));
                while let Ok(more) = from.read(&mut buffer) {
                    bytes.extend_from_slice(&buffer[..more]);
                    if more == 0 {
                        break;
                    }
                }
                let _ = from.set_read_timeout(None);
            }
            thread::sleep(delay());
            let piece = if let Trouble::Pieces(size) = trouble { size } else { bytes.len() };
            let room = match trouble {
                Trouble::CutAfter(most)
                | Trouble::ResetAfter(most)
                | Trouble::HalfCloseAfter(most)
                | Trouble::StallAfter(most) => most - passed,
                _ => usize::MAX,
            };
            let now = &bytes[..bytes.len().min(room)];
            if now.chunks(piece.max(1)).any(|piece| to.write_all(piece).is_err()) {
                break;
            }
            passed += now.len();
            if bytes.len() < room {
                continue;
            }
            match trouble {
                Trouble::CutAfter(_) => return self.close(),
                Trouble::ResetAfter(_) => return self.reset(),
                Trouble::HalfCloseAfter(_) => break,
                // Reads on, so that the sender is not held up: its bytes are lost on the way.
                Trouble::StallAfter(_) => {}
                Trouble::Nothing | Trouble::Pieces(_) | Trouble::Merge => {}
            }
        }
        if !self.is_reset.load(Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn close(&self) {
        let _ = (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
    }

    /// Has both connections reset when they are closed, and wakes the thread of the other direction.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::SeqCst);
        for stream in [&self.client, &self.server] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}
