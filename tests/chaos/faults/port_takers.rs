//! Programs that are not ours on ports that llama-server wants.

use crate::shared::IDLE_LOOK;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// What a thief answers to everybody; no client may ever get it.
pub(crate) const LOOT: &str = "stolen-answer";

/// How a thief treats those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Says 200 to everything.
    Obliging,
    /// Accepts, and says nothing.
    Silent,
}

/// Somebody who holds a port until it is dropped.
pub(crate) struct Thief {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Thief {
    /// None where the port is taken already.
    pub(crate) fn take(port: u16, manner: Manner) -> Option<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        listener.set_nonblocking(true).ok()?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut guests = Vec::new();
            while !seen.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((guest, _)) if manner == Manner::Obliging => _ = answer(guest),
                    Ok((guest, _)) => guests.push(guest),
                    Err(_) => std::thread::sleep(IDLE_LOOK),
                }
            }
        });
        Some(Thief { stop, thread: Some(thread) })
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it cannot panic
        }
    }
}

fn answer(mut guest: TcpStream) -> std::io::Result<()> {
    guest.set_nonblocking(false)?;
    guest.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
    let _ = guest.read(&mut [0; 4096]); // whatever it wants
    let length = LOOT.len();
    guest
        .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{LOOT}").as_bytes())
}
