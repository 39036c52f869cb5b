//! The NVIDIA GPUs: how much memory there is, and how much processes use. NVML is the driver's library, which is loaded
//! at run time. Without it, or built without the feature `nvml`, no GPU is seen.

#[cfg(feature = "nvml")]
pub(super) use driver::{Gpus, capacity, free, used_by};
#[cfg(not(feature = "nvml"))]
pub(super) use nothing::{Gpus, capacity, free, used_by};

/// How all GPUs are used at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes in use, over all GPUs.
    pub(super) used: u64,
    /// Whether the driver still lists one of the processes.
    pub(super) is_listed: bool,
}

#[cfg(feature = "nvml")]
mod driver {
    use nvml_wrapper::Nvml;
    use nvml_wrapper::enums::device::UsedGpuMemory;
    use nvml_wrapper::error::NvmlError;

    use super::Sample;

    /// The NVIDIA GPUs, through NVML, which is opened by the first sample and closed on drop.
    #[derive(Default)]
    pub(in super::super) struct Gpus(Option<Nvml>);

    impl Gpus {
        /// Takes a sample; `None` without NVML. May block.
        pub(in super::super) fn sample(&mut self, pids: &[i32]) -> Option<Sample> {
            if self.0.is_none() {
                self.0 = Nvml::init().ok();
            }
            usage(self.0.as_ref()?, pids).ok()
        }
    }

    /// Returns the memory of all GPUs in bytes, or `None` without NVML. May block.
    pub(in super::super) fn capacity() -> Option<u64> {
        let nvml = Nvml::init().ok()?;
        let of_device = |index| nvml.device_by_index(index)?.memory_info().map(|memory| memory.total);
        let totals: Result<Vec<u64>, NvmlError> = (0..nvml.device_count().ok()?).map(of_device).collect();
        totals.ok().map(|totals| totals.into_iter().fold(0, u64::saturating_add))
    }

    /// Returns the free memory of all GPUs in bytes, or `None` without NVML. May block.
    pub(in super::super) fn free() -> Option<u64> {
        let nvml = Nvml::init().ok()?;
        let of_device = |index| nvml.device_by_index(index)?.memory_info().map(|memory| memory.free);
        let free: Result<Vec<u64>, NvmlError> = (0..nvml.device_count().ok()?).map(of_device).collect();
        free.ok().filter(|free| !free.is_empty()).map(|free| free.into_iter().fold(0, u64::saturating_add))
    }

    /// Returns the bytes that these processes use on all GPUs, or `None` if the driver does not report them. May block.
    pub(in super::super) fn used_by(pids: &[i32]) -> Option<u64> {
        let nvml = Nvml::init().ok()?;
        let mut used: Option<u64> = None;
        for index in 0..nvml.device_count().ok()? {
            for process in nvml.device_by_index(index).ok()?.running_compute_processes().ok()? {
                let is_member = i32::try_from(process.pid).is_ok_and(|pid| pids.contains(&pid));
                // NVML may list a process without its memory, for instance in a container.
                if let (true, UsedGpuMemory::Used(bytes)) = (is_member, process.used_gpu_memory) {
                    used = Some(used.unwrap_or(0).saturating_add(bytes));
                }
            }
        }
        used
    }

    fn usage(nvml: &Nvml, pids: &[i32]) -> Result<Sample, NvmlError> {
        let mut sample = Sample { used: 0, is_listed: false };
        for index in 0..nvml.device_count()? {
            let device = nvml.device_by_index(index)?;
            sample.used = sample.used.saturating_add(device.memory_info()?.used);
            // A driver too old to list processes still reports the memory in use.
            let compute = device.running_compute_processes().unwrap_or_default();
            let graphics = device.running_graphics_processes().unwrap_or_default();
            let mut users = compute.iter().chain(&graphics).filter_map(|process| i32::try_from(process.pid).ok());
            sample.is_listed |= users.any(|pid| pids.contains(&pid));
        }
        Ok(sample)
    }
}

#[cfg(not(feature = "nvml"))]
mod nothing {
    use super::Sample;

    /// No GPUs.
    #[derive(Default)]
    pub(in super::super) struct Gpus;

    impl Gpus {
        /// Takes no sample.
        pub(in super::super) fn sample(&mut self, _pids: &[i32]) -> Option<Sample> {
            None
        }
    }

    /// Returns `None`: no GPU is seen.
    pub(in super::super) fn capacity() -> Option<u64> {
        None
    }

    /// Returns `None`: no GPU is seen.
    pub(in super::super) fn free() -> Option<u64> {
        None
    }

    /// Returns `None`: no GPU is seen.
    pub(in super::super) fn used_by(_pids: &[i32]) -> Option<u64> {
        None
    }
}
