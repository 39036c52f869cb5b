//! Foreign servers that take the ports of llama-server.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::shared::IDLE_POLL;

/// The response body of a port taker; no client may ever get it.
pub(crate) const FOREIGN_BODY: &str = "stolen-response";

/// How a port taker treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakerBehaviour {
    /// Responds 200 to every request.
    AnswersOk,
    /// Accepts connections and never responds.
    Silent,
}

/// Holds a port until it is dropped.
pub(crate) struct PortTaker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PortTaker {
    /// Takes a port; returns `None` where it is in use already.
    pub(crate) fn take(port: u16, behaviour: TakerBehaviour) -> Option<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        listener.set_nonblocking(true).ok()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((connection, _)) if behaviour == TakerBehaviour::AnswersOk => _ = respond(connection),
                    Ok((connection, _)) => connections.push(connection),
                    Err(_) => std::thread::sleep(IDLE_POLL),
                }
            }
        });
        Some(PortTaker { stop, thread: Some(thread) })
    }
}

impl Drop for PortTaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it cannot panic
        }
    }
}

fn respond(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
    let _ = connection.read(&mut [0; 4096]); // the request does not matter
    let length = FOREIGN_BODY.len();
    connection.write_all(
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{FOREIGN_BODY}").as_bytes(),
    )
}
