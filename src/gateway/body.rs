//! The answer's body, and with it everything that a request holds.
//!
//! The record, the ticket and the lease are held by the body that streams to the client, so the end of the answer, a
//! client that leaves and a llama-server that dies all release them by the same drop. From a client that does not read,
//! `holdings.rs` takes them.

use super::auth::Caller;
use super::heartbeat::Heartbeat;
use super::holdings::{Given, Held, Hold, Holdings, Step, Taken};
use super::queue::Ticket;
use super::record::Record;
use super::rename::Renamed;
use super::route::Route;
use super::sse::{Tail, Watch, data_event};
use super::verdict::Verdict;
use crate::awake::{Instant, Sleep};
use crate::fleet::Lease;
use crate::refusal::{Refusal, Shape, event_of_backend};
use crate::settings::bounds::{RETRY_AFTER_UNKNOWN, WRAPPED_ANSWER};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A body that the gateway sends.
pub enum Answer {
    /// Made by the gateway.
    Own(Option<Bytes>, OwnRecord),
    /// Passed on from llama-server.
    Passed(Passed),
    /// Begun before its time.
    Early(Box<Heartbeat>),
}

/// The record of an answer that the gateway made itself.
pub struct OwnRecord(#[expect(dead_code, reason = "held for its drop")] Option<Record>);

/// The answer was cut: the connection is closed so that the client can tell it from an end.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct Cut(pub(super) &'static str);

/// An answer on its way from llama-server to the client.
pub struct Passed {
    hold: Hold<Holding>,
    shape: Shape,
    /// Whether its last word can be an event.
    in_band: bool,
    /// Of what can end with an event: where the last piece has left the client.
    tail: Tail,
    /// Whether the last piece has gone out, or there never was one.
    over: bool,
    /// Whether the end mark of a stream has gone out: no error may follow it.
    has_ended: bool,
    /// The cut that comes next.
    cut: Option<Cut>,
    hint: SizeHint,
}

/// What an answer holds while it is on its way.
struct Holding {
    upstream: Option<Renamed<Incoming>>,
    /// Pieces that may go out.
    ready: VecDeque<Bytes>,
    manner: Manner,
    /// When the wait for the next piece ends.
    deadline: Sleep,
    /// When the last piece of a stream came; none has before its first byte.
    last_piece: Option<Instant>,
    /// What it says of llama-server, as far as that is known.
    verdict: Verdict,
    /// Ready when the drain is over.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ready when llama-server has ended or is being ended, whatever its connections do.
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    shape: Shape,
    /// The error that follows what is ready.
    last_word: Option<Refusal>,
    record: Record,
    _caller: Caller,
    lease: Lease,
    /// Behind the lease: whoever gets the slot next finds the worker's free too.
    _ticket: Ticket,
}

/// How an answer is passed on.
enum Manner {
    /// Bytes are bytes.
    Plain,
    Stream(Stream),
    /// No stream, and yet the client has been promised one: the whole becomes one event.
    Wrapped(StatusCode, BytesMut),
}

/// What only an event stream has.
struct Stream {
    watch: Watch,
    silence: Duration,
}

/// A piece for the client, the end, or a cut.
type Next = Option<Result<Bytes, Cut>>;

/// How long an answer may take.
pub(super) struct Patience<'a> {
    /// The whole answer must be out by then; of a stream, its first byte.
    pub(super) deadline: Instant,
    /// For a stream: how long it may be silent after each piece.
    pub(super) silence: Option<Duration>,
    /// Where it is listed, lest its client does not read it; says too when the service gives up what is in flight.
    pub(super) holdings: &'a Arc<Holdings>,
}

impl Answer {
    pub(super) fn own(bytes: Bytes, mut record: Record) -> Self {
        if !record.is_for_head() {
            record.sends(bytes.len());
        }
        record.complete = true;
        Self::Own((!bytes.is_empty()).then_some(bytes), OwnRecord(Some(record)))
    }

    /// A body that nobody keeps account of: the health port's.
    pub(super) fn unrecorded(bytes: Bytes) -> Self {
        Self::Own((!bytes.is_empty()).then_some(bytes), OwnRecord(None))
    }
}

