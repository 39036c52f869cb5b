//! Which port each worker of this service listens on: no two have the same, also while none of them has bound it yet.

use crate::worker::bounds::BACKEND_PORT_TRIES;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ports that are taken.
#[derive(Clone, Default)]
pub(crate) struct PortPool(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    ports: BTreeSet<u16>,
    /// Where to go on looking.
    next: u16,
}

/// A port that is one worker's until this is dropped.
pub(crate) struct BackendPort {
    number: u16,
    ports: PortPool,
}

impl PortPool {
    /// The next free port from `first` upwards, a different one each time so that nothing which still talks to the
    /// process before reaches the next one; one of the system's choice where none of those is free.
    pub(crate) fn take(&self, first: u16) -> io::Result<BackendPort> {
        let mut taken = self.taken();
        let last = first.saturating_add(BACKEND_PORT_TRIES - 1);
        for _ in 0..BACKEND_PORT_TRIES {
            let port = if (first..=last).contains(&taken.next) { taken.next } else { first };
            taken.next = if port == last { first } else { port + 1 };
            if port != 0 && !taken.ports.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(self.give(&mut taken, port));
            }
        }
        // Kept while the next is asked for, so that the system gives each once.
        let mut others = Vec::new();
        for _ in 0..BACKEND_PORT_TRIES {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            if !taken.ports.contains(&port) {
                return Ok(self.give(&mut taken, port));
            }
            others.push(listener);
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    fn give(&self, taken: &mut Taken, number: u16) -> BackendPort {
        taken.ports.insert(number);
        BackendPort { number, ports: self.clone() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendPort {
    /// Where a process with this port listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

impl Drop for BackendPort {
    fn drop(&mut self) {
        self.ports.taken().ports.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of some ports that nobody has, below those that the kernel gives to others.
    fn first_of_free(count: u16) -> u16 {
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let from = 30_000 + (std::process::id() % 1_000) as u16;
        (from..).find(|first| (*first..first + count).all(free)).unwrap()
    }

    #[test]
    fn no_port_is_given_twice_and_one_that_is_given_back_comes_last() {
        let (ports, first) = (PortPool::default(), first_of_free(4));
        let mut held: Vec<BackendPort> = (0..3).map(|_| ports.take(first).unwrap()).collect();
        let numbers = |held: &[BackendPort]| held.iter().map(|port| port.number).collect::<Vec<_>>();
        assert_eq!(numbers(&held), [first, first + 1, first + 2]);
        drop(held.remove(0));
        assert_eq!(ports.take(first).unwrap().number, first + 3, "something may still talk to the one before");
    }

    #[test]
    fn when_none_is_left_the_system_picks_and_never_the_same_twice() {
        let ports = PortPool::default();
        let held: Vec<BackendPort> = (0..2 * BACKEND_PORT_TRIES).map(|_| ports.take(u16::MAX).unwrap()).collect();
        let numbers: BTreeSet<u16> = held.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), held.len());
        drop(held);
        assert!(ports.taken().ports.is_empty());
    }
}
