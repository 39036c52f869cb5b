//! Fixtures for tests of responses: records, a queue with one slot, a scripted llama-server, and clients.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::accounting::recent_acts::RecentActs;
use super::accounting::record::{Accounting, Record};
use super::admission::auth::Caller;
use super::content_kind::ContentKind;
use super::exchange::WorkerBody;
use super::queue::ticket::QueueEntry;
use super::queue::{self, Queue};
use super::request::answer_facts::AnswerFacts;
use super::response::body::{ProxiedBody, ResponseBody};
use super::response::in_progress::{ResponseTimeouts, UpstreamAnswer};
use super::response::rename::RenamedBody;
use super::response::stall_sweeper::StallSweeper;
use super::response::upstream_body::UpstreamBody;
use super::routes::lookup;
use crate::fleet::{Fingerprint, Model, RequestClass, StubWorker, WorkerKind};
use crate::ledger::UsageLedger;
use crate::pause_clock::ActiveInstant;
use crate::refusal::Refusal;
use crate::settings::options::Logs;
use crate::settings::values::{LogFormat, LogLevel, ZeroIsOff};
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::traces::Tracer;

/// How long a client may leave a piece unread.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a response that is not a stream, or the first byte of a stream, may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The fingerprint of every request.
pub(super) const FINGERPRINT: Fingerprint = Fingerprint(1);

/// Bytes that fit between the two ends of a connection.
const PIPE_SIZE: usize = 1024 * 1024;

/// The parts of a gateway that responses need.
pub(super) struct TestGateway {
    pub(super) queue: Queue,
    pub(super) sweeper: Arc<StallSweeper>,
    pub(super) abort: CancellationToken,
    records: TestRecords,
    pub(super) model: Arc<Model>,
    _worker: StubWorker,
    tasks: JoinSet<()>,
}

/// The accounting of requests, and the folder of its access log.
pub(super) struct TestRecords {
    pub(super) accounting: Arc<Accounting>,
    folder: tempfile::TempDir,
    writer: tracing_appender::non_blocking::WorkerGuard,
}

impl TestRecords {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs {
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            log_people: false,
            log_to_file: true,
            log_file: None,
            log_dir: folder.path().to_owned(),
            log_name: "llama".to_owned(),
            worker_type: None,
            log_keep: NonZeroUsize::MIN,
            log_max_size: ZeroIsOff(None),
            instance_id: "test".to_owned(),
        };
        let (access, writer) = AccessLog::open(&logs);
        let (metrics, ledger) = (Arc::new(Metrics::new("local")), UsageLedger::off());
        let accounting =
            Arc::new(Accounting { metrics, access, ledger, acts: RecentActs::default(), tracer: Tracer::default() });
        Self { accounting, folder, writer }
    }

    /// Returns the access log. Every record must be closed before.
    pub(super) fn log(self) -> String {
        self.accounting.access.flush();
        drop(self.writer);
        let name = std::fs::read_to_string(self.folder.path().join("access/latest.txt")).unwrap();
        std::fs::read_to_string(self.folder.path().join("access").join(name.trim())).unwrap()
    }
}

impl TestGateway {
    /// Creates the fixture, with a running sweeper.
    pub(super) fn new() -> Self {
        let records = TestRecords::new();
        let (worker, model) = StubWorker::ready(([127, 0, 0, 1], 1));
        let timeouts = queue::QueueTimeouts { queue: None, request: REQUEST_TIMEOUT, priority: REQUEST_TIMEOUT };
        let abort = CancellationToken::new();
        let sweeper = StallSweeper::new(STALL_TIMEOUT, abort.clone());
        let mut tasks = JoinSet::new();
        let sweeping = Arc::clone(&sweeper);
        tasks.spawn(async move { sweeping.sweep(CancellationToken::new()).await });
        let queue = Queue::new(None, timeouts, || 1, Arc::clone(&records.accounting.metrics), Arc::default());
        Self { queue, sweeper, abort, records, model, _worker: worker, tasks }
    }

    pub(super) fn record(&self, method: Method, path: &str) -> Record {
        let (accounting, id) = (Arc::clone(&self.records.accounting), http::HeaderValue::from_static("r"));
        Record::open(accounting, jiff::Timestamp::UNIX_EPOCH, id, method, path.to_owned().into())
    }

    /// Enters the queue: returns the slot, or an entry that waits for it.
    pub(super) fn enter_queue(&self) -> QueueEntry {
        self.queue.enter(Caller::anonymous().turn(), true, None, |_| Ok(())).unwrap()
    }

