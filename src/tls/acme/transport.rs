//! Requests to the CA, over this program's own HTTP client: with its bounds, its trust, and no redirects.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error as AcmeError, HttpClient as AcmeHttpClient, Problem};
use jiff::Timestamp;
use url::Url;

use super::bounds::{
    ADVICE_WAITS, ANSWER_SIZE, CA_IDLE, CONNECT_TIMEOUT, LONGEST_CA_WAIT, LONGEST_POLL, REQUEST_TIMEOUT,
};
use super::origin::AcmeOrigin;
use crate::dial::Trust;
use crate::http_client::{ClientOptions, HttpClient};
use crate::retry_after::retry_after;
use crate::settings::values::is_of_this_machine;

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
        if let Some(fault) = address_fault(self.is_secure, &parts.uri) {
            return Err(other(format!("{} names {fault}", self.host)));
        }
        // Ours is sent in its place.
        parts.headers.remove(USER_AGENT);
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let failed = |error: crate::http_client::HttpError| other(error.explain(&self.host));
        let response = self.http.send(Request::from_parts(parts, body), REQUEST_TIMEOUT).await.map_err(failed)?;
        let (status, mut headers) = (response.status(), response.headers().clone());
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
        bound_wait(&mut headers, if is_signed { LONGEST_POLL } else { ADVICE_WAITS.1 });
        let mut answer = Response::new(Full::new(bytes));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(BytesResponse::from(answer))
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

/// Returns what is wrong with an address that a CA names: a CA with a certificate leads to none without, and one on this
/// machine to no other machine without.
fn address_fault(is_secure: bool, address: &Uri) -> Option<&'static str> {
    if address.scheme() == Some(&Scheme::HTTPS) {
        return None;
    }
    if is_secure {
        return Some("an address without https");
    }
    let is_near = Url::parse(&address.to_string()).is_ok_and(|address| is_of_this_machine(&address));
    (!is_near).then_some("an address of another machine without https")
}

/// Puts a bounded number of seconds into the place of a `Retry-After`: instant-acme adds any number to its clock, and a large
/// one would end an order, or the task.
fn bound_wait(headers: &mut HeaderMap, longest: Duration) {
    if headers.contains_key(RETRY_AFTER) {
        let wait = retry_after(headers, Timestamp::now(), longest).unwrap_or_default();
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a number that no clock can hold ended the task, and nothing was renewed any more.
    #[test]
    fn a_wait_that_the_ca_asks_for_is_a_bounded_number_of_seconds() {
        for (asked, expected) in [
            ("3", "3"),
            ("0", "0"),
            ("6", "5"),
            ("18446744073709551615", "5"),
            ("99999999999999999999999", "5"),
            ("Sun, 06 Nov 2394 08:49:37 GMT", "5"),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "0"),
            ("soon", "0"),
        ] {
            let mut headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(asked))]);
            bound_wait(&mut headers, LONGEST_POLL);
            assert_eq!(headers.get(RETRY_AFTER).unwrap().to_str().unwrap(), expected, "{asked}");
        }
        let mut headers = HeaderMap::new();
        bound_wait(&mut headers, LONGEST_POLL);
        assert!(headers.is_empty());
    }

    /// Regression: a CA on this machine could lead to other machines over plain HTTP.
    #[test]
    fn plain_http_leads_to_this_machine_only_and_https_to_https_only() {
        for (is_secure, address, is_good) in [
            (true, "https://ca.example.org/order", true),
            (true, "http://ca.example.org/order", false),
            (true, "http://127.0.0.1/order", false),
            (false, "https://ca.example.org/order", true),
            (false, "http://127.0.0.1:4001/order", true),
            (false, "http://[::1]:4001/order", true),
            (false, "http://localhost/order", true),
            (false, "http://ca.example.org/order", false),
            (false, "http://10.0.0.1/order", false),
            (false, "/order", false),
        ] {
            let fault = address_fault(is_secure, &address.parse().unwrap());
            assert_eq!(fault.is_none(), is_good, "{is_secure} {address}");
        }
    }
}
