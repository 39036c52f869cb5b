//! Requests to the CA, over this program's own HTTP client: with its bounds, its trust, and no redirects.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error as AcmeError, HttpClient as AcmeHttpClient, Problem};
use jiff::Timestamp;

use super::bounds::{ANSWER_SIZE, CA_IDLE, CONNECT_TIMEOUT, LONGEST_CA_WAIT, REQUEST_TIMEOUT};
use super::origin::AcmeOrigin;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient};
use crate::retry_after::retry_after;

/// Sends the requests of one order. Clones share connections and what the CA has asked for.
#[derive(Clone)]
pub(super) struct CaTransport {
    http: HttpClient,
    /// Host and port of the CA, for messages.
    host: String,
    /// Whether the directory has an `https` address. Then all that it names must have one.
    is_secure: bool,
    asked: Arc<Mutex<AskedWait>>,
}

/// What the CA has asked for with the last request that it refused.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AskedWait {
    /// For how long it wants no further request.
    pub(super) wait: Option<Duration>,
    /// Whether it has answered 429.
    pub(super) is_rate_limited: bool,
}

impl CaTransport {
    /// Creates the client of one order. Blocks on the disk.
    ///
    /// # Errors
    /// The authorities cannot be read, or TLS cannot be set up.
    pub(super) fn new(origin: &AcmeOrigin) -> io::Result<Self> {
        let address = &origin.directory.0;
        let trust = match &origin.ca_file {
            Some(path) => Trust::of_file(path)?,
            None => Trust::Machine,
        };
        let options = ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            keep_idle: Some(CA_IDLE),
            follow_redirects: false,
            use_proxy: true,
        };
        let http = HttpClient::new(&trust.for_addresses([address.as_str()]), &options)?;
        let is_secure = address.scheme() == "https";
        Ok(Self { http, host: origin.directory.host(), is_secure, asked: Arc::default() })
    }

    /// Returns what the CA has asked for when it refused a request.
    pub(super) fn asked(&self) -> AskedWait {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, AcmeError> {
        let (mut parts, body) = request.into_parts();
        let is_signed = parts.method == Method::POST;
        self.check_address(&parts.uri)?;
        // Ours is sent in its place.
        parts.headers.remove(USER_AGENT);
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let failed = |error: crate::http_client::HttpError| other(error.explain(&self.host));
        let response = self.http.send(Request::from_parts(parts, body), REQUEST_TIMEOUT).await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.read_all(ANSWER_SIZE).await.map_err(failed)?;
        if !status.is_success() {
            self.note_refusal(status, retry_after(&headers, Timestamp::now(), LONGEST_CA_WAIT));
            let problem = serde_json::from_slice::<Problem>(&bytes).ok().filter(|problem| problem.r#type.is_some());
            match problem {
                None => return Err(other(format!("{} answered {status}", self.host))),
                // The crate reads problems in answers to signed requests only.
                Some(problem) if !is_signed => return Err(AcmeError::Api(problem)),
                Some(_) => {}
            }
        }
        let mut answer = Response::new(Full::new(bytes));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(BytesResponse::from(answer))
    }

    /// Refuses an address to which a CA with a certificate would lead without one.
    fn check_address(&self, address: &Uri) -> Result<(), AcmeError> {
        if self.is_secure && address.scheme() != Some(&Scheme::HTTPS) {
            return Err(other(format!("{} names an address without https", self.host)));
        }
        Ok(())
    }

    fn note_refusal(&self, status: StatusCode, wait: Option<Duration>) {
        let is_rate_limited = status == StatusCode::TOO_MANY_REQUESTS;
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = AskedWait { wait, is_rate_limited };
    }
}

impl AcmeHttpClient for CaTransport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let transport = self.clone();
        Box::pin(async move { transport.send(request).await })
    }
}

fn other(text: String) -> AcmeError {
    AcmeError::Other(text.into())
}
