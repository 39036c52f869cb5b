//! What the clients of one flight get, whichever of them does its work and whichever leaves.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};

use super::*;
use crate::fleet::{Model, StubWorker};
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::gateway::cache::answer_store::AnswerStore;
use crate::gateway::cache::flight_reader::{FlightLead, FlightReader};
use crate::gateway::cache::key::CacheKey;
use crate::gateway::cache::open_flights::Found;
use crate::gateway::response::in_progress::ResponseAborted;
use crate::gateway::response::shared::{PieceSource, SharedAnswer};
use crate::gateway::testing::{TestGateway, next_piece};
use crate::gateway::upstream::retry::X_LLAMAGATE_MODEL;
use crate::refusal::Shape;
use crate::settings::options::Caching;
use crate::settings::values::{ByteSize, CacheMode, Seconds, ZeroIsOff};
use crate::telemetry::metrics::Metrics;

/// An answer whose pieces come when they are asked for, and whose drop is noticed.
struct Pieces {
    left: Vec<&'static str>,
    dropped: Arc<AtomicBool>,
}

impl PieceSource for Pieces {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseAborted>>> {
        Poll::Ready(self.left.pop().map(|piece| match piece {
            "cut" => Err(ResponseAborted("backend_error")),
            piece => Ok(Bytes::from_static(piece.as_bytes())),
        }))
    }

    fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    fn error_code(&self) -> Option<&'static str> {
        None
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

struct Fixture {
    gateway: TestGateway,
    open: Arc<OpenFlights<Flight>>,
    model: Arc<Model>,
    _worker: StubWorker,
}

impl Fixture {
    fn new() -> Self {
        let settings = Caching {
            cache: CacheMode::All,
            cache_max_bytes: ByteSize(1024 * 1024),
            cache_max_size: ZeroIsOff(None),
            cache_ttl: Seconds(Duration::from_secs(60)),
            cache_persist_to_disk: false,
            cache_shared: false,
        };
        let open = OpenFlights::<Flight>::new(AnswerStore::new(&settings, None, &Arc::new(Metrics::new("local"))));
        let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
        Self { gateway: TestGateway::new(), open, model, _worker: worker }
    }

    fn ask(&self) -> Found<Flight> {
        let (key, model) = (CacheKey::numbered(1), Arc::clone(&self.model));
        let revision = model.revision();
        let terms = FlightTerms { key, model, revision, is_stream: false };
        self.open.find_or_open(key, |_| true, || Flight::open(terms, &self.open))
    }

    fn lead(&self) -> FlightLead {
        let Found::New(flight) = self.ask() else { panic!("a flight is open") };
        FlightLead::of(flight).unwrap()
    }

    fn join(&self) -> FlightReader {
        let Found::Open(flight) = self.ask() else { panic!("no flight is open") };
        FlightReader::join(flight).unwrap()
    }

    fn is_kept(&self) -> bool {
        matches!(self.ask(), Found::Kept(_))
    }

    /// Returns the work of a request, which waits until `begun` and then gives these pieces; and whether it was dropped.
    fn work(
        &self,
        lead: &FlightLead,
        begun: &Arc<AtomicBool>,
        pieces: &[&'static str],
    ) -> (PendingResponse, Arc<AtomicBool>) {
        let mut record = self.gateway.record(Method::POST, "/v1/completions");
        record.verdict = Some(lead.verdict());
        let (begun, dropped) = (Arc::clone(begun), Arc::<AtomicBool>::default());
        let source = Pieces { left: pieces.iter().rev().copied().collect(), dropped: Arc::clone(&dropped) };
        let (sweeper, id) = (Arc::clone(&self.gateway.sweeper), self.model.id().to_owned());
        let work = async move {
            std::future::poll_fn(|_| if begun.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }).await;
            let answer = SharedAnswer { source: Box::new(source), caller: None };
            let mut response = Response::new(ResponseBody::shared(answer, Some(record), &sweeper));
            response.headers_mut().insert(X_LLAMAGATE_MODEL, id.parse().unwrap());
            Ok(response)
        };
        (Box::pin(work), dropped)
    }

