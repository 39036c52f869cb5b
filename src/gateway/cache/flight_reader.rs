//! One client's view of an answer in flight.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;

use super::flight::{Flight, FlightHead, FlightOutcome};
use super::shared_pieces::Seat;
use crate::gateway::accounting::verdict::Verdict;
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::heartbeat::PendingResponse;
use crate::gateway::response::in_progress::ResponseAborted;
use crate::gateway::response::shared::{PieceSource, SharedAnswer};
use crate::gateway::response::stall_sweeper::StallSweeper;
use crate::refusal::{Refusal, Shape};

/// A reader of an answer in flight, which it leaves when it is dropped.
pub(in crate::gateway) struct FlightReader {
    flight: Arc<Flight>,
    seat: Seat,
}

/// The client that begins a flight. If it is dropped before, those that have joined go on alone.
pub(in crate::gateway) struct FlightLead {
    reader: FlightReader,
    unbegun: UnbegunFlight,
}

/// Abandons a flight that was never begun.
struct UnbegunFlight(Arc<Flight>);

impl FlightReader {
    /// Adds a reader to a flight; `None` if the answer cannot be read from its beginning any more, or has too many.
    pub(super) fn join(flight: Arc<Flight>) -> Option<Self> {
        let seat = flight.join()?;
        Some(Self { flight, seat })
    }

    /// Returns whether it is known what the flight has come to.
    pub(in crate::gateway) fn has_head(&self) -> bool {
        self.flight.has_head()
    }

    /// Waits until it is known what the flight has come to. Returns the response, whose pieces this reader reads; `None` if
    /// the request has to go on alone.
    ///
    /// # Errors
    /// The refusal of the request that began the flight.
    pub(in crate::gateway) async fn response(self) -> Result<Option<Response<Box<dyn PieceSource>>>, Refusal> {
        match poll_fn(|context| self.flight.poll_head(context)).await {
            FlightHead::Shared(head) => {
                let source: Box<dyn PieceSource> = Box::new(self);
                Ok(Some(head.replayed().map(|()| source)))
            }
            FlightHead::Refused(refusal) => Err(refusal),
            FlightHead::Alone => Ok(None),
        }
    }
}

impl FlightLead {
    /// Leads this flight; `None` if it has readers enough.
    pub(super) fn of(flight: Arc<Flight>) -> Option<Self> {
        let unbegun = UnbegunFlight(Arc::clone(&flight));
        FlightReader::join(flight).map(|reader| Self { reader, unbegun })
    }

    /// Returns where the record of the request has to say how the answer ends.
    pub(in crate::gateway) fn verdict(&self) -> Arc<Verdict> {
        self.reader.flight.verdict()
    }

    /// Does this work, whose answer others may read too. Returns what has come of it for the client that began it.
    ///
    /// # Errors
    /// The refusal of the work.
    pub(in crate::gateway) async fn run(
        self,
        work: PendingResponse,
        shape: Shape,
        sweeper: Arc<StallSweeper>,
    ) -> FlightOutcome {
        let Self { reader, unbegun } = self;
        reader.flight.begin(work);
        drop(unbegun);
        match poll_fn(|context| reader.flight.poll_head(context)).await {
            FlightHead::Shared(head) => {
                let answer = SharedAnswer { source: Box::new(reader), caller: None };
                Ok(head.response(ResponseBody::shared(answer, None, &sweeper)))
            }
            FlightHead::Refused(_) | FlightHead::Alone => reader.flight.take_own().unwrap_or_else(|| {
                let failed = Refusal::Internal("the request has failed".to_owned()).response(shape);
                Ok(failed.map(ResponseBody::unrecorded))
            }),
        }
    }
}

impl PieceSource for FlightReader {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseAborted>>> {
        self.flight.poll_piece(self.seat, context)
    }

    fn is_over(&self) -> bool {
        self.flight.is_over(self.seat)
    }

    fn error_code(&self) -> Option<&'static str> {
        self.flight.error_code()
    }
}

impl Drop for FlightReader {
    fn drop(&mut self) {
        self.flight.leave(self.seat);
    }
}

impl Drop for UnbegunFlight {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
