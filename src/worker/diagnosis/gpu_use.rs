//! Whether a llama-server found a GPU, according to the log of its load.

use memchr::memmem;

/// The text with which llama-server says that it ignores `--gpu-layers` (`common/arg.cpp`).
const NONE_FOUND: &[u8] = b"--gpu-layers option will be ignored";

/// How the line about offloaded layers begins, which builds log at different levels: `offloaded 0/33 layers to GPU`.
const NONE_OFFLOADED: &[u8] = b"offloaded 0/";

/// How far into a line a marker is searched for, in bytes.
const LOOKED_AT: usize = 256;

/// The topic of the warning.
pub(crate) const GPU_TOPIC: &str = "gpu";

/// The warning about a model that should have layers on a GPU and has none.
pub(crate) const NO_GPU_WARNING: &str = "no GPU is in use, although NGL asks for one: llama-server found none that it \
    can use, and the CPU computes everything. Give the container the GPU and take a llama-server that is built for it, \
    or set NGL=0";

/// Returns whether a line of the log of a load says that no layer is on a GPU.
pub(crate) fn says_no_gpu(line: &[u8]) -> bool {
    let line = &line[..line.len().min(LOOKED_AT)];
    [NONE_FOUND, NONE_OFFLOADED].iter().any(|words| memmem::find(line, words).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_a_missing_gpu_are_told_from_others() {
        for line in [
            "warning: no usable GPU found, --gpu-layers option will be ignored",
            "0.00.512 I load_tensors: offloaded 0/33 layers to GPU",
            "load_tensors: offloaded 0/3 layers to GPU",
            "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
        ] {
            assert!(says_no_gpu(line.as_bytes()), "{line}");
        }
        for line in [
            "load_tensors: offloaded 33/33 layers to GPU",
            "load_tensors: offloaded 10/33 layers to GPU",
            "warning: no usable GPU found, --gpu-layers-draft option will be ignored",
            "",
        ] {
            assert!(!says_no_gpu(line.as_bytes()), "{line}");
        }
    }
}
