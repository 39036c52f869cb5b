//! Answers to requests about model files, and what an order that is not carried out becomes.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::download::OrderError;
use crate::gateway::bounds::{DOWNLOADS_FULL_RETRY, RETRY_AFTER_UNKNOWN};
use crate::gateway::response::made::NextMade;
use crate::refusal::Refusal;

/// The answer to a request about model files.
pub(in crate::gateway) enum FilesAnswer {
    Whole(Response<Bytes>),
    /// It goes on as long as what it tells of.
    Made(Response<NextMade>),
}

/// Returns an answer of this type.
pub(super) fn response_of<T>(content_type: &'static str, body: T) -> Response<T> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // What is written here are texts and numbers, which always can be.
    let body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
    let mut response = response_of("application/json", body);
    *response.status_mut() = status;
    response
}

pub(super) fn empty_response(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// Returns the refusal of an order about downloads.
pub(super) fn refusal_of(error: OrderError) -> Refusal {
    let message = error.to_string();
    match error {
        OrderError::Name(source) => {
            let hint = source.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            Refusal::InvalidParameter { field: "model".to_owned(), message: message + &hint }
        }
        OrderError::NoSuchEvent => Refusal::bad_request(message),
        OrderError::Offline(_) => Refusal::DownloadsOff(message),
        OrderError::Full | OrderError::TooManyFollowers => Refusal::DownloadsFull(message, DOWNLOADS_FULL_RETRY),
        OrderError::Unknown(id) => Refusal::DownloadNotFound(id),
        OrderError::Needed => Refusal::DownloadNeeded,
        OrderError::Stopping => Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN),
        OrderError::Client(_) => Refusal::Internal(message),
    }
}
