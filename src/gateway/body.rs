//! The answer's body, and with it everything that a request holds.
//!
//! The record, the ticket and the lease are fields of the body that streams to the client, so the end of the answer, a
//! client that leaves and a llama-server that dies all release them by the same drop.

use super::auth::Caller;
use super::heartbeat::Heartbeat;
use super::queue::Ticket;
use super::record::Record;
use super::sse::{Ending, Watch};
use crate::fleet::Lease;
use crate::refusal::{Refusal, Shape};
use crate::settings::bounds::RETRY_AFTER_UNKNOWN;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A body that the gateway sends.
pub enum Answer {
    /// Made by the gateway.
    Own(Option<Bytes>, OwnRecord),
    /// Passed on from llama-server.
    Passed(Box<Passed>),
    /// Begun before its time.
    Early(Box<Heartbeat>),
}

/// The record of an answer that the gateway made itself.
pub struct OwnRecord(#[expect(dead_code, reason = "held for its drop")] Option<Box<Record>>);

/// The answer was cut: the connection is closed so that the client can tell it from an end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct Cut(&'static str);

/// An answer on its way from llama-server to the client.
pub struct Passed {
    upstream: Option<Incoming>,
    /// Pieces that may go out.
    ready: VecDeque<Bytes>,
    stream: Option<Stream>,
    /// When the wait for the next piece ends.
    deadline: Pin<Box<Sleep>>,
    /// When the last piece of a stream came; none has before its first byte.
    last_piece: Option<Instant>,
    /// Ready when the drain is over.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    shape: Shape,
    record: Record,
    _caller: Caller,
    _ticket: Ticket,
    lease: Lease,
}

/// What only an event stream has.
struct Stream {
    watch: Watch,
    silence: Duration,
}

/// How long an answer may take.
pub(super) struct Patience {
    /// The whole answer must be out by then; of a stream, its first byte.
    pub(super) deadline: Instant,
    /// For a stream: how long it may be silent after each piece.
    pub(super) silence: Option<Duration>,
    /// When the service gives up what is still in flight.
    pub(super) cut: WaitForCancellationFutureOwned,
}

impl Answer {
    pub(super) fn own(bytes: Bytes, mut record: Record) -> Self {
        record.sends(bytes.len());
        record.complete = true;
        Self::Own((!bytes.is_empty()).then_some(bytes), OwnRecord(Some(Box::new(record))))
    }

    /// A body that nobody keeps account of: the health port's.
    pub(super) fn unrecorded(bytes: Bytes) -> Self {
        Self::Own((!bytes.is_empty()).then_some(bytes), OwnRecord(None))
    }
}

impl Passed {
    pub(super) fn new(
        upstream: Incoming,
        patience: Patience,
        dialect: (Shape, Ending),
        caller: Caller,
        record: Record,
        ticket: Ticket,
        lease: Lease,
    ) -> Self {
        let stream = patience.silence.map(|silence| Stream { watch: Watch::new(dialect.1), silence });
        let mut passed = Self {
            upstream: Some(upstream),
            ready: VecDeque::new(),
            stream,
            deadline: Box::pin(tokio::time::sleep_until(patience.deadline)),
            last_piece: None,
            cut: Box::pin(patience.cut),
            shape: dialect.0,
            record,
            _caller: caller,
            _ticket: ticket,
            lease,
        };
        passed.note_end();
        passed
    }

    /// Some bodies are over before anybody asks for more; hyper then never polls them.
    fn note_end(&mut self) {
        let over = self.upstream.as_ref().is_none_or(Body::is_end_stream);
        if over && self.ready.is_empty() && self.stream.is_none() {
            self.record.complete = true;
        }
    }

    /// The upstream has failed: an event stream gets the error as its last event, anything else is cut.
    fn fail(&mut self, refusal: &Refusal) -> Result<(), Cut> {
        self.upstream = None;
        if *refusal == Refusal::BackendError {
            self.lease.doubt();
        }
        self.record.code = Some(refusal.code());
        self.record.complete = true;
        if self.stream.is_none() {
            return Err(Cut(refusal.code()));
        }
        self.ready.push_back(refusal.event(self.shape));
        Ok(())
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.record.sends(piece.len());
                self.note_end();
                return Poll::Ready(Some(Ok(piece)));
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(None) };
            let outcome = match Pin::new(upstream).poll_frame(context) {
                Poll::Pending => {
                    let reason = ready!(self.poll_patience(context));
                    self.fail(&reason)
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not passed on.
                    if let Ok(piece) = frame.into_data() {
                        let now = Instant::now();
                        self.record.reads(&piece, now.into_std());
                        match &mut self.stream {
                            Some(stream) => {
                                if self.last_piece.replace(now).is_none() {
                                    self.deadline.as_mut().reset(now + stream.silence);
                                }
                                stream.watch.take(piece, &mut self.ready);
                            }
                            None => self.ready.push_back(piece),
                        }
                    }
                    Ok(())
                }
                Poll::Ready(Some(Err(_))) => self.fail(&Refusal::BackendError),
                Poll::Ready(None) => self.end(),
            };
            if let Err(cut) = outcome {
                return Poll::Ready(Some(Err(cut)));
            }
        }
    }

    /// llama-server ended the body in order. A stream without its end mark was cut by a llama-server that stopped.
    fn end(&mut self) -> Result<(), Cut> {
        self.upstream = None;
        if let Some(stream) = &mut self.stream {
            stream.watch.rest(&mut self.ready);
            if !stream.watch.has_ended() {
                return self.fail(&Refusal::BackendError);
            }
        }
        self.record.complete = true;
        Ok(())
    }

    /// Ready with the reason when there is no more waiting for the next piece. After the first piece of a stream, its
    /// timer is moved only when it fires, not with each further piece.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        loop {
            ready!(self.deadline.as_mut().poll(context));
            let due = self.stream.as_ref().zip(self.last_piece).map(|(stream, last_piece)| last_piece + stream.silence);
            match due {
                Some(due) if due > Instant::now() => self.deadline.as_mut().reset(due),
                _ => return Poll::Ready(Refusal::BackendTimeout),
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Own(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => passed.poll_piece(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Self::Early(heartbeat) => heartbeat.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, _) => bytes.is_none(),
            Self::Passed(passed) => {
                passed.stream.is_none()
                    && passed.ready.is_empty()
                    && passed.upstream.as_ref().is_none_or(Body::is_end_stream)
            }
            Self::Early(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed(passed) => match &passed.upstream {
                Some(upstream) if passed.stream.is_none() && passed.ready.is_empty() => upstream.size_hint(),
                _ => SizeHint::default(),
            },
            Self::Early(_) => SizeHint::default(),
        }
    }
}
