//! RunPod's API over HTTP: requests with their headers, timeouts and retries.
//!
//! Owns the connections and the retries. When a request is sent is decided elsewhere.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use tracing::{debug, warn};

use super::address::Addresses;
use super::failure_streak::{self, PollError};
use super::output;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient, HttpError, Response};
use crate::pause_clock;
use crate::runpod::bounds::{
    ACKNOWLEDGEMENT_SIZE, CANCELLATIONS_SIZE, CHUNK_ATTEMPTS, CHUNK_TIMEOUT, JOB_SIZE, LATE_RESPONSE_GRACE, LONG_POLL,
    PLATFORM_CONNECT, PLATFORM_IDLE, POLL_BODY_TIMEOUT, POST_TIMEOUT, PROGRESS_TIMEOUT, RESULT_ATTEMPTS,
    UNHEALTHY_TIMEOUT,
};
use crate::settings::RunpodQueue;

/// A client for RunPod's API.
pub(super) struct PlatformApi {
    client: HttpClient,
    key: Option<HeaderValue>,
    addresses: Addresses,
}

/// The reasons why a body could not be posted.
enum Unposted {
    /// The platform refused it; a retry cannot help.
    Refused(StatusCode),
    /// All attempts failed.
    Failed,
}

impl PlatformApi {
    /// Creates a client for a worker with this id. Its connections belong to the runtime that sends the requests.
    ///
    /// # Errors
    ///
    /// Returns an error if the HTTP client cannot be created, for example because of its certificates.
    pub(super) fn new(queue: &RunpodQueue, worker: &str) -> io::Result<Self> {
        let options = ClientOptions {
            connect_timeout: PLATFORM_CONNECT,
            keep_idle: Some(PLATFORM_IDLE),
            follow_redirects: false,
            use_proxy: false,
        };
        let addresses = Addresses::new(queue, worker);
        let client = HttpClient::new(&Trust::Machine.for_addresses(addresses.all()), &options)?;
        Ok(Self { client, key: queue.key.clone(), addresses })
    }

    /// Polls for up to `count` jobs. Returns JSON, or `None` if there are no jobs.
    ///
    /// # Errors
    ///
    /// Returns why the poll failed.
    pub(super) async fn poll_jobs(&self, count: usize, has_jobs: bool) -> Result<Option<Bytes>, PollError> {
        let size = JOB_SIZE.saturating_mul(count.max(1));
        match self.long_poll(&self.addresses.poll(count, has_jobs), size).await? {
            // RunPod answers 400 to a worker that is about to be paused.
            Some(Reply { status: StatusCode::BAD_REQUEST, .. }) | None => Ok(None),
            Some(reply) => json(reply),
        }
    }

