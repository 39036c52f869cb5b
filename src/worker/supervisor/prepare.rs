//! What comes before a process: what the one before has left goes, the model file is looked at, and read once where
//! that is wanted.

use super::owner::{Owner, StartFailure};
use crate::models;
use crate::settings::values::GpuLayers;
use crate::worker::diagnosis::model::{unfit_file, unread_file};
use crate::worker::local_errors::shortage;
use crate::worker::memory::budget::MemoryBudget;
use crate::worker::memory::ledger::MemoryRequest;
use crate::worker::memory::prefetch::{PrefetchOutcome, prefetch};
use crate::worker::memory::reservation::Reservation;
use crate::worker::plan::Need;
use crate::worker::plan::Program;
use crate::worker::process::blocking::NoOutcome;
use crate::worker::process::leftovers;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

impl Owner {
    /// Makes sure that a start can succeed, as far as that is known before, and waits for room in memory. How long reading
    /// the model took, if it was read. May be cancelled.
    pub(super) async fn prepare(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(Reservation, Option<Duration>), StartFailure> {
        leftovers::clear_earlier(stop).await;
        if let Some(release) = &mut self.release {
            let _ = release.await;
            self.release = None;
        }
        let file = match &self.plan.program {
            Program::LlamaServer { file, .. } => Some(file.clone()),
            Program::Command { .. } => None,
        };
        if let Some(file) = &file {
            self.check_file(file).await?;
        }
        self.board.set_need(self.need());
        let room = self
            .shared
            .memory
            .wait()
            .await
            .residents
            .reserve(self.memory_request())
            .await
            .map_err(StartFailure::CrowdedOut)?;
        let Some(file) = file.filter(|_| self.plan.engine.prefetch) else { return Ok((room, None)) };
        let begun = Instant::now();
        let outcome = prefetch(&self.plan.model, &file, self.plan.engine.load_timeout.0).await;
        Ok((room, (outcome != PrefetchOutcome::TooLarge).then(|| begun.elapsed())))
    }

    /// Who asks for room.
    pub(super) fn memory_request(&self) -> MemoryRequest {
        MemoryRequest {
            model: self.plan.model.clone(),
            need: self.need(),
            is_pinned: self.plan.pinned,
            is_preloaded: self.plan.preload,
            demand: Arc::clone(self.demand.shared()),
        }
    }

    /// Bytes of the memory that all models share.
    pub(super) fn need(&self) -> u64 {
        let ngl = self.plan.engine.ngl;
        match (&self.plan.program, self.plan.need) {
            (Program::LlamaServer { .. }, _) if self.allowance().is_of_gpus && ngl == GpuLayers::Count(0) => 0,
            (_, Need::Configured(bytes)) => bytes,
            (_, Need::Estimated(bytes)) => self.learned.unwrap_or(bytes),
        }
    }

    fn allowance(&self) -> MemoryBudget {
        self.shared.memory.get().map_or(MemoryBudget::unlimited(), |memory| memory.allowance)
    }

    /// Remembers how much memory this process takes, where nobody has said how much it needs. What it has taken in the
    /// same life before counts too.
    pub(super) async fn learn(&mut self, pid: i32, before: Option<u64>) {
        let allowance = self.allowance();
        if allowance.bytes.is_some() && matches!(self.plan.need, Need::Estimated(_)) {
            let taken = allowance.used_by(pid).await;
            self.learned = taken.max(before).or(self.learned);
            self.board.set_need(self.need());
        }
    }

    /// Whether the model file can still be read and is what it says, with all its parts; it may have changed since the
    /// service started.
    async fn check_file(&mut self, file: &Path) -> Result<(), StartFailure> {
        let (file, longest) = (file.to_owned(), self.plan.engine.load_timeout.0);
        let checking = self.file_check.run(move || models::check_readable(&file).map(drop), longest);
        match checking.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => {
                if let Some(code) = problem.io().and_then(|error| shortage(error)) {
                    return Err(StartFailure::Short(code.into()));
                }
                // With its path, which the diagnosis leaves out.
                info!(model = self.plan.model, "{problem}");
                Err(StartFailure::Hopeless(unfit_file(&problem)))
            }
            Err(NoOutcome::Late) => Err(StartFailure::Hopeless(unread_file(longest))),
            Err(NoOutcome::Interrupted) => {
                Err(StartFailure::Short(io::Error::other("the check of the model file was interrupted")))
            }
        }
    }
}
