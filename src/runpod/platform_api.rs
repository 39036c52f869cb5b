//! RunPod's API over HTTP: what is asked and posted, with which headers, for how long and how often.
//!
//! Owns the connections and the tries. What is asked when is the business of others.

use super::address::Addresses;
use super::failure_streak::{self, PollError};
use super::output;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient, HttpError, Response};
use crate::pause_clock;
use crate::runpod::bounds::{
    ACKNOWLEDGEMENT, CHUNK_PATIENCE, CHUNK_TRIES, JOB_SIZE, LATE_ANSWER, LONG_POLL, PLATFORM_CONNECT, PLATFORM_IDLE,
    POST_PATIENCE, PROGRESS_PATIENCE, QUESTION_BODY, RESULT_TRIES, STOPS_SIZE, UNHEALTHY_PATIENCE,
};
use crate::settings::RunpodQueue;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use std::io;
use std::pin::pin;
use std::time::Duration;
use tracing::{debug, warn};

/// The platform as this worker speaks to it.
pub(super) struct PlatformApi {
    client: HttpClient,
    key: Option<HeaderValue>,
    addresses: Addresses,
}

/// Why something is not posted.
enum Unposted {
    /// It never will be.
    Refused(StatusCode),
    /// It was tried as often as it may be.
    Failed,
}

impl PlatformApi {
    /// For a worker with this id. Connections are made by the runtime that asks.
    pub(super) fn new(queue: &RunpodQueue, worker: &str) -> io::Result<Self> {
        let options = ClientOptions {
            connect_timeout: PLATFORM_CONNECT,
            keep_idle: Some(PLATFORM_IDLE),
            follow_redirects: false,
        };
        let client = HttpClient::new(&Trust::Machine, &options)?;
        Ok(Self { client, key: queue.key.clone(), addresses: Addresses::new(queue, worker) })
    }

    /// Asks for so many jobs at most. JSON, or nothing.
    pub(super) async fn take(&self, count: usize, is_busy: bool) -> Result<Option<Bytes>, PollError> {
        let size = JOB_SIZE.saturating_mul(count.max(1));
        match self.question(&self.addresses.take(count, is_busy), size).await? {
            // This is what a worker is told that is about to be paused.
            Some(Reply { status: StatusCode::BAD_REQUEST, .. }) | None => Ok(None),
            Some(reply) => json(reply),
        }
    }