    /// Polls for the list of cancelled jobs. Returns `None` if the URL for this is unknown.
    ///
    /// # Errors
    ///
    /// The inner result is an error if the poll failed.
    pub(super) async fn poll_cancellations(&self) -> Option<Result<Option<Bytes>, PollError>> {
        let address = self.addresses.cancellations()?;
        Some(match self.long_poll(&address, CANCELLATIONS_SIZE).await {
            Ok(Some(reply)) => json(reply),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Posts the result of a job, with retries. If the platform refuses the result, an error is posted instead, so that
    /// the job does not stay without one.
    pub(super) async fn post_result(&self, job: &str, body: Bytes) {
        let (address, size) = (self.addresses.output(job, true), body.len());
        let posted = self.post(&address, job, body, RESULT_ATTEMPTS).await;
        // 404: the job was cancelled, and no client waits for an error.
        if let Err(Unposted::Refused(status)) = posted
            && status != StatusCode::NOT_FOUND
        {
            let why = format!("RunPod refuses the result ({}, {size} bytes)", status.as_u16());
            let _ = self.post(&address, job, output::error(&why), RESULT_ATTEMPTS).await;
        }
    }

    /// Posts the progress of a job, without retries.
    pub(super) async fn post_progress(&self, job: &str, body: Bytes) {
        let address = self.addresses.output(job, false);
        let _ = pause_clock::timeout(PROGRESS_TIMEOUT, self.post(&address, job, body, 1)).await;
    }

    /// Posts a chunk of a job's stream, with retries. Returns false if further chunks would be refused too.
    pub(super) async fn post_chunk(&self, job: &str, body: Bytes) -> bool {
        let Some(address) = self.addresses.stream(job) else { return false };
        match pause_clock::timeout(CHUNK_TIMEOUT, self.post(&address, job, body, CHUNK_ATTEMPTS)).await {
            Ok(posted) => !matches!(posted, Err(Unposted::Refused(_))),
            Err(_) => {
                warn!(job, "a chunk of a job's stream cannot be posted in time");
                true
            }
        }
    }

    /// Sends a ping that lists the jobs in flight.
    ///
    /// # Errors
    ///
    /// Returns why the ping failed, as a sentence without secrets.
    pub(super) async fn ping(&self, jobs: &[String], limit: Duration) -> Result<(), String> {
        let Some(address) = self.addresses.ping(jobs) else { return Ok(()) };
        let answer = self.get(&address, HeaderMap::new(), limit, ACKNOWLEDGEMENT_SIZE).await;
        answer.map_err(PollError::sentence).and_then(|reply| check_status(reply.status))
    }

    /// Reports that this worker is unhealthy.
    ///
    /// # Errors
    ///
    /// Returns why the report failed, as a sentence without secrets.
    pub(super) async fn report_unhealthy(&self, check: &str, reason: &str) -> Result<(), String> {
        let Some(address) = self.addresses.unhealthy(check, reason).filter(|_| self.key.is_some()) else {
            return Ok(());
        };
        let answer = self.get(&address, HeaderMap::new(), UNHEALTHY_TIMEOUT, ACKNOWLEDGEMENT_SIZE).await;
        answer.map_err(PollError::sentence).and_then(|reply| check_status(reply.status))
    }

    /// Sends a long poll. Returns `None` if the platform does not answer within [`LONG_POLL`].
    async fn long_poll(&self, address: &str, size: usize) -> Result<Option<Reply>, PollError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let request = self.request(Method::GET, address, headers, Bytes::new()).map_err(PollError::Failed)?;
        // No timeout here: the waits below set the deadline.
        let mut pending = pin!(self.client.send(request, Duration::MAX));
        // On the kernel's clock: after a pause of this process the platform has closed the poll.
        let response = match tokio::time::timeout(LONG_POLL, &mut pending).await {
            Ok(response) => response,
            // A response that arrived during a pause is not lost.
            Err(_) => match pause_clock::timeout(LATE_RESPONSE_GRACE, pending).await {
                Ok(response) => response,
                Err(_) => return Ok(None),
            },
        };
        let response = response.map_err(|error| PollError::Failed(error.explain(&host_of(address))))?;
        // Once a response has begun, its jobs are assigned to this worker: the body has a timeout of its own.
        let late = || "RunPod does not finish its response in time".to_owned();
        let whole = read(response.with_timeout(POLL_BODY_TIMEOUT), size, late).await;
        check_rate_limit(whole.map_err(PollError::Failed)?).map(Some)
    }

    async fn get(&self, address: &str, headers: HeaderMap, limit: Duration, size: usize) -> Result<Reply, PollError> {
        check_rate_limit(
            self.send(Method::GET, address, headers, Bytes::new(), limit, size).await.map_err(PollError::Failed)?,
        )
    }

    async fn post(&self, address: &str, job: &str, body: Bytes, attempts: u32) -> Result<(), Unposted> {
        let mut headers = HeaderMap::new();
        // The headers that RunPod's SDK sends, although the body is JSON.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert("charset", HeaderValue::from_static("utf-8"));
        if let Ok(id) = HeaderValue::from_str(job) {
            headers.insert("x-request-id", id);
        }
        for attempt in 1..=attempts {
            let request =
                self.send(Method::POST, address, headers.clone(), body.clone(), POST_TIMEOUT, ACKNOWLEDGEMENT_SIZE);
            let problem = match request.await {
                Ok(reply) if reply.status.is_success() => return Ok(()),
                Ok(Reply { status, .. }) => {
                    // 5xx, 429 and 408 may pass; a retry cannot help against any other status.
                    let may_pass = status.is_server_error()
                        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
                    let problem = format!("RunPod answers {status}");
                    if !may_pass {
                        warn!(job, "an update of a job cannot be posted: {problem}");
                        return Err(Unposted::Refused(status));
                    }
                    problem
                }
                Err(problem) => problem,
            };
            if attempt == attempts {
                warn!(job, attempts, "an update of a job cannot be posted: {problem}");
                break;
            }
            debug!(job, "an update of a job will be posted again: {problem}");
            pause_clock::sleep(failure_streak::backoff(attempt)).await;
        }
        Err(Unposted::Failed)
    }

    /// Sends a request once and returns the response with its body.
    async fn send(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
        size: usize,
    ) -> Result<Reply, String> {
        let request = self.request(method, address, headers, body)?;
        let explain = |error: HttpError| error.explain(&host_of(address));
        let response = self.client.send(request, limit).await.map_err(explain)?;
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
        *request.uri_mut() = address.parse().map_err(|_| "a URL of RunPod's is invalid".to_owned())?;
        *request.headers_mut() = headers;
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        Ok(request)
    }
}

/// Reads the body of a response of at most `size` bytes. `late` returns the error for a timeout.
async fn read(response: Response, size: usize, late: impl Fn() -> String) -> Result<Reply, String> {
    let (status, content_type) = (response.status(), response.headers().get(CONTENT_TYPE).cloned());
    let body = response.read_all(size).await.map_err(|error| match error {
        HttpError::TimedOut => late(),
        _ => format!("RunPod breaks off its response, or it is larger than {size} bytes"),
    })?;
    Ok(Reply { status, content_type, body })
}

/// Returns host and port of a URL, whose other parts may contain secrets.
fn host_of(address: &str) -> String {
    let uri: Option<Uri> = address.parse().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    authority.map_or_else(|| "RunPod".to_owned(), |of| of.as_str().rsplit('@').next().unwrap_or_default().to_owned())
}

/// A complete response of the platform.
struct Reply {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// Returns the reply, unless its status is 429.
fn check_rate_limit(reply: Reply) -> Result<Reply, PollError> {
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
        debug!(length = body.len(), "a response of RunPod is not JSON");
        return Ok(None);
    }
    Ok(Some(body))
}

fn check_status(status: StatusCode) -> Result<(), String> {
    if status.is_success() { Ok(()) } else { Err(format!("RunPod answers {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    /// Regression: jobs were lost if their response began just before the end of the poll.
    #[tokio::test(start_paused = true)]
    async fn a_response_that_begins_in_time_may_end_later() {
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
            sleep(POLL_BODY_TIMEOUT / 2).await;
            connection.write_all(b"[]").await.unwrap();
        };
        let api = PlatformApi::new(&queue, "pod").unwrap();
        let (jobs, ()) = tokio::join!(api.poll_jobs(1, false), platform);
        assert_eq!(jobs.unwrap().unwrap(), "[]");
    }

    #[test]
    fn errors_name_only_host_and_port_of_a_url() {
        assert_eq!(host_of("https://user:s3cret@h:1/s3cret?s3cret"), "h:1");
        assert_eq!(host_of("https://h/x"), "h");
        assert_eq!(host_of("s3cret s3cret"), "RunPod");
    }
}
