//! Edits of the key file for requests: one at a time, on a blocking thread, in force before the answer.
//!
//! Owns who may not be removed. The edits themselves, the lock and the file are those of `keyctl`.

use tracing::warn;

use crate::blocking_pool::{BlockingPool, NotDone};
use crate::gateway::bounds::KEY_EDIT_TURN_WAIT;
use crate::keys::edit::EditError;
use crate::keys::parse::KeyFile;
use crate::keys::write::{IfMissing, update};
use crate::keys::{KeyFileError, SERVICE_KEY_ID, Scope, Store};
use crate::refusal::Refusal;

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyEditError {
    /// The edit itself was refused.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The edit was refused, in the API's words.
    #[error("{0}")]
    Refused(Refusal),
}

/// Edits the key file.
pub(super) struct KeyEdits {
    store: Store,
    /// One edit at a time.
    edits: BlockingPool,
}

impl KeyEdits {
    /// Edits the file of this store. Must be called on the runtime that outlives all requests.
    pub(super) fn new(store: Store) -> Self {
        Self { store, edits: BlockingPool::new(1, KEY_EDIT_TURN_WAIT) }
    }

    /// Returns the keys that are in force.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Edits the file, and puts the result in force. An edit that has begun ends, also if the client leaves.
    ///
    /// # Errors
    /// The refusal of the edit; [`Refusal::LastKey`] if the file would hold no key; [`Refusal::KeysUnavailable`] if the
    /// file cannot be read, locked or written. Then nothing has changed.
    pub(super) async fn edit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut KeyFile) -> Result<T, KeyEditError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.store.clone();
        match self.edits.run(move || edit_and_reload(&store, change)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(refusal_of(error)),
            Err(NotDone::Busy) => Err(Refusal::KeysUnavailable("other changes are not done yet".to_owned())),
            Err(NotDone::Stopping) => Err(Refusal::KeysUnavailable(NotDone::Stopping.to_string())),
        }
    }

    /// Checks that a key may be changed: that of the environment is not in the file.
    ///
    /// # Errors
    /// [`Refusal::KeyNotInFile`].
    pub(super) fn check_in_file(&self, name: &str) -> Result<(), Refusal> {
        match name == SERVICE_KEY_ID && self.store.has_service_key() {
            true => Err(Refusal::KeyNotInFile),
            false => Ok(()),
        }
    }
}

/// Edits the file under the lock of `keyctl`, and puts it in force. What a reload would refuse is refused before the write.
fn edit_and_reload<T>(
    store: &Store,
    change: impl FnOnce(&mut KeyFile) -> Result<T, KeyEditError>,
) -> Result<T, KeyEditError> {
    let checked = |file: &mut KeyFile| {
        let value = change(file)?;
        store.check(file)?;
        // A gateway accepts no file without keys, so the removed one would go on working.
        match file.entries().next() {
            Some(_) => Ok(value),
            None => Err(KeyEditError::Refused(Refusal::LastKey)),
        }
    };
    // A file that has gone took keys with it that are still in force: a new one would end them.
    let updated = update(store.path(), IfMissing::Fail, checked)?;
    store.reload()?;
    Ok(updated.value)
}

/// Checks that the caller's own key keeps a valid line of scope `admin`.
///
/// # Errors
/// [`Refusal::OwnKey`].
pub(super) fn check_keeps_admin(file: &KeyFile, own: &str, now: jiff::Timestamp) -> Result<(), KeyEditError> {
    let is_kept = |key: &crate::keys::Key| key.id == own && key.has(Scope::Admin) && !key.has_expired(now);
    match file.entries().any(|(_, entry)| is_kept(&entry.key)) {
        true => Ok(()),
        false => Err(KeyEditError::Refused(Refusal::OwnKey)),
    }
}

/// Returns what a client gets. Only the log names the file.
fn refusal_of(error: KeyEditError) -> Refusal {
    match error {
        KeyEditError::Refused(refusal) => refusal,
        KeyEditError::File(error) | KeyEditError::Edit(EditError::File(error)) => {
            warn!("a change of the keys failed: {error}; {}", error.hint());
            Refusal::KeysUnavailable(error.reason())
        }
        KeyEditError::Edit(EditError::NameTaken { name }) => Refusal::KeyExists(name),
        KeyEditError::Edit(EditError::NoSuchKey { name }) => Refusal::KeyNotFound(name),
        KeyEditError::Edit(error @ EditError::EndsInThePast { .. }) => {
            Refusal::InvalidParameter { field: "expires".to_owned(), message: error.to_string() }
        }
        KeyEditError::Edit(error @ EditError::LineTooLong { .. }) => {
            Refusal::InvalidParameter { field: "models".to_owned(), message: format!("{error}: name fewer models") }
        }
        KeyEditError::Edit(error @ EditError::Random(_)) => Refusal::Internal(error.to_string()),
    }
}
