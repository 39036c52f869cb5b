//! Estimates how much memory a model will need, from its GGUF metadata, before its first load.
//!
//! After a load, the memory that it really took is used instead; `worker/memory` does that. The numbers of a header are
//! not trusted, so all arithmetic saturates.

use super::gguf::{MAX_LAYERS, Metadata, PerLayer};
use super::kind::is_encoder;

/// Bytes of one number in the KV cache, which llama-server keeps as f16.
const KV_NUMBER_BYTES: u64 = 2;
/// Least memory for compute buffers and for the program itself, in bytes.
const MIN_COMPUTE_BYTES: u64 = 64 << 20;
/// Larger models need larger compute buffers: the weights divided by this.
const WEIGHTS_PER_COMPUTE: u64 = 16;
/// Tokens that llama-server computes at once (`--ubatch-size`), except for encoders.
const BATCH_TOKENS: u64 = 512;
/// Bytes of activations for one token and one column of the model's width: about 16 f32 buffers at the same time.
const ACTIVATION_BYTES: u64 = 16 * 4;

/// Estimates the memory in bytes that a model needs with `ctx_total` tokens of context over all `slots`. `file_bytes`
/// is the size of all its files.
///
/// The sum of the weights (the size of the files or of their tensors), the KV cache (keys and values of all heads, for
/// each layer and token; encoders have none) and, by a rule of thumb, compute buffers: 64 MiB or a sixteenth of the
/// weights, and the activations of a batch.
#[must_use]
pub fn estimate(metadata: &Metadata, file_bytes: u64, ctx_total: u64, slots: u64) -> u64 {
    let weights = file_bytes.max(metadata.tensor_bytes);
    let is_encoder = is_encoder(metadata);
    let cache = if is_encoder { 0 } else { ctx_total.saturating_mul(kv_bytes_per_token(metadata)) };
    // An encoder needs the whole text at once, so its batch is as long as the context of a slot.
    let batch = if is_encoder { ctx_total / slots.max(1) } else { BATCH_TOKENS.min(ctx_total) };
    let width = metadata.embedding_length.unwrap_or(0);
    let activations = width.saturating_mul(batch).saturating_mul(ACTIVATION_BYTES);
    let compute = MIN_COMPUTE_BYTES.max(weights / WEIGHTS_PER_COMPUTE).saturating_add(activations);
    weights.saturating_add(cache).saturating_add(compute)
}

/// Returns the size of one token in the KV cache in bytes, over all layers.
fn kv_bytes_per_token(metadata: &Metadata) -> u64 {
    let layers = metadata.block_count.unwrap_or(0);
    let Some(heads) = metadata.head_count_kv.as_ref().or(metadata.head_count.as_ref()) else { return 0 };
    let heads = match heads {
        PerLayer::Same(heads) => heads.saturating_mul(layers),
        each @ PerLayer::Each(_) => {
            (0..layers.min(MAX_LAYERS)).fold(0, |sum: u64, layer| sum.saturating_add(each.at(layer as usize)))
        }
    };
    let lengths = [metadata.key_length, metadata.value_length]
        .map(|length| length.unwrap_or_else(|| default_head_length(metadata)));
    heads.saturating_mul(lengths[0].saturating_add(lengths[1])).saturating_mul(KV_NUMBER_BYTES)
}

/// Returns the length of a key or value if the file does not give it, as llama.cpp computes it.
fn default_head_length(metadata: &Metadata) -> u64 {
    let heads = match &metadata.head_count {
        Some(PerLayer::Same(heads)) => *heads,
        // Hybrid models have layers without attention, with a head count of 0.
        Some(PerLayer::Each(heads)) => heads.iter().copied().max().unwrap_or(0),
        None => 0,
    };
    metadata.embedding_length.unwrap_or(0).checked_div(heads).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
