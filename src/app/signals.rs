//! The signals that the service hears: those that stop it and the one that reloads its configuration.

use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are heard.
pub struct Signals {
    /// Those that stop the service.
    pub stop: StopSignals,
    /// The one that reloads configuration and keys.
    pub(super) hangup: Signal,
}

/// The signals that stop the service, with their names.
pub struct StopSignals([(Signal, &'static str); 3]);

impl Signals {
    /// Begins to listen, inside a runtime. A signal that comes from now on is heard later, but not lost; one that comes
    /// before is nothing to the first process of a container.
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
    /// Waits for the next one, and gives its name.
    pub async fn recv(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            let come =
                self.0.iter_mut().find_map(|(signal, name)| signal.poll_recv(context).is_ready().then_some(*name));
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
