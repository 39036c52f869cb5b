//! Whether a model fits into the memory that there is, and with how many layers or tokens it does: pure.

use serde::Serialize;

use super::buffers::{MemoryEstimate, weight_bytes};
use super::cache::{layer_bytes, layer_count};
use super::demand::MemoryDemand;
use crate::models::gguf::Metadata;

/// The fewest tokens of context of a slot with which a model is of use.
const LEAST_CONTEXT: u64 = 512;
/// Contexts are proposed in steps of this.
const CONTEXT_STEP: u64 = 256;
/// The longest context that is proposed for a model that does not say for how many tokens it was trained.
const LONGEST_CONTEXT: u64 = 1 << 20;

/// The memory that there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Of a GPU. Layers that do not fit there are computed on the CPU.
    Gpu {
        /// Of the GPU.
        gpu: u64,
        /// Of the host beside it, if that is known.
        host: Option<u64>,
    },
    /// Of the host alone.
    Host(u64),
}

/// What fits of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FitReport {
    /// The buffers of the model, without its projector.
    #[serde(flatten)]
    pub estimate: MemoryEstimate,
    /// Bytes of the projector.
    pub projector: u64,
    /// Bytes that are needed where the memory was compared: on the GPU with all layers there, or on the host.
    pub needed: u64,
    /// Bytes that there are.
    pub memory: u64,
    /// Whether all of it fits with the context that was asked for.
    pub fits: bool,
    /// Number of layers of the model.
    pub layers: u64,
    /// The most layers that fit on the GPU with the context that was asked for; `None` without a GPU.
    pub ngl: Option<u64>,
    /// The longest context of a slot with which all of it fits; `None` if none does.
    pub ctx: Option<u64>,
    /// Whether it runs on the host alone with the shortest context; `None` if the host's memory is not known.
    pub fits_host: Option<bool>,
}

impl FitReport {
    /// Compares a model with the memory that there is. `file_bytes` and `projector` are the sizes of its files.
    #[must_use]
    pub fn of(metadata: &Metadata, file_bytes: u64, projector: u64, demand: &MemoryDemand, limit: MemoryLimit) -> Self {
        let model = SizedModel { metadata, file_bytes, projector };
        let layers = layer_count(metadata);
        let (memory, host) = match limit {
            MemoryLimit::Gpu { gpu, host } => (gpu, host),
            MemoryLimit::Host(host) => (host, Some(host)),
        };
        let needed_with = |demand: &MemoryDemand| match limit {
            MemoryLimit::Gpu { .. } => model.gpu_bytes(demand, layers + 1),
            MemoryLimit::Host(_) => model.all_bytes(demand),
        };
        let needed = needed_with(demand);
        let is_of_gpu = matches!(limit, MemoryLimit::Gpu { .. });
        let with_context = |context: u64| with_context(demand, context);
        Self {
            estimate: MemoryEstimate::of(metadata, file_bytes, demand),
            projector,
            needed,
            memory,
            fits: needed <= memory,
            layers,
            ngl: is_of_gpu.then(|| most_layers(layers + 1, |count| model.gpu_bytes(demand, count) <= memory)),
            ctx: longest_context(metadata, |context| needed_with(&with_context(context)) <= memory),
            fits_host: host.map(|host| model.all_bytes(&with_context(LEAST_CONTEXT)) <= host),
        }
    }
}

/// A model with the sizes of its files.
struct SizedModel<'a> {
    metadata: &'a Metadata,
    file_bytes: u64,
    projector: u64,
}

impl SizedModel<'_> {
    /// Returns the bytes on the host if all of it is there.
    fn all_bytes(&self, demand: &MemoryDemand) -> u64 {
        MemoryEstimate::of(self.metadata, self.file_bytes, demand).total().saturating_add(self.projector)
    }

    /// Returns the bytes on the GPU with this many layers there, the last ones first; one more than there are layers means
    /// the output too.
    fn gpu_bytes(&self, demand: &MemoryDemand, count: u64) -> u64 {
        let layers = layer_count(self.metadata);
        let on_gpu = layers.saturating_sub(count)..layers;
        let caches = on_gpu.clone().map(|layer| layer_bytes(self.metadata, layer, demand));
        let weights = on_gpu.map(|layer| self.layer_weights(layer));
        let output = if count > layers { self.output_weights() } else { 0 };
        let compute = MemoryEstimate::of(self.metadata, self.file_bytes, demand).compute;
        caches.chain(weights).chain([output, compute, self.projector]).fold(0, u64::saturating_add)
    }

    /// Returns the weights of one layer. What headers that were not read hold is spread over all layers.
    fn layer_weights(&self, layer: u64) -> u64 {
        let weights = &self.metadata.shape.weights;
        let known = weights.layers.iter().copied().fold(0, u64::saturating_add);
        let all = weight_bytes(self.metadata, self.file_bytes);
        let unknown = all.saturating_sub(known.saturating_add(weights.input).saturating_add(weights.output));
        let own = usize::try_from(layer).ok().and_then(|layer| weights.layers.get(layer)).copied().unwrap_or(0);
        own.saturating_add(unknown.checked_div(layer_count(self.metadata)).unwrap_or(0))
    }

    /// Returns the weights of the output. A model that computes it with its embeddings has these on the GPU a second time.
    fn output_weights(&self) -> u64 {
        let weights = &self.metadata.shape.weights;
        let shared = if weights.has_output { 0 } else { weights.input };
        weights.output.saturating_add(shared)
    }
}

fn with_context(demand: &MemoryDemand, context: u64) -> MemoryDemand {
    MemoryDemand { ctx_total: context.saturating_mul(demand.slots.max(1)), ..*demand }
}

