//! What an order about model files that is not carried out becomes.

use crate::download::OrderError;
use crate::gateway::bounds::{DOWNLOADS_FULL_RETRY, RETRY_AFTER_UNKNOWN};
use crate::refusal::Refusal;

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
