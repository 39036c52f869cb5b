//! The memory budget of all loaded models, on GPUs or on the host, and how much memory one worker uses.

use tokio::task::spawn_blocking;
use tracing::warn;

use super::nvml;
use crate::os::here;
use crate::os::identity::members_of;
use crate::settings::values::MemoryBudgetSetting;
use crate::worker::bounds::{FOOTPRINT_PATIENCE, MEMORY_LOOK_PATIENCE, MEMORY_RESERVE};

/// The memory that all loaded models together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// In bytes; `None` means unlimited.
    pub bytes: Option<u64>,
    /// Whether it limits the GPUs' memory rather than the host's.
    pub is_of_gpus: bool,
}

impl MemoryBudget {
    /// Returns an unlimited budget.
    pub fn unlimited() -> Self {
        Self { bytes: None, is_of_gpus: false }
    }

    /// Resolves `MEMORY_BUDGET` on this machine: of the GPUs' memory if NVML shows a GPU, otherwise of the host's.
    /// `auto` is the capacity less a reserve, or unlimited if the capacity is unknown or not found in
    /// [`MEMORY_LOOK_PATIENCE`].
    pub async fn find(setting: MemoryBudgetSetting) -> Self {
        // Loading the driver of a GPU may take seconds.
        let finding = tokio::time::timeout(MEMORY_LOOK_PATIENCE, spawn_blocking(move || Self::find_blocking(setting)));
        if let Ok(Ok(found)) = finding.await {
            return found;
        }
        warn!("the amount of memory was not found in time: only a MEMORY_BUDGET in bytes takes effect");
        match setting {
            MemoryBudgetSetting::Auto => Self::unlimited(),
            MemoryBudgetSetting::Bytes(bytes) => Self { bytes: Some(bytes), ..Self::unlimited() },
        }
    }

    /// Blocking variant of [`Self::find`], without a time limit.
    fn find_blocking(setting: MemoryBudgetSetting) -> Self {
        let gpus = nvml::capacity().filter(|bytes| *bytes > 0);
        let auto = || gpus.or_else(here::memory_capacity).map(|bytes| bytes - bytes / MEMORY_RESERVE);
        let bytes = match setting {
            MemoryBudgetSetting::Auto => auto(),
            MemoryBudgetSetting::Bytes(bytes) => Some(bytes),
        };
        Self { bytes, is_of_gpus: gpus.is_some() }
    }

    /// Returns the bytes that the processes of a group use now, on GPUs or on the host as the budget does. `None` if
    /// that is unknown, or not found in [`FOOTPRINT_PATIENCE`].
    pub(crate) async fn used_by(self, group: i32) -> Option<u64> {
        let measuring = spawn_blocking(move || {
            let members = members_of(group).ok()?;
            match self.is_of_gpus {
                true => nvml::used_by(&members),
                // Resident memory includes file pages: a mapped model must stay in memory too.
                false => Some(members.iter().filter_map(|pid| here::resident(*pid)).fold(0, u64::saturating_add)),
            }
        });
        let used = tokio::time::timeout(FOOTPRINT_PATIENCE, measuring).await.ok()?.ok()??;
        (used > 0).then_some(used)
    }
}

/// The memory of this machine that is free now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeMemory {
    /// Of all GPUs; `None` if NVML shows none.
    pub gpu: Option<u64>,
    /// Of the host, or of the tightest control group.
    pub host: Option<u64>,
}

impl FreeMemory {
    /// Measures it. May block: loading the driver of a GPU may take seconds.
    #[must_use]
    pub fn measure() -> Self {
        Self { gpu: nvml::free(), host: here::memory_available() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_in_bytes_is_taken_as_it_is_and_auto_is_the_capacity_less_a_reserve() {
        let fixed = MemoryBudget::find_blocking(MemoryBudgetSetting::Bytes(5));
        assert_eq!(fixed.bytes, Some(5));
        let auto = MemoryBudget::find_blocking(MemoryBudgetSetting::Auto).bytes.unwrap();
        assert!(auto > 1 << 20, "{auto}");
        if !fixed.is_of_gpus {
            assert!(auto < here::memory_capacity().unwrap(), "a reserve is left for other programs");
        }
    }

    #[tokio::test]
    async fn the_memory_of_a_whole_group_is_counted() {
        let own = here::stat(std::process::id() as i32).unwrap().group;
        let host_budget = MemoryBudget::unlimited();
        let before = host_budget.used_by(own).await.unwrap();
        let more = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = host_budget.used_by(own).await.unwrap();
        assert!(after >= before + (more.len() / 2) as u64, "{before} {after}");
        assert_eq!(host_budget.used_by(i32::MAX).await, None);
    }
}
