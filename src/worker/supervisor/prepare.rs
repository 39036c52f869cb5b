//! The preparation of a start: leftovers of earlier processes are ended, the model file is checked, memory is reserved,
//! and the file is prefetched where `PREFETCH` is on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::owner::{Owner, StartFailure};
use crate::models;
use crate::settings::values::GpuLayers;
use crate::worker::diagnosis::model::{unfit_file, unread_file};
use crate::worker::local_errors::shortage;
use crate::worker::memory::budget::MemoryBudget;
use crate::worker::memory::learned::{FileState, LoadedFiles, MemoryKey};
use crate::worker::memory::ledger::MemoryRequest;
use crate::worker::memory::prefetch::{PrefetchOutcome, prefetch};
use crate::worker::memory::reservation::Reservation;
use crate::worker::plan::Need;
use crate::worker::plan::Program;
use crate::worker::process::blocking::NoOutcome;
use crate::worker::process::leftovers;

impl Owner {
    /// Checks that a start can succeed, as far as that is known before, and waits for memory. Returns the reservation
    /// and how long the prefetch took, if there was one. Safe to cancel.
    ///
    /// # Errors
    ///
    /// The model file or an `rpc-server` is unusable, this machine is short of something, or the model does not fit beside
    /// pinned models.
    pub(super) async fn prepare(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(Reservation, Option<Duration>), StartFailure> {
        leftovers::clear_earlier(stop).await;
        // The next process must not be loaded while the last one still holds GPU memory. The handle is awaited in place
        // and cleared only then, so that a cancelled start waits for it again.
        if let Some(release) = &mut self.memory_release {
            let _ = release.await;
            self.memory_release = None;
        }
        let file = match &self.plan.program {
            Program::LlamaServer { file, .. } => Some(file.clone()),
            Program::Command { .. } | Program::RpcServer(_) => None,
        };
        let loaded = self.check_files(file.clone()).await?;
        self.file_size = loaded.model.map(|state| state.size);
        // Before the reservation: no other model has to leave for one that cannot be loaded.
        self.greet_peers().await?;
        let shared = Arc::clone(&self.shared);
        let memory = shared.memory.wait().await;
        let key = MemoryKey::of(&self.plan, &loaded, memory.budget.is_of_gpus);
        if self.memory_key.as_ref() != Some(&key) {
            // Before its first load, and after one of its files was replaced.
            self.measured_memory = memory.learned.bytes(&key);
            self.memory_key = Some(key);
        }
        self.metrics.set_need(self.need());
        let reservation = memory.scheduler.reserve(self.memory_request()).await.map_err(StartFailure::CrowdedOut)?;
        // The prefetch comes after the reservation, because it fills memory (the page cache) with the model.
        let Some(file) = file.filter(|_| self.plan.engine.prefetch) else { return Ok((reservation, None)) };
        let begun = Instant::now();
        let outcome = prefetch(&self.plan.model, &file, self.plan.engine.load_timeout.0).await;
        Ok((reservation, (outcome != PrefetchOutcome::TooLarge).then(|| begun.elapsed())))
    }

    /// Returns the request for memory of this worker.
    pub(super) fn memory_request(&self) -> MemoryRequest {
        MemoryRequest {
            model: self.plan.model.clone(),
            need: self.need(),
            is_preloaded: self.plan.preload,
            demand: Arc::clone(self.demand.shared()),
        }
    }

    /// Returns the bytes that this worker counts for in the memory that all models share.
    pub(super) fn need(&self) -> u64 {
        let ngl = self.plan.engine.ngl;
        match (&self.plan.program, self.plan.need) {
            // Without layers on the GPU it takes none of the GPU memory that the budget is about.
            (Program::LlamaServer { .. }, _) if self.memory_budget().is_of_gpus && ngl == GpuLayers::Count(0) => 0,
            (_, Need::Configured(bytes)) => bytes,
            (_, Need::Estimated(bytes)) => self.measured_memory.unwrap_or(bytes),
        }
    }

    fn memory_budget(&self) -> MemoryBudget {
        self.shared.memory.get().map_or(MemoryBudget::unlimited(), |memory| memory.budget)
    }

    /// Measures how much memory this process uses, where the configuration does not say how much it needs. `before` is
    /// an earlier measurement of the same process, in bytes; the larger of the two counts. From now on the process counts
    /// for so much.
    pub(super) async fn measure_memory(&mut self, pid: i32, before: Option<u64>, reservation: &Reservation) {
        let budget = self.memory_budget();
        if budget.bytes.is_none() || !matches!(self.plan.need, Need::Estimated(_)) {
            return;
        }
        let Some(used) = budget.used_by(pid).await.max(before) else { return };
        if self.need() == 0 && matches!(self.plan.program, Program::Command { .. }) {
            warn!(
                model = self.plan.model,
                bytes = used,
                "its memory was not known before this load and counted as 0: set `memory`"
            );
        }
        self.measured_memory = Some(used);
        reservation.set_need(self.need());
        self.metrics.set_need(self.need());
        if let (Some(memory), Some(key)) = (self.shared.memory.get(), &self.memory_key) {
            memory.learned.record(key, &self.plan.model, used);
        }
    }

    /// Checks that the model file and all its parts can still be read and are GGUF files, and returns the present states of
    /// it and of what is loaded with it. They may have changed since the service started, as may the other files of the
    /// worker: from now on it serves those that are there.
    ///
    /// # Errors
    ///
    /// The files are unusable, reading them takes longer than `LOAD_TIMEOUT`, or this machine is short of something.
    async fn check_files(&mut self, file: Option<PathBuf>) -> Result<LoadedFiles, StartFailure> {
        let (found, longest) = (self.plan.files.clone(), self.plan.engine.load_timeout.0);
        let beside: Vec<PathBuf> = self.plan.files_beside().map(Path::to_owned).collect();
        let read = move || {
            let model = file.map(|file| -> Result<_, models::ModelError> {
                let size = models::check_readable(&file)?.size_bytes;
                let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
                Ok(FileState { size, modified })
            });
            let beside = beside.iter().map(|path| FileState::of(path)).collect();
            Ok((LoadedFiles { model: model.transpose()?, beside }, found.again()))
        };
        match self.file_check.run(read, longest).await {
            Ok(Ok((loaded, files))) => {
                self.status.send_modify(|status| status.files = files.digest());
                Ok(loaded)
            }
            Ok(Err(problem)) => {
                if let Some(code) = problem.io().and_then(|error| shortage(error)) {
                    return Err(StartFailure::Shortage(code.into()));
                }
                // The log gets the path. The diagnosis leaves it out, because clients may see it.
                info!(model = self.plan.model, "{problem}");
                Err(StartFailure::Failed(unfit_file(&problem)))
            }
            Err(NoOutcome::Late) => Err(StartFailure::Failed(unread_file(longest))),
            Err(NoOutcome::Interrupted) => {
                Err(StartFailure::Shortage(io::Error::other("the check of the model file was interrupted")))
            }
        }
    }
}