impl Passed {
    pub(super) fn new(
        upstream: Renamed<Incoming>,
        patience: Patience<'_>,
        (status, route): (StatusCode, &Route),
        caller: Caller,
        record: Record,
        ticket: Ticket,
        lease: Lease,
    ) -> Self {
        let shape = route.shape;
        let (manner, hint) = match patience.silence {
            Some(silence) => (Manner::Stream(Stream { watch: Watch::new(route.ending), silence }), SizeHint::default()),
            None => (Manner::Plain, upstream.size_hint()),
        };
        let mut holding = Holding {
            upstream: Some(upstream),
            ready: VecDeque::new(),
            manner,
            deadline: Sleep::until(patience.deadline),
            last_piece: None,
            verdict: Verdict::of_head(status, route),
            cut: Box::pin(patience.holdings.cut()),
            gone: Box::pin(lease.gone()),
            shape,
            last_word: None,
            record,
            _caller: caller,
            lease,
            _ticket: ticket,
        };
        // Some bodies are over before anybody asks for more; hyper then never polls them.
        let over = holding.is_over();
        holding.record.complete = over;
        let in_band = patience.silence.is_some();
        let deadline = (!in_band).then_some(patience.deadline);
        let hold = Hold::new(patience.holdings, holding, deadline);
        Self { hold, shape, in_band, tail: Tail::new(), over, has_ended: false, cut: None, hint }
    }

    /// Makes one event of it, for a client that has been promised a stream. The record says what this client sees.
    pub(super) fn wrapped(mut self, status: StatusCode) -> Self {
        self.hold.change(|holding| {
            holding.manner = Manner::Wrapped(status, BytesMut::new());
            holding.record.complete = false;
            holding.record.status = Some(StatusCode::OK);
            if !status.is_success() {
                holding.record.code = Some(Refusal::BackendError.code());
            }
        });
        (self.in_band, self.over, self.hint) = (true, false, SizeHint::default());
        self
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let tail = self.tail;
        let mut has_ended = self.has_ended;
        let step = self.hold.step(|holding| {
            let step = holding.next(context, tail);
            has_ended |= holding.has_ended();
            step
        });
        self.has_ended = has_ended;
        let next = match ready!(step) {
            Given::One(next) => next,
            Given::Last(next) => {
                self.over = true;
                next
            }
            Given::Gone(why) => self.without_holding(why),
        };
        if let Some(Ok(piece)) = &next
            && self.in_band
        {
            self.tail.follow(piece);
        }
        self.hint = SizeHint::default();
        if let Some(Err(cut)) = next {
            // hyper drops what it has not sent when a body fails. It sends when a body makes it wait, and without a head
            // the client could not tell a cut answer from none.
            self.cut = Some(cut);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(next)
    }

    /// What is left to say once nothing is held.
    fn without_holding(&mut self, why: Option<Taken>) -> Next {
        let why = why.filter(|_| !self.over && !self.has_ended);
        self.over = true;
        let why = why?;
        let refusal = match why {
            Taken::Stalled => return Some(Err(Cut("the client did not read it"))),
            Taken::Late => Refusal::BackendTimeout,
            Taken::Cut => Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN),
        };
        Some(if self.in_band { Ok(self.tail.before(refusal.event(self.shape))) } else { Err(Cut(refusal.code())) })
    }
}

