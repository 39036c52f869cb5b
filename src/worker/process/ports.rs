//! The port of each worker: no two workers get the same one, even before their processes have bound it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::worker::bounds::BACKEND_PORT_TRIES;

/// The ports that workers of this service use.
#[derive(Clone, Default)]
pub(crate) struct PortPool(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    ports: BTreeSet<u16>,
    /// The port that is tried first.
    next: u16,
}

/// A port that belongs to one worker until this is dropped.
pub(crate) struct BackendPort {
    address: SocketAddr,
    /// Where it is given back; `None` if it was not taken from there.
    ports: Option<PortPool>,
}

impl PortPool {
    /// Takes the next free port from `first` upwards, or one that the system picks where none of [`BACKEND_PORT_TRIES`]
    /// is free. Each call returns a different port, so that a client of the last process does not reach the next one.
    ///
    /// # Errors
    ///
    /// No port is free, or this machine is short of file descriptors.
    pub(crate) fn take(&self, first: u16) -> io::Result<BackendPort> {
        let mut taken = self.taken();
        let last = first.saturating_add(BACKEND_PORT_TRIES - 1);
        for _ in 0..BACKEND_PORT_TRIES {
            let port = if (first..=last).contains(&taken.next) { taken.next } else { first };
            taken.next = if port == last { first } else { port + 1 };
            if port != 0 && !taken.ports.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(self.assign(&mut taken, port));
            }
        }
        // Rejected listeners stay open until the end, so that the system does not return their ports again.
        let mut rejected = Vec::new();
        for _ in 0..BACKEND_PORT_TRIES {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            if !taken.ports.contains(&port) {
                return Ok(self.assign(&mut taken, port));
            }
            rejected.push(listener);
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    fn assign(&self, taken: &mut Taken, number: u16) -> BackendPort {
        taken.ports.insert(number);
        BackendPort { address: SocketAddr::from((Ipv4Addr::LOCALHOST, number)), ports: Some(self.clone()) }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendPort {
    /// Returns the address that a user has chosen for the worker.
    pub(crate) fn chosen(address: SocketAddr) -> Self {
        Self { address, ports: None }
    }

    /// Returns the address; of a port of the pool, that on the loopback interface.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for BackendPort {
    fn drop(&mut self) {
        if let Some(ports) = &self.ports {
            ports.taken().ports.remove(&self.address.port());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the first of `count` free ports, below the kernel's range of ephemeral ports.
    fn first_of_free(count: u16) -> u16 {
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let from = 30_000 + (std::process::id() % 1_000) as u16;
        (from..).find(|first| (*first..first + count).all(free)).unwrap()
    }

    #[test]
    fn ports_are_unique_and_a_returned_port_is_used_last() {
        let (ports, first) = (PortPool::default(), first_of_free(4));
        let mut held: Vec<BackendPort> = (0..3).map(|_| ports.take(first).unwrap()).collect();
        let numbers = |held: &[BackendPort]| held.iter().map(|port| port.address.port()).collect::<Vec<_>>();
        assert_eq!(numbers(&held), [first, first + 1, first + 2]);
        drop(held.remove(0));
        assert_eq!(ports.take(first).unwrap().address.port(), first + 3, "a client may still use the returned port");
    }

    #[test]
    fn the_system_picks_unique_ports_when_no_configured_port_is_free() {
        let ports = PortPool::default();
        let held: Vec<BackendPort> = (0..2 * BACKEND_PORT_TRIES).map(|_| ports.take(u16::MAX).unwrap()).collect();
        let numbers: BTreeSet<u16> = held.iter().map(|port| port.address.port()).collect();
        assert_eq!(numbers.len(), held.len());
        drop(held);
        assert!(ports.taken().ports.is_empty());
    }
}
