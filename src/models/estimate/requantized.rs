//! What the header of another quantisation of a model says, by the sizes of the files: pure.
//!
//! Layers, heads and context are the same in all of them; only the weights differ, about as much as the files do.

use crate::models::gguf::{Metadata, WeightBytes};

/// Returns the metadata of a quantisation whose files have `bytes`, out of those of one whose files have `of_bytes`.
#[must_use]
pub fn requantized(metadata: &Metadata, of_bytes: u64, bytes: u64) -> Metadata {
    let scaled = |part: u64| {
        let product = u128::from(part) * u128::from(bytes);
        u64::try_from(product.checked_div(of_bytes.into()).unwrap_or(part.into())).unwrap_or(u64::MAX)
    };
    let mut other = metadata.clone();
    let WeightBytes { layers, input, output, has_output } = &metadata.shape.weights;
    other.tensor_bytes = scaled(metadata.tensor_bytes);
    other.shape.weights = WeightBytes {
        layers: layers.iter().map(|layer| scaled(*layer)).collect(),
        input: scaled(*input),
        output: scaled(*output),
        has_output: *has_output,
    };
    other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::estimate::{FitReport, MemoryDemand, MemoryLimit, MemoryOptions};
    use crate::models::gguf::{ModelShape, PerLayer};

    #[test]
    fn a_file_of_half_the_size_has_half_the_weights_and_the_same_cache() {
        let mut metadata = Metadata {
            block_count: Some(4),
            embedding_length: Some(64),
            head_count: Some(PerLayer::Same(4)),
            tensor_bytes: 1000,
            ..Metadata::default()
        };
        let weights = WeightBytes { layers: vec![200; 4], input: 100, output: 100, has_output: true };
        metadata.shape = ModelShape { weights, ..ModelShape::default() };
        let half = requantized(&metadata, 1000, 500);
        assert_eq!((half.tensor_bytes, &half.shape.weights.layers), (500, &vec![100; 4]));
        let demand = MemoryDemand { ctx_total: 512, slots: 1, options: MemoryOptions::default() };
        let report =
            |metadata: &Metadata, bytes| FitReport::of(metadata, bytes, 0, &demand, MemoryLimit::Host(1 << 30));
        let (whole, half) = (report(&metadata, 1000), report(&half, 500));
        assert_eq!((half.estimate.weights, half.estimate.cache), (500, whole.estimate.cache));
        assert_eq!(requantized(&metadata, 0, 500), metadata, "without a size there is nothing to compare");
    }
}
