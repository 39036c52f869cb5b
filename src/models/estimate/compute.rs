//! The buffers that llama-server computes in, with flash attention, which it turns on by itself where it can.
//!
//! The shape of the formulas follows the graph of llama.cpp; their numbers are those of its logs, on the safe side.
//! docs/GPU_MEMORY.md has the comparison.

use super::cache::{cells, is_sliding, key_length, layer_count, query_heads};
use super::demand::MemoryDemand;
use crate::models::gguf::{Metadata, PerLayer};
use crate::models::kind::is_encoder;

/// Bytes of an f32.
const NUMBER_BYTES: u64 = 4;
/// Bytes of a token in the mask of a token, which is f16.
const MASK_BYTES: u64 = 2;
/// Buffers of the width of the feed-forward layer that exist at the same time.
const INNER_BUFFERS: u64 = 4;
/// Buffers of the width of the model beside them.
const WIDTH_BUFFERS: u64 = 3;
/// Buffers of the width of the queries that attention needs.
const QUERY_BUFFERS: u64 = 3;
/// Buffers of the width of a state layer.
const STATE_BUFFERS: u64 = 7;
/// The width of a feed-forward layer, in widths of the model, if the file does not give it.
const USUAL_INNER: u64 = 4;

/// Returns the size of the compute buffer in bytes.
pub(super) fn compute_bytes(metadata: &Metadata, demand: &MemoryDemand) -> u64 {
    let batch = batch_tokens(metadata, demand);
    let activations = numbers_of_token(metadata).saturating_mul(NUMBER_BYTES);
    activations.saturating_add(mask_bytes(metadata, demand, batch)).saturating_mul(batch)
}

/// Returns the size in bytes of the buffer for the results: the logits of one token of each slot.
pub(super) fn output_bytes(metadata: &Metadata, demand: &MemoryDemand) -> u64 {
    let width = match is_encoder(metadata) {
        true => metadata.embedding_length,
        false => metadata.vocabulary_size,
    };
    width.unwrap_or(0).saturating_mul(demand.slots.max(1)).saturating_mul(NUMBER_BYTES)
}

/// Returns the tokens that are computed at once. An encoder needs the whole text at once, so its batch is as long as the
/// context of a slot.
fn batch_tokens(metadata: &Metadata, demand: &MemoryDemand) -> u64 {
    match is_encoder(metadata) {
        true => demand.context_of_slot(),
        false => demand.options.batch.min(demand.ctx_total),
    }
}

/// Returns the bytes of the masks of one token: which tokens it sees, in layers of each kind.
fn mask_bytes(metadata: &Metadata, demand: &MemoryDemand, batch: u64) -> u64 {
    if is_encoder(metadata) {
        return batch.saturating_mul(MASK_BYTES);
    }
    let longest = |slides: bool| {
        let layers = (0..layer_count(metadata)).filter(|layer| is_sliding(metadata, *layer) == slides);
        layers.map(|layer| cells(metadata, layer, demand)).max().unwrap_or(0)
    };
    longest(true).saturating_add(longest(false)).saturating_mul(MASK_BYTES)
}

/// Returns the numbers that exist of one token at the same time.
fn numbers_of_token(metadata: &Metadata) -> u64 {
    let shape = &metadata.shape;
    let width = metadata.embedding_length.unwrap_or(0);
    let inner = match &shape.feed_forward {
        Some(PerLayer::Same(inner)) => *inner,
        Some(PerLayer::Each(inner)) => inner.iter().copied().max().unwrap_or(0),
        None => width.saturating_mul(USUAL_INNER),
    };
    let experts = shape.experts_used.unwrap_or(0);
    let of_experts = shape.expert_feed_forward.unwrap_or(inner).saturating_mul(INNER_BUFFERS).saturating_add(width);
    let queries = query_heads(metadata).saturating_mul(key_length(metadata)).saturating_mul(QUERY_BUFFERS);
    let states = shape.state_width.unwrap_or(0).saturating_mul(STATE_BUFFERS);
    let largest = inner.saturating_mul(INNER_BUFFERS).max(of_experts.saturating_mul(experts)).max(queries).max(states);
    largest.saturating_add(width.saturating_mul(WIDTH_BUFFERS))
}
