//! Estimates how much memory a model will need, from its GGUF metadata, before its first load.
//!
//! After a load, the memory that it really took is used instead; `worker/memory` does that. The numbers of a header are
//! not trusted, so all arithmetic saturates.
//!
//! - `buffers.rs`: what llama-server allocates
//! - `cache.rs`: what a model keeps of the tokens that it has seen
//! - `compute.rs`: the buffers that it computes in
//! - `demand.rs`: what a model is to be loaded for
//! - `fit.rs`: whether a model fits, and what of it does
//! - `requantized.rs`: what another quantisation of a model says, by the sizes of the files

mod buffers;
mod cache;
mod compute;
mod demand;
mod fit;
mod requantized;

use super::gguf::Metadata;
use super::kind::is_encoder;

pub use buffers::MemoryEstimate;
pub use demand::{CacheType, MemoryDemand, MemoryOptions};
pub use fit::{FitReport, MemoryLimit};
pub use requantized::requantized;

/// Least memory that is planned for compute buffers and for the program itself, in bytes.
const MIN_COMPUTE_BYTES: u64 = 64 << 20;
/// Larger models need larger compute buffers: the weights divided by this.
const WEIGHTS_PER_COMPUTE: u64 = 16;
/// Tokens that llama-server computes at once, except for encoders.
const BATCH_TOKENS: u64 = 512;
/// Bytes of activations for one token and one column of the model's width: about 16 f32 buffers at the same time.
const ACTIVATION_BYTES: u64 = 16 * 4;
/// Estimates the memory in bytes to plan for a model with `ctx_total` tokens of context over all `slots`, if no argument of
/// llama-server changes it. `file_bytes` is the size of all its files.
#[must_use]
pub fn estimate(metadata: &Metadata, file_bytes: u64, ctx_total: u64, slots: u64) -> u64 {
    planned_bytes(metadata, file_bytes, &MemoryDemand { ctx_total, slots, options: MemoryOptions::default() })
}

