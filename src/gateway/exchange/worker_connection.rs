//! One HTTP/1.1 connection to a worker, driven by the task that polls it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use tokio::task::unconstrained;

use super::wakeups::Wakeups;
use crate::dial::{Link, OpenConnection};
use crate::gateway::request::body::RequestBody;

/// The request of a failed exchange comes back if no byte of it was written.
type FailedExchange = TrySendError<Request<RequestBody>>;

/// A connection to a worker. Dropping it closes it.
pub(super) struct WorkerConnection {
    requests: SendRequest<RequestBody>,
    /// Reads and writes the socket; `None` once it has ended.
    driver: Option<Box<Connection<Link, RequestBody>>>,
    wakeups: Arc<Wakeups>,
    /// The same wake-ups, as the driver takes them.
    waker: Waker,
    /// Counts it as open.
    _open: OpenConnection,
}

impl WorkerConnection {
    /// Takes over a stream on which nothing has been sent, and which `open` counts.
    ///
    /// # Errors
    /// hyper cannot use the stream, which does not happen for HTTP/1.1.
    pub(super) async fn open(link: Link, open: OpenConnection) -> hyper::Result<Self> {
        let (requests, driver) = http1::handshake(link).await?;
        let wakeups = Arc::new(Wakeups::default());
        let waker = Waker::from(Arc::clone(&wakeups));
        Ok(Self { requests, driver: Some(Box::new(driver)), wakeups, waker, _open: open })
    }

    /// Reads and writes what the socket allows. `task` is woken when it allows more, or has been closed.
    pub(super) fn poll(&mut self, task: &Waker) {
        let Some(driver) = &mut self.driver else { return };
        self.wakeups.direct_to(task);
        // An error goes to the request, or to the body of its response. Without either it is the end of the connection.
        if Pin::new(&mut **driver).poll(&mut Context::from_waker(&self.waker)).is_ready() {
            self.driver = None;
        }
    }

    /// Directs wake-ups to this task: the connection is idle, and the socket has been polled.
    pub(super) fn watch(&self, task: &Waker) {
        self.wakeups.direct_to(task);
    }

    /// Returns whether the next request can be sent: the last one and its response are whole, and the worker has neither
    /// closed the connection nor announced it.
    pub(super) fn is_idle(&self) -> bool {
        self.driver.is_some() && self.requests.is_ready()
    }

    /// Sends a request and waits for the head of its response, whose body this connection goes on to read.
    ///
    /// # Errors
    /// The connection broke. The error holds the request if no byte of it was written.
    pub(super) async fn exchange(
        mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Self), FailedExchange> {
        let requests = &mut self.requests;
        let response = self.wakeups.mute(|| requests.try_send_request(request));
        // Without the runtime's budget, which would wake the task through the waker that is none.
        let mut response = pin!(unconstrained(response));
        let response = poll_fn(|context| {
            self.poll(context.waker());
            // Needs no waker: only the poll before makes it ready.
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        let response = response.await?;
        Ok((response, self))
    }

    /// Returns the piece of the body that has been read already.
    pub(super) fn poll_arrived(&self, body: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Needs no waker: only a poll of this connection brings more.
        self.wakeups.mute(|| Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())))
    }
}