/// Returns the largest number up to `most` with which `fits` holds; 0 if it never does. More layers never need less.
fn most_layers(most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    largest(0, most, fits).unwrap_or(0)
}

/// Returns the longest context up to the one that the model was trained for with which `fits` holds.
fn longest_context(metadata: &Metadata, fits: impl Fn(u64) -> bool) -> Option<u64> {
    let trained = metadata.context_length.unwrap_or(LONGEST_CONTEXT).clamp(LEAST_CONTEXT, LONGEST_CONTEXT);
    if fits(trained) {
        return Some(trained);
    }
    let steps = largest(LEAST_CONTEXT / CONTEXT_STEP, trained / CONTEXT_STEP, |steps| fits(steps * CONTEXT_STEP));
    steps.map(|steps| steps * CONTEXT_STEP)
}

/// Returns the largest number of a range, both ends included, with which `fits` holds, if it holds up to there.
fn largest(least: u64, most: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    if least > most || !fits(least) {
        return None;
    }
    let (mut good, mut beyond) = (least, most + 1);
    while beyond - good > 1 {
        let middle = good + (beyond - good) / 2;
        match fits(middle) {
            true => good = middle,
            false => beyond = middle,
        }
    }
    Some(good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::models::estimate::demand::MemoryOptions;
    use crate::models::gguf::{ModelShape, PerLayer, WeightBytes};

    const MIB: u64 = 1 << 20;

    /// Ten layers of 100 MiB with 1 MiB of cache for 256 tokens each, and 50 MiB of embeddings.
    fn model() -> Metadata {
        Metadata {
            architecture: "llama".to_owned(),
            block_count: Some(10),
            embedding_length: Some(1024),
            head_count: Some(PerLayer::Same(8)),
            context_length: Some(32768),
            tensor_bytes: 1050 * MIB,
            shape: ModelShape {
                feed_forward: Some(PerLayer::Same(1024)),
                weights: WeightBytes { layers: vec![100 * MIB; 10], input: 50 * MIB, output: 0, has_output: false },
                ..ModelShape::default()
            },
            ..Metadata::default()
        }
    }

    fn fit(context: u64, gpu: u64) -> FitReport {
        let demand = MemoryDemand { ctx_total: context, slots: 1, options: MemoryOptions::default() };
        FitReport::of(&model(), 1050 * MIB, 0, &demand, MemoryLimit::Gpu { gpu, host: Some(2000 * MIB) })
    }

    #[test]
    fn what_does_not_fit_is_told_with_what_does() {
        let all = fit(8192, 4000 * MIB);
        assert!(all.fits && all.ngl == Some(11) && all.ctx == Some(32768), "{all:?}");
        assert_eq!(all.needed, (1000 + 50 + 320) * MIB + all.estimate.compute);
        let some = fit(8192, 700 * MIB);
        assert!(!some.fits && some.ctx.is_none() && some.fits_host == Some(true), "{some:?}");
        // Each layer takes 132 MiB.
        assert_eq!(some.ngl, Some((700 * MIB - some.estimate.compute) / (132 * MIB)));
        let shorter = fit(32768, 1500 * MIB);
        assert!(!shorter.fits && shorter.ctx.is_some_and(|ctx| (8192..12000).contains(&ctx)), "{shorter:?}");
        let demand = MemoryDemand { ctx_total: 512, slots: 1, options: MemoryOptions::default() };
        let none = FitReport::of(&model(), 1050 * MIB, 0, &demand, MemoryLimit::Host(800 * MIB));
        assert_eq!((none.fits, none.ngl, none.ctx, none.fits_host), (false, None, None, Some(false)));
    }

    proptest! {
        #[test]
        fn what_is_proposed_fits_and_more_does_not(context in 1u64..200_000, gpu in any::<u32>(), slots in 1u64..9) {
            let demand = MemoryDemand { ctx_total: context * slots, slots, options: MemoryOptions::default() };
            let report = |demand: &MemoryDemand| {
                let limit = MemoryLimit::Gpu { gpu: gpu.into(), host: None };
                FitReport::of(&model(), 1050 * MIB, 7, demand, limit)
            };
            let found = report(&demand);
            prop_assert_eq!(found.fits, found.ngl == Some(11));
            if let Some(ctx) = found.ctx {
                prop_assert!(report(&with_context(&demand, ctx)).fits);
                prop_assert!(ctx == 32768 || !report(&with_context(&demand, ctx + CONTEXT_STEP)).fits);
            }
        }

        #[test]
        fn any_header_gives_a_report(
            layers in any::<u64>(), width in any::<u64>(), bytes in any::<u64>(), ctx in any::<u64>(), slots in any::<u64>(),
            window in prop::option::of(any::<u64>()), every in prop::option::of(any::<u64>()), gpu in any::<u64>(),
        ) {
            let shape = ModelShape {
                sliding_window: window, sliding_pattern: every.map(PerLayer::Same), attention_interval: every,
                state_width: window, state_length: every, convolution: window, ..ModelShape::default()
            };
            let metadata = Metadata {
                block_count: Some(layers), embedding_length: Some(width), context_length: every,
                head_count: Some(PerLayer::Same(width)), shape, ..Metadata::default()
            };
            let demand = MemoryDemand { ctx_total: ctx, slots, options: MemoryOptions::default() };
            let limit = MemoryLimit::Gpu { gpu, host: Some(bytes) };
            let report = FitReport::of(&metadata, bytes, bytes, &demand, limit);
            prop_assert!(report.estimate.total() >= bytes);
        }
    }
}