    /// Begins the flight, and returns what its first client waits for.
    fn begin(&self, lead: FlightLead, work: PendingResponse) -> impl Future<Output = FlightOutcome> + use<> {
        lead.run(work, Shape::OpenAi, Arc::clone(&self.gateway.sweeper))
    }
}

/// Polls a future once. Returns its output if it has one.
fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn the_client_that_began_a_flight_may_leave_before_its_head_has_come() {
    let fixture = Fixture::new();
    let (lead, begun) = (fixture.lead(), Arc::default());
    let (work, dropped) = fixture.work(&lead, &begun, &["a", "b"]);
    let mut first = Box::pin(fixture.begin(lead, work));
    assert!(poll_once(&mut first).is_none());
    let mut other = Box::pin(fixture.join().response());
    assert!(poll_once(&mut other).is_none());
    drop(first);
    assert!(!dropped.load(Ordering::SeqCst));
    begun.store(true, Ordering::SeqCst);
    let (_, source) = other.await.unwrap().expect("the answer is shared").into_parts();
    let mut body = ResponseBody::shared(SharedAnswer { source, caller: None }, None, &fixture.gateway.sweeper);
    assert_eq!(next_piece(&mut body).await.as_deref(), Some("a"));
    assert!(!fixture.is_kept());
    assert_eq!(next_piece(&mut body).await.as_deref(), Some("b"));
    assert!(fixture.is_kept() && dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn the_last_client_that_leaves_ends_the_work() {
    let fixture = Fixture::new();
    let (lead, begun) = (fixture.lead(), Arc::default());
    let (work, dropped) = fixture.work(&lead, &begun, &["a"]);
    let mut first = Box::pin(fixture.begin(lead, work));
    assert!(poll_once(&mut first).is_none());
    let other = fixture.join();
    drop(first);
    assert!(!dropped.load(Ordering::SeqCst));
    drop(other);
    assert!(dropped.load(Ordering::SeqCst));
    drop(fixture.lead());
}

#[tokio::test]
async fn an_answer_that_is_cut_is_cut_for_all_and_not_kept() {
    let fixture = Fixture::new();
    let (lead, begun) = (fixture.lead(), Arc::new(AtomicBool::new(true)));
    let (work, _) = fixture.work(&lead, &begun, &["a", "cut"]);
    let (_, mut first) = fixture.begin(lead, work).await.unwrap_or_else(|_| panic!("it is answered")).into_parts();
    let (_, source) = fixture.join().response().await.unwrap().expect("the answer is shared").into_parts();
    let mut other = ResponseBody::shared(SharedAnswer { source, caller: None }, None, &fixture.gateway.sweeper);
    for body in [&mut first, &mut other] {
        assert_eq!(next_piece(body).await.as_deref(), Some("a"));
        let next = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        assert!(matches!(next, Some(Err(ResponseAborted("backend_error")))));
    }
    drop(fixture.lead());
}

#[tokio::test]
async fn a_refusal_is_for_all_unless_it_is_about_the_key() {
    let shared = Refusal::QueueTimeout(RETRY_AFTER_UNKNOWN);
    for (refusal, is_shared) in [(shared, true), (Refusal::KeySuspended(RETRY_AFTER_UNKNOWN), false)] {
        let fixture = Fixture::new();
        let lead = fixture.lead();
        let (record, own) = (fixture.gateway.record(Method::POST, "/v1/completions"), refusal.clone());
        let other = fixture.join();
        let outcome = fixture.begin(lead, Box::pin(async move { Err((own, record)) })).await;
        assert_eq!(outcome.err().map(|(refusal, _)| refusal), Some(refusal.clone()));
        match other.response().await {
            Err(same) => assert!(is_shared && same == refusal),
            Ok(response) => assert!(!is_shared && response.is_none(), "it goes on alone"),
        }
        drop(fixture.lead());
    }
}

#[tokio::test]
async fn those_that_joined_a_flight_that_never_began_go_on_alone() {
    let fixture = Fixture::new();
    let lead = fixture.lead();
    let mut other = Box::pin(fixture.join().response());
    assert!(poll_once(&mut other).is_none());
    drop(lead);
    assert!(other.await.unwrap().is_none());
    drop(fixture.lead());
}
