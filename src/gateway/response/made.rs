//! A body that the gateway makes piece by piece, such as the events of a download.
//!
//! A piece is made when the client has room for it. A client that does not read loses its body as any other does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::in_progress::ResponseAborted;
use super::stall_sweeper::{PollOutcome, PollStep, StallSweeper, SweepHandle, Sweepable, TerminationReason};
use crate::gateway::accounting::record::Record;

/// What makes the next piece, and says what makes the one after it; `None` at the end.
pub(crate) struct NextMade(pub(crate) MakingPiece);

/// A piece that is being made.
type MakingPiece = Pin<Box<dyn Future<Output = Option<(Bytes, NextMade)>> + Send>>;

/// A body that is made piece by piece.
pub struct MadeBody(SweepHandle<MadePieces>);

struct MadePieces {
    next: NextMade,
    record: Record,
}

impl Sweepable for MadePieces {
    fn terminate(&mut self, _: TerminationReason) {}
}

impl MadeBody {
    pub(super) fn new(next: NextMade, record: Record, sweeper: &Arc<StallSweeper>) -> Self {
        Self(SweepHandle::new(sweeper, MadePieces { next, record }, None))
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseAborted>>> {
        let step = self.0.poll_with(|pieces| match pieces.next.0.as_mut().poll(context) {
            Poll::Pending => PollStep::Pending,
            Poll::Ready(Some((piece, next))) => {
                pieces.next = next;
                pieces.record.add_bytes_out(piece.len());
                PollStep::Item(Some(piece))
            }
            Poll::Ready(None) => {
                pieces.record.complete = true;
                PollStep::Last(None)
            }
        });
        match ready!(step) {
            PollOutcome::Item(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            PollOutcome::Ended(Some(TerminationReason::Stalled)) => {
                Poll::Ready(Some(Err(ResponseAborted("the client did not read it"))))
            }
            PollOutcome::Item(None) | PollOutcome::Last(_) | PollOutcome::Ended(_) => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Response};

    use super::*;
    use crate::gateway::response::body::ResponseBody;
    use crate::gateway::testing::{REQUEST_TIMEOUT, TestGateway, next_piece};

    /// Returns this piece without end, or this number of times.
    fn pieces(left: Option<usize>, piece: Arc<Bytes>) -> NextMade {
        NextMade(Box::pin(async move {
            let left = match left {
                Some(left) => Some(left.checked_sub(1)?),
                None => None,
            };
            Some((Bytes::clone(&piece), pieces(left, piece)))
        }))
    }

    fn piece() -> Arc<Bytes> {
        Arc::new(Bytes::from_static(b"piece\n"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_loses_its_body_and_holds_nothing() {
        for is_aborted in [false, true] {
            let mut gateway = TestGateway::new();
            let held = piece();
            let record = gateway.record(Method::GET, "/events");
            let body = ResponseBody::made(pieces(None, Arc::clone(&held)), record, &gateway.sweeper);
            let _response = gateway.send_to_stalled_client(Response::new(body)).await;
            if is_aborted {
                gateway.abort.cancel();
            }
            let released = async {
                while Arc::strong_count(&held) > 1 {
                    tokio::time::sleep(REQUEST_TIMEOUT / 100).await;
                }
            };
            tokio::time::timeout(REQUEST_TIMEOUT, released).await.expect("it is dropped");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_ends_is_complete_in_the_log_with_its_bytes() {
        let gateway = TestGateway::new();
        let mut record = gateway.record(Method::GET, "/events");
        record.status = Some(http::StatusCode::OK);
        let mut body = ResponseBody::made(pieces(Some(3), piece()), record, &gateway.sweeper);
        for _ in 0..3 {
            assert_eq!(next_piece(&mut body).await.as_deref(), Some("piece\n"));
        }
        assert_eq!(next_piece(&mut body).await, None);
        drop(body);
        let log = gateway.log();
        assert!(log.contains(" status=200 ") && log.contains(" out=18 "), "{log}");
    }
}
