//! A collector of traces that comes and goes, always at the same address.

use std::{
    io::{BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::support::remote::read_request;

/// The address of a collector, and the one that listens there, if one does.
pub(super) struct Collector {
    address: SocketAddr,
    exports: Arc<AtomicU64>,
    running: Mutex<Option<Running>>,
}

/// A collector that listens.
struct Running {
    has_ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: thread::JoinHandle<()>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let collector = Self { address, exports: Arc::default(), running: Mutex::default() };
        collector.serve(listener);
        collector
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns how many exports it has taken.
    pub(super) fn exports(&self) -> u64 {
        self.exports.load(Ordering::SeqCst)
    }

    /// Ends it, with its connections.
    pub(super) fn leave(&self) {
        let Some(Running { has_ended, connections, acceptor }) = self.running.lock().unwrap().take() else { return };
        has_ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        let _ = acceptor.join();
        for connection in connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens again, unless another program has taken the port meanwhile. Returns whether it listens.
    pub(super) fn come_back(&self) -> bool {
        if self.running.lock().unwrap().is_some() {
            return true;
        }
        let listener = TcpListener::bind(self.address);
        listener.map(|listener| self.serve(listener)).is_ok()
    }

    fn serve(&self, listener: TcpListener) {
        let has_ended = Arc::<AtomicBool>::default();
        let connections = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (exports, ended, held) = (Arc::clone(&self.exports), Arc::clone(&has_ended), Arc::clone(&connections));
        let acceptor = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                held.lock().unwrap().extend(connection.try_clone());
                let exports = Arc::clone(&exports);
                thread::spawn(move || take_exports(&connection, &exports));
            }
        });
        *self.running.lock().unwrap() = Some(Running { has_ended, connections, acceptor });
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Takes exports until the connection ends.
fn take_exports(connection: &TcpStream, exports: &AtomicU64) {
    let Ok(copy) = connection.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    while let Ok(Some(_)) = read_request(&mut reader) {
        exports.fetch_add(1, Ordering::SeqCst);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        let mut connection = connection;
        if connection.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}
