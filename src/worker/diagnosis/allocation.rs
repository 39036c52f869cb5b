//! Failed allocations, on the GPU or on the host: their purpose, their size, and which setting to lower.

use super::cause::{Diagnosis, FailureCause};
use super::log::{LogLine, WorkerLog, number_after, plain_word};
use super::machine::lost_gpu;

const MIB: f64 = 1024.0 * 1024.0;

/// The purpose of an allocation; it decides which setting helps most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemoryUse {
    Weights,
    KvCache,
    Compute,
    Any,
}

impl MemoryUse {
    fn of(text: &str) -> Option<Self> {
        if text.contains("for kv cache") || text.contains("for self-attention cache") {
            Some(Self::KvCache)
        } else if text.contains("compute buffers") || text.contains("compute pp buffers") {
            Some(Self::Compute)
        } else if text.contains("error loading model: unable to allocate") {
            Some(Self::Weights)
        } else {
            None
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Weights => Some("the model"),
            Self::KvCache => Some("the KV cache"),
            Self::Compute => Some("computing"),
            Self::Any => None,
        }
    }
}

/// Where the memory was to be allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AllocationPlace {
    Gpu,
    Host,
}

/// An allocation that failed.
struct FailedAllocation {
    place: AllocationPlace,
    /// The number of the GPU.
    device: Option<u32>,
    /// Its size in MiB.
    mib: Option<f64>,
    purpose: MemoryUse,
}

impl FailedAllocation {
    /// Returns the last failed allocation of the log. One failure often takes several lines, each with another detail.
    fn of(log: &WorkerLog) -> Option<Self> {
        let mut failed: Option<Self> = None;
        for line in log.recent() {
            let text = line.text;
            if let Some(found) = Self::parse_line(line) {
                // Later lines about the same failure repeat it with fewer details: keep those of the earlier ones.
                let before = failed.take();
                let same_place = before.filter(|before| before.place == found.place);
                let (device, mib, purpose) = same_place
                    .map_or((None, None, MemoryUse::Any), |before| (before.device, before.mib, before.purpose));
                failed = Some(Self {
                    device: found.device.or(device),
                    mib: found.mib.or(mib),
                    purpose: if found.purpose == MemoryUse::Any { purpose } else { found.purpose },
                    place: found.place,
                });
            } else if let (Some(failed), Some(purpose)) = (failed.as_mut(), MemoryUse::of(text)) {
                failed.purpose = purpose;
            }
        }
        failed
    }

    fn parse_line(line: &LogLine) -> Option<Self> {
        let text = line.text;
        let purpose = MemoryUse::of(text).unwrap_or(MemoryUse::Any);
        let gpu = |device, mib| Some(Self { place: AllocationPlace::Gpu, device, mib, purpose });
        let host = |mib| Some(Self { place: AllocationPlace::Host, device: None, mib, purpose });
        if text.contains("cudaMalloc failed") {
            let device = text.split_once("on device ").and_then(|(_, rest)| plain_word(rest)?.parse().ok());
            return gpu(device, number_after(text, "allocating "));
        }
        if text.contains("Device memory allocation of size") {
            return gpu(None, number_after(text, "of size ").map(|bytes| bytes / MIB));
        }
        if ["ErrorOutOfDeviceMemory", "CUDA error: out of memory", "ROCm error: out of memory", "_STATUS_ALLOC_FAILED"]
            .iter()
            .any(|words| text.contains(words))
        {
            return gpu(None, None);
        }
        if text.contains("insufficient memory (attempted to allocate") {
            return host(number_after(text, "attempted to allocate"));
        }
        if text.contains("std::bad_alloc")
            || text.contains("GGML_ASSERT(ctx->mem_buffer != NULL)")
            || text.contains("mmap failed: Cannot allocate memory")
        {
            return host(None);
        }
        let named = ["failed to allocate ", "unable to allocate "].iter().find_map(|words| text.split_once(words))?.1;
        let name = plain_word(named)?;
        let rest = &named[name.len()..];
        if rest != " buffer" && !rest.starts_with(" buffer ") {
            return None;
        }
        let mib = number_after(named, "buffer of size ").map(|bytes| bytes / MIB);
        // ggml's backends name their pinned host buffers `CUDA_Host`, `Vulkan_Host` and so on.
        if name.starts_with("CPU") || name.ends_with("_Host") { host(mib) } else { gpu(None, mib) }
    }
}