    /// Asks which jobs are to be stopped. None if nobody knows where to ask.
    pub(super) async fn stops(&self) -> Option<Result<Option<Bytes>, PollError>> {
        let address = self.addresses.stops()?;
        Some(match self.question(&address, STOPS_SIZE).await {
            Ok(Some(reply)) => json(reply),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Posts the result of a job, and tries again where that may help. One that is refused becomes an error, lest the
    /// job stay without an answer.
    pub(super) async fn post_result(&self, job: &str, body: Bytes) {
        let (address, size) = (self.addresses.output(job, true), body.len());
        let posted = self.post(&address, job, body, RESULT_TRIES).await;
        // Of a job that is not found nobody wants to know.
        if let Err(Unposted::Refused(status)) = posted
            && status != StatusCode::NOT_FOUND
        {
            let why = format!("RunPod refuses the result ({}, {size} bytes)", status.as_u16());
            let _ = self.post(&address, job, output::error(&why), RESULT_TRIES).await;
        }
    }

    /// Posts what is being done for a job, once.
    pub(super) async fn post_progress(&self, job: &str, body: Bytes) {
        let address = self.addresses.output(job, false);
        let _ = pause_clock::timeout(PROGRESS_PATIENCE, self.post(&address, job, body, 1)).await;
    }

    /// Posts a piece of a job's stream, and tries again where that may help. False where no other is wanted either.
    pub(super) async fn post_piece(&self, job: &str, body: Bytes) -> bool {
        let Some(address) = self.addresses.stream(job) else { return false };
        match pause_clock::timeout(CHUNK_PATIENCE, self.post(&address, job, body, CHUNK_TRIES)).await {
            Ok(posted) => !matches!(posted, Err(Unposted::Refused(_))),
            Err(_) => {
                warn!(job, "a piece of a job's stream cannot be posted in time");
                true
            }
        }
    }

    /// Says that this worker lives, and with which jobs in hand.
    pub(super) async fn ping(&self, jobs: &[String], patience: Duration) -> Result<(), String> {
        let Some(address) = self.addresses.ping(jobs) else { return Ok(()) };
        let answer = self.get(&address, HeaderMap::new(), patience, ACKNOWLEDGEMENT).await;
        answer.map_err(PollError::sentence).and_then(|reply| refused(reply.status))
    }

    /// Says that this worker cannot work.
    pub(super) async fn report_unhealthy(&self, check: &str, reason: &str) -> Result<(), String> {
        let Some(address) = self.addresses.unhealthy(check, reason).filter(|_| self.key.is_some()) else {
            return Ok(());
        };
        let answer = self.get(&address, HeaderMap::new(), UNHEALTHY_PATIENCE, ACKNOWLEDGEMENT).await;
        answer.map_err(PollError::sentence).and_then(|reply| refused(reply.status))
    }

    /// Asks what the platform answers when there is something to say; none if that is not in time.
    async fn question(&self, address: &str, size: usize) -> Result<Option<Reply>, PollError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let request = self.request(Method::GET, address, headers, Bytes::new()).map_err(PollError::Failed)?;
        // The waits below are its deadline.
        let mut asked = pin!(self.client.send(request, Duration::MAX));
        // By the kernel's clock: after a pause nobody is there any more who could answer.
        let response = match tokio::time::timeout(LONG_POLL, &mut asked).await {
            Ok(response) => response,
            // What has been sent meanwhile is not lost.
            Err(_) => match pause_clock::timeout(LATE_ANSWER, asked).await {
                Ok(response) => response,
                Err(_) => return Ok(None),
            },
        };
        let response = response.map_err(|error| PollError::Failed(error.explain(&host_of(address))))?;
        // What has begun to come has been given away: it has a time of its own.
        let late = || "RunPod does not end its answer in time".to_owned();
        let whole = read(response.with_timeout(QUESTION_BODY), size, late).await;
        often(whole.map_err(PollError::Failed)?).map(Some)
    }

    async fn get(
        &self,
        address: &str,
        headers: HeaderMap,
        patience: Duration,
        size: usize,
    ) -> Result<Reply, PollError> {
        often(self.ask(Method::GET, address, headers, Bytes::new(), patience, size).await.map_err(PollError::Failed)?)
    }

    async fn post(&self, address: &str, job: &str, body: Bytes, tries: u32) -> Result<(), Unposted> {
        let mut headers = HeaderMap::new();
        // As RunPod's SDK has them, though the body is JSON.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert("charset", HeaderValue::from_static("utf-8"));
        if let Ok(id) = HeaderValue::from_str(job) {
            headers.insert("x-request-id", id);
        }
        for tried in 1..=tries {
            let asked = self.ask(Method::POST, address, headers.clone(), body.clone(), POST_PATIENCE, ACKNOWLEDGEMENT);
            let problem = match asked.await {
                Ok(reply) if reply.status.is_success() => return Ok(()),
                Ok(Reply { status, .. }) => {
                    let may_pass = status.is_server_error()
                        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                    let problem = format!("RunPod answers {status}");
                    if !may_pass {
                        warn!(job, "what came of a job cannot be posted: {problem}");
                        return Err(Unposted::Refused(status));
                    }
                    problem
                }
                Err(problem) => problem,
            };
            if tried == tries {
                warn!(job, tries, "what came of a job cannot be posted: {problem}");
                break;
            }
            debug!(job, "what came of a job will be posted again: {problem}");
            pause_clock::sleep(failure_streak::after_failure(tried)).await;
        }
        Err(Unposted::Failed)
    }

    /// Asks once; the answer's head and body, or why there is none.
    async fn ask(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
        patience: Duration,
        size: usize,
    ) -> Result<Reply, String> {
        let request = self.request(method, address, headers, body)?;
        let explain = |error: HttpError| error.explain(&host_of(address));
        let response = self.client.send(request, patience).await.map_err(explain)?;
        read(response, size, || explain(HttpError::TimedOut)).await
    }

    fn request(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Bytes>, String> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = address.parse().map_err(|_| "an address of RunPod's is none".to_owned())?;
        *request.headers_mut() = headers;
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        Ok(request)
    }
}

/// Reads the body of a response, as long as it is no larger than `size`; `late` says that this took too long.
async fn read(response: Response, size: usize, late: impl Fn() -> String) -> Result<Reply, String> {
    let (status, content_type) = (response.status(), response.headers().get(CONTENT_TYPE).cloned());
    let body = response.read_all(size).await.map_err(|error| match error {
        HttpError::TimedOut => late(),
        _ => format!("RunPod breaks off its answer, or it is larger than {size} bytes"),
    })?;
    Ok(Reply { status, content_type, body })
}

/// Host and port of an address, which may hold secrets elsewhere.
fn host_of(address: &str) -> String {
    let uri: Option<Uri> = address.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    authority.map_or_else(|| "RunPod".to_owned(), |of| of.as_str().rsplit('@').next().unwrap_or_default().to_owned())
}

/// A whole answer of the platform, and what is needed of its head.
struct Reply {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// Returns the reply, unless its status says that the platform is asked too often.
fn often(reply: Reply) -> Result<Reply, PollError> {
    if reply.status == StatusCode::TOO_MANY_REQUESTS { Err(PollError::TooMany) } else { Ok(reply) }
}

/// Returns the JSON of a reply, or `None` where it has none.
fn json(reply: Reply) -> Result<Option<Bytes>, PollError> {
    let Reply { status, content_type, body } = reply;
    if status != StatusCode::OK {
        return if status == StatusCode::NO_CONTENT {
            Ok(None)
        } else {
            Err(PollError::Failed(format!("RunPod answers {status}")))
        };
    }
    let kind = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !is_json || body.is_empty() {
        debug!(length = body.len(), "an answer of RunPod's is no JSON");
        return Ok(None);
    }
    Ok(Some(body))
}

fn refused(status: StatusCode) -> Result<(), String> {
    if status.is_success() { Ok(()) } else { Err(format!("RunPod answers {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    /// Regression: jobs whose answer began to come at the very end of the question's time were lost.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_begins_in_time_may_end_later() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let queue = RunpodQueue {
            take: format!("http://{}/job-take/$ID", listener.local_addr().unwrap()),
            output: "http://127.0.0.1/$ID".into(),
            stream: None,
            ping: None,
            ping_interval: Duration::from_secs(10),
            pod_id: None,
            key: None,
        };
        let platform = async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).await.unwrap();
                request.rotate_left(1);
                request[1023] = byte[0];
            }
            sleep(LONG_POLL - Duration::from_secs(1)).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
            connection.write_all(head.as_bytes()).await.unwrap();
            sleep(QUESTION_BODY / 2).await;
            connection.write_all(b"[]").await.unwrap();
        };
        let wire = PlatformApi::new(&queue, "pod").unwrap();
        let (taken, ()) = tokio::join!(wire.take(1, false), platform);
        assert_eq!(taken.unwrap().unwrap(), "[]");
    }

    #[test]
    fn of_an_address_only_host_and_port_are_named() {
        assert_eq!(host_of("https://user:s3cret@h:1/s3cret?s3cret"), "h:1");
        assert_eq!(host_of("https://h/x"), "h");
        assert_eq!(host_of("s3cret s3cret"), "RunPod");
    }
}
