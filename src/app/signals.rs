//! The signals that the service handles: those that stop it, and SIGHUP, which reloads its configuration.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal handlers of the service.
pub struct Signals {
    /// The signals that stop the service.
    pub stop: StopSignals,
    /// SIGHUP, which reloads configuration and keys.
    pub(super) hangup: Signal,
}

/// The signals that stop the service, each with its name.
pub struct StopSignals([(Signal, &'static str); 3]);

impl Signals {
    /// Installs the handlers; must be called inside a runtime. Signals that arrive from now on are not lost, even if
    /// they are received later.
    ///
    /// The kernel ignores earlier signals if this is the first process of a container, because process 1 has no default
    /// handlers.
    ///
    /// # Errors
    ///
    /// Returns an error if a handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let stop = [
            (signal(SignalKind::terminate())?, "SIGTERM"),
            (signal(SignalKind::interrupt())?, "SIGINT"),
            (signal(SignalKind::quit())?, "SIGQUIT"),
        ];
        Ok(Self { stop: StopSignals(stop), hangup: signal(SignalKind::hangup())? })
    }
}

impl StopSignals {
    /// Waits for the next stop signal and returns its name.
    pub async fn recv(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            let received =
                self.0.iter_mut().find_map(|(signal, name)| signal.poll_recv(context).is_ready().then_some(*name));
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
