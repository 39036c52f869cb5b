//! What has changed between two views of the service: pure. Each change is one event.

use serde::Serialize;

use super::throughput::Throughput;
use super::view::{MemoryView, ModelView, QueueView, ShownFailure, View};
use crate::download::{DownloadState, DownloadStatus};
use crate::fleet::{LoadReport, ServiceStatus, WorkerReport};
use crate::gateway::accounting::recent_acts::ShownAct;
use crate::gateway::response::local_answer::event_text;

/// One change, with what is told of it.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum FeedChange {
    Service { status: ServiceStatus },
    Model(ModelView),
    ModelRemoved { id: String },
    Load(LoadChange),
    Queue(QueueView),
    Download(DownloadStatus),
    DownloadRemoved { id: String },
    Memory(MemoryView),
    Throughput(Throughput),
    Failure(ShownFailure),
    Act(ShownAct),
}

/// How far the load of a worker is now.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LoadChange {
    model: String,
    worker: u32,
    #[serde(flatten)]
    load: LoadReport,
}

impl FeedChange {
    /// Returns the event, to follow its id.
    pub(super) fn text(&self) -> String {
        event_text(None, self.name(), self)
    }

    /// Returns what went wrong, if that is the change.
    pub(super) fn failure(&self) -> Option<&ShownFailure> {
        match self {
            Self::Failure(failure) => Some(failure),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Service { .. } => "service",
            Self::Model(_) => "model",
            Self::ModelRemoved { .. } => "model_removed",
            Self::Load(_) => "load",
            Self::Queue(_) => "queue",
            Self::Download(_) => "download",
            Self::DownloadRemoved { .. } => "download_removed",
            Self::Memory(_) => "memory",
            Self::Throughput(_) => "throughput",
            Self::Failure(_) => "failure",
            Self::Act(_) => "act",
        }
    }
}

/// Returns what has changed, in the order in which it is told: acts before what follows from them, and failures before the
/// states that follow from them.
pub(super) fn changes(before: &View, now: &View) -> Vec<FeedChange> {
    let mut changes = Vec::new();
    let last_act = before.acts.last().map(|(number, _)| *number);
    let new_acts = now.acts.iter().filter(|(number, _)| last_act.is_none_or(|last| *number > last));
    changes.extend(new_acts.map(|(_, act)| FeedChange::Act(act.clone())));
    changes.extend(new_failures(before, now).into_iter().map(FeedChange::Failure));
    changes_of_models(before, now, &mut changes);
    changes_of_downloads(before, now, &mut changes);
    if before.memory != now.memory {
        changes.push(FeedChange::Memory(now.memory.clone()));
    }
    if before.status != now.status {
        changes.push(FeedChange::Service { status: now.status });
    }
    changes
}

/// Returns how many acts between these views are in neither, because more came than are kept.
pub(super) fn missed_acts(before: &View, now: &View) -> u64 {
    let last = before.acts.last().map_or(0, |(number, _)| *number);
    now.acts.first().map_or(0, |(first, _)| first.saturating_sub(last + 1))
}

/// Returns every failure that this view shows, the oldest first.
pub(super) fn failures(view: &View) -> Vec<ShownFailure> {
    let workers = view.models.iter().flat_map(|model| model.workers.iter().filter_map(|one| exit_of(&model.id, one)));
    let downloads = view.downloads.iter().filter_map(|(_, download)| failure_of(download));
    let mut failures: Vec<ShownFailure> = workers.chain(downloads).collect();
    failures.sort_by_key(|failure| failure.at);
    failures
}

fn changes_of_models(before: &View, now: &View, changes: &mut Vec<FeedChange>) {
    for (place, model) in now.models.iter().enumerate() {
        let known = find_near(&before.models, place, |known| known.id == model.id);
        if known == Some(model) {
            continue;
        }
        if known.is_none_or(|known| without_loads(known) != without_loads(model)) {
            changes.push(FeedChange::Model(model.clone()));
            continue;
        }
        let workers = model.workers.iter().zip(known.map(|known| &known.workers[..]).unwrap_or_default());
        let loads = workers.filter(|(worker, known)| worker.load != known.load);
        changes.extend(loads.filter_map(|(worker, _)| {
            let load = worker.load.clone()?;
            Some(FeedChange::Load(LoadChange { model: model.id.clone(), worker: worker.worker, load }))
        }));
    }
    for (place, queue) in now.queues.iter().enumerate() {
        let known = find_near(&before.queues, place, |known| known.model == queue.model);
        if known.is_none_or(|known| !known.is_same(queue)) {
            changes.push(FeedChange::Queue(queue.clone()));
        }
    }
    for (place, known) in before.models.iter().enumerate() {
        if find_near(&now.models, place, |model| model.id == known.id).is_none() {
            changes.push(FeedChange::ModelRemoved { id: known.id.clone() });
        }
    }
}

/// Finds an item. Most stand where they stood before, so that many models cost little.
fn find_near<T>(list: &[T], place: usize, is_it: impl Fn(&T) -> bool) -> Option<&T> {
    list.get(place).filter(|item| is_it(item)).or_else(|| list.iter().find(|item| is_it(item)))
}

fn changes_of_downloads(before: &View, now: &View, changes: &mut Vec<FeedChange>) {
    // The newest is first in the views.
    for (revision, download) in now.downloads.iter().rev() {
        let known = before.downloads.iter().find(|(_, known)| known.id == download.id);
        if known.is_none_or(|(known, _)| known != revision) {
            changes.push(FeedChange::Download(download.clone()));
        }
    }
    let is_gone = |known: &&(u64, DownloadStatus)| !now.downloads.iter().any(|(_, one)| one.id == known.1.id);
    let gone = before.downloads.iter().filter(is_gone);
    changes.extend(gone.map(|(_, gone)| FeedChange::DownloadRemoved { id: gone.id.clone() }));
}

/// Returns a model as it is but for the progress of its loads.
fn without_loads(model: &ModelView) -> ModelView {
    let mut model = model.clone();
    for worker in &mut model.workers {
        worker.load = None;
    }
    model
}

fn new_failures(before: &View, now: &View) -> Vec<ShownFailure> {
    let known = failures(before);
    let mut failures = failures(now);
    // The state may follow later than the failure.
    failures.retain(|failure| {
        !known.iter().any(|known| {
            (known.at, &known.model, known.worker, known.what)
                == (failure.at, &failure.model, failure.worker, failure.what)
        })
    });
    failures
}

fn exit_of(model: &str, worker: &WorkerReport) -> Option<ShownFailure> {
    let exit = worker.last_exit.as_ref()?;
    Some(ShownFailure {
        at: exit.at,
        what: "worker",
        model: model.to_owned(),
        worker: Some(worker.worker),
        state: worker.state.as_str(),
        message: None,
        hint: exit.hint.clone(),
        code: exit.code,
        signal: exit.signal,
    })
}

fn failure_of(download: &DownloadStatus) -> Option<ShownFailure> {
    let failure = download.error.as_ref().filter(|_| download.state == DownloadState::Failed)?;
    Some(ShownFailure {
        at: failure.at,
        what: "download",
        model: download.report.model.clone(),
        worker: None,
        state: download.state.as_str(),
        message: Some(failure.message.clone()),
        hint: failure.hint.map(str::to_owned),
        code: None,
        signal: None,
    })
}
