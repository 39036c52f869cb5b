//! What comes before a process: the model file is looked at, and read once where that is wanted.

use super::super::aside::NoOutcome;
use super::super::prefetch::{Outcome, prefetch};
use super::super::shortage::shortage;
use super::Owner;
use crate::models::{self, ModelError};
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use tracing::error;

impl Owner {
    /// Makes sure that a start can succeed as far as the model file is concerned. How long reading it took, if it was
    /// read. May be cancelled.
    pub(super) async fn prepare(&mut self) -> io::Result<Option<Duration>> {
        self.file_is_good().await?;
        if !self.plan.engine.prefetch {
            return Ok(None);
        }
        let begun = Instant::now();
        let outcome = prefetch(&self.plan.model, &self.plan.file, self.plan.engine.load_timeout.0).await;
        Ok((outcome != Outcome::TooLarge).then(|| begun.elapsed()))
    }

    /// Whether the model file can still be read and is what it says, with all its parts; it may have changed since the
    /// service started. The error says what to do and names no path.
    async fn file_is_good(&mut self) -> io::Result<()> {
        let (file, longest) = (self.plan.file.clone(), self.plan.engine.load_timeout.0);
        let checking = self.file_check.outcome(move || models::check_readable(&file).map(drop), longest);
        match checking.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => {
                if let Some(code) = problem.io().and_then(|error| shortage(error)) {
                    return Err(io::Error::from(code));
                }
                error!(model = self.plan.model, %problem, "llama-server is not started");
                Err(io::Error::other(problem.sentence()))
            }
            Err(NoOutcome::Late) => Err(io::Error::other(format!(
                "the model file could not be read for {} s; check that the disk or volume is mounted and answers",
                longest.as_secs()
            ))),
            Err(NoOutcome::Interrupted) => Err(io::Error::other("the check of the model file was interrupted")),
        }
    }
}

/// The outcome of a check of the model file.
pub(super) type FileCheck = Result<(), ModelError>;