impl Holding {
    /// What the client gets next. `tail` is what it got last.
    fn next(&mut self, context: &mut Context<'_>, tail: Tail) -> Step<Next> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.record.sends(piece.len());
                let over = self.is_over();
                // A client may well leave once it has seen the end mark.
                self.record.complete |= over || self.has_ended();
                return if over { Step::Ends(Some(Ok(piece))) } else { Step::Gives(Some(Ok(piece))) };
            }
            if let Some(refusal) = self.last_word.take() {
                let event = tail.before(refusal.event(self.shape));
                self.record.sends(event.len());
                return Step::Ends(Some(Ok(event)));
            }
            let Some(upstream) = &mut self.upstream else { return Step::Ends(None) };
            let outcome = match Pin::new(upstream).poll_frame(context) {
                Poll::Pending => match self.poll_patience(context) {
                    Poll::Pending => return Step::Waits,
                    Poll::Ready(reason) => self.fail(reason),
                },
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => self.take(piece),
                    // Trailers are not passed on.
                    Err(_) => Ok(()),
                },
                Poll::Ready(Some(Err(_))) => self.fail(Refusal::BackendError),
                Poll::Ready(None) => self.end(),
            };
            if let Err(cut) = outcome {
                return Step::Ends(Some(Err(cut)));
            }
        }
    }

    fn is_over(&self) -> bool {
        let upstream = match (&self.upstream, &self.manner) {
            (None, _) => true,
            (Some(upstream), Manner::Plain) => upstream.is_end_stream(),
            // They have more to say when it ends.
            (Some(_), _) => false,
        };
        upstream && self.ready.is_empty() && self.last_word.is_none()
    }

    /// Whether the end mark of a stream has gone out.
    fn has_ended(&self) -> bool {
        let has_end_mark = matches!(&self.manner, Manner::Stream(stream) if stream.watch.has_end_mark());
        has_end_mark && self.ready.is_empty()
    }

    fn take(&mut self, piece: Bytes) -> Result<(), Cut> {
        let now = Instant::now();
        self.record.reads(&piece, now.real().into_std());
        if self.verdict == Verdict::Fails {
            self.verdict = Verdict::of_error(&piece);
        }
        match &mut self.manner {
            Manner::Plain => self.ready.push_back(piece),
            Manner::Stream(stream) => {
                if self.last_piece.replace(now).is_none() {
                    self.deadline.reset(now + stream.silence);
                }
                stream.watch.take(piece, &mut self.ready);
            }
            Manner::Wrapped(_, text) if text.len() + piece.len() <= WRAPPED_ANSWER => text.extend_from_slice(&piece),
            Manner::Wrapped(..) => return self.close_with(Refusal::BackendError),
        }
        Ok(())
    }

    /// The upstream has failed.
    fn fail(&mut self, refusal: Refusal) -> Result<(), Cut> {
        match refusal {
            Refusal::BackendError => self.lease.doubt(),
            Refusal::BackendTimeout => self.lease.is_late(),
            _ => {}
        }
        self.close_with(refusal)
    }

    /// There is no more to pass on: an event stream gets the error as its last event, anything else is cut.
    fn close_with(&mut self, refusal: Refusal) -> Result<(), Cut> {
        self.upstream = None;
        if self.has_ended() {
            // The client has all of it; what is missing is the end of llama-server's own body.
            self.record.complete = true;
            return Ok(());
        }
        self.record.code = Some(refusal.code());
        self.record.complete = true;
        if matches!(self.manner, Manner::Plain) {
            return Err(Cut(refusal.code()));
        }
        self.last_word = Some(refusal);
        Ok(())
    }

    /// llama-server ended the body in order. A stream without its end mark was cut by a llama-server that stopped.
    fn end(&mut self) -> Result<(), Cut> {
        self.upstream = None;
        match &mut self.manner {
            Manner::Plain => {}
            Manner::Stream(stream) => {
                stream.watch.rest(&mut self.ready);
                if !stream.watch.has_ended() {
                    return self.fail(Refusal::BackendError);
                }
            }
            Manner::Wrapped(status, text) => {
                let event = match status.is_success() {
                    true => data_event(text),
                    false => event_of_backend(self.shape, *status, text),
                };
                let Some(event) = event else { return self.close_with(Refusal::BackendError) };
                self.ready.push_back(event);
            }
        }
        self.lease.answered();
        self.record.complete = true;
        Ok(())
    }

    /// Ready with the reason when there is no more waiting for the next piece. After the first piece of a stream, its
    /// timer is moved only when it fires, not with each further piece.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN));
        }
        if self.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Refusal::BackendError);
        }
        loop {
            ready!(Pin::new(&mut self.deadline).poll(context));
            let due = match (&self.manner, self.last_piece) {
                (Manner::Stream(stream), Some(last_piece)) => Some(last_piece + stream.silence),
                _ => None,
            };
            match due {
                Some(due) if due > Instant::now() => self.deadline.reset(due),
                _ => return Poll::Ready(Refusal::BackendTimeout),
            }
        }
    }
}

impl Drop for Holding {
    /// Before the ticket is given back: whoever is next must not meet a llama-server that is about to be restarted.
    fn drop(&mut self) {
        let in_band = match &self.manner {
            Manner::Stream(stream) => stream.watch.error(),
            _ => None,
        };
        let is_whole = self.record.complete && self.record.code.is_none();
        match in_band.unwrap_or(self.verdict) {
            Verdict::CannotCompute => self.lease.could_not_be_computed(),
            Verdict::Computes if is_whole => self.lease.succeeded(),
            _ if is_whole => self.lease.answered(),
            _ => {}
        }
    }
}

impl Held for Holding {
    fn is_taken(&mut self, why: Taken) {
        if self.record.complete {
            return;
        }
        // A client that does not read counts as one that has left.
        self.record.code = match why {
            Taken::Stalled => return,
            Taken::Late => Some(Refusal::BackendTimeout.code()),
            Taken::Cut => Some(Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN).code()),
        };
        self.record.complete = true;
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
            Self::Passed(passed) => passed.over && passed.cut.is_none(),
            Self::Early(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed(passed) => passed.hint,
            Self::Early(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
