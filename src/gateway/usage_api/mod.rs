//! `GET /usage`: what keys have used, and `GET /audit`: what administrators have done; as JSON or CSV.
//!
//! The file is read on a blocking thread, by few requests at the same time, and never by a serving thread.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response};
use serde::Serialize;
use serde_json::json;
use tracing::warn;

use super::admission::auth::Caller;
use super::request::envelope::query_pairs;
use super::routes::route::UsageRoute;
use crate::blocking_pool::{BlockingPool, NotDone};
use crate::keys::Scope;
use crate::ledger::bounds::{READ_TURN_WAIT, READS_AT_ONCE};
use crate::ledger::{AuditQuery, InvalidQuery, LedgerError, UsageLedger, UsageQuery, to_csv};
use crate::refusal::Refusal;
use crate::telemetry::throttled_warning::ThrottledWarning;

/// Answers requests about usage.
pub(super) struct UsageApi {
    ledger: UsageLedger,
    reads: BlockingPool,
    failure: Mutex<ThrottledWarning>,
}

impl UsageApi {
    /// Creates the API of this ledger. Must be called on the runtime that outlives all requests.
    pub(super) fn new(ledger: UsageLedger) -> Self {
        Self { ledger, reads: BlockingPool::new(READS_AT_ONCE, READ_TURN_WAIT), failure: Mutex::default() }
    }

    /// Answers with the rows of the caller's key, or with all of them if the key is an administrator's.
    ///
    /// # Errors
    /// [`Refusal::UsageOff`]; [`Refusal::BadRequest`] that names the parameter that is wrong;
    /// [`Refusal::UsageUnavailable`] if the file cannot be read.
    pub(super) async fn respond(
        &self,
        route: UsageRoute,
        parts: &Parts,
        caller: &Caller,
    ) -> Result<Response<Bytes>, Refusal> {
        if !self.ledger.is_on() {
            return Err(Refusal::UsageOff);
        }
        let parameters: Vec<_> = query_pairs(parts.uri.query()).collect();
        let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let of_client = |error: InvalidQuery| Refusal::bad_request(error.to_string());
        let is_csv = asks_for_csv(parts);
        match route {
            UsageRoute::Usage => {
                let own = caller.key_id().unwrap_or_default().to_owned();
                let query = UsageQuery::read(parameters).map_err(of_client)?;
                let query = query.of_key((!caller.has_scope(Scope::Admin)).then_some(own));
                let page = self.read(move |ledger| ledger.read(&query)).await?;
                Ok(if is_csv { csv_response(to_csv(&page), page.next) } else { json_response(&page) })
            }
            UsageRoute::Audit => {
                let query = AuditQuery::read(parameters).map_err(of_client)?;
                let page = self.read(move |ledger| ledger.read_acts(&query)).await?;
                Ok(if is_csv { csv_response(page.to_csv(), page.next) } else { json_response(&page) })
            }
        }
    }

    /// Reads the file on a blocking thread, once it is this request's turn.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&UsageLedger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let ledger = self.ledger.clone();
        match self.reads.run(move || read(&ledger)).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(self.refusal_of(&error)),
            Err(NotDone::Busy) => Err(Refusal::UsageUnavailable("others are reading it, try again later")),
            Err(NotDone::Stopping) => Err(Refusal::UsageUnavailable("the service is shutting down")),
        }
    }

    /// Returns what a client gets. Only the log names the file.
    fn refusal_of(&self, error: &LedgerError) -> Refusal {
        if let Some(failures) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).report_due() {
            warn!(failures, "usage cannot be read: {error}");
        }
        match error {
            LedgerError::Off => Refusal::UsageOff,
            LedgerError::Missing(_) => Refusal::UsageUnavailable("there is no file of it yet"),
            _ => Refusal::UsageUnavailable("the log says why"),
        }
    }
}

fn asks_for_csv(parts: &Parts) -> bool {
    parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/csv"))
}

fn csv_response(text: String, next: Option<impl Into<HeaderValue>>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    if let Some(next) = next {
        // CSV has no place for it.
        response.headers_mut().insert("x-llamagate-next", next.into());
    }
    response
}

fn json_response(page: &impl Serialize) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(json!(page).to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
