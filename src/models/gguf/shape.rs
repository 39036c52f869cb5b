//! What a header tells of the shape of a model beyond its heads: what its memory depends on.

use super::bounds::MAX_LAYERS;

/// A number that is the same for all layers or given layer by layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerLayer {
    /// One number for all layers.
    Same(u64),
    /// One number for each layer, first layer first.
    Each(Vec<u64>),
}

impl PerLayer {
    /// Returns the number for this layer; 0 beyond the list.
    #[must_use]
    pub fn at(&self, layer: usize) -> u64 {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values.get(layer).copied().unwrap_or(0),
        }
    }
}

/// The shape of a model, as far as its memory depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelShape {
    /// Width of the feed-forward layers.
    pub feed_forward: Option<PerLayer>,
    /// Width of the feed-forward layers of one expert.
    pub expert_feed_forward: Option<u64>,
    /// Number of experts that compute a token.
    pub experts_used: Option<u64>,
    /// Tokens that layers with a sliding window see.
    pub sliding_window: Option<u64>,
    /// Which layers have a sliding window: one flag for each, or the length of the pattern, whose last layer has none.
    pub sliding_pattern: Option<PerLayer>,
    /// Length of a key in layers with a sliding window, if it differs.
    pub sliding_key_length: Option<u64>,
    /// Length of a value in layers with a sliding window, if it differs.
    pub sliding_value_length: Option<u64>,
    /// Each layer of this number has attention, the others have a state.
    pub attention_interval: Option<u64>,
    /// Tokens that the convolution of a state layer looks back, with the one that it is at.
    pub convolution: Option<u64>,
    /// Width of a state layer.
    pub state_width: Option<u64>,
    /// Numbers that a state layer keeps for each column of its width.
    pub state_length: Option<u64>,
    /// Number of groups of a state layer.
    pub state_groups: Option<u64>,
    /// Tokens that a short convolution (LFM2) looks back, with the one that it is at.
    pub short_convolution: Option<u64>,
    /// Length of a head of RWKV.
    pub wkv_head: Option<u64>,
    /// Tokens that each layer of RWKV shifts.
    pub token_shifts: Option<u64>,
    /// Bytes of the weights, by where they are used.
    pub weights: WeightBytes,
}

/// Bytes of a model's tensors, saturating.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Of each layer, at most [`MAX_LAYERS`].
    pub layers: Vec<u64>,
    /// Of the embeddings of tokens, which are looked up on the CPU.
    pub input: u64,
    /// Of all that belongs to no layer and is no embedding of tokens.
    pub output: u64,
    /// Whether the output has weights of its own; else it computes with the embeddings.
    pub has_output: bool,
}

impl WeightBytes {
    /// Adds a tensor.
    pub(super) fn add(&mut self, name: &[u8], bytes: u64) {
        let sum = match layer_of(name) {
            Some(layer) => {
                if self.layers.len() <= layer {
                    self.layers.resize(layer + 1, 0);
                }
                self.layers.get_mut(layer)
            }
            None if name.starts_with(b"token_embd.") || name.starts_with(b"per_layer_token_embd.") => {
                Some(&mut self.input)
            }
            None => Some(&mut self.output),
        };
        if let Some(sum) = sum {
            *sum = sum.saturating_add(bytes);
        }
        self.has_output |= name == b"output.weight";
    }

    /// Adds the tensors of a further part of a split model.
    pub(in crate::models) fn merge(&mut self, more: &Self) {
        self.layers.resize(self.layers.len().max(more.layers.len()), 0);
        for (sum, bytes) in self.layers.iter_mut().zip(&more.layers) {
            *sum = sum.saturating_add(*bytes);
        }
        self.input = self.input.saturating_add(more.input);
        self.output = self.output.saturating_add(more.output);
        self.has_output |= more.has_output;
    }
}

/// Returns the number of the layer in `blk.NUMBER.NAME`.
fn layer_of(name: &[u8]) -> Option<usize> {
    let rest = std::str::from_utf8(name.strip_prefix(b"blk.")?).ok()?;
    let layer = rest.split('.').next()?.parse::<usize>().ok()?;
    (layer < usize::try_from(MAX_LAYERS).unwrap_or(usize::MAX)).then_some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_counted_where_they_are_used() {
        let mut weights = WeightBytes::default();
        for (name, bytes) in [
            ("token_embd.weight", 100),
            ("blk.1.attn_q.weight", 7),
            ("blk.1.ffn_up.weight", 3),
            ("blk.999999.x", 5),
            ("output_norm.weight", 1),
        ] {
            weights.add(name.as_bytes(), bytes);
        }
        // A layer that no model has counts as what belongs to no layer.
        assert_eq!((weights.input, weights.output, weights.has_output), (100, 6, false));
        assert_eq!(weights.layers, [0, 10]);
        let mut part = WeightBytes::default();
        part.add(b"blk.2.x", 4);
        part.add(b"output.weight", 50);
        weights.merge(&part);
        assert_eq!((weights.layers, weights.output, weights.has_output), (vec![0, 10, 4], 56, true));
    }
}
