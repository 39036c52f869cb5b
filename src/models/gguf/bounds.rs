//! Bounds on what is read from a GGUF header.

/// Most bytes read of one file's header. The largest vocabularies in use take about 30 MiB.
pub const MAX_METADATA_BYTES: u64 = 256 << 20;
/// Most keys in one file; real ones have fewer than a hundred.
pub const MAX_KEYS: u64 = 4096;
/// Most tensors in one file; the largest mixtures of experts have some thousands.
pub const MAX_TENSORS: u64 = 65_536;
/// Longest text value that is kept, and longest tensor name, in bytes. Values of other keys are skipped and may be
/// longer.
pub const MAX_STRING: u64 = 64 << 10;
/// Longest key, in bytes.
pub const MAX_KEY: u64 = 1024;
/// Most dimensions of a tensor; ggml has 4.
pub const MAX_DIMS: u32 = 8;
/// Deepest nesting of arrays.
pub const MAX_ARRAY_DEPTH: u32 = 4;
/// Longest per-layer list that is kept; a longer one is skipped.
pub const MAX_LAYERS: u64 = 512;
/// Keys at the beginning of a file among which [`super::peek`] expects what the file says about its content.
pub const PEEKED_KEYS: u64 = 8;
