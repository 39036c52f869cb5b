//! The removal of a model, as clients are told of it. The application removes it.

use std::future::Future;
use std::pin::Pin;

use crate::gateway::admission::auth::Caller;
use crate::gateway::queue::model_queues::Snapshot;
use crate::models::shown_name;
use crate::refusal::Refusal;

/// Removes the model of this name from the disk. Returns the bytes that this has freed.
pub type RemovalOrder =
    Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<u64, NotRemoved>> + Send>> + Send + Sync>;

/// Why a model is not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRemoved {
    /// No model has this name.
    Unknown,
    /// It is used, or being downloaded; says by what.
    InUse(String),
    /// It may not be removed; says why.
    Forbidden(String),
    /// The name does not mean exactly one model; says why.
    Ambiguous(String),
    /// The disk does not do what it should; says what.
    Failed(String),
}

/// Removes a model. Returns the bytes that this has freed.
///
/// # Errors
/// The caller may not use the model, or why it is still there.
pub(super) async fn remove(
    order: &RemovalOrder,
    name: &str,
    caller: &Caller,
    models: &Snapshot,
) -> Result<u64, Refusal> {
    match models.find(name) {
        Some(served) => caller.check_model(&served.model.info())?,
        None => caller.check_name(name)?,
    }
    order(name.to_owned()).await.map_err(|why| match why {
        NotRemoved::Unknown => models.model_not_found(Some(&shown_name(name)), caller),
        NotRemoved::InUse(why) => Refusal::ModelInUse(why),
        NotRemoved::Forbidden(why) => Refusal::ModelNotRemovable(why),
        NotRemoved::Ambiguous(why) => Refusal::InvalidParameter { field: "model".to_owned(), message: why },
        NotRemoved::Failed(why) => Refusal::Internal(why),
    })
}
