//! The plan of a removal: what goes, what stays and why, and how much that frees.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::draft::{KeptFile, RemovalDraft, RemovedFile};
use super::error::RemovalError;
use super::location::ModelLocation;
use super::open_files::check_unused;
use super::plain::plan_plain;
use super::repository::plan_snapshot;
use super::steps::RemovalStep;
use super::unfinished::plan_unfinished;
use crate::file_lock::FileLock;
use crate::models::find::find;
use crate::models::places::ModelPlaces;

/// What the removal of a model does to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovalPlan {
    /// What goes, in the order in which it does.
    pub files: Vec<RemovedFile>,
    /// The bytes that this frees.
    pub bytes_freed: u64,
    /// What stays of that which the model uses.
    pub kept: Vec<KeptFile>,
    #[serde(skip)]
    steps: Vec<RemovalStep>,
    #[serde(skip)]
    locks: Vec<(PathBuf, PathBuf)>,
    #[serde(skip)]
    subject: RemovalSubject,
}

/// What is removed, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RemovalSubject {
    Name(ModelPlaces, String),
    File(ModelPlaces, PathBuf),
}

impl RemovalPlan {
    /// Plans the removal of the model that `name` means, as `models::find` finds it, else of what has come of its download.
    ///
    /// # Errors
    /// There is no such model, it may not be removed, or it is being downloaded.
    pub fn of(places: &ModelPlaces, name: &str) -> Result<Self, RemovalError> {
        Self::of_subject(RemovalSubject::Name(places.clone(), name.to_owned()))
    }

    /// Plans the removal of the model whose file, or one of whose parts, is at `path`.
    ///
    /// # Errors
    /// There is no such file, it may not be removed, or it is being downloaded.
    pub fn of_file(places: &ModelPlaces, path: &Path) -> Result<Self, RemovalError> {
        Self::of_subject(RemovalSubject::File(places.clone(), path.to_owned()))
    }

    fn of_subject(subject: RemovalSubject) -> Result<Self, RemovalError> {
        let plan = Self::without_locks(subject)?;
        // What has no lock is not being downloaded, and a plan creates nothing.
        for (lock, file) in plan.locks.iter().filter(|(lock, _)| lock.exists()) {
            take(lock, file)?;
        }
        Ok(plan)
    }

    fn without_locks(subject: RemovalSubject) -> Result<Self, RemovalError> {
        let mut draft = match &subject {
            RemovalSubject::Name(places, name) => draft_of_name(places, name)?,
            RemovalSubject::File(places, path) => draft_of_file(places, path)?,
        };
        draft.note_hard_links();
        let bytes_freed = draft.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
        let RemovalDraft { files, kept, steps, locks, .. } = draft;
        Ok(Self { files, bytes_freed, kept, steps, locks, subject })
    }

    /// Checks that no process of this machine uses one of the files: has it open or mapped, or was started with it.
    ///
    /// # Errors
    /// [`RemovalError::InUse`] with the process that does.
    pub fn check_unused(&self) -> Result<(), RemovalError> {
        check_unused(self.files.iter().map(|file| file.path.as_path()))
    }

    /// Removes what the plan says. Holds the locks of the files meanwhile.
    ///
    /// # Errors
    /// The disk has changed since the plan was made, one of the files is being downloaded, or one cannot be removed. What was
    /// removed until then is gone; the next removal goes on from there.
    pub fn remove(&self) -> Result<(), RemovalError> {
        let _locks = self.prepare()?;
        self.steps.iter().try_for_each(RemovalStep::execute)
    }

    /// Takes the locks, and checks that the plan is still that of what is on the disk.
    pub(super) fn prepare(&self) -> Result<Vec<FileLock>, RemovalError> {
        let mut held = Vec::with_capacity(self.locks.len());
        for (lock, file) in &self.locks {
            if let Some(folder) = lock.parent() {
                let created = fs::create_dir_all(folder);
                created.map_err(|source| RemovalError::Disk { path: folder.to_owned(), what: "created", source })?;
            }
            held.push(take(lock, file)?);
        }
        // The files that go are the same, and none has found another user in the meantime.
        match Self::without_locks(self.subject.clone())? == *self {
            true => Ok(held),
            false => {
                Err(RemovalError::Changed { path: self.files.first().map(|one| one.path.clone()).unwrap_or_default() })
            }
        }
    }

    /// Returns the steps, for tests that stop between two of them.
    #[cfg(test)]
    pub(super) fn steps(&self) -> &[RemovalStep] {
        &self.steps
    }
}

fn take(lock: &Path, file: &Path) -> Result<FileLock, RemovalError> {
    let taken = FileLock::take(lock);
    let taken = taken.map_err(|source| RemovalError::Disk { path: lock.to_owned(), what: "locked", source })?;
    taken.ok_or_else(|| RemovalError::Busy { path: file.to_owned() })
}

fn draft_of_name(places: &ModelPlaces, name: &str) -> Result<RemovalDraft, RemovalError> {
    let error = match find(places, name) {
        Ok(path) => match draft_of_file(places, &path) {
            Err(error @ RemovalError::Absent { .. }) => error,
            outcome => return outcome,
        },
        Err(error) if error.is_missing() => error.into(),
        Err(error) => return Err(error.into()),
    };
    plan_unfinished(places, name)?.ok_or(error)
}

fn draft_of_file(places: &ModelPlaces, path: &Path) -> Result<RemovalDraft, RemovalError> {
    match ModelLocation::of(places, path)? {
        ModelLocation::Snapshot(place) => plan_snapshot(&place),
        ModelLocation::Plain { root, path } => plan_plain(&root, &path),
    }
}
