//! Bounds on what is read.

/// Most bytes of the file of a head. The largest of BGE-M3, whose vectors have 1,024 numbers, has 4 MiB with 32 bits a
/// weight; this holds that of a model with four times as many.
pub(super) const HEAD_FILE_BYTES: u64 = 80 * 1024 * 1024;