/// Returns an out-of-memory diagnosis if the log contains a failed allocation.
pub(super) fn shortage(log: &WorkerLog) -> Option<Diagnosis> {
    let failed = FailedAllocation::of(log)?;
    let mut numbers = Vec::new();
    if let Some(mib) = failed.mib {
        let device = failed.device.map(|device| format!(" on device {device}")).unwrap_or_default();
        let purpose = failed.purpose.name().map(|purpose| format!(" for {purpose}")).unwrap_or_default();
        numbers.push(format!("needed {mib:.2} MiB{device}{purpose}"));
    }
    match failed.place {
        AllocationPlace::Gpu => {
            let advice = match failed.purpose {
                MemoryUse::Any => "lower NGL, CTX or PARALLEL, or take a smaller quantisation",
                MemoryUse::Weights => "lower NGL or take a smaller quantisation, then lower CTX",
                MemoryUse::KvCache => "lower CTX or PARALLEL, then NGL, or take a smaller quantisation",
                MemoryUse::Compute => "lower CTX, or -ub in EXTRA_ARGS, then NGL, or take a smaller quantisation",
            };
            numbers.extend(free_memory(log, failed.device));
            numbers.extend(allocated(log, " model buffer size", "the model took"));
            numbers.extend(allocated(log, " KV buffer size", "the KV cache took"));
            Some(out_of_memory(FailureCause::OutOfGpuMemory, "out of GPU memory", advice, &numbers))
        }
        AllocationPlace::Host => {
            let advice = match failed.purpose {
                MemoryUse::Any | MemoryUse::Weights => {
                    "raise the memory limit, lower CTX, or take a smaller quantisation"
                }
                MemoryUse::KvCache => "lower CTX or PARALLEL, or raise the memory limit",
                MemoryUse::Compute => "lower CTX, or -ub in EXTRA_ARGS, or raise the memory limit",
            };
            numbers.extend(lost_gpu(log).map(str::to_owned));
            Some(out_of_memory(FailureCause::OutOfHostMemory, "out of host memory", advice, &numbers))
        }
    }
}

fn out_of_memory(cause: FailureCause, what: &str, advice: &str, numbers: &[String]) -> Diagnosis {
    let numbers = if numbers.is_empty() { String::new() } else { format!(" ({})", numbers.join(", ")) };
    Diagnosis::new(cause, format!("{what}: {advice}{numbers}"))
}

/// Returns how much GPU memory was free before the load, if the log says so.
fn free_memory(log: &WorkerLog, device: Option<u32>) -> Option<String> {
    if let Some(text) = log.load().rev().find(|text| text.contains("MiB of free device memory")) {
        let free = number_after(text, "device memory vs.")?;
        let needed = number_after(text, "projected to use")?;
        return Some(format!("{needed} MiB in all were projected and {free} MiB were free"));
    }
    let mut found = log.load().filter(|text| text.contains("using device ") && text.ends_with(" MiB free"));
    let text = found.find(|text| {
        let name = text.split_once("using device ").and_then(|(_, rest)| plain_word(rest)).unwrap_or_default();
        let number = name.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse();
        device.is_none_or(|device| number == Ok(device))
    })?;
    let free: u64 = text.strip_suffix(" MiB free")?.rsplit(' ').next()?.parse().ok()?;
    Some(format!("{free} MiB were free before"))
}

/// Returns how much memory all GPUs have allocated for one purpose, if the log says so.
fn allocated(log: &WorkerLog, words: &str, meaning: &str) -> Option<String> {
    let sizes = log.load().filter(|text| !text.contains("CPU") && !text.contains("_Host"));
    let sum: f64 = sizes.filter_map(|text| number_after(text, words)).sum();
    (sum > 0.0).then(|| format!("{meaning} {sum:.2} MiB"))
}
