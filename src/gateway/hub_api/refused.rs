//! What a question without an answer becomes.

use crate::download::{DownloadError, OrderError};
use crate::fit::NoFit;
use crate::gateway::bounds::RETRY_AFTER_UNKNOWN;
use crate::models::shown_name;
use crate::refusal::Refusal;

/// Returns the refusal of a question that the hub does not answer. `field` is the parameter that names what was asked about.
pub(super) fn refusal_of(field: &str, error: DownloadError) -> Refusal {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    let sentence = format!("{error}{hint}");
    match error {
        DownloadError::Offline { .. } => Refusal::DownloadsOff(sentence),
        DownloadError::NoRepository { .. } | DownloadError::NoRevision { .. } | DownloadError::NoFile { .. } => {
            Refusal::RepositoryNotFound(sentence)
        }
        DownloadError::Gated { .. } => Refusal::RepositoryGated(sentence),
        DownloadError::Name { .. } => Refusal::InvalidParameter { field: field.to_owned(), message: sentence },
        // The hint is about a file that was downloaded, and none was.
        DownloadError::NotGguf { .. } => Refusal::HubUnusable(error.to_string()),
        DownloadError::BadToken { .. } | DownloadError::BadAnswer { .. } => Refusal::HubUnusable(sentence),
        DownloadError::Stopped => Refusal::ShuttingDown(RETRY_AFTER_UNKNOWN),
        DownloadError::Unanswered { .. } | DownloadError::GivenUp { .. } => Refusal::HubUnanswered(sentence),
        DownloadError::WrongHash { .. } | DownloadError::NoRoom { .. } | DownloadError::Disk { .. } => {
            Refusal::Internal(sentence)
        }
    }
}

/// Returns the refusal of a question that is not asked.
pub(super) fn refusal_of_order(error: OrderError) -> Refusal {
    match error {
        // The refusal names no parameter: the setting forbids to ask at all.
        OrderError::Offline(error) => refusal_of("model", error),
        error => Refusal::Internal(error.to_string()),
    }
}

/// Returns the refusal of a question about a model. Only the program's own log may have a path of the machine.
pub(super) fn refusal_of_fit(name: &str, error: NoFit) -> Refusal {
    match error {
        NoFit::Download(error) => refusal_of("model", error),
        NoFit::NoMemory => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            Refusal::InvalidParameter { field: "memory".to_owned(), message: format!("{error}{hint}") }
        }
        NoFit::Model(error) if error.is_missing() => Refusal::InvalidParameter {
            field: "model".to_owned(),
            message: format!(
                "'{}' is neither a model of this machine nor the name of one on the hub",
                shown_name(name)
            ),
        },
        NoFit::Model(error) => {
            tracing::warn!(model = shown_name(name), "a model cannot be looked at: {error}");
            let message = format!("'{}' does not mean one model that can be read; {}", shown_name(name), error.hint());
            Refusal::InvalidParameter { field: "model".to_owned(), message }
        }
        NoFit::Value(message) | NoFit::Machine(message) => Refusal::Internal(message),
    }
}
