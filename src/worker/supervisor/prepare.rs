//! What comes before a process: what the one before has left goes, the model file is looked at, and read once where
//! that is wanted.

use super::super::aside::NoOutcome;
use super::super::diagnosis;
use super::super::plan::Program;
use super::super::prefetch::{Outcome, prefetch};
use super::super::shortage::shortage;
use super::super::{gpu, leftovers};
use super::{Owner, Unstarted};
use crate::models::{self, ModelError};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The outcome of a check of the model file.
pub(super) type FileCheck = Result<(), ModelError>;

impl Owner {
    /// Makes sure that a start can succeed, as far as that is known before. How long reading the model took, if it was
    /// read. May be cancelled.
    pub(super) async fn prepare(&mut self, stop: &CancellationToken) -> Result<Option<Duration>, Unstarted> {
        leftovers::clear_earlier(stop).await;
        gpu::released(std::mem::take(&mut self.departed), stop).await;
        let Program::LlamaServer { file, .. } = self.plan.program.clone() else { return Ok(None) };
        self.is_good(&file).await?;
        if !self.plan.engine.prefetch {
            return Ok(None);
        }
        let begun = Instant::now();
        let outcome = prefetch(&self.plan.model, &file, self.plan.engine.load_timeout.0).await;
        Ok((outcome != Outcome::TooLarge).then(|| begun.elapsed()))
    }

    /// Whether the model file can still be read and is what it says, with all its parts; it may have changed since the
    /// service started.
    async fn is_good(&mut self, file: &Path) -> Result<(), Unstarted> {
        let (file, longest) = (file.to_owned(), self.plan.engine.load_timeout.0);
        let checking = self.file_check.outcome(move || models::check_readable(&file).map(drop), longest);
        match checking.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => {
                if let Some(code) = problem.io().and_then(|error| shortage(error)) {
                    return Err(Unstarted::Short(code.into()));
                }
                // With its path, which the diagnosis leaves out.
                info!(model = self.plan.model, "{problem}");
                Err(Unstarted::Hopeless(diagnosis::unfit_file(&problem)))
            }
            Err(NoOutcome::Late) => Err(Unstarted::Hopeless(diagnosis::unread_file(longest))),
            Err(NoOutcome::Interrupted) => {
                Err(Unstarted::Short(io::Error::other("the check of the model file was interrupted")))
            }
        }
    }
}
