//! The buffers that llama-server allocates for a model, by what they hold.

use serde::Serialize;

use super::cache::{layer_bytes, layer_count};
use super::compute::{compute_bytes, output_bytes};
use super::demand::MemoryDemand;
use crate::models::gguf::Metadata;

/// The share of its file, in per cent, that the known tensors of a whole model have at least.
const WHOLE_TENSORS: u64 = 90;

/// The memory that a model needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MemoryEstimate {
    /// The weights of all layers, the embeddings included.
    pub weights: u64,
    /// Keys and values of all tokens, and the states of layers without attention.
    pub cache: u64,
    /// Buffers for computing.
    pub compute: u64,
    /// The buffer for results.
    pub output: u64,
}

impl MemoryEstimate {
    /// Estimates the buffers that llama-server allocates. `file_bytes` is the size of all files of the model.
    #[must_use]
    pub fn of(metadata: &Metadata, file_bytes: u64, demand: &MemoryDemand) -> Self {
        let layers = 0..layer_count(metadata);
        Self {
            weights: weight_bytes(metadata, file_bytes),
            cache: layers.map(|layer| layer_bytes(metadata, layer, demand)).fold(0, u64::saturating_add),
            compute: compute_bytes(metadata, demand),
            output: output_bytes(metadata, demand),
        }
    }

    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.weights, self.cache, self.compute, self.output].into_iter().fold(0, u64::saturating_add)
    }
}

/// Returns the size of the weights: that of the tensors, if the headers of all parts were read and all types are known,
/// else that of the files.
pub(super) fn weight_bytes(metadata: &Metadata, file_bytes: u64) -> u64 {
    match metadata.tensor_bytes >= file_bytes / 100 * WHOLE_TENSORS {
        true => metadata.tensor_bytes,
        false => file_bytes,
    }
}