    /// Waits until nothing holds the slot.
    pub(super) async fn slot_freed(&self) {
        let freed = tokio::time::timeout(REQUEST_TIMEOUT * 10, self.enter_queue().ticket());
        assert!(freed.await.expect("the slot becomes free").is_ok());
    }

    /// Returns a response of llama-server that holds the slot, and the stream to which llama-server writes its body.
    pub(super) async fn proxied_body(
        &mut self,
        path: &str,
        status: u16,
        kind: ContentKind,
        framing: &str,
    ) -> (ProxiedBody, DuplexStream) {
        let (upstream, llama) = self.upstream(framing).await;
        let route = lookup::find(&Method::POST, path).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let mut record = self.record(Method::POST, path);
        record.set_response(status, route, kind, WorkerKind::Local);
        let timeouts = ResponseTimeouts {
            deadline: ActiveInstant::now() + REQUEST_TIMEOUT,
            idle_timeout: (kind == ContentKind::Stream).then_some(REQUEST_TIMEOUT),
            sweeper: &self.sweeper,
        };
        let ticket = self.enter_queue().ticket().await.ok().unwrap();
        let lease = self.model.lease(&RequestClass::Inference(Some(FINGERPRINT)).into()).unwrap();
        let (body, caller) =
            (RenamedBody::new(UpstreamBody::new(WorkerBody::detached(upstream), None), None), Caller::anonymous());
        let answer = UpstreamAnswer {
            status,
            body,
            route,
            hides_usage: false,
            facts: AnswerFacts::default(),
            whole_mend: None,
            lines: None,
            timeouts,
            caller,
            record,
            ticket,
            lease,
        };
        (ProxiedBody::new(answer), llama)
    }

    async fn upstream(&mut self, framing: &str) -> (Incoming, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(PIPE_SIZE);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        self.tasks.spawn(async move { _ = connection.await });
        let request = sender.send_request(Request::new(Empty::<Bytes>::new()));
        let server = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await.unwrap());
            }
            theirs.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
            theirs
        };
        let (answer, theirs) = tokio::join!(request, server);
        (answer.unwrap().into_body(), theirs)
    }

    /// Sends the response to an HTTP/2 client that never opens the flow-control window of its stream.
    pub(super) async fn send_to_stalled_client(&mut self, answer: Response<ResponseBody>) -> Response<Incoming> {
        let (ours, theirs) = tokio::io::duplex(PIPE_SIZE);
        let answer = Mutex::new(Some(answer));
        let service = service_fn(move |_| {
            let answer = answer.lock().unwrap().take().unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        self.tasks.spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            _ = server.serve_connection(TokioIo::new(ours), service).await;
        });
        let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(0);
        let (mut sender, connection) = client.handshake(TokioIo::new(theirs)).await.unwrap();
        self.tasks.spawn(async move { _ = connection.await });
        sender.send_request(Request::new(Empty::<Bytes>::new())).await.unwrap()
    }

    /// Returns all bytes that an HTTP/1.1 client receives when the gateway sends this response.
    pub(super) async fn send_to_client(&mut self, answer: Response<ResponseBody>) -> String {
        let (ours, mut theirs) = tokio::io::duplex(PIPE_SIZE);
        let answer = Mutex::new(Some(answer));
        let service = service_fn(move |_| {
            let answer = answer.lock().unwrap().take().unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        self.tasks.spawn(async move {
            _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(ours), service).await;
        });
        theirs.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Returns the access log. Every record must be closed before.
    pub(super) fn log(self) -> String {
        self.records.log()
    }
}

/// Returns one chunk of a chunked body.
pub(super) fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// Returns the next piece as text; an error as its message in angle brackets.
pub(super) async fn next_piece(answer: &mut ResponseBody) -> Option<String> {
    let frame = answer.frame().await?;
    Some(match frame {
        Ok(frame) => String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap(),
        Err(abort) => format!("<{abort}>"),
    })
}

/// Returns the code of an error event.
pub(super) fn error_code(event: &str) -> Option<String> {
    let data = event.trim_start().strip_prefix("data: ")?;
    let event: serde_json::Value = serde_json::from_str(data).ok()?;
    event["error"]["code"].as_str().map(str::to_owned)
}

/// Returns the response, and panics with the refusal if there is none.
pub(super) fn expect_response(outcome: Result<Response<ResponseBody>, (Refusal, Record)>) -> Response<ResponseBody> {
    outcome.map_err(|(refusal, _)| refusal).unwrap()
}
