//! What a model keeps of the tokens that it has seen: keys and values, or the state of layers without attention.
//!
//! Source: `llama_kv_cache`, `llama_kv_cache_iswa` and `llama_memory_recurrent` of llama.cpp.

use super::demand::{MemoryDemand, MemoryOptions};
use crate::models::gguf::{MAX_LAYERS, Metadata, PerLayer};
use crate::models::kind::is_encoder;

/// llama-server rounds the tokens of a cache up to a multiple of this.
const CELL_STEP: u64 = 256;
/// Bytes of one number of a state, which is kept as f32.
const STATE_NUMBER_BYTES: u64 = 4;
/// Architectures with sliding windows, and the length of their pattern, of which the last layer sees everything. llama.cpp
/// knows it by the architecture; a layer that is not known to slide counts in full.
const SLIDING_PATTERNS: [(&str, u64); 10] = [
    ("afmoe", 4),
    ("cohere2", 4),
    ("exaone4", 4),
    ("gemma2", 2),
    ("gemma3", 6),
    ("gemma3n", 5),
    ("gpt-oss", 2),
    ("llama4", 4),
    ("olmo2", 4),
    ("smallthinker", 4),
];

/// Returns the number of layers.
pub(super) fn layer_count(metadata: &Metadata) -> u64 {
    metadata.block_count.unwrap_or(0).min(MAX_LAYERS)
}

/// Returns the bytes that one layer keeps, over all slots.
pub(super) fn layer_bytes(metadata: &Metadata, layer: u64, demand: &MemoryDemand) -> u64 {
    let MemoryOptions { keys, values, .. } = demand.options;
    let slots = demand.slots.max(1);
    let heads = if is_encoder(metadata) { 0 } else { kv_heads(metadata, layer) };
    let [key, value] = head_lengths(metadata, layer);
    let row = keys.row_bytes(heads.saturating_mul(key)).saturating_add(values.row_bytes(heads.saturating_mul(value)));
    let cache = row.saturating_mul(cells(metadata, layer, demand)).saturating_mul(slots);
    cache.saturating_add(state_bytes(metadata, layer).saturating_mul(slots))
}

/// Returns the tokens that this layer keeps for one slot.
pub(super) fn cells(metadata: &Metadata, layer: u64, demand: &MemoryDemand) -> u64 {
    let all = demand.context_of_slot();
    let kept = match metadata.shape.sliding_window {
        Some(window) if !demand.options.keeps_whole_window && is_sliding(metadata, layer) => {
            all.min(window.saturating_add(demand.options.batch))
        }
        _ => all,
    };
    kept.div_ceil(CELL_STEP).saturating_mul(CELL_STEP)
}

/// Returns whether the layer sees only the last tokens.
pub(super) fn is_sliding(metadata: &Metadata, layer: u64) -> bool {
    let of_architecture = || SLIDING_PATTERNS.iter().find(|(name, _)| *name == metadata.architecture);
    let window = metadata.shape.sliding_window.unwrap_or(0);
    let pattern = match &metadata.shape.sliding_pattern {
        Some(PerLayer::Each(flags)) => return window > 0 && flags.get(layer as usize).is_some_and(|flag| *flag != 0),
        Some(PerLayer::Same(length)) => *length,
        None => of_architecture().map_or(0, |(_, length)| *length),
    };
    window > 0 && pattern > 0 && layer % pattern < pattern - 1
}

/// Returns the number of heads for keys and values; 0 in layers without attention.
fn kv_heads(metadata: &Metadata, layer: u64) -> u64 {
    let heads = metadata.head_count_kv.as_ref().or(metadata.head_count.as_ref());
    let has_attention =
        metadata.shape.attention_interval.is_none_or(|every| every == 0 || (layer + 1).is_multiple_of(every));
    heads.filter(|_| has_attention).map_or(0, |heads| heads.at(layer as usize))
}

/// Returns the lengths of a key and of a value in one head.
fn head_lengths(metadata: &Metadata, layer: u64) -> [u64; 2] {
    let shape = &metadata.shape;
    let sliding = is_sliding(metadata, layer).then_some([shape.sliding_key_length, shape.sliding_value_length]);
    let [key, value] = sliding.unwrap_or_default();
    let default = || default_head_length(metadata);
    [key.or(metadata.key_length), value.or(metadata.value_length)].map(|length| length.unwrap_or_else(default))
}

/// Returns the length of a key or value if the file does not give it, as llama.cpp computes it.
fn default_head_length(metadata: &Metadata) -> u64 {
    metadata.embedding_length.unwrap_or(0).checked_div(query_heads(metadata)).unwrap_or(0)
}

/// Returns the largest number of attention heads of a layer: hybrid models have layers without attention, with 0 of them.
pub(super) fn query_heads(metadata: &Metadata) -> u64 {
    match &metadata.head_count {
        Some(PerLayer::Same(heads)) => *heads,
        Some(PerLayer::Each(heads)) => heads.iter().copied().max().unwrap_or(0),
        None => 0,
    }
}

/// Returns the longest key of a head.
pub(super) fn key_length(metadata: &Metadata) -> u64 {
    metadata.key_length.unwrap_or_else(|| default_head_length(metadata))
}

/// Returns the bytes of the state that a layer without attention, or beside it, keeps of one sequence.
fn state_bytes(metadata: &Metadata, layer: u64) -> u64 {
    let shape = &metadata.shape;
    let width = metadata.embedding_length.unwrap_or(0);
    let numbers = if let (Some(tokens), true) = (shape.short_convolution, kv_heads(metadata, layer) == 0) {
        width.saturating_mul(tokens.saturating_sub(1))
    } else if let (Some(tokens), Some(inner), Some(length)) = (shape.convolution, shape.state_width, shape.state_length)
    {
        if !has_state(metadata, layer) {
            return 0;
        }
        let groups = shape.state_groups.unwrap_or(0).saturating_mul(length).saturating_mul(2);
        let convolution = tokens.saturating_sub(1).saturating_mul(inner.saturating_add(groups));
        convolution.saturating_add(inner.saturating_mul(length))
    } else if let Some(head) = shape.wkv_head {
        width.saturating_mul(head.saturating_add(shape.token_shifts.unwrap_or(2)))
    } else {
        return 0;
    };
    numbers.saturating_mul(STATE_NUMBER_BYTES)
}

/// Returns whether a layer of a model with states has one: those without attention if some have none, else all.
fn has_state(metadata: &Metadata, layer: u64) -> bool {
    let is_hybrid = (0..layer_count(metadata)).any(|other| kv_heads(metadata, other) == 0);
    !is_hybrid || kv_heads(metadata, layer) == 0
}
