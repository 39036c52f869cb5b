//! How much memory loaded models may take together, of which kind, and how much one of them has taken.

use super::gpu;
use super::host;
use super::kernel::KernelRoots;
use crate::settings::values::MemoryBudgetSetting;
use crate::worker::bounds::{FOOTPRINT_PATIENCE, MEMORY_LOOK_PATIENCE, MEMORY_RESERVE};
use crate::worker::procfs::{self, ProcStat, resident};
use tokio::task::spawn_blocking;
use tracing::warn;

/// The memory that all loaded models together may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// In bytes; without it there is no bound.
    pub bytes: Option<u64>,
    /// Whether it is the GPUs' memory that counts, and not the host's.
    pub is_of_gpus: bool,
}

impl MemoryBudget {
    /// No bound.
    pub fn unlimited() -> Self {
        Self { bytes: None, is_of_gpus: false }
    }

    /// What a setting means here: of the GPUs' memory where there is a GPU that can be asked, else of the host's. What is
    /// there, less a reserve, bounds `auto`; where that cannot be told, or not in time, nothing does. The driver of a GPU
    /// may take seconds to be loaded.
    pub async fn find(setting: MemoryBudgetSetting) -> Self {
        let looking = tokio::time::timeout(MEMORY_LOOK_PATIENCE, spawn_blocking(move || Self::find_blocking(setting)));
        if let Ok(Ok(found)) = looking.await {
            return found;
        }
        warn!("how much memory there is was not found out in time: only a MEMORY_BUDGET in bytes holds");
        match setting {
            MemoryBudgetSetting::Auto => Self::unlimited(),
            MemoryBudgetSetting::Bytes(bytes) => Self { bytes: Some(bytes), ..Self::unlimited() },
        }
    }

    /// The same. Blocks.
    fn find_blocking(setting: MemoryBudgetSetting) -> Self {
        let gpus = gpu::capacity().filter(|bytes| *bytes > 0);
        let there =
            || gpus.or_else(|| host::capacity(&KernelRoots::here())).map(|bytes| bytes - bytes / MEMORY_RESERVE);
        let bytes = match setting {
            MemoryBudgetSetting::Auto => there(),
            MemoryBudgetSetting::Bytes(bytes) => Some(bytes),
        };
        Self { bytes, is_of_gpus: gpus.is_some() }
    }

    /// How much of it the processes of a group take at present; nothing where that cannot be told, or not in time.
    pub(crate) async fn used_by(self, group: i32) -> Option<u64> {
        let looking = spawn_blocking(move || {
            let is_member = |pid: &i32| ProcStat::of(*pid).is_ok_and(|stat| stat.group == group && !stat.has_ended());
            let members: Vec<i32> = procfs::pids().ok()?.into_iter().filter(is_member).collect();
            match self.is_of_gpus {
                true => gpu::taken_by(&members),
                // Pages of files are among them: a model that is mapped must stay in memory too.
                false => Some(members.iter().filter_map(|pid| resident(*pid)).fold(0, u64::saturating_add)),
            }
        });
        let taken = tokio::time::timeout(FOOTPRINT_PATIENCE, looking).await.ok()?.ok()??;
        (taken > 0).then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_and_else_what_is_there() {
        let said = MemoryBudget::find_blocking(MemoryBudgetSetting::Bytes(5));
        assert_eq!(said.bytes, Some(5));
        let auto = MemoryBudget::find_blocking(MemoryBudgetSetting::Auto).bytes.unwrap();
        assert!(auto > 1 << 20, "{auto}");
        if !said.is_of_gpus {
            assert!(auto < host::capacity(&KernelRoots::here()).unwrap(), "something is left for everything else");
        }
    }

    #[tokio::test]
    async fn the_memory_of_a_whole_group_is_counted() {
        let own = ProcStat::of(std::process::id() as i32).unwrap().group;
        let of_host = MemoryBudget::unlimited();
        let before = of_host.used_by(own).await.unwrap();
        let more = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = of_host.used_by(own).await.unwrap();
        assert!(after >= before + (more.len() / 2) as u64, "{before} {after}");
        assert_eq!(of_host.used_by(i32::MAX).await, None);
    }
}
