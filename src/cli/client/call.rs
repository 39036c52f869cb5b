//! Requests to a service, and their answers.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use serde_json::Value;

use super::address::ServiceAddress;
use super::error::{CallError, ServiceError};
use super::event_stream::EventStream;
use crate::cli::runtime;
use crate::http_client::{ClientOptions, HttpClient, HttpError, Response};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer that needs no model.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for the health of a service.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the head of a stream, while a model loads and reads a prompt.
const STREAM_HEAD_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Longest time to read an error that comes in place of a stream.
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read at most of an answer.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;
/// Bytes that are read at most of an error.
const LARGEST_ERROR: usize = 1024 * 1024;

/// Asks one service.
#[derive(Debug, Clone)]
pub(in crate::cli) struct ServiceClient {
    address: ServiceAddress,
    http: HttpClient,
}

/// Runs a command that asks a service on a runtime of its own. Returns what it returns.
///
/// # Errors
/// [`CallError::Broken`] if there is no runtime, and the command's own.
pub(in crate::cli) fn run<T>(command: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let runtime = runtime::on_this_thread().map_err(CallError::Broken)?;
    let outcome = runtime.block_on(command);
    // A thread that still reads the terminal or resolves a name must not keep the command alive.
    runtime.shutdown_background();
    outcome
}

impl ServiceClient {
    /// Creates a client of the service at this address. Opens no connection.
    ///
    /// # Errors
    /// [`CallError::Broken`] if TLS cannot be set up.
    pub(in crate::cli) fn new(address: ServiceAddress) -> Result<Self, CallError> {
        let options = ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            // Between two questions nothing would notice that the service has closed it.
            keep_idle: None,
            // The key must not follow a redirect to another host.
            follow_redirects: false,
            use_proxy: !address.is_loopback(),
        };
        let http = HttpClient::new(&address.trust()?.for_addresses([address.base()]), &options);
        let http = http.map_err(|error: io::Error| CallError::Broken(format!("no HTTP client: {error}")))?;
        Ok(Self { address, http })
    }

    /// Returns where the service is.
    pub(in crate::cli) fn address(&self) -> &ServiceAddress {
        &self.address
    }

    /// Asks for this path and query, and reads the answer as JSON.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer, an error, or no JSON.
    pub(in crate::cli) async fn get_json(&self, path: &str) -> Result<Value, CallError> {
        let body = self.send(Method::GET, path, None).await?;
        let not_ours = "the answer is no JSON: is this the address of a llamagate?";
        serde_json::from_slice(&body).map_err(|_| CallError::Broken(not_ours.to_owned()))
    }

    /// Asks for the health of the service, which is told with an error status too.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer, or no JSON.
    pub(in crate::cli) async fn get_health(&self) -> Result<Value, CallError> {
        let request = self.request(Method::GET, "/health", None, "application/json")?;
        let failed = |error: HttpError| self.unreachable(&error);
        let response = self.http.send(request, HEALTH_TIMEOUT).await.map_err(failed)?;
        let body = response.read_all(LARGEST_ERROR).await.map_err(failed)?;
        serde_json::from_slice(&body).map_err(|_| CallError::Broken("its health is no JSON".to_owned()))
    }

    fn unreachable(&self, error: &HttpError) -> CallError {
        let reason = error.explain(self.address.host());
        CallError::Unreachable { base: self.address.base().to_owned(), reason }
    }

    /// Sends a request, with a JSON body if there is one, and reads the whole answer.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer, or an error.
    pub(in crate::cli) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, CallError> {
        let request = self.request(method, path, body, "application/json")?;
        let response = self.accepted(self.http.send(request, CALL_TIMEOUT).await).await?;
        response.read_all(LARGEST_ANSWER).await.map_err(|error| CallError::Broken(error.explain(self.address.host())))
    }

    /// Sends a request whose answer is a stream of server-sent events. A dropped stream cancels the request.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer, or an error.
    pub(in crate::cli) async fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<EventStream, CallError> {
        let request = self.request(method, path, body, "text/event-stream")?;
        let response = self.accepted(self.http.send(request, STREAM_HEAD_TIMEOUT).await).await?;
        Ok(EventStream::new(response, self.address.host().to_owned()))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: &str,
    ) -> Result<Request<Bytes>, CallError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.address.base()));
        if let Some(authorization) = self.address.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        request.header(ACCEPT, accept).body(body).map_err(|error| CallError::Broken(error.to_string()))
    }

    /// Returns a response with a status that means success.
    async fn accepted(&self, sent: Result<Response, HttpError>) -> Result<Response, CallError> {
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(response);
        }
        let mut body = Vec::new();
        // What has arrived is shown, also of an error that breaks off.
        let _ = response.with_timeout(ERROR_TIMEOUT).read_start(LARGEST_ERROR, &mut body).await;
        Err(CallError::Refused(Box::new(ServiceError::read(status, &headers, &body))))
    }
}
