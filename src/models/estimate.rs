//! How much memory a model needs while llama-server serves it, told from its GGUF before it has been loaded once.
//!
//! A guess to begin with: what a load has really taken counts from then on, and that is the worker's side. The numbers of
//! a header are not trusted, so nothing here overflows.

use super::gguf::{MAX_LAYERS, Metadata, PerLayer};
use super::kind::is_encoder;

/// Bytes of one number in the cache of keys and values, which llama-server keeps as f16.
const CACHED_NUMBER: u64 = 2;
/// Least memory for computations and for the program itself.
const LEAST_COMPUTE: u64 = 64 << 20;
/// Larger models need more of that: one part in so many of the weights.
const COMPUTE_PART: u64 = 16;
/// Tokens that llama-server computes at once, unless a model takes a whole slot at once.
const BATCH: u64 = 512;
/// Bytes for one token and one column of the model's width, over all that is kept of a batch at the same time.
const ACTIVATION: u64 = 16 * 4;

/// Bytes that a model needs with so many tokens of context over all slots. `file_bytes` is the size of all its files.
///
/// The weights, as large as the files or their tensors. The cache of keys and values: for each layer and token those of
/// all key and value heads; encoders keep none. Room for computations, by a rule of thumb: 64 MiB or a sixteenth of the
/// weights, and what a batch takes.
#[must_use]
pub fn estimate(metadata: &Metadata, file_bytes: u64, ctx_total: u64, slots: u64) -> u64 {
    let weights = file_bytes.max(metadata.tensor_bytes);
    let is_encoder = is_encoder(metadata);
    let cache = if is_encoder { 0 } else { ctx_total.saturating_mul(cached_per_token(metadata)) };
    // An encoder takes a text as a whole, so its batch is as long as a slot.
    let batch = if is_encoder { ctx_total / slots.max(1) } else { BATCH.min(ctx_total) };
    let width = metadata.embedding_length.unwrap_or(0);
    let activations = width.saturating_mul(batch).saturating_mul(ACTIVATION);
    let compute = LEAST_COMPUTE.max(weights / COMPUTE_PART).saturating_add(activations);
    weights.saturating_add(cache).saturating_add(compute)
}

/// Bytes that one token takes in the cache, over all layers.
fn cached_per_token(metadata: &Metadata) -> u64 {
    let layers = metadata.block_count.unwrap_or(0);
    let Some(heads) = metadata.head_count_kv.as_ref().or(metadata.head_count.as_ref()) else { return 0 };
    let heads = match heads {
        PerLayer::Same(heads) => heads.saturating_mul(layers),
        each @ PerLayer::Each(_) => {
            (0..layers.min(MAX_LAYERS)).fold(0, |sum: u64, layer| sum.saturating_add(each.at(layer as usize)))
        }
    };
    let lengths = [metadata.key_length, metadata.value_length].map(|length| length.unwrap_or_else(|| usual(metadata)));
    heads.saturating_mul(lengths[0].saturating_add(lengths[1])).saturating_mul(CACHED_NUMBER)
}

/// The length of a key or value where the file does not say it.
fn usual(metadata: &Metadata) -> u64 {
    let heads = match &metadata.head_count {
        Some(PerLayer::Same(heads)) => *heads,
        // Layers without attention have none.
        Some(PerLayer::Each(heads)) => heads.iter().copied().max().unwrap_or(0),
        None => 0,
    };
    metadata.embedding_length.unwrap_or(0).checked_div(heads).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    /// SmolLM2-135M-Instruct.
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
    fn the_cache_is_what_llama_server_says() {
        let of = |metadata: &Metadata| estimate(metadata, 0, 4096, 2) - estimate(metadata, 0, 2048, 2);
        assert_eq!(of(&small()), 45 * MIB);
        let said = Metadata { key_length: Some(64), value_length: Some(64), ..small() };
        assert_eq!(of(&said), 45 * MIB);
        let longer = Metadata { key_length: Some(128), value_length: Some(64), ..small() };
        assert_eq!(of(&longer), 45 * MIB * 3 / 2);
        let none_said = Metadata { head_count_kv: None, ..small() };
        assert_eq!(of(&none_said), 3 * 45 * MIB);
        // Every second layer has attention.
        let hybrid = Metadata { head_count_kv: Some(PerLayer::Each([3, 0].repeat(15))), ..small() };
        assert_eq!(of(&hybrid), 45 * MIB / 2);
    }

    #[test]
    fn encoders_keep_nothing_and_compute_a_slot_at_once() {
        let encoder = Metadata { architecture: "bert".to_owned(), ..small() };
        assert_eq!(estimate(&encoder, 0, 8192, 8), 64 * MIB + 576 * 1024 * ACTIVATION);
        let causal_off = Metadata { causal: Some(false), ..small() };
        assert_eq!(estimate(&causal_off, 0, 8192, 8), estimate(&encoder, 0, 8192, 8));
    }

    #[test]
    fn a_file_that_says_little_still_weighs_what_it_weighs() {
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
            let need = estimate(&metadata, bytes, context, slots);
            prop_assert!(need >= bytes);
            prop_assert!(estimate(&metadata, bytes.saturating_add(more_bytes), context, slots) >= need);
            prop_assert!(estimate(&metadata, bytes, context.saturating_add(more_context), slots) >= need);
        }
    }
}
