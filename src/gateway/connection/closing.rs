//! Tells the connections of a listener that they get no further requests.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};

use hyper_util::server::graceful::GracefulConnection;
use tokio_util::sync::CancellationToken;

/// Whether the connections of a listener are to end.
#[derive(Default)]
pub(super) struct Closing {
    /// Read at each poll of a connection, in place of the token, which is asked once.
    has_begun: AtomicBool,
    /// Wakes the tasks of the connections.
    token: CancellationToken,
}

impl Closing {
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Waits for the beginning.
    pub(super) fn begun(&self) -> impl Future<Output = ()> {
        self.token.cancelled()
    }

    /// Runs `work`; returns `None` once the closing begins.
    pub(super) async fn until_begun<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.token.run_until_cancelled(work).await
    }

    /// Serves a connection to its end: to that of the request in flight, once the closing has begun.
    ///
    /// # Errors
    /// The connection's.
    pub(super) async fn serve<C: GracefulConnection>(&self, mut connection: Pin<&mut C>) -> Result<(), C::Error> {
        let mut begun = pin!(self.begun());
        let (mut must_ask, mut is_told) = (true, false);
        poll_fn(|context| {
            // A task has the same waker at each poll, so it is woken by the wait that was polled first.
            if std::mem::take(&mut must_ask) {
                _ = begun.as_mut().poll(context);
            }
            let outcome = connection.as_mut().poll(context);
            if is_told || outcome.is_ready() || !self.has_begun() {
                return outcome;
            }
            // After a poll, in which a request that has been read ahead begins: told before, hyper would drop it.
            is_told = true;
            connection.as_mut().graceful_shutdown();
            connection.as_mut().poll(context)
        })
        .await
    }
}
