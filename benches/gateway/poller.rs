//! Waits for sockets and for a point in time, to the microsecond. The driver and the mock use it.
//!
//! Events are edge-triggered: the caller must read or write a ready socket until it would block.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

const TIMER: u64 = u64::MAX;

/// Sockets and one timer.
pub(crate) struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    armed: Option<Instant>,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(crate) fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        // epoll's own timeout counts milliseconds; latencies here are about a tenth of a millisecond.
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).expect("a timer");
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER);
        epoll.add(&timer, event).expect("the timer can be watched");
        Self { epoll, timer, armed: None, events: vec![EpollEvent::empty(); 512] }
    }

    /// Watches a socket until it is closed.
    pub(crate) fn watch(&self, socket: impl AsFd, token: usize) {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(socket, EpollEvent::new(flags, token as u64)).expect("the socket can be watched");
    }

    /// Waits until a socket is ready or `until` has passed; puts the tokens of ready sockets into `ready`.
    pub(crate) fn wait(&mut self, until: Option<Instant>, ready: &mut Vec<usize>) {
        ready.clear();
        let mut timeout = EpollTimeout::NONE;
        if let Some(until) = until {
            let left = until.saturating_duration_since(Instant::now());
            if left < Duration::from_nanos(500) {
                timeout = EpollTimeout::ZERO;
            } else if self.armed != Some(until) {
                let once = Expiration::OneShot(TimeSpec::from(left));
                self.timer.set(once, TimerSetTimeFlags::empty()).expect("the timer can be set");
                self.armed = Some(until);
            }
        }
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => panic!("epoll: {error}"),
        };
        for event in &self.events[..count] {
            if event.data() == TIMER {
                self.armed = None;
            } else {
                ready.push(event.data() as usize);
            }
        }
    }
}
