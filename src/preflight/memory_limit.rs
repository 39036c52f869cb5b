//! The memory that a model is compared with before it is loaded.

use crate::models::estimate::MemoryLimit;
use crate::settings::options::Settings;
use crate::settings::values::{GpuLayers, MemoryBudgetSetting};
use crate::worker::FreeMemory;

/// The memory that a model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundMemory {
    /// How much, and where.
    pub limit: MemoryLimit,
    /// What says so, for people.
    pub source: &'static str,
}

/// Returns the memory for a model: what was given in bytes, else what is free on the GPUs, else `MEMORY_BUDGET`, else what is
/// free on the host. `None` if none of them is known. With `NGL=0` the GPUs do not count. May block.
#[must_use]
pub fn memory_limit(given: Option<u64>, settings: &Settings) -> Option<FoundMemory> {
    choose(given, settings.engine.ngl, settings.routing.memory_budget, FreeMemory::measure())
}

fn choose(
    given: Option<u64>,
    ngl: GpuLayers,
    budget: MemoryBudgetSetting,
    FreeMemory { gpu, host }: FreeMemory,
) -> Option<FoundMemory> {
    let is_of_gpu = ngl != GpuLayers::Count(0);
    let given = given.map(|bytes| (bytes, is_of_gpu, "given"));
    let of_gpu = gpu.filter(|_| is_of_gpu).map(|bytes| (bytes, true, "free on the GPU"));
    let budget = match budget {
        MemoryBudgetSetting::Bytes(bytes) => Some((bytes, false, "MEMORY_BUDGET")),
        MemoryBudgetSetting::Auto => None,
    };
    let of_host = host.map(|bytes| (bytes, false, "free on the host"));
    let (bytes, is_of_gpu, source) = given.or(of_gpu).or(budget).or(of_host)?;
    let limit = if is_of_gpu { MemoryLimit::Gpu { gpu: bytes, host } } else { MemoryLimit::Host(bytes) };
    Some(FoundMemory { limit, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_counts_before_what_is_found() {
        let auto = MemoryBudgetSetting::Auto;
        let all = GpuLayers::Count(99);
        let free = FreeMemory { gpu: Some(7), host: Some(9) };
        let found = |given, ngl, budget, free| choose(given, ngl, budget, free).map(|found| found.limit);
        assert_eq!(found(Some(5), all, auto, free), Some(MemoryLimit::Gpu { gpu: 5, host: Some(9) }));
        assert_eq!(found(None, all, auto, free), Some(MemoryLimit::Gpu { gpu: 7, host: Some(9) }));
        assert_eq!(found(None, GpuLayers::Count(0), auto, free), Some(MemoryLimit::Host(9)));
        let without = FreeMemory { gpu: None, host: Some(9) };
        assert_eq!(found(None, all, MemoryBudgetSetting::Bytes(3), without), Some(MemoryLimit::Host(3)));
        assert_eq!(found(None, all, auto, without), Some(MemoryLimit::Host(9)));
        assert_eq!(found(None, all, auto, FreeMemory { gpu: None, host: None }), None);
    }
}
