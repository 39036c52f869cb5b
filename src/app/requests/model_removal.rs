//! Removes models from the disk for clients: only those that nothing here uses.
//!
//! Owns what is in use. Which files a model consists of, and which of them may go, is decided in `models/removal/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::app::reload::reloader::Reloader;
use crate::app::reload::served_file::ServedFile;
use crate::fleet::{Fleet, WorkerState};
use crate::gateway::{ModelQueues, NotRemoved, RemovalOrder};
use crate::models::{ModelPlaces, RemoteName, RemovalError, RemovalPlan, shown_name};

/// What a removal looks at.
struct ModelRemoval {
    reloader: Arc<Reloader>,
    fleet: Arc<Fleet>,
    queues: Arc<ModelQueues>,
    /// Held for a removal, so that one never counts on what another one takes away.
    alone: Mutex<()>,
}

/// A plan, and which of the served models it takes files from.
struct PlannedRemoval {
    plan: RemovalPlan,
    users: Vec<ServedFile>,
}

/// Returns what removes a model for a client. A removal that has begun ends, even if the client leaves.
pub(in crate::app) fn removal_order(
    reloader: &Arc<Reloader>,
    fleet: &Arc<Fleet>,
    queues: &Arc<ModelQueues>,
    tasks: &TaskTracker,
) -> RemovalOrder {
    let (reloader, fleet, queues) = (Arc::clone(reloader), Arc::clone(fleet), Arc::clone(queues));
    let removal = Arc::new(ModelRemoval { reloader, fleet, queues, alone: Mutex::default() });
    // Not on the runtime of the request, because the workers that a removal changes must outlive that.
    let (tasks, main) = (tasks.clone(), Handle::current());
    Box::new(move |name| {
        let removal = Arc::clone(&removal);
        let removed = tasks.spawn_on(async move { removal.remove(&name).await }, &main);
        Box::pin(async move { removed.await.unwrap_or_else(|_| Err(interrupted())) })
    })
}

impl ModelRemoval {
    /// Removes a model. Returns the bytes that this has freed.
    async fn remove(&self, name: &str) -> Result<u64, NotRemoved> {
        // Without a wait: a volume may never answer.
        let alone = self.alone.try_lock();
        let _alone = alone.map_err(|_| NotRemoved::InUse("another removal is not done yet: try again".to_owned()))?;
        let (places, served) = self.reloader.served_files().await;
        if RemoteName::parse(name).is_ok_and(|remote| self.is_coming(&remote)) {
            return Err(NotRemoved::InUse("it is being downloaded: cancel the download first".to_owned()));
        }
        if let Some(model) = served.iter().find(|model| model.has_adapter(name)) {
            let why = format!("the configuration names it as an adapter of '{}': take it out of that first", model.id);
            return Err(NotRemoved::InUse(why));
        }
        if served.iter().any(|model| model.has_name(name) && model.path.is_none()) {
            return Err(NotRemoved::Forbidden("it is no file of this machine".to_owned()));
        }
        let named = name.to_owned();
        let planned = on_disk(move || PlannedRemoval::of(&places, served, &named)).await?;
        let PlannedRemoval { plan, users } = planned?;
        for user in &users {
            self.check_unused(user)?;
        }
        // Other services of this machine may use it too.
        let plan = on_disk(move || plan.check_unused().map(|()| plan)).await?.map_err(not_removed)?;
        let (bytes, files) = (plan.bytes_freed, plan.files.len());
        let removed = on_disk(move || plan.remove()).await?;
        // A part of it may be gone even if not all is.
        self.reloader.rescan().await;
        removed.map_err(not_removed)?;
        info!(model = shown_name(name), files, bytes, "the model is removed");
        Ok(bytes)
    }

    /// Returns whether a download may bring what this name means. What has not begun to come holds no lock.
    fn is_coming(&self, name: &RemoteName) -> bool {
        let downloads = self.reloader.downloads.statuses();
        let coming = downloads.iter().filter(|download| !download.state.is_final());
        let mut names = coming.filter_map(|download| RemoteName::parse(&download.report.model).ok());
        names.any(|coming| coming.may_mean_same(name))
    }

    /// Checks that no worker has a model open or is about to, and that the next start can do without it.
    fn check_unused(&self, user: &ServedFile) -> Result<(), NotRemoved> {
        let id = &user.id;
        let in_use = |why: String| Err(NotRemoved::InUse(why));
        if user.is_named {
            return in_use(format!("the configuration names it ('{id}'): take it out of that first"));
        }
        let (active, waiting) = self.queues.counts(id);
        if active + waiting > 0 {
            return in_use(format!("{} requests use '{id}'", active + waiting));
        }
        let snapshot = self.fleet.snapshot();
        let model = snapshot.models().iter().find(|model| model.id() == id);
        match model.map(|model| model.load_state()) {
            None | Some(WorkerState::Stopped | WorkerState::Failed) => Ok(()),
            Some(_) => in_use(format!("'{id}' is loaded: POST /v1/models/{id}/unload first")),
        }
    }
}

impl PlannedRemoval {
    /// Plans the removal of the model that this name means: one that is served, else one that is only on the disk.
    fn of(places: &ModelPlaces, served: Vec<ServedFile>, name: &str) -> Result<Self, NotRemoved> {
        let by_name = served.iter().find(|model| model.has_name(name)).and_then(|model| model.path.as_deref());
        let plan = match by_name {
            Some(path) => RemovalPlan::of_file(places, path),
            // Clients name models, not files of the machine.
            None if Path::new(name).is_absolute() => return Err(NotRemoved::Unknown),
            None => RemovalPlan::of(places, name),
        };
        let plan = plan.map_err(not_removed)?;
        let going: BTreeSet<PathBuf> = plan.files.iter().map(|file| real(&file.path)).collect();
        let uses =
            |model: &ServedFile| model.path.iter().chain(&model.companions).any(|path| going.contains(&real(path)));
        let users = served.into_iter().filter(uses).collect();
        Ok(Self { plan, users })
    }
}

/// Does something on a blocking thread: files may be on slow network volumes.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotRemoved> {
    spawn_blocking(work).await.map_err(|_| interrupted())
}

/// Returns a path with its links resolved, as far as it can be.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn interrupted() -> NotRemoved {
    NotRemoved::Failed("the removal was interrupted".to_owned())
}

fn not_removed(error: RemovalError) -> NotRemoved {
    if error.is_absent() {
        return NotRemoved::Unknown;
    }
    let sentence = match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    match error {
        RemovalError::Outside { .. } | RemovalError::ForeignStore { .. } | RemovalError::NotAModel { .. } => {
            NotRemoved::Forbidden(sentence)
        }
        RemovalError::Busy { .. } | RemovalError::InUse { .. } | RemovalError::Changed { .. } => {
            NotRemoved::InUse(sentence)
        }
        RemovalError::Model(_) | RemovalError::WhichUnfinished { .. } | RemovalError::Absent { .. } => {
            NotRemoved::Ambiguous(sentence)
        }
        RemovalError::TooMany { .. } | RemovalError::Disk { .. } => NotRemoved::Failed(sentence),
    }
}