/// Estimates the memory in bytes to plan for a model. `file_bytes` is the size of all its files.
///
/// The sum of [`MemoryEstimate`], with the whole files as weights, and for computing at least what a rule of thumb says: 64
/// MiB or a sixteenth of the weights, and the activations of a batch. That leaves room for the program itself, for drivers, and
/// for versions of llama-server that need more.
#[must_use]
pub fn planned_bytes(metadata: &Metadata, file_bytes: u64, demand: &MemoryDemand) -> u64 {
    let buffers = MemoryEstimate::of(metadata, file_bytes, demand);
    let weights = file_bytes.max(metadata.tensor_bytes);
    let batch = if is_encoder(metadata) { demand.context_of_slot() } else { BATCH_TOKENS.min(demand.ctx_total) };
    let activations = metadata.embedding_length.unwrap_or(0).saturating_mul(batch).saturating_mul(ACTIVATION_BYTES);
    let rule = MIN_COMPUTE_BYTES.max(weights / WEIGHTS_PER_COMPUTE).saturating_add(activations);
    let compute = rule.max(buffers.compute.saturating_add(buffers.output));
    weights.saturating_add(buffers.cache).saturating_add(compute)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::models::gguf::{ModelShape, PerLayer};

    const MIB: u64 = 1 << 20;

    /// The dimensions of SmolLM2-135M-Instruct.
    fn small() -> Metadata {
        Metadata {
            architecture: "llama".to_owned(),
            block_count: Some(30),
            embedding_length: Some(576),
            head_count: Some(PerLayer::Same(9)),
            head_count_kv: Some(PerLayer::Same(3)),
            ..Metadata::default()
        }
    }

    #[test]
    fn the_kv_cache_is_as_large_as_llama_server_logs() {
        let kv_bytes = |metadata: &Metadata| estimate(metadata, 0, 4096, 2) - estimate(metadata, 0, 2048, 2);
        assert_eq!(kv_bytes(&small()), 45 * MIB);
        let explicit = Metadata { key_length: Some(64), value_length: Some(64), ..small() };
        assert_eq!(kv_bytes(&explicit), 45 * MIB);
        let longer = Metadata { key_length: Some(128), value_length: Some(64), ..small() };
        assert_eq!(kv_bytes(&longer), 45 * MIB * 3 / 2);
        let without_kv_heads = Metadata { head_count_kv: None, ..small() };
        assert_eq!(kv_bytes(&without_kv_heads), 3 * 45 * MIB);
        // Every second layer has attention.
        let hybrid = Metadata { head_count_kv: Some(PerLayer::Each([3, 0].repeat(15))), ..small() };
        assert_eq!(kv_bytes(&hybrid), 45 * MIB / 2);
    }

    #[test]
    fn encoders_have_no_kv_cache_and_compute_a_whole_slot_at_once() {
        let encoder = Metadata { architecture: "bert".to_owned(), ..small() };
        assert_eq!(estimate(&encoder, 0, 8192, 8), 64 * MIB + 576 * 1024 * ACTIVATION_BYTES);
        let causal_off = Metadata { causal: Some(false), ..small() };
        assert_eq!(estimate(&causal_off, 0, 8192, 8), estimate(&encoder, 0, 8192, 8));
    }

    #[test]
    fn layers_with_a_window_or_a_state_keep_less() {
        let demand = MemoryDemand { ctx_total: 8192, slots: 2, options: MemoryOptions::default() };
        let cache = |metadata: &Metadata, demand: &MemoryDemand| MemoryEstimate::of(metadata, 0, demand).cache;
        let full = cache(&small(), &demand);
        // Five of six layers keep 512 tokens and a batch for each slot.
        let shape = ModelShape { sliding_window: Some(512), ..ModelShape::default() };
        let sliding = Metadata { architecture: "gemma3".to_owned(), shape, ..small() };
        assert_eq!(cache(&sliding, &demand), full / 6 + full / 6 * 5 / 4);
        let whole = MemoryOptions { keeps_whole_window: true, ..MemoryOptions::default() };
        assert_eq!(cache(&sliding, &MemoryDemand { options: whole, ..demand }), full);
        let unknown = Metadata { architecture: "phi3".to_owned(), ..sliding };
        assert_eq!(cache(&unknown, &demand), full, "a layer that is not known to slide counts in full");
        // Three of four layers have a state (Qwen3-Next), which does not grow with the context.
        let shape = ModelShape {
            attention_interval: Some(4),
            convolution: Some(4),
            state_width: Some(1024),
            state_length: Some(128),
            state_groups: Some(16),
            ..ModelShape::default()
        };
        let states = Metadata { block_count: Some(28), shape, ..small() };
        let state = (3 * (1024 + 2 * 16 * 128) + 1024 * 128) * 4;
        assert_eq!(cache(&states, &demand), full / 30 * 7 + 21 * 2 * state);
    }

    #[test]
    fn without_metadata_the_estimate_follows_from_the_size_of_the_files() {
        assert_eq!(estimate(&Metadata::default(), 100 * MIB, 4096, 1), 164 * MIB);
        assert_eq!(estimate(&Metadata::default(), 16_000 * MIB, 4096, 1), 17_000 * MIB);
        let parts_missing = Metadata { tensor_bytes: 200 * MIB, ..Metadata::default() };
        assert_eq!(estimate(&parts_missing, 100 * MIB, 4096, 1), 264 * MIB);
    }

    fn number() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![Just(None), (0u64..100).prop_map(Some), any::<u64>().prop_map(Some)]
    }

    fn heads() -> impl Strategy<Value = Option<PerLayer>> {
        let each = prop::collection::vec(any::<u64>(), 0..40).prop_map(PerLayer::Each);
        prop::option::of(prop_oneof![any::<u64>().prop_map(PerLayer::Same), each])
    }

    proptest! {
        #[test]
        fn any_header_gives_a_number_and_more_never_needs_less(
            (block_count, embedding_length, key_length, value_length) in (number(), number(), number(), number()),
            (head_count, head_count_kv) in (heads(), heads()),
            (bytes, more_bytes) in (any::<u64>(), any::<u64>()),
            (context, more_context) in (any::<u64>(), any::<u64>()),
            slots in any::<u64>(),
        ) {
            let metadata = Metadata {
                block_count, embedding_length, key_length, value_length, head_count, head_count_kv,
                ..Metadata::default()
            };
            let needed = estimate(&metadata, bytes, context, slots);
            prop_assert!(needed >= bytes);
            prop_assert!(estimate(&metadata, bytes.saturating_add(more_bytes), context, slots) >= needed);
            prop_assert!(estimate(&metadata, bytes, context.saturating_add(more_context), slots) >= needed);
        }
    }
}
