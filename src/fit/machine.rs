//! The memory and the settings that models are compared with.

use super::answer::FitAnswer;
use super::known_model::{KnownModel, NoFit};
use crate::models::estimate::{FitReport, MemoryDemand, MemoryLimit, MemoryOptions};
use crate::preflight::{FoundMemory, memory_limit};
use crate::settings::options::Settings;

/// What a model is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitMachine {
    memory: FoundMemory,
    /// Tokens of context of each slot.
    ctx: u64,
    slots: u64,
    options: MemoryOptions,
}

impl FitMachine {
    /// Returns what these settings say, with the memory in bytes that is `given`; else the whole `budget` of a running service,
    /// because the models that are loaded make room; else what is found. May block.
    ///
    /// # Errors
    /// `EXTRA_ARGS` cannot be read, or the memory is neither given nor found.
    pub fn of_settings(settings: &Settings, given: Option<u64>, budget: Option<u64>) -> Result<Self, NoFit> {
        let options = MemoryOptions::of_arguments(&settings.engine.extra_args.words);
        let options = options.map_err(|words| NoFit::Value(format!("EXTRA_ARGS: {words:?} has no meaning")))?;
        let found = memory_limit(given, settings);
        let memory = match budget.filter(|_| given.is_none()) {
            Some(budget) => Some(memory_of_budget(budget, found)),
            None => found,
        };
        let memory = memory.ok_or(NoFit::NoMemory)?;
        let (ctx, slots) = (u64::from(settings.engine.ctx.0), settings.engine.parallel.get() as u64);
        Ok(Self { memory, ctx, slots, options })
    }

    /// Compares models for this many tokens of context of each slot.
    #[must_use]
    pub fn with_ctx(self, ctx: u64) -> Self {
        Self { ctx, ..self }
    }

    /// Returns what of a model fits.
    #[must_use]
    pub fn compare(&self, model: &KnownModel) -> FitAnswer {
        let Self { memory, ctx, slots, options } = *self;
        let demand = MemoryDemand { ctx_total: ctx.saturating_mul(slots), slots, options };
        let report = FitReport::of(&model.metadata, model.size_bytes, model.projector_bytes, &demand, memory.limit);
        FitAnswer { report, memory, ctx, slots, trained: model.metadata.context_length }
    }
}

/// Returns the budget of a service, on the GPU if that is where memory was found.
fn memory_of_budget(budget: u64, found: Option<FoundMemory>) -> FoundMemory {
    let limit = match found.map(|found| found.limit) {
        Some(MemoryLimit::Gpu { host, .. }) => MemoryLimit::Gpu { gpu: budget, host },
        Some(MemoryLimit::Host(_)) | None => MemoryLimit::Host(budget),
    };
    FoundMemory { limit, source: "the memory budget of the service" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: the budget counted only where the free memory could be measured too.
    #[test]
    fn a_budget_needs_no_measured_memory() {
        let on_gpu = FoundMemory { limit: MemoryLimit::Gpu { gpu: 7, host: Some(9) }, source: "free on the GPU" };
        assert_eq!(memory_of_budget(5, Some(on_gpu)).limit, MemoryLimit::Gpu { gpu: 5, host: Some(9) });
        assert_eq!(memory_of_budget(5, None).limit, MemoryLimit::Host(5));
    }
}
