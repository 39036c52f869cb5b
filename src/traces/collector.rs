//! The HTTP client of exports: that of the program's other requests, as OpenTelemetry's exporter wants it.
//!
//! Undoes a packing that only the environment asks for, which the exporter reads although a flag says something else.
//! Says in the log why the collector took nothing, at most once a minute; the exporter's own errors do not.

use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use http::header::CONTENT_ENCODING;
use http::{Request, Response};
use tracing::warn;

use super::bounds::LONGEST_COLLECTOR_ANSWER;
use super::trace_settings::TraceSettings;
use crate::http_client::{HttpClient, HttpError};
use crate::telemetry::throttled_warning::ThrottledWarning;

/// Sends exports to the collector.
#[derive(Debug)]
pub(super) struct CollectorClient {
    client: HttpClient,
    /// The longest time for one request.
    timeout: Duration,
    /// Whether bodies are packed.
    is_packed: bool,
    warning: Mutex<ThrottledWarning>,
}

impl CollectorClient {
    /// Creates a client whose requests are as these settings say.
    pub(super) fn new(client: HttpClient, settings: &TraceSettings) -> Self {
        let TraceSettings { timeout, is_packed, .. } = settings;
        Self { client, timeout: *timeout, is_packed: *is_packed, warning: Mutex::default() }
    }

    /// Returns the request, unpacked if the settings want no packing: the exporter packs also where only the environment asks
    /// for it.
    ///
    /// # Errors
    /// The exporter has packed it in another way than with gzip, the only one that is compiled in.
    fn as_set(&self, request: Request<Bytes>) -> io::Result<Request<Bytes>> {
        let (mut parts, body) = request.into_parts();
        if self.is_packed || parts.headers.remove(CONTENT_ENCODING).is_none() {
            return Ok(Request::from_parts(parts, body));
        }
        let mut unpacked = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut unpacked)?;
        Ok(Request::from_parts(parts, unpacked.into()))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.send(request, self.timeout).await?;
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        *answer.body_mut() = response.read_all(LONGEST_COLLECTOR_ANSWER).await?;
        Ok(answer)
    }

    fn warn(&self, reason: &str) {
        let due = self.warning.lock().unwrap_or_else(PoisonError::into_inner).report_due();
        if let Some(failures) = due {
            warn!(failures, "spans are not taken by the collector of OTEL_EXPORTER_OTLP_ENDPOINT: {reason}");
        }
    }
}

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, opentelemetry_http::HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        match self.send(self.as_set(request)?).await {
            Ok(response) => {
                if !response.status().is_success() {
                    self.warn(&format!("{host} answers with status {}", response.status().as_u16()));
                }
                Ok(response)
            }
            Err(error) => {
                self.warn(&error.explain(&host));
                Err(error.into())
            }
        }
    }
}
